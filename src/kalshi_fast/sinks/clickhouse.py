"""ClickHouse through clickhouse-connect: one code path for the embedded engine and for a server.

``chdb://DIR`` opens the embedded engine on a directory, ``http(s)://HOST:PORT`` a server. Batches are
inserted as Arrow with a deduplication token made of the recorder and the batch numbers, so that an insert
of unknown outcome can be repeated. Not here: when to insert (``writer``), the schema (sql/).
"""

from __future__ import annotations

import fcntl
import logging
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pyarrow as pa

from kalshi_fast.config import writable_directory
from kalshi_fast.errors import ConfigError, SchemaError, SinkError
from kalshi_fast.migrations import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.batch import ArrowViews, Batch

log = logging.getLogger("kalshi_fast.clickhouse")

RETRIES: Final = 6
FIRST_RETRY_S: Final = 0.25
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_opened: set[Path] = set()  # by this process, which may open its own directory as often as it likes
_HEALTH_COLUMNS = ["ts", "conn_id", "event", "sid", "seq", "market_ticker", "detail"]
# A frame may claim any exchange time; a batch with many months must not be refused.
_INSERT_SETTINGS = {"max_partitions_per_insert_block": 0}


def connect(url: str, *, user: str, password: str, database: str, cluster: str = "") -> Client:
    """A client whose default database exists and has the schema. Raises ConfigError or SinkError."""
    refuse_embedded_cluster(url, cluster)
    client = open_client(url, user=user, password=password)
    try:
        migrate(client, database, cluster)
        client.database = database
        if cluster:
            # An insert is done when its shards have it, not when it waits for them in a directory.
            client.set_client_setting("distributed_foreground_insert", 1)
    except SchemaError as error:
        client.close()
        raise SchemaError(f"CLICKHOUSE_URL: {url}: {error}") from None
    except Exception as error:
        client.close()
        raise SinkError(
            f"CLICKHOUSE_URL: the schema cannot be applied at {url}: {first_line(error)}"
        ) from error
    return client


def refuse_embedded_cluster(url: str, cluster: str) -> None:
    """Raises ConfigError."""
    if cluster and url.startswith("chdb://"):
        raise ConfigError("CLICKHOUSE_CLUSTER: the embedded engine is no cluster; leave it empty")


def open_client(url: str, *, user: str, password: str) -> Client:
    """A client as it is, no schema applied. Raises ConfigError or SinkError."""
    import clickhouse_connect  # half a second that only those who store have to wait

    if url.startswith("chdb://"):
        # Not as a dsn: a directory may have any characters in its name.
        target: dict[str, Any] = {"interface": "chdb", "path": str(_prepared(url))}
    else:
        parts = urlsplit(url)
        target = {
            "host": parts.hostname,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "secure": parts.scheme == "https",
            "username": user,
            "password": password,
            "connect_timeout": 10,
        }
    try:
        return clickhouse_connect.get_client(**target)
    except ImportError as error:
        raise ConfigError(
            "CLICKHOUSE_URL: the embedded engine is not installed: pip install 'kalshi-fast[embedded]',"
            " or give the http(s):// address of a server"
        ) from error
    except Exception as error:
        raise SinkError(f"CLICKHOUSE_URL: {url} cannot be opened: {first_line(error)}") from error


def _prepared(url: str) -> Path:
    """The engine's directory: there, writable, and not another process's at this moment."""
    directory = embedded_directory(url)
    writable_directory("CLICKHOUSE_URL", directory)
    if directory in _opened:
        return directory
    # The engine locks its status file; alone it would report the conflict on stderr and not say what it is.
    with (directory / "status").open("ab") as status:
        try:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"CLICKHOUSE_URL: {url} is in use by another process (a recording?), and the embedded engine"
                " admits one at a time"
            ) from None
    _opened.add(directory)
    return directory


def embedded_directory(url: str) -> Path:
    """The absolute directory of a ``chdb://`` address, which may be relative."""
    return Path(url.removeprefix("chdb://")).absolute()


def first_line(error: Exception) -> str:
    """The gist of a ClickHouse error for a terminal."""
    return str(error).strip().split("\n")[0][:300]


class ClickHouseSink:
    """Inserts events, level states and feed health. Raises SinkError after RETRIES failures in a row."""

    name = "ClickHouse"

    def __init__(
        self,
        client: Client,
        views: ArrowViews,
        *,
        recorder_id: str,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.rows = 0
        self.inserts = 0
        self._client = client
        self._views = views
        self._recorder_id = recorder_id
        self._sleep = sleep

    def forget_levels(self, tickers: list[str], now_ns: int) -> None:
        """Nothing is known of these markets until their snapshots: levels of an earlier run end here."""
        self._client.command(
            "INSERT INTO level_states SELECT market_id, market_ticker, side, price_e4, 0, ts, ingest_ts,"
            " {now_ns:UInt64} FROM latest_levels WHERE market_ticker IN {tickers:Array(String)}",
            parameters={"tickers": tickers, "now_ns": now_ns},
        )

    def write(self, batches: Sequence[Batch]) -> None:
        token = f"{self._recorder_id}:{batches[0].number}-{batches[-1].number}"
        views = self._views
        self._insert(
            "orderbook_events",
            [views.events(batch.events, batch.names) for batch in batches if batch.events.n],
            token,
        )
        self.rows += sum(batch.events.n for batch in batches)
        self._insert(
            "level_states",
            [views.levels(batch.levels, batch.names) for batch in batches if batch.levels.n],
            token,
        )
        health = [
            [_time(row.ts_ns), row.conn_id, row.event, row.sid, row.seq, row.market_ticker, row.detail]
            for batch in batches
            for row in batch.health
        ]
        if health:
            self._retry(
                lambda: self._client.insert(
                    "feed_health", health, _HEALTH_COLUMNS, settings={"insert_deduplication_token": token}
                )
            )

    def _insert(self, table: str, parts: list[pa.RecordBatch], token: str) -> None:
        if not parts:
            return
        rows = pa.Table.from_batches(parts).unify_dictionaries()
        settings = {**_INSERT_SETTINGS, "insert_deduplication_token": token}
        self._retry(lambda: self._client.insert_arrow(table, rows, settings=settings))
        self.inserts += 1

    def _retry(self, insert: Callable[[], Any]) -> None:
        """The token makes a repetition harmless, whatever became of the attempt before."""
        delay_s = FIRST_RETRY_S
        for attempt in range(RETRIES):
            try:
                insert()
            except Exception as error:
                if attempt == RETRIES - 1:
                    raise SinkError(f"ClickHouse takes no rows: {first_line(error)}") from error
                log.warning("ClickHouse insert failed, again in %.2f s: %s", delay_s, first_line(error))
                self._sleep(delay_s)
                delay_s *= 2
            else:
                return

    def tick(self) -> None:
        """Nothing is due by time here."""

    def close(self) -> None:
        self._client.close()


def _time(ts_ns: int) -> datetime:
    return _EPOCH + timedelta(microseconds=ts_ns // 1000)


def ask(client: Client, sql: str, output_format: str) -> bytes:
    """The answer to one statement in any of ClickHouse's formats. Raises SinkError with what is wrong."""
    if not re.fullmatch(r"[A-Za-z0-9]{1,64}", output_format):
        raise ConfigError(f"--format: expected the name of a ClickHouse format, got {output_format!r}")
    try:
        answer: bytes = client.raw_query(sql.strip().rstrip(";"), fmt=output_format)
    except Exception as error:
        raise SinkError(f"ClickHouse: {first_line(error)}") from error
    return answer
