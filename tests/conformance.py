"""Recorded order-book frames through the recorder's own path, without a socket, and what they come to.

Not here: what is recorded (``recordings``), what it says (``oracle``).
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import links
import oracle
from kalshi_fast._book import NO, YES
from kalshi_fast.books import Books
from kalshi_fast.channels.link import ChannelLink
from kalshi_fast.channels.rows import TABLES, ChannelRows
from kalshi_fast.channels.session import ChannelSession
from kalshi_fast.channels.streams import Streams
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from recordings import REAL, Capture

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.batch import Batch, RawFrame, RejectedFrame

KINDS = ("snapshot", "delta", "clear", "gap")
SIDES = ("yes", "no")
START_NS = 1_800_000_000_000_000_000
BOOKS = "orderbook_delta"


def of_books(found: Capture) -> list[bytes]:
    """The frames that a connection for books has; ``links.grant`` stands for the ``subscribed``."""
    carried = oracle.channels(found.messages())
    return [
        frame
        for frame in found.frames()
        if (message := oracle.load(frame))["type"] != "subscribed"
        and (message["type"] == "error" or BOOKS in carried.get(message.get("sid", 0), ()))
        and message["type"] not in ("trade", "ticker", *oracle.LIFECYCLE_TYPES)
    ]


WITH_BOOKS = tuple(
    found for found in REAL if any(message["type"] in oracle.BOOK_TYPES for message in found.messages())
)
WITH_DELTAS = tuple(
    found for found in WITH_BOOKS if any(message["type"] == BOOKS for message in found.messages())
)


def named(found: Capture) -> str:
    return found.name


class Rig:
    """A recorder with one connection, on which all markets of the frames are granted."""

    def __init__(self, frames: Iterable[bytes], *, yes_scale: bool, seal_rows: int = 4000) -> None:
        self.now_ns = START_NS
        self.books = Books()
        self.rows: list[dict[str, Any]] = []
        self.rejected: list[RejectedFrame] = []
        self.fast = 0
        self.pool = LocalPool(seal_rows, 4)
        self.recorder = Recorder(self.books, self.pool, self._keep, seal_rows=seal_rows)
        messages = [oracle.load(frame) for frame in frames]
        tickers = {m["msg"]["market_ticker"] for m in messages if m["type"] in oracle.BOOK_TYPES}
        self.link = links.link(
            self.recorder, sorted(tickers), lambda: self.now_ns - START_NS, use_yes_price=yes_scale
        )
        (sid,) = {m["sid"] for m in messages if m["type"] in oracle.BOOK_TYPES}
        links.grant(self.link, 7, self.now_ns, sid)

    def _keep(self, batch: Batch) -> None:
        columns = {name: values[: batch.events.n].tolist() for name, values in batch.events.arrays.items()}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            row["kind"], row["side"] = KINDS[row["type"]], SIDES[row["side"]]
            row["ticker"] = self.books.tickers[row["market_ix"]]
            self.rows.append(row)
        self.rejected += batch.rejected
        self.pool.release(batch)

    def feed(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            self.now_ns += 1_000_000
            taken = self.link.path.take(frame, self.now_ns)
            self.fast += taken != 0
            if taken == 0:
                self.link.on_frame(frame, self.now_ns)
            elif taken == 2:
                self.link.on_full()
        self.recorder.seal()

    def integers(self) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
        return self.known(self.books)

    @staticmethod
    def known(books: Books) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
        """The books that are known, as ``oracle.Books.integers`` has them."""
        found = {}
        for ticker, market in books.by_ticker.items():
            if not market.book.stale:
                yes, no = (market.book.ladder(side) for side in (YES, NO))
                found[ticker] = (
                    dict(zip(yes[0].tolist(), yes[1].tolist(), strict=True)),
                    dict(zip(no[0].tolist(), no[1].tolist(), strict=True)),
                )
        return found


def played(found: Capture) -> tuple[Rig, oracle.Books]:
    frames = of_books(found)
    rig = Rig(frames, yes_scale=found.yes_scale)
    rig.feed(frames)
    expected = oracle.Books(found.yes_scale)
    for frame in frames:
        expected.take(oracle.load(frame))
    return rig, expected


class BesideRig:
    """A recorder with one connection for the channels beside the books.

    A file that is a selection has holes in its numbers, or is of several connections: each of its frames is
    granted its number first.
    """

    def __init__(self, *, raw: Iterable[str] = ()) -> None:
        self.now_ns = START_NS
        self.rows = ChannelRows()
        self.rejected: list[RejectedFrame] = []
        self.raw: list[RawFrame] = []
        self.pool = LocalPool(1000, 4)
        self.recorder = Recorder(Books(), self.pool, self._keep, seal_rows=1000)
        self.streams = Streams(self.recorder, ())
        session = ChannelSession((), (), clock=lambda: self.now_ns - START_NS, rng=random.Random(1))
        self.link = ChannelLink(self.streams, session, raw=raw)
        self.link.on_connected(7, self.now_ns)

    def _keep(self, batch: Batch) -> None:
        for table in TABLES:
            getattr(self.rows, table).extend(getattr(batch.channels, table))
        self.rejected += batch.rejected
        self.raw += batch.raw
        self.pool.release(batch)

    def feed(self, found: Capture) -> list[dict[str, Any]]:
        """Plays the frames of channels beside the books; what they say, in order."""
        fed = []
        for frame in found.frames():
            message = oracle.load(frame)
            channel = oracle.CHANNEL_OF_TYPE.get(message["type"])
            if channel is None or channel == BOOKS:
                continue
            self.now_ns += 1_000_000
            self.link.session.grant(channel, message["sid"], message.get("seq", 0))
            self.streams.add([message["msg"].get("market_ticker", "")])
            self.link.on_frame(frame, self.now_ns)
            fed.append(message)
        self.recorder.seal()
        return fed


def besides(*types: str) -> tuple[Capture, ...]:
    """The real files that have frames of these types."""
    return tuple(found for found in REAL if any(message["type"] in types for message in found.messages()))
