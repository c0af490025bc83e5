"""Recorded trades beside the books, a date at a time, where there are any.

Not here: where they are recorded (``replaying.beside``), what becomes of them (``hft``, ``nautilus``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kalshi_fast.exporting.days import DAY_NS
from kalshi_fast.replaying.times import moment_ns

if TYPE_CHECKING:
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
    """Of a recording; where it has none, none. ``lone``: of markets that had no book in the dates so far."""

    def __init__(self, replay: Replay) -> None:
        self.lone = 0
        self._replay = replay
        self._recorded = "trades" in replay.tables()
        self._date = ""
        self._rows: dict[str, TradeRows] = {}

    def of(self, day: MarketDay) -> TradeRows | None:
        """The trades that belong beside a part of a date: those up to its last update, or the rest."""
        if not self._recorded:
            return None
        if day.date != self._date:
            self.finish()
            self._date, self._rows = day.date, _read(self._replay, day.date)
        if day.last:
            return self._rows.pop(day.ticker, None)
        rows = self._rows.get(day.ticker)
        if rows is None:
            return None
        stop = int(np.searchsorted(rows.receive_ns, day.receive_ns[-1], side="right"))
        self._rows[day.ticker] = rows.cut(stop, None)
        return rows.cut(0, stop)

    def finish(self) -> None:
        """A date is over."""
        self.lone += sum(map(len, self._rows.values()))
        self._rows = {}


def _read(replay: Replay, date: str) -> dict[str, TradeRows]:
    begin_ns = moment_ns("date", date)
    batches = list(replay.within(begin_ns, begin_ns + DAY_NS).trades())
    if not batches:
        return {}
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
