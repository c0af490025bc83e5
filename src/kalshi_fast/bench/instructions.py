"""Instructions per delta frame, as callgrind counts them: the same number on a busy machine as on a quiet
one.

Two children handle the same fixed frames, one of them more than the other; the difference of their counts is
those frames and nothing else. Compared with a committed figure, that is a gate
(``benchmarks/instructions.py``).
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kalshi_fast.bench.workload import N_MARKETS, made_frames, tickers
from kalshi_fast.errors import KalshiFastError

if TYPE_CHECKING:
    from collections.abc import Callable

WARM_DELTAS: Final = 4_000
FEW: Final = 2_000
MANY: Final = 22_000
MAX_GROWTH: Final = 0.03
NO_VALGRIND: Final = "valgrind is not installed, instructions are not counted"
_TOTAL: Final = re.compile(rb"^(?:summary|totals): (\d+)", re.MULTILINE)


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
        """What else than our code differs."""
        mine, theirs = asdict(self), asdict(other)
        return [
            f"{name} {theirs[name]}, now {mine[name]}"
            for name in ("compiler", "python", "cython", "arch")
            if mine[name] != theirs[name]
        ]


def available() -> bool:
    return shutil.which("valgrind") is not None


def count(say: Callable[[str], None] = lambda _: None) -> Count:
    """Counts. Raises CountError when valgrind is missing or fails."""
    if not available():
        raise CountError(NO_VALGRIND)
    with tempfile.TemporaryDirectory(prefix="kalshi-fast-bench-") as name:
        directory = Path(name)
        frames = directory / "frames"
        frames.write_bytes(b"\n".join([",".join(tickers()).encode(), *made_frames(WARM_DELTAS + MANY)]))
        say("counting instructions (valgrind)")
        running = [_started(directory, frames, n) for n in (FEW, MANY)]
        totals = [_total(process, file) for process, file in running]
    return Count(
        instructions_per_frame=round((totals[1] - totals[0]) / (MANY - FEW), 1),
        compiler=_compiler(),
        python=platform.python_version(),
        cython=_cython(),
        arch=platform.machine(),
    )


def _started(directory: Path, frames: Path, n: int) -> tuple[subprocess.Popen[bytes], Path]:
    out = directory / f"counts-{n}"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", "-q", sys.executable]
    command += ["-m", "kalshi_fast.bench.counted", str(frames), str(N_MARKETS + WARM_DELTAS), str(n)]
    process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
        command,
        env={
            **os.environ,
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "OPENBLAS_NUM_THREADS": "1",
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    return process, out


def _total(process: subprocess.Popen[bytes], file: Path) -> int:
    _, errors = process.communicate()
    found = _TOTAL.search(file.read_bytes()) if file.exists() else None
    if process.returncode or found is None:
        raise CountError(
            f"valgrind ended with code {process.returncode}: {errors[-300:].decode(errors='replace')}"
        )
    return int(found[1])


def _compiler() -> str:
    """The one that extensions are compiled with here."""
    name = (sysconfig.get_config_var("CC") or "cc").split()[0]
    path = shutil.which(os.environ.get("CC", name)) or shutil.which("cc")
    if path is None:
        return "unknown"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)  # noqa: S603
    return said.stdout.partition("\n")[0].strip() or "unknown"


def _cython() -> str:
    """Written by Cython into what it has made; here the version that would do it now."""
    try:
        return importlib.metadata.version("cython")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def judged(now: Count, committed: Count, max_growth: float = MAX_GROWTH) -> tuple[bool, list[str]]:
    """(whether it may be merged, lines to print)."""
    before, after = committed.instructions_per_frame, now.instructions_per_frame
    growth = after / before - 1
    lines = [f"instructions per frame: {after:.1f}, committed {before:.1f} ({growth:+.1%})"]
    other = now.other_tools(committed)
    if other:
        lines.append(f"the committed figure was counted with other tools: {'; '.join(other)}")
    good = growth <= max_growth
    if not good:
        lines.append(f"FAILED: more than {max_growth:.0%} above the committed figure")
        lines.append(
            "where the tools alone explain it, --update on the commit before this one tells"
            if other
            else "make it smaller, or say in the commit why it has to be and --update"
        )
    elif growth < -max_growth:
        lines.append("smaller than committed: --update keeps it so")
    return good, lines
