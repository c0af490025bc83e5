"""One connection's frames: decode, count the sequence, apply to the books, and have the rows written.

A link joins the protocol session of one connection with the books as that connection has them. Frames that
cannot be used are counted, kept aside, and make unknown what they may have been about: their market's book
until the next snapshot, all books of a subscription whose number cannot be read, all of the connection
where the subscription cannot. Deltas that arrive while a book is unknown are stored and not applied. It
knows no sockets: bytes and receive times come in; what to send waits in the session's outbox. Not here:
rows (``recorder``), the rules of the protocol (``session``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kalshi_fast import wire
from kalshi_fast._book import NO, YES
from kalshi_fast._clock import receive_ns
from kalshi_fast._columns import DELTA
from kalshi_fast._decode import MAX_PRICE_E4, cents_e4, contracts_e2, price_e4, qty_e2
from kalshi_fast._path import DeltaPath
from kalshi_fast.admission import Admission, is_absent
from kalshi_fast.books import Replica
from kalshi_fast.channels.grid import announce
from kalshi_fast.errors import FieldError, FrameError
from kalshi_fast.scale import name
from kalshi_fast.subscription import Verdict
from kalshi_fast.times import exchange_us

if TYPE_CHECKING:
    from kalshi_fast._book import OrderBook
    from kalshi_fast.books import Market
    from kalshi_fast.recorder import Recorder
    from kalshi_fast.session import Session

_KEY_SAMPLE_FRAMES = 1024  # of those decoded with msgspec, one in so many is read again for unknown keys


class Link:
    """``Link(recorder, session)``: feeds the frames of successive connections into books and rows.

    ``hold``: the scale of no-side prices has to be proven first (``admission``).
    """

    def __init__(self, recorder: Recorder, session: Session, *, hold: bool = False) -> None:
        self.session = session
        self.conn_id = 0
        self.up = False
        self.watched = False
        self._requests = 0
        self._decoded = 0  # frames that went the long way
        self.replicas: dict[str, Replica] = {}
        self.path = DeltaPath(session.subscriptions, session.use_yes_price)
        session.activity = self._activity
        self._recorder = recorder
        self.admission = Admission(self, recorder, hold=hold)
        recorder.join(self)

    def _activity(self, ticker: str) -> int:
        replica = self.replicas.get(ticker)
        return 0 if replica is None else replica.book.updates

    # --- the connection ---------------------------------------------------------------------------

    def on_connected(self, conn_id: int, now_ns: int) -> None:
        """A new connection is up; what to send waits in the session's outbox."""
        self.conn_id = conn_id
        self.up = True
        self.path.last_frame_ns = now_ns
        self._recorder.aim(self)
        self.admission.begin(now_ns)
        self.session.opened()
        detail = f"no-side prices come on the {name(on_yes_scale=self.admission.scale.on_yes_scale)}"
        if self.admission.scale.on_yes_scale != self.session.use_yes_price:
            sent = "true" if self.session.use_yes_price else "false"
            detail += f", though use_yes_price is sent as {sent}: its books have shown that"
        self._recorder.health(now_ns, self, "connect", detail=detail)

    def on_disconnected(self, now_ns: int, reason: str) -> None:
        """The connection is gone: from now on its books are unknown."""
        self.up = False
        self._recorder.health(now_ns, self, "disconnect", detail=reason)
        self.session.closed()
        self.take_losses(now_ns)
        self.admission.end()

    def on_tick(self, now_ns: int) -> None:
        """To be called now and then: what waits for its time in the session may be due."""
        self.session.tick()
        self.take_losses(now_ns)

    def add(self, tickers: list[str]) -> None:
        """These markets too, from now on."""
        self.session.add(tickers)
        self.take_losses(receive_ns())

    def remove(self, tickers: list[str]) -> None:
        """These markets no more: their books are unknown from now on, and the rows say so."""
        self.session.remove(tickers)
        self.take_losses(receive_ns())

    def forget(self, tickers: set[str]) -> None:
        """Lets go of the books of markets that are not carried any more."""
        if not tickers.isdisjoint(self.replicas):
            self.path.forget(tickers)
            for ticker in tickers:
                self.replicas.pop(ticker, None)

    # --- frames -----------------------------------------------------------------------------------

    def on_full(self) -> None:
        """The fast path has filled a batch."""
        self._recorder.seal()

    def watch(self) -> None:
        """A strategy wants to see the rows of every read."""
        self.watched = self.path.every_read = True

    def look(self) -> None:
        """The strategy sees what has been written so far."""
        self._recorder.look()

    def feed(self, payload: bytes, ingest_ns: int) -> None:
        """A frame from elsewhere than a socket: the fast path first, as there."""
        taken = self.path.take(payload, ingest_ns)
        if taken == 0:
            self.on_frame(payload, ingest_ns)
        elif taken == 2:
            self.on_full()

    def on_frame(self, payload: bytes, ingest_ns: int) -> None:
        """One text frame that the fast path has left alone, and the time it was read from the socket."""
        counts = self._recorder.counters
        counts.frames += 1
        try:
            message = wire.decode(payload, counts.losses)
            if type(message) is wire.OrderbookDelta:
                self._on_delta(message, ingest_ns)
            elif type(message) is wire.OrderbookSnapshot:
                self._on_snapshot(message, ingest_ns)
            else:
                self._on_other(message, ingest_ns)
        except FieldError as error:
            self._reject(payload, ingest_ns, error)
        else:
            counts.losses.end(wire.type_of(message))
            self._decoded += 1
            if self._decoded % _KEY_SAMPLE_FRAMES == 1:
                counts.add_unknown_keys(wire.unknown_keys(payload))
        self.path.last_frame_ns = ingest_ns
        self._recorder.seal_when_full()

    def _on_delta(self, message: wire.OrderbookDelta, ingest_ns: int) -> None:
        """A delta that DeltaPath has left alone: the same steps, and what can go wrong in them."""
        body = message.msg
        replica = self._replica(message, body.market_ticker, body.market_id, ingest_ns)
        if replica is None:
            return
        try:
            if body.price_dollars:
                price = price_e4(body.price_dollars)
            else:
                price = cents_e4(_given("price_dollars", body.price))
            fixed = body.delta_fp
            change = qty_e2(fixed) if fixed else contracts_e2(_given("delta_fp", body.delta))
            ts_us = self._exchange_us(body, ingest_ns)
            side = YES if body.side == "yes" else NO
            price = self._own_scale(side, price)
            book = replica.book
            if book.stale:
                self.admission.awake(body.market_ticker)
            if self.admission.closed and not self.admission.admits_delta(
                message.sid, message.seq, body.market_ticker, side, book
            ):
                self.take_losses(ingest_ns)
                return
            after = None
            if not book.stale:
                if replica.subscription is not self.session.subscriptions[message.sid]:
                    self._recorder.counters.foreign += 1
                    return  # the book is another subscription's, and has this change from there
                self._fit(replica, book, price, ingest_ns)
                after = book.apply_delta(side, price, change)
        except FieldError as error:
            raise _of_market(error, message, replica) from error
        if not replica.active:
            return
        recorder = self._recorder
        if after is not None:
            recorder.level(replica.market, side, price, after, ts_us, ingest_ns)
        recorder.event(
            DELTA,
            replica.market,
            self.conn_id,
            message.sid,
            message.seq,
            side,
            price,
            change,
            ts_us,
            ingest_ns,
        )
        recorder.counters.deltas += 1

    def _exchange_us(self, body: wire.DeltaBody, ingest_ns: int) -> int:
        """The exchange's time of a delta, ours where it is missing."""
        losses = self._recorder.counters.losses
        try:
            ts_us = exchange_us(body.ts, body.ts_ms)
        except FrameError:
            losses.field("orderbook_delta", "ts")
            return ingest_ns // 1000
        if ts_us is None:
            losses.field("orderbook_delta", "ts_ms")
            return ingest_ns // 1000
        return ts_us

    def _on_snapshot(self, message: wire.OrderbookSnapshot, ingest_ns: int) -> None:
        body = message.msg
        if is_absent(body):
            if self._is_carried(message.sid, message.seq, body.market_ticker, ingest_ns):
                self.admission.absent(message.sid, message.seq, body.market_ticker, ingest_ns)
                self.take_losses(ingest_ns)
            return
        replica = self._replica(message, body.market_ticker, body.market_id, ingest_ns)
        if replica is None:
            return
        market = replica.market
        try:
            told = levels_told(body)
        except FieldError as error:
            raise _of_market(error, message, replica) from error
        self.admission.is_there(market.ticker, ingest_ns)
        if not self.admission.admits(message.sid, message.seq, market.ticker, told, ingest_ns):
            self.take_losses(ingest_ns)
            return
        serves = replica.active or market.book.stale  # else it is a standby's, of which no rows are written
        before = market.book.ladders() if serves else ([], [])
        book = replica.book_for_snapshot()
        try:
            sides = (told[YES], [(self._own_scale(NO, price), size) for price, size in told[NO]])
            for levels in sides:
                for price, _ in levels:
                    self._fit(replica, book, price, ingest_ns)
            book.apply_snapshot(*sides)
        except FieldError as error:
            raise _of_market(error, message, replica) from error
        replica.book = book
        self.session.repaired(message.sid, market.ticker)
        replica.subscription = self.session.subscriptions[message.sid]
        self._recorder.counters.snapshots += 1
        if serves:
            market.activate(replica)
            self._recorder.book(replica, before, message.seq, ingest_ns)

    def _own_scale(self, side: int, price: int) -> int:
        """With ``use_yes_price`` the no side comes on the yes scale; books and rows never have it."""
        return MAX_PRICE_E4 - price if side == NO and self.admission.scale.on_yes_scale else price

    def _on_other(self, message: wire.Message | wire.Unknown, ingest_ns: int) -> None:
        """Everything that is no book frame: its seq counts, replies go to the session."""
        session = self.session
        sid, seq = getattr(message, "sid", None), getattr(message, "seq", None)
        if (
            sid is not None
            and seq is not None
            and sid in session.subscriptions
            and not self._in_sequence(sid, seq, ingest_ns)
        ):
            return
        if isinstance(message, wire.Subscribed):
            session.on_subscribed(message)
        elif isinstance(message, wire.Ok):
            session.on_ok(message)
        elif isinstance(message, wire.Error):
            detail = f"error {message.msg.code}: {message.msg.msg}"
            self._recorder.health(ingest_ns, self, "error", sid=sid or 0, seq=seq or 0, detail=detail)
            session.on_error(message)
        elif isinstance(message, wire.Unsubscribed):
            session.on_unsubscribed(message)
        elif isinstance(message, wire.MarketLifecycle):
            self._on_lifecycle(message)
        elif isinstance(message, wire.Unknown):
            self._recorder.counters.add_unknown_type(message.type)
        self.take_losses(ingest_ns)

    def _on_lifecycle(self, message: wire.MarketLifecycle) -> None:
        """The exchange says which prices a market uses: its books move to that grid."""
        losses = self._recorder.counters.losses
        announce(self._recorder.books, message.msg.market_ticker, message.msg, losses)

    def _fit(self, replica: Replica, book: OrderBook, price: int, ingest_ns: int) -> None:
        """The grid widens to a price that comes; where another was declared that is said, once for each."""
        if replica.fit_grid(book, price):
            market = replica.market
            grid, market.declared_grid = market.declared_grid, None
            detail = (
                f"the price {price} (1/10,000 dollar) is off the declared grid {grid!r}, which is widened"
            )
            self._recorder.health(ingest_ns, self, "grid", market_ticker=market.ticker, detail=detail)

    # --- what can go wrong ------------------------------------------------------------------------

    def _in_sequence(self, sid: int, seq: int, ingest_ns: int) -> bool:
        """Counts the frame; False when it must not be used: seen before, or of no subscription of ours."""
        verdict = self.session.receive(sid, seq)
        if verdict is Verdict.IN_ORDER:
            return True
        counts = self._recorder.counters
        if verdict is Verdict.REPEATED:
            counts.repeated += 1
            self.take_losses(ingest_ns)  # too many of them, and the subscription is over
            return False
        if verdict is Verdict.FOREIGN:
            counts.foreign += 1
            return False
        missing = self.session.first_missing_seq
        counts.gaps += 1
        self._recorder.health(
            ingest_ns, self, "gap", sid=sid, seq=missing, detail=f"numbers {missing} to {seq - 1} are missing"
        )
        self.take_losses(ingest_ns)
        return True

    def take_losses(self, ingest_ns: int) -> None:
        """Books that the session gave up: marked, said in the rows, replaced by a twin's if there is one."""
        session = self.session
        if session.lost:
            losses, session.lost = session.lost, []
            self._recorder.lose(self, losses, ingest_ns)
        if session.requests != self._requests:
            detail = f"snapshots asked for, with {session.requests - self._requests} commands"
            self._recorder.counters.resyncs += session.requests - self._requests
            self._requests = session.requests
            self._recorder.health(ingest_ns, self, "resync", detail=detail)

    def _reject(self, payload: bytes, ingest_ns: int, error: FieldError) -> None:
        """Keeps the frame aside and draws the consequence for the books that it was about."""
        frame_error = (
            error if isinstance(error, FrameError) else FrameError(error.field, error.value, error.expected)
        )
        self._recorder.reject(payload, ingest_ns, self, frame_error)
        sid, seq, ticker = frame_error.sid, frame_error.seq, frame_error.market_ticker
        if sid is None or (seq is None and not frame_error.counted):
            if frame_error.about_book:
                self._doubt_all(sid, ingest_ns)
            return
        assert seq is not None  # noqa: S101 - it has been counted, or will be
        if not frame_error.counted and not self._in_sequence(sid, seq, ingest_ns):
            return
        if not frame_error.about_book:
            return
        subscription = self.session.subscriptions[sid]
        if ticker is not None and ticker in subscription.tickers:
            doubtful = [ticker]
        else:
            doubtful = sorted(subscription.tickers)
        self.session.lose(sid, doubtful, seq, unusable=True)
        self.take_losses(ingest_ns)

    def _is_carried(self, sid: int, seq: int, ticker: str, ingest_ns: int) -> bool:
        """Counts a frame about a book; False when it must not be used."""
        if not self._in_sequence(sid, seq, ingest_ns):
            return False
        if not self.session.carries(sid, ticker):
            self._recorder.counters.foreign += 1
            return False
        return True

    def _doubt_all(self, sid: int | None, ingest_ns: int) -> None:
        """A frame of a book that cannot be counted: whatever it may have been about is unknown. None: it
        may have been of any subscription."""
        subscriptions = self.session.subscriptions
        for number in sorted(subscriptions) if sid is None else [sid]:
            subscription = subscriptions.get(number)
            if subscription is not None:
                tickers = sorted(subscription.tickers)
                self.session.lose(number, tickers, subscription.next_seq, unusable=True)
        self.take_losses(ingest_ns)

    def _replica(
        self,
        message: wire.OrderbookDelta | wire.OrderbookSnapshot,
        ticker: str,
        market_id: str | None,
        ingest_ns: int,
    ) -> Replica | None:
        """The book that a frame is about; None when the frame must not be used."""
        sid, seq = message.sid, message.seq
        if not self._is_carried(sid, seq, ticker, ingest_ns):
            return None
        try:
            market = self._market(message, ticker, market_id or "")
        except FrameError as error:
            error.kind = wire.type_of(message)
            error.sid, error.seq, error.market_ticker = sid, seq, ticker
            error.counted = error.about_book = True
            raise
        replica = self.replicas.get(ticker)
        if replica is None:
            replica = self.replicas[ticker] = Replica(market, self)
            self.path.add(ticker, replica)
        return replica

    def _market(
        self, message: wire.OrderbookDelta | wire.OrderbookSnapshot, ticker: str, market_id: str
    ) -> Market:
        """The market of a frame; an id that cannot be used costs the id alone."""
        books = self._recorder.books
        try:
            return books.market(ticker, market_id)
        except FrameError as error:
            if error.field != "market_id":
                raise
            self._recorder.counters.losses.field(wire.type_of(message), "market_id")
            return books.market(ticker, "")


def _given(field: str, value: int | None) -> int:
    if value is None:
        raise FrameError(field, None, "a value, in this field or its legacy twin")
    return value


def levels_told(body: wire.SnapshotBody) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Both sides of a snapshot as the exchange has told them. Raises FieldError."""
    return _levels(body.yes_dollars_fp, body.yes, "yes"), _levels(body.no_dollars_fp, body.no, "no")


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
    error: FieldError, message: wire.OrderbookDelta | wire.OrderbookSnapshot, replica: Replica
) -> FrameError:
    """The error of a frame whose sequence number has been counted, about one known book."""
    ticker = replica.market.ticker
    frame_error = FrameError(error.field, error.value, f"{error.expected} (market {ticker})")
    frame_error.kind = wire.type_of(message)
    frame_error.sid, frame_error.seq, frame_error.market_ticker = message.sid, message.seq, ticker
    frame_error.counted = frame_error.about_book = True
    return frame_error
