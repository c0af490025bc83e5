"""Which rows the stores have already: trades by their id, tickers by what they say, announcements by what
they say and when they came.

Two connections of a hot standby may both have kept a frame, REST may have brought a trade meanwhile, and a
run may have been cut off behind its writing. A row that any store has counts as stored. Not here: writing.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pyarrow as pa
import pyarrow.dataset as ds

from kalshi_fast.channels.rows import LifecycleRow, TickerRow, TradeRow
from kalshi_fast.cluster import quote
from kalshi_fast.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.rereading.taking import Row

SAME_NS: Final = 60 * 10**9  # the same announcement on another connection comes within so long
_AROUND_US: Final = 1_000_000  # REST has microseconds where the feed may have milliseconds, or seconds
_TICKERS_AT_ONCE: Final = 1000
_VALUES: Final = (
    *("price_e4", "yes_bid_e4", "yes_ask_e4", "yes_bid_qty_e2", "yes_ask_qty_e2", "last_trade_qty_e2"),
    *("volume_e2", "open_interest_e2", "dollar_volume", "dollar_open_interest"),
)
_COLUMNS: Final = {
    "trades": ("trade_id",),
    "tickers": ("market_ticker", "ts", *_VALUES),
    "market_lifecycle": ("market_ticker", "event_ticker", "event_type", "body", "ingest_ts"),
}
Key: TypeAlias = tuple[Any, ...]
# What a store has in these columns, of these markets, between these two moments in microseconds (``ts``, of
# announcements ``ingest_ts``). Times are integers: microseconds, and nanoseconds for ``ingest_ts``.
Look: TypeAlias = "Callable[[str, list[str], int, int], Iterable[Key]]"


def key_of(row: Row) -> Key:
    """What makes it the same as another."""
    if isinstance(row, TradeRow):
        return (row.trade_id,)
    if isinstance(row, TickerRow):
        return (row.market_ticker, row.ts_us, *(getattr(row, name) for name in _VALUES))
    return (row.market_ticker, row.event_ticker, row.event_type, row.body)


class Stored:
    """``is_new`` of each row once, in the order in which they came, after ``look`` of the same rows."""

    def __init__(self) -> None:
        self._keys: set[tuple[str, Key]] = set()
        self._times: dict[Key, list[int]] = defaultdict(list)  # of announcements

    def look(self, rows: list[Row], looks: Iterable[Look]) -> None:
        """Asks the stores for what is like these rows."""
        for table in _COLUMNS:
            ours = [row for row in rows if row.table == table]
            tickers = sorted({row.market_ticker for row in ours})
            for at in range(0, len(tickers), _TICKERS_AT_ONCE):
                some = tickers[at : at + _TICKERS_AT_ONCE]
                names = set(some)
                times = [_time_us(row) for row in ours if row.market_ticker in names]
                around = SAME_NS // 1000 if table == "market_lifecycle" else _AROUND_US
                for one in looks:
                    for found in one(table, some, min(times) - around, max(times) + around):
                        if table == "market_lifecycle":
                            self._times[found[:-1]].append(found[-1])
                        else:
                            self._keys.add((table, found))

    def is_new(self, row: Row) -> bool:
        """False when it is stored, or came before in this run."""
        key = key_of(row)
        if isinstance(row, LifecycleRow):
            times = self._times[key]
            if any(abs(row.ingest_ns - time_ns) < SAME_NS for time_ns in times):
                return False
            times.append(row.ingest_ns)
            return True
        if (row.table, key) in self._keys:
            return False
        self._keys.add((row.table, key))
        return True


def _time_us(row: Row) -> int:
    return row.ingest_ns // 1000 if isinstance(row, LifecycleRow) else row.ts_us


def in_files(directory: Path) -> Look:
    """Parquet files of a recording."""

    def look(table: str, tickers: list[str], first_us: int, last_us: int) -> Iterable[Key]:
        files = [str(path) for path in sorted((directory / table).glob("date=*/*.parquet"))]
        if not files:
            return
        columns = _COLUMNS[table]
        time = "ingest_ts" if table == "market_lifecycle" else "ts"
        try:
            dataset = ds.dataset(files, format="parquet")
            kind = dataset.schema.field(time).type
            unit = 1000 if kind.unit == "ns" else 1
            low, high = (pa.scalar(us * unit, pa.int64()).cast(kind) for us in (first_us, last_us))
            names = ds.field("market_ticker").cast(pa.string()).isin(tickers)
            where = (ds.field(time) >= low) & (ds.field(time) <= high) & names
            for batch in dataset.to_batches(columns=list(columns), filter=where):
                yield from _keys(batch)
        except (OSError, pa.ArrowException) as error:
            raise SinkError(f"{directory / table}: its files cannot be looked at: {error}") from error

    return look


def _keys(batch: pa.RecordBatch) -> Iterable[Key]:
    columns = []
    for column in batch.columns:
        of_time = pa.types.is_timestamp(column.type)
        columns.append((column.cast(pa.int64()) if of_time else column).to_pylist())
    return zip(*columns, strict=True)


def in_database(client: Client, database: str) -> Look:
    """Tables of a recording."""

    def expression(column: str) -> str:
        match column:
            case "ts":
                return "toUnixTimestamp64Micro(ts)"
            case "ingest_ts":
                return "toUnixTimestamp64Nano(ingest_ts)"
            case "trade_id":
                return "toString(trade_id)"
            case _:
                return column

    def look(table: str, tickers: list[str], first_us: int, last_us: int) -> Iterable[Key]:
        time = "ingest_ts" if table == "market_lifecycle" else "ts"
        digits = 9 if time == "ingest_ts" else 6
        unit, cast = (1000, "Nano") if digits == 9 else (1, "Micro")
        sql = (
            f"SELECT {', '.join(map(expression, _COLUMNS[table]))} FROM {quote(database)}.{table}"  # noqa: S608
            f" WHERE {time} BETWEEN fromUnixTimestamp64{cast}({{first:Int64}}, 'UTC')"
            f" AND fromUnixTimestamp64{cast}({{last:Int64}}, 'UTC')"
            " AND market_ticker IN {tickers:Array(String)}"
        )
        parameters = {"first": first_us * unit, "last": last_us * unit, "tickers": tickers}
        return (tuple(row) for row in client.query(sql, parameters=parameters).result_rows)

    return look
