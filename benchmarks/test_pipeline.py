"""What one frame costs, stage by stage, beside the usual ways of doing it, in one run on one machine.

Each benchmark handles the same 50,000 deltas of 500 markets per round; ``extra_info["ns_per_frame"]`` and
the summary after the run divide by that. ``make bench`` runs them; no test asserts a time.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest

from benchmarks.conftest import sealing_recorder
from benchmarks.seed_style import SeedStyleRecorder
from kalshi_fast import wire
from kalshi_fast._book import FINEST, LINEAR_CENT, OrderBook
from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.link import Link
from kalshi_fast.session import CHANNEL, Session

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

    from kalshi_fast.recorder import Recorder

ROUNDS = 7


@pytest.fixture
def timed(benchmark: BenchmarkFixture) -> Callable[..., None]:
    """Runs ``work(*setup())`` in rounds of ``frames`` frames each."""

    def run(work: Callable[..., Any], frames: int, setup: Callable[[], tuple[Any, ...]] = tuple) -> None:
        benchmark.pedantic(  # type: ignore[no-untyped-call]
            work, setup=lambda: (setup(), {}), rounds=ROUNDS, warmup_rounds=1
        )
        if benchmark.stats is not None:
            benchmark.extra_info["ns_per_frame"] = round(benchmark.stats.stats.median / frames * 1e9)

    return run


@pytest.mark.benchmark(group="1 decode")
@pytest.mark.parametrize("decoder", ["msgspec_structs", "orjson", "json"])
def test_decode(timed: Callable[..., None], deltas: list[bytes], decoder: str) -> None:
    decoders: dict[str, Callable[[bytes], Any]] = {
        "msgspec_structs": wire.decode,
        "orjson": orjson.loads,
        "json": json.loads,
    }
    decode = decoders[decoder]

    def work() -> None:
        for frame in deltas:
            decode(frame)

    timed(work, len(deltas))


def updates() -> list[tuple[int, int, int, int]]:
    """(market, side, price_e4, delta_e2): additions to 500 cent markets in random order."""
    rng = np.random.default_rng(1)
    n = 50_000
    columns = (
        rng.integers(0, 500, n),
        rng.integers(0, 2, n),
        rng.integers(1, 100, n) * 100,
        rng.integers(1, 99, n),
    )
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.benchmark(group="2 book")
@pytest.mark.parametrize("layout", ["array_cent_grid", "array_finest_grid", "dict"])
def test_book(timed: Callable[..., None], layout: str) -> None:
    changes = updates()

    def arrays(books: list[OrderBook]) -> None:
        for market, side, price, change in changes:
            books[market].apply_delta(side, price, change)

    def dicts(books: list[list[dict[int, int]]]) -> None:
        for market, side, price, change in changes:
            levels = books[market][side]
            size = levels.get(price, 0) + change
            if size:
                levels[price] = size
            else:
                levels.pop(price, None)

    if layout == "dict":
        timed(dicts, len(changes), lambda: ([[{}, {}] for _ in range(500)],))
    else:
        grid = LINEAR_CENT if layout == "array_cent_grid" else FINEST
        timed(arrays, len(changes), lambda: ([OrderBook(grid) for _ in range(500)],))


@pytest.mark.benchmark(group="3 columns")
@pytest.mark.parametrize("kind", ["numpy_columns", "row_dicts"])
def test_columns(timed: Callable[..., None], kind: str) -> None:
    changes = updates()

    def columns(events: EventColumns, levels: LevelColumns) -> None:
        for market, side, price, change in changes:
            events.add(1, 1, 1, 1, market, market, side, price, change, 1, 1)
            levels.set(market, market, side, price, change, 1, 1)

    def rows(events: list[dict[str, int]], levels: list[dict[str, int]]) -> None:
        for market, side, price, change in changes:
            events.append(
                {
                    "type": 1,
                    "sid": 1,
                    "seq": 1,
                    "market_id": market,
                    "market_ticker": market,
                    "side": side,
                    "price": price,
                    "qty": change,
                    "ts": 1,
                    "ingest_ts": 1,
                }
            )
            levels.append(
                {
                    "market_id": market,
                    "market_ticker": market,
                    "side": side,
                    "price": price,
                    "size": change,
                    "ts": 1,
                    "ingest_ts": 1,
                }
            )

    if kind == "row_dicts":
        timed(rows, len(changes), lambda: ([], []))
    else:
        timed(columns, len(changes), lambda: (EventColumns(50_000), LevelColumns(100_000)))


@pytest.mark.benchmark(group="4 whole path: decode, sequence, book, columns, Arrow")
def test_whole_path_kalshi_fast(timed: Callable[..., None], frames: list[bytes]) -> None:
    def setup() -> tuple[Link, Recorder]:
        recorder, _ = sealing_recorder()
        tickers = {json.loads(frame)["msg"]["market_ticker"] for frame in frames[:1000]}
        session = Session(tickers, clock=lambda: 0, rng=random.Random(1))
        link = Link(recorder, session)
        link.on_connected(1, 1)
        session.on_subscribed(wire.Subscribed(1, wire.ChannelSid(CHANNEL, 1)))
        return link, recorder

    def work(link: Link, recorder: Recorder) -> None:
        now = 1_795_000_000_000_000_000
        for frame in frames:
            link.feed(frame, now)
        recorder.seal()
        assert recorder.counts.rejected == recorder.counts.gaps == 0
        assert recorder.counts.frames == len(frames)
        assert len(recorder.books.tickers) == 500

    timed(work, len(frames), setup)


@pytest.mark.benchmark(group="4 whole path: decode, sequence, book, columns, Arrow")
@pytest.mark.parametrize("loads", [orjson.loads, json.loads], ids=["orjson", "json"])
def test_whole_path_seed_style(
    timed: Callable[..., None], frames: list[bytes], loads: Callable[[bytes], Any]
) -> None:
    def work(recorder: SeedStyleRecorder) -> None:
        for frame in frames:
            recorder.on_frame(frame)
        recorder.seal()
        assert recorder.rows >= len(frames)

    timed(work, len(frames), lambda: (SeedStyleRecorder(loads),))
