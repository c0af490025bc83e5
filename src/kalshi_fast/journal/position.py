"""How far a store has come in the journal, durably: one small file a store.

A position is written whole or not at all: two places in the file are written by turns, each with its
generation and a checksum; the newest intact one counts. Not here: when to write (the sinks).
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from kalshi_fast.errors import JournalError

if TYPE_CHECKING:
    from pathlib import Path

PLACE_BYTES: Final = 4096
_HEAD = struct.Struct("<4sIQI")  # magic, checksum, generation, bytes of the body
_MAGIC = b"KFP1"


class Point(msgspec.Struct, frozen=True):
    """A place in a journal: before row ``row`` of batch ``seq``.

    ``until``: what was about to be stored when this was written ends before this batch (0: nothing was), and
    ``token`` is what it was to be known by. ``rows``: how many events of ``recorder`` the store has up to
    here. ``detail``: what the store has to say to itself. ``durable``: what is before it has been on the
    store's disk for long; for stores that answer earlier.
    """

    journal: str
    seq: int
    row: int = 0
    until: int = 0
    token: str = ""
    recorder: str = ""
    rows: int = 0
    detail: str = ""
    durable: int = 0


class Position:
    """``Position(path, fsync=…)``: ``point`` is the last one written, None when there is none."""

    def __init__(self, path: Path, *, fsync: bool) -> None:
        self.path = path
        self._fsync = fsync
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            places = [_read(os.pread(self._fd, PLACE_BYTES, at)) for at in (0, PLACE_BYTES)]
        except OSError as error:
            raise JournalError(f"{path}: cannot be used: {error.strerror or error}") from error
        found = [place for place in places if place is not None]
        self._unsynced = False
        self._besides: list[Position] = []
        self._generation = 0
        self.point: Point | None = None
        if found:
            self._generation, self.point = max(found, key=lambda place: place[0])

    def write(self, point: Point) -> None:
        """Raises JournalError when it cannot be written; then the one before still counts."""
        body = msgspec.msgpack.encode(point)
        generation = self._generation + 1
        head = _HEAD.pack(_MAGIC, _checksum(generation, body), generation, len(body))
        if len(head) + len(body) > PLACE_BYTES:
            raise JournalError(f"{self.path}: a position of {len(body)} bytes is too large")
        try:
            data = head + body
            if os.pwrite(self._fd, data, generation % 2 * PLACE_BYTES) < len(data):
                raise OSError(errno.ENOSPC, "written in part only")
            if self._fsync:
                os.fdatasync(self._fd)
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self._generation, self.point = generation, point
        self._unsynced = not self._fsync

    def sync(self) -> None:
        """The point is on the disk when this returns, and those beside it. Raises JournalError."""
        try:
            if self._unsynced and self._fd >= 0:
                os.fdatasync(self._fd)
                self._unsynced = False
        except OSError as error:
            raise JournalError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        for position in self._besides:
            position.sync()

    def beside(self, name: str) -> Position:
        """Another position of the same store."""
        path = self.path.with_name(f"{self.path.stem}-{name}{self.path.suffix}")
        position = Position(path, fsync=self._fsync)
        self._besides.append(position)
        return position

    def close(self) -> None:
        """Raises JournalError when the last point may not be on the disk."""
        try:
            self.sync()
        finally:
            os.close(self._fd)
            self._fd = -1


def _checksum(generation: int, body: bytes) -> int:
    return zlib.crc32(body, generation & 0xFFFFFFFF)


def _read(place: bytes) -> tuple[int, Point] | None:
    if len(place) < _HEAD.size:
        return None
    magic, checksum, generation, size = _HEAD.unpack_from(place)
    body = place[_HEAD.size : _HEAD.size + size]
    if magic != _MAGIC or checksum != _checksum(generation, body):
        return None
    try:
        return generation, msgspec.msgpack.decode(body, type=Point)
    except msgspec.DecodeError:
        return None
