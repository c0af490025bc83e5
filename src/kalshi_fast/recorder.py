"""From one frame to rows: decode, count the sequence, apply to the book, write the columns.

The recorder owns the moment of truth: an event becomes a row exactly once, in the order of arrival, and
whatever makes a book doubtful becomes a ``gap`` row, so that the rows alone rebuild every book and every
moment it was unknown. Deltas that arrive while a book is unknown are stored and not applied. It knows
neither sockets nor stores: bytes and receive times come in, sealed batches go out through ``deliver``.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kalshi_fast import wire
from kalshi_fast._book import GRIDS, NO, YES, Grid
from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast._decode import cents_e4, contracts_e2, price_e4, qty_e2, rfc3339_us
from kalshi_fast._delta import DeltaPath
from kalshi_fast.batch import Batch, BatchPool, HealthEvent, RejectedFrame
from kalshi_fast.errors import BookError, FieldError, FrameError
from kalshi_fast.session import Session, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from kalshi_fast.books import Books, Market

_KEY_SAMPLE_FRAMES = 1024  # one frame in so many is read again for keys that the structs do not know
_COUNTED_NAMES = 1000
_COUNTED_NAME_CHARS = 100
_KEPT_REJECTS_PER_BATCH = 100
_HEALTH_ROWS_PER_BATCH = 1000
_KEPT_REJECT_BYTES = 64 * 1024


@dataclass(slots=True)
class Counts:
    """What the recorder has seen since its start."""

    frames: int = 0
    events: int = 0
    snapshots: int = 0
    deltas: int = 0
    gaps: int = 0
    gap_events: int = 0
    repeated: int = 0
    rejected: int = 0
    batches: int = 0
    unknown_types: Counter[str] = field(default_factory=Counter)
    unknown_keys: Counter[str] = field(default_factory=Counter)


class Recorder:
    """Feeds frames of any number of successive connections into books and batches.

    ``seal_rows``: a batch with so many rows is sealed; ``seal`` does it at any time. Frames that cannot
    be used are counted, kept in the batch, and never stop the others.
    """

    def __init__(
        self,
        session: Session,
        books: Books,
        pool: BatchPool,
        deliver: Callable[[Batch], None],
        *,
        seal_rows: int,
    ) -> None:
        self.session = session
        self.books = books
        self.conn_id = 0
        self._counts = Counts()
        self._pool = pool
        self._deliver = deliver
        self._seal_rows = min(seal_rows, pool.rows)
        self._batch = pool.acquire(0)
        self._path = DeltaPath(session.subscriptions, books.by_ticker)
        self._aim()

    # --- the connection ---------------------------------------------------------------------------

    def on_connected(self, conn_id: int, now_ns: int) -> None:
        """A new connection is up; what to send waits in the session's outbox."""
        self.conn_id = conn_id
        self._aim()
        self.session.opened()
        self._health(now_ns, "connect")

    def on_disconnected(self, now_ns: int, reason: str) -> None:
        """The connection is gone: from now on every book is unknown."""
        self._health(now_ns, "disconnect", detail=reason)
        for market in self.books.by_ticker.values():
            market.resyncing = False
            self._lose(market, 0, now_ns)

    @property
    def counts(self) -> Counts:
        """What has been seen so far."""
        self._counts.deltas += self._path.taken
        self._counts.events += self._path.taken
        self._path.taken = 0
        return self._counts

    # --- frames -----------------------------------------------------------------------------------

    def on_frame(self, payload: bytes, ingest_ns: int) -> None:
        """One text frame as it came, and the time it was read from the socket."""
        counts = self._counts
        counts.frames += 1
        try:
            message = wire.decode(payload)
            if type(message) is wire.OrderbookDelta:
                if not self._path.take(message, ingest_ns):
                    self._on_delta(message, ingest_ns)
            elif type(message) is wire.OrderbookSnapshot:
                self._on_snapshot(message, ingest_ns)
            else:
                self._on_other(message, ingest_ns)
        except FieldError as error:
            self._reject(payload, ingest_ns, error)
        else:
            if counts.frames % _KEY_SAMPLE_FRAMES == 1:
                for key in wire.unknown_keys(payload):
                    _count(counts.unknown_keys, key)
        if self._batch.events.n >= self._seal_rows:
            self.seal()

    def _on_delta(self, message: wire.OrderbookDelta, ingest_ns: int) -> None:
        """Every delta that DeltaPath has left alone: the same steps, and what can go wrong in them."""
        if not self._in_sequence(message.sid, message.seq, ingest_ns):
            return
        body = message.msg
        market = self._market(message.sid, message.seq, body.market_ticker, body.market_id)
        try:
            if body.price_dollars is not None:
                price = price_e4(body.price_dollars)
            else:
                price = cents_e4(_given("price_dollars", body.price))
            if body.delta_fp is not None:
                change = qty_e2(body.delta_fp)
            else:
                change = contracts_e2(_given("delta_fp", body.delta))
            if body.ts_ms is not None:
                ts_us = body.ts_ms * 1000
            else:
                ts_us = rfc3339_us(body.ts) if body.ts is not None else ingest_ns // 1000
            side = YES if body.side == "yes" else NO
            book = market.book
            if not book.stale:
                if price % 100:
                    market.fit_grid(price)
                after = book.apply_delta(side, price, change)
                self._level(market, side, price, after, ts_us, ingest_ns)
        except FieldError as error:
            raise _of_market(error, message, market) from error
        self._event(DELTA, market, message.sid, message.seq, side, price, change, ts_us, ingest_ns)
        self._counts.deltas += 1

    def _on_snapshot(self, message: wire.OrderbookSnapshot, ingest_ns: int) -> None:
        if not self._in_sequence(message.sid, message.seq, ingest_ns):
            return
        body = message.msg
        market = self._market(message.sid, message.seq, body.market_ticker, body.market_id)
        before = [market.book.ladder(side)[0].tolist() for side in (YES, NO)]
        market.adopt_grid()
        book = market.book
        try:
            sides = (
                _levels(body.yes_dollars_fp, body.yes, "yes"),
                _levels(body.no_dollars_fp, body.no, "no"),
            )
            for levels in sides:
                for price, _ in levels:
                    if price % 100:
                        market.fit_grid(price)
            book.apply_snapshot(*sides)
        except FieldError as error:
            raise _of_market(error, message, market) from error
        ts_us = ingest_ns // 1000
        self._event(CLEAR, market, message.sid, message.seq, YES, 0, 0, ts_us, ingest_ns)
        for side, levels in enumerate(sides):
            for price in before[side]:
                if book.size_at(side, price) == 0:
                    self._level(market, side, price, 0, ts_us, ingest_ns)
            for price, size in levels:
                if size:
                    self._event(
                        SNAPSHOT, market, message.sid, message.seq, side, price, size, ts_us, ingest_ns
                    )
                    self._level(market, side, price, size, ts_us, ingest_ns)
        market.known = True
        market.resyncing = False
        self._counts.snapshots += 1

    def _on_other(self, message: wire.Message | wire.Unknown, ingest_ns: int) -> None:
        """Everything that is no book frame: its seq counts, replies go to the session."""
        sid, seq = getattr(message, "sid", None), getattr(message, "seq", None)
        if sid is not None and seq is not None and not self._in_sequence(sid, seq, ingest_ns):
            return
        if isinstance(message, wire.Subscribed):
            self.session.on_subscribed(message)
        elif isinstance(message, wire.Error):
            detail = f"error {message.msg.code}: {message.msg.msg}"
            self._health(ingest_ns, "error", sid=sid or 0, seq=seq or 0, detail=detail)
            if self.session.on_error(message) and sid is not None:
                self._lose_sid(sid, seq or 0, ingest_ns)
        elif isinstance(message, wire.Unsubscribed):
            self.session.on_unsubscribed(message)
        elif isinstance(message, wire.MarketLifecycle):
            self._on_lifecycle(message, ingest_ns)
        elif isinstance(message, wire.Unknown):
            _count(self._counts.unknown_types, message.type)

    def _on_lifecycle(self, message: wire.MarketLifecycle, ingest_ns: int) -> None:
        """The exchange says which prices a market uses: its book moves to that grid."""
        market = self.books.by_ticker.get(message.msg.market_ticker)
        grid = _grid(message.msg)
        if market is None or grid is None:
            return
        try:
            market.declare_grid(grid)
        except BookError as error:
            self._health(ingest_ns, "grid", market_ticker=market.ticker, detail=str(error))
            self._lose(market, message.seq or 0, ingest_ns)
            self._resync(market.sid, [market], ingest_ns)

    # --- what can go wrong ------------------------------------------------------------------------

    def _in_sequence(self, sid: int, seq: int, ingest_ns: int) -> bool:
        """Counts the frame; False when it has been seen before and must not be used again."""
        verdict = self.session.receive(sid, seq)
        if verdict is Verdict.IN_ORDER:
            return True
        if verdict is Verdict.REPEATED:
            self._counts.repeated += 1
            return False
        missing = self.session.first_missing_seq
        self._counts.gaps += 1
        self._health(
            ingest_ns, "gap", sid=sid, seq=missing, detail=f"numbers {missing} to {seq - 1} are missing"
        )
        self._lose_sid(sid, missing, ingest_ns)
        for market in self.books.of_sid(sid):
            market.resyncing = False  # an answer on its way may be what is missing
        self._resync(sid, self.books.of_sid(sid), ingest_ns)
        return True

    def _reject(self, payload: bytes, ingest_ns: int, error: FieldError) -> None:
        """Keeps the frame aside and draws the consequence for the books that it was about."""
        self._counts.rejected += 1
        frame_error = (
            error if isinstance(error, FrameError) else FrameError(error.field, error.value, error.expected)
        )
        sid, seq, ticker = frame_error.sid, frame_error.seq, frame_error.market_ticker
        if len(self._batch.rejected) < _KEPT_REJECTS_PER_BATCH:
            kept = RejectedFrame(ingest_ns, self.conn_id, str(error), payload[:_KEPT_REJECT_BYTES])
            self._batch.rejected.append(kept)
            self._health(
                ingest_ns, "reject", sid=sid or 0, seq=seq or 0, market_ticker=ticker or "", detail=str(error)
            )
        if sid is None or seq is None:
            return  # its number stays open: the next frame of the sequence shows the gap
        if not frame_error.counted and not self._in_sequence(sid, seq, ingest_ns):
            return
        if not frame_error.about_book:
            return
        market = self.books.by_ticker.get(ticker) if ticker is not None else None
        doubtful = [market] if market is not None else self.books.of_sid(sid)
        for market in doubtful:
            self._lose(market, seq, ingest_ns)
        self._resync(sid, doubtful, ingest_ns)

    def _lose_sid(self, sid: int, seq: int, ingest_ns: int) -> None:
        for market in self.books.of_sid(sid):
            self._lose(market, seq, ingest_ns)

    def _lose(self, market: Market, seq: int, ingest_ns: int) -> None:
        """From here on this book is unknown: marked, and said in the rows, once."""
        market.book.mark_stale()
        if not market.known:
            return
        market.known = False
        self._event(GAP, market, market.sid, seq, YES, 0, 0, ingest_ns // 1000, ingest_ns)
        self._counts.gap_events += 1

    def _resync(self, sid: int, markets: list[Market], ingest_ns: int) -> None:
        tickers = [market.ticker for market in markets if not market.resyncing]
        if not tickers:
            return
        for market in markets:
            market.resyncing = True
        self.session.request_snapshots(sid, tickers)
        self._health(ingest_ns, "resync", sid=sid, detail=f"snapshots of {len(tickers)} markets requested")

    # --- rows -------------------------------------------------------------------------------------

    def _market(self, sid: int, seq: int, ticker: str, market_id: str) -> Market:
        try:
            market = self.books.market(ticker, market_id)
        except FrameError as error:
            error.sid, error.seq, error.market_ticker = sid, seq, ticker
            error.counted, error.about_book = True, ticker in self.books.by_ticker
            raise
        market.sid = sid
        return market

    def _event(
        self,
        kind: int,
        market: Market,
        sid: int,
        seq: int,
        side: int,
        price: int,
        qty: int,
        ts_us: int,
        ingest_ns: int,
    ) -> None:
        row = (kind, self.conn_id, sid, seq, market.ix, market.id_ix, side, price, qty, ts_us, ingest_ns)
        if not self._batch.events.add(*row):
            self.seal()
            self._batch.events.add(*row)
        self._counts.events += 1

    def _level(self, market: Market, side: int, price: int, size: int, ts_us: int, ingest_ns: int) -> None:
        row = (market.ix, market.id_ix, side, price, size, ts_us, ingest_ns)
        if not self._batch.levels.set(*row):
            self.seal()
            self._batch.levels.set(*row)

    def _health(
        self, ts_ns: int, event: str, *, sid: int = 0, seq: int = 0, market_ticker: str = "", detail: str = ""
    ) -> None:
        if len(self._batch.health) >= _HEALTH_ROWS_PER_BATCH:
            self.seal()
        self._batch.health.append(HealthEvent(ts_ns, self.conn_id, event, sid, seq, market_ticker, detail))

    def seal(self) -> None:
        """Hands the current batch on, unless there is nothing in it, and goes on with an empty one."""
        batch = self._batch
        if batch.empty:
            return
        self._counts.batches += 1
        batch.number = self._counts.batches
        batch.names = (len(self.books.tickers), len(self.books.ids))
        self._batch = self._pool.acquire(batch.levels.version)
        self._aim()
        self._deliver(batch)

    def _aim(self) -> None:
        self._path.aim(self.conn_id, self._batch.events, self._batch.levels)


def _count(counter: Counter[str], name: str) -> None:
    """Counts a name that comes from outside; the names kept are bounded in number and length."""
    name = name[:_COUNTED_NAME_CHARS]
    counter[name if name in counter or len(counter) < _COUNTED_NAMES else "(others)"] += 1


def _grid(body: wire.LifecycleBody) -> Grid | None:
    """The grid that a lifecycle event declares: by ranges, else by name; None when it names none."""
    if body.price_ranges:
        ranges = [
            (price_e4(r.start, "start"), price_e4(r.end, "end"), price_e4(r.step, "step"))
            for r in body.price_ranges
        ]
        return Grid(body.price_level_structure or "declared", ranges)
    return GRIDS.get(body.price_level_structure or "")


def _given(field: str, value: int | None) -> int:
    if value is None:
        raise FrameError(field, None, "a value, in this field or its legacy twin")
    return value


def _levels(
    fixed: list[wire.FixedLevel] | None, cents: list[wire.CentLevel] | None, side: str
) -> list[tuple[int, int]]:
    if fixed is not None:
        field = f"{side}_dollars_fp"
        return [(price_e4(price, field), qty_e2(size, field)) for price, size in fixed]
    if cents is not None:
        return [(cents_e4(price, side), contracts_e2(size, side)) for price, size in cents]
    return []


def _of_market(
    error: FieldError, message: wire.OrderbookDelta | wire.OrderbookSnapshot, market: Market
) -> FrameError:
    """The error of a frame whose sequence number has been counted, about one known book."""
    frame_error = FrameError(error.field, error.value, f"{error.expected} (market {market.ticker})")
    frame_error.sid, frame_error.seq, frame_error.market_ticker = message.sid, message.seq, market.ticker
    frame_error.counted = frame_error.about_book = True
    return frame_error
