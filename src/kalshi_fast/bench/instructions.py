"""Instructions per delta frame, as callgrind counts them: the same number on a busy machine as on a quiet
one.

A child handles fixed frames; callgrind is switched on for the compiled loop over them and for nothing else.
Compared with a committed figure, that is a gate (``benchmarks/instructions.py``).
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kalshi_fast._bench import CAN_COUNT, COMPILER, CYTHON
from kalshi_fast.bench.workload import N_WARM, WARM_DELTAS, made_frames, tickers
from kalshi_fast.errors import KalshiFastError

if TYPE_CHECKING:
    from collections.abc import Callable

FRAMES: Final = 20_000
MAX_GROWTH: Final = 0.03
_TOTAL: Final = re.compile(r"^totals: (\d+)", re.MULTILINE)


class CountError(KalshiFastError):
    """Instructions could not be counted."""


@dataclass(frozen=True)
class Count:
    """Instructions per delta frame, and what they depend on beside our code."""

    instructions_per_frame: float
    compiler: str
    python: str
    cython: str
    arch: str

    @classmethod
    def read(cls, path: Path) -> Count:
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise CountError(f"{path}: expected a committed figure, got {error}") from error

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    def other_tools(self, other: Count) -> list[str]:
        """What else than our code differs. Of Python the minor version counts: a patch keeps its headers."""
        mine, theirs = asdict(self), asdict(other)
        differ = [name for name in ("compiler", "cython", "arch") if mine[name] != theirs[name]]
        if _minor(self.python) != _minor(other.python):
            differ.insert(0, "python")
        return [f"{name} {theirs[name]}, now {mine[name]}" for name in differ]


def _minor(python: str) -> list[str]:
    return python.split(".")[:2]


def why_not() -> str | None:
    """Why instructions cannot be counted, None when they can."""
    if shutil.which("valgrind") is None:
        return "valgrind is not installed: instructions are not counted"
    return None if CAN_COUNT else "compiled without valgrind's header: instructions are not counted"


def count(say: Callable[[str], None] = lambda _: None) -> Count:
    """Counts. Raises CountError when it cannot be done."""
    if (reason := why_not()) is not None:
        raise CountError(reason)
    say("counting instructions (valgrind)")
    with tempfile.TemporaryDirectory(prefix="kalshi-fast-bench-") as name:
        frames, out = Path(name) / "frames", Path(name) / "counts"
        made = made_frames(WARM_DELTAS + FRAMES)  # each ends its line itself
        frames.write_bytes(b"".join([",".join(tickers()).encode(), b"\n", *made]))
        valgrind = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={out}", "-q"]
        counted = ["-m", "kalshi_fast.bench.counted", str(frames), str(N_WARM), str(FRAMES)]
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own module
            [*valgrind, sys.executable, *counted],
            env={**os.environ, "PYTHONHASHSEED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        found = _TOTAL.search(out.read_text()) if out.exists() else None
    if done.returncode or found is None or found[1] == "0":
        raise CountError(
            f"valgrind counted nothing and ended with code {done.returncode}: {done.stderr[-300:]}"
        )
    return Count(
        instructions_per_frame=round(int(found[1]) / FRAMES, 1),
        compiler=COMPILER,
        python=platform.python_version(),
        cython=CYTHON,
        arch=platform.machine(),
    )


def judged(now: Count, committed: Count, max_growth: float = MAX_GROWTH) -> tuple[bool, list[str]]:
    """(whether it may be merged, lines to print). Only figures of the same tools are judged: another compiler
    makes other instructions of the same code."""
    before, after = committed.instructions_per_frame, now.instructions_per_frame
    growth = after / before - 1
    lines = [f"instructions per frame: {after:.1f}, committed {before:.1f} ({growth:+.1%})"]
    if other := now.other_tools(committed):
        differ = "; ".join(other)
        lines.append(f"SKIPPED: not judged, the committed figure was counted with other tools: {differ}")
        return True, lines
    good = growth <= max_growth
    if not good:
        lines.append(f"FAILED: more than {max_growth:.0%} above the committed figure")
        lines.append("make it smaller, or say in the commit why it has to be and --update")
    elif growth < -max_growth:
        lines.append("smaller than committed: --update keeps it so")
    return good, lines
