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
from kalshi_fast.replaying.decoding import chunks_of
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
    "type": "CAST(type, 'Int8') - 1",
    "market_ix": "market_ticker",
    "side": "CAST(side, 'Int8') - 1",
    "price_e4": "price_e4",
    "qty_e2": "qty_e2",
    "ts_us": "toUnixTimestamp64Micro(ts)",
    "ingest_ns": "toUnixTimestamp64Nano(ingest_ts)",
    "conn_id": "conn_id",
    "sid": "sid",
    "seq": "seq",
}
_NAMES: Final = {"market_ix": "market_ticker", "ts_us": "ts", "ingest_ns": "ingest_ts"}
# Within a frame as a recorder writes it: clear, the levels of yes and of no from the best on.
_ORDER: Final = (
    "events.ingest_ts, events.seq, events.sid, events.conn_id, events.market_ticker,"
    " indexOf(['clear', 'snapshot', 'delta', 'gap'], CAST(events.type, 'String')), events.side,"
    " events.price_e4 DESC"
)
_SETTINGS: Final = {"output_format_arrow_low_cardinality_as_dictionary": 1}
_MOMENT: Final = "fromUnixTimestamp64Nano({%s:Int64}, 'UTC')"


TRADES_SCHEMA: Final = pa.schema(
    [
        pa.field("market", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("ts", pa.timestamp("us", "UTC"), nullable=False),
        pa.field("at", pa.timestamp("ns", "UTC"), nullable=False),
        pa.field("taker_side", pa.string(), nullable=False),
        pa.field("yes_price_e4", pa.int32(), nullable=False),
        pa.field("qty_e2", pa.int64(), nullable=False),
        pa.field("trade_id", pa.string(), nullable=False),
    ]
)


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
        found = self._ask(
            "SELECT count(), toUnixTimestamp64Nano(min(ingest_ts)), toUnixTimestamp64Nano(max(ingest_ts))"
            f" FROM orderbook_events WHERE {self._where(since_ns, self.end_ns)}",
            self._parameters(since_ns, self.end_ns),
        )
        rows, first_ns, last_ns = found[0]
        self.rows = rows
        if not rows:
            return
        selected = ", ".join(f"{_COLUMNS[name]} AS {_NAMES.get(name, name)}" for name in columns)
        for begin_ns, stop_ns in self._stretches(first_ns, last_ns + 1, rows):
            query = (
                f"SELECT {selected} FROM orderbook_events AS events"
                f" WHERE {self._where(begin_ns, stop_ns)} ORDER BY {_ORDER}"
            )
            with self._reading():
                table = self._open.query_arrow(
                    query,
                    parameters=self._parameters(begin_ns, stop_ns),
                    settings=_SETTINGS,
                    use_strings=True,
                )
            yield from chunks_of(table, columns, self.number)
            self.read += table.num_rows

    def _stretches(self, first_ns: int, stop_ns: int, rows: int) -> Iterator[tuple[int, int]]:
        """Stretches of time that together are the whole one, none with many more rows than are to be."""
        if rows <= STRETCH_ROWS or stop_ns - first_ns <= 1:
            yield first_ns, stop_ns
            return
        width_ns = -(-(stop_ns - first_ns) // _SLOTS)
        parameters = self._parameters(first_ns, stop_ns) | {"width": width_ns}
        slots = self._ask(
            "SELECT intDiv(toUnixTimestamp64Nano(ingest_ts) - {since:Int64}, {width:Int64}) AS slot, count()"
            f" FROM orderbook_events WHERE {self._where(first_ns, stop_ns)} GROUP BY slot ORDER BY slot",
            parameters,
        )
        begin_ns, gathered = first_ns, 0
        for slot, count in slots:
            slot_ns = first_ns + slot * width_ns
            if gathered and gathered + count > STRETCH_ROWS:
                yield begin_ns, slot_ns
                begin_ns, gathered = slot_ns, 0
            if count > STRETCH_ROWS:
                after_ns = min(slot_ns + width_ns, stop_ns)
                yield from self._stretches(slot_ns, after_ns, count)
                begin_ns = after_ns
            else:
                gathered += count
        if gathered:
            yield begin_ns, stop_ns

    def _known_since(self) -> int | None:
        found = self._ask(
            "SELECT toUnixTimestamp64Nano(min(since)), count() FROM (SELECT max(ingest_ts) AS since FROM"
            f" orderbook_events WHERE type = 'clear' AND {self._where(None, self.start_ns)}"
            " GROUP BY market_ticker)",
            self._parameters(None, self.start_ns),
        )
        return found[0][0] if found[0][1] else self.start_ns

    def trades(self) -> Iterator[pa.RecordBatch]:
        """The trades of the source's markets and stretch of time, as batches of TRADES_SCHEMA."""
        query = (
            "SELECT toString(market_ticker) AS market, ts, ingest_ts AS at, CAST(taker_side, 'String') AS taker_side,"
            " toInt32(yes_price_e4) AS yes_price_e4, qty_e2, toString(trade_id) AS trade_id FROM trades"
            f" WHERE {self._where(self.start_ns, self.end_ns)} ORDER BY ingest_ts, market_ticker, trade_id"
        )
        with self._reading():
            table = self._open.query_arrow(
                query, parameters=self._parameters(self.start_ns, self.end_ns), use_strings=True
            )
        if self.wanted is not None and not self._named:
            table = table.filter(pa.compute.is_in(table["market"], pa.array(sorted(self.wanted))))
        yield from table.cast(TRADES_SCHEMA).to_batches()

    def _where(self, since_ns: int | None, until_ns: int | None) -> str:
        conditions = ["1"]
        if since_ns is not None:
            conditions.append(f"ingest_ts >= {_MOMENT % 'since'}")
        if until_ns is not None:
            conditions.append(f"ingest_ts < {_MOMENT % 'until'}")
        if self._named:
            conditions.append("market_ticker IN {markets:Array(String)}")
        return " AND ".join(conditions)

    def _parameters(self, since_ns: int | None, until_ns: int | None) -> dict[str, Any]:
        found: dict[str, Any] = {"since": since_ns, "until": until_ns}
        if self._named and self.wanted is not None:
            found["markets"] = sorted(self.wanted)
        return {name: value for name, value in found.items() if value is not None}

    def _ask(self, query: str, parameters: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._reading():
            return list(self._open.query(query, parameters=parameters).result_rows)

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
