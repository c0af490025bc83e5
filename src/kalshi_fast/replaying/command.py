"""``kalshi-fast replay``: options in, a report out, a progress bar meanwhile.

Not here: the findings (``verify``).
"""

from __future__ import annotations

import json
import sys
import warnings
from typing import TYPE_CHECKING, Any

from kalshi_fast.progress import ProgressLine, bar
from kalshi_fast.replaying.files import ReplayWarning
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.replaying.verify import describe, summarise, verify

if TYPE_CHECKING:
    import argparse

    from kalshi_fast.replaying.source import Source


def replay(options: argparse.Namespace, more: dict[str, Any]) -> int:
    """Reads the recording that the options name; 1 when an invariant does not hold.

    ``more``: how a source is opened (``Replay``).
    """
    markets = None
    if options.markets is not None:
        markets = [ticker.strip() for ticker in options.markets.split(",") if ticker.strip()]
    recording = Replay(options.path, markets=markets, start=options.start, end=options.end, **more)
    line = ProgressLine(quiet=options.quiet)

    def say(message: Warning | str, *_: object, **__: object) -> None:
        line.end()
        sys.stderr.write(f"kalshi-fast: {message}\n")

    def progress(source: Source) -> None:
        done = source.read / source.rows if source.rows else 0.0
        line.show(f"{'verifying' if options.verify else 'reading'} {bar(done)} {source.read:,} rows")

    with warnings.catch_warnings():
        warnings.simplefilter("always", ReplayWarning)
        warnings.showwarning = say
        try:
            report = (verify if options.verify else summarise)(recording, progress)
        finally:
            line.end()
    sys.stdout.write(describe(report) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(report.figures()) + "\n")
    return 1 if report.violations else 0
