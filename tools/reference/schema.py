"""docs/reference/schema.md: the tables and views as the engine has them once all of sql/ is applied, and the
Parquet files.

Types, keys and codecs are asked of the engine, what a table is for is the comment before its last statement
in sql/, with the example that stands there. Not here: what columns mean (``meanings``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast import migrations
from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.channels.rows import SCHEMAS
from kalshi_fast.cluster import quote
from kalshi_fast.sinks.layout import ROW_GROUP_ROWS, ZSTD_LEVEL
from kalshi_fast.sinks.parquet import HISTORIES
from tools.reference.markdown import code, page, table
from tools.reference.meanings import meaning

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

# The order of the page: what most people ask for first.
TABLES: Final = (
    *("orderbook_events", "level_states", "trades", "tickers", "market_lifecycle", "markets"),
    *("reference_prices", "feed_health", "schema_version"),
)
VIEWS: Final = (
    *("latest_levels", "best_bid_ask", "ladder", "book_at"),
    *("market_rows", "best_over_time", "mid_ohlc", "depth_over_time"),
    *("gaps", "known_time", "health"),
    *("markets_now", "tickers_now", "trade_ohlc", "trade_stats"),
    *("reference_now", "reference_ohlc"),
)
_MADE: Final = re.compile(
    r"((?:^--.*\n)*)^CREATE (?:OR REPLACE )?(?:TABLE|VIEW) (?:IF NOT EXISTS )?kalshi\.(\w+)", re.MULTILINE
)
_PARAMETER: Final = re.compile(r"\{(\w+):(\w+)\}")
_EXAMPLE: Final = "    "

_HEAD: Final = """
What kalshi-fast makes in ClickHouse (the files of [sql/](../../sql) applied in order; `kalshi-fast sql`
prints them) and in the Parquet files. On a [cluster](../cluster.md) tables are spread, their columns stay
the same.

Numbers are exact. A unit is part of the name: `_e4` 1/10,000 dollar, `_e2` 1/100 contract, `_ns`, `_us`,
`_ms`. Columns without a unit are exact decimals of dollars and contracts, or times. All times are UTC.

`price_e4` and `qty_e2` are what is stored; columns marked *computed* cost nothing on disk, and `SELECT *`
leaves them out."""

_PARQUET: Final = f"""
`PARQUET_DIR/TABLE/date=YYYY-MM-DD/part-HHMMSS_microseconds.parquet`, by the receive time of the first row,
UTC. A file appears under its name when it is complete. Row groups of up to {ROW_GROUP_ROWS:,} rows, ZSTD
level {ZSTD_LEVEL}, statistics, page index and page checksums. The columns mean what those of the table do;
what the file holds of the journal, and by which version it was written, is in its metadata under
`kalshi_fast.`.

