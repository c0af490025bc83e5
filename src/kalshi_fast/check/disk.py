"""Where the journal and the Parquet files go: whether they can be written, the room, the time of an fsync.

A file without a name is written and synced, where the system has such files (Linux: O_TMPFILE): it is never
seen and gone at once. Directories that are not there yet stay so; what is asked is the one to hold them.
"""

from __future__ import annotations

import errno
import os
import shutil
import statistics
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast.check.finding import Check, Finding, failure, ok, warning

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kalshi_fast.config import Settings

SYNCS: Final = 15
SLOW_SYNC_MS: Final = 20.0
LEAST_BYTES: Final = 256 * 1024**2
EASY_BYTES: Final = 10 * 1024**3  # a day of Parquet files of a busy recorder
_REFUSALS: Final = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


def checks(settings: Settings) -> list[Check]:
    found = [Check("journal", lambda: _journal(settings))]
    if settings.parquet_dir is not None:
        parquet_dir = settings.parquet_dir
        found.append(Check("parquet", lambda: _parquet(parquet_dir)))
    return found


def holder(directory: Path) -> Path:
    """The directory itself, or the nearest one above it that is there."""
    directory = directory.absolute()
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    return directory


def unwritable(name: str, setting: str, directory: Path) -> Finding | None:
    """The failure, when files cannot be made there."""
    there = holder(directory)
    if not there.is_dir():
        return failure(name, f"{setting}: {there} is no directory", f"give another {setting}")
    try:
        os.close(_nameless(there))
    except OSError as error:
        refused = error.errno in _REFUSALS or not os.access(there, os.W_OK | os.X_OK)
        if refused:
            said = f"{setting}: {there} cannot be written: {error.strerror}"
            return failure(name, said, f"give this user the right, or another {setting}")
    return None


def _nameless(directory: Path) -> int:
    """A file without a name on the directory's file system. Raises OSError."""
    if not hasattr(os, "O_TMPFILE"):
        raise OSError(errno.EOPNOTSUPP, "this system makes no files without a name")
    return os.open(directory, os.O_TMPFILE | os.O_WRONLY, 0o600)


def free_bytes(directory: Path) -> int:
    return shutil.disk_usage(holder(directory)).free


def gib(size_bytes: int) -> str:
    return f"{size_bytes / 1024**3:.1f} GiB"


def sync_ms(directory: Path) -> list[float] | None:
    """How long 4 KiB take to the disk, some times; None where no file without a name can be made."""
    try:
        fd = _nameless(holder(directory))
    except OSError:
        return None
    try:
        took = []
        for at in range(SYNCS):
            os.pwrite(fd, b"\0" * 4096, at * 4096)
            began = time.perf_counter()
            os.fsync(fd)
            took.append((time.perf_counter() - began) * 1000)
        return took
    finally:
        os.close(fd)


def _journal(settings: Settings) -> Iterator[Finding]:
    directory = settings.journal_dir
    broken = unwritable("journal", "JOURNAL_DIR", directory)
    if broken is not None:
        yield broken
        return
    free = free_bytes(directory)
    room = f"JOURNAL_DIR: {holder(directory)} has {gib(free)} free"
    if free < LEAST_BYTES:
        yield failure("journal", room, "make room, or give another JOURNAL_DIR")
    elif free < settings.journal_max_bytes:
        yield warning(
            "journal",
            f"{room}, less than JOURNAL_MAX_BYTES ({gib(settings.journal_max_bytes)})",
            "make room, or lower JOURNAL_MAX_BYTES: the bound is kept, a full disk stops other programs too",
        )
    else:
        yield ok("journal", room)
    yield from _sync(settings)


def _sync(settings: Settings) -> Iterator[Finding]:
    took = sync_ms(settings.journal_dir)
    if took is None:
        yield ok("fsync", "not measured: this file system makes no files without a name")
        return
    median = statistics.median(took)
    said = f"4 KiB are on the disk of JOURNAL_DIR after {median:.2f} ms ({min(took):.2f} to {max(took):.2f})"
    if median > SLOW_SYNC_MS and settings.journal_fsync == "always":
        yield warning(
            "fsync", said, "JOURNAL_FSYNC=interval, or a disk with a cache that survives power loss"
        )
    else:
        yield ok("fsync", said)


def _parquet(directory: Path) -> Iterator[Finding]:
    broken = unwritable("parquet", "PARQUET_DIR", directory)
    if broken is not None:
        yield broken
        return
    free = free_bytes(directory)
    room = f"PARQUET_DIR: {holder(directory)} can be written and has {gib(free)} free"
    if free < LEAST_BYTES:
        yield failure("parquet", room, "make room, or give another PARQUET_DIR")
    elif free < EASY_BYTES:
        yield warning("parquet", room, "a busy day takes some gigabytes: make room")
    else:
        yield ok("parquet", room)
