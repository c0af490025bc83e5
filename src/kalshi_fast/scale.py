"""On which scale the prices of the no side come, proven from the books themselves.

A no bid at price p is told as p (the no scale) or as 1 - p, the yes ask that it is (the yes scale, with
``use_yes_price``). A book of the exchange is never crossed: what rests on both sides would have been matched.
So of two readings of one snapshot, one can be impossible. On the yes scale the lowest no level lies above the
highest yes level; on the no scale the two best bids together are below one dollar. A snapshot that is
uncrossed in one reading and crossed in the other has decided; any other one (a side empty, both readings
possible, best prices just touching) says nothing and is never guessed. In recordings of production (April to
September 2026) 26 of 31 snapshots decide, all of them rightly, and none of 315 two-sided states after a
delta is crossed as it was told.

Two independent words decide where a book does not: the ask of the ticker channel at that moment, and the
ladder of the REST interface, which always has both sides as bids. Not here: what is done about it
(``admission``).
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOLLAR_E4: Final = 10_000
IN_A_ROW: Final = 3  # so many markets, with no confirmation between them, end a connection
LADDER_LEVELS: Final = 3  # so many levels that fit, price and size, decide alone


def name(*, on_yes_scale: bool) -> str:
    return "yes scale" if on_yes_scale else "no scale"


def _apart(yes: Iterable[tuple[int, int]], no: Iterable[tuple[int, int]]) -> tuple[int, int] | None:
    """How far the best prices are apart, on the yes scale and on the no scale; below 0: then the
    book is crossed. None: a side is empty."""
    best_yes = max((price for price, size in yes if size), default=None)
    told = [price for price, size in no if size]
    if best_yes is None or not told:
        return None
    return min(told) - best_yes, DOLLAR_E4 - max(told) - best_yes


def is_crossed_in_both(yes: Iterable[tuple[int, int]], no: Iterable[tuple[int, int]]) -> bool:
    """However a snapshot's levels are read, they are crossed. Never seen in a recording."""
    apart = _apart(yes, no)
    return apart is not None and max(apart) < 0


def told_by_book(yes: Iterable[tuple[int, int]], no: Iterable[tuple[int, int]]) -> bool | None:
    """What a snapshot's levels, as they were told, say: the no side is on the yes scale (True), on its own
    (False), or nothing (None)."""
    apart = _apart(yes, no)
    if apart is None:
        return None
    apart_on_yes, apart_on_no = apart
    if apart_on_yes > 0 > apart_on_no:
        return True
    if apart_on_no > 0 > apart_on_yes:
        return False
    return None


def told_by_ask(no: Iterable[tuple[int, int]], ask_e4: int) -> bool | None:
    """What the yes ask of the ticker channel says about the no levels as they were told."""
    told = [price for price, size in no if size]
    if not told or not 0 < ask_e4 < DOLLAR_E4:
        return None
    on_yes, on_no = ask_e4 == min(told), ask_e4 == DOLLAR_E4 - max(told)
    return None if on_yes == on_no else on_yes


def is_of_size(no: Iterable[tuple[int, int]], ask_e4: int, word: bool, size_e2: int | None) -> bool:
    """The ask that has told this has the size of its level as well: hardly a price of another moment."""
    level = ask_e4 if word else DOLLAR_E4 - ask_e4
    return bool(size_e2) and dict(no).get(level) == size_e2


def told_by_ladder(no: Iterable[tuple[int, int]], bids: Mapping[int, int]) -> tuple[bool | None, int]:
    """What the no bids of REST say about the no levels as they were told, and how many levels fit.

    Price and size must fit at least half of the levels in one reading, and at least twice as many as in the
    other: the book may have changed between the two.
    """
    told = [(price, size) for price, size in no if size]
    on_no = sum(bids.get(price) == size for price, size in told)
    on_yes = sum(bids.get(DOLLAR_E4 - price) == size for price, size in told)
    most, least = max(on_no, on_yes), min(on_no, on_yes)
    if most == 0 or 2 * most < len(told) or most < 2 * least:
        return None, most
    return on_yes > on_no, most


class Weight(IntEnum):
    """What a word is worth."""

    HINT = 0  # an ask by its price alone, which may be of another moment
    WORD = 1  # a book, an ask with its size, or a ladder of few levels
    LADDER = 2  # LADDER_LEVELS levels that fit, price and size


class ScaleProof:
    """What one connection has shown so far: ``on_yes_scale`` is what is believed of it.

    Words are counted by market: one book can be truly crossed, however often it is sent.

    ``proven``: two markets, and more than are against it, or a ladder. Where a single market is carried,
    its own word will do.
    ``contradicted``: IN_A_ROW markets, with no confirmation between them, or a ladder before it was proven.
    Where fewer are carried: IN_A_ROW words, and none of the markets confirms.
    """

    def __init__(self, *, on_yes_scale: bool) -> None:
        self.on_yes_scale = on_yes_scale
        self._words: dict[str, bool] = {}  # of each market: its last word was a confirmation
        self._run: set[str] = set()  # the markets of the contradictions since the last confirmation
        self.begin()

    def begin(self) -> None:
        """A new connection: nothing is proven of it, whatever others have shown."""
        self.proven = False
        self.contradicted = False
        self.confirmations = 0
        self.contradictions = 0
        self._words.clear()
        self._run.clear()
        self._run_words = 0

    def hear(self, word: bool, ticker: str, carried: int, weight: Weight = Weight.WORD) -> bool:
        """Counts what a market says; True when it is for what is believed. ``carried``: so many markets does
        the connection carry."""
        confirms = self._words[ticker] = word == self.on_yes_scale
        if confirms:
            self.confirmations += 1
            self._run.clear()
            self._run_words = 0
            if not self.contradicted and not self.proven:
                self.proven = self._is_proof(carried, weight)
            return True
        self.contradictions += 1
        self._run.add(ticker)
        self._run_words += weight > Weight.HINT
        if self._is_disproof(carried, weight):
            self.contradicted, self.proven = True, False
        return False

    def _is_proof(self, carried: int, weight: Weight) -> bool:
        if weight is Weight.LADDER or (carried == 1 and weight is Weight.WORD):
            return True
        confirming = sum(self._words.values())
        return confirming >= 2 and 2 * confirming > len(self._words)

    def _is_disproof(self, carried: int, weight: Weight) -> bool:
        if len(self._run) >= IN_A_ROW or (weight is Weight.LADDER and not self.proven):
            return True
        return carried < IN_A_ROW <= self._run_words and not any(self._words.values())

    def forget(self, ticker: str) -> None:
        """A market that is not carried any more."""
        self._words.pop(ticker, None)
        self._run.discard(ticker)

    def turn(self) -> None:
        """Believes the other scale, of the connections to come."""
        self.on_yes_scale = not self.on_yes_scale
