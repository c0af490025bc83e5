"""Events from a capture: frames as they came, which go through the live path once more.

One JSON object per line: ``{"ingest_ns": 1795000000000000000, "conn_id": 7, "frame": {…}}``. ``ingest_ns`` is
when the frame was read from the socket and never falls; ``frame`` the frame itself, as JSON or as a string;
``conn_id`` (0 without it) another number where a connection ended and the next began. A first line
``{"use_yes_price": true}`` says that the no side came on the yes scale. A file may be compressed (``.gz``).
A capture says nothing of what was subscribed: a sid carries what its frames name. Not here: what frames mean
(``link``).
"""

from __future__ import annotations

import gzip
import random
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from kalshi_fast.books import Books
from kalshi_fast.errors import ReplayError, reason
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.replaying.chunks import Chunk, make_chunk
from kalshi_fast.replaying.source import Source
from kalshi_fast.session import Session
from kalshi_fast.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from kalshi_fast.batch import Batch

_CHUNK_ROWS: Final = 65_536


class _Line(msgspec.Struct):
    ingest_ns: int | None = None
    conn_id: int = 0
    frame: msgspec.Raw = msgspec.Raw()
    use_yes_price: bool = False


class _Body(msgspec.Struct, frozen=True):
    market_ticker: str = ""


class _Frame(msgspec.Struct):
    """What a frame says about the subscription that it belongs to."""

    type: str = ""
    sid: int | None = None
    seq: int | None = None
    msg: _Body = _Body()


_LINE: Final = msgspec.json.Decoder(_Line)
_FRAME: Final = msgspec.json.Decoder(_Frame)
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

    def _chunks(self, columns: Collection[str], since_ns: int | None) -> Iterator[Chunk]:
        try:
            with self._open() as file:
                yield from self._play(file)
        except (OSError, EOFError) as error:
            raise ReplayError(f"the capture cannot be read: {reason(error)}", self._path) from error

    def _open(self) -> BinaryIO:
        return gzip.open(self._path) if self._path.suffix == ".gz" else self._path.open("rb")  # type: ignore[return-value]

    def _play(self, file: BinaryIO) -> Iterator[Chunk]:
        player: _Player | None = None
        use_yes_price, last_ns = False, 0
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            try:
                line = _LINE.decode(text)
            except msgspec.DecodeError as error:
                raise ReplayError(
                    f"line {number} is no line of a capture: {reason(error)}", self._path
                ) from error
            if line.ingest_ns is None:
                if player is not None or not line.use_yes_price:
                    raise ReplayError(f"line {number} has no ingest_ns", self._path)
                use_yes_price = True
                continue
            if line.ingest_ns < last_ns:
                raise ReplayError(f"line {number} was received before the line before it", self._path)
            last_ns = line.ingest_ns
            if self.end_ns is not None and last_ns >= self.end_ns:
                break
            player = player or _Player(use_yes_price=use_yes_price)
            player.feed(line)
            if player.rows >= _CHUNK_ROWS:
                yield from self._taken(player)
        if player is not None:
            yield from self._taken(player)

    def _taken(self, player: _Player) -> Iterator[Chunk]:
        columns = player.take()
        numbers = np.fromiter(map(self.number, player.tickers), np.int32, len(player.tickers))
        if columns:
            columns["market_ix"] = numbers[columns["market_ix"]]
            chunk = make_chunk(columns)
            chunk = chunk.take(chunk.market_ix >= 0)
            if len(chunk):
                yield chunk


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
        self._conn_id: int | None = None

    def _keep(self, batch: Batch) -> None:
        n = batch.events.n
        self._kept.append({name: column[:n].copy() for name, column in batch.events.arrays.items()})
        self.rows += n
        self._pool.release(batch)

    def feed(self, line: _Line) -> None:
        ingest_ns = line.ingest_ns
        assert ingest_ns is not None  # noqa: S101 - looked at before
        if line.conn_id != self._conn_id:
            if self._conn_id is not None:
                self._link.on_disconnected(ingest_ns, "another connection follows")
            self._conn_id = line.conn_id
            self._link.on_connected(line.conn_id, ingest_ns)
        payload = bytes(line.frame)
        if payload.startswith(b'"'):
            payload = msgspec.json.decode(payload).encode()
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
        except msgspec.DecodeError:
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
