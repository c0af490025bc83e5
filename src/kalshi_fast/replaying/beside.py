"""What is recorded beside the order book: trades, tickers, announcements, reference prices, raw frames, as
tables and typed rows.

``open_beside`` finds out where they are; whatever the place, they come in the order of their receive times,
and each trade once. Not here: each kind's own reading (``beside_files``, ``database``, ``log``,
``capture``), the order between channels (``interleave``).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

import pyarrow as pa

from kalshi_fast.batch import RawFrame
from kalshi_fast.channels.reference_rows import REFERENCE_KEYS, ReferenceRow, trimmed
from kalshi_fast.channels.rows import SCHEMAS, LifecycleRow, TickerRow, TradeRow
from kalshi_fast.errors import FieldError
from kalshi_fast.interleave import TABLES, ChannelRow, in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator
    from pathlib import Path

# As many as a recorder knows: two recorders of one market, or one after the other, have the same trades.
KNOWN_TRADES: Final = 200_000
# As far back as a recorder asks REST for trades: what was received then may come once more.
BACK_NS: Final = 3600 * 1_000_000_000

RAW_SCHEMA: Final = pa.schema(
    [
        ("ingest_ts", pa.timestamp("ns", "UTC")),
        ("conn_id", pa.uint64()),
        ("channel", pa.dictionary(pa.int32(), pa.string())),
        ("payload", pa.binary()),
    ]
)
STORED: Final = {
    **{table: SCHEMAS[table] for table in ("market_lifecycle", "reference_prices", "trades", "tickers")},
    "raw": RAW_SCHEMA,
}
_STRUCTS: Final[dict[str, Callable[..., ChannelRow]]] = {
    "market_lifecycle": LifecycleRow,
    "reference_prices": ReferenceRow,
    "trades": TradeRow,
    "tickers": TickerRow,
    "raw": RawFrame,
}
_MARKET: Final = pa.dictionary(pa.int32(), pa.string())
_TIME: Final = pa.timestamp("ns", "UTC")
_SHOWN: Final = {"market_ticker": "market", "ingest_ts": "at"}  # as the other tables of a replay have it


# Columns that are never empty; of a table that is not here: none is.
FILLED: Final[dict[str, tuple[str, ...]]] = {
    "tickers": ("market_ticker", "ts", "ingest_ts"),
    "reference_prices": REFERENCE_KEYS,
}


def _shown(table: str, first: tuple[str, ...]) -> pa.Schema:
    """The schema of a replay's table: ``first`` first, prices wide enough to be subtracted."""
    stored = STORED[table]
    names = [*first, *(name for name in stored.names if name not in first)]
    fields = []
    for name in names:
        kind = stored.field(name).type
        kind = pa.int32() if kind == pa.uint16() else kind
        fields.append(pa.field(_SHOWN.get(name, name), kind, nullable=table in FILLED))
    return pa.schema(fields)


TRADES_SCHEMA: Final = _shown("trades", ("market_ticker", "ts", "ingest_ts"))
TICKERS_SCHEMA: Final = _shown("tickers", ("market_ticker", "ts", "ingest_ts"))
LIFECYCLE_SCHEMA: Final = _shown("market_lifecycle", ("market_ticker", "ingest_ts"))
REFERENCE_TABLE_SCHEMA: Final = _shown("reference_prices", ("index_id", "ts", "ingest_ts", "value"))
RAW_TABLE_SCHEMA: Final = _shown("raw", ("ingest_ts",))
TABLE_SCHEMAS: Final = {
    "trades": TRADES_SCHEMA,
    "tickers": TICKERS_SCHEMA,
    "market_lifecycle": LIFECYCLE_SCHEMA,
    "reference_prices": REFERENCE_TABLE_SCHEMA,
    "raw": RAW_TABLE_SCHEMA,
}


