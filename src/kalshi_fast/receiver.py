"""One connection from its opening to its end, apart from the frames of the fast path (``_listener``).

Joins message parts, answers pings, sends what the session has in its outbox at the end of every read, pauses
reading while the recorder's buffers are pressed, and tells in one sentence why the connection ended. What
frames mean is not known here.

A peer that breaks RFC 6455 fails the connection, as its section 7.1.7 asks: a close frame with a code and a
reason, and nothing that comes after it is used; after a close frame with a wrong code, which picows answers
itself, frames of a later read may be. picows checks opcodes, masks, lengths, close codes, and that
control frames are whole and short; here are reserved bits and the order of the parts of a message. Not done:
the whole connection does not end for a text that is not UTF-8 (section 8.1); that frame is rejected alone,
since a new connection would cost every book and bring nothing back.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final

import picows

from kalshi_fast._clock import receive_ns

if TYPE_CHECKING:
    from kalshi_fast.channels.link import ChannelLink
    from kalshi_fast.link import Link
    from kalshi_fast.pool import Pool

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024  # of a message
MAX_PARTS: Final = 4096  # of a message: empty ones have no bytes that could be counted
RESUME_POLL_S: Final = 0.005
_NEW = (picows.WSMsgType.TEXT, picows.WSMsgType.BINARY)
_BROKEN = (
    picows.WSCloseCode.PROTOCOL_ERROR,
    picows.WSCloseCode.INVALID_TEXT,
    picows.WSCloseCode.MESSAGE_TOO_BIG,
)


def first_conn_id(now_ns: int) -> int:
    """The smallest id of a connection made from this time on."""
    return now_ns // 1_000_000 << 20


def new_conn_id() -> int:
    """Unique for ever, in time order: Unix milliseconds, then 20 random bits."""
    return first_conn_id(time.time_ns()) | secrets.randbits(20)


class Receiver:
    """``Receiver(link, pool)``: what a ``FrameListener`` does not do itself."""

    def __init__(self, link: Link | ChannelLink, pool: Pool) -> None:
        self.closed_here: str | None = None  # why, when it is we who end the connection
        self.reason = "not connected"  # why it has ended
        self.upgraded = False
        self._close_frame: str | None = None
        self._link = link
        self._pool = pool
        self._transport: picows.WSTransport | None = None
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._over = False  # a close frame has come or been sent: what follows it is not looked at
        self._paused = False

    @property
    def outbox(self) -> list[bytes]:
        """What the session wants to say: always the same list."""
        return self._link.session.outbox

    def on_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self.upgraded = True
        self._link.on_connected(new_conn_id(), receive_ns())
        self.flush()

    def on_text(self, payload: bytes, read_ns: int) -> None:
        """A whole message that the fast path has left alone."""
        self._link.on_frame(payload, read_ns)

    def on_full(self) -> None:
        """The fast path has filled a batch."""
        self._link.on_full()

    def on_other(self, transport: picows.WSTransport, frame: picows.WSFrame, read_ns: int) -> bool:
        """Parts of messages, binary messages (which the link then reports), control frames, and frames that
        may not be. True: whatever comes next is for here too."""
        if self._over:
            return True
        kind = frame.msg_type
        if frame.rsv1 or frame.rsv2 or frame.rsv3:
            self._fail(transport, "a reserved bit is set, and no extension was agreed on")
        elif kind in _NEW and self._parts:
            self._fail(transport, "a new message begins before the one before it has ended")
        elif kind == picows.WSMsgType.CONTINUATION and not self._parts:
            self._fail(transport, "a continuation of no message")
        elif kind in _NEW or kind == picows.WSMsgType.CONTINUATION:
            self._on_part(transport, frame, read_ns)
        elif kind == picows.WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind == picows.WSMsgType.CLOSE:
            code: object = frame.get_close_code()
            said = frame.get_close_message()
            self._close_frame = f"the exchange closed the connection ({code:d}, {bytes(said or b'')[:100]!r})"
            self._over = True
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        return self._over or bool(self._parts)

    def _on_part(self, transport: picows.WSTransport, frame: picows.WSFrame, read_ns: int) -> None:
        self._parts.append(frame.get_payload_as_bytes())
        self._parts_bytes += frame.payload_size
        too_big = picows.WSCloseCode.MESSAGE_TOO_BIG
        if self._parts_bytes > MAX_FRAME_BYTES:
            self._fail(transport, f"a message of more than {MAX_FRAME_BYTES} bytes", too_big)
        elif frame.fin:
            whole = b"".join(self._parts)
            self._parts.clear()
            self._parts_bytes = 0
            self._link.on_frame(whole, read_ns)
        elif len(self._parts) >= MAX_PARTS:
            self._fail(transport, f"a message of more than {MAX_PARTS} parts", too_big)

    def _fail(
        self,
        transport: picows.WSTransport,
        what: str,
        code: picows.WSCloseCode = picows.WSCloseCode.PROTOCOL_ERROR,
    ) -> None:
        self._over = True
        self._parts.clear()
        transport.send_close(code, what.encode())
        transport.disconnect()

    def on_end_of_read(self) -> None:
        """Nothing more has come with this read, and a batch has been sealed or there is something to send."""
        if self._link.watched:
            self._link.look()
        self.flush()
        if self._pool.pressed and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.underlying_transport.pause_reading()
            self._resume_when_relieved(self._transport)

    def on_disconnected(self, transport: picows.WSTransport) -> None:
        if self.closed_here is not None:
            self.reason = self.closed_here
        elif self._close_frame is not None:
            self.reason = self._close_frame
        elif (broken := _broken(transport)) is not None:
            self.reason = f"what the exchange sent is no WebSocket: {broken}"
        elif transport.is_close_frame_sent:
            self.reason = "the link was dead: no answer to a ping, or what came was no WebSocket frame"
        else:
            self.reason = "the connection was lost without a close frame"
        if self.upgraded:
            self._link.on_disconnected(receive_ns(), self.reason)
        self._transport = None

    def flush(self) -> None:
        """Sends what the session wants to say."""
        outbox = self.outbox
        if outbox and self._transport is not None:
            for command in outbox:
                self._transport.send(picows.WSMsgType.TEXT, command)
            outbox.clear()

    def _resume_when_relieved(self, transport: picows.WSTransport) -> None:
        if transport.is_disconnected:
            return
        if self._pool.pressed:
            asyncio.get_running_loop().call_later(RESUME_POLL_S, self._resume_when_relieved, transport)
        else:
            self._paused = False
            transport.underlying_transport.resume_reading()


def _broken(transport: picows.WSTransport) -> str | None:
    """How the peer has broken the protocol, by the close frame that it got for it, from here or picows."""
    handshake = transport.close_handshake
    sent = None if handshake is None else handshake.sent
    return sent.reason if sent is not None and sent.code in _BROKEN and sent.reason else None
