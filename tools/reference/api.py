"""docs/reference/api.md: what ``kalshi_fast`` exports and what that returns.

Signatures are read from the source (a stub where the module is compiled), meanings are the docstrings of the
objects themselves: a public name without one is an error. Not here: modules that are not for import by others.
"""

from __future__ import annotations

import ast
import importlib
import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import kalshi_fast
from kalshi_fast import Grid
from tools.reference.markdown import code, page, prose, table

# Beside the exported names: what their methods return, or take.
MORE: Final = (
    ("kalshi_fast._replay", "Event"),
    ("kalshi_fast.replaying.run", "Run"),
    ("kalshi_fast.replaying.tables", "Tables"),
    ("kalshi_fast.replaying.source", "Source"),
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
_ERRORS: Final = ("BookError", "KalshiFastError")
_TAKEN: Final = ("__init__", "__contains__", "__iter__", "__eq__")  # of the names with underscores

_HEAD: Final = """
What `kalshi_fast` exports. Prices are `price_e4` (1/10,000 dollar, 0 to 10000), sizes `qty_e2` (1/100 contract),
times nanoseconds since 1970 (`_ns`) or microseconds (`_us`), all of them integers. Every error is a
[`KalshiFastError`](errors.md).

`import kalshi_fast` alone costs next to nothing: a name is imported when it is first asked for. Stubs and
`py.typed` come along, so that a type checker sees all of this. [Replay](../replay.md) shows how it is used."""

_TIMES: Final = """
`Moment` is a datetime or a date (UTC unless it says otherwise), ISO text with up to nine digits behind the second,
or nanoseconds since 1970. `Duration` is a timedelta, text such as `100ms`, `1s`, `5min`, or nanoseconds."""


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
    return f"{name}({ast.unparse(arguments)}){returns}"


def members(module: str, name: str) -> list[Member]:
    """The public members of a class in the order of its source; the first is how it is made."""
    (found,) = (node for node in _tree(module).body if isinstance(node, ast.ClassDef) and node.name == name)
    members = []
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            kind = ast.unparse(node.annotation).removeprefix("Final[").removesuffix("]")
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
    if name and first.startswith((f"{name}(", f"{type(of).__name__}.", f"{name}:")) or "(self" in first:
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
    made = listed.pop(0).signature if listed and listed[0].name == "__init__" else f"class {name}"
    shown = "" if module.rpartition(".")[2].startswith("_") or name in kalshi_fast.__all__ else f"{module}."
    parts = [f"### `{name}`", f"```python\n{shown}{made}\n```", _required(found, name)]
    rows = []
    for member in listed:
        text = docstring(vars(found).get(member.name))
        if "(" not in member.signature and member.signature.startswith(f"{member.name}:") and not _own(found, member):
            text = ""  # an attribute: the class says what it is
        elif not text and member.name not in _TAKEN:
            raise LookupError(f"{module}.{name}.{member.name} has no docstring")
        rows.append((code(member.signature), text))
    parts.append(table(("member", "meaning"), rows) if rows else "")
    return "\n\n".join(part for part in parts if part)


def _own(found: type, member: Member) -> bool:
    """Whether the class has a property of this name that can have a docstring."""
    return isinstance(vars(found).get(member.name), property) or bool(
        getattr(vars(found).get(member.name), "__doc__", None)
    )


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
