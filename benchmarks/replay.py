"""Replay in events a second, one core, with the peers in the same run on the same events.

``python -m benchmarks.replay`` makes a synthetic recording (500 markets) in a temporary directory and prints
a table: the median of the rounds and their range. ``--memory N`` replays N million events instead and prints
the largest resident size. pykalshi and hftbacktest are compared when they are installed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.events import synthetic_events
from kalshi_fast import Strategy, replay
from kalshi_fast._columns import CLEAR
from kalshi_fast._replay import BookTable
from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.replaying.chunks import join
from kalshi_fast.sinks import layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kalshi_fast._replay import Event
    from kalshi_fast.replaying.chunks import Chunk
    from kalshi_fast.replaying.replay import Replay

ROUNDS = 5


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="How fast recorded events become books.")
    parser.add_argument("--events", type=int, default=2_000_000, help="of the recording (2000000)")
    parser.add_argument("--core", type=int, help="stay on this core (else where the system likes)")
    parser.add_argument(
        "--memory",
        type=int,
        metavar="N",
        help="only the memory of so many million events (or N times --events)",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
        pa.set_cpu_count(1)
    if options.child:
        _measure_memory(options.child)
        return
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        if options.memory is not None:
            write_recording(root, synthetic_events(min(options.events, 1_000_000)), options.memory)
            memory_of(root)
            return
        write_recording(root, synthetic_events(options.events), 1)
        rates(root)


def write_recording(root: Path, table: pa.Table, repeats: int) -> None:
    """Files as the recorder's, the same events over and over, each time later."""
    directory = root / "orderbook" / "date=2026-11-18"
    directory.mkdir(parents=True, exist_ok=True)
    times = table["ingest_ts"].cast(pa.int64()).to_numpy()
    span_ns = int(times[-1] - times[0]) + 1_000_000
    place = table.schema.get_field_index("ingest_ts")
    for number in range(repeats):
        moved = pa.array(times + number * span_ns).view(pa.timestamp("ns", "UTC"))
        path = directory / f"part-{number:06d}_000000.parquet"
        with pq.ParquetWriter(path, EVENT_SCHEMA, **layout.writer_options()) as writer:
            writer.write_table(
                table.set_column(place, EVENT_SCHEMA.field(place), moved),
                row_group_size=layout.ROW_GROUP_ROWS,
            )
            writer.add_key_value_metadata({layout.SCHEMA_VERSION_KEY: str(SCHEMA_VERSION)})


def timed(name: str, events: int, work: Callable[[], object], rounds: int = ROUNDS) -> None:
    """Prints the rate of some work on so many events, by the processor's time (all threads together, so it is
    that of one core whatever else the machine does) and by the clock on the wall."""
    cpu, wall = [], []
    for _ in range(rounds):
        started, began = time.perf_counter(), time.process_time()
        work()
        wall.append(events / (time.perf_counter() - started) / 1e6)
        cpu.append(events / (time.process_time() - began) / 1e6)
    middle = statistics.median(cpu)
    sys.stdout.write(
        f"{name:<54}{middle:>8.3f} ({min(cpu):.3f}-{max(cpu):.3f}){1e3 / middle:>9.1f} ns"
        f"   wall {statistics.median(wall):.3f} ({min(wall):.3f}-{max(wall):.3f})\n"
    )
    sys.stdout.flush()


class Counting(Strategy):
    def __init__(self) -> None:
        self.deltas = 0

    def on_delta(self, event: Event) -> None:
        self.deltas += 1


def rates(root: Path) -> None:
    recording = replay(root)
    with recording.open() as source:
        chunk = join(list(source.chunks()))
        tickers = source.tickers
    n = len(chunk)
    sys.stdout.write(
        f"{n:,} rows of {len(tickers)} markets; M events/s of processor time, median and range\n"
    )

    def apply() -> None:
        table = BookTable(len(tickers))
        table.apply(chunk.type, chunk.market_ix, chunk.side, chunk.price_e4, chunk.qty_e2)
        assert table.applied == n
        assert table.faults == table.skipped == 0

    def last(iterator: Iterator[Any]) -> None:
        for _ in iterator:
            pass

    def run() -> None:
        with recording.run() as steps:
            steps.advance()

    timed("columns in memory to books", n, apply)
    timed("Parquet on disk to books", n, run)
    timed("Parquet: features of every event", n, lambda: last(recording.features(events=1)))
    timed(
        "Parquet: features of every 100th event, 10 levels",
        n,
        lambda: last(recording.features(events=100, depth=10)),
    )
    timed("Parquet: best prices at every change", n, lambda: last(recording.features()))
    timed("Parquet: bars of a second", n, lambda: last(iter(recording.bars("1s"))))
    timed("typed events, columns of the books", n, lambda: last(recording.events(columns=())))
    timed("typed events, all columns", n, lambda: last(recording.events()))
    timed("callbacks of a strategy", n, lambda: recording.drive(Counting()))
    sys.stdout.write("peers, on the same events\n")
    peers(root, chunk, tickers)


