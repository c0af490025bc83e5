"""A peer that breaks RFC 6455: the bytes come from a bare socket, and the connection fails with a close frame
that says why. Nothing that comes after is used."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import picows
import pytest
import uvloop

from kalshi_fast._listener import FrameListener
from kalshi_fast._path import DeltaPath
from kalshi_fast.receiver import MAX_FRAME_BYTES, MAX_PARTS, Receiver

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
FIN = 0x80
PROTOCOL_ERROR, TOO_BIG = 1002, 1009


def frame(kind: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> bytes:
    first = (FIN if fin else 0) | rsv << 4 | kind
    if len(payload) < 126:
        return bytes([first, len(payload)]) + payload
    if len(payload) < 65_536:
        return struct.pack(">BBH", first, 126, len(payload)) + payload
    return struct.pack(">BBQ", first, 127, len(payload)) + payload


class FakeLink:
    """Keeps the messages."""

    def __init__(self) -> None:
        self.session = SimpleNamespace(outbox=[])
        self.watched = False
        self.messages: list[bytes] = []
        self.reasons: list[str] = []

    def on_connected(self, conn_id: int, now_ns: int) -> None:
        self.session.outbox.append(b"go")

    def on_frame(self, payload: bytes, read_ns: int) -> None:
        self.messages.append(payload)

    def on_disconnected(self, now_ns: int, reason: str) -> None:
        self.reasons.append(reason)


class Peer:
    """Upgrades by hand, sends these bytes, and keeps the frames that come back."""

    def __init__(self, reads: list[bytes]) -> None:
        self.reads = reads
        self.frames: list[tuple[int, bytes]] = []
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        lines = (line.partition(b":") for line in request.split(b"\r\n"))
        key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
        accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        writer.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        await self._next(reader)  # go
        told = asyncio.ensure_future(self._listen(reader))
        with suppress(ConnectionError):  # the connection may have failed before all is sent
            for content in self.reads:
                writer.write(content)
                await writer.drain()
                await asyncio.sleep(0.01)
        await asyncio.wait_for(told, 10)
        writer.close()
        self.done.set()

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                self.frames.append(await self._next(reader))

    @staticmethod
    async def _next(reader: asyncio.StreamReader) -> tuple[int, bytes]:
        first, second = await reader.readexactly(2)
        assert second & 0x80
        assert second & 0x7F < 126
        mask = await reader.readexactly(4)
        payload = await reader.readexactly(second & 0x7F)
        return first & 0xF, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def played(*reads: bytes) -> tuple[FakeLink, list[tuple[int, bytes]]]:
    """What the link saw, and what the peer got, when the connection is over."""
    link, peer = FakeLink(), Peer(list(reads))

    async def run() -> None:
        server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        pool: Any = SimpleNamespace(pressed=False)
        rest: Any = link
        client, _ = await picows.ws_connect(
            lambda: FrameListener(DeltaPath({}), Receiver(rest, pool)),
            f"ws://127.0.0.1:{port}/",
            enable_auto_pong=False,
            max_frame_size=MAX_FRAME_BYTES,
            disconnect_on_exception=True,
        )
        with suppress(picows.WSProtocolError):  # what picows finds itself it raises here too
            await asyncio.wait_for(client.wait_disconnected(), 20)
        await asyncio.wait_for(peer.done.wait(), 20)
        server.close()
        await server.wait_closed()

    uvloop.run(run())
    return link, peer.frames


ONE = frame(TEXT, b"one")
AFTER = frame(TEXT, b"after") + frame(PING, b"?")


@pytest.mark.parametrize(
    ("wrong", "code", "reason"),
    [
        (frame(TEXT, b"x", rsv=4), PROTOCOL_ERROR, "reserved bit"),
        (frame(TEXT, b"x", rsv=2), PROTOCOL_ERROR, "reserved bit"),
        (frame(BINARY, b"x", rsv=1), PROTOCOL_ERROR, "reserved bit"),
        (frame(PING, b"x", rsv=4), PROTOCOL_ERROR, "reserved bit"),
        (frame(PONG, b"x", rsv=1), PROTOCOL_ERROR, "reserved bit"),
        (frame(CONTINUATION, b"x"), PROTOCOL_ERROR, "a continuation of no message"),
        (frame(CONTINUATION, b"x", fin=False), PROTOCOL_ERROR, "a continuation of no message"),
        (frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"), PROTOCOL_ERROR, "a new message begins"),
        (frame(TEXT, b"", fin=False) + frame(TEXT, b"b", fin=False), PROTOCOL_ERROR, "a new message begins"),
        (frame(TEXT, b"a", fin=False) + frame(BINARY, b"b"), PROTOCOL_ERROR, "a new message begins"),
        (frame(CONTINUATION, b"x", rsv=4), PROTOCOL_ERROR, "reserved bit"),
        (frame(TEXT, fin=False) + MAX_PARTS * frame(CONTINUATION, fin=False), TOO_BIG, "4096 parts"),
        # What picows finds itself.
        (frame(PING, b"x", fin=False), PROTOCOL_ERROR, "fragmented control frame"),
        (frame(PING, b"x" * 126), PROTOCOL_ERROR, "control frame with payload size > 125"),
        (frame(3, b"x"), PROTOCOL_ERROR, "invalid opcode"),
        (b"\x81\x81\0\0\0\0x", PROTOCOL_ERROR, "masked frame"),
        (b"\x81\x7e\x00\x01x", PROTOCOL_ERROR, "invalid 16-bit payload len"),
        (frame(CLOSE, b"\x03"), PROTOCOL_ERROR, "invalid close code"),
    ],
    ids=str,
)
@pytest.mark.parametrize("apart", [False, True])
def test_what_breaks_the_protocol_fails_the_connection(
    wrong: bytes, code: int, reason: str, apart: bool
) -> None:
    link, sent = played(*((ONE, wrong, AFTER) if apart else (ONE + wrong + AFTER,)))
    if reason != "invalid close code":
        assert link.messages == [b"one"]
    else:  # picows answers it and reads on until the connection has ended: what comes apart may be seen
        assert link.messages[:1] == [b"one"]
    assert len(sent) == 1, sent
    kind, payload = sent[0]
    assert kind == CLOSE
    assert int.from_bytes(payload[:2]) == code
    assert reason in payload[2:].decode()
    (said,) = link.reasons
    assert said.startswith("what the exchange sent is no WebSocket: ")
    assert reason in said


def test_a_message_that_is_too_big_in_its_parts_fails_the_connection() -> None:
    part = b"x" * (MAX_FRAME_BYTES // 4)
    link, sent = played(
        ONE + frame(TEXT, part, fin=False),
        *[frame(CONTINUATION, part, fin=False)] * 3,
        frame(CONTINUATION, b"x"),
    )
    assert link.messages == [b"one"]
    assert [(kind, int.from_bytes(payload[:2])) for kind, payload in sent] == [(CLOSE, TOO_BIG)]


def test_parts_with_control_frames_between_them_are_one_message() -> None:
    over = frame(CLOSE, (1000).to_bytes(2))
    link, sent = played(
        frame(TEXT, b"a", fin=False)
        + frame(PING, b"1")
        + frame(CONTINUATION, b"", fin=False)
        + frame(PONG, b"")
        + frame(CONTINUATION, b"b")
        + ONE
        + frame(TEXT, b"", fin=False),
        (MAX_PARTS - 2) * frame(CONTINUATION, b"", fin=False)
        + frame(CONTINUATION, b"c")
        + frame(BINARY, b"d"),
        frame(TEXT, b"\xff is no UTF-8") + over + AFTER,
    )
    assert link.messages == [b"ab", b"one", b"c", b"d", b"\xff is no UTF-8"]
    assert [kind for kind, _ in sent] == [PONG, CLOSE]
    assert link.reasons == ["the exchange closed the connection (1000, b'')"]
