"""Memory and processor time of a process, where the system tells (Linux)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """``cpu_s``: user and system time since its start."""

    resident_bytes: int
    cpu_s: float


def usage(pid: int) -> Usage | None:
    """None when there is no such process, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may have anything in it
    ticks = int(fields[11]) + int(fields[12])
    return Usage(pages * os.sysconf("SC_PAGE_SIZE"), ticks / os.sysconf("SC_CLK_TCK"))
