"""A capture on disk: WebSocket frames as somebody recorded them, one a line, sorted into connections.

A line is a frame, or ours (``replaying.capture``): a frame with ``ingest_ns`` and ``conn_id``. A first
line ``{"use_yes_price": true}`` tells the scale of the no side; else the snapshots do (``scale``). The
file may be compressed (``.gz``). A recorder has its books on connections of their own, so the frames go
into two lanes, ``books`` and ``beside``; each is a list of connections. Where ``conn_id`` is not told, a
new connection begins where the numbers of a sid go back, or a channel is granted once more.

What cannot be placed (a line that is no frame, a frame whose channel nobody can tell) is counted. Not
here: what the frames say (``capture_truth``), playing them (``playback``).
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast.errors import SimulatorError, reason
from kalshi_fast.replaying.files import opened
from kalshi_fast.simulator.subscription import BOOKS, FILL, LIFECYCLE, MULTIVARIATE, TICKER, TRADE

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SUFFIXES: Final = (".ndjson", ".jsonl", ".ndjson.gz", ".jsonl.gz")
MOST_CONNECTIONS: Final = 100  # of a lane: more are frames of several connections, mixed
# By the type of a frame; other types are channels by their own name, or those of their sid.
CHANNEL_OF: Final = {
    "orderbook_snapshot": BOOKS,
    "orderbook_delta": BOOKS,
    "trade": TRADE,
    "ticker": TICKER,
    "market_lifecycle_v2": LIFECYCLE,
    "event_lifecycle": LIFECYCLE,
    "event_fee_update": LIFECYCLE,
    "multivariate_market_lifecycle": MULTIVARIATE,
    "fill": FILL,
    "cfbenchmarks_value": "cfbenchmarks_value",
    "cfbenchmarks_value_5hz": "cfbenchmarks_value_5hz",
    "pyth_value": "pyth_value",
}
_REPLIES: Final = ("subscribed", "ok", "unsubscribed", "error")


def is_capture(path: Path) -> bool:
    """By its name: other recordings are directories."""
    return path.name.endswith(SUFFIXES)


class _Wrapped(msgspec.Struct):
    frame: msgspec.Raw


_WRAPPED: Final = msgspec.json.Decoder(_Wrapped)


@dataclass(slots=True)
class Frame:
    """``payload``: as it came, without its newline. ``channel``: None for an error that is of none."""

    line: int
    payload: bytes
    message: dict[str, Any]
    conn_id: int = 0
    channel: str | None = None

    @property
    def number(self) -> tuple[int, int] | None:
        """Its place in the sequence of a sid, if it has one."""
        sid, seq = self.message.get("sid"), self.message.get("seq")
        return (sid, seq) if type(sid) is int and type(seq) is int else None


@dataclass(slots=True)
class Connection:
    """``sids``: of each channel. ``frames``: all but the grants, which answer commands of another client."""

    conn_id: int
    sids: dict[str, int] = field(default_factory=dict)
    frames: list[Frame] = field(default_factory=list)
    _last: dict[int, tuple[int, bytes]] = field(default_factory=dict)  # of each sid: number and frame

    def fits(self, frame: Frame) -> bool:
        """Whether it can be of this connection, behind what it has."""
        sid, channel = frame.message.get("sid"), frame.channel
        if frame.conn_id != self.conn_id:
            return False
        if frame.message["type"] == "subscribed":
            return channel not in self.sids
        if channel is not None and sid is not None:
            if self.sids.get(channel, sid) != sid:
                return False
            if any(other == sid and name != channel for name, other in self.sids.items()):
                return False
        number = frame.number
        if number is None:
            return True
        last, payload = self._last.get(number[0], (0, b""))
        # The same once more: one frame, written down twice.
        return number[1] > last or (number[1] == last and frame.payload == payload)

    def take(self, frame: Frame) -> None:
        if frame.channel is not None:
            sid = (
                frame.message["msg"]["sid"] if frame.message["type"] == "subscribed" else frame.message["sid"]
            )
            self.sids.setdefault(frame.channel, sid)
        if frame.message["type"] != "subscribed":
            self.frames.append(frame)
            if frame.number is not None:
                self._last[frame.number[0]] = (frame.number[1], frame.payload)


class Capture:
    """``Capture(path)``: its lanes ``books`` and ``beside``. Raises SimulatorError when it has no frame."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.books: list[Connection] = []
        self.beside: list[Connection] = []
        self.frames = 0
        self.junk = 0  # lines that are no frame
        self.first_junk = ""
        self.unplaced: Counter[str] = Counter()  # frames of no channel that can be told, by type
        self.told_scale: bool | None = None
        found = self._ordered()
        self._place(found)
        if not self.books and not self.beside:
            raise SimulatorError(f"--recording: {path} has no frame of a channel{self._junk_said()}")

    # --- lines ------------------------------------------------------------------------------------

    def _ordered(self) -> list[Frame]:
        """All frames; those of one ``conn_id`` together, in the order of the file."""
        by_connection: dict[int, list[Frame]] = {}
        try:
            with opened(self.path) as file:
                for number, line in enumerate(file, 1):
                    if line.strip():
                        self._read(number, line.strip(), by_connection)
        except (OSError, EOFError, zlib.error) as error:
            raise SimulatorError(f"--recording: {self.path} cannot be read: {reason(error)}") from error
        self._several = len(by_connection) > 1
        return [frame for frames in by_connection.values() for frame in frames]

    def _read(self, number: int, line: bytes, found: dict[int, list[Frame]]) -> None:
        try:
            value = json.loads(line)
            conn_id = 0
            if isinstance(value, dict) and "frame" in value:
                conn_id = int(value.get("conn_id", 0))
                line = _wrapped(value["frame"], line)
                value = json.loads(line)
        except (ValueError, TypeError, RecursionError) as error:
            self._add_junk(number, reason(error))
            return
        if isinstance(value, dict) and value.keys() == {"use_yes_price"} and not found:
            self.told_scale = bool(value["use_yes_price"])
        elif not isinstance(value, dict) or not isinstance(value.get("type"), str):
            self._add_junk(number, "no JSON object with a type")
        else:
            self.frames += 1
            found.setdefault(conn_id, []).append(Frame(number, line, value, conn_id))

    def _add_junk(self, number: int, why: str) -> None:
        if not self.junk:
            self.first_junk = f"line {number}: {why}"
        self.junk += 1

    def _junk_said(self) -> str:
        return f"; {self.junk} lines are no frames ({self.first_junk})" if self.junk else ""

    # --- connections ------------------------------------------------------------------------------

    def _place(self, frames: list[Frame]) -> None:
        anywhere = _channels(frames)
        here: dict[int, str] = {}  # of the sids that have said their channel so far
        lane = self.books
        for frame in frames:
            frame.channel = _channel(frame, here, anywhere)
            if frame.channel is None and not (
                frame.message["type"] == "error" and "sid" not in frame.message
            ):
                self.unplaced[frame.message["type"][:40]] += 1
                continue
            if frame.channel is not None:
                lane = self.books if frame.channel == BOOKS else self.beside
            if not lane or not lane[-1].fits(frame):
                if len(lane) == MOST_CONNECTIONS:
                    raise SimulatorError(
                        f"--recording: {self.path}, line {frame.line}: the numbers go back more than"
                        f" {MOST_CONNECTIONS} times; frames of several connections are mixed, and can be told"
                        ' apart only by a conn_id: {"ingest_ns":…,"conn_id":…,"frame":…}'
                    )
                lane.append(Connection(frame.conn_id))
            lane[-1].take(frame)
        for connections in (self.books, self.beside):
            connections[:] = [found for found in connections if found.frames]

    # --- what it is about -------------------------------------------------------------------------

    def all_frames(self) -> Iterator[Frame]:
        for lane in (self.books, self.beside):
            for connection in lane:
                yield from connection.frames

    @property
    def channels(self) -> list[str]:
        """All that are played."""
        return sorted(
            {channel for lane in (self.books, self.beside) for found in lane for channel in found.sids}
        )

    def tickers(self) -> list[str]:
        """The markets of books, trades and tickers, in the order of their first frames."""
        found: dict[str, None] = {}
        for frame in self.all_frames():
            body = frame.message.get("msg")
            if frame.channel in (BOOKS, TRADE, TICKER) and isinstance(body, dict):
                ticker = body.get("market_ticker")
                if isinstance(ticker, str) and ticker:
                    found[ticker] = None
        return list(found) or self._announced()

    def _announced(self) -> list[str]:
        """Of a file that has announcements only: something has to be recorded."""
        bodies = (frame.message.get("msg") for frame in self.all_frames())
        tickers = (body.get("market_ticker") for body in bodies if isinstance(body, dict))
        return list(dict.fromkeys(ticker for ticker in tickers if isinstance(ticker, str) and ticker))

    def remarks(self) -> list[str]:
        """What there is to be said of the file, one sentence each."""
        found = []
        if self.junk:
            found.append(f"{self.junk} lines are no frames and are left out; the first: {self.first_junk}")
        if self.unplaced:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.unplaced.items()))
            found.append(f"{sum(self.unplaced.values())} frames are of no channel that can be told: {kinds}")
        for name, lane in (("books", self.books), ("the other channels", self.beside)):
            if len(lane) > 1:
                how = "by conn_id" if self._several else "where numbers go back or a sid changes its channel"
                found.append(f"the frames of {name} are of {len(lane)} connections, told apart {how}")
        return found


