"""Recordings played as frames of either wire form, each snapshot one frame and each delta one frame.

A market with deltas and no snapshot in the stretch of one connection gets one at its start that the
recording does not have: per level the smallest size with which no delta takes it below zero. Deltas are
never invented.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.deltas import Deltas, times_json
from kalshi_fast.simulator.frames import SIDES, Form, Levels, TrueBook, delta_head, snapshot_body
from kalshi_fast.simulator.grids import coarsest
from kalshi_fast.simulator.reading import Event, Recording, Snapshot
from kalshi_fast.simulator.source import SNAPSHOT, Change, delta

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast._frames import DeltaFrames


class RecordedMarkets:
    """A :class:`Source` that ends with the recording. Raises SimulatorError for what is no recording."""

    def __init__(self, directory: Path, form: Form, *, old_frames: bool = False) -> None:
        self.form = form
        self._old_frames = old_frames or form == "legacy"
        recording = Recording(directory)
        self._books = {ticker: TrueBook(ticker, found) for ticker, found in recording.market_ids.items()}
        self.numbers = {ticker: number for number, ticker in enumerate(self._books)}
        self._events: list[Event] = []
        for number, events in enumerate(recording.segments):
            for ticker, sides in _missing_snapshots(events).items():
                if number == 0:
                    self._books[ticker].replace(sides)  # what a subscriber gets at first
                else:
                    self._events.append(Snapshot(ticker, events[0].at_s, sides))
            self._events += events
        self.structures = self._check()
        self._times_s = self._play_times()
        self._at = 0
        self._behind = 0  # the books are those of before this event, with ``_at`` further on after a ``skip``
        self._deltas: Deltas | None = None

    @property
    def books(self) -> dict[str, TrueBook]:
        """The true books now."""
        if self._behind < self._at and self._deltas is not None:
            numbers = self.delta_number(self._behind), self.delta_number(self._at)
            for ticker, side, price_e4, delta_e2 in self._deltas.net(*numbers):
                self._books[ticker].change(side, price_e4, delta_e2)
            self._behind = self._at
        return self._books

    def __len__(self) -> int:
        """How many frames the play has, the snapshots on subscribing not counted."""
        return len(self._events)

    @property
    def next_at_s(self) -> float:
        return self._times_s[self._at] if self._at < len(self._times_s) else 0.0

    def step(self, now_ns: int) -> Change | None:
        books = self.books
        while self._at < len(self._events):
            event = self._events[self._at]
            self._at = self._behind = self._at + 1
            book = books[event.ticker]
            if isinstance(event, Snapshot):
                book.replace((dict(event.sides[0]), dict(event.sides[1])))
                book.altered = False
                return Change(event.ticker, SNAPSHOT, snapshot_body(book, self.form))
            change = event.delta_e2
            if book.altered:
                # A fault has taken from this market what the recording goes on to take.
                change = max(change, -book.sides[event.side].get(event.price_e4, 0))
                if change == 0:
                    continue
            times = times_json(event, as_recorded=self._old_frames)
            return delta(book, event.side, event.price_e4, change, times, self.form)
        return None

    # --- many at once: see ``express`` -------------------------------------------------------------

    def stretch(self, most: int) -> tuple[int, int]:
        """From where to where the next events, but for so many, are deltas and nothing else."""
        deltas = self._all_deltas()
        return self._at, min(self._at + most, deltas.next_snapshot(self._at))

    def skip(self, stop: int) -> None:
        """The deltas before this event have been played."""
        self._at = stop

    def delta_frames(self) -> DeltaFrames:
        return self._all_deltas().frames([delta_head(book) for book in self._books.values()])

    def delta_number(self, event: int) -> int:
        """How many deltas there are before an event."""
        return self._all_deltas().number(event)

    def _all_deltas(self) -> Deltas:
        if self._deltas is None:
            self._deltas = Deltas(self._events, self.numbers, old_frames=self._old_frames)
        return self._deltas

    def restructure(self, ticker: str, structure: str) -> None:
        self.structures[ticker] = structure

    def _check(self) -> dict[str, str]:
        """That it can be played in this form, and no level falls below zero; the grids that it needs."""
        sides = {ticker: tuple(map(dict, book.sides)) for ticker, book in self._books.items()}
        used: defaultdict[str, set[int]] = defaultdict(set)
        for ticker, book in sides.items():
            used[ticker].update(*book)
        for event in self._events:
            if isinstance(event, Snapshot):
                sides[event.ticker] = (dict(event.sides[0]), dict(event.sides[1]))
                used[event.ticker].update(*event.sides)
                values = [*used[event.ticker], *event.sides[0].values(), *event.sides[1].values()]
            else:
                levels = sides[event.ticker][event.side]
                size = levels[event.price_e4] = levels.get(event.price_e4, 0) + event.delta_e2
                if size < 0:
                    raise SimulatorError(
                        f"--recording: {event.ticker} {SIDES[event.side]} {event.price_e4} falls to {size}"
                        f" at {event.ts}: rows are missing before"
                    )
                used[event.ticker].add(event.price_e4)
                values = [event.price_e4, event.delta_e2]
            if self.form == "legacy" and any(value % 100 for value in values):
                raise SimulatorError(
                    f"--form: legacy has whole cents and contracts only, and {event.ticker} has others"
                )
        return {ticker: coarsest(used[ticker]) for ticker in self._books}

    def _play_times(self) -> list[float]:
        """Per event the recorded seconds since the first; a clock that was set back stands still here."""
        times_s: list[float] = []
        latest = first = self._events[0].at_s if self._events else 0.0
        for event in self._events:
            latest = max(latest, event.at_s)
            times_s.append(latest - first)
        return times_s


def _missing_snapshots(events: list[Event]) -> dict[str, tuple[Levels, Levels]]:
    """For each market whose first event is a delta: the smallest book that bears all of them."""
    running: dict[str, tuple[Levels, Levels]] = {}
    needed: dict[str, tuple[Levels, Levels]] = {}
    settled: set[str] = set()
    for event in events:
        if isinstance(event, Snapshot):
            settled.add(event.ticker)
        elif event.ticker not in settled:
            now = running.setdefault(event.ticker, ({}, {}))[event.side]
            least = needed.setdefault(event.ticker, ({}, {}))[event.side]
            now[event.price_e4] = now.get(event.price_e4, 0) + event.delta_e2
            if -now[event.price_e4] > least.get(event.price_e4, 0):
                least[event.price_e4] = -now[event.price_e4]
    return needed
