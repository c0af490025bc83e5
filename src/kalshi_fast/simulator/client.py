"""One connection of the exchange: its commands, its subscriptions, and the frames that go out on it.

Here frames get their numbers. Which changes there are is the affair of ``exchange``; what can be wrong with
the connection is that of ``link``, and costs nothing while nothing is wrong.
"""

from __future__ import annotations

import random
import socket
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import picows

from kalshi_fast import wire
from kalshi_fast.errors import FrameError
from kalshi_fast.simulator.frames import snapshot_body
from kalshi_fast.simulator.link import TEXT, Link
from kalshi_fast.simulator.source import SNAPSHOT, Change

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.simulator.exchange import Exchange

BOOKS: Final = "orderbook_delta"
LIFECYCLE: Final = "market_lifecycle_v2"
CHANNELS: Final = (BOOKS, LIFECYCLE)
# The first half of a frame that never gets its second: 100 bytes of text are announced.
_HALF_FRAME: Final = b'\x81\x64{"type":"orderbook_delta","sid":1,"seq":4'


@dataclass(slots=True, eq=False)
class Subscription:
    sid: int
    channel: str = BOOKS
    tickers: set[str] = field(default_factory=set)
    seq: int = 0
    silent_acks: bool = False
    yes_scale: bool = False

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    @property
    def keys(self) -> set[str]:
        """Under which names the exchange carries it."""
        return self.tickers if self.channel == BOOKS else {self.channel}


class _RefusedError(Exception):
    """A command that gets an error reply."""

    def __init__(self, code: int, *, tickers: list[str] | None = None) -> None:
        super().__init__(code)
        self.body = error_body(code, tickers)


def error_body(code: int, tickers: list[str] | None = None) -> wire.ErrorBody:
    return wire.ErrorBody(code, wire.ERROR_TEXTS[code].capitalize(), market_tickers=tickers)


