"""Batches: column buffers being filled or sealed, and the rarer records of the same stretch of time.

A batch has an identity (the recorder's id and a number) and is immutable once it is sealed. Not here: filling
them (``recorder``), where their memory comes from (``pool``), how they look in Arrow (``arrow``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Final

import msgspec

from kalshi_fast.channels.rows import ChannelRows

if TYPE_CHECKING:
    from kalshi_fast._columns import EventColumns, LevelColumns
    from kalshi_fast.channels.rows import Row


class HealthEvent(msgspec.Struct, frozen=True, array_like=True):
    """One row of feed_health."""

    ts_ns: int
    conn_id: int
    event: str
    sid: int = 0
    seq: int = 0
    market_ticker: str = ""
    detail: str = ""


class RejectedFrame(msgspec.Struct, frozen=True, array_like=True):
    """A frame that could not be used, as it came, and why."""

    ingest_ns: int
    conn_id: int
    reason: str
    payload: bytes


class RawFrame(msgspec.Struct, frozen=True, array_like=True):
    """A frame of a channel that is kept as it comes."""

    table: ClassVar[str] = "raw"
    ingest_ns: int
    conn_id: int
    channel: str
    payload: bytes


class Extra(msgspec.Struct, array_like=True):
    """What a batch holds beside its columns."""

    health: list[HealthEvent] = []
    rejected: list[RejectedFrame] = []
    channels: ChannelRows = msgspec.field(default_factory=ChannelRows)
    raw: list[RawFrame] = []

    @property
    def rows(self) -> int:
        """Records of all kinds."""
        return len(self.health) + len(self.rejected) + len(self.channels) + len(self.raw)


_ROW_BYTES: Final = 320  # no trade and no ticker comes to more
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Extra)


def pack_extra(
    health: list[HealthEvent],
    rejected: list[RejectedFrame],
    channels: ChannelRows | None = None,
    raw: list[RawFrame] | None = None,
) -> bytes:
    """The records of a batch as bytes; none are no bytes."""
    extra = Extra(health, rejected, channels or ChannelRows(), raw or [])
    return _ENCODER.encode(extra) if extra.rows else b""


def unpack_extra(packed: bytes) -> Extra:
    """What ``pack_extra`` has packed. Raises msgspec.DecodeError."""
    return _DECODER.decode(packed) if packed else Extra()


def packed_bytes(row: Row) -> int:
    """What a row comes to when packed."""
    return len(_ENCODER.encode(row))


def text_bytes(text: str) -> int:
    """In UTF-8. Whatever is in the text: what cannot be packed is found when it is packed."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


@dataclass(slots=True)
class Batch:
    """Buffers with rows, and the records beside them.

    ``slot``: where the buffers lie in the shared memory, None when they are memory of this process.
    ``names``: how many tickers and ids the rows may refer to. ``extra_bytes``: no less than what the
    records come to when packed.
    """

    events: EventColumns
    levels: LevelColumns
    slot: int | None = None
    number: int = 0
    names: tuple[int, int] = (0, 0)
    health: list[HealthEvent] = field(default_factory=list)
    rejected: list[RejectedFrame] = field(default_factory=list)
    channels: ChannelRows = field(default_factory=ChannelRows)
    raw: list[RawFrame] = field(default_factory=list)
    extra_bytes: int = 0

    @property
    def empty(self) -> bool:
        return not (
            self.events.n or self.levels.n or self.health or self.rejected or self.raw or self.channels
        )

    def begin(self, version: int) -> None:
        """Empties it for its next use; the versions of its levels go on after ``version``."""
        self.events.begin()
        self.levels.begin(version)
        self.health, self.rejected, self.raw = [], [], []
        self.channels, self.extra_bytes = ChannelRows(), 0

    def add_health(self, event: HealthEvent) -> None:
        self.health.append(event)
        self.extra_bytes += 100 + text_bytes(event.detail) + text_bytes(event.market_ticker)

    def add_rejected(self, frame: RejectedFrame) -> None:
        self.rejected.append(frame)
        self.extra_bytes += 100 + text_bytes(frame.reason) + len(frame.payload)

    def add_row(self, table: str, row: Row, size_bytes: int) -> None:
        """``size_bytes``: no less than what a row with texts of any length comes to."""
        getattr(self.channels, table).append(row)
        self.extra_bytes += _ROW_BYTES + size_bytes

    def add_raw(self, frame: RawFrame) -> None:
        self.raw.append(frame)
        self.extra_bytes += 100 + len(frame.payload)
