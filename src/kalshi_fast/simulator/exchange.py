"""The server: upgrades, commands, subscriptions with their sequences, and the pace of the play.

One ``Client`` per connection answers commands and numbers its frames; the ``Exchange`` takes one change
after the other from its source and gives it to every subscription that carries the market. A slow client
is waited for: while its socket is full nothing new is played. Faults are not simulated here.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import picows

from kalshi_fast import wire
from kalshi_fast.errors import FrameError, SimulatorError
from kalshi_fast.simulator.frames import snapshot_body
from kalshi_fast.simulator.handshake import PATH, refusal
from kalshi_fast.simulator.source import SNAPSHOT, Change, Source

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric import rsa

CHANNEL: Final = "orderbook_delta"
PACE_S: Final = 0.002
MAX_BURST: Final = 1000  # frames between two looks at the event loop


@dataclass(slots=True)
class Stats:
    frames_sent: int = 0
    deltas_sent: int = 0
    snapshots_sent: int = 0
    connections: int = 0
    handshakes_refused: int = 0


@dataclass(slots=True)
class _Subscription:
    sid: int
    tickers: set[str] = field(default_factory=set)
    seq: int = 0
    silent_acks: bool = False

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq


class _RefusedError(Exception):
    """A command that gets an error reply."""

    def __init__(self, code: int, *, tickers: list[str] | None = None) -> None:
        super().__init__(code)
        self.body = wire.ErrorBody(code, wire.ERROR_TEXTS[code].capitalize(), market_tickers=tickers)


class Client(picows.WSListener):
    """One connection: its subscriptions, and the frames that go out on it."""

    def __init__(self, exchange: Exchange) -> None:
        self.subscriptions: dict[int, _Subscription] = {}
        self.paused = False
        self._exchange = exchange
        self._transport: picows.WSTransport | None = None
        self._next_sid = 1

    # --- the connection ---------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self._exchange.clients.add(self)
        self._exchange.stats.connections += 1

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._transport = None
        self._exchange.forget(self)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._exchange.wake.set()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            self._command(frame.get_payload_as_bytes())
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.send_close(picows.WSCloseCode.GOING_AWAY)
            self._transport.disconnect()

    def ping(self) -> None:
        if self._transport is not None:
            self._transport.send_ping(b"heartbeat")

    def send(self, payload: bytes) -> None:
        if self._transport is not None:
            self._transport.send(picows.WSMsgType.TEXT, payload)
            self._exchange.stats.frames_sent += 1

    # --- book frames ------------------------------------------------------------------------------

    def play(self, change: Change, *, drop: bool) -> None:
        """Sends a change on each subscription that carries its market; dropped, it still takes a seq."""
        for subscription in self._exchange.carriers(self, change.ticker):
            self._book_frame(subscription, change, drop=drop)

    def _book_frame(
        self, subscription: _Subscription, change: Change, *, command_id: int = 0, drop: bool = False
    ) -> None:
        seq = subscription.next_seq()
        if drop:
            return
        reply_to = b'"id":%d,' % command_id if command_id else b""
        self.send(
            b'{"type":"%b",%b"sid":%d,"seq":%d,"msg":%b}'
            % (change.type, reply_to, subscription.sid, seq, change.body)
        )
        if change.type == SNAPSHOT:
            self._exchange.stats.snapshots_sent += 1
        else:
            self._exchange.stats.deltas_sent += 1

    def _snapshots(self, subscription: _Subscription, tickers: list[str], command_id: int = 0) -> None:
        source = self._exchange.source
        for ticker in tickers:
            body = snapshot_body(source.books[ticker], source.form)
            self._book_frame(subscription, Change(ticker, SNAPSHOT, body), command_id=command_id)

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, payload: bytes) -> None:
        try:
            command = wire.decode_command(payload)
        except FrameError:
            self.send(wire.encode(wire.Error(_RefusedError(1).body)))
            return
        handlers = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "update_subscription": self._update,
            "list_subscriptions": self._list,
        }
        try:
            handler = handlers.get(command.cmd)
            if handler is None:
                raise _RefusedError(5)
            if command.params is None and command.cmd != "list_subscriptions":
                raise _RefusedError(2)
            handler(command.id, command.params or wire.Params())
        except _RefusedError as refused:
            self._refuse(command, refused)

    def _refuse(self, command: wire.Command, refused: _RefusedError) -> None:
        """Scoped to the subscription that the command names, if there is one: then it takes a seq."""
        params = command.params or wire.Params()
        sids = _sids(params)
        subscription = self.subscriptions.get(sids[0]) if len(sids) == 1 else None
        error = wire.Error(refused.body, command.id)
        if subscription is not None:
            error.sid, error.seq = subscription.sid, subscription.next_seq()
        self.send(wire.encode(error))

    def _subscribe(self, command_id: int, params: wire.Params) -> None:
        if not params.channels:
            raise _RefusedError(3)
        if set(params.channels) != {CHANNEL}:
            raise _RefusedError(8)
        tickers = self._known(params)
        subscription = _Subscription(self._next_sid, set(tickers), silent_acks=bool(params.skip_ticker_ack))
        self._next_sid += 1
        self.subscriptions[subscription.sid] = subscription
        self._exchange.carry(self, subscription, tickers)
        self.send(wire.encode(wire.Subscribed(command_id, wire.ChannelSid(CHANNEL, subscription.sid))))
        self._snapshots(subscription, tickers)
        self._exchange.subscribed.set()

    def _unsubscribe(self, command_id: int, params: wire.Params) -> None:
        if not params.sids:
            raise _RefusedError(4)
        if not set(params.sids) <= set(self.subscriptions):
            raise _RefusedError(7)
        for sid in dict.fromkeys(params.sids):
            subscription = self.subscriptions.pop(sid)
            self._exchange.drop(self, subscription, list(subscription.tickers))
            self.send(wire.encode(wire.Unsubscribed(sid, command_id, subscription.next_seq())))

    def _update(self, command_id: int, params: wire.Params) -> None:
        sids = _sids(params)
        if len(sids) != 1:
            raise _RefusedError(12)
        subscription = self.subscriptions.get(sids[0])
        if subscription is None:
            raise _RefusedError(7)
        if not params.action:
            raise _RefusedError(15)
        if params.action not in ("add_markets", "delete_markets", "get_snapshot"):
            raise _RefusedError(13)
        tickers = self._known(params)
        if params.action == "get_snapshot":
            if not set(tickers) <= subscription.tickers:
                raise _RefusedError(
                    11, tickers=[ticker for ticker in tickers if ticker not in subscription.tickers]
                )
            self._snapshots(subscription, tickers, command_id)
            return
        new = [ticker for ticker in tickers if ticker not in subscription.tickers]
        if params.action == "add_markets":
            subscription.tickers.update(new)
            self._exchange.carry(self, subscription, new)
        else:
            subscription.tickers.difference_update(tickers)
            self._exchange.drop(self, subscription, tickers)
        body = None if subscription.silent_acks else wire.OkBody(sorted(subscription.tickers))
        self.send(wire.encode(wire.Ok(command_id, subscription.sid, subscription.next_seq(), body)))
        if params.action == "add_markets":
            self._snapshots(subscription, new)

    def _list(self, command_id: int, params: wire.Params) -> None:
        found: list[wire.ChannelSid] = [wire.ChannelSid(CHANNEL, sid) for sid in self.subscriptions]
        self.send(wire.encode(wire.Ok(command_id, msg=found)))

    def _known(self, params: wire.Params) -> list[str]:
        """The markets that a command names, each once; all of them exist."""
        named = [*(params.market_tickers or ()), *filter(None, [params.market_ticker])]
        tickers = list(dict.fromkeys(named))
        if not tickers:
            raise _RefusedError(14)
        unknown = [ticker for ticker in tickers if ticker not in self._exchange.source.books]
        if unknown:
            raise _RefusedError(11, tickers=unknown)
        return tickers


def _sids(params: wire.Params) -> list[int]:
    return [*(params.sids or ()), *([params.sid] if params.sid is not None else ())]


class Exchange:
    """``start``, then clients connect; the play begins with the first subscription and ends by itself.

    ``rate`` is frames per second, 0 as fast as the clients take them; ``seconds`` ends a play that has no
    end; ``drop_every`` leaves out each n-th frame while its number is used up. Raises SimulatorError.
    """

    def __init__(
        self,
        source: Source,
        keys: Mapping[str, rsa.RSAPublicKey],
        *,
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        rate: int = 0,
        seconds: float | None = None,
        heartbeat_s: float = 10.0,
        drop_every: int = 0,
    ) -> None:
        self.source = source
        self.stats = Stats()
        self.clients: set[Client] = set()
        self.subscribed = asyncio.Event()
        self.finished = asyncio.Event()
        self.wake = asyncio.Event()
        self.port = port
        self.played = 0
        self._keys = keys
        self._ssl_context = ssl_context
        self._rate = rate
        self._seconds = seconds
        self._heartbeat_s = heartbeat_s
        self._drop_every = drop_every
        self._carriers: defaultdict[str, list[tuple[Client, _Subscription]]] = defaultdict(list)
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        return f"{'ws' if self._ssl_context is None else 'wss'}://127.0.0.1:{self.port}{PATH}"

    async def start(self) -> None:
        try:
            self._server = await picows.ws_create_server(
                self._upgrade,
                "127.0.0.1",
                self.port,
                ssl=self._ssl_context,
                websocket_handshake_timeout=5,
            )
        except OSError as error:
            raise SimulatorError(
                f"--port: {self.port} cannot be opened: {error.strerror or error}"
            ) from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks = [asyncio.ensure_future(self._play()), asyncio.ensure_future(self._heartbeats())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        for client in list(self.clients):
            client.close()

    def _upgrade(
        self, request: picows.WSUpgradeRequest
    ) -> Client | picows.WSUpgradeResponseWithListener | None:
        if request.path.partition(b"?")[0] != PATH.encode():
            return None
        refused = refusal(request.headers, self._keys, time.time_ns() // 1_000_000)
        if refused is None:
            return Client(self)
        self.stats.handshakes_refused += 1
        body = json.dumps({"error": {"code": refused[0], "message": refused[1]}}).encode()
        response = picows.WSUpgradeResponse.create_error_response(
            401, body, {"Content-Type": "application/json"}
        )
        return picows.WSUpgradeResponseWithListener(response, None)

    # --- who gets what ----------------------------------------------------------------------------

    def carry(self, client: Client, subscription: _Subscription, tickers: list[str]) -> None:
        for ticker in tickers:
            self._carriers[ticker].append((client, subscription))

    def drop(self, client: Client, subscription: _Subscription, tickers: list[str]) -> None:
        for ticker in tickers:
            self._carriers[ticker] = [
                (other, carried)
                for other, carried in self._carriers[ticker]
                if other is not client or carried is not subscription
            ]

    def carriers(self, client: Client, ticker: str) -> list[_Subscription]:
        return [subscription for other, subscription in self._carriers[ticker] if other is client]

    def forget(self, client: Client) -> None:
        self.clients.discard(client)
        for subscription in client.subscriptions.values():
            self.drop(client, subscription, list(subscription.tickers))
        self.wake.set()

    # --- the play ---------------------------------------------------------------------------------

    async def _play(self) -> None:
        await self.subscribed.wait()
        started = time.monotonic()
        while not self.finished.is_set():
            elapsed = time.monotonic() - started
            if self._seconds is not None and elapsed >= self._seconds:
                break
            due = int(self._rate * elapsed) - self.played if self._rate else MAX_BURST
            if not self._burst(min(due, MAX_BURST)):
                break
            if any(client.paused for client in self.clients):
                self.wake.clear()
                await self.wake.wait()
            else:
                await asyncio.sleep(PACE_S if self._rate and due < MAX_BURST else 0)
        self.finished.set()

    def _burst(self, frames: int) -> bool:
        """Plays up to so many changes; False when the source has no more."""
        now_ns = time.time_ns()
        for _ in range(frames):
            if any(client.paused for client in self.clients):
                return True
            change = self.source.step(now_ns)
            if change is None:
                return False
            self.played += 1
            drop = self._drop_every > 0 and self.played % self._drop_every == 0
            for client in self.clients:
                client.play(change, drop=drop)
        return True

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            for client in list(self.clients):
                client.ping()

    def books(self) -> dict[str, dict[str, list[tuple[int, int]]]]:
        """The true books now: ticker → side → [(price_e4, qty_e2), …]."""
        return {ticker: book.as_lists() for ticker, book in self.source.books.items()}
