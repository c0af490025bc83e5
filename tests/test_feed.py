"""The live connection against a real exchange simulator: real sockets, TLS and signatures."""

from __future__ import annotations

import asyncio
import base64
import email.utils
import hashlib
import logging
import random
import socket
import ssl
import struct
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

import links
from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.backoff import Backoff, Scale
from kalshi_fast.books import Books
from kalshi_fast.dial import tls_context
from kalshi_fast.errors import ConnectError, RefusedError, SubscriptionError
from kalshi_fast.feed import Feed
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.receiver import new_conn_id
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import Session
from kalshi_fast.simulator.tls import make_key, make_tls

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kalshi_fast.batch import Batch

TICKERS = [f"KXSIM-26DEC31-T{n:04d}" for n in range(3)]


class Rig:
    """A feed and what it leads to; ``keep`` holds the batches back as a slow store would."""

    def __init__(self, directory: Path, url: str, tickers: list[str] = TICKERS, **options: Any) -> None:  # noqa: ANN401
        self.held: list[Batch] = []
        self.keep = False
        self.health: list[Any] = []
        self.rows: list[tuple[int, int, int]] = []  # conn_id, seq, ingest_ns
        self.pool = LocalPool(100, options.pop("max_batches", 50))
        self.books = Books()
        self.recorder = Recorder(self.books, self.pool, self.store, seal_rows=100)
        rng = random.Random(1)
        self.session = Session(tickers, clock=time.monotonic_ns, rng=rng)
        options.setdefault(
            "backoff", Backoff(rng, Scale(10_000_000, 10_000_000), Scale(10_000_000, 10_000_000))
        )
        if "ssl_context" not in options:
            options["ssl_context"] = tls_context(directory / "ca.pem")
        signer = Signer.from_file(options.pop("key_id", KEY_ID), directory / "client.pem")
        self.feed = Feed(url, signer, Link(self.recorder, self.session), self.pool, **options)

    def store(self, batch: Batch) -> None:
        self.rows += links.rows(batch.events, "conn_id", "seq", "ingest_ns")
        self.health += batch.health
        if self.keep:
            self.held.append(batch)
        else:
            self.pool.release(batch)

    async def until_received(self, frames: int) -> None:
        async with asyncio.timeout(10):
            while self.recorder.counts.frames < frames:
                await asyncio.sleep(0.005)


def test_every_frame_arrives_and_the_books_are_the_exchange_s(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=5000, seconds=0.5, heartbeat_s=0.02) as running:
            rig = Rig(tmp_path, running.url)
            task = asyncio.ensure_future(rig.feed.run())
            await running.finished.wait()
            await rig.until_received(running.stats.frames_sent)
            for ticker, sides in running.books().items():
                book = rig.books.by_ticker[ticker].book
                for side, name in enumerate(("yes", "no")):
                    ladder = list(zip(*(array.tolist() for array in book.ladder(side)), strict=True))
                    assert ladder == sides[name][::-1]
                assert not book.stale
            rig.feed.stop()
            await task
            rig.recorder.seal()
            times = [row[2] for row in rig.rows]
            assert times == sorted(times)
            assert len(set(times)) > 20, "a receive time for every read, heartbeats or not"
            assert rig.recorder.counts.rejected == 0
            assert all(market.book.stale for market in rig.books.by_ticker.values())

    asyncio.run(run())


def test_connects_again_with_a_fresh_session_after_a_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=1000) as running:
            rig = Rig(tmp_path, running.url)
            task = asyncio.ensure_future(rig.feed.run())
            await rig.until_received(50)
            for client in list(running.clients):
                client.close()
            before = rig.recorder.counts.frames
            await rig.until_received(before + 50)
            assert rig.feed.connections == 2
            assert not any(market.book.stale for market in rig.books.by_ticker.values())
            rig.feed.stop()
            await task
            rig.recorder.seal()
            assert len({row[0] for row in rig.rows}) == 2
            assert rig.recorder.counts.gap_events == 6, "every book was unknown at the loss and at the end"
            assert rig.recorder.counts.gaps == 0

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert "connecting again" in caplog.text


