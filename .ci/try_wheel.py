"""Tries an installed kalshi-fast: that it is no source tree, that all compiled modules load, that a book is a
book, and that the command records from the simulator into both stores.

``python .ci/try_wheel.py`` in an environment with kalshi-fast[embedded]; it needs nothing else, no compiler.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

import kalshi_fast
from kalshi_fast import NO, YES, OrderBook


def compiled_modules() -> list[str]:
    """Loads each of them, from where the package is installed. Their names."""
    package = Path(kalshi_fast.__file__).parent
    if "site-packages" not in package.parts:
        sys.exit(f"{package} is no installed package")
    names = sorted(stub.stem for stub in package.glob("_*.pyi"))
    for name in names:
        module = importlib.import_module(f"kalshi_fast.{name}")
        if Path(str(module.__file__)).parent != package or not str(module.__file__).endswith(".so"):
            sys.exit(f"{name} is {module.__file__}, expected a compiled module in {package}")
    return names


def book() -> None:
    """A snapshot, deltas on both sides, and what must be refused."""
    book = OrderBook()
    book.apply_snapshot(yes=[(4500, 30_000), (4400, 100)], no=[(5300, 12_050)])
    if (book.best_bid(YES), book.best_ask(YES)) != (4500, 4700):
        sys.exit(f"expected 4500 and 4700, got {book.best_bid(YES)} and {book.best_ask(YES)}")
    left = book.apply_delta(YES, 4500, -30_000), book.apply_delta(NO, 5300, -50)
    if (*left, book.best_bid(YES)) != (0, 12_000, 4400):
        sys.exit(f"expected 0, 12000 and 4400, got {left} and {book.best_bid(YES)}")
    try:
        book.apply_delta(YES, 4400, -101)
    except kalshi_fast.BookError:
        return
    sys.exit("a size below zero was taken")


def demo() -> int:
    """Records the simulator in an empty directory. How many events."""
    command = str(Path(sys.executable).with_name("kalshi-fast"))
    with tempfile.TemporaryDirectory() as directory:
        version = subprocess.run([command, "--version"], cwd=directory, capture_output=True, check=True)
        if version.stdout.decode().split() != ["kalshi-fast", distribution("kalshi-fast").version]:
            sys.exit(f"--version says {version.stdout!r}")
        play = ["--seconds", "2", "--markets", "20", "--rate", "2000", "--dir", "played"]
        played = subprocess.run(
            [command, "demo", *play, "--quiet", "--json"], cwd=directory, capture_output=True, check=False
        )
        if played.returncode != 0:
            sys.exit(f"the demo ended with {played.returncode}: {(played.stdout + played.stderr).decode()}")
        figures = json.loads(played.stdout.splitlines()[-1])
        return int(figures["events"])


if __name__ == "__main__":
    names = compiled_modules()
    book()
    events = demo()
    sys.stdout.write(
        f"kalshi-fast {kalshi_fast.__version__}: {len(names)} modules, a book, {events:,} events\n"
    )
