"""What is traded: trades that explain changes of the books, and the tickers that follow from them.

When resting orders at the best price of a side become fewer, somebody may have taken them: about every second
time a trade says so (never in a recording). Trades are drawn from the seed, are told on the ``trade``
channel, and are kept for those who ask by REST. Nothing is traded before somebody wants to hear of it. Not
here: numbers (``client``), REST (``rest``).
"""

from __future__ import annotations

import time
import uuid
import zlib
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.simulator.subscription import FILL, TICKER, TRADE
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.frames import TrueBook
    from kalshi_fast.simulator.source import Change
    from kalshi_fast.simulator.subscription import Subscription

MOST_TRADES: Final = 1_000_000
OURS_EVERY: Final = 10  # one trade in so many is of an order of the client
_TAKEN: Final = 0.5  # of the changes that could be trades


@dataclass(frozen=True, slots=True)
class Traded:
    trade_id: str
    ticker: str
    taker_side: str
    yes_price_e4: int
    qty_e2: int
    ts_ms: int

    @property
    def ts_us(self) -> int:
        """The microseconds that only REST tells: of the trade, always the same."""
        return self.ts_ms * 1000 + zlib.crc32(self.trade_id.encode()) % 1000


@dataclass(slots=True)
class _Totals:
    trades: int = 0
    volume_e2: int = 0
    open_interest_e2: int = 0
    dollars_e6: int = 0
    last: Traded | None = None


