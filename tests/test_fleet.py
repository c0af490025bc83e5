"""Many markets on several connections, a hot standby, markets that come and go: against a real exchange
simulator over real sockets."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from client import KEY_ID, exchange
from kalshi_fast import fleet as fleet_module
from kalshi_fast.auth import Signer
from kalshi_fast.books import Books
from kalshi_fast.config import load
from kalshi_fast.dial import tls_context
from kalshi_fast.errors import ConnectError, SubscriptionError
from kalshi_fast.fleet import Fleet
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.simulator.commands import Commands
from kalshi_fast.simulator.subscription import RefusedError
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from collections.abc import Callable

    from kalshi_fast import wire
    from kalshi_fast.batch import Batch
    from kalshi_fast.books import Market
    from kalshi_fast.simulator.exchange import Exchange


class Rig:
    def __init__(self, directory: Path, url: str, tickers: list[str], **told: str) -> None:
        flags = {"WS_URL": url, "MARKET_TICKERS": ",".join(tickers), "WS_BACKOFF_SECS": "0.01", **told}
        settings = load(flags, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
        self.pool = LocalPool(1000, 1000)
        self.books = Books()
        self.conn_ids: set[int] = set()
        self.health: list[Any] = []
        self.recorder = Recorder(self.books, self.pool, self.store, seal_rows=1000)
        signer = Signer.from_file(KEY_ID, directory / "client.pem")
        self.fleet = Fleet(settings, signer, self.recorder, self.pool, tls_context(directory / "ca.pem"))

    def store(self, batch: Batch) -> None:
        self.conn_ids.update(batch.events.arrays["conn_id"][: batch.events.n].tolist())
        self.health += batch.health
        self.pool.release(batch)

    def exact(self, tickers: list[str]) -> bool:
        """Every one of these books is exact."""
        return all(
            ticker in self.books.by_ticker and not self.books.by_ticker[ticker].book.stale
            for ticker in tickers
        )

    def equal(self, running: Exchange, tickers: list[str]) -> bool:
        """Every one of these books is exact and the exchange's."""
        truth = running.books()
        for ticker in tickers:
            market = self.books.by_ticker.get(ticker)
            if market is None or market.book.stale:
                return False
            ladders = market.book.ladders()
            if [levels[::-1] for levels in ladders] != [truth[ticker]["yes"], truth[ticker]["no"]]:
                return False
        return True

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not condition():
                await asyncio.sleep(0.01)


def play(
    directory: Path,
    tickers: list[str],
    scene: Callable[[Rig, Exchange], Any],
    *,
    refuse_unknown: bool = False,
    **told: str,
) -> Rig:
    async def run() -> Rig:
        source = SyntheticMarkets(30, 1)
        async with exchange(
            directory, source, rate=2000, heartbeat_s=0.2, refuse_unknown=refuse_unknown
        ) as running:
            rig = Rig(directory, running.url, tickers, **told)
            task = asyncio.ensure_future(rig.fleet.run())
            try:
                await asyncio.wait_for(scene(rig, running), 30)
            finally:
                rig.fleet.stop()
                await task
            rig.recorder.seal()
            return rig

    return asyncio.run(run())


def markets(rig: Rig) -> list[Market]:
    return list(rig.books.by_ticker.values())


ALL = [f"KXSIM-26DEC31-T{n:04d}" for n in range(30)]


async def frozen(rig: Rig, running: Exchange, tickers: list[str]) -> None:
    """The play stops, everything arrives, and every book is the exchange's."""
    running.end_play()
    await rig.until(lambda: rig.equal(running, tickers))


def test_markets_are_spread_over_connections_with_one_subscription_each(tmp_path: Path) -> None:
    async def scene(rig: Rig, running: Exchange) -> None:
        await rig.until(lambda: len(rig.books.by_ticker) == 30)
        assert len(running.clients) == 3
        sizes = sorted(
            len(subscription.tickers) for c in running.clients for subscription in c.subscriptions.values()
        )
        assert sizes == [8, 11, 11]
        await asyncio.sleep(0.3)
        await frozen(rig, running, ALL)

    rig = play(tmp_path, ALL, scene, SUBSCRIPTION_MARKETS="4", CONNECTION_MARKETS="11")
    assert len(rig.conn_ids) == 3
    assert rig.recorder.counts.gaps == 0


