"""A market maker on a recorded market, in hftbacktest: one order on each side, at the best prices.

    kalshi-fast export hftbacktest MARKET --from data --out exports
    python examples/market_making.py exports/MARKET_*.npz --out backtest.png

It needs the extras `backtest` and `plot`. While the book is unknown (a gap) hftbacktest sees no best bid and
ask, and the strategy has no orders. What is shown here is the way, not a way to make money.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from hftbacktest import GTX, LIMIT, BacktestAsset, HashMapMarketDepthBacktest, Recorder
from matplotlib.figure import Figure
from numba import njit

NO_BID, NO_ASK = -(2**63), 2**63 - 1  # hftbacktest's ticks where there is no price
BID_ID, ASK_ID = 1, 2  # of the orders: even ones sell


@njit
def quote(hbt: Any, recorder: Any, step_ns: int, qty: float, limit: float) -> None:  # noqa: ANN401
    """Every ``step_ns``: orders that are not at the best prices go, missing ones are sent."""
    next_id = 1
    while hbt.elapse(step_ns) == 0:
        hbt.clear_inactive_orders(0)
        depth = hbt.depth(0)
        known = depth.best_bid_tick != NO_BID and depth.best_ask_tick != NO_ASK
        bids = asks = 0
        orders = hbt.orders(0).values()
        while orders.has_next():
            order = orders.get()
            buys = order.order_id % 2 == 1
            wanted = depth.best_bid_tick if buys else depth.best_ask_tick
            if known and order.price_tick == wanted:
                bids += buys
                asks += not buys
            elif order.cancellable:
                hbt.cancel(0, order.order_id, False)
        position = hbt.position(0)
        if known:
            if bids == 0 and position < limit:
                hbt.submit_buy_order(0, next_id, depth.best_bid, qty, GTX, LIMIT, False)
            if asks == 0 and position > -limit:
                hbt.submit_sell_order(0, next_id + 1, depth.best_ask, qty, GTX, LIMIT, False)
            next_id += 2
        recorder.record(hbt)


def backtest(files: list[str], *, tick_size: float, step_ms: int = 10, latency_ms: int = 20) -> Any:  # noqa: ANN401
    """Runs it over the files of one market, in order; returns hftbacktest's records."""
    asset = (
        BacktestAsset()
        .data(files)
        .linear_asset(1.0)
        .constant_order_latency(latency_ms * 10**6, latency_ms * 10**6)
        .power_prob_queue_model(2.0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0, 0.0)
        .tick_size(tick_size)
        .lot_size(0.01)
        .last_trades_capacity(0)
    )
    hbt = HashMapMarketDepthBacktest([asset])
    recorder = Recorder(1, 1_000_000)
    quote(hbt, recorder.recorder, step_ms * 10**6, 1.0, 20.0)
    hbt.close()
    return recorder.get(0)


def draw(records: Any, path: Path) -> None:  # noqa: ANN401
    """Price, position and equity over time."""
    times = records["timestamp"].astype("datetime64[ns]")
    equity = records["balance"] + records["position"] * records["price"] - records["fee"]
    figure = Figure(figsize=(10, 7), layout="constrained")
    price, position, money = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1, 2))
    price.plot(times, records["price"], linewidth=0.8)
    price.set_ylabel("mid, dollars")
    position.step(times, records["position"], where="post", linewidth=0.8)
    position.set_ylabel("contracts")
    money.plot(times, equity, linewidth=0.8)
    money.set_ylabel("equity, dollars")
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", help="exported files of one market")
    parser.add_argument("--tick-size", type=float, default=0.01, help="as the export says (0.01)")
    parser.add_argument("--out", type=Path, default=Path("backtest.png"))
    options = parser.parse_args()
    records = backtest(sorted(options.files), tick_size=options.tick_size)
    draw(records, options.out)
    last = records[np.isfinite(records["price"])][-1]  # a recording ends with the book unknown
    figures = {
        "trades": int(last["num_trades"]),
        "position": float(last["position"]),
        "equity": round(float(last["balance"] + last["position"] * last["price"] - last["fee"]), 4),
    }
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main()
