"""The workload of the benchmarks: generated frames of 500 markets, 99.8 % deltas, about 260 bytes each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kalshi_fast.arrow import STORED_EVENTS, STORED_LEVELS, Names, stored
from kalshi_fast.books import Books
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.simulator.frames import snapshot_body
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from kalshi_fast.batch import Batch

N_MARKETS = 500
N_DELTAS = 50_000


def sealing_recorder() -> tuple[Recorder, LocalPool]:
    """A recorder whose batches become Arrow views and are free again at once: no storage."""
    books, pool = Books(), LocalPool(2000, 1000)
    names = Names(books.tickers, books.ids)

    def deliver(batch: Batch) -> None:
        names.events(stored(STORED_EVENTS, batch.events.arrays, batch.events.n))
        names.levels(stored(STORED_LEVELS, batch.levels.arrays, batch.levels.n))
        pool.release(batch)

    return Recorder(books, pool, deliver, seal_rows=2000), pool


def made_frames(n_deltas: int) -> list[bytes]:
    """Snapshots of all markets, then deltas; one sid, numbered from 1."""
    source = SyntheticMarkets(N_MARKETS, seed=1)
    made = [
        b'{"type":"orderbook_snapshot","sid":1,"seq":%d,"msg":%b}' % (seq, snapshot_body(book))
        for seq, book in enumerate(source.books.values(), 1)
    ]
    for seq in range(N_MARKETS + 1, N_MARKETS + n_deltas + 1):
        change = source.step(1_795_000_000_000_000_000 + seq * 1_000_000)
        made.append(b'{"type":"orderbook_delta","sid":1,"seq":%d,"msg":%b}' % (seq, change.body))
    return made


@pytest.fixture(scope="session")
def frames() -> list[bytes]:
    return made_frames(N_DELTAS)


@pytest.fixture(scope="session")
def deltas(frames: list[bytes]) -> list[bytes]:
    return frames[N_MARKETS:]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """ns per frame and the ratio to the first of each group: what the claims in the README rest on."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("ns per frame (median of the rounds, their spread, ratio within the group)")
    group = ""
    first: dict[str | None, float] = {}
    for bench in session.benchmarks:
        ns = bench.extra_info.get("ns_per_frame")
        if not ns or not bench.stats:
            continue
        if bench.group != group:
            group = bench.group
            terminalreporter.write_line(group)
        base = first.setdefault(bench.group, ns)
        low, high = (ns * edge / bench.stats.median for edge in (bench.stats.min, bench.stats.max))
        terminalreporter.write_line(f"  {bench.name:<44}{ns:>8}  ({low:.0f}-{high:.0f})  x{ns / base:.1f}")
