"""docs/reference/api.md: what ``kalshi_fast`` exports and what that returns.

Signatures are read from the source (a stub where the module is compiled), meanings are the docstrings of the
objects themselves: a public name without one is an error. Not here: modules that are not for import by
others.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kalshi_fast
from kalshi_fast import Grid
from tools.reference.markdown import code, page, prose, table
from tools.reference.meanings import meaning

# Beside the exported names: what their methods return, or take.
MORE: Final = (
    ("kalshi_fast._replay", "Event"),
    ("kalshi_fast.replaying.run", "Run"),
    ("kalshi_fast.replaying.tables", "Tables"),
    ("kalshi_fast.replaying.source", "Source"),
    ("kalshi_fast.replaying.chunks", "Chunk"),
    ("kalshi_fast._features", "Features"),
)
FUNCTIONS: Final = (
    ("kalshi_fast.replaying.source", "open_source"),
    ("kalshi_fast.replaying.times", "moment_ns"),
    ("kalshi_fast.replaying.times", "duration_ns"),
    ("kalshi_fast.replaying.tables", "exact"),
    ("kalshi_fast.replaying.tables", "dollars"),
    ("kalshi_fast.replaying.tables", "contracts"),
    ("kalshi_fast.compact", "event_files"),
)
CONSTANTS: Final = {
    "YES": "the yes side, where a side is asked for",
    "NO": "the no side",
    "GRIDS": "every grid by the exchange's name of it (`price_level_structure`)",
    "__version__": "the version that is installed, as text",
}
# What has no place for a docstring: attributes, and what the language calls.
ATTRIBUTES: Final = {
    "OrderBook.grid": "the prices it may have",
    "Grid.name": "as the exchange calls it",
    "Grid.ranges": "(start_e4, end_e4, step_e4) of each stretch",
    "Grid.n_ticks": "how many prices there are",
    "Grid.__contains__": "whether a price is on the grid",
    "Replay.__iter__": "as `events()`",
    "Event.kind": "0 snapshot, 1 delta, 3 gap",
    "Event.market_ix": "the market's index in the source's `tickers`",
    "Event.ticker": "the market's name",
    "Event.side": "0 yes, 1 no",
    "Event.price_e4": "1/10,000 dollar, on the scale of the event's own side",
    "Event.qty_e2": "1/100 contract, signed: the change of a delta",
    "Event.conn_id": "the connection that it came by",
    "Event.sid": "the subscription within the connection",
    "Event.seq": "the exchange's number within the subscription",
    "Event.book": "the market's book behind the event; it goes on changing",
    "Event.known": "whether the book is known",
    "Tables.__iter__": "record batches, one by one",
    "Chunk.type": "0 snapshot, 1 delta, 2 clear, 3 gap",
    "Chunk.market_ix": "index in the source's `tickers`",
    "Chunk.side": "0 yes, 1 no",
    "Chunk.price_e4": "1/10,000 dollar",
    "Chunk.qty_e2": "1/100 contract, signed",
    "Chunk.conn_id": "the connection",
    "Chunk.sid": "the subscription within it",
    "Chunk.seq": "the exchange's number within the subscription",
    "Features.capacity": "how many rows there is room for",
    "Features.n": "how many are filled",
    "Features.depth": "levels of each side",
    "Features.arrays": "all of the arrays, by name",
}
# Attributes whose name says what they are, whatever has them; those with a column's name mean what it does.
NAMED: Final = {
    "channel": "the channel's name",
    "ingest_ns": "the receive time, nanoseconds since 1970",
    "payload": "the frame as it came",
    "received_ts_ms": "when the exchange had it, milliseconds since 1970; None: not told",
    "source_ts_ms": "when the source published it, milliseconds since 1970; None: not told",
    "table": "the table that it is a row of",
    "ts_us": "the exchange's time, microseconds since 1970",
}
_ERRORS: Final = ("BookError", "KalshiFastError")
_DEFAULT: Final = re.compile(r"(?<=[\w\]])=")  # as people write it behind an annotation
_FINAL: Final = re.compile(r"^Final\[(.*)\]$")
_TAKEN: Final = ("__init__", "__contains__", "__iter__", "__eq__")  # of the names with underscores

_HEAD: Final = """
What `kalshi_fast` exports. Prices are `price_e4` (1/10,000 dollar, 0 to 10000), sizes `qty_e2` (1/100
contract), times nanoseconds since 1970 (`_ns`) or microseconds (`_us`), all of them integers. Every error is
a [`KalshiFastError`](errors.md).

