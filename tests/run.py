"""``make test``: all tests, first those that do not mind a busy machine, then those that play by the clock.

Both parts are shared between processes, one a core. The second part (marker ``clock``) plays an exchange and
a recorder in real time, mostly in one process: what it proves needs a core that keeps up, and beside tests
that start many processes it has none. What is given on the command line is passed on to both: files, ``-k``,
``-v``. Not here: running some tests while working on them, ``pytest tests/test_x.py`` does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Final

import pytest

NOTHING_CHOSEN: Final = pytest.ExitCode.NO_TESTS_COLLECTED
MOST: Final = 6  # each process has an engine of its own in memory


def main(arguments: list[str]) -> int:
    """The worse exit code of the two; that one of them had nothing to do is no failure."""
    processes = ["--numprocesses", str(min(os.cpu_count() or 1, MOST))]
    # A file's tests stay together, in their order: what is made once for a module is made once.
    processes += ["--dist", "loadfile", "--no-loadscope-reorder"]
    codes = []
    for which in ("not clock", "clock"):
        command = [sys.executable, "-m", "pytest", *processes, "-m", which, *arguments]
        codes.append(subprocess.run(command, check=False).returncode)
        if codes[-1] == pytest.ExitCode.INTERRUPTED:
            break
    done = [code for code in codes if code != NOTHING_CHOSEN]
    return max(map(abs, done), default=int(NOTHING_CHOSEN))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
