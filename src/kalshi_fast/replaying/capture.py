"""Events from a capture: frames as they came, which go through the live path once more.

One JSON object per line: ``{"ingest_ns": 1795000000000000000, "conn_id": 7, "frame": {…}}``. ``ingest_ns`` is
when the frame was read from the socket and never falls; ``frame`` the frame itself, as JSON or as a string;
``conn_id`` (0 without it) another number where a connection ended and the next began. A first line
``{"use_yes_price": true}`` says that the no side came on the yes scale, ``false`` that it did not; without
one the first books that decide say it (``scale``), and where none does it is the no scale, as in captures of
before the flag. A file may be compressed (``.gz``). A capture says nothing of what was subscribed: a sid
carries what its frames name. Not here: what frames mean (``link``).
"""

from __future__ import annotations

import random
import zlib
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import numpy as np

from kalshi_fast import wire
from kalshi_fast.books import Books
from kalshi_fast.channels.link import ChannelLink
from kalshi_fast.channels.rows import SCHEMAS, ChannelRows, arrow
from kalshi_fast.channels.session import LIFECYCLE, MULTIVARIATE, TICKER, TRADE, ChannelSession
from kalshi_fast.channels.streams import Streams
from kalshi_fast.config import REFERENCE_CHANNELS
from kalshi_fast.errors import FieldError, ReplayError, reason
from kalshi_fast.interleave import OF_NO_MARKET
from kalshi_fast.link import Link, levels_told
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.replaying.chunks import Chunk, make_chunk
from kalshi_fast.replaying.files import opened
from kalshi_fast.replaying.source import Source
from kalshi_fast.replaying.times import Count
from kalshi_fast.scale import IN_A_ROW, told_by_book
from kalshi_fast.session import Session
from kalshi_fast.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    import pyarrow as pa
    from numpy.typing import NDArray

    from kalshi_fast.batch import Batch

_CHUNK_ROWS: Final = 65_536


class _Line(msgspec.Struct):
    ingest_ns: Count | None = None
    conn_id: Count = 0
    frame: msgspec.Raw = msgspec.Raw()
    use_yes_price: bool | None = None


class _Body(msgspec.Struct, frozen=True):
    market_ticker: str = ""


class _Frame(msgspec.Struct):
    """What a frame says about the subscription that it belongs to."""

    type: str = ""
    sid: Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)] | None = None
    seq: Count | None = None
    msg: _Body = _Body()


_LINE: Final = msgspec.json.Decoder(_Line)
_FRAME: Final = msgspec.json.Decoder(_Frame)
# By the type of their frames: announcements of events come on the channel of the markets.
_CHANNELS: Final = {
    "trade": TRADE,
    "ticker": TICKER,
    "market_lifecycle_v2": LIFECYCLE,
    "event_lifecycle": LIFECYCLE,
    "event_fee_update": LIFECYCLE,
    "multivariate_market_lifecycle": MULTIVARIATE,
    **{channel: channel for channel in REFERENCE_CHANNELS},
}
_BESIDE_ROWS: Final = 4096
_SNAPSHOT: Final = b"orderbook_snapshot"
_BOOK_FRAMES: Final = ("orderbook_snapshot", "orderbook_delta")