class Beside(Protocol):
    """A place that has such rows. Raises ReplayError."""

    def tables(self) -> Collection[str]:
        """Those of TABLES that are recorded there, if only without a row."""

    def lacks(self, table: str) -> Exception:
        """Why a table that is not among them is not."""

    def beside(self, table: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        """The rows of the wanted markets from then until the end, in order, as STORED has them."""

    def close(self) -> None: ...


class BesideReader:
    """``BesideReader(place, start_ns)``: rows from ``start_ns`` on."""

    def __init__(self, place: Beside, start_ns: int | None, *, known_trades: int = KNOWN_TRADES) -> None:
        self._place = place
        self._start_ns = start_ns
        self._known_trades = known_trades

    def __enter__(self) -> BesideReader:
        return self

    def __exit__(self, *_: object) -> None:
        self._place.close()

    def there(self) -> list[str]:
        """The tables that are recorded, in the order of one receive time."""
        found = self._place.tables()
        return [table for table in TABLES if table in found]

    def must_have(self, tables: Iterable[str]) -> None:
        """Raises ReplayError for one that is not recorded."""
        found = self._place.tables()
        for table in tables:
            if table not in found:
                raise self._place.lacks(table)

    def batches(self, table: str) -> Iterator[pa.RecordBatch]:
        """A table's rows, as STORED has them."""
        self.must_have([table])
        if table == "trades":
            return self._trades()
        return self._place.beside(table, self._start_ns)

    def _trades(self) -> Iterator[pa.RecordBatch]:
        since_ns = None if self._start_ns is None else self._start_ns - BACK_NS
        known, ids = set[str](), deque[str]()
        for batch in self._place.beside("trades", since_ns):
            times = batch.column("ingest_ts").view(pa.int64()).to_pylist()
            kept = []
            for trade_id, ns in zip(batch.column("trade_id").to_pylist(), times, strict=True):
                new = trade_id not in known
                if new:
                    known.add(trade_id)
                    ids.append(trade_id)
                    if len(ids) > self._known_trades:
                        known.discard(ids.popleft())
                kept.append(new and (self._start_ns is None or ns >= self._start_ns))
            if not all(kept):
                batch = batch.filter(pa.array(kept))
            if batch.num_rows:
                yield batch

    def rows(self, tables: Collection[str]) -> Iterator[ChannelRow]:
        """The rows of several tables, typed and in one order."""
        self.must_have(tables)
        return in_order([self._typed(table) for table in TABLES if table in tables])

    def _typed(self, table: str) -> Iterator[ChannelRow]:
        make = _STRUCTS[table]
        for batch in self.batches(table):
            yield from map(make, *map(_plain, batch.columns))

    def shown(self, table: str) -> Iterator[pa.RecordBatch]:
        """A table's rows, as TABLE_SCHEMAS has them."""
        schema = TABLE_SCHEMAS[table]
        stored = {shown: name for name, shown in _SHOWN.items()}
        for batch in self.batches(table):
            columns = [batch.column(stored.get(field.name, field.name)).cast(field.type) for field in schema]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _plain(column: pa.Array) -> list[Any]:
    if pa.types.is_dictionary(column.type):  # a text once, not once per row
        names = column.dictionary.to_pylist()
        return [None if code is None else names[code] for code in column.indices.to_pylist()]
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    values: list[Any] = column.to_pylist()
    if pa.types.is_decimal(column.type):  # as they came, not with all the digits that there is room for
        return [None if value is None else trimmed(value) for value in values]
    return values


def check_tables(tables: Iterable[str]) -> list[str]:
    """Names of tables in the order of one receive time. Raises FieldError for another name."""
    wanted = [tables] if isinstance(tables, str) else list(tables)
    for table in wanted:
        if table not in TABLES:
            raise FieldError("channels", table, f"some of {', '.join(TABLES)}")
    return [table for table in TABLES if table in wanted]


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of the schema, by name, in its types."""
    columns = []
    for field in schema:
        column = batch.column(field.name)
        if pa.types.is_dictionary(field.type) and not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        columns.append(column if column.type == field.type else column.cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def open_beside(
    source: str | Path,
    *,
    markets: Iterable[str] | None = None,
    start_ns: int | None = None,
    end_ns: int | None = None,
    repair: bool = False,
    **options: Any,  # noqa: ANN401 - of a database
) -> BesideReader:
    """Where ``source`` (as ``open_source`` has it) has what is recorded beside the books."""
    from kalshi_fast.replaying.beside_files import BesideFiles
    from kalshi_fast.replaying.source import open_other

    place: Beside | None = open_other(source, markets=markets, start_ns=start_ns, end_ns=end_ns, **options)
    if place is None:
        place = BesideFiles(source, markets=markets, end_ns=end_ns, repair=repair)
    return BesideReader(place, start_ns)
