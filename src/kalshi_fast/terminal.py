"""A screen of styled lines on a terminal, redrawn in place. Plain ANSI, nothing else needed.

A line is a list of (text, style); styles are the keys of ``STYLES``. Colours are left out with NO_COLOR.
Whatever is not printable is shown as "?": no text from outside can steer the terminal. Not here: what is
shown (``top``, ``ladder_view``).
"""

from __future__ import annotations

import logging
import os
import sys
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self, TextIO

Line: TypeAlias = "list[tuple[str, str]]"

STYLES: Final = {
    "": "",
    "bold": "\x1b[1m",
    "dim": "\x1b[2m",
    "good": "\x1b[32m",
    "bad": "\x1b[31m",
    "warn": "\x1b[33m",
}
_RESET: Final = "\x1b[0m"
_BLOCKS: Final = " ▏▎▍▌▋▊▉█"


class Screen:
    """``with Screen() as screen``: the whole terminal, given back as it was; ``draw`` as often as you like.

    What is logged meanwhile would tear it: the last message waits in ``said``, to be shown.
    """

    def __init__(self, out: TextIO | None = None) -> None:
        self._out = out or sys.stdout
        self._colours = not os.environ.get("NO_COLOR")
        self._log = _LastMessage(logging.WARNING)
        self._handlers: list[logging.Handler] = []

    def __enter__(self) -> Self:
        self._handlers, logging.root.handlers = logging.root.handlers, [self._log]
        self._out.write("\x1b[?1049h\x1b[?25l")  # another screen, no cursor
        self._out.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self._out.write("\x1b[?25h\x1b[?1049l")
        self._out.flush()
        logging.root.handlers = self._handlers

    @property
    def said(self) -> str:
        """The last thing that was logged."""
        return self._log.text

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, now."""
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except OSError:
            columns, rows = 80, 24
        return columns or 80, rows or 24

    def draw(self, lines: Iterable[Line]) -> None:
        """Shows these lines, cut to what there is room for."""
        columns, rows = self.size
        shown = [render(line, columns, colours=self._colours) + "\x1b[K" for line in list(lines)[:rows]]
        self._out.write("\x1b[H" + "\r\n".join(shown) + "\x1b[J")
        self._out.flush()


class _LastMessage(logging.Handler):
    text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = record.getMessage()


def render(line: Line, columns: int = 1 << 30, *, colours: bool = False) -> str:
    """A line as text, at most so wide."""
    parts: list[str] = []
    for text, style in line:
        shown = printable(text)[:columns]
        columns -= len(shown)
        parts.append(f"{STYLES[style]}{shown}{_RESET}" if colours and style and shown else shown)
    return "".join(parts)


def printable(text: str) -> str:
    """What cannot be printed becomes "?"."""
    return text if text.isprintable() else "".join(char if char.isprintable() else "?" for char in text)


def bar(part: int, whole: int, width: int) -> str:
    """A bar of eighths of a character; something that is there is seen."""
    if part <= 0 or whole <= 0 or width <= 0:
        return ""
    eighths = max(1, min(width * 8, part * width * 8 // whole))
    full, rest = divmod(eighths, 8)
    return "█" * full + (_BLOCKS[rest] if rest else "")
