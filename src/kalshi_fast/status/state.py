"""Everything the status process has been told, put together: totals, rates, a history, markets, ladders.

One lock, short steps; whoever answers a request takes copies. Not here: what is healthy (``health``), how it
is written down (``metrics``, ``http``).
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast.lags import LE_NS
from kalshi_fast.status.damage import Damage
from kalshi_fast.status.figures import AskLadder, Capture, Ladder, Markets, Writing
from kalshi_fast.status.usage import Usage, usage

if TYPE_CHECKING:
    from collections.abc import Callable

    from kalshi_fast.status.figures import Histogram, MarketRow, Message

HISTORY_S: Final = 300
UNKNOWN_S: Final = 30.0  # books that stay unknown for so long are a failure
RATE_S: Final = 5.0  # rates of markets are over so long
TIDY_S: Final = 60.0
FORGET_S: Final = 86_400.0  # a market whose book is not known and of which nothing comes
LADDER_MAX_AGE_S: Final = 0.3
LADDER_WAIT_S: Final = 1.0
ASKS_PER_S: Final = 20
_MAX_LADDERS: Final = 1000


@dataclass(slots=True)
class Point:
    """One second of the charts. Rates are per second, lags of the rows of that second, None without rows."""

    at_ns: int
    frames: float = 0.0
    events: float = 0.0
    rows: dict[str, float] = field(default_factory=dict)
    to_row_p50_us: float | None = None
    to_row_p99_us: float | None = None
    queryable_p50_us: float | None = None
    queryable_p99_us: float | None = None
    queue_batches: int = 0
    journal_bytes: int = 0


@dataclass(slots=True)
class _Market:
    """``before``: events and gaps that earlier writer processes have counted."""

    row: MarketRow
    samples: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=64))  # when, events
    before: tuple[int, int] = (0, 0)

    @property
    def events(self) -> int:
        return self.before[0] + self.row.events

    @property
    def gaps(self) -> int:
        return self.before[1] + self.row.gaps


class State:
    """``hear`` what comes in; ``ladder`` asks the capture process through ``ask``."""

    def __init__(
        self, ask: Callable[[AskLadder], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.lock = threading.Lock()
        self.capture: Capture | None = None
        self.capture_at = 0.0
        self.writing: Writing | None = None
        self.writing_at = 0.0
        self.began_at = clock()
        self.history: deque[Point] = deque(maxlen=HISTORY_S)
        self.damage = Damage()
        self._ask = ask
        self._clock = clock
        self._writer_pid = 0
        self._tidied = clock()
        self._markets: dict[str, _Market] = {}
        self._unknown: deque[tuple[float, int]] = deque()
        self._ladders: dict[str, tuple[float, Ladder]] = {}
        self._ladder_came = threading.Condition(self.lock)
        self._asked: deque[float] = deque()
        self._before: tuple[float, Capture, Writing | None] | None = None

    @property
    def now(self) -> float:
        return self._clock()

    # --- what is told -----------------------------------------------------------------------------

    def hear(self, message: Message) -> None:
        with self.lock:
            now = self._clock()
            if isinstance(message, Capture):
                self._hear_capture(message, now)
            elif isinstance(message, Writing):
                self._hear_of_writer(message.pid)
                self.writing, self.writing_at = message, now
            elif isinstance(message, Markets):
                self._hear_of_writer(message.pid)
                for row in message.rows:
                    market = self._markets.setdefault(row.ticker, _Market(row))
                    if not row.since_ns:  # this writer process has not been told yet, an earlier one was
                        row.known, row.since_ns = market.row.known, market.row.since_ns
                    market.row = row
                    market.samples.append((now, market.events))
                self._tidy(now)
            elif isinstance(message, Ladder):
                if len(self._ladders) >= _MAX_LADDERS:
                    self._ladders.clear()
                self._ladders[message.ticker] = (now, message)
                self._ladder_came.notify_all()

    def _tidy(self, now: float) -> None:
        """Of what has been silent for long no more is kept than needed: markets come and go for months."""
        if now - self._tidied < TIDY_S:
            return
        self._tidied = now
        for ticker, market in list(self._markets.items()):
            silent_s = now - market.samples[-1][0]
            if silent_s > FORGET_S and not market.row.known:
                del self._markets[ticker]
            elif silent_s > RATE_S and len(market.samples) > 1:
                market.samples = deque([market.samples[-1]], maxlen=64)

    def _hear_of_writer(self, pid: int) -> None:
        """A new writer process counts anew; what the earlier one counted stays true."""
        if self._writer_pid not in (0, pid):
            self._before = None
            for market in self._markets.values():
                market.before = (market.events, market.gaps)
                market.row = msgspec.structs.replace(market.row, events=0, gaps=0)
        self._writer_pid = pid

    def _hear_capture(self, capture: Capture, now: float) -> None:
        self.capture, self.capture_at = capture, now
        self.damage.hear(capture, now)
        self._unknown.append(
            (now, max(0, capture.markets_wanted - capture.markets_known - capture.markets_absent))
        )
        while len(self._unknown) > 1 and self._unknown[1][0] <= now - UNKNOWN_S:
            self._unknown.popleft()
        if self._before is None:
            self._before = (now, capture, self.writing)
        elif now - self._before[0] >= 1.0:
            self.history.append(self._point(*self._before, now))
            self._before = (now, capture, self.writing)

    def _point(self, then: float, capture: Capture, writing: Writing | None, now: float) -> Point:
        present = self.capture
        assert present is not None  # noqa: S101 - just heard
        elapsed = now - then
        point = Point(
            present.at_ns,
            frames=(present.frames - capture.frames) / elapsed,
            events=(present.events - capture.events) / elapsed,
            queue_batches=present.queue_batches,
        )
        if self.writing is not None:
            point.journal_bytes = self.writing.journal_bytes
            if writing is not None and self.writing is not writing:
                between = max((self.writing.at_ns - writing.at_ns) / 1e9, 1e-3)
                for store, rows in self.writing.rows.items():
                    point.rows[store] = (rows - writing.rows.get(store, 0)) / between
                lags = {
                    name: _between(writing.histograms.get(name), present_one)
                    for name, present_one in self.writing.histograms.items()
                }
                point.to_row_p50_us = percentile_us(lags.get("wire_to_row"), 50)
                point.to_row_p99_us = percentile_us(lags.get("wire_to_row"), 99)
                point.queryable_p50_us = percentile_us(lags.get("wire_to_queryable"), 50)
                point.queryable_p99_us = percentile_us(lags.get("wire_to_queryable"), 99)
        return point

    # --- what is asked ----------------------------------------------------------------------------

    def unknown_for_long(self) -> int:
        """At least so many books have been unknown at every moment of the last UNKNOWN_S. With the lock."""
        if not self._unknown or self._clock() - self._unknown[0][0] < UNKNOWN_S:
            return 0
        return min(count for _, count in self._unknown)

    def markets(self) -> list[dict[str, Any]]:
        """Every market with rows so far, the busiest first."""
        with self.lock:
            now = self._clock()
            found: list[dict[str, Any]] = [
                {
                    "ticker": ticker,
                    "events": market.events,
                    "events_per_s": _rate(market.samples, now),
                    "gaps": market.gaps,
                    "known": market.row.known,
                    "since_ns": market.row.since_ns,
                    "last_ns": market.row.last_ns,
                    "lag_us": market.row.lag_us,
                }
                for ticker, market in self._markets.items()
            ]
        found.sort(key=lambda market: (-market["events_per_s"], -market["events"], market["ticker"]))
        return found

    def ladder(self, ticker: str) -> Ladder | None:
        """The book of a market, at most LADDER_MAX_AGE_S old; None when the capture process does not answer
        or has been asked enough."""
        with self.lock:
            now = self._clock()
            at, found = self._ladders.get(ticker, (0.0, None))
            if found is not None and now - at <= LADDER_MAX_AGE_S:
                return found
            while self._asked and self._asked[0] <= now - 1.0:
                self._asked.popleft()
            if len(self._asked) >= ASKS_PER_S:
                return None
            self._asked.append(now)
            self._ask(AskLadder(ticker))
            self._ladder_came.wait_for(
                lambda: self._ladders.get(ticker, (0.0, None))[0] > at, timeout=LADDER_WAIT_S
            )
            came, found = self._ladders.get(ticker, (0.0, None))
            return found if came > at else None

    def processes(self) -> dict[str, Usage]:
        """Memory and processor time, by process, as far as the system tells."""
        capture, pids = self.capture, {"status": os.getpid()}
        if capture is not None:
            pids |= {"capture": capture.pid, "writer": capture.writer_pid}
        return {name: found for name, pid in pids.items() if pid and (found := usage(pid)) is not None}


def _rate(samples: deque[tuple[float, int]], now: float) -> float:
    """Events a second over the last RATE_S, as far as we have heard."""
    while len(samples) > 1 and samples[1][0] <= now - RATE_S:
        samples.popleft()
    if len(samples) < 2 or samples[-1][0] <= now - RATE_S:
        return 0.0
    (then, before), (_, events) = samples[0], samples[-1]
    return max(0, events - before) / max(min(now - then, RATE_S), 1e-3)


def _between(before: Histogram | None, now: Histogram) -> list[int]:
    """How many of the new ones are in each bucket; the last one has those above all bounds."""
    cumulative = [*now.cumulative, now.count]
    if before is not None:
        earlier = [*before.cumulative, before.count]
        cumulative = [a - b for a, b in zip(cumulative, earlier, strict=True)]
    return [count - less for count, less in zip(cumulative, [0, *cumulative], strict=False)]


def percentile_us(counts: list[int] | None, percent: int) -> float | None:
    """Within the bucket, evenly."""
    total = sum(counts or ())
    if not counts or total <= 0:
        return None
    sought, seen, low = total * percent / 100, 0, 0
    for count, high in zip(counts, LE_NS, strict=False):
        if count and seen + count >= sought:
            return (low + (high - low) * (sought - seen) / count) / 1000
        seen, low = seen + count, high
    return LE_NS[-1] / 1000
