"""The price structures of the exchange's markets: which prices exist, coarse to fine.

Written out a second time on purpose: the simulator is independent of the recorder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kalshi_fast.channels.messages import PriceRange

if TYPE_CHECKING:
    from collections.abc import Iterable

_Ranges = tuple[tuple[int, int, int], ...]  # start, end, step; in price_e4

_RANGES: Final[dict[str, _Ranges]] = {
    "linear_cent": ((0, 10_000, 100),),
    "tapered_deci_cent": ((0, 1000, 10), (1000, 9000, 100), (9000, 10_000, 10)),
    "deci_cent": ((0, 10_000, 10),),
    "center_deci_edge_centi_cent": ((0, 100, 1), (100, 9900, 10), (9900, 10_000, 1)),
}
OF_COMBINATIONS: Final = "center_deci_edge_centi_cent"
STRUCTURES: Final = tuple(name for name in _RANGES if name != OF_COMBINATIONS)
FINEST: Final = STRUCTURES[-1]


def prices(structure: str) -> list[int]:
    """Every price at which somebody can bid, ascending: 0 and 1 dollar are none."""
    return [price for start, end, step in _RANGES[structure] for price in range(start, end, step) if price]


def price_ranges(structure: str) -> list[PriceRange]:
    """As a lifecycle event tells it."""
    return [
        PriceRange(*(f"{value // 10_000}.{value % 10_000:04d}" for value in found))
        for found in _RANGES[structure]
    ]


def finer(structure: str) -> str | None:
    """The next finer structure, None for the finest."""
    at = STRUCTURES.index(structure) + 1
    return STRUCTURES[at] if at < len(STRUCTURES) else None


def coarsest(used: Iterable[int]) -> str:
    """The coarsest structure that has all these prices; the finest when none has."""
    found = set(used) - {0, 10_000}
    return next((name for name in STRUCTURES if found <= set(prices(name))), FINEST)
