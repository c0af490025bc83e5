"""The gate on instructions per delta frame: ``python -m benchmarks.instructions --check`` or ``--update``.

Exit code 1 when they have grown by more than 3 % over ``benchmarks/instructions.json``. Without valgrind, or
with another compiler, Cython, minor version of Python or architecture than that was counted with, nothing is
judged, and a line says so. How they are counted: ``kalshi_fast.bench.instructions``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from kalshi_fast.bench.instructions import Count, count, judged, why_not

if TYPE_CHECKING:
    from collections.abc import Callable

COMMITTED = Path(__file__).with_suffix(".json")


def main(arguments: list[str] | None = None, counted: Callable[[], Count] = count) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--check", action="store_true", help="fail when it has grown")
    what.add_argument("--update", action="store_true", help="commit what is counted now")
    parser.add_argument("--file", type=Path, default=COMMITTED, help="the committed figure")
    options = parser.parse_args(arguments)
    if counted is count and (reason := why_not()) is not None:
        sys.stdout.write(f"SKIPPED: {reason}; whether a frame costs more than before is not known\n")
        return 0
    now = counted()
    if options.update:
        now.write(options.file)
        sys.stdout.write(f"instructions per frame: {now.instructions_per_frame:.1f}\n")
        return 0
    good, lines = judged(now, Count.read(options.file))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