def peers(root: Path, chunk: Chunk, tickers: list[str]) -> None:
    few = chunk.slice(0, min(len(chunk), 200_000))
    timed(f"pandas: iterating over {len(few):,} rows, nothing done", len(few), lambda: _pandas(few), 3)
    timed("pandas: the same with a dict book", len(few), lambda: _pandas_books(few), 3)
    try:
        from pykalshi.orderbook import OrderbookManager
    except ImportError:
        sys.stdout.write("pykalshi is not installed\n")
    else:
        timed("pykalshi: OrderbookManager.apply_delta", len(few), lambda: _pykalshi(few, OrderbookManager), 3)
    try:
        import hftbacktest
    except ImportError:
        sys.stdout.write("hftbacktest is not installed\n")
    else:
        events = hft_events(chunk)
        for name in ("HashMapMarketDepthBacktest", "ROIVectorMarketDepthBacktest"):
            timed(f"hftbacktest: {name}", len(events), partial(_hftbacktest, hftbacktest, name, events), 3)


def _pandas(chunk: Chunk) -> None:
    import pandas as pd

    for _ in pd.DataFrame(chunk.columns()).itertuples():
        pass


def _pandas_books(chunk: Chunk) -> None:
    import pandas as pd

    books: dict[int, dict[tuple[int, int], int]] = {}
    for row in pd.DataFrame(chunk.columns()).itertuples():
        if row.type == 2:
            books[row.market_ix] = {}
        else:
            book, level = books[row.market_ix], (row.side, row.price_e4)
            book[level] = book.get(level, 0) + row.qty_e2


def _pykalshi(chunk: Chunk, manager: Any) -> None:  # noqa: ANN401
    """Its book wants text, which a recording of its own would have; making that is not measured."""
    books: dict[int, Any] = {}
    for market, kind, side, price, qty in _PYKALSHI_ROWS.setdefault(id(chunk), _texts(chunk)):
        if kind == CLEAR:
            books[market] = manager(str(market))
        else:
            books[market].apply_delta(side, price, qty)


_PYKALSHI_ROWS: dict[int, list[tuple[int, int, str, str, str]]] = {}


def _texts(chunk: Chunk) -> list[tuple[int, int, str, str, str]]:
    columns = (chunk.market_ix, chunk.type, chunk.side, chunk.price_e4, chunk.qty_e2)
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [(m, k, ("yes", "no")[s], f"{p / 1e4:.4f}", f"{q / 100:.2f}") for m, k, s, p, q in rows]


def hft_events(chunk: Chunk) -> Any:  # noqa: ANN401
    """The same events as one asset, which is what it knows: sizes behind each event, no bids as asks."""
    from hftbacktest import types

    key = (chunk.market_ix.astype(np.int64) * 2 + chunk.side) * 16_384 + chunk.price_e4
    levels = chunk.type < CLEAR
    key, qty = key[levels], chunk.qty_e2[levels]
    order = np.argsort(key, kind="stable")
    running = np.cumsum(qty[order])
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    before = np.repeat(np.concatenate([[0], running[first[1:] - 1]]), np.diff([*first, len(order)]))
    sizes = np.empty(len(order), np.int64)
    sizes[order] = running - before
    events = np.zeros(len(order), types.event_dtype)
    buys = chunk.side[levels] == 0
    flags = types.DEPTH_EVENT | types.EXCH_EVENT | types.LOCAL_EVENT
    events["ev"] = np.where(buys, flags | types.BUY_EVENT, flags | types.SELL_EVENT)
    times = np.maximum.accumulate(chunk.ingest_ns[levels])
    events["exch_ts"] = events["local_ts"] = times
    price = chunk.price_e4[levels].astype(np.float64) / 1e4
    events["px"] = np.where(buys, price, 1 - price)
    events["qty"] = sizes / 100
    return events


def _hftbacktest(library: Any, name: str, events: Any) -> None:  # noqa: ANN401
    asset = (
        library.BacktestAsset()
        .data([events])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(0.001)
        .lot_size(0.01)
        .last_trades_capacity(0)
    )
    if name.startswith("ROI"):
        asset = asset.roi_lb(0.0).roi_ub(1.0)
    backtest = getattr(library, name)([asset])
    while backtest.elapse(10**12) == 0:
        pass
    backtest.close()


# --- memory -------------------------------------------------------------------------------------------


def memory_of(root: Path) -> None:
    """Replays a directory in a process of its own, which says how large it became."""
    files = [path.stat().st_size for path in root.rglob("*.parquet")]
    sys.stdout.write(f"{len(files)} files, {sum(files) / 1e9:.2f} GB\n")
    sys.stdout.flush()
    subprocess.run([sys.executable, "-m", "benchmarks.replay", "--child", str(root)], check=True)


def _measure_memory(directory: str) -> None:
    recording = replay(directory)
    before = _largest_mb()
    for what, work in (("books", _steps), ("features of every 1000th event", _looks)):
        started = time.perf_counter()
        work(recording)
        elapsed_s = time.perf_counter() - started
        sys.stdout.write(f"{what}: {elapsed_s:.1f} s, at most {_largest_mb():.0f} MB ({before:.0f} before)\n")
        sys.stdout.flush()


def _steps(recording: Replay) -> int:
    with recording.run() as run:
        events = int(run.advance())
    sys.stdout.write(f"{events:,} events\n")
    return events


def _looks(recording: Replay) -> int:
    return sum(len(block["at_ns"]) for _, block in recording.features(events=1000))


def _largest_mb() -> float:
    """Of this process alone: what getrusage says begins with the parent's."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


if __name__ == "__main__":
    main()
