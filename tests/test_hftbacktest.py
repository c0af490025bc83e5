"""hftbacktest itself reads our export: its best bid and ask are ours at every event.

One module, because compiling hftbacktest's Python side takes seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import kalshi_fast
from kalshi_fast import NO, YES
from kalshi_fast.exporting import export, hft
from kalshi_fast.importing import import_recordings
from streams import TICKERS, random_rows, write_events
from test_exporting import with_trades

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytest.importorskip("hftbacktest", reason="the extra `backtest` is not installed")

from hftbacktest import (
    BUY_EVENT,
    BacktestAsset,
    HashMapMarketDepthBacktest,
    ROIVectorMarketDepthBacktest,
)
from hftbacktest.data import validate_event_order
from hftbacktest.types import event_dtype
from numba import njit

NO_BID, NO_ASK = -(2**63), 2**63 - 1  # what hftbacktest says where there is none


@njit
def _walk(hbt: Any, found: Any) -> int:  # noqa: ANN401 - numba compiles it
    """Time, best bid and ask after each event that arrives."""
    n = 0
    while hbt.wait_next_feed(False, 10**18) == 2:
        depth = hbt.depth(0)
        found[n, 0] = hbt.current_timestamp
        found[n, 1] = depth.best_bid_tick
        found[n, 2] = depth.best_ask_tick
        n += 1
    return n


@njit
def _trades(hbt: Any, found: Any) -> int:  # noqa: ANN401 - numba compiles it
    """Price, size and side (1: bought yes) of every trade."""
    n = 0
    more = True
    while more:  # what the last event brings is there behind it
        more = hbt.wait_next_feed(False, 10**18) == 2
        for trade in hbt.last_trades(0):
            found[n, 0] = trade.px
            found[n, 1] = trade.qty
            found[n, 2] = 1.0 if trade.ev & BUY_EVENT == BUY_EVENT else -1.0
            n += 1
        hbt.clear_last_trades(0)
    return n


def asset_of(files: list[str]) -> Any:  # noqa: ANN401 - hftbacktest has no types
    return (
        BacktestAsset()
        .data(files)
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(0.01)
        .lot_size(hft.LOT_SIZE)
        .roi_lb(0.0)
        .roi_ub(1.0)
    )


def bests_there(files: list[str], backtest: Callable[..., Any]) -> NDArray[np.int64]:
    found = np.zeros((100_000, 3), np.int64)
    return found[: _walk(backtest([asset_of(files)]), found)]


def bests_here(source: Path, market: str) -> dict[int, tuple[int, int] | None]:
    """By receive time; None where the book is crossed, which hftbacktest cannot show."""
    found: dict[int, tuple[int, int] | None] = {}
    for event in kalshi_fast.replay(source, markets=[market]).events():
        book = event.book
        bid = None if book.stale else book.best_bid(YES)
        no = None if book.stale else book.best_bid(NO)
        crossed = bid is not None and no is not None and bid + no >= 10_000
        best = (NO_BID if bid is None else bid // 100, NO_ASK if no is None else 100 - no // 100)
        found[event.ingest_ns] = None if crossed else best
    return found


@pytest.mark.parametrize("backtest", [HashMapMarketDepthBacktest, ROIVectorMarketDepthBacktest])
def test_the_best_bid_and_ask_of_the_recordings_of_2025_are_ours_at_every_event(
    recordings: Path, tmp_path: Path, backtest: Callable[..., Any]
) -> None:
    import_recordings([recordings], tmp_path / "data", quiet=True)
    report = export("hftbacktest", tmp_path / "data", tmp_path / "out", quiet=True)
    (market,) = {file.market for file in report.files}
    here = bests_here(tmp_path / "data", market)
    there = bests_there([file.path for file in report.files], backtest)
    assert report.crossed == report.faults == 0
    assert len(there) == len(here) - 1 > 11_000  # the run ends when nothing follows the last event
    for at_ns, bid, ask in there.tolist():
        assert here[at_ns] == (bid, ask)


@pytest.mark.parametrize("backtest", [HashMapMarketDepthBacktest, ROIVectorMarketDepthBacktest])
def test_crossed_books_gaps_and_midnight_are_no_trouble(tmp_path: Path, backtest: Callable[..., Any]) -> None:
    source = write_events(tmp_path / "data", random_rows(21, 4000, step_ns=10**7))
    report = export("hftbacktest", source, tmp_path / "out", markets=[TICKERS[0]], max_rows=700, quiet=True)
    assert report.crossed > 50
    here = bests_here(source, TICKERS[0])
    there = bests_there([file.path for file in report.files], backtest)
    compared = 0
    for at_ns, bid, ask in there.tolist():
        ours = here.get(at_ns, None)  # the whole book at midnight is no event of ours
        if ours is not None:
            assert ours == (bid, ask)
            compared += 1
    assert compared > 500


def test_the_array_is_what_hftbacktest_says_it_is(tmp_path: Path) -> None:
    assert event_dtype == hft.EVENT_DTYPE
    source = write_events(tmp_path / "data", random_rows(22, 500))
    for file in export("hftbacktest", source, tmp_path / "out", quiet=True).files:
        with np.load(file.path) as archive:
            validate_event_order(archive["data"])


def test_it_is_told_of_trades_with_their_side(tmp_path: Path) -> None:
    source, trades, _ = with_trades(tmp_path)
    report = export("hftbacktest", source, tmp_path / "out", markets=[trades[0].ticker], quiet=True)
    files = [file.path for file in report.files]
    for path in files:
        with np.load(path) as archive:
            validate_event_order(archive["data"])
    found = np.zeros((10, 3), np.float64)
    asset = asset_of(files).last_trades_capacity(10)
    n = _trades(HashMapMarketDepthBacktest([asset]), found)
    assert found[:n].tolist() == [[0.43, 1.5, -1.0], [0.44, 3.5, 1.0]]


def test_its_codes_are_ours() -> None:
    import hftbacktest

    names = [name for name in vars(hft) if name.endswith("_EVENT")]
    assert len(names) == 8
    assert {name: getattr(hftbacktest, name) for name in names} == {n: getattr(hft, n) for n in names}
