"""The schema of sql/: which numbered files a database has had, which it lacks, and whether it is ours at all.

``migrate`` brings a database up to date at the start of a recording. It looks first and refuses what it does
not know (a newer schema, a file with other contents, a table of the same name that is not ours) before it
changes anything. A file is recorded in ``schema_version`` after its last statement; every statement may run
again, so a crash in between, or several recorders that start at once, do no harm. Not here: what the
statements become on a cluster (``cluster``), connecting (``sinks.clickhouse``).
"""

from __future__ import annotations

import hashlib
import logging
import re
import time
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast import __version__
from kalshi_fast.cluster import LOCAL, for_cluster, quote
from kalshi_fast.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clickhouse_connect.driver.client import Client

log = logging.getLogger("kalshi_fast.migrations")

TRIES: Final = 3  # of a start that another one may have crossed
_TRY_AGAIN_S: Final = 0.5
_VERSIONS: Final = "schema_version"
_ELSE: Final = "set CLICKHOUSE_DATABASE to another name"
# A string, a quoted name, a comment, or the end of a statement: whichever comes first.
_LEXEME = re.compile(r"'(?:[^'\\]|\\.)*'|`(?:[^`\\]|\\.)*`|--[^\n]*|;", re.DOTALL)
_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS kalshi\.(\w+)\s*\((.*)\)\s*ENGINE = (\w+)", re.DOTALL)
_ADDING = re.compile(r"ALTER TABLE kalshi\.(\w+)\s+ADD COLUMN IF NOT EXISTS\b")
_ADDED = re.compile(
    r"ADD COLUMN IF NOT EXISTS (\w+)\s+(.*?)(?:\s+CODEC\(.*?\))?\s+AFTER \w+(?=,\s*ADD|\Z)", re.DOTALL
)
_RETYPED = re.compile(r"ALTER TABLE kalshi\.(\w+)\s+MODIFY COLUMN (\w+) (?!CODEC\b)(.+)\Z", re.DOTALL)
_VIEW = re.compile(r"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?kalshi\.(\w+)")
# The database's name in the code, wherever it can stand: before a dot, alone, or among an engine's arguments.
_DATABASE = re.compile(r"\bkalshi\b(?=\.\w|, '|\s+ON CLUSTER|\Z)")
_COLUMN = re.compile(r"(\w+)\s+(.*?)(?:\s+(?:CODEC|ALIAS|DEFAULT|MATERIALIZED)\b.*)?\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Migration:
    """One numbered file of sql/; ``checksum`` is of its statements, without comments and spacing."""

    number: int
    file: str
    statements: tuple[str, ...]

    @property
    def checksum(self) -> str:
        code = "\n".join(" ".join(statement.split()) for statement in self.statements)
        return hashlib.sha256(code.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Applied:
    """A row of schema_version."""

    number: int
    file: str
    checksum: str
    applied_by: str
    applied_at: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table as sql/ makes it: its columns with their types, and the engine."""

    engine: str
    columns: dict[str, str] = field(default_factory=dict)


@cache
def migrations() -> tuple[Migration, ...]:
    """Every file of sql/ in order."""
    found = []
    for entry in resources.files("kalshi_fast").joinpath("sql").iterdir():
        number = re.match(r"(\d{4})_\w+\.sql\Z", entry.name)
        if number is not None:
            found.append(Migration(int(number[1]), entry.name, tuple(split(entry.read_text("utf-8")))))
    return tuple(sorted(found, key=lambda migration: migration.number))


def split(script: str) -> Iterator[str]:
    """The statements of a script, without comments."""
    parts, end = [""], 0
    for lexeme in _LEXEME.finditer(script):
        parts[-1] += script[end : lexeme.start()]
        end = lexeme.end()
        if lexeme[0] == ";":
            parts.append("")
        elif not lexeme[0].startswith("--"):
            parts[-1] += lexeme[0]
    parts[-1] += script[end:]
    for part in parts:
        if part.strip():
            yield re.sub(r"[ \t]*\n(?:[ \t]*\n)*", "\n", part.strip())


def statements(database: str, cluster: str = "") -> list[str]:
    """Every statement of sql/ in order, for a database of any name and for a cluster if one is named."""
    return [part for migration in migrations() for part in rendered(migration, database, cluster)]


def rendered(migration: Migration, database: str, cluster: str = "") -> list[str]:
    """The statements of one file as they are run."""
    name = quote(database)
    return [
        _DATABASE.sub(lambda _: name, part)
        for statement in migration.statements
        for part in (for_cluster(statement, cluster) if cluster else (statement,))
    ]


@cache
def tables() -> dict[str, Table]:
    """The tables that sql/ makes, as far as it says; a test holds this against the engine's own answer."""
    return {name: states[-1][1] for name, states in _histories().items()}


@cache
def _histories() -> dict[str, list[tuple[int, Table]]]:
    """Every table as each statement about it leaves it, with the number of its file."""
    found: dict[str, list[tuple[int, Table]]] = {}
    for migration in migrations():
        for statement in migration.statements:
            if adding := _ADDING.match(statement):
                before = found[adding[1]][-1][1]
                after = Table(before.engine, {**before.columns, **dict(_ADDED.findall(statement))})
                found[adding[1]].append((migration.number, after))
            if retyped := _RETYPED.match(statement):
                before = found[retyped[1]][-1][1]
                after = Table(before.engine, {**before.columns, retyped[2]: retyped[3]})
                found[retyped[1]].append((migration.number, after))
            if made := _TABLE.match(statement):
                columns = {}
                for definition in re.split(r",\s*\n", made[2]):
                    column = _COLUMN.match(definition.strip())
                    assert column is not None, definition  # noqa: S101 - our own file
                    columns[column[1]] = column[2]
                found[made[1]] = [(migration.number, Table(made[3], columns))]
    return found


def _allowed(name: str, done: set[int]) -> list[dict[str, str]]:
    """The columns that a table may have in a database that has had these files: another start may have been
    cut off anywhere in those that follow, and a database made by hand says nothing of what it has had."""
    states = _histories()[name]
    least = max((at for at, (number, _) in enumerate(states) if number in done), default=0)
    return [table.columns for _, table in states[least:]]


def views() -> set[str]:
    """The names of the views that sql/ makes."""
    code = (statement for migration in migrations() for statement in migration.statements)
    return {made[1] for made in map(_VIEW.match, code) if made is not None}


# --- the database ---------------------------------------------------------------------------------------


def applied(client: Client, database: str) -> list[Applied]:
    """What schema_version says, in order; nothing when there is no such table."""
    engines, _ = _present(client, database)
    return _applied(client, database) if _VERSIONS in engines else []


def _applied(client: Client, database: str) -> list[Applied]:
    what = "number, file, checksum, min(applied_by), toString(min(applied_at))"
    table = f"{quote(database)}.{_VERSIONS}"
    rows = client.query(f"SELECT {what} FROM {table} GROUP BY ALL ORDER BY number").result_rows  # noqa: S608
    return [Applied(*row) for row in rows]


def _present(client: Client, database: str) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Of all that is in the database: engine by name, and columns with types by name."""
    where: dict[str, Any] = {"parameters": {"database": database}}
    found: Any = client.query(
        "SELECT name, engine FROM system.tables WHERE database = {database:String}", **where
    ).result_rows
    columns: dict[str, dict[str, str]] = {}
    for table, column, kind in client.query(
        "SELECT table, name, type FROM system.columns WHERE database = {database:String} ORDER BY position",
        **where,
    ).result_rows:
        columns.setdefault(table, {})[column] = kind
    return dict(found), columns


def check(client: Client, database: str, cluster: str = "") -> list[Migration]:
    """The files that the database lacks. Raises SchemaError when it is not ours, or a newer program's."""
    engines, columns = _present(client, database)
    done: set[int] = set()
    if _VERSIONS in engines:
        _check_table(database, _VERSIONS, engines, columns, "ReplacingMergeTree", _allowed(_VERSIONS, done))
        known = {migration.number: migration for migration in migrations()}
        for row in _applied(client, database):
            _check_row(database, row, known)
            done.add(row.number)
    for name, table in tables().items():
        if name in engines and name != _VERSIONS:
            engine = "Distributed" if cluster else table.engine
            _check_table(database, name, engines, columns, engine, _allowed(name, done))
        if cluster and name + LOCAL in engines:
            _check_table(database, name + LOCAL, engines, columns, table.engine, _allowed(name, done))
    for name in views():
        if engines.get(name, "View") != "View":
            raise SchemaError(
                f"the database {database!r} has a table {name!r} (engine {engines[name]}) where kalshi-fast"
                f" {__version__} has a view: rename it, or {_ELSE}"
            )
    return [migration for migration in migrations() if migration.number not in done]


def _check_row(database: str, row: Applied, known: dict[int, Migration]) -> None:
    newest = max(known)
    ours = known.get(row.number)
    if ours is None:
        raise SchemaError(
            f"the database {database!r} has schema {row.number} ({row.file}, applied by kalshi-fast"
            f" {row.applied_by} at {row.applied_at} UTC), and this is kalshi-fast {__version__}, which knows"
            f" the schemas up to {newest}: run kalshi-fast {row.applied_by} or later, or"
            f" {_ELSE}"
        )
    if row.checksum != ours.checksum:
        raise SchemaError(
            f"the database {database!r} had another {row.file} (checksum {row.checksum[:12]}, applied by"
            f" kalshi-fast {row.applied_by} at {row.applied_at} UTC) than kalshi-fast {__version__} has"
            f" ({ours.checksum[:12]}): run the program that made it, or {_ELSE}"
        )


def _check_table(
    database: str,
    name: str,
    engines: dict[str, str],
    columns: dict[str, dict[str, str]],
    engine: str,
    allowed: list[dict[str, str]],
) -> None:
    where = f"the table {name!r} of the database {database!r}"
    advice = f"it was not made by kalshi-fast, or has been changed: rename it, or {_ELSE}"
    if not re.fullmatch(f"(Replicated|Shared)?{engine}", engines[name]):
        if "Distributed" in (engine, engines[name]):
            advice = "CLICKHOUSE_CLUSTER says whether the tables are on a cluster"
        raise SchemaError(f"{where} has the engine {engines[name]}, expected {engine}: {advice}")
    present = columns.get(name, {})
    if present in allowed:
        return
    expected = min(allowed, key=lambda columns: len(columns.items() ^ present.items()))
    for column in [*expected, *present]:
        if expected.get(column) != present.get(column):
            raise SchemaError(
                f"{where}: column {column!r}: expected {expected.get(column, 'no such column')}, got"
                f" {present.get(column, 'no such column')}: {advice}"
            )


def migrate(
    client: Client, database: str, cluster: str = "", *, sleep: Callable[[float], None] = time.sleep
) -> list[Migration]:
    """Applies what the database lacks; returns it. Raises SchemaError, or what ClickHouse says."""
    for attempt in range(TRIES):
        try:
            return _migrate(client, database, cluster)
        except SchemaError:
            raise
        except Exception:
            # Perhaps another recorder was at the same table at the same moment.
            if attempt == TRIES - 1:
                raise
            sleep(_TRY_AGAIN_S)
    raise AssertionError  # pragma: no cover


def _migrate(client: Client, database: str, cluster: str) -> list[Migration]:
    pending = check(client, database, cluster)
    for migration in pending:
        for statement in rendered(migration, database, cluster):
            client.command(statement)
        client.command(
            f"INSERT INTO {quote(database)}.{_VERSIONS}"
            " SELECT {number:UInt16}, {file:String}, {checksum:String}, {by:String}, now64(3)",
            parameters={
                "number": migration.number,
                "file": migration.file,
                "checksum": migration.checksum,
                "by": __version__,
            },
        )
        log.info("applied %s to the database %s", migration.file, database)
    return list(pending)


# --- for the command line -------------------------------------------------------------------------------


def bring_up(client: Client, database: str, cluster: str = "") -> list[str]:
    """Applies what is missing and says what that was."""
    done = migrate(client, database, cluster)
    return [f"applied  {migration.file}" for migration in done] or ["nothing to do: the schema is up to date"]


def describe(client: Client, database: str, cluster: str = "") -> list[str]:
    """One line for each file that the database has had, or lacks. Raises SchemaError as ``check`` does."""
    missing = check(client, database, cluster)
    return [
        *(
            f"applied  {row.file:<24} {row.applied_at}  by kalshi-fast {row.applied_by}"
            for row in applied(client, database)
        ),
        *(f"missing  {migration.file}" for migration in missing),
    ]
