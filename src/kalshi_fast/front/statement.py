"""What may be asked of the front, seen in the statement itself, before the engine runs it.

The engine's ``readonly`` refuses writes and most table functions, but not all that reaches outside: the
``file`` function, DESCRIBE of a table function (which opens sockets to infer the columns), INTO OUTFILE,
KILL, the SETTINGS of a subquery, several statements at once. These are refused here. The text is not parsed
by us: the engine's own ``formatQuery`` gives it in one canonical form without comments, in which words can be
told from literals. Not here: limits (``engine``), which settings are free (``settings``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from kalshi_fast.front.errors import refusal
from kalshi_fast.front.settings import is_free

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ALLOWED_STATEMENTS: Final = frozenset({"SELECT", "WITH", "SHOW", "DESCRIBE", "EXPLAIN", "EXISTS", "("})
# Every other table function that the engine knows is refused, those of later versions too.
ALLOWED_TABLE_FUNCTIONS: Final = frozenset(
    {
        "format",
        "generate_series",
        "generaterandom",
        "generateseries",
        "merge",
        "mergetreeindex",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    }
)
# Refused under any use of the name: a function may be passed by name, as in arrayMap(file, …), APPLY file.
# The table stack_trace sends signals to every thread of the recorder.
_NEVER: Final = frozenset({"file", "stack_trace"})
_TOKEN = re.compile(
    r"'(?:[^'\\]|\\.|'')*'"  # a literal
    r"|`(?P<quoted>(?:[^`\\]|\\.|``)*)`"
    r"|(?P<word>[A-Za-z_][A-Za-z0-9_]*)"
    r"|[^\s]",
    re.DOTALL,
)
_AFTER_SETTINGS: Final = frozenset({"FORMAT", "INTO", "UNION", "EXCEPT", "INTERSECT"})
_OPENING: Final = frozenset("([{")
_CLOSING: Final = frozenset(")]}")
_OUTPUT_FORMAT = re.compile(r"\sFORMAT (?P<name>[A-Za-z0-9_]+)(?: SETTINGS .*)?\Z", re.DOTALL)
_IDENTIFIER_PARAMETER = re.compile(r"\{(\w+)\s*:\s*Identifier\s*\}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement that may run."""

    kind: str  # its first word
    output_format: str | None  # of its FORMAT clause
    has_totals: bool


def check(canonical: str, parameters: Mapping[str, str], refused_functions: Iterable[str]) -> Statement:
    """Raises a refusal unless the statement, in ``formatQuery``'s form, only reads what the engine holds.

    ``refused_functions`` are in lower case: table functions and functions that are called by their names.
    """
    refused = frozenset(refused_functions)
    tokens = [_name(found) for found in _TOKEN.finditer(canonical)]
    kind = tokens[0][0].upper() if tokens else ""
    if kind not in _ALLOWED_STATEMENTS:
        raise refusal("READONLY", f"The front is read-only: it does not run {kind or 'an empty statement'}")
    for position, (name, quoted) in enumerate(tokens):
        following = tokens[position + 1][0] if position + 1 < len(tokens) else ""
        lower = name.lower()
        if lower in _NEVER or (lower in refused and following == "("):
            raise refusal("READONLY", f"The front reads its own tables only: {name} is refused")
        if lower in refused and lower.startswith("ai"):  # these too may be passed by name
            raise refusal("READONLY", f"The front reads its own tables only: {name} is refused")
        if name == "INTO" and following == "OUTFILE" and not quoted:
            raise refusal("READONLY", "The front is read-only: it does not write INTO OUTFILE")
    for name in _settings(tokens):
        if not is_free(name):
            raise refusal("READONLY", f"Cannot modify '{name}' setting in readonly mode.")
    for parameter in _IDENTIFIER_PARAMETER.findall(canonical):
        value = parameters.get(parameter, "").lower()
        if "\\" in value or _NEVER & set(re.split(r"[^a-z0-9_]+", value)) or value.strip("` ") in refused:
            raise refusal("READONLY", f"The front reads its own tables only: {value!r} is refused")
    found = _OUTPUT_FORMAT.search(canonical)
    words = [name for name, quoted in tokens if not quoted]
    return Statement(
        kind,
        found["name"] if found else None,
        any(pair == ("WITH", "TOTALS") for pair in pairwise(words)),
    )


def _settings(tokens: list[tuple[str, bool]]) -> Iterator[str]:
    """The names in every SETTINGS clause. The engine checks those of the outermost one only."""
    for start in [place for place, token in enumerate(tokens) if token == ("SETTINGS", False)]:
        depth, expected = 0, True
        for name, quoted in tokens[start + 1 :]:
            if depth == 0 and not quoted and name in _AFTER_SETTINGS:
                break
            if expected:
                if name == "=" or (name.isupper() and not quoted):  # a column or an alias of this name
                    break
                yield name
            expected = name == "," and depth == 0
            depth += (name in _OPENING) - (name in _CLOSING)
            if depth < 0:
                break


def _name(found: re.Match[str]) -> tuple[str, bool]:
    """A token as a name could be meant by it, and whether it was quoted; literals have none."""
    if found["quoted"] is not None:
        return re.sub(r"\\(.)|``", lambda escape: escape[1] or "`", found["quoted"]), True
    text = found[0]
    return ("''", True) if text.startswith("'") else (text, False)
