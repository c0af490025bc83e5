"""Memory that is there before it is needed and stays: locked pages, and a ring without first faults.

Not here: huge pages. The ring is anonymous shared memory, for which Linux gives them only to hosts that set
``shmem_enabled``; docs/tuning.md has the figures.
"""

from __future__ import annotations

import ctypes
import os
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import TuningError

if TYPE_CHECKING:
    import mmap

_MCL_CURRENT: Final = 1
_MCL_FUTURE: Final = 2
_MCL_ONFAULT: Final = 4  # a page is locked when it is first used: the ring's reserve must not cost memory
_CAP_IPC_LOCK: Final = 14  # linux/capability.h: no limit counts
_CAP_SYS_RESOURCE: Final = 24
_MADV_POPULATE_WRITE: Final = 23  # linux/mman.h, since 5.14


def lock_memory() -> None:
    """No page of this process goes to swap or back to its file any more. Raises TuningError."""
    refuse_limit()
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "mlockall"):
        raise TuningError("LOCK_MEMORY: this system cannot lock memory (Linux can)")
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        raise TuningError(f"LOCK_MEMORY: this system refuses: {os.strerror(ctypes.get_errno())}")


def refuse_limit() -> None:
    """Under a limit the lock would succeed and a later allocation would fail. Raises TuningError."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if _has_capability(_CAP_IPC_LOCK):
        return
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    except (OSError, ValueError):
        raise TuningError(
            f"LOCK_MEMORY: expected no limit of locked memory, got {soft} bytes: `ulimit -l unlimited`"
            " (systemd: LimitMEMLOCK=infinity)"
        ) from None


def limit_bytes() -> int | None:
    """How much this process may lock; None: any amount, or it may raise the limit itself."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    free = hard == resource.RLIM_INFINITY or _has_capability(_CAP_IPC_LOCK)
    return None if free or _has_capability(_CAP_SYS_RESOURCE) else hard


def _has_capability(number: int) -> bool:
    """Whether this process has one of Linux's privileges; no where there is no such thing."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> number & 1)


def populate(memory: mmap.mmap, start: int, length: int) -> None:
    """These pages are there from now on, so that writing to them does not fault. Raises TuningError."""
    try:
        memory.madvise(_MADV_POPULATE_WRITE, start, length)
    except OSError as error:
        raise TuningError(
            f"LOCK_MEMORY: {length} bytes of shared memory cannot be made ready: {error.strerror}"
            " (Linux 5.14 or later, and so much free memory, are needed)"
        ) from error
