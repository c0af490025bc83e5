"""Stored events against the truth: do the rows alone rebuild the books that the exchange really had?

The simulator writes checkpoints: the true book of every market that a subscription carries, after a numbered
frame of it. The rows of that subscription up to that number must rebuild the same book, or say that it is
unknown; anything else is wrong. The only rules are those that every reader of the rows has: ``clear`` empties
a book and makes it known, ``gap`` makes it unknown, ``snapshot`` and ``delta`` add to a known one. Not here:
our own books, which this is to be independent of.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Level: TypeAlias = tuple[str, int]  # side, price_e4
Row: TypeAlias = tuple[str, int, int, str, str, int, int]  # ticker, sid, seq, type, side, price_e4, qty_e2
_EXAMPLES = 5


@dataclass(slots=True)
class Comparison:
    """How many (market, checkpoint) pairs were compared and how they came out; a few that were wrong."""

    compared: int = 0
    exact: int = 0
    unknown: int = 0
    wrong: int = 0
    examples: list[str] = field(default_factory=list)


def compare(file: Path, rows: Iterable[Row]) -> Comparison:
    """``rows`` in the order in which they were recorded; sids must be unique in the recording."""
    events: defaultdict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in rows:
        events[row[1], row[0]].append(row)
    result = Comparison()
    readers: dict[tuple[int, str], _Reader] = {}
    with file.open("rb") as lines:
        for line in lines:
            checkpoint = json.loads(line)
            sid, seq = checkpoint["sid"], checkpoint["seq"]
            for ticker, sides in checkpoint["books"].items():
                reader = readers.get((sid, ticker))
                if reader is None:
                    reader = readers[sid, ticker] = _Reader(events.get((sid, ticker), []))
                truth = {(side, price): qty for side, levels in sides.items() for price, qty in levels}
                _judge(result, truth, reader.book_after(seq), f"{ticker} after {seq} of sid {sid}")
    return result


def _judge(result: Comparison, truth: dict[Level, int], stored: dict[Level, int] | None, what: str) -> None:
    result.compared += 1
    if stored is None:
        result.unknown += 1
    elif stored == truth:
        result.exact += 1
    else:
        result.wrong += 1
        if len(result.examples) < _EXAMPLES:
            different = sorted(dict(truth.items() ^ stored.items()))
            result.examples.append(f"{what}: the rows differ at {different[:3]}")


class _Reader:
    """Reads the rows of one market in one subscription, onwards only."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = rows
        self._at = 0
        self._book: dict[Level, int] | None = None

    def book_after(self, seq: int) -> dict[Level, int] | None:
        while self._at < len(self._rows) and self._rows[self._at][2] <= seq:
            _, _, _, kind, side, price, qty = self._rows[self._at]
            self._at += 1
            if kind == "clear":
                self._book = {}
            elif kind == "gap":
                self._book = None
            elif self._book is not None:
                size = self._book.get((side, price), 0) + qty
                if size:
                    self._book[side, price] = size
                else:
                    self._book.pop((side, price), None)
        return self._book
