"""Recorded trades beside the books: ``PARQUET_DIR/trades/date=…``, a date at a time, where there are any.

Not here: recording them, asking a database for them (the books of an export from one come without trades).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_fast.compact.swap import event_files
from kalshi_fast.errors import CompactError, ExportError, reason

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kalshi_fast.exporting.days import MarketDay

_COLUMNS: Final = ["market_ticker", "taker_side", "is_block", "yes_price_e4", "qty_e2", "ts", "ingest_ts"]


@dataclass(slots=True)
class TradeRows:
    """Trades of one market in the order of their receipt. ``buys``: the taker bought yes."""

    buys: NDArray[np.bool_]
    price_e4: NDArray[np.uint16]
    qty_e2: NDArray[np.int64]
    exchange_ns: NDArray[np.int64]
    receive_ns: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.buys)

    def cut(self, first: int, stop: int | None) -> TradeRows:
        return TradeRows(*(getattr(self, name)[first:stop] for name in TradeRows.__slots__))


class Trades:
    """Of a source that is a directory; of any other there are none."""

    def __init__(self, source: str | Path) -> None:
        root = Path(source)
        self._root = (root.parent if root.name == "orderbook" else root) / "trades"
        self._date = ""
        self._rows: dict[str, TradeRows] = {}

    def of(self, day: MarketDay) -> TradeRows | None:
        """The trades that belong beside a part of a date: those up to its last update, or the rest."""
        if day.date != self._date:
            self._date, self._rows = day.date, {}
            directory = self._root / f"date={day.date}"
            if directory.is_dir():
                self._rows = _read(directory)
        rows = self._rows.get(day.ticker)
        if rows is None or day.last:
            return rows
        stop = int(np.searchsorted(rows.receive_ns, day.receive_ns[-1], side="right"))
        self._rows[day.ticker] = rows.cut(stop, None)
        return rows.cut(0, stop)


def _read(directory: Path) -> dict[str, TradeRows]:
    try:
        tables = [_columns(path) for path in event_files(directory)]
        table = pa.concat_tables(tables) if tables else None
    except (pa.ArrowException, OSError, KeyError, CompactError) as error:
        raise ExportError(f"{directory}: the trades cannot be read: {reason(error)}") from error
    if table is None or not table.num_rows:
        return {}
    # A block trade was agreed on beside the book: it takes nothing from any queue.
    table = table.filter(pc.invert(table.column("is_block"))).sort_by("ingest_ts")
    text = table.column("market_ticker").cast(pa.string())
    found = {}
    for ticker in pc.unique(text).to_pylist():
        rows = table.filter(pc.equal(text, ticker))
        found[ticker] = TradeRows(
            buys=_numpy(pc.equal(rows.column("taker_side").cast(pa.string()), "yes")),
            price_e4=_numpy(rows.column("yes_price_e4")),
            qty_e2=_numpy(rows.column("qty_e2")),
            exchange_ns=_numpy(rows.column("ts").cast(pa.timestamp("ns", "UTC")).cast(pa.int64())),
            receive_ns=_numpy(rows.column("ingest_ts").cast(pa.timestamp("ns", "UTC")).cast(pa.int64())),
        )
    return found


def _columns(path: Path) -> pa.Table:
    return pq.ParquetFile(path).read(columns=_COLUMNS).select(_COLUMNS)


def _numpy(column: pa.ChunkedArray) -> Any:  # noqa: ANN401
    return column.combine_chunks().to_numpy(zero_copy_only=False)