`import kalshi_fast` alone costs next to nothing: a name is imported when it is first asked for. Stubs and
`py.typed` come along, so that a type checker sees all of this. [Replay](../replay.md) shows how it is
used."""

_TIMES: Final = """
`Moment` is a datetime or a date (UTC unless it says otherwise), ISO text with up to nine digits behind the
second, or nanoseconds since 1970. `Duration` is a timedelta, text such as `100ms`, `1s`, `5min`, or
nanoseconds."""


@dataclass(frozen=True, slots=True)
class Member:
    """A method, a property or an attribute as the source declares it."""

    name: str
    signature: str


def _tree(module: str) -> ast.Module:
    """The source of a module, or the stub of a compiled one."""
    package = Path(kalshi_fast.__file__).parent
    path = package.joinpath(*module.split(".")[1:])
    for candidate in (path.with_suffix(".pyi"), path.with_suffix(".py"), path / "__init__.py"):
        if candidate.exists():
            return ast.parse(candidate.read_text("utf-8"))
    raise FileNotFoundError(path)


def _signature(name: str, function: ast.FunctionDef) -> str:
    arguments = function.args
    for listed in (arguments.posonlyargs, arguments.args):
        if listed and listed[0].arg in ("self", "cls"):
            listed.pop(0)
    returns = f" -> {ast.unparse(function.returns)}" if function.returns is not None else ""
    return f"{name}({_DEFAULT.sub(' = ', ast.unparse(arguments))}){returns}"


def members(module: str, name: str) -> list[Member]:
    """The public members of a class in the order of its source; the first is how it is made."""
    (found,) = (node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)
    members = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind = _FINAL.sub(r"\1", ast.unparse(node.annotation))
            members.append(Member(node.target.id, f"{node.target.id}: {kind}"))
        if not isinstance(node, ast.FunctionDef) or (node.name.startswith("_") and node.name not in _TAKEN):
            continue
        decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
        if "property" in decorators:
            kind = ast.unparse(node.returns) if node.returns is not None else "Any"
            members.append(Member(node.name, f"{node.name}: {kind}"))
        elif node.name == "__init__":
            members.insert(0, Member(node.name, _signature(name, node).removesuffix(" -> None")))
        else:
            members.append(Member(node.name, _signature(node.name, node)))
    return members


def docstring(of: object) -> str:
    """As Markdown, without the signature that Cython puts before it."""
    text = inspect.cleandoc(getattr(of, "__doc__", None) or "")
    first, _, rest = text.partition("\n")
    name = getattr(of, "__name__", "")
    if "(self" in first or (name and first.startswith((f"{name}(", f"{name}:"))):
        text = rest
    return prose(text)


def home(name: str) -> str:
    """The module that an exported name is made in."""
    tree = _tree("kalshi_fast")
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return str(node.module)
    raise KeyError(name)


def document() -> str:
    """The page."""
    exported = [name for name in kalshi_fast.__all__ if name not in (*CONSTANTS, *_ERRORS)]
    grids = [name for name in exported if isinstance(getattr(kalshi_fast, name), Grid)]
    classes = [name for name in exported if inspect.isclass(getattr(kalshi_fast, name))]
    parts = ["## Constants", _constants(grids), "## Books"]
    parts += [_class(home(name), name) for name in ("OrderBook", "Grid")]
    parts += ["## Replay", _function(home("replay"), "replay"), _TIMES]
    parts += [_class(home(name), name) for name in classes if name not in ("OrderBook", "Grid", "Strategy")]
    parts += [_class(module, name) for module, name in MORE]
    parts += ["## Strategies", _class(home("Strategy"), "Strategy")]
    parts += ["## Functions of modules", *(_function(module, name) for module, name in FUNCTIONS)]
    errors = table(
        ("error", "meaning"),
        [(code(name), docstring(getattr(kalshi_fast, name))) for name in _ERRORS],
    )
    parts += ["## Errors", errors, "All of them: [errors](errors.md)."]
    return page("Python API", _HEAD, *parts)


def _constants(grids: list[str]) -> str:
    rows = [
        (code(name), code(repr(getattr(kalshi_fast, name))) if name in ("YES", "NO") else "", text)
        for name, text in CONSTANTS.items()
    ]
    for name in grids:
        grid: Grid = getattr(kalshi_fast, name)
        steps = ", ".join(f"{start}…{end} by {step}" for start, end, step in grid.ranges)
        rows.append((code(name), "", f"the grid `{grid.name}`: {grid.n_ticks} prices, {steps} (price_e4)"))
    return table(("name", "value", "meaning"), rows)


def _class(module: str, name: str) -> str:
    found: Any = getattr(importlib.import_module(module), name)
    listed = members(module, name)
    made = listed.pop(0).signature if listed and listed[0].name == "__init__" else name
    shown = "" if name in kalshi_fast.__all__ else f"{module}."
    parts = [f"### `{name}`", f"```python\nclass {shown}{made}\n```", _required(found, name)]
    rows = [(code(member.signature), _meaning(found, member)) for member in listed]
    parts.append(table(("member", "meaning"), rows) if rows else "")
    return "\n\n".join(part for part in parts if part)


def _meaning(found: type, member: Member) -> str:
    name = f"{found.__name__}.{member.name}"
    own = vars(found).get(member.name)
    is_slot = inspect.ismemberdescriptor(own) or inspect.isgetsetdescriptor(own)
    if name in ATTRIBUTES:
        return ATTRIBUTES[name]
    if "(" not in member.signature and (own is None or isinstance(own, str) or (is_slot and not own.__doc__)):
        text = NAMED.get(member.name) or _column(found, member.name)
    else:
        text = docstring(own)
    if not text:
        raise LookupError(f"{name}: no docstring, and nothing in ATTRIBUTES")
    return text


def _column(found: type, name: str) -> str:
    """What the column of this name means; what is NULL there is None here."""
    try:
        return meaning(getattr(found, "table", ""), name).replace("NULL", "None")
    except KeyError:
        return ""


def _function(module: str, name: str) -> str:
    found = getattr(importlib.import_module(module), name)
    source = _tree(found.__module__).body  # a package may only pass it on
    (node,) = (node for node in source if isinstance(node, ast.FunctionDef) and node.name == name)
    shown = "kalshi_fast." if name in kalshi_fast.__all__ else f"{module}."
    return f"### `{name}`\n\n```python\n{shown}{_signature(name, node)}\n```\n\n{_required(found, name)}"


def _required(of: object, name: str) -> str:
    text = docstring(of)
    if not text:
        raise LookupError(f"{name} has no docstring")
    return text
