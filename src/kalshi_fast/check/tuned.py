"""The tuning that the settings ask for: whether this host allows it (docs/tuning.md).

A thread tries the cores and priorities and ends, so nothing stays; memory is not locked, only its limit read.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from kalshi_fast.check.finding import Check, Finding, failure, ok, warning
from kalshi_fast.errors import TuningError
from kalshi_fast.tuning import capture, cpus, memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings


def checks(settings: Settings) -> list[Check]:
    return [
        Check("tuning", lambda: _settings(settings)),
        Check("cores", lambda: _cores(settings)),
        Check("locked memory", _locked_memory),
    ]


def _settings(settings: Settings) -> Iterator[Finding]:
    asked = {
        "CAPTURE_CPU": settings.capture_cpu,
        "WRITER_CPUS": cpus.show_cpus(settings.writer_cpus),
        "BUSY_POLL": "on" if settings.busy_poll else None,
        "CAPTURE_NICE": settings.capture_nice,
        "CAPTURE_FIFO": settings.capture_fifo,
        "LOCK_MEMORY": "on" if settings.lock_memory else None,
    }
    shown = ", ".join(f"{name}={value}" for name, value in asked.items() if value not in (None, ""))
    try:
        capture.try_out(settings)
        if settings.lock_memory:
            memory.refuse_limit()
    except TuningError as error:
        yield failure("tuning", str(error))
    else:
        yield ok("tuning", f"{shown} can be had here" if shown else "no setting asks for any")


def _cores(settings: Settings) -> Iterator[Finding]:
    if not hasattr(os, "sched_getaffinity"):
        yield ok("cores", f"{os.cpu_count()}; this system does not pin programs to them")
        return
    mine = cpus.allowed("CAPTURE_CPU")
    said = f"{len(mine)} ({cpus.show_cpus(mine)}) can be used"
    if len(mine) < 2:
        yield warning("cores", said, "take a machine with two: capture and writer share the one")
    elif settings.capture_cpu is None:
        yield ok("cores", said, "CAPTURE_CPU would give capture one of its own (docs/tuning.md)")
    else:
        yield ok("cores", f"{said}, capture has {settings.capture_cpu} to itself as far as we decide")


def _locked_memory() -> Iterator[Finding]:
    most = memory.limit_bytes()
    if most is None:
        yield ok("locked memory", "no limit counts: LOCK_MEMORY can be had")
    else:
        remedy = "for LOCK_MEMORY: `ulimit -l unlimited` (systemd: LimitMEMLOCK=infinity)"
        yield ok("locked memory", f"at most {most // 1024} KiB", remedy)
