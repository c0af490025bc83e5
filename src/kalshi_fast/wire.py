"""Every message of the exchange's WebSocket protocol, both directions, as msgspec structs.

Source of all facts: Kalshi's published AsyncAPI document 2.0.0 (autumn 2026) and recordings of 2025 for
the legacy integer-cent fields. JSON key order is free, unknown keys are ignored (``unknown_keys`` finds
them), an unknown ``type`` decodes to :class:`Unknown`. A field of a message without a default is one that it
means nothing without; anything else that cannot be used costs itself alone (``tolerant``). Values stay as
the exchange wrote them: prices and sizes are strings here, and become integers in ``_decode``; when a
legacy field stands beside its fixed-point twin, the fixed-point field wins. Nothing here keeps state. The
messages of the other channels stand in ``channels.messages``, and have their names here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from msgspec import Struct

from kalshi_fast.channels.messages import (
    EventBody as EventBody,
)
from kalshi_fast.channels.messages import (
    EventFeeBody as EventFeeBody,
)
from kalshi_fast.channels.messages import (
    EventFeeUpdate as EventFeeUpdate,
)
from kalshi_fast.channels.messages import (
    EventLifecycle as EventLifecycle,
)
from kalshi_fast.channels.messages import (
    LifecycleBody as LifecycleBody,
)
from kalshi_fast.channels.messages import (
    MarketLifecycle as MarketLifecycle,
)
from kalshi_fast.channels.messages import (
    MultivariateBody as MultivariateBody,
)
from kalshi_fast.channels.messages import (
    MultivariateLifecycle as MultivariateLifecycle,
)
from kalshi_fast.channels.messages import (
    PriceRange as PriceRange,
)
from kalshi_fast.channels.messages import (
    TickerBody as TickerBody,
)
from kalshi_fast.channels.messages import (
    TickerUpdate as TickerUpdate,
)
from kalshi_fast.channels.messages import (
    Trade as Trade,
)
from kalshi_fast.channels.messages import (
    TradeBody as TradeBody,
)
from kalshi_fast.channels.reference import (
    Cf5HzBody,
    Cf5HzIndexList,
    Cf5HzValue,
    CfBody,
    CfIndexList,
    CfValue,
    IndexIds,
    PythBody,
    PythUnderlyingList,
    PythValue,
    Underlyings,
)
from kalshi_fast.errors import FrameError, reason
from kalshi_fast.losses import OTHER
from kalshi_fast.scalars import CommandId, Name, Seq, Sid, Side, UnixMs
from kalshi_fast.tolerant import MISSING, UNREADABLE, Fields

if TYPE_CHECKING:
    from kalshi_fast.losses import Losses

FixedLevel: TypeAlias = tuple[str, str]  # ("0.0800", "300.00")
CentLevel: TypeAlias = tuple[int, int]  # (8, 300)


# --- exchange → client: order book -----------------------------------------------------------------


class SnapshotBody(Struct, gc=False, omit_defaults=True):
    """All levels of one market. A side without resting orders has no key at all.

    ``market_id`` is absent in old frames; "" without levels is the answer for a market that does not exist.
    """

    market_ticker: Name
    market_id: str | None = None
    yes_dollars_fp: list[FixedLevel] | None = None
    no_dollars_fp: list[FixedLevel] | None = None
    yes: list[CentLevel] | None = None
    no: list[CentLevel] | None = None


class OrderbookSnapshot(Struct, tag="orderbook_snapshot", gc=False, omit_defaults=True):
    sid: Sid
    seq: Seq
    msg: SnapshotBody
    id: CommandId = 0


class DeltaBody(Struct, gc=False, omit_defaults=True):
    """A signed change of one level. ``ts`` is RFC 3339, with microseconds that ``ts_ms`` does not have."""

    market_ticker: Name
    side: Side
    market_id: str = ""
    price_dollars: str | None = None
    delta_fp: str | None = None
    price: int | None = None
    delta: int | None = None
    ts: str | None = None
    ts_ms: UnixMs | None = None
    client_order_id: str | None = None
    subaccount: int | None = None


class OrderbookDelta(Struct, tag="orderbook_delta", gc=False, omit_defaults=True):
    sid: Sid
    seq: Seq
    msg: DeltaBody


# --- exchange → client: replies ---------------------------------------------------------------------


class ChannelSid(Struct, gc=False):
    channel: str
    sid: Sid


class Subscribed(Struct, tag="subscribed", gc=False):
    """One per channel of a subscribe command; carries no ticker and no seq."""

    id: CommandId
    msg: ChannelSid


class OkBody(Struct, gc=False, omit_defaults=True):
    market_tickers: list[str] | None = None


class Ok(Struct, tag="ok", omit_defaults=True):
    """Reply to update_subscription (with ``sid`` and a ``seq`` that counts) or list_subscriptions."""

    id: CommandId = 0
    sid: Sid | None = None
    seq: Seq | None = None
    msg: OkBody | list[ChannelSid] | None = None


class Unsubscribed(Struct, tag="unsubscribed", gc=False, omit_defaults=True):
    """Its ``seq`` counts in the sid's sequence."""

    sid: Sid
    id: CommandId = 0
    seq: Seq | None = None


