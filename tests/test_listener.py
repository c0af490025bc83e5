"""The compiled listener on a real connection: when the time of a read is taken."""

from __future__ import annotations

import asyncio
from typing import Any

import picows
import uvloop

from kalshi_fast._listener import FrameListener
from kalshi_fast._path import DeltaPath

BETWEEN_NS = 5_000_000


class Rest:
    """Keeps when each text was read; one of them is too much for it."""

    def __init__(self) -> None:
        self.outbox: list[bytes] = []
        self.read_ns: dict[bytes, int] = {}

    def on_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        transport.send(picows.WSMsgType.TEXT, b"go")

    def on_text(self, payload: bytes, read_ns: int) -> None:
        self.read_ns[payload] = read_ns
        if payload == b"later":
            self.transport.disconnect()
        if payload == b"boom":
            raise RuntimeError("a fault of ours")

    def on_end_of_read(self) -> None:
        pass

    def on_disconnected(self, transport: picows.WSTransport) -> None:
        pass


class Sender(picows.WSListener):
    """Two frames at once, the second of them bad, and another one a little later."""

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.get_payload_as_bytes() == b"go":
            for payload in (b"first", b"boom"):
                transport.send(picows.WSMsgType.TEXT, payload)
            later = (picows.WSMsgType.TEXT, b"later")
            asyncio.get_running_loop().call_later(2 * BETWEEN_NS / 1e9, lambda: transport.send(*later))


async def played() -> Rest:
    rest: Any = Rest()
    server = await picows.ws_create_server(lambda _: Sender(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client, _ = await picows.ws_connect(
        lambda: FrameListener(DeltaPath({}), rest), f"ws://127.0.0.1:{port}/", disconnect_on_exception=False
    )
    await asyncio.wait_for(client.wait_disconnected(), 10)
    server.close()
    await server.wait_closed()
    return rest  # type: ignore[no-any-return]


def test_after_a_fault_at_the_end_of_a_read_the_next_read_has_its_own_time() -> None:
    rest = uvloop.run(played())
    assert set(rest.read_ns) == {b"first", b"boom", b"later"}
    assert rest.read_ns[b"later"] - rest.read_ns[b"boom"] > BETWEEN_NS
