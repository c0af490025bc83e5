"""Another client of the exchange, not ours, understands the simulator: pykalshi, with its own signing, its
own WebSocket library, its own reading of frames and its own books. A dialect that only we speak fails here.

Its address of the exchange is a constant of its module, which is pointed at the simulator; the simulator's
throw-away authority is trusted by the usual ``SSL_CERT_FILE``. All else is its public interface.
"""

from __future__ import annotations

import asyncio
import json
import logging
import subprocess
import sys
import threading
import time
from decimal import Decimal
from typing import TYPE_CHECKING

import pykalshi.feed
from pykalshi import KalshiClient, OrderbookDeltaMessage, OrderbookManager, OrderbookSnapshotMessage
from pykalshi.feed import ErrorMessage

from client import KEY_ID, exchange
from kalshi_fast.simulator.recorded import RecordedMarkets
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import pytest

    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.source import Change

N_CHANGES = 6000
MARKETS = 6  # two of each price structure


class Ending(SyntheticMarkets):
    """Synthetic markets that end after so many changes."""

    def __init__(self, n_markets: int, seed: int, n_changes: int) -> None:
        super().__init__(n_markets, seed)
        self._left = n_changes

    def step(self, now_ns: int) -> Change | None:  # type: ignore[override]
        self._left -= 1
        return None if self._left < 0 else super().step(now_ns)


class Peer:
    """pykalshi's feed, which runs in a thread of its own, with one of its books for each market."""

    def __init__(self, key_file: Path, key_id: str = KEY_ID) -> None:
        self._client = KalshiClient(api_key_id=key_id, private_key_path=str(key_file))
        self.feed = self._client.feed()
        self.books: dict[str, OrderbookManager] = {}
        self.applied = 0
        self.errors: list[object] = []
        self.times_ms: set[int | None] = set()
        self.feed.on("orderbook_delta", self._on_book)
        self.feed.on("error", self.errors.append)

    def _on_book(self, message: OrderbookSnapshotMessage | OrderbookDeltaMessage) -> None:
        book = self.books.setdefault(message.market_ticker, OrderbookManager(message.market_ticker))
        if isinstance(message, OrderbookSnapshotMessage):
            book.apply_snapshot(message.yes_dollars, message.no_dollars)
        else:
            book.apply_delta(message.side, message.price_dollars, message.delta_fp)
            self.times_ms.add(message.ts_ms if message.ts_ms is not None else message.ts)
        self.applied += 1

    def close(self) -> None:
        self.feed.stop()
        self._client.close()

    def levels(self, *tickers: str) -> dict[str, dict[str, list[tuple[int, int]]]]:
        """Its books, or those of ``tickers``, in the form of the simulator's own."""
        found = {ticker: self.books[ticker] for ticker in tickers or tuple(self.books)}
        return {ticker: {"yes": exact(book.yes), "no": exact(book.no)} for ticker, book in found.items()}


def exact(levels: Mapping[str, str]) -> list[tuple[int, int]]:
    scaled = [(Decimal(price) * 10_000, Decimal(size) * 100) for price, size in levels.items()]
    assert all(value == int(value) for level in scaled for value in level)
    return sorted((int(price), int(size)) for price, size in scaled)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def pointed_at(
    running: Exchange, directory: Path, monkeypatch: pytest.MonkeyPatch, key_id: str = KEY_ID
) -> Peer:
    monkeypatch.setenv("SSL_CERT_FILE", str(directory / "ca.pem"))
    monkeypatch.setattr(pykalshi.feed, "DEFAULT_WS_BASE", running.url)
    return await asyncio.to_thread(Peer, directory / "client.pem", key_id)