class ErrorBody(Struct, omit_defaults=True):
    code: int
    msg: str = ""
    market_ticker: str | None = None
    market_tickers: list[str] | None = None


class Error(Struct, tag="error", omit_defaults=True):
    """With a ``sid`` it is scoped to that subscription, and its ``seq`` counts there."""

    msg: ErrorBody
    id: CommandId = 0
    sid: Sid | None = None
    seq: Seq | None = None


class Unknown(Struct, omit_defaults=True):
    """A message of a type that this version does not model. A ``seq`` on it counts all the same."""

    type: str
    sid: Sid | None = None
    seq: Seq | None = None


Message: TypeAlias = (
    OrderbookDelta
    | OrderbookSnapshot
    | Trade
    | TickerUpdate
    | MarketLifecycle
    | EventLifecycle
    | EventFeeUpdate
    | MultivariateLifecycle
    | CfValue
    | Cf5HzValue
    | PythValue
    | CfIndexList
    | Cf5HzIndexList
    | PythUnderlyingList
    | Subscribed
    | Ok
    | Unsubscribed
    | Error
)

TERMINAL_ERRORS = frozenset({10, 25})
ERROR_TEXTS = {
    1: "cannot process the message",
    2: "params required",
    3: "channels required",
    4: "sids required",
    5: "unknown command",
    7: "unknown subscription id",
    8: "unknown channel",
    9: "authentication required",
    10: "channel error",
    11: "invalid parameter",
    12: "exactly one sid required",
    13: "unsupported action",
    14: "market ticker required",
    15: "action required",
    18: "command timeout",
    19: "shard parameters",
    20: "shard parameters",
    21: "shard parameters",
    22: "shard parameters",
    23: "match ids",
    24: "index ids",
    25: "subscription buffer overflow",
    26: "per-subscription market limit exceeded",
    27: "command rate limit of the subscription exceeded",
    28: "underlying tickers",
}

# --- client → exchange: commands --------------------------------------------------------------------


class Params(Struct, omit_defaults=True):
    """Parameters of every command; which are needed depends on ``cmd`` and ``action``."""

    channels: list[str] | None = None
    market_ticker: str | None = None
    market_tickers: list[str] | None = None
    sid: Sid | None = None
    sids: list[Sid] | None = None
    action: str | None = None
    send_initial_snapshot: bool | None = None
    skip_ticker_ack: bool | None = None
    use_yes_price: bool | None = None
    index_ids: list[str] | None = None
    underlying_tickers: list[str] | None = None


class Command(Struct, omit_defaults=True):
    """``id`` is unique in a connection, from 1; 0 means none."""

    cmd: str
    id: CommandId = 0
    params: Params | None = None


# --- decoding ---------------------------------------------------------------------------------------

