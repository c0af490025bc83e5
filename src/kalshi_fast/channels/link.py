"""The frames of one connection that carries the channels beside the order book: decode, count, hand on.

It has the shape of ``kalshi_fast.link.Link``, so that the same feed runs it. These connections are others
than those of the books: a burst of trades or tickers must not make a book wait. Frames that cannot be used
are counted and kept aside as there. Not here: subscriptions (``session``), what becomes of a message
(``streams``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kalshi_fast import wire
from kalshi_fast._path import DeltaPath
from kalshi_fast.channels.messages import (
    EventFeeUpdate,
    EventLifecycle,
    MarketLifecycle,
    MultivariateLifecycle,
    TickerUpdate,
    Trade,
)
from kalshi_fast.channels.reference import LISTINGS, VALUES
from kalshi_fast.errors import FieldError, FrameError
from kalshi_fast.losses import channel_of
from kalshi_fast.subscription import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.channels.session import ChannelSession
    from kalshi_fast.channels.streams import Streams

_KEY_SAMPLE_FRAMES = 1024  # one in so many is read again for unknown keys
_LIFE = (MarketLifecycle, EventLifecycle, EventFeeUpdate, MultivariateLifecycle)


class _Body(msgspec.Struct):
    msg: msgspec.Raw


_body = msgspec.json.Decoder(_Body)


class ChannelLink:
    """``ChannelLink(streams, session)``: feeds the frames of successive connections into the streams.

    ``raw``: channels whose frames are kept as they come.
    """

    def __init__(self, streams: Streams, session: ChannelSession, *, raw: Iterable[str] = ()) -> None:
        self.session = session
        self.conn_id = 0
        self.up = False
        self.path = DeltaPath({})  # nothing here is for the fast path, but the listener looks
        self.path.every_read = True
        self._streams = streams
        self._raw = frozenset(raw)
        self._decoded = 0

    @property
    def watched(self) -> bool:
        """A strategy wants to see what a read has brought."""
        return self._streams.recorder.watched

    # --- the connection ---------------------------------------------------------------------------

    def on_connected(self, conn_id: int, now_ns: int) -> None:
        """A new connection is up; what to send waits in the session's outbox."""
        self.conn_id = conn_id
        self.up = True
        self.session.opened()
        detail = f"for the channels {', '.join(self.session.channels)}"
        self._streams.recorder.health(now_ns, self, "connect", detail=detail)

    def on_disconnected(self, now_ns: int, reason: str) -> None:
        """The connection is gone: what comes now is missed here."""
        self.up = False
        self._streams.recorder.health(now_ns, self, "disconnect", detail=reason)
        self.session.closed()
        self._streams.follow(self, now_ns)

    def on_tick(self, now_ns: int) -> None:
        """To be called now and then: what waits for its time in the session may be due."""
        self.session.tick()
        self._streams.follow(self, now_ns)

    def look(self) -> None:
        """Shows the strategy what this read has brought."""
        self._streams.recorder.look()

    def on_full(self) -> None:
        """The fast path has filled a batch, which cannot be: it is given no books."""

    # --- frames -----------------------------------------------------------------------------------

    def on_frame(self, payload: bytes, ingest_ns: int) -> None:
        """One text frame, and the time it was read from the socket."""
        recorder = self._streams.recorder
        recorder.counters.frames += 1
        self.path.last_frame_ns = ingest_ns
        message = None
        try:
            message = wire.decode(payload, recorder.counters.losses)
            self._take(message, payload, ingest_ns)
        except FieldError as error:
            self._reject(payload, ingest_ns, error, message)
        else:
            recorder.counters.losses.end(wire.type_of(message))
            self._decoded += 1
            if self._decoded % _KEY_SAMPLE_FRAMES == 1:
                recorder.counters.add_unknown_keys(wire.unknown_keys(payload))
        self._streams.follow(self, ingest_ns)
        recorder.seal_when_full()

    feed = on_frame

    def _take(self, message: wire.Message | wire.Unknown, payload: bytes, ingest_ns: int) -> None:
        sid, seq = getattr(message, "sid", None), getattr(message, "seq", None)
        session = self.session
        if sid == 0:  # not readable, but the message says which channel it is of
            sid = session.sid_of(channel_of(wire.type_of(message))) or 0
            message.sid = sid  # type: ignore[union-attr]
        seq = seq or None
        channel = session.channel_of(sid)
        if (
            channel is not None
            and sid is not None
            and seq is not None
            and not self._in_sequence(sid, seq, ingest_ns)
        ):
            return
        if isinstance(message, wire.Subscribed):
            session.on_subscribed(message)
        elif isinstance(message, wire.Ok):
            session.on_ok(message)
        elif isinstance(message, wire.Unsubscribed):
            session.on_unsubscribed(message)
        elif isinstance(message, wire.Error):
            detail = f"error {message.msg.code}: {message.msg.msg}"
            self._streams.recorder.health(ingest_ns, self, "error", sid=sid or 0, seq=seq or 0, detail=detail)
            session.on_error(message)
            self._streams.warn(session.refused, detail)
        elif channel in self._raw:
            self._streams.raw(self, channel, payload, ingest_ns)
        elif isinstance(message, wire.Unknown):
            self._streams.recorder.counters.add_unknown_type(message.type)
        elif channel is None:
            self._streams.recorder.counters.foreign += 1
        elif isinstance(message, Trade):
            self._streams.trade(self, message, ingest_ns)
        elif isinstance(message, TickerUpdate):
            self._streams.ticker(self, message, ingest_ns)
        elif isinstance(message, _LIFE):
            self._streams.announcement(self, channel, message, body_text(payload), ingest_ns)
        elif isinstance(message, VALUES) and message.__struct_config__.tag == channel:
            self._streams.references.value(self, message, ingest_ns)
        elif isinstance(message, LISTINGS):
            self._streams.references.listing(self, channel, message, ingest_ns)
        else:  # a frame of a book, on a subscription that has none
            self._streams.recorder.counters.foreign += 1

    def _in_sequence(self, sid: int, seq: int, ingest_ns: int) -> bool:
        """Counts the frame; False when it must not be used."""
        verdict = self.session.receive(sid, seq)
        counts = self._streams.recorder.counters
        if verdict is Verdict.REPEATED:
            counts.repeated += 1
        elif verdict is Verdict.FOREIGN:
            counts.foreign += 1
        elif verdict is Verdict.GAP:
            counts.gaps += 1
            first, last = self.session.missing
            detail = f"{self.session.channel_of(sid)}: numbers {first} to {last} are missing"
            self._streams.recorder.health(ingest_ns, self, "gap", sid=sid, seq=first, detail=detail)
            self._streams.follow(self, ingest_ns)  # before this frame counts as the last that came
        return verdict in (Verdict.IN_ORDER, Verdict.GAP)

    def _reject(
        self, payload: bytes, ingest_ns: int, error: FieldError, message: wire.Message | wire.Unknown | None
    ) -> None:
        """Keeps the frame aside; what it said is missed."""
        frame_error = (
            error if isinstance(error, FrameError) else FrameError(error.field, error.value, error.expected)
        )
        if message is not None:
            frame_error.kind = wire.type_of(message)
            frame_error.sid = getattr(message, "sid", None)
        self._streams.recorder.reject(payload, ingest_ns, self, frame_error)
        sid, seq = frame_error.sid, frame_error.seq
        counted = frame_error.counted or seq is None or self.session.channel_of(sid) is None
        if sid is not None and seq is not None and not counted:
            self._in_sequence(sid, seq, ingest_ns)
        self.session.miss(sid)


def body_text(payload: bytes) -> str:
    """The JSON of a frame's ``msg``. Keys that nobody knows have not been looked into before."""
    try:
        return bytes(_body.decode(payload).msg).decode()
    except UnicodeDecodeError as error:
        raise FrameError("msg", payload, f"UTF-8 ({error.reason})") from None
