"""One connection of the exchange: its subscriptions, and the frames that go out on it with their numbers.

Which changes there are is the affair of ``exchange``, what a command does that of ``commands``; what can be
wrong with the connection that of ``link``, and it costs nothing while nothing is wrong.
"""

from __future__ import annotations

import random
import socket
import struct
from typing import TYPE_CHECKING, Any, Final

import msgspec
import picows

from kalshi_fast.simulator import replies
from kalshi_fast.simulator.commands import Commands
from kalshi_fast.simulator.frames import nobodys_body, snapshot_body
from kalshi_fast.simulator.link import TEXT, Link
from kalshi_fast.simulator.source import SNAPSHOT, Change
from kalshi_fast.simulator.subscription import Subscription, error_body

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.simulator.announcements import Announcement
    from kalshi_fast.simulator.exchange import Exchange

# The first half of a frame that never gets its second: 100 bytes of text are announced.
_HALF_FRAME: Final = b'\x81\x64{"type":"orderbook_delta","sid":1,"seq":4'


class Client(picows.WSListener):
    """``link`` is None as long as frames are simply sent."""

    def __init__(self, exchange: Exchange, number: int) -> None:
        self.number = number
        self.subscriptions: dict[int, Subscription] = {}
        self.link: Link | None = None
        self.transport: picows.WSTransport | None = None
        self._exchange = exchange
        self._kept_link: Link | None = None
        playback = exchange.playback
        self._commands = Commands(self, exchange) if playback is None else playback.commands(self)

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
            self._commands.obey(frame.get_payload_as_bytes())
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
            self.transport.send(TEXT, payload + self._exchange.frame_end)
            self._exchange.stats.frames_sent += 1

    def faulty(self) -> Link:
        """From now on frames go through the link, until nothing is wrong with it any more."""
        if self._kept_link is None:
            rng = random.Random(f"{self._exchange.seed} link {self.number}")  # noqa: S311 - a simulation
            self._kept_link = Link(self._write, self._exchange.dialect, rng)
        self.link = self._kept_link
        return self.link

    def _write(self, kind: picows.WSMsgType, payload: bytes) -> None:
        if self.transport is None:
            return
        if kind == TEXT:
            payload += self._exchange.frame_end
            self._exchange.stats.frames_sent += 1
        self.transport.send(kind, payload)

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
            book = source.books.get(ticker)
            if book is None:
                body = nobodys_body(ticker)
            else:
                body = snapshot_body(book, source.form, yes_scale=subscription.yes_scale)
            self.book_frame(subscription, Change(ticker, SNAPSHOT, body), command_id=command_id)

    def announcement(self, subscription: Subscription, said: Announcement) -> None:
        self.message(said.type, subscription, said.body, numbered=True)
        stats = self._exchange.stats
        stats.announcements_sent += 1
        stats.announcements[said.kind] = stats.announcements.get(said.kind, 0) + 1

    def message(self, kind: str, subscription: Subscription, body: dict[str, Any], *, numbered: bool) -> None:
        """A frame of a channel beside the books, its keys in the order of the exchange's."""
        number = {"seq": subscription.next_seq()} if numbered else {}
        self.send(msgspec.json.encode({"type": kind, "sid": subscription.sid, **number, "msg": body}))

    def fill(self, subscription: Subscription, body: dict[str, Any]) -> None:
        """Of the private channel, which has no numbers."""
        self.message("fill", subscription, body, numbered=False)
        self._exchange.stats.fills_sent += 1

    def terminate(self, subscription: Subscription, code: int) -> None:
        """The subscription ends with an error of its own."""
        error = replies.error(error_body(code), subscription=subscription)
        self.end(subscription)
        self.send(error)

    def end(self, subscription: Subscription) -> None:
        del self.subscriptions[subscription.sid]
        self._exchange.drop(self, subscription, subscription.keys)