`PARQUET_DIR/rejected/YYYY-MM-DD.ndjson` has the frames that could not be used, with the reason;
`PARQUET_DIR/raw` those of [raw channels](../channels.md#raw-frames)."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column as the engine has it."""

    name: str
    kind: str
    codec: str = ""
    computed: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A table or a view; ``engine`` is ``View`` for the latter, ``parameters`` are name and type of each."""

    name: str
    engine: str
    partition_key: str = ""
    sorting_key: str = ""
    indexes: tuple[str, ...] = ()
    parameters: tuple[tuple[str, str], ...] = ()
    columns: list[Column] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Comment:
    """What sql/ says of a table or a view before its last statement."""

    file: str
    text: str
    examples: tuple[str, ...]


def tables(client: Client, database: str) -> dict[str, Table]:
    """Everything in a database that has the whole schema."""
    where: dict[str, Any] = {"parameters": {"database": database}}
    indexes: dict[str, list[str]] = {}
    for name, what in client.query(
        "SELECT table, concat(name, ': ', type_full, ' on ', expr) FROM system.data_skipping_indices"
        " WHERE database = {database:String} ORDER BY table, name",
        **where,
    ).result_rows:
        indexes.setdefault(name, []).append(what)
    found = {}
    for name, engine, full, partition, order, statement in client.query(
        "SELECT name, engine, engine_full, partition_key, sorting_key, create_table_query FROM system.tables"
        " WHERE database = {database:String}",
        **where,
    ).result_rows:
        parameters = tuple(dict(_PARAMETER.findall(statement)).items()) if engine == "View" else ()
        kind = re.split(r" (?:PARTITION|ORDER) BY ", full)[0] or engine
        found[name] = Table(name, kind, partition, order, tuple(indexes.get(name, ())), parameters)
    for name, column, kind, computed, codec in client.query(
        "SELECT table, name, type, default_expression, compression_codec FROM system.columns"
        " WHERE database = {database:String} ORDER BY table, position",
        **where,
    ).result_rows:
        found[name].columns.append(Column(column, kind, codec.removeprefix("CODEC(")[:-1], computed))
    for one in found.values():
        if one.parameters:
            one.columns.extend(_described(client, database, one))
    return found


def _described(client: Client, database: str, view: Table) -> list[Column]:
    """The columns of a view with parameters: the engine tells them for values only."""
    values = ", ".join(
        f"{name} = {chr(39) + '2026-01-31 12:00:00' + chr(39) if kind == 'String' else 1}"
        for name, kind in view.parameters
    )
    called = f"{quote(database)}.{view.name}({values})"
    rows = client.query(f"DESCRIBE (SELECT * FROM {called})").result_rows  # noqa: S608 - our own names
    return [Column(row[0], row[1]) for row in rows]


def comments() -> dict[str, Comment]:
    """What sql/ says, by table and view."""
    found = {}
    for migration in migrations.migrations():
        text = resources.files("kalshi_fast").joinpath("sql", migration.file).read_text("utf-8")
        for comment, name in _MADE.findall(text):
            if comment:
                found[name] = _comment(migration.file, comment)
    return found


def _comment(file: str, comment: str) -> Comment:
    """An example stands four spaces further in than the text; a line that is none ends it."""
    prose: list[str] = []
    examples: list[list[str]] = []
    inside = False
    for line in (line.removeprefix("--").removeprefix(" ") for line in comment.splitlines()):
        if line.startswith(_EXAMPLE):
            if not inside:
                examples.append([])
            examples[-1].append(line.removeprefix(_EXAMPLE))
        else:
            prose.append(line)
        inside = line.startswith(_EXAMPLE)
    return Comment(file, " ".join(prose), tuple("\n".join(lines) for lines in examples))


def document(client: Client, database: str) -> str:
    """The page, of a database that has the whole schema."""
    found, told = tables(client, database), comments()
    parts = ["## Tables"]
    parts += [_entry(found[name], told[name]) for name in TABLES]
    parts += ["## Views", "A view with parameters is called like a function: `kalshi.book_at(at = '…')`."]
    parts += [_entry(found[name], told[name]) for name in VIEWS]
    parts += ["## Parquet files", _PARQUET]
    parts += [_files("orderbook", "orderbook_events", EVENT_SCHEMA)]
    parts += [_files(name, name, SCHEMAS[name]) for name in HISTORIES]
    return page("Schema", _HEAD, *parts)


def _entry(one: Table, comment: Comment) -> str:
    facts = [f"- {what}: `{value}`" for what, value in _facts(one)]
    is_view = one.engine == "View"
    facts.append(f"- made in [{comment.file}](../../sql/{comment.file})")
    examples = [f"```sql\n{example}\n```" for example in comment.examples]
    if is_view:
        head: tuple[str, ...] = ("column", "type", "meaning")
        rows: list[tuple[str, ...]] = [
            (code(c.name), code(c.kind), meaning(one.name, c.name)) for c in one.columns
        ]
    else:
        head = ("column", "type", "codec", "meaning")
        rows = [
            (
                code(c.name),
                code(c.kind),
                "*computed*" if c.computed else code(c.codec),
                meaning(one.name, c.name),
            )
            for c in one.columns
        ]
    parts = [f"### `{one.name}`", comment.text, "\n".join(facts), table(head, rows), *examples]
    return "\n\n".join(parts)


def _facts(one: Table) -> list[tuple[str, str]]:
    if one.engine == "View":
        told = ", ".join(f"{name} {kind}" for name, kind in one.parameters)
        return [("parameters", told)] if told else []
    facts = [("engine", one.engine), ("partition", one.partition_key), ("order", one.sorting_key)]
    facts += [("index", index) for index in one.indexes]
    return [(what, value) for what, value in facts if value]


def _files(directory: str, name: str, schema: pa.Schema) -> str:
    rows = [(code(column.name), code(str(column.type)), meaning(name, column.name)) for column in schema]
    return f"### Parquet: `{directory}/`\n\n{table(('column', 'Arrow type', 'meaning'), rows)}"
