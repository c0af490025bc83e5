"""hftbacktest's event array: its documented dtype and codes, in files that it loads by name.

Depth updates are DEPTH_EVENT with the size that the level has afterwards; a snapshot is a DEPTH_CLEAR_EVENT
for both sides and its levels as DEPTH_SNAPSHOT_EVENT; a gap is a DEPTH_CLEAR_EVENT alone, so that a strategy
sees no best bid and ask (NaN) while the book is unknown. Every event is both the exchange's and the local
one's: both times rise in the order of the rows (see ``days``), which is what hftbacktest's
``validate_event_order`` asks, and ``correct_event_order`` has nothing to do. Not here: hftbacktest itself;
it is not needed for this.
"""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast._depth import CLEARED, LEVEL, SET

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray

    from kalshi_fast.exporting.days import MarketDay
    from kalshi_fast.exporting.trades import TradeRows

# Source: hftbacktest's documentation of its data format (version 2).
DEPTH_EVENT: Final = 1
TRADE_EVENT: Final = 2
DEPTH_CLEAR_EVENT: Final = 3
DEPTH_SNAPSHOT_EVENT: Final = 4
EXCH_EVENT: Final = 1 << 31
LOCAL_EVENT: Final = 1 << 30
BUY_EVENT: Final = 1 << 29
SELL_EVENT: Final = 1 << 28
EVENT_DTYPE: Final = np.dtype(
    [
        ("ev", "u8"),
        ("exch_ts", "i8"),
        ("local_ts", "i8"),
        ("px", "f8"),
        ("qty", "f8"),
        ("order_id", "u8"),
        ("ival", "i8"),
        ("fval", "f8"),
    ],
    align=True,
)
LOT_SIZE: Final = 0.01  # contracts
_KINDS: Final = {SET: DEPTH_EVENT, LEVEL: DEPTH_SNAPSHOT_EVENT, CLEARED: DEPTH_CLEAR_EVENT}


def event_array(day: MarketDay, trades: TradeRows | None = None) -> NDArray[Any]:
    """The events of a market and date. Prices are dollars, sizes contracts; floats, as hftbacktest's."""
    updates = day.updates
    events: NDArray[Any] = np.zeros(len(updates), EVENT_DTYPE)
    kinds = np.array([_KINDS[kind] for kind in range(len(_KINDS))], np.uint64)[updates["kind"]]
    sides = np.where(updates["ask"] == 1, SELL_EVENT, BUY_EVENT).astype(np.uint64)
    sides[updates["kind"] == CLEARED] = 0
    events["ev"] = kinds | sides | np.uint64(EXCH_EVENT | LOCAL_EVENT)
    events["exch_ts"] = day.exchange_ns
    events["local_ts"] = day.receive_ns
    events["px"] = updates["price_e4"] / 10_000
    events["qty"] = updates["qty_e2"] / 100
    if trades is None or not len(trades):
        return events
    return _with_trades(events, trades)


def _with_trades(events: NDArray[Any], trades: TradeRows) -> NDArray[Any]:
    """Trades at their receive times. At one time the trade is first: hftbacktest takes what was traded from
    the queue, and the change of the level that follows must not take it twice."""
    traded: NDArray[Any] = np.zeros(len(trades), EVENT_DTYPE)
    sides = np.where(trades.buys, BUY_EVENT, SELL_EVENT).astype(np.uint64)
    traded["ev"] = sides | np.uint64(TRADE_EVENT | EXCH_EVENT | LOCAL_EVENT)
    traded["exch_ts"] = np.minimum(trades.exchange_ns, trades.receive_ns)
    traded["local_ts"] = trades.receive_ns
    traded["px"] = trades.price_e4 / 10_000
    traded["qty"] = trades.qty_e2 / 100
    merged: NDArray[Any] = np.concatenate((traded, events))
    merged.sort(order="local_ts", kind="stable")
    merged["exch_ts"] = np.maximum.accumulate(merged["exch_ts"])
    return merged


def tick_size(price_e4: NDArray[np.uint16]) -> float:
    """The coarsest of the exchange's ticks that all of these prices are on, in dollars."""
    for tick_e4 in (100, 10):
        if not (price_e4 % tick_e4).any():
            return tick_e4 / 10_000
    return 0.0001


def write_npz(file: BinaryIO, events: NDArray[Any]) -> None:
    """As numpy's ``savez_compressed(file, data=events)``, at the fastest level: a tenth of the time."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("data.npy", "w", force_zip64=True) as entry,
    ):
        np.save(entry, events, allow_pickle=False)