class Tape:
    """``trades``: all of them in order, the oldest forgotten beyond MOST_TRADES; ``first``: how many were."""

    def __init__(self, exchange: Exchange) -> None:
        self.active = False
        self.trades: list[Traded] = []
        self.first = 0
        self._exchange = exchange
        self._rng = Random(f"{exchange.seed} tape")  # noqa: S311 - a simulation
        self._totals: dict[str, _Totals] = {}
        # What was really traded a recording of books does not tell, and nothing is invented for it.
        self._invents = isinstance(exchange.source, SyntheticMarkets)

    def counts(self) -> dict[str, int]:
        """How many trades each market has had."""
        return {ticker: totals.trades for ticker, totals in self._totals.items()}

    def volume_e2(self, ticker: str) -> int:
        """What has been traded of a market, in hundredths of contracts."""
        totals = self._totals.get(ticker)
        return 0 if totals is None else totals.volume_e2

    def open_interest_e2(self, ticker: str) -> int:
        """What is outstanding of a market, in hundredths of contracts."""
        totals = self._totals.get(ticker)
        return 0 if totals is None else totals.open_interest_e2

    def last_price_e4(self, ticker: str) -> int:
        """Of yes, in the last trade; 0 before the first."""
        totals = self._totals.get(ticker)
        return 0 if totals is None or totals.last is None else totals.last.yes_price_e4

    def best(self, ticker: str) -> tuple[int, int]:
        """The best prices of yes at which somebody buys and sells; 0 and a dollar where nobody does."""
        book = self._exchange.source.books[ticker]
        return _best(book, 0)[0], 10_000 - _best(book, 1)[0]

    def observe(self, change: Change, now_ns: int) -> None:
        """A change that has been played."""
        if not (self.active and self._invents) or change.level is None:
            return
        side, price_e4, delta_e2, _ = change.level
        if delta_e2 >= 0:
            return
        book = self._exchange.source.books[change.ticker]
        if max(book.sides[side], default=0) > price_e4 or self._rng.random() >= _TAKEN:
            return
        trade = Traded(
            str(uuid.uuid4()),  # not from the seed: a recorder knows the trades of another play by their ids
            change.ticker,
            "yes" if side else "no",
            10_000 - price_e4 if side else price_e4,
            -delta_e2,
            now_ns // 1_000_000,
        )
        self._take_down(trade)
        self._tell(book, trade, now_ns // 1000)

    def _take_down(self, trade: Traded) -> None:
        self.trades.append(trade)
        if len(self.trades) > MOST_TRADES:
            del self.trades[: MOST_TRADES // 2]
            self.first += MOST_TRADES // 2
        self._exchange.stats.trades += 1
        totals = self._totals.setdefault(trade.ticker, _Totals())
        totals.trades += 1
        totals.volume_e2 += trade.qty_e2
        totals.open_interest_e2 += trade.qty_e2 if trade.taker_side == "yes" else -(trade.qty_e2 // 2)
        totals.open_interest_e2 = max(totals.open_interest_e2, 0)
        totals.dollars_e6 += trade.qty_e2 * trade.yes_price_e4
        totals.last = trade

    def _tell(self, book: TrueBook, trade: Traded, ts_us: int) -> None:
        for client, subscription in self._exchange.heard_by(TRADE, trade.ticker):
            client.message("trade", subscription, _body(trade), numbered=True)
        if self._exchange.stats.trades % OURS_EVERY == 0:
            for client, subscription in self._exchange.carriers(FILL):
                client.fill(subscription, _fill(trade))
        for client, subscription in self._exchange.heard_by(TICKER, trade.ticker):
            self.ticker(client, subscription, book, ts_us)

    def ticker(self, client: Client, subscription: Subscription, book: TrueBook, ts_us: int) -> None:
        """How a market stands now, for one subscription."""
        totals = self._totals.get(book.ticker, _Totals())
        (bid, bid_size), (ask, ask_size) = (_best(book, side) for side in (0, 1))
        last = totals.last
        body = {
            "market_id": book.market_id,
            "market_ticker": book.ticker,
            "price_dollars": "" if last is None else dollars(last.yes_price_e4),
            "yes_bid_dollars": dollars(bid),
            "yes_ask_dollars": dollars(10_000 - ask),
            "volume_fp": contracts(totals.volume_e2),
            "open_interest_fp": contracts(totals.open_interest_e2),
            "dollar_volume": totals.dollars_e6 // 1_000_000,
            "dollar_open_interest": totals.open_interest_e2 // 100,
            "yes_bid_size_fp": contracts(bid_size),
            "yes_ask_size_fp": contracts(ask_size),
            "last_trade_size_fp": contracts(0 if last is None else last.qty_e2),
            "ts": ts_us // 1_000_000,
            "ts_ms": ts_us // 1000,
            "time": _rfc3339(ts_us),
        }
        client.message("ticker", subscription, body, numbered=False)
        self._exchange.stats.tickers_sent += 1


def _best(book: TrueBook, side: int) -> tuple[int, int]:
    levels = book.sides[side]
    return max(levels.items()) if levels else (0, 0)


def _body(trade: Traded) -> dict[str, Any]:
    return {
        "trade_id": trade.trade_id,
        "market_ticker": trade.ticker,
        "yes_price_dollars": dollars(trade.yes_price_e4),
        "no_price_dollars": dollars(10_000 - trade.yes_price_e4),
        "count_fp": contracts(trade.qty_e2),
        "taker_side": trade.taker_side,
        "taker_outcome_side": trade.taker_side,
        "taker_book_side": "bid" if trade.taker_side == "yes" else "ask",
        "is_block_trade": False,
        "ts": trade.ts_ms // 1000,
        "ts_ms": trade.ts_ms,
    }


def _rfc3339(ts_us: int) -> str:
    """To the microsecond, without the trailing zeros of the fraction."""
    second, us = divmod(ts_us, 1_000_000)
    fraction = f".{us:06d}".rstrip("0") if us else ""
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(second))}{fraction}Z"


def _fill(trade: Traded) -> dict[str, Any]:
    """As the private channel ``fill`` tells it."""
    return {
        "trade_id": trade.trade_id,
        "order_id": str(uuid.uuid5(uuid.NAMESPACE_OID, trade.trade_id)),
        "market_ticker": trade.ticker,
        "is_taker": True,
        "side": trade.taker_side,
        "action": "buy",
        "yes_price_dollars": dollars(trade.yes_price_e4),
        "count_fp": contracts(trade.qty_e2),
        "ts": trade.ts_ms // 1000,
        "ts_ms": trade.ts_ms,
    }


def dollars(price_e4: int) -> str:
    return f"{price_e4 // 10_000}.{price_e4 % 10_000:04d}"


def contracts(qty_e2: int) -> str:
    return f"{qty_e2 // 100}.{qty_e2 % 100:02d}"
