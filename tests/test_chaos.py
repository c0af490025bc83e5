"""Fifty seeds of chaos over real sockets: whatever the exchange does wrong, the rows alone rebuild the true
book at every checkpoint or say that it was unknown, and in the end every book is the exchange's again.

A few plays run side by side on one event loop. ``KALSHI_FAST_SEED=n`` plays one seed alone.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import links
from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.books import Books
from kalshi_fast.checkpoints import Comparison, Row, compare
from kalshi_fast.config import load
from kalshi_fast.dial import tls_context
from kalshi_fast.fleet import Fleet
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Counts, Recorder
from kalshi_fast.simulator.checkpoints import FILE
from kalshi_fast.simulator.faults import chaos
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from kalshi_fast.batch import Batch
    from kalshi_fast.simulator.exchange import Exchange

KINDS = ("snapshot", "delta", "clear", "gap")
SIDES = ("yes", "no")
SECONDS = 7
MARKETS = 24
RATE = 500
AT_ONCE = 10
GROUPS = [range(start, start + AT_ONCE) for start in range(1, 51, AT_ONCE)]
if "KALSHI_FAST_SEED" in os.environ:
    GROUPS = [range(int(os.environ["KALSHI_FAST_SEED"]), int(os.environ["KALSHI_FAST_SEED"]) + 1)]


@dataclass
class Play:
    comparison: Comparison
    counts: Counts
    faults: Counter[str]
    different: list[str]
    rows: int


class Rows:
    """A store that keeps the rows of one play."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.books = Books()
        self.pool = LocalPool(500, 1000)

    def store(self, batch: Batch) -> None:
        names = ("market_ix", "sid", "seq", "type", "side", "price_e4", "qty_e2")
        for market, sid, seq, kind, side, price, qty in links.rows(batch.events, *names):
            self.rows.append((self.books.tickers[market], sid, seq, KINDS[kind], SIDES[side], price, qty))
        self.pool.release(batch)


def different(books: Books, running: Exchange) -> list[str]:
    """The markets whose book is unknown or not the exchange's."""
    found = []
    for ticker, truth in running.books().items():
        market = books.by_ticker.get(ticker)
        if market is None or market.book.stale:
            found.append(f"{ticker} is unknown")
        elif [levels[::-1] for levels in market.book.ladders()] != [truth["yes"], truth["no"]]:
            found.append(f"{ticker} differs")
    return found


async def play(directory: Path, seed: int) -> Play:
    source = SyntheticMarkets(MARKETS, seed)
    rows = Rows()
    recorder = Recorder(rows.books, rows.pool, rows.store, seal_rows=500)
    async with exchange(
        directory,
        source,
        rate=RATE,
        seconds=SECONDS,
        seed=seed,
        faults=chaos(seed, SECONDS),
        checkpoint_every_s=0.1,
        directory=directory,
        unique_sids=True,
        heartbeat_s=0.3,
    ) as running:
        told = {
            "WS_URL": running.url,
            "MARKET_TICKERS": ",".join(source.books),
            "SUBSCRIPTION_MARKETS": "10",
            "CONNECTION_MARKETS": "30" if seed % 3 else "15",
            "HOT_STANDBY": "on" if seed % 2 else "off",
            "USE_YES_PRICE": "on" if seed % 5 == 0 else "off",
            "WS_IDLE_SECS": "0.3",
            "WS_BACKOFF_SECS": "0.05",
            "WS_BACKOFF_MAX_SECS": "0.3",
            "WS_REFUSED_SECS": "0.1",
        }
        settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
        signer = Signer.from_file(KEY_ID, directory / "client.pem")
        fleet = Fleet(settings, signer, recorder, rows.pool, tls_context(directory / "ca.pem"))
        task = asyncio.ensure_future(fleet.run())
        await asyncio.wait_for(running.finished.wait(), 60)
        async with asyncio.timeout(30):
            while wrong := different(rows.books, running):
                if all("differs" in what for what in wrong):
                    break  # exact, they say, and wrong: no time will mend that
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        wrong = different(rows.books, running)
        fleet.stop()
        await task
        recorder.seal()
        faults = Counter(running.stats.faults)
    return Play(compare(directory / FILE, rows.rows), recorder.counts, faults, wrong, len(rows.rows))


@pytest.mark.clock
@pytest.mark.parametrize("seeds", GROUPS, ids=lambda seeds: f"seeds {seeds[0]}-{seeds[-1]}")
def test_rows_are_true_or_say_that_they_do_not_know(tmp_path: Path, seeds: range) -> None:
    async def run() -> list[Play]:
        directories = [tmp_path / str(seed) for seed in seeds]
        for directory in directories:
            directory.mkdir()
        return await asyncio.gather(*map(play, directories, seeds))

    plays = asyncio.run(run())
    faults: Counter[str] = Counter()
    for seed, played in zip(seeds, plays, strict=True):
        comparison = played.comparison
        assert comparison.wrong == 0, f"seed {seed}: {comparison.examples}"
        assert played.different == [], f"seed {seed}"
        assert played.rows == played.counts.events, f"seed {seed}: counted is what was written"
        assert comparison.exact > comparison.compared / 8 > 5, f"seed {seed}: {comparison}"
        assert sum(played.faults.values()) >= SECONDS - 4, f"seed {seed}: {played.faults}"
        faults += played.faults
    if len(seeds) == AT_ONCE:
        assert len(faults) > 12, "most kinds occur in any ten plays"
        assert sum(played.counts.gaps for played in plays) > 0
        assert sum(played.counts.handovers for played in plays) > 0


def test_the_comparison_itself_sees_what_is_wrong(tmp_path: Path) -> None:
    """A row that is missing, doubled or changed makes a checkpoint wrong; a gap makes it unknown."""
    file = tmp_path / FILE
    file.write_text(
        '{"sid":1,"seq":3,"books":{"A":{"yes":[[100,500]],"no":[]}}}\n'
        '{"sid":1,"seq":4,"books":{"A":{"yes":[[100,700]],"no":[]}}}\n'
        '{"sid":2,"seq":4,"books":{"A":{"yes":[],"no":[]}}}\n'
    )
    rows: list[Row] = [
        ("A", 1, 1, "clear", "yes", 0, 0),
        ("A", 1, 1, "snapshot", "yes", 100, 400),
        ("A", 1, 3, "delta", "yes", 100, 100),
        ("A", 1, 4, "delta", "yes", 100, 200),
    ]

    def outcome(*given: Row) -> tuple[int, int, int]:
        found = compare(file, given)
        assert found.compared == 3
        return found.exact, found.unknown, found.wrong

    assert outcome(*rows) == (2, 1, 0)
    assert outcome(*rows[:3]) == (1, 1, 1)
    assert outcome(*rows[:2], *rows[3:]) == (0, 1, 2)
    assert outcome(*rows[:3], rows[2], rows[3]) == (0, 1, 2)
    assert outcome(*rows[:3], ("A", 1, 4, "gap", "yes", 0, 0), rows[3]) == (1, 2, 0)
    assert outcome(*rows[1:]) == (0, 3, 0)
