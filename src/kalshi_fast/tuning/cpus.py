"""Which cores a thread runs on: parsing, pinning, and what is left for the writer.

Linux pins threads, and a thread passes its cores on to what it starts: threads and processes.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import TuningError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

MAX_CPU: Final = 4095
_PART: Final = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?\Z")


def parse_cpus(text: str) -> tuple[int, ...] | None:
    """``0,2-4`` is (0, 2, 3, 4); None when it is anything else."""
    found: set[int] = set()
    for part in text.split(","):
        matched = _PART.match(part.strip())
        if matched is None:
            return None
        first, last = int(matched[1]), int(matched[2] or matched[1])
        if not first <= last <= MAX_CPU:
            return None
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def show_cpus(cpus: Iterable[int]) -> str:
    """``parse_cpus``, the other way."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and runs[-1][-1] == cpu - 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def allowed(setting: str) -> set[int]:
    """The cores that the calling thread may run on now. Raises TuningError where there is no such thing."""
    if not hasattr(os, "sched_getaffinity"):
        raise TuningError(f"{setting}: this system does not pin programs to cores (Linux does)")
    return os.sched_getaffinity(0)


def others(capture_cpu: int) -> tuple[int, ...]:
    """The cores that are left when capture has one to itself. Raises TuningError when none is."""
    rest = allowed("CAPTURE_CPU") - {capture_cpu}
    if not rest:
        raise TuningError(
            f"CAPTURE_CPU: expected a machine with a second core for the writer, got core {capture_cpu} alone"
        )
    return tuple(sorted(rest))


def pin(setting: str, cpus: Collection[int]) -> None:
    """The calling thread runs on these cores only. Raises TuningError, and then nothing has changed."""
    before = allowed(setting)
    try:
        os.sched_setaffinity(0, cpus)
        refused = set(cpus) - os.sched_getaffinity(0)
    except (OSError, ValueError, OverflowError):
        refused = set(cpus)
    if refused:
        os.sched_setaffinity(0, before)
        raise TuningError(
            f"{setting}: expected cores of this machine that the program may use ({show_cpus(before)}),"
            f" got {show_cpus(refused)}"
        )