class CaptureSource(Source):
    """``CaptureSource(path)``. Raises ReplayError for a line that is none, naming it."""

    def __init__(
        self,
        path: Path,
        *,
        markets: Iterable[str] | None = None,
        start_ns: int | None = None,
        end_ns: int | None = None,
    ) -> None:
        super().__init__(markets=markets, start_ns=start_ns, end_ns=end_ns)
        self._path = path
        self._said: bool | None = None  # of the scale, by the first line

    def _chunks(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        player: _Player | None = None
        for line in self._lines():
            player = player or _Player(use_yes_price=self._scale())
            player.feed(line)
            if player.rows >= _CHUNK_ROWS:
                yield from self._taken(player)
        if player is not None:
            yield from self._taken(player)

    # --- beside the books -------------------------------------------------------------------------

    def tables(self) -> Collection[str]:
        return SCHEMAS.keys() - {"markets"}

    def lacks(self, table: str) -> ReplayError:
        return ReplayError(f"a capture has no {table} frames apart: its lines are frames", self._path)

    def beside(self, table: str, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        player = _ChannelPlayer()
        for line in self._lines():
            player.feed(line)
            if len(player.rows) >= _BESIDE_ROWS:
                yield from self._columns(table, player.take(), since_ns)
        yield from self._columns(table, player.take(), since_ns)

    def _columns(self, table: str, rows: ChannelRows, since_ns: int | None) -> Iterator[pa.RecordBatch]:
        found = [
            row
            for row in getattr(rows, table)
            if (since_ns is None or row.ingest_ns >= since_ns)
            and (self.wanted is None or table in OF_NO_MARKET or row.market_ticker in self.wanted)
        ]
        if found:
            yield arrow(table, found)

    # --- lines ------------------------------------------------------------------------------------

    def _scale(self) -> bool:
        """The no side is on the yes scale: the first line says so, or the books do."""
        proofs = {True: 0, False: 0}
        for line in self._lines():
            if self._said is not None:
                return self._said
            word = _word(line)
            if word is not None:
                proofs[word] += 1
                if proofs[word] - proofs[not word] == IN_A_ROW:
                    break  # one alone may be a book that is truly crossed
        return proofs[True] > proofs[False]

    def _lines(self) -> Iterator[_Line]:
        """The frames before the end."""
        try:
            with opened(self._path) as file:
                yield from self._read(file)
        except (OSError, EOFError, zlib.error) as error:
            raise ReplayError(f"the capture cannot be read: {reason(error)}", self._path) from error

    def _read(self, file: BinaryIO) -> Iterator[_Line]:
        begun, last_ns = False, 0
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = _LINE.decode(text)
            except (msgspec.DecodeError, RecursionError) as error:
                raise ReplayError(
                    f"line {number} is no line of a capture: {reason(error)}", self._path
                ) from error
            if line.ingest_ns is None:
                if begun or line.use_yes_price is None:
                    raise ReplayError(f"line {number} has no ingest_ns", self._path)
                self._said = line.use_yes_price
                continue
            if line.ingest_ns < last_ns:
                raise ReplayError(f"line {number} was received before the line before it", self._path)
            last_ns = line.ingest_ns
            if self.end_ns is not None and last_ns >= self.end_ns:
                break
            begun = True
            yield line

    def _taken(self, player: _Player) -> Iterator[Chunk]:
        columns = player.take()
        numbers = np.fromiter(map(self.number, player.tickers), np.int32, len(player.tickers))
        if columns:
            columns["market_ix"] = numbers[columns["market_ix"]]
            chunk = make_chunk(columns)
            chunk = chunk.take(chunk.market_ix >= 0)
            if len(chunk):
                yield chunk


def _payload(line: _Line) -> bytes:
    payload = bytes(line.frame)
    return msgspec.json.decode(payload).encode() if payload.startswith(b'"') else payload


def _word(line: _Line) -> bool | None:
    """What a frame proves about the scale."""
    payload = _payload(line)
    if _SNAPSHOT not in payload:
        return None
    try:
        message = wire.decode(payload)
        if isinstance(message, wire.OrderbookSnapshot):
            return told_by_book(*levels_told(message.msg))
    except FieldError:
        return None  # the link says what is wrong with it
    return None


class _Connections:
    """Those of a capture's lines, one after the other, on one link."""

    def __init__(self, link: Link | ChannelLink) -> None:
        self._link = link
        self._conn_id: int | None = None

    def turn_to(self, line: _Line) -> tuple[bytes, int]:
        """The frame of a line and its receive time; the link is on that frame's connection."""
        ingest_ns = line.ingest_ns
        assert ingest_ns is not None  # noqa: S101 - looked at before
        if line.conn_id != self._conn_id:
            if self._conn_id is not None:
                self._link.on_disconnected(ingest_ns, "another connection follows")
            self._conn_id = line.conn_id
            self._link.on_connected(line.conn_id, ingest_ns)
        return _payload(line), ingest_ns


class _ChannelPlayer:
    """A live link of the channels beside the books, without a socket: it subscribes to what comes."""

    def __init__(self) -> None:
        self.rows = ChannelRows()
        pool = LocalPool(1, 2)
        self._recorder = Recorder(Books(), pool, self._keep, seal_rows=1)
        self._pool = pool
        self._streams = Streams(self._recorder, ())
        rng = random.Random(1)  # noqa: S311 - nothing is sent
        self._session = ChannelSession((), (), clock=lambda: 0, rng=rng)
        self._link = ChannelLink(self._streams, self._session)
        self._connections = _Connections(self._link)

    def _keep(self, batch: Batch) -> None:
        for table in SCHEMAS:
            getattr(self.rows, table).extend(getattr(batch.channels, table))
        self._pool.release(batch)

    def feed(self, line: _Line) -> None:
        payload, ingest_ns = self._connections.turn_to(line)
        try:
            frame = _FRAME.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return  # what it is the books' link says
        channel = _CHANNELS.get(frame.type)
        if channel is None or frame.sid is None:
            return
        if self._session.channel_of(frame.sid) != channel:
            self._session.grant(channel, frame.sid, frame.seq or 0)
        self._streams.add([frame.msg.market_ticker])
        self._link.on_frame(payload, ingest_ns)
        self._session.outbox.clear()
        self._streams.interruptions.clear()
        self._streams.to_ask.clear()

    def take(self) -> ChannelRows:
        """The rows since the last time."""
        self._recorder.seal()
        rows, self.rows = self.rows, ChannelRows()
        return rows


class _Player:
    """A live link without a socket; its rows are kept until they are taken."""

    def __init__(self, *, use_yes_price: bool) -> None:
        self.rows = 0
        self._kept: list[dict[str, NDArray[Any]]] = []
        self._pool = LocalPool(2000, 10_000)
        books = Books()
        self.tickers = books.tickers
        self._recorder = Recorder(books, self._pool, self._keep, seal_rows=2000)
        rng = random.Random(1)  # noqa: S311 - nothing is sent
        self._session = Session((), clock=lambda: 0, rng=rng, use_yes_price=use_yes_price)
        self._link = Link(self._recorder, self._session)
        self._connections = _Connections(self._link)

    def _keep(self, batch: Batch) -> None:
        n = batch.events.n
        self._kept.append({name: column[:n].copy() for name, column in batch.events.arrays.items()})
        self.rows += n
        self._pool.release(batch)

    def feed(self, line: _Line) -> None:
        payload, ingest_ns = self._connections.turn_to(line)
        taken = self._link.path.take(payload, ingest_ns)
        if taken == 0:
            self._subscribe(payload)
            self._link.on_frame(payload, ingest_ns)
            self._session.outbox.clear()
        elif taken == 2:
            self._link.on_full()

    def _subscribe(self, payload: bytes) -> None:
        """A sid carries what its frames name."""
        try:
            frame = _FRAME.decode(payload)
        except (msgspec.DecodeError, RecursionError):
            return  # the link says what is wrong with it
        if frame.type not in _BOOK_FRAMES or frame.sid is None or frame.seq is None:
            return
        subscription = self._session.subscriptions.get(frame.sid)
        if subscription is None:
            subscription = self._session.subscriptions[frame.sid] = Subscription(frame.sid, set())
            subscription.next_seq = frame.seq
        subscription.tickers.add(frame.msg.market_ticker)

    def take(self) -> dict[str, NDArray[Any]]:
        """The rows since the last time, by column; nothing when there are none."""
        self._recorder.seal()
        kept = [columns for columns in self._kept if len(columns["type"])]
        self._kept, self.rows = [], 0
        if not kept:
            return {}
        return {name: np.concatenate([columns[name] for columns in kept]) for name in kept[0]}
