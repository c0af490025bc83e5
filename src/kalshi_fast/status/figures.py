"""What the processes of a recording tell the status process, and what it asks: one datagram each, msgpack.

Datagrams keep their bounds and may come from several processes through one socket; one that finds no room
is left out, for the next says the same and more. Not here: what is made of them (``state``).
"""

from __future__ import annotations

import socket
from typing import Final, TypeAlias

import msgspec

BUFFER_BYTES: Final = 1 << 20  # asked of the system for the datagrams under way; it may give less
MAX_DATAGRAM_BYTES: Final = 1 << 18
MARKETS_PER_DATAGRAM: Final = 300


class Connection(msgspec.Struct, array_like=True):
    """One connection to the exchange. ``carries``: books, or the other channels."""

    up: bool
    markets: int  # that it is to carry
    last_frame_ns: int  # receive time; 0: none yet
    carries: str = "books"


class Capture(msgspec.Struct, tag="capture"):
    """The capture process: everything since its start."""

    pid: int
    at_ns: int
    started_ns: int
    version: str
    writer_pid: int = 0  # 0: there is none
    writer_restarts: int = 0
    query_url: str = ""
    frames: int = 0
    events: int = 0
    snapshots: int = 0
    deltas: int = 0
    gaps: int = 0
    gap_events: int = 0
    resyncs: int = 0
    repeated: int = 0
    foreign: int = 0
    rejected: dict[str, int] = {}  # by the field that was wrong
    channel_frames: dict[str, int] = {}  # by channel, as are the next two
    rejected_frames: dict[str, int] = {}
    lossy_frames: dict[str, int] = {}  # used, with a field lost
    lost_fields: dict[str, dict[str, int]] = {}  # by message type, by field
    unknown_types: int = 0
    unknown_keys: int = 0
    handovers: int = 0
    trades: int = 0
    trades_repeated: int = 0
    trades_filled: int = 0
    tickers: int = 0
    lifecycle: int = 0
    reference_prices: int = 0
    reference_repeated: int = 0
    raw: int = 0
    blackout_us: int = 0
    connects: int = 0
    reconnects: int = 0
    connections: list[Connection] = []
    markets_wanted: int = 0
    markets_known: int = 0
    markets_refused: int = 0  # that the exchange does not know
    markets_absent: int = 0  # that it answers without a market_id, or REST does not know
    absent: list[str] = []  # some of them, each with what is known of it
    scale_contradictions: int = 0
    scale_doubts: list[str] = []  # of connections whose scale is not proven
    channels_refused: list[str] = []  # of CHANNELS
    raw_refused: list[str] = []  # of RAW
    reference_refused: list[str] = []  # that REFERENCE asks for
    batches: int = 0
    queue_batches: int = 0
    queue_slots: int = 0
    unsent_batches: int = 0
    paused: bool = False
    closing: bool = False
    publish_us: int = 0  # what the last of these cost


class Histogram(msgspec.Struct, array_like=True):
    """Durations: how many were at most each of ``lags.LE_NS``, how many there are, their sum."""

    cumulative: list[int]
    count: int
    total_ns: int


class Writing(msgspec.Struct, tag="writing"):
    """The writer process: since its start, which may be later than the recording's."""

    pid: int
    at_ns: int
    journal_bytes: int
    journal_max_bytes: int
    journal_batches: int
    journal_error: str
    rows: dict[str, int]  # by store
    errors: dict[str, str]  # by store
    histograms: dict[str, Histogram]
    inserts: dict[str, Histogram]  # by store


class MarketRow(msgspec.Struct, array_like=True):
    """What the rows of one market say, since the writer's start. ``since_ns``: known, or not, since then."""

    ticker: str
    events: int
    gaps: int
    known: bool
    since_ns: int
    last_ns: int
    lag_us: int  # of the last delta, from the exchange's time to ours


class Markets(msgspec.Struct, tag="markets"):
    """Markets with rows since the last time."""

    pid: int
    at_ns: int
    rows: list[MarketRow]


class AskLadder(msgspec.Struct, tag="ask"):
    """The status process wants the book of a market."""

    ticker: str


class Ladder(msgspec.Struct, tag="ladder"):
    """The answer. Levels are (price_e4, size_e2), best first, both sides bids; ``recorded``: we have it."""

    ticker: str
    at_ns: int
    recorded: bool
    known: bool = False
    yes: list[tuple[int, int]] = []
    no: list[tuple[int, int]] = []
    updates: int = 0


Message: TypeAlias = Capture | Writing | Markets | AskLadder | Ladder

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    return _encoder.encode(message)


def decode(datagram: bytes) -> Message:
    """Raises msgspec.DecodeError."""
    return _decoder.decode(datagram)


def say(channel: socket.socket, message: Message) -> bool:
    """Sends without waiting; False when there is no room, or nobody."""
    try:
        channel.send(encode(message), socket.MSG_DONTWAIT)
    except OSError:
        return False
    return True
