"""The example queries that the files themselves contain: SQL comments and fenced blocks of Markdown."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
# In a comment of SQL an example stands four spaces further in than the text.
_COMMENTED = re.compile(r"(?:^--     .*\n)+", re.MULTILINE)
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r'kalshi-fast query (?:--\S+ \S+ )*"([^"]*)"', re.DOTALL)
_SHOWN = re.compile(r"^SELECT .*$", re.MULTILINE)  # a statement in the output of a command


class Example(NamedTuple):
    file: str
    sql: str  # on one line


def one_line(sql: str) -> str:
    return " ".join(sql.split()).rstrip(";")


def in_sql(text: str) -> Iterator[str]:
    for found in _COMMENTED.finditer(text):
        yield one_line(re.sub(r"^--", "", found[0], flags=re.MULTILINE))


def in_markdown(text: str) -> Iterator[str]:
    for kind, body in _FENCED.findall(text):
        if kind == "sql":
            yield from (one_line(part) for part in body.split(";") if part.strip())
        elif kind == "console":
            yield from map(one_line, _COMMAND.findall(body))
            yield from map(one_line, _SHOWN.findall(_COMMAND.sub("", body)))


def examples() -> list[Example]:
    """Every one of sql/, the README and docs/."""
    found = []
    for path in sorted([*ROOT.glob("sql/*.sql"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = path.read_text("utf-8")
        queries = in_sql(text) if path.suffix == ".sql" else in_markdown(text)
        found += [Example(str(path.relative_to(ROOT)), query) for query in queries]
    return found


def missed() -> list[str]:
    """Places where a comment or a fenced block says SELECT … FROM kalshi and ``examples`` saw nothing."""
    seen = {example.sql for example in examples()}
    found = []
    for path in sorted([*ROOT.glob("sql/*.sql"), *ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        text = path.read_text("utf-8")
        if path.suffix == ".sql":
            text = "\n".join(re.findall(r"^\s*--(.*)$", text, re.MULTILINE))
        for place in re.finditer(r"\bSELECT\b(?=[^`;]{1,400}?FROM kalshi\.)", text):
            around = one_line(text[place.start() : place.start() + 30])
            if not any(around in sql for sql in seen):
                found.append(f"{path.relative_to(ROOT)}: {around}")
    return found
