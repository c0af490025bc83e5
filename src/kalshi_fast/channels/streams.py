"""What all connections bring of the channels beside the order book becomes rows here, each thing once.

Trades have ids: whichever connection (or REST) is first counts. Tickers and announcements have none: their
rows follow one connection, and another takes over when that one does not carry the channel any more. What
was missed is put down as an ``Interruption`` or a market that has to be asked for, until ``backfill`` takes
it up. Not here: sequences (``link``), what is known of markets (``catalogue``), REST.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from kalshi_fast.backoff import NS
from kalshi_fast.batch import packed_bytes, text_bytes
from kalshi_fast.channels import grid, session
from kalshi_fast.channels.catalogue import Catalogue
from kalshi_fast.channels.messages import (
    EventBody,
    EventFeeBody,
    EventFeeUpdate,
    EventLifecycle,
    LifecycleBody,
    MarketLifecycle,
    MultivariateBody,
    MultivariateLifecycle,
)
from kalshi_fast.channels.recent import Recent
from kalshi_fast.channels.reference_stream import References
from kalshi_fast.channels.rows import LifecycleRow, TradeRow, ticker_row, trade_row
from kalshi_fast.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.channels.link import ChannelLink
    from kalshi_fast.channels.messages import TickerUpdate, Trade
    from kalshi_fast.recorder import Recorder
    from kalshi_fast.rest_bodies import RestMarket

MOST_BODY_BYTES: Final = 64 * 1024
MOST_INTERRUPTIONS: Final = 1000
RESTART_NS: Final = 60 * NS
MOST_ASKED: Final = 20_000  # markets that wait to be asked for

log = logging.getLogger("kalshi_fast.channels")

Announcement: TypeAlias = MarketLifecycle | EventLifecycle | EventFeeUpdate | MultivariateLifecycle


class Listener(Protocol):
    """Whoever wants to hear of the life of markets. ``found``: those that it asks REST for itself."""

    found: dict[str, None]

    def announced(self, body: LifecycleBody) -> None: ...

    def resumed(self) -> None:
        """The announcements go on after they may have been missed."""


class Interruption(NamedTuple):
    """Trades may be missing from the first of these receive times to the second."""

    since_ns: int
    until_ns: int


class Streams:
    """``Streams(recorder, tickers)``: rows of trades and tickers of these markets, and of all
    announcements."""

    def __init__(self, recorder: Recorder, tickers: Iterable[str], *, recent: Recent | None = None) -> None:
        self.recorder = recorder
        self.wanted = set(tickers)
        self.catalogue = Catalogue()
        self.interruptions: list[Interruption] = []
        self.to_ask: dict[str, None] = {}  # markets of which nothing is known, or not enough
        self.listener: Listener | None = None
        self.references = References(recorder, self._leads)
        self._recent = Recent() if recent is None else recent  # an empty one is false
        self._before_ns = 0  # until when recorders before have had all trades; 0: no matter
        self._warned: set[str] = set()  # channels of which it has been said that they are refused
        self._leaders: dict[str, ChannelLink] = {}
        self._seen_ns: dict[ChannelLink, int] = {}  # until when no trade was missed on a connection
        self._missed_ns: dict[ChannelLink, int] = {}  # since when trades are missed on it

    @property
    def forgotten_us(self) -> int:
        """Trades of before this moment cannot be told from those that have been stored."""
        return self._recent.forgotten_us

    def hold(self, *, held: bool) -> None:
        """While trades are filled more of them are remembered: the last to come are the oldest."""
        self._recent.held = held

    def go_on_after(self, trades: Iterable[tuple[int, str]], forgotten_us: int) -> None:
        """The latest trades (time, id) of recorders before: what has been traded since is missing. And an
        interruption that such a one has not lived to make good lies a little further back."""
        latest_us = 0
        for ts_us, trade_id in trades:
            self._recent.add(trade_id, ts_us)
            latest_us = max(latest_us, ts_us)
        self._recent.forgotten_us = max(self._recent.forgotten_us, forgotten_us)
        if latest_us:
            self._before_ns = latest_us * 1000 - RESTART_NS

    def add(self, tickers: Iterable[str]) -> None:
        """These markets too, from now on."""
        self.wanted.update(tickers)

    def missed(self, since_ns: int, until_ns: int) -> None:
        """Trades may be missing from the first of these receive times to the second."""
        if len(self.interruptions) == MOST_INTERRUPTIONS:  # then the last one becomes longer
            last = self.interruptions.pop()
            since_ns, until_ns = min(since_ns, last.since_ns), max(until_ns, last.until_ns)
        self.interruptions.append(Interruption(since_ns, until_ns))

    def remove(self, tickers: Iterable[str]) -> None:
        """These markets no more."""
        self.wanted.difference_update(tickers)

    # --- interruptions ----------------------------------------------------------------------------

    def follow(self, link: ChannelLink, now_ns: int) -> None:
        """Takes note of what the session of a connection has to say about its channels."""
        state = link.session
        if state.interrupted:
            names, state.interrupted = set(state.interrupted), []
            self.references.interrupted(link, names, now_ns)
            if session.TRADE in names:
                self._missed_ns.setdefault(link, self._seen_ns.get(link, now_ns))
            if session.LIFECYCLE in names:
                # Announcements do not come twice, but what they say can be asked for.
                self.ask(self._unattended())
        if state.granted:
            names, state.granted = set(state.granted), []
            self.references.granted(link, names, now_ns)
            if session.TRADE in names:
                since_ns = self._missed_ns.pop(link, None)
                if self._before_ns:
                    since_ns, self._before_ns = self._before_ns, 0
                if since_ns is not None:
                    self.missed(since_ns, now_ns)
                self._seen_ns[link] = now_ns
            if session.LIFECYCLE in names:
                self.ask(ticker for ticker in self._unattended() if ticker not in self.catalogue)
                if self.listener is not None:
                    self.listener.resumed()

    def end(self, now_ns: int) -> None:
        """No channel will be carried again: trades that are still missed on a connection stay missed."""
        for since_ns in self._missed_ns.values():
            self.missed(since_ns, now_ns)
        self._missed_ns.clear()

    def _unattended(self) -> list[str]:
        found = () if self.listener is None else self.listener.found
        return sorted(ticker for ticker in self.wanted if ticker not in found)

    def ask(self, tickers: Iterable[str]) -> None:
        """These markets are to be asked for by REST."""
        for ticker in tickers:
            if len(self.to_ask) < MOST_ASKED:
                self.to_ask[ticker] = None

    def warn(self, refused: Iterable[str], why: str) -> None:
        """These channels are wanted and not to be had; once for each."""
        for channel in refused:
            if channel not in self._warned:
                self._warned.add(channel)
                log.warning("the exchange refuses the channel %s, which is not recorded: %s", channel, why)

    # --- rows -------------------------------------------------------------------------------------

    def trade(self, link: ChannelLink, message: Trade, ingest_ns: int) -> None:
        """Raises FrameError for a trade that cannot be."""
        if message.msg.market_ticker in self.wanted:
            try:
                row = trade_row(message, link.conn_id, ingest_ns, self.recorder.counters.losses)
            except FrameError as error:
                ticker = message.msg.market_ticker
                told = FrameError(error.field, error.value, f"{error.expected} (trade of market {ticker})")
                told.kind, told.sid, told.market_ticker = "trade", message.sid, ticker
                raise told from error
            self._keep_trade(row)
        self._seen_ns[link] = ingest_ns

    def filled(self, row: TradeRow) -> bool:
        """A trade by REST; False when it has come before."""
        if row.market_ticker not in self.wanted or not self._keep_trade(row):
            return False
        self.recorder.counters.trades_filled += 1
        return True

    def lacks(self, row: TradeRow) -> bool:
        """This trade is wanted, and not known to have come."""
        return row.market_ticker in self.wanted and row.trade_id not in self._recent

    def _keep_trade(self, row: TradeRow) -> bool:
        counts = self.recorder.counters
        if not self._recent.add(row.trade_id, row.ts_us):
            counts.trades_repeated += 1
            return False
        counts.trades += 1
        self.recorder.keep("trades", row)
        return True

    def ticker(self, link: ChannelLink, message: TickerUpdate, ingest_ns: int) -> None:
        """A row of it, where it is of a market that is wanted."""
        body = message.msg
        if body.market_ticker not in self.wanted or not self._leads(link, session.TICKER):
            return
        row = ticker_row(body, link.conn_id, message.sid, ingest_ns, self.recorder.counters.losses)
        self.recorder.counters.tickers += 1
        self.recorder.keep("tickers", row)
        self.recorder.quoted(body.market_ticker, row.yes_ask_e4, row.yes_ask_qty_e2, ingest_ns)

    def announcement(
        self, link: ChannelLink, channel: str, message: Announcement, body: str, ingest_ns: int
    ) -> None:
        """``body``: the JSON of its ``msg``. Raises FrameError for one that is too long."""
        check_body(body)
        if not self._leads(link, channel):
            return
        told = message.msg
        row = lifecycle_row(message, body, link.conn_id, ingest_ns)
        self.recorder.counters.lifecycle += 1
        self.recorder.keep("market_lifecycle", row, packed_bytes(row))
        if isinstance(told, LifecycleBody):
            self._market(told, ingest_ns)

    def raw(self, link: ChannelLink, channel: str, payload: bytes, ingest_ns: int) -> None:
        """Raises FrameError for one that is too long."""
        if self._leads(link, channel):
            self.recorder.raw(payload, ingest_ns, link, channel)

    def _market(self, body: LifecycleBody, ingest_ns: int) -> None:
        losses = self.recorder.counters.losses
        if not grid.announce(self.recorder.books, body.market_ticker, body, losses) and self._is_wanted(
            body.market_ticker
        ):
            self.ask([body.market_ticker])
        if body.event_type in ("created", "activated"):
            self.recorder.awake(body.market_ticker)
        if self.listener is not None:
            self.listener.announced(body)
        if isinstance(body, MultivariateBody) and not self._is_wanted(body.market_ticker):
            return  # thousands come and go: only those that are recorded have a row of their own
        known = self.catalogue.apply(body, ingest_ns)
        if known is None:
            self.ask([body.market_ticker])
        else:
            self.recorder.keep("markets", known, packed_bytes(known))

    def _is_wanted(self, ticker: str) -> bool:
        return ticker in self.wanted or (self.listener is not None and ticker in self.listener.found)

    def learned(self, market: RestMarket, asked_ns: int) -> None:
        """What REST says of a market, asked at that receive time."""
        grid.announce(
            self.recorder.books, market.ticker, market, self.recorder.counters.losses, "rest_market"
        )
        known = self.catalogue.learn(market, asked_ns)
        if known is not None:
            self.recorder.keep("markets", known, packed_bytes(known))

    def _leads(self, link: ChannelLink, channel: str) -> bool:
        leader = self._leaders.get(channel)
        if leader is None or not leader.session.carries(channel):
            self._leaders[channel] = leader = link
        return leader is link


def check_body(body: str) -> None:
    """Raises FrameError for one that is too long for a row."""
    if (size := text_bytes(body)) > MOST_BODY_BYTES:
        raise FrameError("msg", f"{size} bytes", f"at most {MOST_BODY_BYTES} bytes")


def lifecycle_row(message: Announcement, body: str, conn_id: int, ingest_ns: int) -> LifecycleRow:
    """``body``: the JSON of its ``msg``."""
    told, kind = message.msg, str(message.__struct_config__.tag)
    if isinstance(told, EventBody | EventFeeBody):
        ticker, event = "", told.event_ticker
    else:
        ticker, kind = told.market_ticker, told.event_type or kind
        event = _text((told.additional_metadata or {}).get("event_ticker"))
    if isinstance(told, MultivariateBody):
        event = told.event_ticker or event
    return LifecycleRow(conn_id, message.sid, message.seq or 0, ticker, event, kind, body, ingest_ns)


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
