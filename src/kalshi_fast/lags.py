"""How long rows take, as a histogram: cheap to add to, percentiles within five per cent.

Not here: which instants are compared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# What is shown of it outside (``cumulative``): 10 us, 20 us, 50 us … to 50 s, and everything.
LE_NS: Final[tuple[int, ...]] = tuple(step * 10**decade for decade in range(4, 11) for step in (1, 2, 5))
_BOUNDS_NS = np.union1d(np.round(1000 * 1.05 ** np.arange(480)).astype(np.int64), LE_NS)  # 1 us to 4 hours
_LE_PLACES = np.searchsorted(_BOUNDS_NS, LE_NS)


class Lags:
    """``add`` durations in ns, then ask for ``percentile_us``, or for ``cumulative``: how many were at most
    each of ``LE_NS``. ``total_ns`` is their sum."""

    def __init__(self) -> None:
        self.count = 0
        self.total_ns = 0
        self._counts = np.zeros(len(_BOUNDS_NS) + 1, np.int64)

    def add(self, lags_ns: NDArray[Any]) -> None:
        """Negative ones (a clock set back) count as none."""
        places = np.searchsorted(_BOUNDS_NS, lags_ns)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self.count += len(lags_ns)
        self.total_ns += int(np.maximum(lags_ns, 0).sum())

    def percentile_us(self, percent: float) -> int | None:
        """The smallest bound that so many of a hundred are below; None when nothing was added."""
        if self.count == 0:
            return None
        place = int(np.searchsorted(np.cumsum(self._counts), self.count * percent / 100))
        return int(_BOUNDS_NS[min(place, len(_BOUNDS_NS) - 1)]) // 1000

    def cumulative(self) -> list[int]:
        """How many were at most each of ``LE_NS``."""
        counts: list[int] = np.cumsum(self._counts)[_LE_PLACES].tolist()
        return counts