class Client(picows.WSListener):
    """``link`` is None as long as frames are simply sent."""

    def __init__(self, exchange: Exchange, number: int) -> None:
        self.number = number
        self.subscriptions: dict[int, Subscription] = {}
        self.link: Link | None = None
        self.transport: picows.WSTransport | None = None
        self._exchange = exchange
        self._kept_link: Link | None = None
        self._last_sid = 0

    # --- the connection ---------------------------------------------------------------------------

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        # Else the last of many small frames would wait for the client's delayed acknowledgement: 40 ms.
        sock = transport.underlying_transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._exchange.welcome(self)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.transport = None
        self._exchange.forget(self)

    def pause_writing(self) -> None:
        self._exchange.paused.add(self)

    def resume_writing(self) -> None:
        self._exchange.paused.discard(self)
        self._exchange.wake.set()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self.hung or self.transport is None:
            return  # read, or the end of the connection would not be seen, but by nobody
        if frame.msg_type == picows.WSMsgType.TEXT:
            self._command(frame.get_payload_as_bytes())
        elif frame.msg_type == picows.WSMsgType.PING:
            payload = frame.get_payload_as_bytes()
            if self.link is not None:
                self.link.pong(payload)
            else:
                transport.send_pong(payload)
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code())
            transport.disconnect()

    @property
    def hung(self) -> bool:
        return self.link is not None and self.link.hung

    def close(self, code: int = picows.WSCloseCode.GOING_AWAY.value) -> None:
        if self.transport is not None:
            self.transport.send_close(picows.WSCloseCode(code))
            self.transport.disconnect()
            self._leave()

    def reset(self) -> None:
        """Half a frame, then a TCP reset."""
        if self.transport is None:
            return
        underlying = self.transport.underlying_transport
        underlying.write(_HALF_FRAME)
        linger_0 = struct.pack("ii", 1, 0)
        underlying.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger_0)
        self.transport.disconnect(graceful=False)
        self._leave()

    def _leave(self) -> None:
        """Nothing more is sent; the exchange need not wait for the end of the socket."""
        self.transport = None
        self._exchange.forget(self)

    def ping(self) -> None:
        if self.transport is not None and not (self.link is not None and self.link.silent):
            self.transport.send_ping(b"heartbeat")

    def send(self, payload: bytes) -> None:
        if self.link is not None:
            self.link.send(payload)
            if self.link.idle:
                self.link = None
        elif self.transport is not None:
            self.transport.send(TEXT, payload)
            self._exchange.stats.frames_sent += 1

    def faulty(self) -> Link:
        """From now on frames go through the link, until nothing is wrong with it any more."""
        if self._kept_link is None:
            rng = random.Random(f"{self._exchange.seed} link {self.number}")  # noqa: S311 - a simulation
            self._kept_link = Link(self._write, self._exchange.dialect, rng)
        self.link = self._kept_link
        return self.link

    def _write(self, kind: picows.WSMsgType, payload: bytes) -> None:
        if self.transport is not None:
            self.transport.send(kind, payload)
            if kind == TEXT:
                self._exchange.stats.frames_sent += 1

    # --- numbered frames --------------------------------------------------------------------------

    def book_frame(
        self, subscription: Subscription, change: Change, *, command_id: int = 0, drop: bool = False
    ) -> None:
        """Sends a change; dropped, it still takes a number. Its body fits the subscription already."""
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
        if self.link is not None and (dialect := self._exchange.dialect).wants_unknown():
            numbered = dialect.is_numbered()
            scope = (subscription.sid, subscription.next_seq()) if numbered else ()
            self.send(dialect.unknown_frame(*scope))

    def snapshots(self, subscription: Subscription, tickers: Iterable[str], command_id: int = 0) -> None:
        source = self._exchange.source
        for ticker in tickers:
            body = snapshot_body(source.books[ticker], source.form, yes_scale=subscription.yes_scale)
            self.book_frame(subscription, Change(ticker, SNAPSHOT, body), command_id=command_id)

    def lifecycle_event(self, subscription: Subscription, body: wire.LifecycleBody) -> None:
        self.send(wire.encode(wire.MarketLifecycle(subscription.sid, body, subscription.next_seq())))

    def terminate(self, subscription: Subscription, code: int) -> None:
        """The subscription ends with an error of its own."""
        error = wire.Error(error_body(code), sid=subscription.sid, seq=subscription.next_seq())
        self._end(subscription)
        self.send(wire.encode(error))

    def _end(self, subscription: Subscription) -> None:
        del self.subscriptions[subscription.sid]
        self._exchange.drop(self, subscription, subscription.keys)

    # --- commands ---------------------------------------------------------------------------------

    def _command(self, payload: bytes) -> None:
        try:
            command = wire.decode_command(payload)
        except FrameError:
            self.send(wire.encode(wire.Error(error_body(1))))
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
        channels = list(dict.fromkeys(params.channels or ()))
        if not channels:
            raise _RefusedError(3)
        if not set(channels) <= set(CHANNELS):
            raise _RefusedError(8)
        tickers = self._known(params) if BOOKS in channels else []
        self._check_market_limit(len(tickers))
        most = self._exchange.max_subscriptions
        if most is not None and len(self.subscriptions) + len(channels) > most:
            raise _RefusedError(1)
        for channel in channels:
            self._last_sid = self._exchange.next_sid(self._last_sid)
            subscription = Subscription(
                self._last_sid,
                channel,
                set(tickers) if channel == BOOKS else set(),
                silent_acks=bool(params.skip_ticker_ack),
                yes_scale=bool(params.use_yes_price),
            )
            self.subscriptions[subscription.sid] = subscription
            self._exchange.carry(self, subscription, subscription.keys)
            self.send(wire.encode(wire.Subscribed(command_id, wire.ChannelSid(channel, subscription.sid))))
            if channel == BOOKS:
                self.snapshots(subscription, tickers)
        self._exchange.subscribed.set()

    def _unsubscribe(self, command_id: int, params: wire.Params) -> None:
        if not params.sids:
            raise _RefusedError(4)
        if not set(params.sids) <= set(self.subscriptions):
            raise _RefusedError(7)
        for sid in dict.fromkeys(params.sids):
            subscription = self.subscriptions[sid]
            self._end(subscription)
            self.send(wire.encode(wire.Unsubscribed(sid, command_id, subscription.next_seq())))

    def _update(self, command_id: int, params: wire.Params) -> None:
        sids = _sids(params)
        if len(sids) != 1:
            raise _RefusedError(12)
        subscription = self.subscriptions.get(sids[0])
        if subscription is None:
            raise _RefusedError(7)
        if self._exchange.conditions.rate_limited:
            raise _RefusedError(27)
        if not params.action:
            raise _RefusedError(15)
        if subscription.channel != BOOKS or params.action not in (
            "add_markets",
            "delete_markets",
            "get_snapshot",
        ):
            raise _RefusedError(13)
        tickers = self._known(params)
        if params.action == "get_snapshot":
            if not set(tickers) <= subscription.tickers:
                raise _RefusedError(
                    11, tickers=[ticker for ticker in tickers if ticker not in subscription.tickers]
                )
            self.snapshots(subscription, tickers, command_id)
            return
        new = [ticker for ticker in tickers if ticker not in subscription.tickers]
        if params.action == "add_markets":
            if new:
                self._check_market_limit(len(subscription.tickers) + len(new))
            subscription.tickers.update(new)
            self._exchange.carry(self, subscription, new)
        else:
            subscription.tickers.difference_update(tickers)
            self._exchange.drop(self, subscription, tickers)
        body = None if subscription.silent_acks else wire.OkBody(sorted(subscription.tickers))
        self.send(wire.encode(wire.Ok(command_id, subscription.sid, subscription.next_seq(), body)))
        if params.action == "add_markets":
            self.snapshots(subscription, new)

    def _list(self, command_id: int, params: wire.Params) -> None:
        found = [wire.ChannelSid(held.channel, held.sid) for held in self.subscriptions.values()]
        self.send(wire.encode(wire.Ok(command_id, msg=found)))

    def _check_market_limit(self, markets: int) -> None:
        limit = self._exchange.conditions.market_limit
        if limit is not None and markets > limit:
            raise _RefusedError(26)

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
