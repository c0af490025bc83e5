"""The files of the journal: ``DIR/<first seq>.journal``, each beginning with a STATE record.

Not here: what is in them (``records``), which may go (``journal``).
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

log = logging.getLogger("kalshi_fast.journal")

_BLOCK_BYTES: Final = 4096
_NAME = re.compile(r"([0-9]{20})\.journal")


@dataclass(slots=True)
class Segment:
    """One file: the seq of its first batch, and how many bytes of it count."""

    first_seq: int
    path: Path
    size_bytes: int
    damaged: bool = False
    copies: int = 0  # how often the file has been replaced by a copy of itself


def path_of(directory: Path, first_seq: int) -> Path:
    return directory / f"{first_seq:020d}.journal"


def find(directory: Path) -> list[Segment]:
    """The segments of a directory in order. Raises OSError."""
    found = [
        Segment(int(match[1]), path, path.stat().st_size)
        for path in directory.iterdir()
        if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, key=lambda segment: segment.first_seq)


def read(fd: int, at: int, size: int) -> bytes:
    """These bytes of a file, zeros where the disk cannot read them: the checksums see to what that means."""
    try:
        return _whole(fd, at, size)
    except OSError as error:
        log.error("%s: %d bytes at %d: %s", _path(fd), size, at, error.strerror)
    found = bytearray(size)
    unreadable = 0
    for start in range(0, size, _BLOCK_BYTES):
        stop = min(size, start + _BLOCK_BYTES)
        try:
            found[start:stop] = _whole(fd, at + start, stop - start).ljust(stop - start, b"\0")
        except OSError:
            unreadable += stop - start
    if unreadable:
        log.error("%s: %d bytes cannot be read", _path(fd), unreadable)
    return bytes(found)


def _whole(fd: int, at: int, size: int) -> bytes:
    """As much as there is: a single read may give less, and gives no more than 2 GiB."""
    parts = []
    while size > 0 and (part := os.pread(fd, size, at)):
        parts.append(part)
        at, size = at + len(part), size - len(part)
    return b"".join(parts)


def _path(fd: int) -> Path:
    return Path(f"/proc/self/fd/{fd}").readlink()
