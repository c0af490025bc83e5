"""The ids of the latest trades, so that none becomes two rows. Bounded: the oldest are forgotten."""

from __future__ import annotations

import uuid
from collections import OrderedDict
from typing import Final

MOST: Final = 200_000
HELD: Final = 3  # times as many


class Recent:
    """``forgotten_us``: a trade of that time or before may have been seen and be known no more. ``held``:
    many old ones come, as after an interruption, so that more are remembered for this while."""

    def __init__(self, most: int = MOST) -> None:
        self.forgotten_us = 0
        self.held = False
        self._most = most
        # A dict would look for its first entry over all that have been taken out before it.
        self._times_us: OrderedDict[bytes, int] = OrderedDict()

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
        most = HELD * self._most if self.held else self._most
        for _ in range(2):  # little by little, when it has been held
            if len(times) > most:
                self.forgotten_us = max(self.forgotten_us, times.popitem(last=False)[1])
        return True
