"""Every message that docs/troubleshooting.md quotes is one that the source still has.

Messages are taken from the first column of its tables, the source's from its string literals; what is filled
in is "…" in both. Not here: that the remedies help.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
SOURCES = [path for path in (ROOT / "src" / "kalshi_fast").rglob("*.py") if "bench" not in path.parts]
OTHERS = {  # what other programs say
    "kalshi-fast: command not found",
    "No module named 'kalshi_fast._…'",
    "make: command not found",
    "error: command '…gcc' failed: No such file or directory",
    "fatal error: Python.h: No such file or directory",
    "The virtual environment was not created successfully because ensurepip is not available.",
}
_FILLED_IN = re.compile(r"%[-+ #0]*[\d*]*(?:\.\d+)?[sdrf]")
_SETTING = re.compile(r"\A[A-Z][A-Z_]+\b")  # where the source fills in the name of a setting


def messages() -> list[str]:
    """Quoted in the first column; names of settings and the like are no messages."""
    text = PAGE.read_text("utf-8").partition("## Coming from an earlier recorder")[0]
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    spans = [span for cell in cells for span in re.findall(r"`([^`]+)`", cell)]
    return [span for span in spans if " " in span.replace(": …", "")]


class _Texts(ast.NodeVisitor):
    """All strings of a module, joined as Python joins them."""

    def __init__(self) -> None:
        self.found: list[str] = []

    def visit_Constant(self, node: ast.Constant) -> None:
        if isinstance(node.value, str):
            self.found.append(_FILLED_IN.sub("…", node.value))

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
        self.found.append("".join(parts))
        self.generic_visit(node)


@cache
def texts() -> list[str]:
    visitor = _Texts()
    for path in SOURCES:
        visitor.visit(ast.parse(path.read_text("utf-8")))
    return [*visitor.found, (ROOT / "Makefile").read_text("utf-8")]


def is_said(message: str) -> bool:
    forms = {message, _SETTING.sub("…", message)}
    patterns = [re.compile(".*".join(re.escape(part) for part in form.split("…") if part)) for form in forms]
    return any(pattern.search(text) for text in texts() for pattern in patterns)


def test_there_are_messages_and_the_look_up_can_fail() -> None:
    assert len(messages()) > 50
    assert set(messages()) >= OTHERS
    assert not is_said("PROD_KEYFILE: … is too beautiful")


@pytest.mark.parametrize("message", sorted(set(messages()) - OTHERS))
def test_the_source_says_so(message: str) -> None:
    assert is_said(message)
