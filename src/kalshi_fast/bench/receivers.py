"""Who receives from a socket: the whole of kalshi-fast, and those who do nothing with what they get.

Each connects, takes the warm part of the play, says "go", and tells what it took from then to its last frame.
Not here: how often, and what comes of it (``sockets``).
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import picows

from kalshi_fast._bench import FloorListener
from kalshi_fast._listener import FrameListener
from kalshi_fast.bench.peers import peer
from kalshi_fast.bench.rig import BATCH_ROWS, Rig
from kalshi_fast.bench.rounds import Sample, Stopwatch
from kalshi_fast.bench.sender import GO
from kalshi_fast.bench.workload import tickers
from kalshi_fast.dial import tls_context
from kalshi_fast.receiver import MAX_FRAME_BYTES, Receiver

if TYPE_CHECKING:
    from kalshi_fast.bench.sender import Play
    from kalshi_fast.bench.sending import Sending

TIMEOUT_S = 60


async def _connected(sending: Sending, play: Play, listener: picows.WSListener) -> picows.WSTransport:
    """As ``feed`` connects."""
    transport, _ = await picows.ws_connect(
        lambda: listener,
        sending.url(play),
        ssl_context=tls_context(sending.ca_file) if sending.ca_file is not None else None,
        enable_auto_ping=True,
        enable_auto_pong=False,
        max_frame_size=MAX_FRAME_BYTES,
        max_redirects=0,
    )
    return transport


async def _over(transport: picows.WSTransport) -> None:
    transport.disconnect(graceful=False)
    await transport.wait_disconnected()


async def floor(sending: Sending, play: Play) -> Sample:
    """picows with a compiled listener that counts."""
    done: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
    watch = Stopwatch()

    def on_warm(transport: picows.WSTransport) -> None:
        nonlocal watch
        watch = Stopwatch()
        transport.send(picows.WSMsgType.TEXT, GO)

    def on_done() -> None:
        done.set_result(watch.stop(play.frames))

    warm = 1 + play.warm
    transport = await _connected(sending, play, FloorListener(warm, warm + play.frames, on_warm, on_done))
    sample = await asyncio.wait_for(done, TIMEOUT_S)
    await _over(transport)
    return sample


async def kalshi_fast(sending: Sending, play: Play) -> Sample:
    """Everything that the capture process does: to sealed columns in shared memory."""
    rig = Rig(tickers())
    done: asyncio.Future[Sample] = asyncio.get_running_loop().create_future()
    session, recorder = rig.session, rig.recorder

    class Counting(Receiver):
        """Looks at the end of a read how far the sequence is: of every one until the clock starts, then of
        those in which a batch was filled."""

        watch: Stopwatch | None = None

        def on_end_of_read(self) -> None:
            super().on_end_of_read()
            subscription = session.subscriptions.get(1)
            if subscription is None:
                return
            if subscription.next_seq > play.warm + play.frames:
                recorder.seal()
                if self.watch is not None and not done.done():
                    done.set_result(self.watch.stop(play.frames))
            elif self.watch is None and subscription.next_seq > play.warm:
                recorder.seal()
                rig.link.path.every_read = play.frames % BATCH_ROWS != 0
                self.watch = Stopwatch()
                assert self._transport is not None  # noqa: S101 - it has just brought us a frame
                self._transport.send(picows.WSMsgType.TEXT, GO)

    rig.link.path.every_read = True
    listener = FrameListener(rig.link.path, Counting(rig.link, rig.pool))
    transport = await _connected(sending, play, listener)
    sample = await asyncio.wait_for(done, TIMEOUT_S)
    rig.check(1 + play.warm + play.frames)
    await _over(transport)
    rig.close()
    return sample


async def websockets(sending: Sending, play: Play) -> Sample:
    """The usual library, doing nothing."""
    connection = await peer("websockets").connect(
        sending.url(play), ssl=sending.context, compression=None, ping_interval=None
    )
    recv = connection.recv
    for _ in range(1 + play.warm):
        await recv(decode=False)
    watch = Stopwatch()
    await connection.send(GO.decode())
    for _ in range(play.frames):
        await recv(decode=False)
    sample = watch.stop(play.frames)
    connection.transport.abort()
    await connection.wait_closed()
    return sample


async def aiohttp(sending: Sending, play: Play) -> Sample:
    """aiohttp's client, doing nothing."""
    async with peer("aiohttp").ClientSession() as session:
        url = sending.url(play).replace("ws", "http", 1)
        connection = await session.ws_connect(url, ssl=sending.context or True, max_msg_size=0)
        receive = connection.receive
        for _ in range(1 + play.warm):
            await receive()
        watch = Stopwatch()
        await connection.send_str(GO.decode())
        for _ in range(play.frames):
            await receive()
        sample = watch.stop(play.frames)
        connection._response.connection.transport.abort()  # noqa: SLF001 - a close would be waited for
    return sample


async def drain(sending: Sending, play: Play) -> Sample:
    """No WebSocket at all: the bytes are read and thrown away. What sender, kernel and TLS can do."""
    with socket.create_connection(("127.0.0.1", sending.port)) as plain:
        if sending.context is None:
            return _drained(plain, play)
        with sending.context.wrap_socket(plain, server_hostname="127.0.0.1") as encrypted:
            return _drained(encrypted, play)


def _drained(sock: socket.socket, play: Play) -> Sample:
    sock.sendall(f"GET {play.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-WebSocket-Key: x\r\n\r\n".encode())
    said, buffer = b"", bytearray(256 * 1024)
    while b"\r\n\r\n" not in said:
        said += buffer[: _read(sock, buffer, len(buffer))]
    head, _, warm = said.partition(b"\r\n\r\n")
    _read_all(sock, buffer, _header(head, b"X-Warm-Bytes: ") - len(warm))
    watch = Stopwatch()
    sock.sendall(b"\x81\x82\0\0\0\0" + GO)  # masked with zeros
    _read_all(sock, buffer, _header(head, b"X-Bytes: "))
    return watch.stop(play.frames)


def _read_all(sock: socket.socket, buffer: bytearray, left: int) -> None:
    while left > 0:
        left -= _read(sock, buffer, min(left, len(buffer)))


def _read(sock: socket.socket, buffer: bytearray, most: int) -> int:
    n = sock.recv_into(buffer, most)
    if not n:
        raise ConnectionResetError("the sender has ended the connection")
    return n


def _header(head: bytes, name: bytes) -> int:
    return int(head.partition(name)[2].partition(b"\r\n")[0])
