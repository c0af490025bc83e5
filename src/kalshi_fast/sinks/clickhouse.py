"""ClickHouse through clickhouse-connect: one code path for the embedded engine and for a server.

``chdb://DIR`` opens the embedded engine on a directory, ``http(s)://HOST:PORT`` a server. Rows are inserted
as Arrow. After an outcome that is not known nothing is believed: the tables are asked which of the rows they
have (``readback``), and get the others. Not here: waits between attempts (``delivery``), the schema (sql/).
"""

from __future__ import annotations

import ctypes
import faulthandler
import fcntl
import logging
import re
import signal
import time
import uuid
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pyarrow as pa

from kalshi_fast._columns import CLEAR
from kalshi_fast.channels.rows import TABLES
from kalshi_fast.cluster import quote
from kalshi_fast.config import writable_directory
from kalshi_fast.errors import ConfigError, KalshiFastError, SchemaError, SinkError, UnreachableError
from kalshi_fast.front.endpoint import read_endpoint
from kalshi_fast.journal import NOBODY, Cursor, Point
from kalshi_fast.lags import Lags
from kalshi_fast.migrations import migrate
from kalshi_fast.sinks.beside import TablesBeside
from kalshi_fast.sinks.intact import LASTS_S, PartsCheck, is_about_disk, reload
from kalshi_fast.sinks.readback import REPLACING, is_durable, make_sure_it_is_over, missing, serves_others

if TYPE_CHECKING:
    from collections.abc import Callable

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.journal import Entry, Journal, Position

log = logging.getLogger("kalshi_fast.clickhouse")

MERGE_S: Final = 0.03  # between the beginnings of two inserts
MAX_MERGE_S: Final = 5.0
MAX_MERGED_ROWS: Final = 200_000
FORGET_MARKETS: Final = 500
PARTS_LOOK_S: Final = 1.0
EASY_PARTS: Final = 100  # in one partition; a server delays inserts from 1000 on, and refuses from 3000 on
_opened: set[Path] = set()  # by this process, which may open its own directory as often as it likes
HEALTH_COLUMNS = ["ts", "conn_id", "event", "sid", "seq", "market_ticker", "detail"]
HEALTH_SCHEMA: Final = pa.schema(
    [
        ("ts", pa.timestamp("ns", "UTC")),
        ("conn_id", pa.uint64()),
        ("event", pa.string()),
        ("sid", pa.uint32()),
        ("seq", pa.uint64()),
        ("market_ticker", pa.string()),
        ("detail", pa.string()),
    ]
)
KEEP_S: Final = 120.0  # what a database without our settings has taken is kept so long
PROVE_S: Final = 1.0  # between two looks at the parts
EVENT_TABLES: Final = ("orderbook_events", "level_states", "feed_health")
PROOFS: Final = 3  # so often is inserted what a table does not show
# A frame may claim any exchange time; a batch with many months must not be refused.
# And whatever the profile of the user says: an insert is done when it returns, and known by its token.
INSERT_SETTINGS = {"max_partitions_per_insert_block": 0, "async_insert": 0, "insert_deduplicate": 1}
_FORGET = (
    "INSERT INTO level_states SELECT market_id, market_ticker, side, price_e4, 0, ts, ingest_ts, version + 1"
    " FROM (SELECT * FROM level_states FINAL WHERE size_e2 > 0 AND market_ticker IN {tickers:Array(String)})"
    " AS levels INNER JOIN (SELECT pair.1 AS ticker, pair.2 AS since FROM"
    " (SELECT arrayJoin(arrayZip({tickers:Array(String)}, {since:Array(UInt64)})) AS pair)) AS clears"
    " ON levels.market_ticker = clears.ticker WHERE levels.version + 1 < clears.since"
)
_OVERVIEW = (
    "SELECT market_ticker, count() AS events, min(ingest_ts) AS first, max(ingest_ts) AS last"
    " FROM {}.orderbook_events GROUP BY market_ticker WITH TOTALS"
    " ORDER BY events DESC, market_ticker LIMIT 20"
)
_PARTS = (
    "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active AND database ="
    " currentDatabase() GROUP BY table, partition_id)"
)


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
        target: dict[str, Any] = {"interface": "chdb", "path": str(prepared(url))}
    else:
        parts = urlsplit(url)
        target = {
            "host": parts.hostname,
            "port": parts.port or (8443 if parts.scheme == "https" else 8123),
            "secure": parts.scheme == "https",
            "username": user,
            "password": password,
            "connect_timeout": 10,
            "send_receive_timeout": 60,
        }
    try:
        client = clickhouse_connect.get_client(**target)
    except ImportError as error:
        raise ConfigError(
            "CLICKHOUSE_URL: the embedded engine is not installed: pip install 'kalshi-fast[embedded]',"
            " or give the http(s):// address of a server"
        ) from error
    except clickhouse_connect.driver.exceptions.OperationalError as error:
        raise UnreachableError(f"CLICKHOUSE_URL: {url} does not answer: {_root(error)}") from error
    except Exception as error:
        raise SinkError(f"CLICKHOUSE_URL: {url} cannot be opened: {first_line(error)}") from error
    return client