@pytest.mark.parametrize("standby", ["off", "on"])
@pytest.mark.parametrize("limit", [1, 8, 10])
def test_what_a_connection_may_not_carry_goes_to_another_one(
    tmp_path: Path, standby: str, limit: int
) -> None:
    """As many connections as it takes, and the limit found with few refused commands, once for all."""
    copies = 2 if standby == "on" else 1

    async def scene(rig: Rig, running: Exchange) -> None:
        running.market_limit = limit
        await rig.until(lambda: rig.exact(ALL) and all(len(m.replicas) >= copies for m in markets(rig)))
        assert len(running.clients) == copies * -(-30 // limit)
        assert all(len(client.subscriptions) <= 1 for client in running.clients)
        assert set(running.stats.commands_refused) == {"26"}
        assert running.stats.commands_refused["26"] <= 5
        assert running.stats.commands["subscribe"] <= len(running.clients) + 5
        assert rig.fleet.size.room(time.monotonic_ns()) == limit
        await frozen(rig, running, ALL)

    rig = play(tmp_path, ALL, scene, SUBSCRIPTION_MARKETS="12", HOT_STANDBY=standby)
    assert rig.recorder.counts.gaps == 0


def test_markets_come_and_go_while_it_runs(tmp_path: Path) -> None:
    async def scene(rig: Rig, running: Exchange) -> None:
        await rig.until(lambda: len(rig.books.by_ticker) == 10)
        rig.fleet.add(ALL[5:20])
        await rig.until(lambda: len(rig.books.by_ticker) == 20)
        assert len(running.clients) == 2, "what finds no room on the first connection gets one more"
        rig.fleet.remove(ALL[:5])
        await rig.until(
            lambda: (
                not any(
                    ticker in subscription.tickers
                    for client in running.clients
                    for subscription in client.subscriptions.values()
                    for ticker in ALL[:5]
                )
            )
        )
        await frozen(rig, running, ALL[5:20])
        assert all(rig.books.by_ticker[ticker].book.stale for ticker in ALL[:5])

    rig = play(tmp_path, ALL[:10], scene, CONNECTION_MARKETS="15")
    assert rig.recorder.counts.gaps == 0
    assert rig.recorder.counts.foreign < 100, "what was on its way when the markets went"


def test_the_hot_standby_goes_on_where_the_first_connection_ends(tmp_path: Path) -> None:
    async def scene(rig: Rig, running: Exchange) -> None:
        def both_exact() -> bool:
            markets = rig.books.by_ticker.values()
            return len(markets) == 30 and all(
                len(market.replicas) == 2 and not any(replica.book.stale for replica in market.replicas)
                for market in markets
            )

        await rig.until(both_exact)
        assert len(running.clients) == 2
        first = rig.books.by_ticker[ALL[0]].active.link
        for number, client in enumerate(list(running.clients)):
            if rig.recorder.counts.handovers == 0:  # else it was the first that served
                client.close()
                await rig.until(lambda n=number: rig.fleet.connections == 3 + n and both_exact())  # type: ignore[misc]
        assert rig.recorder.counts.handovers == 30
        assert rig.books.by_ticker[ALL[0]].active.link is not first
        await frozen(rig, running, ALL)

    rig = play(tmp_path, ALL, scene, HOT_STANDBY="on")
    assert rig.recorder.counts.gaps == 0
    assert len(rig.conn_ids) >= 2
    assert "30 markets" in next(event.detail for event in rig.health if event.event == "handover")


def test_a_market_that_no_connection_takes_does_not_harm_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused even alone: tried again ever later, on connections that do not stay."""
    refused = ALL[0]
    known = Commands._known

    def too_many(self: Commands, params: wire.Params) -> list[str]:
        if refused in (params.market_tickers or ()):
            raise RefusedError(26)
        return known(self, params)

    monkeypatch.setattr(Commands, "_known", too_many)

    async def scene(rig: Rig, running: Exchange) -> None:
        await rig.until(lambda: rig.exact(ALL[5:6]))
        rig.fleet.add(ALL[:5])
        await rig.until(lambda: rig.exact(ALL[1:6]))
        refusals = running.stats.commands_refused["26"]
        await asyncio.sleep(2.5)
        assert running.stats.commands_refused["26"] <= refusals + 3, "after one second, after two more"
        assert len(rig.fleet.feeds) <= 6, "it looks as if no connection takes more than one"
        await frozen(rig, running, ALL[1:6])

    play(tmp_path, ALL[5:6], scene)


def test_a_later_connection_that_fails_at_first_is_tried_again(tmp_path: Path) -> None:
    async def scene(rig: Rig, running: Exchange) -> None:
        await rig.until(lambda: rig.exact(ALL[:2]))
        running.conditions.refusal = (503, "busy", "not now")
        rig.fleet.add(ALL[2:4])
        await asyncio.sleep(0.5)
        running.conditions.refusal = None
        await rig.until(lambda: rig.exact(ALL[:4]))
        await frozen(rig, running, ALL[:4])

    play(tmp_path, ALL[:2], scene, CONNECTION_MARKETS="2", WS_BACKOFF_MAX_SECS="0.1")


def test_no_connection_at_all_is_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path) as running:
            rig = Rig(tmp_path, running.url.replace("/trade-api", "/elsewhere"), ALL, HOT_STANDBY="on")
            with pytest.raises(ConnectError, match="404"):
                await rig.fleet.run()

    asyncio.run(run())


def test_a_connection_whose_markets_are_all_unknown_does_not_end_the_others(tmp_path: Path) -> None:
    async def scene(rig: Rig, running: Exchange) -> None:
        await rig.until(lambda: len(rig.books.by_ticker) == 5 and len(rig.fleet.feeds) == 1)
        assert rig.fleet.unknown_tickers == [f"NOPE-{n}" for n in range(5)]
        await frozen(rig, running, ALL[:5])

    tickers = [*ALL[:5], *(f"NOPE-{n}" for n in range(5))]
    play(tmp_path, tickers, scene, CONNECTION_MARKETS="5", refuse_unknown=True)


def test_only_unknown_markets_are_an_error(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, refuse_unknown=True) as running:
            rig = Rig(tmp_path, running.url, ["NOPE-1", "NOPE-2"], CONNECTION_MARKETS="1")
            with pytest.raises(SubscriptionError, match="NOPE"):
                async with asyncio.timeout(10):
                    await rig.fleet.run()

    asyncio.run(run())


def test_a_market_that_found_no_room_and_then_is_unknown_is_given_up(tmp_path: Path) -> None:
    """It may overflow first and turn out to be unknown on the connection that was made for it."""

    async def scene(rig: Rig, running: Exchange) -> None:
        running.market_limit = 4
        await rig.until(lambda: rig.exact(ALL[:4]) and rig.fleet.unknown_tickers == ["NOPE"])
        await rig.until(lambda: len(rig.fleet.feeds) == 1)
        connections = rig.fleet.connections
        await asyncio.sleep(2.5)
        assert rig.fleet.connections == connections
        await frozen(rig, running, ALL[:4])

    play(tmp_path, [*ALL[:4], "NOPE"], scene, SUBSCRIPTION_MARKETS="4", refuse_unknown=True)


def test_markets_beyond_the_last_connection_wait_for_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet_module, "MAX_CONNECTIONS", 2)

    async def scene(rig: Rig, running: Exchange) -> None:
        await rig.until(lambda: rig.exact(ALL[:2]))
        rig.fleet.add(ALL[2:6])
        rig.fleet.add(ALL[6:7])
        assert rig.fleet.tickers == set(ALL[:4])
        assert rig.fleet.wanted == 7, "they are not forgotten"
        await rig.until(lambda: rig.exact(ALL[:4]))
        rig.fleet.remove([*ALL[:2], *ALL[5:7]])
        await rig.until(lambda: rig.exact(ALL[2:5]))
        assert rig.fleet.tickers == set(ALL[2:5])
        assert rig.fleet.wanted == 3
        await rig.until(lambda: not rig.fleet._homeless)  # they have found a place
        await frozen(rig, running, ALL[2:5])

    play(tmp_path, ALL[:2], scene, CONNECTION_MARKETS="2")
    assert caplog.text.count("more than 2 connections") == 1
