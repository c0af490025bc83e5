"""The little Markdown that the references need. Not here: what they say."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MADE: Final = "<!-- Made from the code by `make docs`: changes here are lost. -->"


def page(title: str, *parts: str) -> str:
    """A page of paragraphs."""
    return "\n\n".join([f"# {title}", MADE, *(part.strip("\n") for part in parts if part)]) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a bar in a cell does not end it."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """As code, or nothing."""
    return f"`{text}`" if text else ""


def prose(docstring: str) -> str:
    """A docstring or comment as Markdown."""
    return re.sub(r"``([^`]+)``", r"`\1`", inspect.cleandoc(docstring))


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    text = text.strip()
    text = text if text.endswith((".", ":", "`")) else f"{text}."
    return text[:1].upper() + text[1:]
