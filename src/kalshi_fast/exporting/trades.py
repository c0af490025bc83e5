"""Recorded trades beside the books, a date at a time, where there are any.

Not here: where they are recorded (``replaying.beside``), what becomes of them (``hft``, ``nautilus``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_fast.exporting.days import DAY_NS, runs

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from kalshi_fast.exporting.days import MarketDay
    from kalshi_fast.replaying.replay import Replay

_FIELDS: Final = ("buys", "price_e4", "qty_e2", "exchange_ns", "receive_ns", "ids")


@dataclass(slots=True)
class TradeRows:
    """Trades of one market in the order of their receipt. ``buys``: the taker bought yes."""

    buys: NDArray[np.bool_]
    price_e4: NDArray[np.int64]
    qty_e2: NDArray[np.int64]
    exchange_ns: NDArray[np.int64]
    receive_ns: NDArray[np.int64]
    ids: pa.Array

    def __len__(self) -> int:
        return len(self.buys)

    def cut(self, first: int, stop: int | None) -> TradeRows:
        return TradeRows(*(getattr(self, name)[first:stop] for name in _FIELDS))


class Trades:
    """Of a recording, read once from its beginning to its end, so that a trade is known again whatever its
    dates; where it has none, none. ``lone``: those so far of markets that had no book on their date."""

    def __init__(self, replay: Replay) -> None:
        self.lone = 0
        self._dates = _by_date(replay.trades() if "trades" in replay.tables() else ())
        self._next: tuple[str, list[pa.RecordBatch]] | None = next(self._dates, None)
        self._date = ""
        self._rows: dict[str, TradeRows] = {}

    def of(self, day: MarketDay) -> TradeRows | None:
        """The trades that belong beside a part of a date: those up to its last update, or the rest."""
        if day.date != self._date:
            self._go_to(day.date)
        if day.last:
            return self._rows.pop(day.ticker, None)
        rows = self._rows.get(day.ticker)
        if rows is None:
            return None
        stop = int(np.searchsorted(rows.receive_ns, day.receive_ns[-1], side="right"))
        self._rows[day.ticker] = rows.cut(stop, None)
        return rows.cut(0, stop)

    def _go_to(self, date: str) -> None:
        """Dates before it that have trades and no events are passed over, and counted."""
        self._end_date()
        self._date = date
        while self._next is not None and self._next[0] <= date:
            found, batches = self._next
            self._rows = _of_markets(batches)
            if found < date:
                self._end_date()
            self._next = next(self._dates, None)

    def _end_date(self) -> None:
        self.lone += sum(map(len, self._rows.values()))
        self._rows = {}

    def finish(self) -> None:
        """No more events come."""
        self._go_to("9999-12-31")
        self._end_date()


def _by_date(batches: Iterable[pa.RecordBatch]) -> Iterator[tuple[str, list[pa.RecordBatch]]]:
    """All rows of a date (UTC) at once."""
    date, held = -1, list[pa.RecordBatch]()
    for batch in batches:
        days = batch.column("at").cast(pa.int64()).to_numpy() // DAY_NS
        for first, stop in runs(days):
            if held and days[first] != date:
                yield str(np.datetime64(date, "D")), held
                held = []
            date = int(days[first])
            held.append(batch.slice(first, stop - first))
    if held:
        yield str(np.datetime64(date, "D")), held


def _of_markets(batches: list[pa.RecordBatch]) -> dict[str, TradeRows]:
    table = pa.Table.from_batches(batches)
    # A block trade was agreed on beside the book: it takes nothing from any queue.
    table = table.filter(pc.invert(table.column("is_block")))
    text = table.column("market").cast(pa.string())
    found = {}
    for ticker in pc.unique(text).to_pylist():
        rows = table.filter(pc.equal(text, ticker)).combine_chunks()
        found[ticker] = TradeRows(
            buys=_numpy(pc.equal(rows.column("taker_side").cast(pa.string()), "yes")),
            price_e4=_numpy(rows.column("yes_price_e4").cast(pa.int64())),
            qty_e2=_numpy(rows.column("qty_e2")),
            exchange_ns=_numpy(rows.column("ts").cast(pa.int64())) * 1000,
            receive_ns=_numpy(rows.column("at").cast(pa.int64())),
            ids=rows.column("trade_id").combine_chunks(),
        )
    return found


def _numpy(column: pa.ChunkedArray) -> Any:  # noqa: ANN401
    return column.combine_chunks().to_numpy(zero_copy_only=False)
