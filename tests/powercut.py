"""Power cuts: an ext4 file system in a file, shut down without writing any more, and mounted again.

``EXT4_IOC_SHUTDOWN`` without flushing leaves on the disk what was forced to it and nothing else, as a power
cut does. As a program: ``python tests/powercut.py CUTS [SEED]``. Not here: what is recorded (``storing``).
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
_SHUTDOWN: Final = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_LOG_FLUSH: Final = 2
SIZE_BYTES: Final = 3 << 30
ROUNDS: Final = 400


class Disk:
    """A file system of its own on a loop device. Raises OSError or CalledProcessError where there is none."""

    def __init__(self, directory: Path) -> None:
        self.where = directory / "disk"
        self._image = directory / "image"
        self.where.mkdir()
        with self._image.open("wb") as image:
            image.truncate(SIZE_BYTES)
        subprocess.run(["mkfs.ext4", "-q", "-F", str(self._image)], check=True, capture_output=True)
        self.mount()

    def mount(self) -> None:
        command = ["mount", "-o", "loop", str(self._image), str(self.where)]
        subprocess.run(command, check=True, capture_output=True)

    def cut(self) -> None:
        """Nothing is written from here on."""
        handle = os.open(self.where, os.O_RDONLY)
        try:
            fcntl.ioctl(handle, _SHUTDOWN, struct.pack("<I", _NO_LOG_FLUSH))
        finally:
            os.close(handle)

    def unmount(self) -> None:
        for _ in range(50):
            if subprocess.run(["umount", str(self.where)], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.1)
        subprocess.run(["umount", "-l", str(self.where)], check=True)


class Cuts:
    """``one``: records, cuts, mounts again, and the next one compares the stores with the journal."""

    def __init__(self, disk: Disk, fsync: str, seed: int) -> None:
        self.disk, self.fsync, self.rng = disk, fsync, random.Random(seed)
        self.cuts = self.rows = self.repaired = 0
        self._committed = 0

    def one(self, *, cut: bool = True) -> None:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "storing.py"), str(self.disk.where), str(ROUNDS), str(self.cuts)],
            env={**os.environ, "STORING_FSYNC": self.fsync},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        told: list[str] = []
        stderr = process.stderr
        reader = threading.Thread(target=lambda: told.extend(stderr), daemon=True)
        reader.start()
        first = process.stdout.readline()
        assert first.startswith("{"), f"it does not start again: {''.join(told)[-3000:]}"
        self._judge(json.loads(first))
        after = self.rng.randrange(3, 120)
        for line in process.stdout:
            if line.startswith("committed "):
                self._committed = int(line.split()[1])
                after -= 1
                if not after and cut:
                    time.sleep(self.rng.uniform(0.0, 0.2))
                    break
        if cut:
            self.disk.cut()
            # What was said before the cut counts, also what we have not read yet; what comes after does not.
            process.kill()
            self.cuts += 1
        process.stdout.read()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()
        if cut:
            self.disk.unmount()
            self.disk.mount()

    def _judge(self, verdict: dict[str, Any]) -> None:
        what = f"fsync {self.fsync}, cut {self.cuts}: {verdict}"
        assert verdict["clickhouse"] == verdict["parquet"] == {"missing": 0, "too_many": 0}, what
        assert verdict["known"] == [], what
        assert verdict["health_doubled"] == 0, what
        if self.fsync == "always":
            assert verdict["end"] >= self._committed, f"{self._committed} batches were committed; {what}"
        self.rows = verdict["rows"]
        self.repaired += verdict["repaired"]


def main(wanted: int, seed: int) -> int:
    directory = Path(tempfile.mkdtemp(prefix="kalshi-fast-cut-"))
    for fsync in ("always", "interval"):
        (directory / fsync).mkdir()
        disk = Disk(directory / fsync)
        cuts = Cuts(disk, fsync, seed)
        try:
            for _ in range(wanted):
                cuts.one()
                sys.stdout.write(f"{fsync}: {cuts.cuts} cuts, {cuts.rows} rows\n")
                sys.stdout.flush()
            cuts.one(cut=False)
            sys.stdout.write(f"{fsync}: {cuts.cuts} cuts, {cuts.rows} rows, each in both stores once\n")
        finally:
            with suppress(subprocess.CalledProcessError):
                disk.unmount()
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
