"""The stores of a recording, as its settings have them: who takes the journal's rows, and how far each is.

Not here: what a store does (sinks), who drives them (``delivery``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from kalshi_fast.journal import Position
from kalshi_fast.sinks.clickhouse import ClickHouseSink, connect, let_faults_end_us
from kalshi_fast.sinks.ndjson import RawSink, RejectSink
from kalshi_fast.sinks.parquet import HISTORIES, ParquetSink

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from kalshi_fast.config import Settings
    from kalshi_fast.journal import Journal


def sinks_of(settings: Settings, journal: Journal) -> list[ClickHouseSink | ParquetSink]:
    """Each with its position in this journal."""
    sinks: list[ClickHouseSink | ParquetSink] = []
    if settings.clickhouse_url is not None:
        url = settings.clickhouse_url
        position = _position(settings, journal, "clickhouse", f"{url} {settings.clickhouse_database}")
        sinks.append(ClickHouseSink(lambda: client_of(settings), journal, position))
    if settings.parquet_dir is not None:
        target = str(settings.parquet_dir.absolute())

        def position_of(kind: str) -> Position:
            return _position(settings, journal, kind, target)

        sinks.append(
            ParquetSink(
                settings.parquet_dir,
                journal,
                position_of("parquet"),
                max_bytes=settings.parquet_max_bytes,
                max_secs=settings.parquet_max_secs,
                rejects=RejectSink(settings.parquet_dir, journal, position_of("rejected")),
                raw=RawSink(settings.parquet_dir, journal, position_of("raw")),
                histories={table: position_of(f"parquet-{table}") for table in HISTORIES},
            )
        )
    return sinks


def client_of(settings: Settings) -> Client:
    """To the database of a recording, brought up to date. Only where CLICKHOUSE_URL is set."""
    url = settings.clickhouse_url
    assert url is not None  # noqa: S101 - else there is no such store
    client = connect(
        url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password,
        database=settings.clickhouse_database,
        cluster=settings.clickhouse_cluster,
    )
    if url.startswith("chdb://"):
        let_faults_end_us()
    return client


def _position(settings: Settings, journal: Journal, kind: str, target: str) -> Position:
    """Each store has a position of its own: another address is another store."""
    name = hashlib.sha256(target.encode()).hexdigest()[:12]
    path = settings.journal_dir / f"{kind}-{name}.position"
    position = Position(path, fsync=settings.journal_fsync == "always")
    journal.positions.append(position)
    if position.point is not None and position.point.journal == journal.id:
        journal.at_least(max(position.point.seq, position.point.until))
    return position