def test_a_slow_store_pauses_reading_and_nothing_is_lost(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, seconds=1.2) as running:
            rig = Rig(tmp_path, running.url, max_batches=20)
            rig.keep = True
            task = asyncio.ensure_future(rig.feed.run())
            async with asyncio.timeout(10):
                while not rig.pool.pressed:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)  # a read that had begun
            held = rig.recorder.counts.frames
            await asyncio.sleep(0.3)
            assert rig.recorder.counts.frames == held, "reading pauses"
            assert rig.pool.made <= 20 + 40, "what one read had in it, and no more"
            rig.keep = False
            for batch in rig.held:
                rig.pool.release(batch)
            await running.finished.wait()
            await rig.until_received(running.stats.frames_sent)
            assert rig.recorder.counts.frames > held
            assert rig.recorder.counts.gaps == 0
            rig.feed.stop()
            await task

    asyncio.run(run())


def against(tmp_path: Path, **options: Any) -> BaseException:  # noqa: ANN401
    async def run() -> BaseException:
        async with exchange(tmp_path, refuse_unknown=True) as running:
            url = options.pop("url", running.url)
            rig = Rig(tmp_path, url.format(port=running.port), **options)
            with pytest.raises((ConnectError, SubscriptionError)) as caught:
                async with asyncio.timeout(20):
                    await rig.feed.run()
            return caught.value

    return asyncio.run(run())


def test_wrong_key_is_told_apart(tmp_path: Path) -> None:
    error = against(tmp_path, key_id="somebody")
    assert isinstance(error, RefusedError)
    assert error.exit_code == 2, "it stays wrong"
    assert "PROD_KEYID" in str(error)
    assert "HTTP 401" in str(error)
    assert "unknown_key" in str(error)


def test_certificate_of_a_stranger_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    make_tls(tmp_path / "other")
    error = against(tmp_path, ssl_context=tls_context(tmp_path / "other" / "ca.pem"))
    assert "certificate of 127.0.0.1 is not valid" in str(error)


def test_certificate_of_another_name_is_refused_and_the_hostname_is_what_counts(tmp_path: Path) -> None:
    error = against(tmp_path, hostname="kalshi.example")
    assert "certificate" in str(error)

    async def run() -> None:
        async with exchange(tmp_path, rate=100) as running:
            rig = Rig(tmp_path, running.url, hostname="localhost")
            task = asyncio.ensure_future(rig.feed.run())
            await rig.until_received(3)
            rig.feed.stop()
            await task

    asyncio.run(run())


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("wss://127.0.0.1:9/trade-api/ws/v2", "127.0.0.1 cannot be reached"),
        ("wss://no-such-host.invalid/trade-api/ws/v2", "cannot be resolved"),
        ("wss://127.0.0.1:{port}/nowhere", "HTTP 404"),
        ("ws://127.0.0.1:{port}/trade-api/ws/v2", "127.0.0.1"),
    ],
)
def test_unreachable_exchange_is_one_sentence(tmp_path: Path, url: str, sentence: str) -> None:
    options: dict[str, Any] = {"ssl_context": None} if url.startswith("ws://") else {}
    error = against(tmp_path, url=url, **options)
    assert isinstance(error, ConnectError)
    assert sentence in str(error)
    assert "WS_URL" in str(error)
    assert error.exit_code == 1, "time may mend it: a service manager has to try again"


def test_unknown_tickers(tmp_path: Path) -> None:
    error = against(tmp_path, tickers=["NOPE-1", "NOPE-2"])
    assert isinstance(error, SubscriptionError)
    assert "NOPE-1, NOPE-2" in str(error)

    async def run() -> None:
        async with exchange(tmp_path, rate=100, refuse_unknown=True) as running:
            rig = Rig(tmp_path, running.url, tickers=["NOPE-1", TICKERS[0]])
            task = asyncio.ensure_future(rig.feed.run())
            await rig.until_received(4)
            assert set(rig.books.by_ticker) == {TICKERS[0]}
            assert rig.session.unknown_tickers == ["NOPE-1"]
            rig.feed.stop()
            await task

    asyncio.run(run())


