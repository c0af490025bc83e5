"""What valgrind counts: ``python -m kalshi_fast.bench.counted FILE WARM FRAMES`` handles frames of a file, in
the compiled loop, on fixed input. Not here: what is made of the counts (``instructions``).
"""

from __future__ import annotations

import sys
from pathlib import Path

from kalshi_fast._bench import Frames, drive_counted
from kalshi_fast.bench.rig import FRAMES_PER_READ, Rig


def main(file: str, warm: int, frames: int) -> None:
    """``warm`` frames, then ``frames`` of those that follow: these are counted."""
    tickers, *lines = Path(file).read_bytes().splitlines(keepends=True)
    rig = Rig(tickers.decode().rstrip("\n").split(","))
    rig.warm(lines[:warm])
    counted = Frames(lines[warm : warm + frames])
    drive_counted(rig.link.path, rig.receiver, counted, FRAMES_PER_READ)
    rig.check(warm + frames)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
