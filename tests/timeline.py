"""What the stored events say of one market, in plain Python: what the views must answer the same.

The rules are those of sql/: ``clear`` empties the book and makes it known, ``gap`` makes it unknown, levels
add. Everything is integers; times are nanoseconds, stretches half open.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Book: TypeAlias = dict[tuple[str, int], int]  # (side, price_e4) -> qty_e2


class Event(NamedTuple):
    """A row of orderbook_events, in the order in which it was written."""

    at_ns: int
    seq: int
    kind: str
    side: str = "yes"
    price_e4: int = 0
    qty_e2: int = 0


@dataclass(frozen=True)
class State:
    """The book after a frame (None: unknown), until the next one."""

    since_ns: int
    until_ns: int
    book: Book | None

    def best(self, side: str) -> int | None:
        prices = [price for (of, price), size in (self.book or {}).items() if of == side and size]
        return max(prices, default=None)

    @property
    def quote(self) -> tuple[int, int] | None:
        """Best bid and ask for yes, if both sides have orders."""
        yes, no = self.best("yes"), self.best("no")
        return None if yes is None or no is None else (yes, 10_000 - no)


def states(events: Iterable[Event], until_ns: int) -> list[State]:
    """From long ago until ``until_ns``: unknown at first, then a state for each frame."""
    frames: list[tuple[int, Book | None]] = [(0, None)]
    book: Book | None = None
    last = None
    for event in events:
        if event.at_ns >= until_ns:
            break
        if event.kind == "clear":
            book = {}
        elif event.kind == "gap":
            book = None
        elif book is not None:
            key = (event.side, event.price_e4)
            book = {**book, key: book.get(key, 0) + event.qty_e2}
        frame = (event.at_ns, event.seq, event.kind == "gap")
        if frame == last:
            frames.pop()
        frames.append((event.at_ns, book))
        last = frame
    ends = [at for at, _ in frames[1:]] + [until_ns]
    return [State(at, end, book) for (at, book), end in zip(frames, ends, strict=True)]


def levels(book: Book | None, side: str) -> list[tuple[int, int]]:
    """Price and size, best first."""
    return sorted(((p, size) for (of, p), size in (book or {}).items() if of == side and size), reverse=True)


def book_at(events: Iterable[Event], at_ns: int) -> Book | None:
    return states(events, at_ns + 1)[-1].book


def stretches(events: Iterable[Event], until_ns: int) -> list[State]:
    """The states, as long as neither the best prices change nor whether the book is known."""
    found: list[State] = []
    for state in states(events, until_ns):
        if found and _top(found[-1]) == _top(state):
            state = State(found.pop().since_ns, state.until_ns, state.book)
        found.append(state)
    return found


def _top(state: State) -> tuple[bool, int | None, int | None]:
    return state.book is not None, state.best("yes"), state.best("no")


def best_over_time(events: Iterable[Event], since_ns: int, until_ns: int) -> list[tuple[object, ...]]:
    """(since, until, exact, bid, ask) of every stretch."""
    found: list[tuple[object, ...]] = []
    for state in stretches(events, until_ns):
        exact, bid, no = _top(state)
        if state.until_ns > since_ns or state.since_ns >= since_ns:
            ask = None if no is None else 10_000 - no
            found.append((max(state.since_ns, since_ns), state.until_ns, int(exact), bid, ask))
    return found


def ohlc(events: Iterable[Event], since_ns: int, until_ns: int, step_ns: int) -> list[tuple[object, ...]]:
    """(since, open, high, low, close, the spread's, known, quoted) of every bar; mid in 1/20,000."""
    bars: list[tuple[object, ...]] = []
    timeline = stretches(events, until_ns)
    for start in range(since_ns, until_ns, step_ns):
        end = min(start + step_ns, until_ns)
        inside = [
            state
            for state in timeline
            if max(state.since_ns, start) < min(state.until_ns, end)
            or (state.since_ns == state.until_ns and start <= state.since_ns < end)
        ]
        quotes = [state.quote for state in inside if state.quote is not None]
        mids, spreads = [bid + ask for bid, ask in quotes], [ask - bid for bid, ask in quotes]

        def share(holds: Callable[[State], bool], start: int = start, end: int = end) -> Decimal:
            lasting = sum(
                max(0, min(state.until_ns, end) - max(state.since_ns, start))
                for state in timeline
                if holds(state)
            )
            return Decimal(lasting * 1_000_000 // (end - start)) / 1_000_000

        bars.append(
            (
                start,
                *_ohlc(mids),
                *_ohlc(spreads),
                share(lambda state: state.book is not None),
                share(lambda state: state.quote is not None),
            )
        )
    return bars


def _ohlc(values: list[int]) -> tuple[int | None, ...]:
    return (values[0], max(values), min(values), values[-1]) if values else (None,) * 4


def depth(
    events: list[Event], since_ns: int, until_ns: int, step_ns: int, within_e4: int
) -> list[tuple[object, ...]]:
    """(at, yes, no, yes within, no within, yes levels, no levels) at every instant; sizes in 1/100."""
    found: list[tuple[object, ...]] = []
    for at in range(since_ns, until_ns, step_ns):
        book = book_at(events, at)
        if book is None:
            found.append((at, *[None] * 6))
            continue
        yes, no = levels(book, "yes"), levels(book, "no")
        near = [sum(size for price, size in side if price >= side[0][0] - within_e4) for side in (yes, no)]
        found.append((at, sum(q for _, q in yes), sum(q for _, q in no), *near, len(yes), len(no)))
    return found


def gaps(events: Iterable[Event]) -> list[tuple[int, int | None, int]]:
    """(since, until, first missing seq) of every stretch in which a book became unknown."""
    found: list[tuple[int, int | None, int]] = []
    known = True
    for event in events:
        if event.kind == "gap" and known:
            found.append((event.at_ns, None, event.seq))
            known = False
        elif event.kind == "clear":
            if not known:
                found[-1] = (found[-1][0], event.at_ns, found[-1][2])
            known = True
    return found


def known_ns(events: Iterable[Event], since_ns: int, until_ns: int) -> int:
    return sum(
        max(0, state.until_ns - max(state.since_ns, since_ns))
        for state in states(events, until_ns)
        if state.book is not None
    )
