"""Parquet in the shape that NautilusTrader's wranglers of order book deltas and of trades take: see
docs/export.md.

Columns action, side, price, size, order_id, flags, sequence, ts_event and ts_init, of a trade price, size,
aggressor_side, trade_id, ts_event and ts_init, by their names there. It
is not NautilusTrader's own catalogue: that one's encoding follows its version and its precision mode, and ten
lines of its own API write it from this. Not here: NautilusTrader itself (100 MB, and not needed for this).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa

from kalshi_fast._depth import CLEARED, LEVEL, SET

if TYPE_CHECKING:
    from kalshi_fast.exporting.days import MarketDay
    from kalshi_fast.exporting.trades import TradeRows

# Source: NautilusTrader's RecordFlag.
F_LAST: Final = 1 << 7
F_SNAPSHOT: Final = 1 << 5
_ACTIONS: Final = pa.array(["ADD", "UPDATE", "DELETE", "CLEAR"])
_SIDES: Final = pa.array(["BUY", "SELL", "NO_ORDER_SIDE"])
_TIME: Final = pa.timestamp("ns", "UTC")
SCHEMA: Final = pa.schema(
    [
        ("action", pa.dictionary(pa.int8(), pa.string())),
        ("side", pa.dictionary(pa.int8(), pa.string())),
        ("price", pa.float64()),
        ("size", pa.float64()),
        ("order_id", pa.uint64()),
        ("flags", pa.uint8()),
        ("sequence", pa.uint64()),
        ("ts_event", _TIME),
        ("ts_init", _TIME),
    ]
)
TRADE_SCHEMA: Final = pa.schema(
    [
        ("price", pa.float64()),
        ("size", pa.float64()),
        ("aggressor_side", pa.dictionary(pa.int8(), pa.string())),
        ("trade_id", pa.string()),
        ("ts_event", _TIME),
        ("ts_init", _TIME),
    ]
)
_AGGRESSORS: Final = pa.array(["SELLER", "BUYER"])


def trade_table(trades: TradeRows) -> pa.Table:
    """Trades of a market as trade ticks; a time of the exchange behind the receipt is that of the receipt."""
    return pa.table(
        [
            pa.array(trades.price_e4 / 10_000),
            pa.array(trades.qty_e2 / 100),
            pa.DictionaryArray.from_arrays(pa.array(trades.buys.astype(np.int8)), _AGGRESSORS),
            trades.ids,
            pa.array(np.minimum(trades.exchange_ns, trades.receive_ns)).view(_TIME),
            pa.array(trades.receive_ns).view(_TIME),
        ],
        schema=TRADE_SCHEMA,
    )


def delta_table(day: MarketDay) -> pa.Table:
    """The depth updates of a market and date as order book deltas; F_LAST ends each frame."""
    kind, qty_e2 = day.updates["kind"], day.updates["qty_e2"]
    cleared, level = kind == CLEARED, kind == LEVEL
    action = np.where(level, 0, np.where(cleared, 3, np.where((kind == SET) & (qty_e2 == 0), 2, 1)))
    # A frame goes on with the levels of its snapshot, and with what is said again for one cause.
    row = day.updates["row"]
    goes_on = np.append(level[1:] | ((row[1:] == row[:-1]) & (day.seq[1:] == day.seq[:-1])), False)
    flags = np.where(goes_on, 0, F_LAST) | np.where(
        level | (cleared & np.append(level[1:], False)), F_SNAPSHOT, 0
    )
    return pa.table(
        [
            pa.DictionaryArray.from_arrays(pa.array(action.astype(np.int8)), _ACTIONS),
            pa.DictionaryArray.from_arrays(
                pa.array(np.where(cleared, 2, day.updates["ask"]).astype(np.int8)), _SIDES
            ),
            pa.array(day.updates["price_e4"] / 10_000),
            pa.array(qty_e2 / 100),
            pa.array(np.zeros(len(day), np.uint64)),
            pa.array(flags.astype(np.uint8)),
            pa.array(day.seq),
            pa.array(day.exchange_ns).view(_TIME),
            pa.array(day.receive_ns).view(_TIME),
        ],
        schema=SCHEMA,
    )
