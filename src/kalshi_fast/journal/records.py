"""The bytes of the journal: records, each with a checksum, one after the other in a segment file.

A record is a header of 64 bytes and a payload, padded to 8 bytes. ``BATCH`` holds rows: Arrow IPC messages
of the columns, then the packed extras. ``NAMES`` holds tickers and ids that batches behind it refer to.
``STATE`` opens every segment: all that a reader who begins there has to know. Only a batch takes a number of
the journal's; the others carry the number of the batch that comes next. Not here: files, order, what to do
about damage.
"""

from __future__ import annotations

import struct
import uuid
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterator

FORMAT_VERSION: Final = 1
BATCH, NAMES, STATE = 1, 2, 3
MAX_PAYLOAD_BYTES: Final = 1 << 30
MAGIC: Final = b"KFJ1"
ALIGN: Final = 8
# magic, kind, version, (unused), checksum | payload bytes, seq, recorder, number, events, levels, extra, rows
_PREFIX = struct.Struct("<4sBBHI")
_REST = struct.Struct("<IQ16sQIIII")
HEADER_BYTES: Final = _PREFIX.size + _REST.size


class NamesPayload(msgspec.Struct, array_like=True):
    """Names of a recorder from these numbers on."""

    first_ticker: int
    first_id: int
    tickers: list[str]
    ids: list[str]


class StatePayload(msgspec.Struct):
    """What is known where a segment begins. ``marks``: as ``Marks.pack`` has it; ``late_trades`` likewise."""

    journal: str
    tickers: list[str]
    ids: list[str]
    marks: bytes
    last_number: int
    late_trades: bytes = b""


@dataclass(frozen=True, slots=True)
class Header:
    """What stands before a payload. ``number``: the recorder's own number of a batch, 0: the journal made
    it."""

    kind: int
    payload_bytes: int
    seq: int
    recorder: uuid.UUID
    number: int = 0
    events_bytes: int = 0
    levels_bytes: int = 0
    extra_bytes: int = 0
    rows: int = 0

    @property
    def record_bytes(self) -> int:
        """Header, payload and padding."""
        return -(-(HEADER_BYTES + self.payload_bytes) // ALIGN) * ALIGN


def encode(header: Header, payload: bytes) -> bytes:
    """The whole record."""
    rest = _REST.pack(
        header.payload_bytes,
        header.seq,
        header.recorder.bytes,
        header.number,
        header.events_bytes,
        header.levels_bytes,
        header.extra_bytes,
        header.rows,
    )
    checksum = zlib.crc32(payload, zlib.crc32(rest, header.kind))
    prefix = _PREFIX.pack(MAGIC, header.kind, FORMAT_VERSION, 0, checksum)
    padding = bytes(header.record_bytes - HEADER_BYTES - len(payload))
    return b"".join((prefix, rest, payload, padding))


def decode_header(data: bytes | memoryview) -> tuple[Header, int] | None:
    """Header and checksum; None when this is no header."""
    if len(data) < HEADER_BYTES:
        return None
    magic, kind, version, unused, checksum = _PREFIX.unpack_from(data)
    if magic != MAGIC or kind not in (BATCH, NAMES, STATE) or version != FORMAT_VERSION or unused:
        return None
    payload, seq, recorder, number, events, levels, extra, rows = _REST.unpack_from(data, _PREFIX.size)
    if payload > MAX_PAYLOAD_BYTES or (kind == BATCH and events + levels + extra != payload):
        return None
    return Header(
        kind, payload, seq, uuid.UUID(bytes=recorder), number, events, levels, extra, rows
    ), checksum


def intact(header: Header, checksum: int, head: bytes | memoryview, payload: bytes | memoryview) -> bool:
    """Does the checksum fit what was read? ``head``: the bytes of the header."""
    rest = head[_PREFIX.size : HEADER_BYTES]
    return checksum == zlib.crc32(payload, zlib.crc32(rest, header.kind))


def candidates(data: memoryview, start: int) -> Iterator[int]:
    """Offsets from ``start`` on where a record may begin."""
    raw = bytes(data[start:])
    at = raw.find(MAGIC)
    while at >= 0:
        if (start + at) % ALIGN == 0:
            yield start + at
        at = raw.find(MAGIC, at + 1)