async def played(running: Exchange, peer: Peer) -> None:
    """The play has ended and the peer has digested every book frame of it."""
    await running.finished.wait()
    await until(lambda: peer.applied >= running.stats.snapshots_sent + running.stats.deltas_sent)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What it logs when a frame does not fit its models, a handler fails or a connection breaks."""
    return [
        record.getMessage()
        for record in caplog.records
        if record.name.startswith("pykalshi") and record.levelno >= logging.WARNING
    ]


def test_its_books_are_the_exchange_s_at_every_price(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        source = Ending(MARKETS, 11, N_CHANGES)
        async with exchange(tmp_path, source) as running:
            assert running.url.startswith("wss://")
            peer = await pointed_at(running, tmp_path, monkeypatch)
            first, *others = running.books()
            peer.feed.subscribe("orderbook_delta", market_ticker=first)
            peer.feed.subscribe("orderbook_delta", market_tickers=others)
            await asyncio.to_thread(peer.feed.start)
            await played(running, peer)
            assert peer.levels() == running.books()
            assert peer.applied > N_CHANGES / 2
            prices = {p for book in running.books().values() for side in book.values() for p, _ in side}
            sizes = {q for book in running.books().values() for side in book.values() for _, q in side}
            assert any(price % 100 for price in prices), "sub-penny prices"
            assert any(size % 100 for size in sizes), "fractional sizes"
            assert None not in peer.times_ms, "every delta has a time that it can read"
            assert peer.feed.reconnect_count == 0
            await asyncio.to_thread(peer.close)

    asyncio.run(run())
    assert warnings_of(caplog) == []


def test_a_recording_of_2025_in_the_current_form(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with exchange(tmp_path, RecordedMarkets(recordings, "current")) as running:
            peer = await pointed_at(running, tmp_path, monkeypatch)
            peer.feed.subscribe("orderbook_delta", market_tickers=list(running.books()))
            await asyncio.to_thread(peer.feed.start)
            await played(running, peer)
            assert running.stats.deltas_sent == 11_480
            assert peer.levels() == running.books()
            await asyncio.to_thread(peer.close)

    asyncio.run(run())
    assert warnings_of(caplog) == []


def test_errors_and_unsubscribing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        # It ends a market by ending its subscription, as it was when each subscribe had a sid.
        async with exchange(tmp_path, rate=500, refuse_unknown=True, old_sids=True) as running:
            peer = await pointed_at(running, tmp_path, monkeypatch)
            await asyncio.to_thread(peer.feed.start)
            peer.feed.subscribe("orderbook_delta", market_ticker="NOPE-1")
            await until(lambda: len(peer.errors) == 1)
            error = peer.errors[0]
            assert isinstance(error, ErrorMessage)
            assert (error.code, error.msg) == (11, "Invalid parameter")

            first, second, *_ = running.books()
            peer.feed.subscribe("orderbook_delta", market_ticker=first)
            peer.feed.subscribe("orderbook_delta", market_ticker=second)
            await until(lambda: {first, second} <= set(peer.books))
            peer.feed.unsubscribe("orderbook_delta", market_ticker=first)
            # The simulator has let go of the market: it is carried by nobody.
            await until(lambda: [len(client.subscriptions) for client in running.clients] == [1])
            await until(lambda: peer.applied == running.stats.snapshots_sent + running.stats.deltas_sent)
            kept, at = peer.levels(first), running.played
            await until(lambda: running.played > at + 100)
            await until(lambda: peer.applied == running.stats.snapshots_sent + running.stats.deltas_sent)
            assert peer.levels(first) == kept
            await asyncio.to_thread(peer.close)
            await until(lambda: not running.clients)

    asyncio.run(run())
    assert warnings_of(caplog) == []


def test_a_key_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with exchange(tmp_path) as running:
            peer = await pointed_at(running, tmp_path, monkeypatch, key_id="someone")
            # A thread that nobody waits for: it waits itself for ten seconds for a connection.
            threading.Thread(target=peer.feed.start, daemon=True).start()
            await until(lambda: running.stats.handshakes_refused >= 2)
            assert not peer.feed.is_connected
            assert running.stats.connections == 0
            await asyncio.to_thread(peer.close)

    asyncio.run(run())
    assert any("InvalidStatus" in warning for warning in warnings_of(caplog))


def test_the_command_is_an_exchange_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`kalshi-fast simulate` as a user starts it; what the books really were stands in its checkpoints."""
    arguments = ("--port", "0", "--markets", "6", "--rate", "2000", "--seconds", "3", "--checkpoints", "0.5")
    with subprocess.Popen(
        [sys.executable, "-m", "kalshi_fast", "simulate", *arguments, "--dir", str(tmp_path), "--quiet"],
        stdout=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None
        url = command.stdout.readline().split()[-1]
        tickers = [f"KXSIM-26DEC31-T{number:04d}" for number in range(6)]
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        monkeypatch.setattr(pykalshi.feed, "DEFAULT_WS_BASE", url)
        peer = Peer(tmp_path / "client.pem", "simulated-key")
        peer.feed.subscribe("orderbook_delta", market_tickers=tickers)
        peer.feed.start()
        said = command.stdout.read()  # until the play is over
    assert command.returncode == 0, said
    expected = 6 + 3 * 2000
    deadline = time.monotonic() + 60
    while peer.applied < expected and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.3)  # what is told twice comes now
    peer.close()
    *_, last = (tmp_path / "checkpoints.jsonl").read_text().splitlines()
    truth = {
        ticker: {side: [tuple(level) for level in levels] for side, levels in sides.items()}
        for ticker, sides in json.loads(last)["books"].items()
    }
    assert set(truth) == set(tickers)
    assert peer.applied == expected
    assert peer.levels() == truth
