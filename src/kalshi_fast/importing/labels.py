"""Whose the changes are whose market has neither a snapshot nor an id: the seed's labels can be wrong.

The seed keeps one book per subscription and names changes after the market that was asked for first, so that
they may carry the name of a market of which nothing else was ever recorded (in the recordings of 2025, every
change does). Such a row is taken for a change of the only market of its subscription that had a snapshot, if
all of them fit: not one takes more than that book has, in any connection, and EVIDENCE levels at least were
taken from that could not have been without it. Otherwise it is anybody's, and every book of its
subscription is unknown from there on. Not here: the run of ``rebuild`` that finds it out and writes nothing.
"""

from __future__ import annotations

from typing import Final

EVIDENCE: Final = 10  # levels


class Labels:
    """``Labels(orphans)`` finds owners, while rows are taken; ``Labels(orphans, judge)`` says what it found.

    ``owner`` and the rest are called in the order of the rows; connections are numbered as they come.
    """

    def __init__(
        self, orphans: frozenset[int], judge: Labels | None = None, *, trusting: bool = True
    ) -> None:
        self.orphans = orphans
        self._judge = judge
        self._trusting = trusting
        self._connection = 0
        self._markets: dict[tuple[int, int], set[int]] = {}  # with a snapshot, by connection and sid
        self._sums: dict[tuple[int, int, int, int], int] = {}  # of the changes of this connection
        self._taken: dict[tuple[int, int], int] = {}  # levels that needed the owner's book, by pair
        self._contradicted: set[tuple[int, int]] = set()

    def connect(self) -> None:
        self._connection += 1
        self._sums.clear()

    def snapshot(self, sid: int, ticker: int) -> None:
        self._markets.setdefault((self._connection, sid), set()).add(ticker)

    def owner(self, sid: int, ticker: int) -> int:
        """The market that a change with an orphan's name is of, -1 when that is not known."""
        place = (self._connection, sid)
        if self._judge is not None:
            return self._judge.found(place, ticker) if self._trusting else -1
        markets = self._markets.get(place, set())
        return next(iter(markets)) if len(markets) == 1 else -1

    def fits(self, sid: int, ticker: int, owner: int, side: int, cents: int, qty: int) -> None:
        """A change has been applied to the owner's book."""
        if self._judge is not None:
            return
        pair = (ticker, owner)
        level = (sid, ticker, side, cents)
        before = self._sums.get(level, 0)
        self._sums[level] = before + qty
        if before >= 0 > before + qty:
            self._taken[pair] = self._taken.get(pair, 0) + 1

    def contradicts(self, ticker: int, owner: int) -> None:
        self._contradicted.add((ticker, owner))

    def found(self, place: tuple[int, int], ticker: int) -> int:
        markets = self._markets.get(place, set())
        pair = (ticker, next(iter(markets), -1))
        if len(markets) != 1 or pair in self._contradicted or self._taken.get(pair, 0) < EVIDENCE:
            return -1
        return pair[1]