def _wrapped(frame: object, line: bytes) -> bytes:
    """The frame of one of our own lines, byte for byte."""
    return frame.encode() if isinstance(frame, str) else bytes(_WRAPPED.decode(line).frame)


def _channels(frames: list[Frame]) -> dict[int, str | None]:
    """Of each sid the one channel that it has in the whole file; None: it has several."""
    found: dict[int, str | None] = {}
    for frame in frames:
        sid, channel = _said(frame)
        if sid is not None and channel is not None:
            found[sid] = channel if found.get(sid, channel) == channel else None
    return found


def _said(frame: Frame) -> tuple[int | None, str | None]:
    """Sid and channel, as far as the frame itself says them."""
    message = frame.message
    if message["type"] == "subscribed":
        body = message.get("msg")
        if isinstance(body, dict) and type(body.get("sid")) is int and isinstance(body.get("channel"), str):
            return body["sid"], body["channel"]
        return None, None
    sid = message.get("sid")
    return (sid if type(sid) is int else None), CHANNEL_OF.get(message["type"])


def _channel(frame: Frame, here: dict[int, str], anywhere: dict[int, str | None]) -> str | None:
    sid, channel = _said(frame)
    if sid is None:
        return None
    if channel is not None:
        here[sid] = channel
        return channel
    if frame.message["type"] in _REPLIES:
        return here.get(sid) or anywhere.get(sid)
    known = here.get(sid)
    return known if known is not None and known not in CHANNEL_OF.values() else None
