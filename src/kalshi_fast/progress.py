"""A line on stderr that says how far we are: redrawn on a terminal, repeated now and then elsewhere."""

from __future__ import annotations

import sys
import time

_REPEAT_S = 2.0


class ProgressLine:
    """``show(text)`` as often as you like; ``end()`` leaves the cursor on a fresh line."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._terminal = sys.stderr.isatty()
        self._shown = 0.0
        self._width = 0

    def show(self, text: str) -> None:
        if self._quiet:
            return
        if self._terminal:
            sys.stderr.write("\r" + text.ljust(self._width))
            self._width = len(text)
        elif time.monotonic() - self._shown >= _REPEAT_S:
            self._shown = time.monotonic()
            sys.stderr.write(text + "\n")
        sys.stderr.flush()

    def end(self) -> None:
        if self._width:
            sys.stderr.write("\n")
            self._width = 0


def bar(done: float, width: int = 24) -> str:
    """``[####    ]`` for a fraction from 0 to 1."""
    filled = round(max(0.0, min(1.0, done)) * width)
    return f"[{'#' * filled}{' ' * (width - filled)}]"