_MESSAGES: tuple[type[Struct], ...] = (
    OrderbookDelta,
    OrderbookSnapshot,
    Trade,
    TickerUpdate,
    MarketLifecycle,
    EventLifecycle,
    EventFeeUpdate,
    MultivariateLifecycle,
    CfValue,
    Cf5HzValue,
    PythValue,
    CfIndexList,
    Cf5HzIndexList,
    PythUnderlyingList,
    Subscribed,
    Ok,
    Unsubscribed,
    Error,
)
_BY_TAG: dict[str, type[Struct]] = {str(s.__struct_config__.tag): s for s in _MESSAGES}
_TAGS: dict[type[Struct], str] = {Unknown: OTHER, **{struct: tag for tag, struct in _BY_TAG.items()}}
_BODIES: dict[type[Struct], type[Struct]] = {
    OrderbookDelta: DeltaBody,
    OrderbookSnapshot: SnapshotBody,
    Trade: TradeBody,
    TickerUpdate: TickerBody,
    MarketLifecycle: LifecycleBody,
    EventLifecycle: EventBody,
    EventFeeUpdate: EventFeeBody,
    MultivariateLifecycle: MultivariateBody,
    CfValue: CfBody,
    Cf5HzValue: Cf5HzBody,
    PythValue: PythBody,
    CfIndexList: IndexIds,
    Cf5HzIndexList: IndexIds,
    PythUnderlyingList: Underlyings,
    Subscribed: ChannelSid,
    Error: ErrorBody,
}


class _Keys(Struct):
    msg: dict[str, msgspec.Raw]


class _TickerHint(Struct):
    market_ticker: str | None = None


_BOOK_TYPES = ("orderbook_delta", "orderbook_snapshot")
_REPLIES = (Subscribed, Ok, Unsubscribed, Error)


def _head_fields(tag: str, struct: type[Struct]) -> Fields:
    defaults: dict[str, Any] = {"msg": MISSING} if struct in _BODIES else {}
    if tag not in _BOOK_TYPES and struct not in _REPLIES:
        defaults |= {"sid": 0, "seq": 0}  # data that is of no book says what it says whatever its number is
    return Fields(struct, defaults, left="msg" if struct in _BODIES else "")


_HEADS: dict[str, Fields] = {tag: _head_fields(tag, struct) for tag, struct in _BY_TAG.items()}
_BODY_FIELDS: dict[str, Fields] = {
    tag: Fields(_BODIES[struct], {"code": 0} if struct is Error else {})
    for tag, struct in _BY_TAG.items()
    if struct in _BODIES
}
_ENVELOPE = Fields(
    msgspec.defstruct(
        "_Envelope",
        [
            ("type", str | None, None),
            ("sid", Sid | None, None),
            ("seq", Seq | None, None),
            ("id", msgspec.Raw, MISSING),
            ("msg", msgspec.Raw, MISSING),
        ],
    )
)

_message: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)
_unknown = msgspec.json.Decoder(Unknown)
_ticker_hint = msgspec.json.Decoder(_TickerHint)
_command = msgspec.json.Decoder(Command)
_any = msgspec.json.Decoder()
_keys = msgspec.json.Decoder(_Keys)
_encoder = msgspec.json.Encoder()


def decode(payload: bytes | memoryview, losses: Losses | None = None) -> Message | Unknown:
    """One frame's payload as a message; fields that are lost are counted in ``losses``.

    Raises FrameError when it is no JSON, or a known type without a field that it means nothing without; the
    error carries what could still be read (type, sid, seq, market_ticker), so that a bad frame does not
    cost a good book.
    """
    message: Message | Unknown
    try:
        message = _message.decode(payload)
    except UNREADABLE as error:
        message = _second_reading(bytes(payload), error, losses)
    if type(message) is OrderbookSnapshot and not has_levels(message.msg):
        _check_emptiness(payload, message)
    return message


def has_levels(body: SnapshotBody) -> bool:
    """Some level has been read of it."""
    return bool(body.yes_dollars_fp or body.no_dollars_fp or body.yes or body.no)