def let_faults_end_us() -> None:
    """For a process that is started again when it ends, once it has opened the embedded engine.

    The engine catches SIGSEGV and its like, then waits five minutes for a thread that only a server has:
    such a process neither works nor ends, so nobody starts another. Python's handler says where it was.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal.restype = ctypes.c_void_p
    faulthandler.disable()
    for fault in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGILL, signal.SIGFPE):
        libc.signal(fault, None)  # SIG_DFL; signal.signal is for the main thread only
    faulthandler.enable(2)


def open_reader(url: str, *, user: str, password: str) -> Client:
    """A client to ask with: of another process's front when the embedded engine is that process's."""
    if url.startswith("chdb://"):
        directory = embedded_directory(url)
        if is_in_use(directory):
            front = read_endpoint(directory)
            if front is None:
                raise ConfigError(
                    f"CLICKHOUSE_URL: {url} is in use by another process (a recording?) that does not answer"
                    " queries; it would with QUERY_LISTEN=127.0.0.1:0"
                )
            url = front
    return open_client(url, user=user, password=password)


def prepared(url: str) -> Path:
    """The engine's directory: there, writable, and not another process's at this moment; ours from now on.

    Raises ConfigError.
    """
    directory = embedded_directory(url)
    writable_directory("CLICKHOUSE_URL", directory)
    if is_in_use(directory):
        raise ConfigError(
            f"CLICKHOUSE_URL: {url} is in use by another process (a recording?), and the embedded engine"
            " admits one at a time"
        )
    _opened.add(directory)
    return directory


def is_in_use(directory: Path) -> bool:
    """Whether the engine's directory is another process's at this moment."""
    # The engine locks its status file; alone it would report the conflict on stderr and not say what it is.
    if directory in _opened:
        return False
    try:
        with (directory / "status").open("rb") as status:
            fcntl.flock(status, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        raise ConfigError(f"CLICKHOUSE_URL: {directory} cannot be read: {error.strerror or error}") from error
    return False


def embedded_directory(url: str) -> Path:
    """The absolute directory of a ``chdb://`` address, which may be relative."""
    return Path(url.removeprefix("chdb://")).absolute()


def _root(error: BaseException) -> str:
    """What is at the bottom of an error of the connection, without ids that change every time."""
    while True:
        deeper = getattr(error, "reason", None) or error.__cause__ or error.__context__
        if not isinstance(deeper, BaseException):
            return (
                (getattr(error, "strerror", None) or first_line(error))
                if error.args
                else type(error).__name__
            )
        error = deeper


def first_line(error: BaseException) -> str:
    """The gist of a ClickHouse error for a terminal, without the query that it may quote."""
    return re.sub(r" In scope .*?(?=\. \(|\Z)", "", str(error).strip().split("\n")[0])[:300]


