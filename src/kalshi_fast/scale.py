"""On which scale the prices of the no side come, proven from the books themselves.

A no bid at price p is told as p (the no scale) or as 1 - p, the yes ask that it is (the yes scale, with
``use_yes_price``). A book of the exchange is never crossed: what rests on both sides would have been matched.
So of two readings of one snapshot, one can be impossible. On the yes scale the lowest no level lies above the
highest yes level; on the no scale the two best bids together are below one dollar. A snapshot that is
uncrossed in one reading and crossed in the other has decided; any other one (a side empty, both readings
possible, best prices just touching) says nothing and is never guessed. In recordings of production (April to
September 2026) 26 of 31 snapshots decide, all of them rightly, and none of 315 two-sided states after a
delta is crossed as it was told.

Two independent words decide where a book does not: the ask of the ticker channel, and the ladder of the REST
interface, which always has both sides as bids. Not here: what is done about it (``admission``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DOLLAR_E4: Final = 10_000
IN_A_ROW: Final = 3  # so many contradictions without a confirmation between them end a connection
LADDER_LEVELS: Final = 3  # so many levels that fit, price and size, are as good as IN_A_ROW books


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


class ScaleProof:
    """What one connection has shown so far: ``on_yes_scale`` is what is believed of it.

    ``proven``: the first word was for it, or IN_A_ROW words in a row were after one against it.
    ``contradicted``: IN_A_ROW words in a row were against it. One alone may be a book that is truly crossed.
    """

    def __init__(self, *, on_yes_scale: bool) -> None:
        self.on_yes_scale = on_yes_scale
        self.begin()

    def begin(self) -> None:
        """A new connection: nothing is proven of it, whatever others have shown."""
        self.proven = False
        self.contradicted = False
        self.confirmations = 0
        self.contradictions = 0
        self._for_in_a_row = 0
        self._against_in_a_row = 0

    def hear(self, word: bool, weight: int = 1) -> bool:
        """Counts a word that decides; True when it is for what is believed. ``weight``: as so many words."""
        if word == self.on_yes_scale:
            self.confirmations += 1
            self._for_in_a_row += weight
            self._against_in_a_row = 0
            if not self.contradicted and (not self.contradictions or self._for_in_a_row >= IN_A_ROW):
                self.proven = True
            return True
        self.contradictions += 1
        self._against_in_a_row += weight
        self._for_in_a_row = 0
        if self._against_in_a_row >= IN_A_ROW:
            self.contradicted, self.proven = True, False
        return False

    def turn(self) -> None:
        """Believes the other scale, of the connections to come."""
        self.on_yes_scale = not self.on_yes_scale