def _check_emptiness(payload: bytes | memoryview, message: OrderbookSnapshot) -> None:
    """A snapshot without levels is a known, empty book: unless they stand under keys that we do not know.
    Raises FrameError."""
    expected = "nothing but known keys, or no list under another, in a book without levels"
    error: FrameError | None = None
    try:
        for key, value in _keys.decode(payload).msg.items():
            if key not in SnapshotBody.__struct_fields__ and bytes(value).lstrip().startswith(b"["):
                items = _any.decode(value)
                if items:
                    error = FrameError(f"msg.{key}", items, expected)
                    break
    except UNREADABLE as cause:  # the message decoder does not look into what it skips
        error = FrameError("msg", bytes(payload), f"{expected} ({reason(cause)})")
    if error is not None:
        error.kind, error.sid, error.seq = "orderbook_snapshot", message.sid, message.seq
        error.market_ticker, error.about_book = message.msg.market_ticker, True
        raise error


def type_of(message: Message | Unknown) -> str:
    """Its type, as the exchange names it; OTHER for one that this version does not model."""
    return _TAGS[type(message)]


def _second_reading(payload: bytes, cause: Exception, losses: Losses | None) -> Message | Unknown:
    """Field by field. Usual frames never come here."""
    try:
        envelope = _ENVELOPE.written(payload)
    except UNREADABLE:
        error = FrameError("frame", payload, _expectation(cause))
        error.about_book = b"orderbook" in payload
        raise error from cause
    kind, sid, seq, _, body = _ENVELOPE.read(envelope, "", None)
    if kind is not None and kind not in _BY_TAG:
        return Unknown(kind, sid, seq)
    try:
        if kind is None:
            raise FrameError("type", bytes(envelope[0])[:100] or None, "the name of a type, as a text")
        return _read(kind, dict(zip(_ENVELOPE.names, envelope, strict=True)), losses)
    except FrameError as error:
        expected = error.expected if kind is None else f"{error.expected}, in a message of the type {kind}"
        told = FrameError(error.field, error.value, expected)
        told.kind, told.sid, told.seq = kind, sid, seq
        told.about_book = kind is None or kind in _BOOK_TYPES
        try:
            told.market_ticker = _ticker_hint.decode(body).market_ticker
        except UNREADABLE:
            told.market_ticker = None
        raise told from cause


def _read(kind: str, written: dict[str, msgspec.Raw], losses: Losses | None) -> Message:
    head, body = _HEADS[kind], _BODY_FIELDS.get(kind)
    values = head.read([written[name] for name in head.names], kind, losses)
    if body is not None:
        try:
            parts = body.written(written["msg"])
        except UNREADABLE:
            parts = body.nothing
            if losses is not None:
                losses.field(kind, "msg")
        values[head.names.index("msg")] = body.struct(*body.read(parts, kind, losses))
    return head.struct(*values)  # type: ignore[return-value]


def _expectation(cause: Exception, what: str = "message") -> str:
    return f"a {what} of the exchange's protocol ({reason(cause)})"


def unknown_keys(payload: bytes) -> list[str]:
    """Keys of a frame that its struct does not have, as ``type.key`` or ``type.msg.key``; raises nothing.

    For sampling, not for every frame: it decodes the frame a second time into dicts.
    """
    try:
        frame = _any.decode(payload)
    except UNREADABLE:
        return ["(not readable)"]  # the struct decoder skips what it does not know without looking inside
    tag = frame.get("type") if isinstance(frame, dict) else None
    struct = _BY_TAG.get(tag) if isinstance(tag, str) else None
    if struct is None:
        return []
    found = [f"{tag}.{key}" for key in frame if key != "type" and key not in struct.__struct_fields__]
    message = frame.get("msg")
    if struct in _BODIES and isinstance(message, dict):
        known = _BODIES[struct].__struct_fields__
        found += [f"{tag}.msg.{key}" for key in message if key not in known]
    return found


def decode_command(payload: bytes | memoryview) -> Command:
    """A client's command. Raises FrameError when it is not one."""
    try:
        return _command.decode(payload)
    except UNREADABLE as error:
        raise FrameError("command", bytes(payload), _expectation(error, "command")) from error


def encode(message: Message | Command) -> bytes:
    """A message or command as JSON text, ready for a WebSocket text frame."""
    return _encoder.encode(message)
