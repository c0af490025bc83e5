"""The statements of sql/ as they are on a ClickHouse cluster. There is one schema; this is how it is spread.

Each table T becomes T_local, replicated within a shard, and T, a Distributed table over the shards: the
readers' names and the inserts stay the same. Views read T. See docs/cluster.md. Not here: the schema itself.
"""

from __future__ import annotations

import re
from typing import Final

LOCAL: Final = "_local"
# All events of a market on one shard; FINAL and the deduplication of inserts work within a shard only.
_SHARDING: Final = "cityHash64(market_ticker)"
_SHARDINGS: Final = {"feed_health": "cityHash64(conn_id)", "reference_prices": "cityHash64(index_id)"}
# Tokens are forgotten by number and by age; an insert may be repeated after an outage of days.
_DEDUPLICATION: Final = (
    "replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800"
)
# On every node in full: any of them is asked which files the database has had.
_EVERYWHERE: Final = "schema_version"

_ALTER_STORAGE = re.compile(
    r"ALTER TABLE kalshi\.(\w+)\s+(?:ADD INDEX|MODIFY COLUMN \w+ CODEC|MODIFY SETTING)\b"
)
_CREATE_TABLE = re.compile(r"CREATE TABLE IF NOT EXISTS kalshi\.(\w+)")
_ENGINE = re.compile(r"ENGINE = (\w*MergeTree)(?:\(([^)]*)\))?")


def quote(identifier: str) -> str:
    """An SQL identifier in backquotes."""
    return "`" + identifier.replace("\\", "\\\\").replace("`", "\\`") + "`"


def for_cluster(statement: str, cluster: str) -> list[str]:
    """What one statement of sql/ becomes. Raises ValueError for a kind of statement that has no rule."""
    on = f"ON CLUSTER {quote(cluster)}"
    if made := _CREATE_TABLE.match(statement):
        return _tables(statement, made[1], cluster, on)
    if altered := _ALTER_STORAGE.match(statement):
        # Distributed tables have neither codecs nor indexes nor parts.
        local = "" if altered[1] == _EVERYWHERE else LOCAL
        return [re.sub(r"(ALTER TABLE kalshi\.\w+)", lambda m: f"{m[1]}{local} {on}", statement, count=1)]
    if re.match(r"ALTER TABLE kalshi\.\w+\s+(ADD COLUMN IF NOT EXISTS|MODIFY COLUMN)\b", statement):
        table = re.match(r"ALTER TABLE kalshi\.\w+", statement)
        assert table is not None  # noqa: S101 - it has matched just now
        return [f"{table[0]}{which} {on}{statement[table.end() :]}" for which in (LOCAL, "")]
    for start in (
        r"CREATE DATABASE IF NOT EXISTS kalshi\b",
        r"CREATE (?:OR REPLACE )?VIEW (?:IF NOT EXISTS )?kalshi\.\w+",
    ):
        if re.match(start, statement):
            return [re.sub(start, lambda m: f"{m[0]} {on}", statement, count=1)]
    raise ValueError(f"no rule for a cluster: {statement[:80]!r}")


def _tables(statement: str, table: str, cluster: str, on: str) -> list[str]:
    if table == _EVERYWHERE:
        where, path, replica = table, "/clickhouse/tables/{database}/{table}", "{shard}-{replica}"
    else:
        where, path, replica = table + LOCAL, "/clickhouse/tables/{shard}/{database}/{table}", "{replica}"

    def replicated(engine: re.Match[str]) -> str:
        more = f", {engine[2]}" if engine[2] else ""
        return f"ENGINE = Replicated{engine[1]}('{path}', '{replica}'{more})"

    made = _CREATE_TABLE.sub(f"CREATE TABLE IF NOT EXISTS kalshi.{where} {on}", statement, count=1)
    made = _ENGINE.sub(replicated, made, count=1)
    made = re.sub(r"non_replicated_deduplication_window = \d+", _DEDUPLICATION, made)
    if table == _EVERYWHERE:
        return [made]
    return [
        made,
        f"CREATE TABLE IF NOT EXISTS kalshi.{table} {on} AS kalshi.{where}\n"
        f"ENGINE = Distributed({quote(cluster)}, kalshi, '{where}', {_SHARDINGS.get(table, _SHARDING)})",
    ]
