"""The latest trades that have gone through the journal: what a recorder that comes next has to know again.

It asks the exchange for what was traded since, and these are the trades that it must not store a second time.
Bounded in time and number; carried from segment to segment, so that they are there when all else is
delivered. Not here: asking (``channels.backfill``).
"""

from __future__ import annotations

import uuid
from collections import deque
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.channels.rows import TradeRow

KEPT_US: Final = 120_000_000
MOST: Final = 20_000


class _Packed(msgspec.Struct, array_like=True):
    times_us: list[int]
    ids: bytes
    forgotten_us: int


class LateTrades:
    """``forgotten_us``: of that time or before there may have been others."""

    def __init__(self) -> None:
        self.forgotten_us = 0
        self._latest_us = 0
        self._kept: deque[tuple[int, bytes]] = deque()

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, rows: Iterable[TradeRow]) -> None:
        """The next trades, in the order in which they were written."""
        kept = self._kept
        for row in rows:
            kept.append((row.ts_us, uuid.UUID(row.trade_id).bytes))
            self._latest_us = max(self._latest_us, row.ts_us)
        while kept and (len(kept) > MOST or kept[0][0] < self._latest_us - KEPT_US):
            self.forgotten_us = max(self.forgotten_us, kept.popleft()[0])

    def trades(self) -> list[tuple[int, str]]:
        """Time and id of each."""
        return [(ts_us, str(uuid.UUID(bytes=key))) for ts_us, key in self._kept]

    def pack(self) -> bytes:
        """All of it as bytes."""
        times_us = [ts_us for ts_us, _ in self._kept]
        packed = _Packed(times_us, b"".join(key for _, key in self._kept), self.forgotten_us)
        return msgspec.msgpack.encode(packed)

    @classmethod
    def unpack(cls, packed: bytes) -> LateTrades:
        """What ``pack`` has packed; no bytes are none. Raises msgspec.DecodeError or ValueError."""
        late = cls()
        if packed:
            found = msgspec.msgpack.decode(packed, type=_Packed)
            keys = [found.ids[at : at + 16] for at in range(0, len(found.ids), 16)]
            late._kept.extend(zip(found.times_us, keys, strict=True))
            late._latest_us = max(found.times_us, default=0)
            late.forgotten_us = found.forgotten_us
        return late
