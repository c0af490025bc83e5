"""``kalshi-fast watch TICKER``: one market, live, on a connection of its own; nothing is stored.

The same session, link and books as a recording's; the rows that come of it go into an NDJSON file, if one is
asked for, and are forgotten. The market's trades are asked for beside its book; an exchange that has none
for us costs a note on the screen. Not here: what is drawn (``ladder_view``).
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

from kalshi_fast import ladder_view, wire
from kalshi_fast._book import SIDES
from kalshi_fast.auth import Signer
from kalshi_fast.backoff import Backoff, Scale
from kalshi_fast.books import NIL_ID, Books
from kalshi_fast.channels.rows import taker_of, trade_price, trade_qty
from kalshi_fast.config import require_live
from kalshi_fast.dial import exchange_tls
from kalshi_fast.errors import ConfigError, KalshiFastError
from kalshi_fast.feed import Feed
from kalshi_fast.ladder_view import TradeSeen, View, contracts, dollars
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import Session
from kalshi_fast.terminal import Screen

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.batch import Batch
    from kalshi_fast.config import Settings

ROWS: Final = 2000
BATCHES: Final = 4
SEAL_S: Final = 0.05
RATE_OVER_S: Final = 5.0
KEPT_TRADES: Final = 20
TRADE_CHANNEL: Final = "trade"
_TRADE_COMMAND: Final = 2**31 - 1  # an id that the session will not come to
_KINDS: Final = ("snapshot", "delta", "clear", "gap")


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """How a market is shown. ``rate_per_s``: at most so often; ``log``: the file for every event."""

    compact: bool = False
    as_json: bool = False
    rate_per_s: float = 4.0
    levels: int = 10
    log: Path | None = None
    seconds: float | None = None
    once: bool = False


class WatchLink(Link):
    """A link that asks for the trades of its markets, too."""

    def __init__(self, recorder: Recorder, session: Session) -> None:
        super().__init__(recorder, session)
        self.trades: deque[TradeSeen] = deque(maxlen=KEPT_TRADES)
        self.trades_note = ""
        self.unlogged: list[dict[str, Any]] = []

    def on_connected(self, conn_id: int, now_ns: int) -> None:
        super().on_connected(conn_id, now_ns)
        self.trades_note = ""
        params = wire.Params(channels=[TRADE_CHANNEL], market_tickers=list(self.session.tickers))
        self.session.outbox.append(wire.encode(wire.Command("subscribe", _TRADE_COMMAND, params)))

    def _on_other(self, message: wire.Message | wire.Unknown, ingest_ns: int) -> None:
        if isinstance(message, wire.Trade):
            self._on_trade(message.msg, ingest_ns)
        elif isinstance(message, wire.Error) and message.id == _TRADE_COMMAND:
            self.trades_note = f"not to be had ({message.msg.msg or message.msg.code})"
        elif not (isinstance(message, wire.Subscribed) and message.id == _TRADE_COMMAND):
            super()._on_other(message, ingest_ns)

    def _on_trade(self, body: wire.TradeBody, ingest_ns: int) -> None:
        losses = self._recorder.counters.losses
        price, count, side = trade_price(body, losses), trade_qty(body), taker_of(body)
        ts_ns = body.ts_ms * 1_000_000 if body.ts_ms is not None else ingest_ns
        self.trades.appendleft(TradeSeen(ts_ns, price, count, side))
        self.unlogged.append(
            {
                "type": "trade",
                "trade_id": body.trade_id,
                "market_ticker": body.market_ticker,
                "taker_side": side,
                "price_e4": price,
                "price_dollars": dollars(price),
                "qty_e2": count,
                "qty": contracts(count).replace(",", ""),
                "ts_ns": ts_ns,
                "ingest_ns": ingest_ns,
            }
        )
        del self.unlogged[:-ROWS]


class Watch:
    """``await Watch(settings, options).run()``. Raises KalshiFastError."""

    def __init__(self, settings: Settings, options: WatchOptions) -> None:
        require_live(settings)
        if len(settings.market_tickers) != 1:
            raise ConfigError(f"TICKER: expected one market, got {len(settings.market_tickers)}")
        assert settings.prod_keyid is not None  # noqa: S101 - require_live has seen to it
        assert settings.prod_keyfile is not None  # noqa: S101
        self.ticker = settings.market_tickers[0]
        self._options = options
        self._log: IO[str] | None = None
        self._books = Books()
        self._pool = LocalPool(ROWS, BATCHES)
        self._recorder = Recorder(self._books, self._pool, self._take, seal_rows=ROWS)
        rng = random.Random()  # noqa: S311 - spreads reconnects, guards nothing
        session = Session(
            [self.ticker], clock=time.monotonic_ns, rng=rng, use_yes_price=settings.use_yes_price
        )
        self._link = WatchLink(self._recorder, session)
        self._feed = Feed(
            settings.ws_url,
            Signer.from_file(settings.prod_keyid, settings.prod_keyfile),
            self._link,
            self._pool,
            ssl_context=exchange_tls(settings.ws_url, settings.ws_cafile),
            backoff=Backoff(
                rng,
                Scale(settings.ws_backoff_ns, settings.ws_backoff_max_ns),
                Scale(settings.ws_refused_ns, 10 * settings.ws_refused_ns),
            ),
            hostname=settings.ws_hostname,
            idle_s=settings.ws_idle_ns / 1e9,
        )
        self._samples: deque[tuple[float, int]] = deque()
        self._shown: tuple[object, ...] = ()

    async def run(self) -> None:
        """Until a signal, the end of its time, or an error that no retry can mend."""
        options = self._options
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signum, self._feed.stop)
        if options.seconds is not None:
            loop.call_later(options.seconds, self._feed.stop)
        self._log = _opened(options.log)
        on_screen = not (options.compact or options.as_json or options.once) and sys.stdout.isatty()
        feeding = asyncio.ensure_future(self._feed.run())
        try:
            with Screen() if on_screen else nullcontext() as screen:
                while not feeding.done():
                    await asyncio.wait({feeding}, timeout=min(SEAL_S, 1 / options.rate_per_s))
                    self._recorder.seal()
                    self._write([])
                    self._show(screen)
            await feeding
        finally:
            self._feed.stop()
            await asyncio.gather(feeding, return_exceptions=True)
            self._recorder.seal()
            self._write([])
            if self._log is not None:
                self._log.close()

    # --- showing ----------------------------------------------------------------------------------

    def view(self, note: str = "") -> View:
        """What there is to show now."""
        market = self._books.by_ticker.get(self.ticker)
        book = market.book if market is not None and market.replicas else None
        yes, no = book.ladders() if book is not None else ([], [])
        last_ns, link = self._link.path.last_frame_ns, self._link
        now_ns = time.time_ns()
        return View(
            self.ticker,
            known=book is not None and not book.stale,
            connected=link.up,
            yes=yes,
            no=no,
            updates=self._recorder.counts.deltas,
            rate_per_s=self._rate(),
            age_s=max(0, now_ns - last_ns) / 1e9 if last_ns else None,
            trades=list(link.trades),
            trades_note=link.trades_note,
            note=note,
            at_ns=now_ns,
        )

    def _rate(self) -> float:
        now = time.monotonic()
        self._samples.append((now, self._recorder.counts.deltas))
        while self._samples[0][0] < now - RATE_OVER_S:
            self._samples.popleft()
        (then, before), (_, deltas) = self._samples[0], self._samples[-1]
        return (deltas - before) / (now - then) if now > then else 0.0

    def _show(self, screen: Screen | None) -> None:
        options, now = self._options, time.monotonic()
        if self._samples and now - self._samples[-1][0] < 1 / options.rate_per_s:
            return
        view = self.view(screen.said if screen is not None and not self._link.up else "")
        if screen is not None:
            columns, rows = screen.size
            screen.draw(ladder_view.screen(view, columns, rows))
            return
        shown = (view.state, view.updates, len(self._link.trades), self._recorder.counts.snapshots)
        if shown == self._shown or (not view.known and (options.once or not self._shown)):
            return  # a line is written only of what is new, and the first when there is a book
        self._shown = shown
        if options.as_json:
            indent = None if options.compact else 2
            text = json.dumps(ladder_view.as_json(view, options.levels), indent=indent)
        else:
            text = ladder_view.compact(view)
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
        if options.once:
            self._feed.stop()

    # --- rows -------------------------------------------------------------------------------------

    def _take(self, batch: Batch) -> None:
        if self._log is not None:
            events, n = batch.events, batch.events.n
            columns = {name: array[:n].tolist() for name, array in events.arrays.items()}
            self._write([self._line(*row) for row in zip(*columns.values(), strict=True)])
        self._pool.release(batch)

    def _line(
        self,
        kind: int,
        conn_id: int,
        sid: int,
        seq: int,
        market_ix: int,
        id_ix: int,
        side: int,
        price: int,
        qty: int,
        ts_us: int,
        ingest_ns: int,
    ) -> dict[str, Any]:
        market_id = self._books.ids[id_ix]
        line: dict[str, Any] = {
            "type": _KINDS[kind],
            "conn_id": conn_id,
            "sid": sid,
            "seq": seq,
            "market_id": None if market_id == NIL_ID else market_id,
            "market_ticker": self._books.tickers[market_ix],
        }
        if _KINDS[kind] in ("snapshot", "delta"):
            line |= {
                "side": SIDES[side],
                "price_e4": price,
                "price_dollars": dollars(price),
                "qty_e2": qty,
                "qty": contracts(qty).replace(",", ""),
            }
        return line | {"ts_us": ts_us, "ingest_ns": ingest_ns}

    def _write(self, lines: list[dict[str, Any]]) -> None:
        trades, self._link.unlogged = self._link.unlogged, []
        if self._log is None:
            return
        try:
            for line in [*lines, *trades]:
                self._log.write(json.dumps(line) + "\n")
            self._log.flush()
        except OSError as error:
            raise KalshiFastError(
                f"--log: {self._options.log} cannot be written: {error.strerror or error}"
            ) from error


def _opened(path: Path | None) -> IO[str] | None:
    if path is None:
        return None
    try:
        return path.open("a", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"--log: {path} cannot be written: {error.strerror or error}") from error
