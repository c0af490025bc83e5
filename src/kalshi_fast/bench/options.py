"""The flags of `kalshi-fast bench`. Imports nothing that is measured: the command line reads them at every
start."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import argparse

PARTS: Final = ("stages", "pipeline", "sockets", "latency", "burst", "instructions")


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--quick", action="store_true", help="within 45 seconds: fewer rounds, no burst")
    command.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"some of: {', '.join(PARTS)}"
    )
    command.add_argument("--plot", type=Path, metavar="FILE.svg", help="draw the bars (needs matplotlib)")
    command.add_argument("--markdown", action="store_true", help="print the table as Markdown")
