"""What a table holds of rows that are known here, and which of them it lacks: proof by reading.

An insert of unknown outcome says nothing, and neither does a deduplication token: ClickHouse notes it before
the rows are in the table. So the table is asked for all rows of the same receive times and connections, and
what is here more often than there is missing. The index ``by_time`` (sql/0011) lets it pass over the parts
that cannot have them. Not here: when to ask, and what to do about it (``clickhouse``, ``beside``).
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_fast.compact.digest import row_hashes
from kalshi_fast.errors import SinkError

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client
    from numpy.typing import NDArray

log = logging.getLogger("kalshi_fast.clickhouse")

# Of these the newest version of a row counts: to insert it again changes nothing.
REPLACING: Final = frozenset({"level_states", "markets"})
OVER_WAIT_S: Final = 120.0
_OVER_TICK_S: Final = 0.1
_CONNECTIONS: Final = 200  # a parameter is a part of an address
_READ: Final = {"max_execution_time": 0, "max_result_rows": 0, "max_memory_usage": 0}


def time_column(names: list[str]) -> str:
    """The column of the time at which a row came to the recorder."""
    return "ingest_ts" if "ingest_ts" in names else "ts"


def missing(client: Client, table: str, rows: pa.Table) -> pa.Table:
    """The rows that the table lacks, in their order. Raises what ClickHouse says."""
    if not rows.num_rows or table in REPLACING:
        return rows
    there = _read(client, table, rows)
    if not there.num_rows:
        return rows
    lacking = beyond(hashes(plain(rows)), hashes(there))
    return rows if lacking.all() else rows.filter(pa.array(lacking))


def beyond(ours: NDArray[np.uint64], theirs: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which of our values there are not as often among theirs: of equal ones, those behind the first so many.

    A mask over ``ours``."""
    values, counts = np.unique(theirs, return_counts=True)
    order = np.argsort(ours, kind="stable")
    ordered = ours[order]
    first = np.searchsorted(ordered, ordered, side="left")
    rank = np.arange(len(ordered)) - first
    at = np.searchsorted(values, ordered)
    found = np.minimum(at, len(values) - 1)
    held = np.where((at < len(values)) & (values[found] == ordered), counts[found], 0)
    lacking = np.empty(len(ours), np.bool_)
    lacking[order] = rank >= held
    return lacking


def hashes(rows: pa.Table) -> NDArray[np.uint64]:
    """One for each row, over all columns."""
    found = [row_hashes(batch) for batch in rows.to_batches()]
    return np.concatenate(found) if found else np.zeros(0, np.uint64)


def plain(rows: pa.Table) -> pa.Table:
    """Rows in the types that ``selected`` asks the database for."""
    columns = {}
    for field in rows.schema:
        column = rows.column(field.name)
        if pa.types.is_dictionary(field.type):
            column = column.cast(pa.string())
        elif pa.types.is_timestamp(field.type):
            column = column.cast(pa.int64())
        elif pa.types.is_boolean(field.type):
            column = column.cast(pa.uint8())
        columns[field.name] = column
    return pa.table(columns)


def selected(schema: pa.Schema, table: str) -> str:
    """The columns of a schema as a SELECT has to name them, so that equal rows have equal hashes."""
    units = {"us": "Micro", "ns": "Nano", "ms": "Milli"}
    parts = []
    for field in schema:
        name = f"{table}.{field.name}"
        if pa.types.is_timestamp(field.type):
            parts.append(f"toUnixTimestamp64{units[field.type.unit]}({name}) AS {field.name}")
        elif pa.types.is_boolean(field.type):
            parts.append(f"toUInt8({name}) AS {field.name}")
        elif pa.types.is_dictionary(field.type) or pa.types.is_string(field.type):
            parts.append(f"toString({name}) AS {field.name}")
        else:
            parts.append(f"{name} AS {field.name}")
    return ", ".join(parts)


def _read(client: Client, table: str, rows: pa.Table) -> pa.Table:
    """All rows of the receive times and connections that these have."""
    when = time_column(rows.schema.names)
    bounds = pc.min_max(rows.column(when).cast(pa.int64())).as_py()
    kind = rows.schema.field(when).type.unit
    maker = {"ns": "Nano", "us": "Micro"}[kind]
    where = (
        f"{table}.{when} >= fromUnixTimestamp64{maker}({{first:Int64}})"
        f" AND {table}.{when} <= fromUnixTimestamp64{maker}({{last:Int64}})"
    )
    parameters: dict[str, Any] = {"first": bounds["min"], "last": bounds["max"]}
    connections = pc.unique(rows.column("conn_id")).to_pylist() if "conn_id" in rows.schema.names else []
    if 0 < len(connections) <= _CONNECTIONS:
        where += f" AND {table}.conn_id IN {{connections:Array(UInt64)}}"
        parameters["connections"] = connections
    found = client.query_arrow(
        f"SELECT {selected(rows.schema, table)} FROM {table} WHERE {where}",  # noqa: S608 - our own names
        parameters=parameters,
        settings=_READ,
        use_strings=True,
    )
    return found.select(rows.schema.names) if found.num_rows else found


def make_sure_it_is_over(client: Client, query_ids: str, *, wait_s: float = OVER_WAIT_S) -> None:
    """No insert with an id that begins so runs on the server when this returns: what it has stored can be
    read, and it stores nothing more. Raises SinkError when it cannot be ended, and what ClickHouse says."""
    if not serves_others(client):
        return  # an embedded engine's inserts ended with their process, or their call
    deadline = time.monotonic() + wait_s
    told = False
    while True:
        running = client.query(
            "SELECT count() FROM system.processes WHERE startsWith(query_id, {ids:String})",
            parameters={"ids": query_ids},
        ).result_rows[0][0]
        if not running:
            return
        if not told:
            told = True
            log.warning("an insert of before is still running: it is ended before anything is repeated")
            client.command(
                "KILL QUERY WHERE startsWith(query_id, {ids:String}) ASYNC", parameters={"ids": query_ids}
            )
        if time.monotonic() > deadline:
            raise SinkError(f"ClickHouse takes no rows: an insert of before ({query_ids}…) does not end")
        time.sleep(_OVER_TICK_S)


def serves_others(client: Client) -> bool:
    """Is it a server, whose work goes on when we are gone?"""
    return not str(getattr(client, "uri", "")).startswith("chdb:")


def is_durable(client: Client) -> bool:
    """Do all tables that rows go to have the settings of sql/0011? Somebody may have taken them away."""
    found = client.query(
        "SELECT countIf(engine_full NOT LIKE '%fsync_after_insert = 1%') FROM system.tables"
        " WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND engine NOT LIKE 'Shared%'"
    ).result_rows
    return not found[0][0]