def test_conn_ids_are_unique_and_in_time_order() -> None:
    ids = [new_conn_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(number < 2**63 for number in ids)
    assert sorted(number >> 20 for number in ids) == [number >> 20 for number in ids]


def test_tls_verifies_by_default() -> None:
    context = tls_context(None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


async def _scripted(
    directory: Path, script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]
) -> Any:  # noqa: ANN401
    """A server that upgrades by hand and then does as the script says with the bare bytes."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        key = next(
            line.split(b":")[1].strip()
            for line in request.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        try:
            await script(reader, writer)
        finally:
            writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b'\x81\x7e\x01\x00{"type":"orderb')  # a frame of 256 bytes, and the end in the middle of it
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _close_1012(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x88\x09" + (1012).to_bytes(2, "big") + b"restart")
    await reader.read()


async def _nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\xff\xff\x00 this is no WebSocket frame")
    await reader.read()


async def _silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.read(1000):
        continue


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (_reset, "without a close frame"),
        (_close_1012, "(1012, b'restart')"),
        (_nonsense, "is no WebSocket: Received frame with invalid opcode=0xf"),
        (_silence, "no answer to a ping"),
    ],
)
def test_ways_to_lose_a_connection_are_told_apart_and_all_lead_to_the_next(
    tmp_path: Path, script: Callable[..., Any], reason: str
) -> None:
    make_key(tmp_path / "client.pem")

    async def run() -> None:
        server = await _scripted(tmp_path, script)
        port = server.sockets[0].getsockname()[1]
        idle_s = 30 if script is _reset else 0.1  # a reset needs no ping to be seen
        rig = Rig(tmp_path, f"ws://127.0.0.1:{port}/trade-api/ws/v2", ssl_context=None, idle_s=idle_s)
        task = asyncio.ensure_future(rig.feed.run())
        async with asyncio.timeout(10):
            while rig.feed.connections < 3:
                await asyncio.sleep(0.01)
        rig.feed.stop()
        await task
        server.close()
        await server.wait_closed()
        rig.recorder.seal()
        reasons = [event.detail for event in rig.health if event.event == "disconnect"]
        assert len(reasons) >= 2
        assert all(reason in said for said in reasons[:2]), reasons

    uvloop.run(run())  # as in production: its transports differ from asyncio's


@pytest.mark.parametrize(
    ("status", "lasting"), [(401, True), (403, True), (404, True), (429, True), (500, False), (503, False)]
)
def test_refusals_that_time_does_not_mend_are_tried_again_slowly(
    tmp_path: Path, status: int, lasting: bool
) -> None:
    make_key(tmp_path / "client.pem")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        date = email.utils.format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)
        head = f"HTTP/1.1 {status} No\r\nDate: {date}\r\nContent-Length: 2\r\n\r\nno"
        writer.write(head.encode())
        writer.close()

    async def run() -> ConnectError:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        rig = Rig(tmp_path, f"ws://127.0.0.1:{port}/trade-api/ws/v2", ssl_context=None)
        with pytest.raises(ConnectError) as caught:
            await rig.feed.run()
        server.close()
        await server.wait_closed()
        return caught.value

    error = asyncio.run(run())
    assert error.lasting is lasting
    assert error.exit_code == 1, "the clock may be set, the exchange may come back"
    assert f"HTTP {status} (no)" in str(error)
    if status == 401:
        assert "s behind the exchange's" in str(error), "the clock is what is wrong"


def test_a_patient_feed_is_silent_about_its_first_connection_when_all_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It would say that it connects again, while the other one ends the program for the same reason."""

    async def run() -> None:
        make_key(tmp_path / "client.pem")
        rigs = [
            Rig(tmp_path, "ws://127.0.0.1:9/trade-api/ws/v2", ssl_context=None, patient=patient)
            for patient in (True, False)
        ]
        patient = asyncio.ensure_future(rigs[0].feed.run())
        with pytest.raises(ConnectError, match="cannot be reached"):
            await rigs[1].feed.run()
        await asyncio.sleep(0.1)  # it has failed too
        rigs[0].feed.stop()
        await patient

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
    assert caplog.text == ""
