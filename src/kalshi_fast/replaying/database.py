"""Events from ClickHouse: a server, the embedded engine, or the front of a recording that has it open.

The table is not stored in time order, so it is read in stretches of time of so many rows, each sorted by the
database: memory is bounded on both sides. The order of a market's events is that of sql/0006_views.sql. Not
here: connecting (``sinks.clickhouse``).
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from kalshi_fast.errors import KalshiFastError, ReplayError
from kalshi_fast.interleave import OF_NO_MARKET
from kalshi_fast.replaying.beside import STORED, conform
from kalshi_fast.replaying.decoding import TABLE_NAMES, chunks_of
from kalshi_fast.replaying.merge import ahead
from kalshi_fast.replaying.source import Source
from kalshi_fast.replaying.times import iso
from kalshi_fast.sinks import clickhouse

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.replaying.chunks import Chunk

STRETCH_ROWS: Final = 400_000
_SLOTS: Final = 500  # that a stretch with too many rows is divided into
_TOLD_MARKETS: Final = 500  # a server bounds the length of a parameter; more are sorted out here
_COLUMNS: Final = {
    "type": "toInt8(CAST(type, 'Int8') - 1)",
    "market_ix": "market_ticker",
    "side": "toInt8(CAST(side, 'Int8') - 1)",
    "price_e4": "price_e4",
    "qty_e2": "qty_e2",
    "ts_us": "toUnixTimestamp64Micro(ts)",
    "ingest_ns": "toUnixTimestamp64Nano(ingest_ts)",
    "conn_id": "conn_id",
    "sid": "sid",
    "seq": "seq",
}
# Within a frame as a recorder writes it: clear, the levels of yes and of no from the best on.
_ORDER: Final = (
    "{0}.ingest_ts, {0}.seq, {0}.sid, {0}.conn_id, {0}.market_ticker,"
    " indexOf(['clear', 'snapshot', 'delta', 'gap'], CAST({0}.type, 'String')), {0}.side, {0}.price_e4 DESC"
).format("orderbook_events")
_SETTINGS: Final = {"output_format_arrow_low_cardinality_as_dictionary": 1}
_MOMENT: Final = "fromUnixTimestamp64Nano({%s:Int64}, 'UTC')"


# Of the tables beside: as they are in files, but for what Arrow has no type for; and the order of recording,
# as far as rows tell it.
_AS_TEXT: Final = frozenset(
    {
        *("trade_id", "market_id", "market_ticker", "event_ticker", "event_type", "taker_side"),
        *("channel", "index_id"),
    }
)
_TABLES: Final = (
    "SELECT name FROM system.tables WHERE database = currentDatabase() AND name IN {names:Array(String)}"
)
_BESIDE_ORDER: Final = {
    "market_lifecycle": ("ingest_ts", "conn_id", "sid", "seq"),
    "reference_prices": ("ingest_ts", "conn_id", "sid", "seq"),
    "trades": ("ingest_ts", "conn_id", "sid", "seq", "trade_id"),
    "tickers": ("ingest_ts", "conn_id", "sid", "ts", "market_ticker"),
}


class DatabaseSource(Source):
    """``DatabaseSource(url)``. Raises KalshiFastError when it cannot be read."""

    def __init__(
        self,
        url: str,
        *,
        markets: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
        database: str = "kalshi",
        user: str = "default",
        password: str = "",
    ) -> None:
        super().__init__(markets=markets, start_ns=start_ns, end_ns=end_ns)
        self._url = url
        self._client: Client | None = clickhouse.open_reader(url, user=user, password=password)
        self._client.database = database
        self._named = self.wanted is not None and len(self.wanted) <= _TOLD_MARKETS

    def close(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _chunks(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        return ahead(self._read(columns, since_ns))

    def _read(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        selected = ", ".join(f"{_COLUMNS[name]} AS {TABLE_NAMES.get(name, name)}" for name in columns)
        for table in self._in_stretches("orderbook_events", selected, f"ORDER BY {_ORDER}", since_ns):
            yield from chunks_of(table, columns, self.number)
            self.read += table.num_rows

    def _in_stretches(
        self, table: str, selected: str, order: str, since_ns: int | None
    ) -> Iterator[pa.Table]:
        """All rows from then until the end, a stretch of time after the other."""
        found = self._ask(
            table,
            f"count(), toUnixTimestamp64Nano(min({table}.ingest_ts)),"
            f" toUnixTimestamp64Nano(max({table}.ingest_ts))",
            since_ns,
            self.end_ns,
        )
        rows, first_ns, last_ns = found[0]
        if table == "orderbook_events":
            self.rows = rows
        if rows:
            for begin_ns, stop_ns in self._stretches(table, first_ns, last_ns + 1, rows):
                yield self._fetch(selected, table, begin_ns, stop_ns, order)

    def _stretches(self, table: str, first_ns: int, stop_ns: int, rows: int) -> Iterator[tuple[int, int]]:
        """Stretches of time that together are the whole one, none with many more rows than are to be."""
        if rows <= STRETCH_ROWS or stop_ns - first_ns <= 1:
            yield first_ns, stop_ns
            return
        width_ns = -(-(stop_ns - first_ns) // _SLOTS)
        slots = self._ask(
            table,
            "intDiv(toUnixTimestamp64Nano(ingest_ts) - {since:Int64}, {width:Int64}) AS slot, count()",
            first_ns,
            stop_ns,
            "GROUP BY slot ORDER BY slot",
            width=width_ns,
        )
        begin_ns, gathered = first_ns, 0
        for slot, count in slots:
            slot_ns = first_ns + slot * width_ns
            if gathered and gathered + count > STRETCH_ROWS:
                yield begin_ns, slot_ns
                begin_ns, gathered = slot_ns, 0
            if count > STRETCH_ROWS:
                after_ns = min(slot_ns + width_ns, stop_ns)
                yield from self._stretches(table, slot_ns, after_ns, count)
                begin_ns = after_ns
            else:
                gathered += count
        if gathered:
            yield begin_ns, stop_ns

    def _known_since(self) -> int | None:
        clears = self._ask(
            "orderbook_events",
            "toUnixTimestamp64Nano(max(ingest_ts))",
            None,
            self.start_ns,
            "AND type = 'clear' GROUP BY market_ticker",
        )
        return min((since_ns for (since_ns,) in clears), default=self.start_ns)

    # --- beside the books -------------------------------------------------------------------------

    def tables(self) -> Collection[str]:
        """A database that an earlier version made may have none of them yet."""
        with self._reading():
            found = self._open.query(_TABLES, parameters={"names": list(_BESIDE_ORDER)}).result_rows
        return [name for (name,) in found]

    def lacks(self, table: str) -> ReplayError:
        if table in _BESIDE_ORDER:
            return ReplayError(f"the database has no table {table}: a recorder of today makes it", self._url)
        return ReplayError(
            f"no table of {table} frames is in a database: they are in PARQUET_DIR/{table}", self._url
        )

    def beside(self, table: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        schema = STORED[table]
        selected = ", ".join(
            f"toString({table}.{name}) AS {name}" if name in _AS_TEXT else f"{table}.{name} AS {name}"
            for name in schema.names
        )
        order = ", ".join(f"{table}.{name}" for name in _BESIDE_ORDER[table])
        for rows in self._in_stretches(table, selected, f"ORDER BY {order}", since_ns):
            if self.wanted is not None and not self._named and table not in OF_NO_MARKET:
                rows = rows.filter(pa.compute.is_in(rows["market_ticker"], pa.array(sorted(self.wanted))))
            yield from (conform(batch, schema) for batch in rows.to_batches() if batch.num_rows)

    # --- queries ----------------------------------------------------------------------------------

    def _query(
        self, selected: str, table: str, since_ns: int | None, until_ns: int | None, rest: str
    ) -> tuple[str, dict[str, Any]]:
        """A query for the wanted markets in a stretch of time, and its parameters.

        Columns of the table are named with it: a bare name may be one of ``selected`` instead.
        """
        conditions = ["1"]
        parameters: dict[str, Any] = {}
        if since_ns is not None:
            conditions.append(f"{table}.ingest_ts >= {_MOMENT % 'since'}")
            parameters["since"] = since_ns
        if until_ns is not None:
            conditions.append(f"{table}.ingest_ts < {_MOMENT % 'until'}")
            parameters["until"] = until_ns
        if self._named and self.wanted is not None and table not in OF_NO_MARKET:
            conditions.append(f"{table}.market_ticker IN {{markets:Array(String)}}")
            parameters["markets"] = sorted(self.wanted)
        where = " AND ".join(conditions)
        # Nothing in it comes from outside: values are parameters.
        return f"SELECT {selected} FROM {table} WHERE {where} {rest}", parameters  # noqa: S608

    def _ask(
        self,
        table: str,
        selected: str,
        since_ns: int | None,
        until_ns: int | None,
        rest: str = "",
        **more: Any,  # noqa: ANN401
    ) -> list[tuple[Any, ...]]:
        query, parameters = self._query(selected, table, since_ns, until_ns, rest)
        with self._reading():
            found = self._open.query(query, parameters=parameters | more).result_rows
        return [tuple(row) for row in found]

    def _fetch(
        self, selected: str, table: str, since_ns: int | None, until_ns: int | None, rest: str
    ) -> pa.Table:
        query, parameters = self._query(selected, table, since_ns, until_ns, rest)
        with self._reading():
            client = self._open
            # Who may only read, as everybody at the front of a recording, may set nothing: then texts come as
            # texts, which is slower.
            known = client.server_settings
            settings = {name: value for name, value in _SETTINGS.items() if not known[name].readonly}
            return client.query_arrow(query, parameters=parameters, settings=settings, use_strings=True)

    @property
    def _open(self) -> Client:
        if self._client is None:
            raise ReplayError("it has been closed", self._url)
        return self._client

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except KalshiFastError:
            raise
        except Exception as error:
            stretch = "" if self.start_ns is None else f" from {iso(self.start_ns)} on"
            raise ReplayError(
                f"events cannot be read{stretch}: {clickhouse.first_line(error)}", self._url
            ) from error
