"""Asks REST for what the channels have missed: trades of an interruption, markets that are not known.

Runs beside the feeds on their event loop; the requests themselves wait in a thread. An interruption is asked
for with a margin on both sides, some time after it: the rows know each trade by its id, so too much does no
harm. What cannot be had, or lies too far back to tell new trades from stored ones, is said in feed_health.
Not here: requests (``rest``), rows (``streams``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast._clock import receive_ns
from kalshi_fast._decode import rfc3339_us
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.channels.rows import TradeRow, taker_of, trade_id, trade_price, trade_qty
from kalshi_fast.channels.streams import Interruption
from kalshi_fast.errors import FieldError, RestError, reason
from kalshi_fast.losses import Losses

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.channels.streams import Streams
    from kalshi_fast.pool import Pool
    from kalshi_fast.rest import Rest
    from kalshi_fast.rest_bodies import RestTrade

log = logging.getLogger("kalshi_fast.backfill")

LOOK_S: Final = 0.05
SETTLE_NS: Final = 2 * NS  # after an interruption, for the exchange to have its trades in order
MARGIN_NS: Final = 5 * NS  # clocks differ, and frames take their time
MOST_S: Final = 3600  # of an interruption: what is older is left out, and said
FEW_MARKETS: Final = 20  # so many are asked for one by one, more all at once
TICKERS_PER_REQUEST: Final = 100
WRITE_AT_ONCE: Final = 50
AGAIN: Final = Scale(NS, 30 * NS)


class Backfill:
    """``await run()`` until it is cancelled or REST is closed. ``conn_id``: its health rows are of none."""

    conn_id = 0

    def __init__(
        self,
        rest: Rest,
        streams: Streams,
        pool: Pool,
        *,
        settle_ns: int = SETTLE_NS,
        again: Scale = AGAIN,
    ) -> None:
        self.busy = False
        self._rest = rest
        self._streams = streams
        self._pool = pool
        self._settle_ns = settle_ns
        self._again = again
        self._failures = 0  # in a row
        self._left_out = 0  # trades of an interruption that may have been stored before

    @property
    def idle(self) -> bool:
        """Nothing is waited for."""
        streams = self._streams
        return not (self.busy or streams.interruptions or streams.to_ask)

    async def run(self) -> None:
        while not self._rest.closed:
            await asyncio.sleep(LOOK_S)
            streams = self._streams
            due_ns = receive_ns() - self._settle_ns
            try:
                if streams.to_ask:
                    await self._markets()
                if any(found.until_ns <= due_ns for found in streams.interruptions):
                    await self._trades(due_ns)
            finally:
                self.busy = False

    # --- trades -----------------------------------------------------------------------------------

    async def _trades(self, due_ns: int) -> None:
        self.busy = True
        waiting = self._streams.interruptions
        due = [found for found in waiting if found.until_ns <= due_ns]
        since_ns, until_ns = min(due)[0], max(found.until_ns for found in due)
        self._streams.interruptions = [found for found in waiting if found.until_ns > due_ns]
        what = trades_of(Interruption(since_ns, until_ns))
        # The feed has milliseconds where REST has microseconds: the next millisecond is certain to be later.
        least_ns = max(until_ns - MOST_S * NS, self._streams.forgotten_us * 1000 + NS // 1000)
        first_ns = max(since_ns - MARGIN_NS, least_ns)
        if first_ns > since_ns:
            self._say("trades_missed", f"{what}: those before {_moment(first_ns)} are too far back")
        self._left_out = 0
        self._streams.hold(held=True)  # until it is done, however often it is asked for
        try:
            found = await self._fetch(first_ns, until_ns + MARGIN_NS)
        except asyncio.CancelledError:
            self._streams.interruptions.append(Interruption(since_ns, until_ns))
            raise
        except Exception as error:  # also one that nobody thought of must not end the asking
            self._streams.interruptions.append(Interruption(since_ns, until_ns))
            detail = f"{what} could not be had: {self._told(error)}; they are asked for again"
            await self._failed("trades_missed", detail)
        else:
            self._failures = 0
            self._streams.hold(held=False)
            if self._left_out:
                moment = _moment(self._streams.forgotten_us * 1000)
                detail = f"{what}: {self._left_out} until {moment} are left out: too many came meanwhile"
                self._say("trades_missed", detail)
            self._say("trades_filled", f"{what}: {found} had been missed, and came by REST")

    async def _fetch(self, first_ns: int, last_ns: int) -> int:
        found = 0
        wanted = sorted(self._streams.wanted)
        for ticker in wanted if len(wanted) <= FEW_MARKETS else [""]:
            cursor = ""
            while True:
                page = await asyncio.to_thread(
                    self._rest.trades,
                    min_ts=first_ns // NS,
                    max_ts=-(-last_ns // NS),
                    ticker=ticker,
                    cursor=cursor,
                )
                self._rest.tell_unread()
                for sentence in self._rest.said():
                    self._say("trades_missed", f"REST: {sentence}")
                found += await self._write(page.trades, first_ns // 1000)
                cursor = page.cursor or ""
                if not cursor:
                    break
                while self._pool.pressed:
                    await asyncio.sleep(LOOK_S)
        return found

    async def _write(self, trades: Iterable[RestTrade], first_us: int) -> int:
        """Oldest first, as they would have come, and little by little: frames must not wait for it."""
        found = 0
        for number, trade in enumerate(reversed(list(trades)), 1):
            if number % WRITE_AT_ONCE == 0:
                self._streams.recorder.look()  # a strategy is told of these before the frames that come now
                await asyncio.sleep(0)
            try:
                row = filled_row(trade, receive_ns())
            except FieldError as error:
                log.warning("REST: a trade is left out: %s", error)
                self._say("trades_missed", f"a trade of {trade.ticker} by REST: {error}")
            else:
                # Of before the first moment it may have been stored and forgotten; that moment moves on
                # while many are filled.
                if row.ts_us >= max(first_us, self._streams.forgotten_us + 1000):
                    found += self._streams.filled(row)
                elif row.ts_us >= first_us and self._streams.lacks(row):
                    self._left_out += 1
        self._streams.recorder.look()  # no frame may come for a while, and a strategy wants to know
        return found

    # --- markets ----------------------------------------------------------------------------------

    async def _markets(self) -> None:
        self.busy = True
        streams = self._streams
        asked = list(streams.to_ask)[:TICKERS_PER_REQUEST]
        for ticker in asked:
            del streams.to_ask[ticker]
        cursor, asked_ns = "", receive_ns()
        try:
            while True:
                page = await asyncio.to_thread(self._rest.markets, tickers=",".join(asked), cursor=cursor)
                self._rest.tell_unread()
                for sentence in self._rest.said():
                    self._say("markets_missed", f"REST: {sentence}")
                for market in page.markets:
                    streams.learned(market, asked_ns)
                cursor = page.cursor or ""
                if not cursor:
                    self._failures = 0
                    return
        except Exception as error:
            streams.ask(asked)
            detail = f"{len(asked)} markets could not be asked for: {self._told(error)}"
            await self._failed("markets_missed", detail)

    async def _failed(self, event: str, detail: str) -> None:
        """Says so, and waits, the longer the more often it happens in a row."""
        if self._rest.closed:
            return  # the recording ends: the next one asks
        self._failures += 1
        wait_ns = self._again.bound_ns(self._failures)
        log.warning("%s; again in %d s", detail, wait_ns // NS)
        self._say(event, detail)
        await asyncio.sleep(wait_ns / NS)

    def _told(self, error: Exception) -> str:
        """One sentence of it; where it comes from is logged when that is not REST."""
        if isinstance(error, RestError):
            return str(error)
        if not self._rest.closed:
            log.error("an error of the backfill's own", exc_info=error)
        return f"{type(error).__name__}: {reason(error)}"

    def _say(self, event: str, detail: str) -> None:
        self._streams.recorder.health(receive_ns(), self, event, detail=detail)


def filled_row(trade: RestTrade, now_ns: int) -> TradeRow:
    """Raises FieldError naming the field that cannot be and that a trade is nothing without; its time is
    one."""
    if not trade.created_time:
        raise FieldError("created_time", trade.created_time, "a time")
    losses = Losses()  # whoever reads the page counts
    return TradeRow(
        0,
        0,
        0,
        trade_id(trade.trade_id, losses),
        trade.ticker,
        taker_of(trade),
        trade.is_block_trade,
        trade_price(trade, losses),
        trade_qty(trade),
        rfc3339_us(trade.created_time, "created_time"),
        now_ns,
    )


def trades_of(interruption: Interruption) -> str:
    """In words."""
    return f"trades from {_moment(interruption.since_ns)} to {_moment(interruption.until_ns)}"


def _moment(ns: int) -> str:
    second, rest = divmod(ns, NS)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(second))}.{rest // 1_000_000:03d}"