class ClickHouseSink:
    """Delivers the journal to a database: events, level states, feed health, and the tables beside.

    ``connect`` gives a client whose database has the schema. An insert takes all that has come since the
    last one, and nothing that a failure of the machine could take from the journal. Of batches before
    ``_doubt_end`` the outcome is not known: after a start of all that are in the journal, after an error of
    those that were being inserted. Of these the tables get only what they do not show, under a new token, and
    have to show it then.

    ``done_seq`` is behind what is proven: answered LASTS_S ago by tables whose parts have been read since
    (``intact``), or KEEP_S ago by tables without the settings of sql/0011. What was answered later is looked
    for at each reconnect, and when a part is damaged.
    """

    name = "ClickHouse"

    def __init__(self, connect: Callable[[], Client], journal: Journal, position: Position) -> None:
        self.inserts = 0
        self.repaired = 0  # rows that a table should have had and did not
        self.lags = Lags()
        self.insert_times = Lags()
        self._connect = connect
        self._client: Client | None = None
        self._journal = journal
        self._position = position
        self._pending: list[Entry] = []
        self._recorder = NOBODY
        self._clear: set[str] = set()  # markets whose levels are this recorder's own
        self._interval_s = MERGE_S
        self._began = 0.0
        self._looked = 0.0
        point = position.point
        if point is None or point.journal != journal.id:
            position.write(Point(journal.id, journal.first_seq))
        self._doubt_end = journal.end
        self._durable = True  # the tables have our settings
        self._answered: deque[tuple[float, int]] = deque()  # when, and up to where
        self._safe_seq = max(self._point.durable, journal.first_seq)
        self._tail_looked = False
        self._parts: PartsCheck | None = None
        self._proved = 0.0
        self._reload = False  # the engine's memory is not to be believed
        self._beside = TablesBeside(journal, position.beside("channels"), self._put)
        self._cursor = self._begin()

    def _begin(self) -> Cursor:
        self._beside.restart()
        return Cursor(self._journal, self._answered_seq)

    @property
    def _point(self) -> Point:
        assert self._position.point is not None  # noqa: S101 - written above, if by nobody before
        return self._position.point

    @property
    def rows(self) -> int:
        """Events of the present recorder that are stored."""
        return self._point.rows if self._point.recorder == self._journal.recorder.hex else 0

    @property
    def _answered_seq(self) -> int:
        return min(self._point.seq, self._beside.done_seq)

    @property
    def done_seq(self) -> int:
        return min(self._safe_seq, self._answered_seq)

    @property
    def pause_s(self) -> float:
        """Until the next insert is due."""
        return self._began + self._interval_s - time.monotonic()

    @property
    def _query_ids(self) -> str:
        """What the ids of our inserts begin with."""
        return f"kalshi-fast:{self._journal.id}:"

    def open(self) -> None:
        """Connects now and checks the schema. Raises ConfigError or SinkError."""
        if self._client is not None:
            return
        client = self._connect()
        try:
            make_sure_it_is_over(client, self._query_ids)
            self._durable = is_durable(client)
            if self._reload:
                reload(client, [*EVENT_TABLES, *TABLES])
                self._reload = False
            self._parts = PartsCheck(client)
        except KalshiFastError:
            client.close()
            raise
        except Exception as error:
            client.close()
            raise SinkError(f"ClickHouse takes no rows: {first_line(error)}") from error
        self._client = client
        if not self._durable:
            log.warning(
                "ClickHouse: its tables do not have the settings of sql/0011_durable.sql: the journal keeps"
                " what they take for %.0f s",
                KEEP_S,
            )

    def step(self) -> bool:
        self.open()
        if not self._tail_looked:
            self._look_at_tail()
        self._prove()
        if not self._pending:
            self._take()
        if not self._pending:
            self.flush(force=False)
            return False
        self._began = time.monotonic()
        last = self._pending[-1]
        if self._point.until != last.end:  # it could not be written down when it was taken
            self._intend()
        self._sync_journal()
        try:
            self._insert(self._pending, self._point.token, doubtful=self._pending[0].seq < self._doubt_end)
        except KalshiFastError:
            self._doubt_end = max(self._doubt_end, last.end)
            raise
        except Exception as error:
            self._doubt_end = max(self._doubt_end, last.end)
            self._reload = is_about_disk(self._open_client, str(error))
            raise SinkError(f"ClickHouse takes no rows: {first_line(error)}") from error
        now_ns = time.time_ns()
        self.insert_times.add(np.array([(time.monotonic() - self._began) * 1e9], np.int64))
        for entry in self._pending:
            if entry.events is not None:
                self.lags.add(now_ns - entry.events.column("ingest_ns").to_numpy())
        self._position.write(self._moved(last.end))
        self._pending = []
        self.flush(force=False)
        self._look_at_parts()
        return True

    def flush(self, *, force: bool = True) -> None:
        """The tables beside the order book are up to date when this returns; not forced: when it is time."""
        self.open()
        try:
            self._beside.flush(force=force)
        except KalshiFastError:
            raise
        except Exception as error:
            self._reload = is_about_disk(self._open_client, str(error))
            raise SinkError(f"ClickHouse takes no rows: {first_line(error)}") from error

    def _sync_journal(self) -> None:
        """A table never knows of batches that the journal may yet lose: books would be known to it alone."""
        if self._journal.fsync == "interval":
            self._journal.sync()

    # --- proven -----------------------------------------------------------------------------------

    def _prove(self, *, every: bool = False) -> None:
        """Reads the parts that have lasted, or every one; what was answered before they came is proven then.
        Raises SinkError when one is damaged: its table is loaded anew, and gets what it lacks."""
        now = time.monotonic()
        if not every and now - self._proved < PROVE_S:
            return
        self._proved = now
        if not self._answered or self._answered[-1][1] < self._answered_seq:
            self._answered.append((now, self._answered_seq))
        assert self._parts is not None  # noqa: S101 - opened at the beginning of every step
        try:
            damaged = self._parts.look(every=every)
        except Exception as error:
            raise SinkError(f"ClickHouse: its parts cannot be read: {first_line(error)}") from error
        if damaged:
            self._reload = not serves_others(self._open_client)
            raise SinkError(f"ClickHouse: {', '.join(damaged)} has damaged parts")
        lasts_s = (0.0 if every else 2 * LASTS_S) if self._durable else KEEP_S
        safe = self._safe_seq
        while self._answered and now - self._answered[0][0] >= lasts_s:
            safe = max(safe, self._answered.popleft()[1])
        if safe > self._safe_seq:
            self._safe_seq = safe
            self._position.write(msgspec.structs.replace(self._point, durable=safe))

    def _look_at_tail(self) -> None:
        """After each connect: is all that was answered, and is not proven, really there?"""
        cursor = Cursor(self._journal, self._safe_seq)
        try:
            while cursor.seq < self._answered_seq:
                entries = [e for e in cursor.take(MAX_MERGED_ROWS) if e.end <= self._answered_seq]
                if not entries:
                    break
                self._insert(entries, f"{self._query_ids}tail", doubtful=True)
                self._beside.store(entries, f"{self._query_ids}tail", doubtful=True)
        except KalshiFastError:
            raise
        except Exception as error:
            self._reload = is_about_disk(self._open_client, str(error))
            raise SinkError(f"ClickHouse takes no rows: {first_line(error)}") from error
        finally:
            cursor.close()
        self._tail_looked = True

    # --- inserts ----------------------------------------------------------------------------------

    def _take(self) -> None:
        point = self._point
        if self._cursor.seq < point.seq:  # the events of these are stored, and perhaps not all beside them
            self._take_beside(self._cursor.take(0, point.seq))
        if point.until > self._cursor.seq:  # begun before a crash
            self._pending = self._cursor.take(0, point.until)
        else:
            self._pending = self._cursor.take(MAX_MERGED_ROWS)
        self._take_beside(self._pending)  # first: what is pending is not taken again when the rest fails
        if self._pending and self._point.until != self._pending[-1].end:
            self._intend()

    def _take_beside(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._beside.take(entry)

    def _intend(self) -> None:
        """Writes down what is about to be inserted, and what it will be known by."""
        first, end = self._pending[0].seq, self._pending[-1].end
        token = f"{self._journal.id}:{first}-{end}:{self._journal.opening}"
        self._position.write(msgspec.structs.replace(self._point, until=end, token=token))

    def _moved(self, seq: int) -> Point:
        """The position behind what is pending."""
        point, present = self._point, self._pending[-1].recorder
        rows = sum(entry.rows for entry in self._pending if entry.recorder == present)
        if point.recorder == present.hex:
            rows += point.rows
        return Point(self._journal.id, seq, recorder=present.hex, rows=rows, durable=self._safe_seq)

    def _insert(self, entries: list[Entry], token: str, *, doubtful: bool) -> None:
        events = [entry.names.events(entry.events) for entry in entries if entry.events is not None]
        self._put("orderbook_events", events, token, doubtful=doubtful)
        levels = [entry.names.levels(entry.levels) for entry in entries if entry.levels is not None]
        self._put("level_states", levels, token, doubtful=doubtful)
        self._forget_levels(entries)
        health = [
            {**msgspec.structs.asdict(row), "ts": row.ts_ns // 1000 * 1000}
            for entry in entries
            for row in entry.extra.health
        ]
        if health:
            rows = pa.RecordBatch.from_pylist(health, HEALTH_SCHEMA)
            self._put("feed_health", [rows], token, doubtful=doubtful)

    @property
    def _open_client(self) -> Client:
        assert self._client is not None  # noqa: S101 - opened at the beginning of every step
        return self._client

    def _put(self, table: str, parts: list[pa.RecordBatch], token: str, *, doubtful: bool) -> None:
        """Rows into a table; of doubtful ones those that it does not show, until it shows them all.

        The first attempt has the token of the insert that is in doubt: should that arrive only now, one of
        the two is swallowed.
        """
        if not parts:
            return
        rows = pa.Table.from_batches(parts).unify_dictionaries()
        if not doubtful or table in REPLACING:
            self._insert_arrow(table, rows, f"{token}:{uuid.uuid4().hex[:8]}" if doubtful else token)
            return
        whole = rows.num_rows
        for attempt in range(PROOFS + 1):
            rows = missing(self._open_client, table, rows)
            if not rows.num_rows:
                return
            if attempt == PROOFS:
                break
            if attempt == 0 and rows.num_rows < whole:
                self.repaired += rows.num_rows
                log.warning("ClickHouse: %s lacked %d of %d rows", table, rows.num_rows, whole)
            self._insert_arrow(table, rows, f"{token}:{uuid.uuid4().hex[:8]}" if attempt else token)
        raise SinkError(
            f"ClickHouse takes no rows: {table} has answered and does not show {rows.num_rows} rows"
        )

    def _insert_arrow(self, table: str, rows: pa.Table, token: str) -> None:
        settings = {
            **INSERT_SETTINGS,
            "insert_deduplication_token": token,
            "query_id": f"{self._query_ids}{uuid.uuid4().hex}",
        }
        self._open_client.insert_arrow(table, rows, settings=settings)
        self.inserts += 1

    def _forget_levels(self, entries: list[Entry]) -> None:
        """A market's first snapshot of a recorder: levels that another recorder left, and did not know to be
        gone, end here. May run again at any time: only states older than the snapshot are looked at."""
        since: dict[str, int] = {}
        for entry in entries:
            if entry.recorder != self._recorder:
                self._recorder = entry.recorder
                self._clear.clear()
            if entry.events is None:
                continue
            clears = entry.events.column("type").to_numpy() == CLEAR
            market = entry.events.column("market_ix").to_numpy()[clears]
            ingest_ns = entry.events.column("ingest_ns").to_numpy()[clears]
            for ix, ns in zip(market.tolist(), ingest_ns.tolist(), strict=True):
                ticker = entry.names.tickers[ix]
                if ticker not in self._clear:
                    self._clear.add(ticker)
                    since[ticker] = ns
        tickers = list(since)
        for start in range(0, len(tickers), FORGET_MARKETS):  # a server bounds the length of a parameter
            part = tickers[start : start + FORGET_MARKETS]
            parameters = {"tickers": part, "since": [since[ticker] for ticker in part]}
            self._open_client.command(_FORGET, parameters=parameters)

    def _look_at_parts(self) -> None:
        """Inserts come further apart while the server has many parts to merge, so that it never has too
        many."""
        now = time.monotonic()
        if now - self._looked < PARTS_LOOK_S:
            return
        self._looked = now
        try:
            parts = self._open_client.query(_PARTS).result_rows[0][0]
        except Exception as error:  # the right to read system.parts may be missing
            log.debug("parts cannot be counted: %s", first_line(error))
            return
        wanted = MERGE_S * 2 ** max(0, (parts - EASY_PARTS) // 25)
        self._interval_s = min(MAX_MERGE_S, wanted)

    def reset(self) -> None:
        """After a failure: a new client; what is pending stays and is repeated as it is."""
        self._clear.clear()
        self._tail_looked = False
        if not self._pending:  # the cursor may have failed half-way
            self._cursor.close()
            self._cursor = self._begin()
        if self._client is not None:
            self._client.close()
            self._client = None

    def close(self) -> None:
        """All is stored, and has been read, when this returns."""
        self.flush()
        self._prove(every=True)
        self._cursor.close()
        self._position.close()
        self._beside.close()
        if self._client is not None:
            self._client.close()


def ask(client: Client, sql: str, output_format: str) -> bytes:
    """The answer to one statement in any of ClickHouse's formats. Raises SinkError with what is wrong."""
    if not re.fullmatch(r"[A-Za-z0-9]{1,64}", output_format):
        raise ConfigError(f"--format: expected the name of a ClickHouse format, got {output_format!r}")
    try:
        answer: bytes = client.raw_query(sql.strip().rstrip(";"), fmt=output_format)
    except Exception as error:
        raise SinkError(f"ClickHouse: {first_line(error)}") from error
    return answer


def overview(client: Client, database: str, output_format: str) -> bytes:
    """What has been recorded of the markets with most events, and of all. Raises SinkError."""
    return ask(client, _OVERVIEW.format(quote(database)), output_format)
