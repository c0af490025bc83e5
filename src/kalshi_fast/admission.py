"""Which snapshots of a connection may become books: those of markets that exist, on a scale that is proven.

Two things can be wrong with a snapshot that is written well. The exchange answers a subscription to a market
that it does not have with an empty snapshot whose ``market_id`` is "": that is no book, the market is
*absent*, and asked for ever more rarely. And its no side may be on another scale than we believe (``scale``):
such a book would be stored mirrored. It stays unknown, and is said; IN_A_ROW markets with such books end the
connection, and the next one is read the other way, which has to be proven as well.

``hold``: until a connection has proven its scale, nothing of a no side is taken from it but the books that
decide for themselves: snapshots that do not are held back, and the fast path is closed. Whoever knows the
scale beforehand (a capture says it) does without. Not here: sequences and replies (``session``), rows
(``recorder``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple

from kalshi_fast import scale
from kalshi_fast._book import NO, YES
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.scale import DOLLAR_E4, ScaleProof, Weight, name
from kalshi_fast.wire import has_levels

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kalshi_fast._book import OrderBook
    from kalshi_fast.books import Replica
    from kalshi_fast.link import Link
    from kalshi_fast.recorder import Recorder
    from kalshi_fast.wire import SnapshotBody

PROBE: Final = Scale(60 * NS, 3600 * NS)  # between two questions for a market that does not exist
DOUBT_NS: Final = 10 * NS  # so long may a proof take before it is a failure
HELD_NS: Final = 10 * NS  # between two looks at a book that does not decide
DISPUTED: Final = Scale(NS, 600 * NS)  # between two questions for a book that contradicts the scale
QUOTE_NS: Final = NS  # so far from a snapshot is an ask still of the same moment
BOOKS_PER_LOOK: Final = 20
SAID: Final = 20  # markets of one connection whose contradiction is told, once for each

log = logging.getLogger("kalshi_fast.admission")


class Held(NamedTuple):
    """A snapshot that waits for the proof of the scale."""

    no: list[tuple[int, int]]  # as they were told
    ingest_ns: int


def is_absent(body: SnapshotBody) -> bool:
    """The exchange's word for a market that it does not have. A missing ``market_id`` says nothing: frames of
    before 2026 have none."""
    return body.market_id == "" and not has_levels(body)


class Admission:
    """``Admission(link, recorder, hold=…)``: of all connections of a link, one after the other."""

    def __init__(self, link: Link, recorder: Recorder, *, hold: bool) -> None:
        self.scale = ScaleProof(on_yes_scale=link.session.use_yes_price)
        self.held: dict[str, Held] = {}
        self.open_since_ns = 0  # of a connection that has not proven its scale: since when; 0: it has
        self._link = link
        self._recorder = recorder
        self._hold = hold
        self._turned = False
        self._said: set[str] = set()
        self._disputes: dict[str, int] = {}  # markets whose snapshots contradict the scale, and how often
        self._own: set[str] = set()  # markets whose book was taken because it decides for itself
        self._asked: set[str] = set()  # held snapshots that an ask has spoken about
        self._probes: dict[str, int] = {}  # absent markets, and how often they were
        self._crossed: set[str] = set()  # markets whose last snapshot was crossed, however it is read
        self._suspects: dict[str, Replica] = {}
        self._to_look_at: list[Replica] = []

    # --- the connection ---------------------------------------------------------------------------

    def begin(self, now_ns: int) -> None:
        """A new connection."""
        self._release()
        self.scale.begin()
        self._said.clear()
        self._disputes.clear()
        self._own.clear()
        self._suspects.clear()
        self._crossed.clear()
        self._to_look_at.clear()
        self.open_since_ns = now_ns if self._hold else 0
        self._aim()

    def end(self) -> None:
        """The connection is gone."""
        self._release()
        if self.scale.contradicted:
            self.scale.turn()
            self._hold = self._turned = True  # whatever was known beforehand was wrong

    @property
    def closed(self) -> bool:
        """Nothing of a no side may be taken: the scale is not proven (yet), or disproven."""
        return self.scale.contradicted or (self._hold and not self.scale.proven)

    def doubt(self, now_ns: int) -> str:
        """What is wrong with the scale of the connection, in a sentence; nothing while all is well."""
        believed, who = name(on_yes_scale=self.scale.on_yes_scale), f"connection {self._link.conn_id}"
        if self.scale.contradicted:
            return f"{who}: its books contradict the {believed}"
        if not self.closed:
            return ""
        if self._turned and (self.held or not self.scale.confirmations):
            return f"{who}: books contradicted the other scale, and none has proven the {believed}"
        if self.held and self._link.up and now_ns - self.open_since_ns > DOUBT_NS:
            return (
                f"{who}: nothing has proven the {believed} yet, and {len(self.held)} books wait for it:"
                " the channel ticker or REST_URL would tell"
            )
        return ""

    def _aim(self) -> None:
        """The fast path has no time to ask."""
        path = self._link.path
        path.no_on_yes_scale = self.scale.on_yes_scale
        path.follow({} if self.closed else self._link.session.subscriptions)

    # --- snapshots and deltas ---------------------------------------------------------------------

    def absent(self, sid: int, seq: int, ticker: str, ingest_ns: int) -> None:
        """The exchange has said that it has no such market."""
        times = self._probes[ticker] = self._probes.get(ticker, 0) + 1
        self._drop(ticker)
        self._link.session.put_off(sid, ticker, seq, PROBE.bound_ns(times))
        self._recorder.absent.say(
            ticker, "the exchange answers with an empty book that has no market_id", ingest_ns, self._link
        )

    def is_there(self, ticker: str, ingest_ns: int) -> None:
        """The exchange has sent a book of this market, with its id."""
        self._probes.pop(ticker, None)
        self._recorder.absent.found(ticker, ingest_ns, self._link)

    def awake(self, ticker: str) -> None:
        """Something is heard of an absent market: it is asked for at once."""
        if self._probes.get(ticker):
            self._probes[ticker] = 0
            self._link.session.ask_now([ticker])

    def admits(
        self,
        sid: int,
        seq: int,
        ticker: str,
        sides: tuple[list[tuple[int, int]], list[tuple[int, int]]],
        ingest_ns: int,
    ) -> bool:
        """May this snapshot become the market's book? If not, the session knows what to do about it."""
        yes, no = sides
        self._drop(ticker)
        self._own.discard(ticker)
        self._crossed.discard(ticker)
        word = scale.told_by_book(yes, no)
        if word is None:
            if self.closed and any(size for _, size in no):
                self._keep(sid, seq, ticker, no, ingest_ns)
                return False
            if scale.is_crossed_in_both(yes, no):
                self._crossed.add(ticker)  # the exchange's own word
            return not self.scale.contradicted
        what = f"best yes {_shown(max(p for p, q in yes if q))}, no told from {_range(no)}"
        if not self._hear(word, ticker, what, sid, seq, ingest_ns):
            return False
        self._disputes.pop(ticker, None)
        self._own.add(ticker)
        return True

    def admits_delta(self, sid: int, seq: int, ticker: str, side: int, book: OrderBook) -> bool:
        """May this change be used? Asked only while ``closed``. A book that has decided for itself
        goes on. One without no levels could be taken; with its first one it is unknown until a snapshot
        decides."""
        if not self.scale.contradicted and (side == YES or ticker in self._own):
            return True
        if not book.stale:
            self._link.session.put_off(sid, ticker, seq, 0)
        return False

    def _keep(self, sid: int, seq: int, ticker: str, no: list[tuple[int, int]], ingest_ns: int) -> None:
        self.held[ticker] = Held(no, ingest_ns)
        self._recorder.held += 1
        self._link.session.put_off(sid, ticker, seq, HELD_NS)

    def _drop(self, ticker: str) -> None:
        self._asked.discard(ticker)
        if self.held.pop(ticker, None) is not None:
            self._recorder.held -= 1

    def _release(self) -> None:
        self._recorder.held -= len(self.held)
        self.held.clear()
        self._asked.clear()

    def forget(self, tickers: Iterable[str]) -> None:
        """Markets that are not carried any more."""
        for ticker in tickers:
            self._drop(ticker)
            self._probes.pop(ticker, None)
            self._suspects.pop(ticker, None)
            self._crossed.discard(ticker)
            self._own.discard(ticker)
            self._disputes.pop(ticker, None)
            self.scale.forget(ticker)
        self._to_look_at.clear()

    # --- words that decide ------------------------------------------------------------------------

    def quoted(self, ticker: str, ask_e4: int, size_e2: int | None, ingest_ns: int) -> None:
        """The ticker channel's yes ask of a market: of one at the same moment, one word for each snapshot."""
        held = self.held.get(ticker)
        if held is None or ticker in self._asked or abs(ingest_ns - held.ingest_ns) > QUOTE_NS:
            return
        word = scale.told_by_ask(held.no, ask_e4)
        if word is not None:
            self._asked.add(ticker)
            weight = Weight.WORD if scale.is_of_size(held.no, ask_e4, word, size_e2) else Weight.HINT
            what = f"the ticker channel's yes ask {_shown(ask_e4)}, no told from {_range(held.no)}"
            self._hear(word, ticker, what, 0, 0, ingest_ns, weight)

    def listed(self, ticker: str, no_bids: Mapping[int, int], ingest_ns: int) -> None:
        """The no bids of a market as the REST interface has them."""
        held = self.held.get(ticker)
        if held is None:
            return
        word, fitting = scale.told_by_ladder(held.no, no_bids)
        if word is not None:
            weight = Weight.LADDER if fitting >= scale.LADDER_LEVELS else Weight.WORD
            what = f"{fitting} of {len(held.no)} no levels are those of the REST interface"
            self._hear(word, ticker, what, 0, 0, ingest_ns, weight)

    def _hear(
        self,
        word: bool,
        ticker: str,
        what: str,
        sid: int,
        seq: int,
        ingest_ns: int,
        weight: Weight = Weight.WORD,
    ) -> bool:
        proof, was_proven = self.scale, self.scale.proven
        if proof.contradicted:
            return False
        if proof.hear(word, ticker, len(self._link.session.tickers), weight):
            if proof.proven and not was_proven:
                self._prove(ticker, what, ingest_ns)
            return True
        self._recorder.counters.scale_contradictions += 1
        believed = name(on_yes_scale=proof.on_yes_scale)
        if ticker not in self._said and len(self._said) < SAID:
            self._said.add(ticker)
            detail = f"not on the {believed} as believed: {what}; not stored"
            self._recorder.health(
                ingest_ns, self._link, "scale", sid=sid, seq=seq, market_ticker=ticker, detail=detail
            )
            log.error("%s: the book is %s", ticker, detail)
        if sid:
            times = self._disputes[ticker] = self._disputes.get(ticker, 0) + 1
            self._link.session.put_off(sid, ticker, seq, DISPUTED.bound_ns(times))
        if proof.contradicted:
            self._end_connection(believed, ingest_ns)
        return False

    def _prove(self, ticker: str, what: str, ingest_ns: int) -> None:
        proven = f"proven: no-side prices come on the {name(on_yes_scale=self.scale.on_yes_scale)} ({what})"
        self._recorder.health(ingest_ns, self._link, "scale", market_ticker=ticker, detail=proven)
        self.open_since_ns = 0
        self._link.session.ask_now(self.held)
        self._release()
        self._aim()

    def _end_connection(self, believed: str, ingest_ns: int) -> None:
        sent = "true" if self._link.session.use_yes_price else "false"
        why = (
            f"the exchange's books contradict the {believed} (use_yes_price sent: {sent}): all books of this"
            f" connection are unknown; the next one is read on the"
            f" {name(on_yes_scale=not self.scale.on_yes_scale)}, when its books prove that"
        )
        log.error("%s", why)
        self._recorder.health(ingest_ns, self._link, "scale", detail=why)
        self._aim()
        self._link.session.give_up(why)

    # --- books that were taken --------------------------------------------------------------------

    def look(self, now_ns: int) -> None:
        """To be called now and then: looks at some books as they stand. One that is crossed, and so again at
        the next look, is asked for anew: what a scale that changes in mid-connection looks like. Its snapshot
        then speaks for itself."""
        if self.closed or not self._link.up:
            return
        suspects, self._suspects = self._suspects, {}
        for ticker, replica in suspects.items():
            if _is_crossed(replica.book):
                self._accuse(ticker, replica.book, now_ns)
        if not self._to_look_at:
            self._to_look_at = list(self._link.replicas.values())
        for _ in range(min(BOOKS_PER_LOOK, len(self._to_look_at))):
            replica = self._to_look_at.pop()
            ticker = replica.market.ticker
            if ticker not in suspects and ticker not in self._crossed and _is_crossed(replica.book):
                self._suspects[ticker] = replica

    def _accuse(self, ticker: str, book: OrderBook, now_ns: int) -> None:
        subscription = self._link.session.subscription_of(ticker)
        if subscription is None:
            return
        bids = f"best yes {_shown(book.best_bid(YES) or 0)}, best no {_shown(book.best_bid(NO) or 0)}"
        detail = f"the book is crossed ({bids}): a snapshot is asked for"
        sid, seq = subscription.sid, subscription.next_seq
        self._recorder.health(
            now_ns, self._link, "scale", sid=sid, seq=seq, market_ticker=ticker, detail=detail
        )
        log.warning("%s: %s", ticker, detail)
        self._link.session.lose(sid, [ticker], seq, unusable=True)
        self._link.take_losses(now_ns)


def _is_crossed(book: OrderBook) -> bool:
    if book.stale:
        return False
    best_yes, best_no = book.best_bid(YES), book.best_bid(NO)
    return best_yes is not None and best_no is not None and best_yes + best_no > DOLLAR_E4


def _shown(price_e4: int) -> str:
    return f"{price_e4 // DOLLAR_E4}.{price_e4 % DOLLAR_E4:04d}"


def _range(levels: list[tuple[int, int]]) -> str:
    told = [price for price, size in levels if size]
    return f"{_shown(min(told))} to {_shown(max(told))}"
