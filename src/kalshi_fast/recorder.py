"""Rows: events, level states and the rarer records, written into batches that are sealed and handed on.

The recorder owns the moment of truth: an event becomes a row exactly once, in the order of arrival, and
whatever makes a book doubtful becomes a ``gap`` row, so that the rows alone rebuild every book and every
moment it was unknown. Of a market that two connections carry, the rows follow one of them at a time (the
active replica); when that one fails, the other's whole book is written and the rows go on from there. It
knows neither sockets nor stores: sealed batches go out through ``deliver``. Not here: frames (``link``).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

from kalshi_fast._book import YES
from kalshi_fast._clock import receive_ns
from kalshi_fast._columns import CLEAR, GAP, SNAPSHOT
from kalshi_fast._rows import write_book
from kalshi_fast.absent import AbsentMarkets
from kalshi_fast.batch import Batch, HealthEvent, RawFrame, RejectedFrame
from kalshi_fast.books import HANDOVER_NS
from kalshi_fast.channels.rows import MarketRow
from kalshi_fast.errors import FrameError
from kalshi_fast.losses import BOOKS_CHANNEL, Losses
from kalshi_fast.strategy import Driver
from kalshi_fast.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kalshi_fast.books import Books, Market, Replica
    from kalshi_fast.channels.rows import Row
    from kalshi_fast.link import Link
    from kalshi_fast.pool import Pool
    from kalshi_fast.strategy import Strategy
    from kalshi_fast.subscription import Loss


class Speaker(Protocol):
    """Whoever has a connection, of which rows tell."""

    conn_id: int


Ladders: TypeAlias = tuple[list[tuple[int, int]], list[tuple[int, int]]]  # as ``OrderBook.ladders`` has them

_COUNTED_NAMES = 1000
_COUNTED_NAME_CHARS = 100
_KEPT_REJECTS_PER_BATCH = 100
_EXTRA_BYTES_PER_BATCH = 512 * 1024
_KEPT_REJECT_BYTES = 64 * 1024
_KEPT_RAW_BYTES = 256 * 1024
_DETAIL_CHARS = 1000


@dataclass(slots=True)
class Counts:
    """What the recorder has seen since its start, over all connections."""

    frames: int = 0
    events: int = 0
    snapshots: int = 0
    deltas: int = 0
    gaps: int = 0
    gap_events: int = 0
    known: int = 0  # markets whose book the rows say now
    resyncs: int = 0  # commands for snapshots
    repeated: int = 0
    foreign: int = 0  # frames of no subscription of ours, or of a market that it does not carry
    rejected: int = 0
    handovers: int = 0  # markets whose rows went over to another connection
    trades: int = 0
    trades_repeated: int = 0  # of the other connection, or by REST what had come already
    trades_filled: int = 0  # by REST, after an interruption
    tickers: int = 0
    lifecycle: int = 0
    reference_prices: int = 0
    reference_repeated: int = 0  # of the other connection
    raw: int = 0
    scale_contradictions: int = 0  # books on another scale than believed, or crossed
    blackout_us: int = 0  # the longest of them: from the last frame of one to the takeover by the other
    batches: int = 0
    rejected_fields: Counter[str] = field(default_factory=Counter)  # what was wrong in them
    losses: Losses = field(default_factory=Losses)
    unknown_types: Counter[str] = field(default_factory=Counter)
    unknown_keys: Counter[str] = field(default_factory=Counter)

    def add_rejected(self, error: FrameError) -> None:
        self.rejected += 1
        _count(self.rejected_fields, error.field)
        self.losses.end(error.kind, rejected=True)

    def add_unknown_type(self, name: str) -> None:
        _count(self.unknown_types, name)

    def add_unknown_keys(self, names: Iterable[str]) -> None:
        for name in names:
            _count(self.unknown_keys, name)


class Recorder:
    """``Recorder(books, pool, deliver, seal_rows=n)``: a batch with so many rows is sealed; ``seal`` does it
    at any time."""

    def __init__(self, books: Books, pool: Pool, deliver: Callable[[Batch], None], *, seal_rows: int) -> None:
        self.books = books
        self.absent = AbsentMarkets(self)
        self.held = 0  # books that wait for the proof of a scale
        self.counters = Counts()  # without what the links' own paths have taken: see ``counts``
        self._links: list[Link] = []
        self._pool = pool
        self._deliver = deliver
        self._seal_rows = min(seal_rows, pool.rows)
        self._batch = pool.acquire(0)
        self._handover_ns = 0
        self._driver: Driver | None = None

    def join(self, link: Link) -> None:
        """One more connection writes rows."""
        self._links.append(link)
        link.path.not_before_ns = self._handover_ns
        if self._driver is not None:
            link.watch()
        self.aim(link)

    def leave(self, link: Link) -> None:
        """A connection that will not come back; its books are unknown already."""
        self._collect(link)
        link.admission.end()
        self._links.remove(link)
        for replica in link.replicas.values():
            others = [other for other in replica.market.replicas if other is not replica]
            if others:
                replica.market.replicas = others
                if replica.active:
                    replica.market.activate(others[0])

    def attach(self, strategy: Strategy) -> Driver:
        """From now on this strategy sees every event, at the end of the read that brought it.

        Books are unknown to it until their next snapshot: best attached before the first connection.
        """
        self._driver = Driver(strategy, self.books.tickers)
        for link in self._links:
            link.watch()
        return self._driver

    @property
    def watched(self) -> bool:
        """A strategy looks on."""
        return self._driver is not None

    def look(self) -> None:
        """Shows the strategy what has been written so far. Only between two frames."""
        if self._driver is not None:
            self._driver.look(self._batch.events, sealed=False, whole=True)

    def aim(self, link: Link) -> None:
        """Tells the link's own path where the rows go."""
        link.path.aim(link.conn_id, self._batch.events, self._batch.levels, self._seal_rows)

    @property
    def counts(self) -> Counts:
        """What has been seen so far."""
        for link in self._links:
            self._collect(link)
        return self.counters

    def _collect(self, link: Link) -> None:
        """What the link's own path has taken since the last time."""
        path = link.path
        self.counters.frames += path.taken
        self.counters.deltas += path.written
        self.counters.events += path.written
        self.counters.losses.frames[BOOKS_CHANNEL] += path.taken
        path.taken = path.written = 0

    # --- books ------------------------------------------------------------------------------------

    def book(
        self,
        replica: Replica,
        before: Ladders,
        seq: int,
        ingest_ns: int,
    ) -> None:
        """The whole book of a replica: a clear, its levels, and 0 for those of ``before`` that are gone."""
        market, book = replica.market, replica.book
        ingest_ns = max(ingest_ns, self._handover_ns)
        assert isinstance(replica.subscription, Subscription)  # noqa: S101 - its book is exact
        conn_id, sid, ts_us = replica.link.conn_id, replica.subscription.sid, ingest_ns // 1000
        self.event(CLEAR, market, conn_id, sid, seq, YES, 0, 0, ts_us, ingest_ns)
        self.counters.known += not market.known
        market.known = True
        rows = (conn_id, sid, seq, market.ix, market.id_ix, ts_us, ingest_ns)
        written = write_book(book, before, self._batch.events, self._batch.levels, *rows)
        if written >= 0:
            self.counters.events += written
            return
        # No room for all of it: row by row, over as many batches as it takes.
        for side, levels in enumerate(book.ladders()):
            for price, _ in before[side]:
                if book.size_at(side, price) == 0:
                    self.level(market, side, price, 0, ts_us, ingest_ns)
            for price, size in levels:
                self.event(SNAPSHOT, market, conn_id, sid, seq, side, price, size, ts_us, ingest_ns)
                self.level(market, side, price, size, ts_us, ingest_ns)

    def lose(self, link: Link, losses: list[Loss], ingest_ns: int) -> None:
        """Books of a connection are unknown from its last good frame on: marked, and said in the rows, once
        each. Where another connection has the market's book, the rows go over to that one.

        The receive time of a gap is that of the last good frame, and not when the loss was noticed: it may be
        stored behind later rows of other markets. The numbers of two connections say nothing about their
        order, so time alone has to: the rows of the other connection begin a nanosecond later than now.
        """
        since_ns = min(link.path.last_frame_ns + 1, ingest_ns)
        if since_ns < self._handover_ns <= since_ns + HANDOVER_NS:
            since_ns = self._handover_ns  # rows of that read are no earlier
        ingest_ns = max(ingest_ns, self._handover_ns)
        taken_over: Counter[int] = Counter()
        lost: list[Replica] = []
        for loss in losses:
            replica = link.replicas.get(loss.ticker)
            if replica is None:
                continue
            replica.book.mark_stale()
            if not replica.active:
                continue
            market = replica.market
            if market.known:
                market.known = False
                self.counters.known -= 1
                at_ns = max(since_ns, replica.active_since_ns)
                names = (market.ix, market.id_ix)
                self._add_event(
                    (GAP, link.conn_id, loss.sid, loss.seq, *names, YES, 0, 0, at_ns // 1000, at_ns)
                )
                self.counters.gap_events += 1
            lost.append(replica)
        for replica in lost:  # behind all gaps: rows are in the order of their times
            if not replica.active:
                continue  # said twice
            market = replica.market
            twin = next((other for other in market.replicas if not other.book.stale), None)
            if twin is not None and twin.subscription is not None:
                market.activate(twin)
                self._handover_ns = twin.active_since_ns = ingest_ns + 1
                for one in self._links:
                    one.path.not_before_ns = self._handover_ns
                self.book(twin, replica.book.ladders(), twin.subscription.next_seq - 1, self._handover_ns)
                taken_over[twin.link.conn_id] += 1
        for conn_id, markets in taken_over.items():
            blackout_us = (ingest_ns - link.path.last_frame_ns) // 1000
            self.counters.handovers += markets
            self.counters.blackout_us = max(self.counters.blackout_us, blackout_us)
            detail = (
                f"{markets} markets go on with connection {conn_id}, {blackout_us} us after the last frame"
            )
            self.health(ingest_ns, link, "handover", detail=detail)

    def forget(self, tickers: Iterable[str], ingest_ns: int) -> None:
        """Markets that no connection carries any more: their books are let go, and no level of theirs is the
        latest any longer."""
        unwanted = set(tickers)
        self.absent.forget(unwanted)
        for link in self._links:
            link.admission.forget(unwanted)
        gone = {ticker for ticker in unwanted if ticker in self.books.by_ticker}
        for ticker in gone:
            market = self.books.by_ticker[ticker]
            for side, levels in enumerate(market.book.ladders()):
                for price, _ in levels:
                    self.level(market, side, price, 0, ingest_ns // 1000, ingest_ns)
        for link in self._links:
            link.forget(gone)
        self.books.forget(gone)

    def quoted(self, ticker: str, ask_e4: int | None, size_e2: int | None, ingest_ns: int) -> None:
        """The ticker channel's yes ask, for books that wait for a word on their scale."""
        if self.held and ask_e4 is not None:
            for link in self._links:
                link.admission.quoted(ticker, ask_e4, size_e2, ingest_ns)

    def listed(self, ticker: str, no_bids: dict[int, int]) -> None:
        """The no bids by REST, for the same."""
        for link in self._links:
            link.admission.listed(ticker, no_bids, receive_ns())

    def awake(self, ticker: str) -> None:
        """Something is heard of this market, so that it is there, or will be soon."""
        if ticker in self.absent.by_ticker:
            for link in self._links:
                link.admission.awake(ticker)

    def scale_doubts(self, now_ns: int) -> list[str]:
        """A sentence for each connection whose scale is in doubt."""
        return [doubt for link in self._links if (doubt := link.admission.doubt(now_ns))]

    @property
    def held_tickers(self) -> list[str]:
        """Markets whose books wait for the proof of a scale."""
        return sorted({ticker for link in self._links for ticker in link.admission.held})

    # --- rows -------------------------------------------------------------------------------------

    def event(
        self,
        kind: int,
        market: Market,
        conn_id: int,
        sid: int,
        seq: int,
        side: int,
        price: int,
        qty: int,
        ts_us: int,
        ingest_ns: int,
    ) -> None:
        """One row of orderbook_events; behind a handover in the same read none is earlier than that."""
        ingest_ns = max(ingest_ns, self._handover_ns)
        self._add_event(
            (kind, conn_id, sid, seq, market.ix, market.id_ix, side, price, qty, ts_us, ingest_ns)
        )

    def _add_event(self, row: tuple[int, ...]) -> None:
        if not self._batch.events.add(*row):
            self.seal()
            self._batch.events.add(*row)
        self.counters.events += 1

    def level(self, market: Market, side: int, price: int, size: int, ts_us: int, ingest_ns: int) -> None:
        """The state of one level of a market; its time is that of the event's row."""
        row = (market.ix, market.id_ix, side, price, size, ts_us, max(ingest_ns, self._handover_ns))
        if not self._batch.levels.set(*row):
            self.seal()
            self._batch.levels.set(*row)

    def health(
        self,
        ts_ns: int,
        link: Speaker,
        event: str,
        *,
        sid: int = 0,
        seq: int = 0,
        market_ticker: str = "",
        detail: str = "",
    ) -> None:
        """One row of feed_health."""
        if self._batch.extra_bytes >= _EXTRA_BYTES_PER_BATCH:
            self.seal()
        detail = detail[:_DETAIL_CHARS]
        self._batch.add_health(HealthEvent(ts_ns, link.conn_id, event, sid, seq, market_ticker, detail))

    def reject(self, payload: bytes, ingest_ns: int, link: Speaker, error: FrameError) -> None:
        """Counts a frame that cannot be used, and keeps it aside with the reason."""
        self.counters.add_rejected(error)
        if len(self._batch.rejected) >= _KEPT_REJECTS_PER_BATCH:
            return
        kept = RejectedFrame(ingest_ns, link.conn_id, str(error), payload[:_KEPT_REJECT_BYTES])
        self._batch.add_rejected(kept)
        self.health(
            ingest_ns,
            link,
            "reject",
            sid=error.sid or 0,
            seq=error.seq or 0,
            market_ticker=error.market_ticker or "",
            detail=str(error),
        )

    def keep(self, table: str, row: Row, size_bytes: int = 0) -> None:
        """One row of a table beside the order book's; ``size_bytes``: what one with longer texts comes to."""
        if self._batch.extra_bytes >= _EXTRA_BYTES_PER_BATCH:
            self.seal()
        self._batch.add_row(table, row, size_bytes)
        if self._driver is not None and not isinstance(row, MarketRow):
            self._driver.keep(row)

    def raw(self, payload: bytes, ingest_ns: int, link: Speaker, channel: str) -> None:
        """A frame that is kept as it came. Raises FrameError for one that is too long."""
        if len(payload) > _KEPT_RAW_BYTES:
            raise FrameError("frame", f"{len(payload)} bytes", f"at most {_KEPT_RAW_BYTES} bytes")
        if self._batch.extra_bytes >= _EXTRA_BYTES_PER_BATCH:
            self.seal()
        self.counters.raw += 1
        frame = RawFrame(ingest_ns, link.conn_id, channel, payload)
        self._batch.add_raw(frame)
        if self._driver is not None:
            self._driver.keep(frame)

    def seal_when_full(self) -> None:
        """Seals a batch that has its rows."""
        if self._batch.events.n >= self._seal_rows:
            self.seal()

    def seal(self) -> None:
        """Hands the current batch on, unless there is nothing in it, and goes on with an empty one."""
        batch = self._batch
        if batch.empty:
            return
        if self._driver is not None:
            self._driver.look(batch.events, sealed=True, whole=False)
        self.counters.batches += 1
        batch.number = self.counters.batches
        batch.names = (len(self.books.tickers), len(self.books.ids))
        self._batch = self._pool.acquire(batch.levels.version)
        for link in self._links:
            self.aim(link)
        self._deliver(batch)


def _count(counter: Counter[str], name: str) -> None:
    """Counts a name that comes from outside; the names kept are bounded in number and length."""
    name = name[:_COUNTED_NAME_CHARS]
    counter[name if name in counter or len(counter) < _COUNTED_NAMES else "(others)"] += 1
