"""The ids of the latest trades, so that none becomes two rows. Bounded: the oldest are forgotten."""

from __future__ import annotations

import uuid
from typing import Final

MOST: Final = 200_000


class Recent:
    """``forgotten_us``: a trade of that time or before may have been seen and be known no more."""

    def __init__(self, most: int = MOST) -> None:
        self.forgotten_us = 0
        self._most = most
        self._times_us: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._times_us)

    def __contains__(self, trade_id: str) -> bool:
        return uuid.UUID(trade_id).bytes in self._times_us

    def add(self, trade_id: str, ts_us: int) -> bool:
        """False when it is there already."""
        key = uuid.UUID(trade_id).bytes
        times = self._times_us
        if key in times:
            return False
        times[key] = ts_us
        if len(times) > self._most:
            self.forgotten_us = max(self.forgotten_us, times.pop(next(iter(times))))
        return True
