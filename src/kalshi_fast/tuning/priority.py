"""Precedence in the kernel's scheduler, for the calling thread alone.

What the thread starts later, threads and processes, begins at the usual priority again. Not here: whether it
is worth it (docs/tuning.md).
"""

from __future__ import annotations

import os

from kalshi_fast.errors import TuningError

_HOW = "as root, with CAP_SYS_NICE, or within `ulimit -{letter}` (systemd: {limit})"


def set_nice(nice: int) -> None:
    """-20 is the most favoured, 19 the least. Raises TuningError."""
    try:
        if nice < 0 and hasattr(os, "SCHED_RESET_ON_FORK"):
            os.sched_setscheduler(0, os.SCHED_OTHER | os.SCHED_RESET_ON_FORK, os.sched_param(0))
        os.setpriority(os.PRIO_PROCESS, 0, nice)
    except OSError as error:
        how = _HOW.format(letter="e", limit="LimitNICE")
        raise TuningError(
            f"CAPTURE_NICE: this system refuses {nice}: {error.strerror}; it would be allowed {how}"
        ) from error


def set_fifo(priority: int) -> None:
    """Before every usual program, from 1 to 99. Raises TuningError."""
    if not hasattr(os, "sched_setscheduler"):
        raise TuningError("CAPTURE_FIFO: this system has no SCHED_FIFO (Linux has)")
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))
    except OSError as error:
        how = _HOW.format(letter="r", limit="LimitRTPRIO")
        raise TuningError(
            f"CAPTURE_FIFO: this system refuses {priority}: {error.strerror}; it would be allowed {how}"
        ) from error
