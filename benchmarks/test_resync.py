"""How long a book is unknown: from a missing number to the last market exact again, over a real TLS socket.

Exchange and recorder share one event loop on loopback, so the figure has the exchange's work in it too; the
one-market repair in the same run, which is one command and one snapshot, is the unit to compare it with:
``extra_info["round_trips"]`` says how many commands had to wait for an answer before the next could be sent.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from kalshi_fast.auth import Signer
from kalshi_fast.backoff import Backoff
from kalshi_fast.books import Books
from kalshi_fast.dial import tls_context
from kalshi_fast.feed import Feed
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import Session
from kalshi_fast.simulator.exchange import Exchange
from kalshi_fast.simulator.frames import delta_body
from kalshi_fast.simulator.source import DELTA, Change
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.tls import make_key, make_tls
from kalshi_fast.subscription import Limits

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator
    from pathlib import Path

    from pytest_benchmark.fixture import BenchmarkFixture

MARKETS = 300
ROUNDS = 30


class Rig:
    """A quiet exchange with 300 markets, and a recorder that has all their books."""

    def __init__(self, directory: Path) -> None:
        self.rounds = 0
        self.loop = uvloop.new_event_loop()
        self.source = SyntheticMarkets(MARKETS, 1)
        context, _ = make_tls(directory)
        keys = {"key": make_key(directory / "client.pem")}
        self.exchange = Exchange(self.source, keys, ssl_context=context)
        pool = LocalPool(2000, 1000)
        self.recorder = Recorder(Books(), pool, pool.release, seal_rows=2000)
        rng = random.Random(1)
        self.session = Session(
            self.source.books,
            clock=time.monotonic_ns,
            rng=rng,
            # The pace of commands is for an exchange that counts them; this one does not.
            limits=Limits(command_interval_ns=1, command_burst=1_000_000_000),
        )
        self.link = Link(self.recorder, self.session)
        self.run(self.exchange.start())
        self.exchange.end_play()
        self.feed = Feed(
            self.exchange.url,
            Signer.from_file("key", directory / "client.pem"),
            self.link,
            pool,
            ssl_context=tls_context(directory / "ca.pem"),
            backoff=Backoff(rng),
        )
        self.task = self.loop.create_task(self.feed.run())
        self.run(self.all_exact())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(asyncio.wait_for(work, 30))

    async def all_exact(self) -> None:
        while not (
            len(self.link.replicas) == MARKETS
            and all(not subscription.waiting for subscription in self.session.subscriptions.values())
        ):
            await asyncio.sleep(0)

    async def missing_number(self) -> None:
        """One frame of the sequence does not come; the next one shows it."""
        (client,) = self.exchange.clients
        (subscription,) = client.subscriptions.values()
        subscription.next_seq()
        gaps = self.recorder.counts.gaps
        change = self.source.step(time.time_ns())
        self.exchange.publish(change)
        while self.recorder.counts.gaps == gaps:
            await asyncio.sleep(0)
        await self.all_exact()

    async def doubtful_book(self) -> None:
        """A delta that cannot be true, of another market each time: a second one is repaired more slowly."""
        book = list(self.source.books.values())[self.rounds]
        self.rounds += 1
        rejected = self.recorder.counts.rejected
        self.exchange.publish(Change(book.ticker, DELTA, delta_body(book, 0, 100, -(10**9), b"")))
        while self.recorder.counts.rejected == rejected:
            await asyncio.sleep(0)
        await self.all_exact()

    def close(self) -> None:
        self.feed.stop()
        self.loop.run_until_complete(self.task)
        self.loop.run_until_complete(self.exchange.stop())
        self.loop.close()


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    running = Rig(tmp_path)
    yield running
    running.close()


def measured(benchmark: BenchmarkFixture, rig: Rig, what: str) -> int:
    """Commands for snapshots per round."""
    before = rig.session.requests
    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda: rig.run(getattr(rig, what)()), rounds=ROUNDS, warmup_rounds=2
    )
    return (rig.session.requests - before) // (ROUNDS + 2)


@pytest.mark.benchmark(group="5 resync over a TLS socket")
def test_one_market(benchmark: BenchmarkFixture, rig: Rig) -> None:
    assert measured(benchmark, rig, "doubtful_book") == 1
    benchmark.extra_info["round_trips"] = 1


@pytest.mark.benchmark(group="5 resync over a TLS socket")
def test_all_300_markets(benchmark: BenchmarkFixture, rig: Rig) -> None:
    assert measured(benchmark, rig, "missing_number") == 3, "three commands, sent together"
    benchmark.extra_info["round_trips"] = 1
    assert rig.recorder.counts.rejected == 0
