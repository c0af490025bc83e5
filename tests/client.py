"""A plain client of the simulator: sends commands, keeps every text frame, rebuilds books with dicts."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import picows

from kalshi_fast.auth import Signer
from kalshi_fast.simulator.exchange import Exchange
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.tls import make_key, make_tls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from kalshi_fast.simulator.source import Source

KEY_ID = "test-key"


@asynccontextmanager
async def exchange(
    directory: Path,
    /,
    source: Source | None = None,
    *,
    tls: bool = True,
    key_kind: str = "rsa",
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Exchange]:
    """A running simulator; its client key is ``directory/client.pem``, its authority ``ca.pem``."""
    public = make_key(directory / "client.pem", key_kind)
    context = make_tls(directory)[0] if tls else None
    running = Exchange(source or SyntheticMarkets(3, 1), {KEY_ID: public}, ssl_context=context, **options)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


class Client(picows.WSListener):
    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.pings: list[bytes] = []
        self.transport: picows.WSTransport | None = None

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            self.frames.append(json.loads(frame.get_payload_as_bytes()))
        elif frame.msg_type == picows.WSMsgType.PING:
            self.pings.append(frame.get_payload_as_bytes())
            transport.send_pong(frame.get_payload_as_bytes())

    def send(self, command: dict[str, Any] | bytes) -> None:
        assert self.transport is not None
        payload = command if isinstance(command, bytes) else json.dumps(command).encode()
        self.transport.send(picows.WSMsgType.TEXT, payload)

    async def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.frames[-3:]
            await asyncio.sleep(0.005)

    async def leave(self) -> None:
        assert self.transport is not None
        self.transport.disconnect()
        await self.transport.wait_disconnected()

    async def reply(self, command: dict[str, Any] | bytes) -> dict[str, Any]:
        """The next frame that is no delta."""
        seen = len(self.frames)
        self.send(command)
        await self.until(lambda: any(f["type"] != "orderbook_delta" for f in self.frames[seen:]))
        return next(f for f in self.frames[seen:] if f["type"] != "orderbook_delta")


async def connect(
    directory: Path, url: str, client: Client | None = None, *, key_id: str = KEY_ID, **headers: str
) -> Client:
    """Signed and verified as the real thing; ``headers`` replace single headers."""
    signer = Signer.from_file(key_id, directory / "client.pem")
    signed = signer.headers(time.time_ns() // 1_000_000)
    client = client or Client()
    transport, _ = await picows.ws_connect(
        lambda: client,
        url,
        enable_auto_pong=False,
        ssl_context=ssl.create_default_context(cafile=directory / "ca.pem") if url[:3] == "wss" else None,
        extra_headers={name: value for name, value in {**signed, **headers}.items() if value},
    )
    client.transport = transport
    return client


def rebuilt(frames: list[dict[str, Any]]) -> dict[str, dict[str, dict[int, int]]]:
    """Books from snapshots and deltas in the current wire form, as simply as can be."""
    books: dict[str, dict[str, dict[int, int]]] = {}
    for frame in frames:
        msg = frame.get("msg", {})
        if frame["type"] == "orderbook_snapshot":
            books[msg["market_ticker"]] = {
                side: {e4(p): e2(q) for p, q in msg.get(f"{side}_dollars_fp", ())} for side in ("yes", "no")
            }
        elif frame["type"] == "orderbook_delta":
            levels = books[msg["market_ticker"]][msg["side"]]
            price = e4(msg["price_dollars"])
            levels[price] = levels.get(price, 0) + e2(msg["delta_fp"])
            assert levels[price] >= 0
            if not levels[price]:
                del levels[price]
    return books


def e4(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * 10_000 + int(fraction.ljust(4, "0"))


def e2(text: str) -> int:
    return int(text.replace(".", ""))
