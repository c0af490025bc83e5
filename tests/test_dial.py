"""Every wait of a dial has its limit, and a stop ends any of them: held against the kernel's own silence (a
listener whose queue is full drops SYNs), servers that accept and say nothing, and a resolver that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
import uvloop

from client import KEY_ID, exchange
from kalshi_fast import dial
from kalshi_fast.auth import Signer
from kalshi_fast.backoff import NS, UNANSWERED_NS, Backoff
from kalshi_fast.errors import ConnectError
from kalshi_fast.simulator.tls import make_key
from test_feed import Rig

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator
    from pathlib import Path

PATH = "/trade-api/ws/v2"


@pytest.fixture
def _forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "_known", {})
    monkeypatch.setattr(dial, "_lookups", {})


@contextlib.contextmanager
def hole(host: str = "127.0.0.1") -> Iterator[int]:
    """The port of a listener that lets nobody in any more: the kernel drops their SYNs."""
    listener = socket.create_server((host, 0), backlog=0)
    fillers = []
    try:
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            fillers.append(filler)
            with contextlib.suppress(BlockingIOError):
                filler.connect(listener.getsockname())
        time.sleep(0.05)
        yield listener.getsockname()[1]
    finally:
        for sock in (*fillers, listener):
            sock.close()


@contextlib.contextmanager
def mute() -> Iterator[int]:
    """The port of a listener that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def hanging_resolver(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    asked = threading.Event()
    go_on = threading.Event()

    def getaddrinfo(*_: object, **__: object) -> list[Any]:
        asked.set()
        go_on.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    try:
        yield asked
    finally:
        go_on.set()


def states(monkeypatch: pytest.MonkeyPatch, state: str, stack: contextlib.ExitStack) -> str:
    if state == "resolving":
        stack.enter_context(hanging_resolver(monkeypatch))
        return f"ws://exchange.invalid:1234{PATH}"
    if state == "TCP":
        return f"ws://127.0.0.1:{stack.enter_context(hole())}{PATH}"
    scheme = "wss" if state == "TLS" else "ws"
    return f"{scheme}://127.0.0.1:{stack.enter_context(mute())}{PATH}"


STATES = {
    "resolving": "the name server does not answer for exchange.invalid within 0.3 s",
    "TCP": "127.0.0.1 does not answer within 0.3 s",
    "TLS": "no TLS with 127.0.0.1",
    "handshake": "127.0.0.1 does not answer",
}


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("state", STATES)
def test_each_wait_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str) -> None:
    limits = dict(zip(STATES, ("RESOLVE_S", "TCP_S", "TLS_S", "HANDSHAKE_S"), strict=True))
    for name in limits.values():
        monkeypatch.setattr(dial, name, 0.3 if name == limits[state] else 60.0)
    make_key(tmp_path / "client.pem")
    signer = Signer.from_file(KEY_ID, tmp_path / "client.pem")

    async def run(url: str) -> ConnectError:
        context = dial.exchange_tls(url, None)
        with pytest.raises(ConnectError) as caught:
            async with asyncio.timeout(10):
                await dial.connect(lambda: pytest.fail("no upgrade"), url, signer, ssl_context=context)
        return caught.value

    with contextlib.ExitStack() as stack:
        error = uvloop.run(run(states(monkeypatch, state, stack)))
    assert f"WS_URL: {STATES[state]}" in str(error)
    if state != "handshake":  # there somebody was who took the connection
        assert error.unanswered


@pytest.mark.usefixtures("_forgotten")
@pytest.mark.parametrize("patient", [True, False])
@pytest.mark.parametrize("state", STATES)
def test_a_stop_ends_every_wait_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, state: str, patient: bool
) -> None:
    for name in ("RESOLVE_S", "TCP_S", "TLS_S", "HANDSHAKE_S"):
        monkeypatch.setattr(dial, name, 60.0)
    make_key(tmp_path / "client.pem")

    async def run(url: str) -> None:
        rig = Rig(tmp_path, url, ssl_context=dial.exchange_tls(url, None), patient=patient)
        task = asyncio.ensure_future(rig.feed.run())
        await asyncio.sleep(0.3)
        assert not task.done()
        rig.feed.stop()
        async with asyncio.timeout(5):
            await task

    with contextlib.ExitStack() as stack:
        url = states(monkeypatch, state, stack)
        started = time.monotonic()
        uvloop.run(run(url))  # the end of the loop waits for no thread either
        assert time.monotonic() - started < 20


@pytest.mark.usefixtures("_forgotten")
def test_the_second_address_is_tried_while_the_first_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = socket.getaddrinfo

    async def run(dead: int) -> None:
        async with exchange(tmp_path, rate=100) as running:

            def both(host: str, port: int, **options: Any) -> list[Any]:  # noqa: ANN401
                if host != "localhost":
                    return real(host, port, **options)
                return [*real("127.0.0.1", dead, **options), *real("127.0.0.1", running.port, **options)]

            monkeypatch.setattr(socket, "getaddrinfo", both)
            rig = Rig(tmp_path, f"wss://localhost:{running.port}{PATH}")
            task = asyncio.ensure_future(rig.feed.run())
            await rig.until_received(3)
            rig.feed.stop()
            await task
            assert rig.feed.connections == 1

    with hole() as dead:
        uvloop.run(run(dead))


@pytest.mark.usefixtures("_forgotten")
def test_the_last_addresses_serve_while_the_name_server_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=100) as running:
            rig = Rig(tmp_path, f"wss://localhost:{running.port}{PATH}")
            task = asyncio.ensure_future(rig.feed.run())
            await rig.until_received(3)
            with hanging_resolver(monkeypatch):
                for client in list(running.clients):
                    client.close()
                before = rig.recorder.counts.frames
                await rig.until_received(before + 3)
            rig.feed.stop()
            await task
            assert rig.feed.connections == 2

    uvloop.run(run())


def test_the_signature_is_as_old_as_the_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dial of many seconds does not make it stale: what the server reads was signed behind the dial."""
    make_key(tmp_path / "client.pem")
    signer = Signer.from_file(KEY_ID, tmp_path / "client.pem")
    slow_s = 0.4

    async def slow_tcp(addresses: Any) -> socket.socket:  # noqa: ANN401
        await asyncio.sleep(slow_s)
        return await tcp(addresses)

    tcp = dial._tcp
    monkeypatch.setattr(dial, "_tcp", slow_tcp)
    read: list[tuple[int, int]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        line = next(line for line in request.split(b"\r\n") if b"TIMESTAMP" in line)
        read.append((int(line.split(b":")[1]), time.time_ns() // 1_000_000))
        writer.write(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        started_ms = time.time_ns() // 1_000_000
        with pytest.raises(ConnectError, match="HTTP 503"):
            await dial.connect(
                lambda: pytest.fail("no upgrade"),
                f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}{PATH}",
                signer,
                ssl_context=None,
            )
        server.close()
        await server.wait_closed()
        assert read[0][0] >= started_ms + 1000 * slow_s - 1

    uvloop.run(run())


def test_where_nobody_answers_the_next_attempt_comes_soon() -> None:
    import random

    rng: random.Random = random.Random(5)
    backoff = Backoff(rng)
    delays = [backoff.next_ns(2 * NS, unanswered=True) for _ in range(200)]
    assert max(delays) <= UNANSWERED_NS
    assert max(delays) > UNANSWERED_NS // 2, "but they are spread"
    assert backoff.failures == 0
    assert backoff.next_ns(0) <= NS // 2, "the exchange's own failures begin anew"
