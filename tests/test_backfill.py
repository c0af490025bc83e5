"""Trades of a real exchange simulator, over real sockets and real REST: whatever is lost on the way, each
trade is there once in the end; and the REST client by itself.
"""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import threading
import time
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from channels import trade_id
from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.books import Books
from kalshi_fast.channels import backfill
from kalshi_fast.channels.feeds import ChannelFeeds
from kalshi_fast.channels.recent import Recent
from kalshi_fast.channels.rows import TABLES, ChannelRows, TradeRow
from kalshi_fast.channels.streams import Interruption, Streams
from kalshi_fast.config import load
from kalshi_fast.dial import tls_context
from kalshi_fast.errors import FieldError, RestError
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.rest import Rest
from kalshi_fast.rest_bodies import RestTrade
from kalshi_fast.simulator.faults import fault
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.strategy import Strategy
from recordings import DIRECTORY as RECORDED

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kalshi_fast.batch import Batch
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.faults import Fault

MARKETS = 30  # more than are asked for one by one


class Rows:
    """A store that keeps the rows of the channels."""

    def __init__(self) -> None:
        self.rows = ChannelRows()
        self.health: list[tuple[str, str]] = []
        self.pool = LocalPool(500, 1000)
        self.recorder = Recorder(Books(), self.pool, self.store, seal_rows=500)

    def store(self, batch: Batch) -> None:
        for table in TABLES:
            getattr(self.rows, table).extend(getattr(batch.channels, table))
        self.health += [(row.event, row.detail) for row in batch.health]
        self.pool.release(batch)


@asynccontextmanager
async def recording(
    directory: Path, running: Exchange, **more: str
) -> AsyncIterator[tuple[ChannelFeeds, Rows]]:
    told = {
        "WS_URL": running.url,
        "REST_URL": running.rest_url,
        "WS_CAFILE": str(directory / "ca.pem"),
        "MARKET_TICKERS": ",".join(running.source.books),
        "CHANNELS": "trade,ticker,market_lifecycle_v2",
        "WS_IDLE_SECS": "0.3",
        "WS_BACKOFF_SECS": "0.05",
        "WS_BACKOFF_MAX_SECS": "0.3",
        "WS_REFUSED_SECS": "0.1",
        **more,
    }
    settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
    signer = Signer.from_file(KEY_ID, directory / "client.pem")
    rows = Rows()
    context = tls_context(directory / "ca.pem")
    feeds = ChannelFeeds(settings, signer, rows.recorder, rows.pool, context)
    if feeds.backfill is not None:
        feeds.backfill._settle_ns, feeds.backfill._again = 50_000_000, Scale(10**8, 10**9)
    task = asyncio.ensure_future(feeds.run())
    try:
        yield feeds, rows
    finally:
        feeds.stop()
        await task
        rows.recorder.seal()


async def play(
    directory: Path, faults: list[Fault], *, seconds: float = 4, **more: str
) -> tuple[Rows, Exchange]:
    source = SyntheticMarkets(MARKETS, 3)
    async with exchange(
        directory,
        source,
        rate=2000,
        seconds=seconds,
        faults=faults,
        heartbeat_s=0.2,
        seed=5,
        life_every_s=0.5,
    ) as running:
        async with recording(directory, running, **more) as (feeds, rows):
            await asyncio.wait_for(running.finished.wait(), 60)
            wanted = sum(running.tape.counts().get(ticker, 0) for ticker in feeds.streams.wanted)
            async with asyncio.timeout(30):
                while rows.recorder.counts.trades < wanted or not feeds.idle:
                    await asyncio.sleep(0.02)
        return rows, running


def check(rows: Rows, running: Exchange, wanted: set[str]) -> None:
    by_rest = {row.trade_id for row in rows.rows.trades if row.sid == 0}
    told = {
        trade.trade_id: (
            *(trade.ticker, trade.taker_side, trade.yes_price_e4, trade.qty_e2),
            trade.ts_us if trade.trade_id in by_rest else trade.ts_ms * 1000,
        )
        for trade in running.tape.trades
        if trade.ticker in wanted
    }
    stored = {
        row.trade_id: (row.market_ticker, row.taker_side, row.yes_price_e4, row.qty_e2, row.ts_us)
        for row in rows.rows.trades
    }
    assert stored == told
    assert len(rows.rows.trades) == len(told) > 50, "each once"


@pytest.mark.clock
@pytest.mark.parametrize("hot_standby", ["off", "on"])
def test_every_trade_is_there_once_whatever_is_lost(tmp_path: Path, hot_standby: str) -> None:
    faults = [
        fault(0.5, "drop", n=3),
        fault(0.9, "reset"),
        fault(1.2, "corrupt", n=2),
        fault(1.5, "duplicate", n=3),
        fault(1.8, "refuse", s=0.3),
        fault(2.4, "reorder", k=3),
        fault(2.6, "close"),
        fault(3.0, "truncate", n=2),
        fault(4.2, "hang"),  # by then there is a connection again, on a busy machine too
    ]
    wanted = set(SyntheticMarkets(MARKETS, 3).books)
    rows, running = asyncio.run(play(tmp_path, faults, seconds=5, HOT_STANDBY=hot_standby))
    check(rows, running, wanted)
    assert running.stats.faults.keys() >= {"drop", "reset", "close", "hang"}
    filled = [row for row in rows.rows.trades if row.sid == 0]
    if hot_standby == "off":
        assert filled, "what was missed came by REST"
        assert rows.recorder.counts.trades_filled == len(filled)
    assert any(event == "trades_filled" for event, _ in rows.health)


@pytest.mark.clock
def test_in_peace_every_channel_is_complete_and_nothing_is_asked_twice(tmp_path: Path) -> None:
    rows, running = asyncio.run(play(tmp_path, []))
    check(rows, running, set(SyntheticMarkets(MARKETS, 3).books))
    assert len(rows.rows.tickers) == running.stats.tickers_sent
    assert rows.recorder.counts.trades_repeated == rows.recorder.counts.trades_filled == 0
    announced = [(name, kind) for name, market in running.life.markets.items() for kind in market.announced]
    stored = [(row.market_ticker, row.event_type) for row in rows.rows.market_lifecycle]
    of_events = [(ticker, kind) for ticker, kind in stored if not ticker]
    assert Counter(stored) - Counter(of_events) == Counter(announced)
    assert Counter(kind for _, kind in stored) == running.stats.announcements
    assert {kind for _, kind in of_events} == {"event_lifecycle", "event_fee_update"}
    assert {kind for _, kind in stored} >= {"created", "price_level_structure_updated", "settled"}
    latest = {row.market_ticker: row for row in rows.rows.markets}
    assert latest.keys() == running.life.markets.keys(), "those of before are asked for by REST"
    for ticker, market in running.life.markets.items():
        row = latest[ticker]
        assert (row.status, row.result) == (market.status, market.result)
        assert (row.price_level_structure, row.close_ts_ms) == (
            running.source.structures[ticker],
            market.close_ts * 1000,
        )
        assert row.floor_strike == market.strike + 0.5


def test_what_lies_too_far_back_is_said_and_not_stored_twice(tmp_path: Path) -> None:
    async def run() -> Rows:
        source = SyntheticMarkets(3, 1)
        async with exchange(tmp_path, source, rate=2000, seconds=1) as running:
            async with recording(tmp_path, running) as (feeds, rows):
                await running.finished.wait()
                feeds.streams._recent._most = 5
                feeds.streams._recent._times_us.clear()
                last_us = rows.recorder.counts.trades and running.tape.trades[-1].ts_ms * 1000
                feeds.streams._recent.forgotten_us = last_us
                now_ns = time.time_ns()
                feeds.streams.interruptions.append(Interruption(now_ns - 10**9, now_ns))
                async with asyncio.timeout(10):
                    while not feeds.idle:
                        await asyncio.sleep(0.02)
            assert rows.recorder.counts.trades == running.stats.trades
            return rows

    rows = asyncio.run(run())
    assert len({row.trade_id for row in rows.rows.trades}) == len(rows.rows.trades)
    assert any(event == "trades_missed" and "too far back" in detail for event, detail in rows.health)


def test_rest_that_is_away_is_asked_again_and_said(tmp_path: Path) -> None:
    async def run() -> Rows:
        async with exchange(tmp_path, SyntheticMarkets(2, 1), rate=500, seconds=2) as running:
            async with recording(tmp_path, running, REST_URL="http://127.0.0.1:9/trade-api/v2") as (
                feeds,
                rows,
            ):
                await running.finished.wait()
                assert feeds.backfill is not None
                async with asyncio.timeout(20):
                    while not feeds.backfill._failures:
                        await asyncio.sleep(0.02)
            return rows

    rows = asyncio.run(run())
    assert rows.recorder.counts.trades > 0, "the feed does not care"
    missed = [detail for event, detail in rows.health if event == "markets_missed"]
    assert missed
    assert "2 markets could not be asked for: REST_URL: http://127.0.0.1:9/trade-api/v2/markets" in missed[0]


def test_an_error_that_nobody_thought_of_does_not_end_the_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    rightly = backfill.filled_row
    failed: list[RestTrade] = []

    def wrongly(trade: RestTrade, now_ns: int) -> TradeRow:
        if not failed:
            failed.append(trade)
            raise ZeroDivisionError("of its own")
        return rightly(trade, now_ns)

    monkeypatch.setattr(backfill, "filled_row", wrongly)

    async def run() -> Rows:
        async with exchange(tmp_path, SyntheticMarkets(2, 1), rate=500, seconds=1) as running:
            began_ns = time.time_ns()
            async with recording(tmp_path, running) as (feeds, rows):
                await running.finished.wait()
                feeds.streams.missed(began_ns, time.time_ns())
                async with asyncio.timeout(20):
                    while not (failed and feeds.idle):
                        await asyncio.sleep(0.02)
            return rows

    rows = asyncio.run(run())
    assert failed
    events = [event for event, _ in rows.health if event.startswith("trades_")]
    assert events == ["trades_missed", "trades_filled"]
    assert any("ZeroDivisionError: of its own" in detail for _, detail in rows.health)
    assert "Traceback" in caplog.text


def test_what_is_still_missed_at_the_end_is_said(tmp_path: Path) -> None:
    """Trades that could not be asked for, and those of a channel that has not come back."""

    async def run() -> Rows:
        async with exchange(tmp_path, SyntheticMarkets(2, 1), rate=500) as running:
            away = {"REST_URL": "http://127.0.0.1:9/trade-api/v2", "CHANNELS": "trade"}
            async with recording(tmp_path, running, **away) as (feeds, rows):
                assert feeds.backfill is not None
                async with asyncio.timeout(20):
                    while not rows.recorder.counts.trades:
                        await asyncio.sleep(0.02)
                    feeds.streams.missed(10**18, 10**18 + 10**9)
                    while not feeds.backfill.busy:
                        await asyncio.sleep(0.02)
                    running.conditions.refusal = (503, "busy", "not now")
                    for client in list(running.clients):
                        client.close()
                    while not feeds.streams._missed_ns:
                        await asyncio.sleep(0.02)
            return rows

    rows = asyncio.run(run())
    said = [detail for event, detail in rows.health if event == "trades_missed"]
    ended = [detail for detail in said if detail.endswith("when the recording ended")]
    assert len(ended) == 2
    assert ended[0].startswith("trades from 2001-09-09 01:46:40.000 to 2001-09-09 01:46:41.000: ")


def test_an_end_in_peace_misses_nothing(tmp_path: Path) -> None:
    rows, _ = asyncio.run(play(tmp_path, []))
    assert [event for event, _ in rows.health if event == "trades_missed"] == []


# --- the REST client --------------------------------------------------------------------------------------


@contextmanager
def server(*answers: tuple[int, bytes | dict[str, Any]]) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Answers one request after the other; what was asked, and with which time stamp."""
    asked: list[tuple[str, str]] = []
    left = list(answers)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers["KALSHI-ACCESS-SIGNATURE"]))
            status, body = left.pop(0)
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            """Nobody wants to read it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/trade-api/v2", asked
        running.shutdown()
        thread.join()


TRADE = {"trade_id": "x", "ticker": "A", "taker_side": "no", "created_time": "2026-01-01T00:00:00Z"}


def test_requests_are_signed_anew_each_time_and_passing_refusals_tried_again(key_file: Path) -> None:
    page = {"trades": [TRADE], "cursor": "c", "new": 1}
    with server((429, b"slow"), (503, b""), (200, page), (200, {"trades": [], "cursor": None})) as (
        url,
        asked,
    ):
        rest = Rest(url, Signer.from_file("k", key_file), interval_s=0)
        assert [trade.ticker for trade in rest.trades(min_ts=1, max_ts=2).trades] == ["A"]
        assert rest.trades(min_ts=1, max_ts=2, ticker="A&B", cursor="c").cursor is None
        rest.close()
    assert [path for path, _ in asked] == [
        "/trade-api/v2/markets/trades?min_ts=1&max_ts=2&limit=1000"
    ] * 3 + ["/trade-api/v2/markets/trades?min_ts=1&max_ts=2&ticker=A%26B&cursor=c&limit=1000"]
    assert len({signature for _, signature in asked}) == 4


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, b"who are you"), "HTTP 401 (who are you)"),
        ((404, b""), "HTTP 404"),
        ((302, b""), "HTTP 302"),
        ((200, b"<html>"), "malformed"),
        ((200, b"[" * 100_000), "REST_URL"),
        ((200, {"trades": 5}), "array"),
        ((200, {"markets": []}), "expected an object with trades, got one with 'markets'"),
        ((200, {"trades": [], "cursor": 7}), "cursor: expected a text"),
        (
            (400, {"error": {"code": "bad_request", "message": "bad request", "details": "no such ts"}}),
            "HTTP 400 (bad request: no such ts)",
        ),
        (
            (404, {"error": {"code": "not_found", "message": "not found", "service": "x"}}),
            "HTTP 404 (not found)",
        ),
        ((403, {"error": "stay away"}), "HTTP 403 (stay away)"),
        ((403, {"code": "forbidden"}), "HTTP 403 (forbidden)"),
        ((403, ["x"]), "HTTP 403 (["),
    ],
)
def test_answers_that_are_none_are_one_sentence(key_file: Path, answer: tuple[int, Any], told: str) -> None:
    with server(answer) as (url, _):
        rest = Rest(url, Signer.from_file("k", key_file), interval_s=0)
        with pytest.raises(RestError) as caught:
            rest.trades(min_ts=1, max_ts=2)
        rest.close()
    assert told in str(caught.value)
    assert len(str(caught.value)) < 600


def test_one_bad_element_of_a_page_costs_itself_and_is_counted(key_file: Path) -> None:
    good = {**TRADE, "taker_outcome_side": "no", "unknown": [1]}
    page = [
        {**good, "taker_side": "x", "count": 2.0, "is_block_trade": None},
        {**good, "ticker": 5},
        {name: value for name, value in good.items() if name != "trade_id"},
        "trade",
        {**good, "yes_price_dollars": 0.36, "count": "many"},
    ]
    with server((200, {"trades": page, "cursor": None}), (200, {"trades": None})) as (url, _):
        rest = Rest(url, Signer.from_file("k", key_file), interval_s=0)
        trades = rest.trades(min_ts=1, max_ts=2).trades
        assert rest.trades(min_ts=1, max_ts=2).trades == [], "a list may be null"
        rest.close()
    assert [trade.taker_side for trade in trades] == [None, TRADE["taker_side"]]
    assert [trade.taker_outcome_side for trade in trades] == ["no", "no"]
    assert trades[0].count == 2
    assert trades[0].is_block_trade is False
    assert trades[1].yes_price_dollars == "0.36"
    assert rest.unread.left_out == {"trade": 3}
    assert rest.unread.fields == {("trade", "taker_side"): 1, ("trade", "count"): 1}
    assert rest.unread.sentence().startswith("3 trades of no use, 1 times no usable trade.count, 1 times no")


def test_a_429_without_a_hint_is_waited_out_and_slows_what_follows(
    key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recorded body of September 2026; no Retry-After comes with it."""
    body = json.loads((RECORDED / "rest" / "error_429_2026-09-26.json").read_text())
    waits: list[float] = []
    with server((429, body), (429, body), *[(200, {"trades": []})] * 41) as (url, asked):
        rest = Rest(url, Signer.from_file("k", key_file), interval_s=0.001)
        monkeypatch.setattr(rest, "_wait", waits.append)
        assert rest.trades(min_ts=1, max_ts=2).trades == []
        assert rest._interval_s == pytest.approx(0.004 * 0.9)
        for _ in range(40):
            rest.trades(min_ts=1, max_ts=2)
        assert rest._interval_s == 0.001, "and it is asked at the usual pace again"
        rest.close()
    assert len([wait for wait in waits if wait >= 1]) == 2
    assert len(asked) == 43


def test_a_client_that_is_closed_waits_for_nothing(key_file: Path) -> None:
    rest = Rest("http://127.0.0.1:9/x", Signer.from_file("k", key_file))
    threading.Timer(0.05, rest.close).start()
    with pytest.raises(RestError, match=r"waited for any more|127\.0\.0\.1:9"):
        rest.trades(min_ts=1, max_ts=2)


def of_rest(number: int) -> dict[str, Any]:
    """A trade of so many seconds after the start of 2026."""
    return {
        "trade_id": trade_id(number),
        "ticker": "A",
        "taker_side": "no",
        "created_time": f"2026-01-01T{number // 3600:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "count_fp": "1.00",
        "yes_price_dollars": "0.3600",
    }


def test_a_page_is_written_little_by_little(key_file: Path) -> None:
    rows, turns = Rows(), 0
    streams = Streams(rows.recorder, ["A"])
    filling = backfill.Backfill(
        Rest("http://127.0.0.1:9/x", Signer.from_file("k", key_file)), streams, rows.pool
    )
    page = [msgspec.convert(of_rest(number), RestTrade) for number in range(1000)]
    told: list[TradeRow] = []

    class Watcher(Strategy):
        def on_trade(self, trade: TradeRow, /) -> None:
            told.append(trade)

    rows.recorder.attach(Watcher())

    async def run() -> int:
        nonlocal turns
        writing = asyncio.ensure_future(filling._write(page, 0))
        while not writing.done():
            await asyncio.sleep(0)
            turns += 1
            assert len(told) == rows.recorder.counts.trades_filled, "before frames come, all are told of"
        return writing.result()

    assert asyncio.run(run()) == 1000
    assert turns >= 1000 / backfill.WRITE_AT_ONCE, "others had their turn in between"


@pytest.mark.parametrize(("most", "kept"), [(60, 120), (20, 71)])
def test_more_trades_than_are_remembered_are_not_stored_twice(key_file: Path, most: int, kept: int) -> None:
    """The last page has the trades that came before the interruption: by then their ids are forgotten."""
    rows = Rows()
    streams = Streams(rows.recorder, ["A"], recent=Recent(most))
    trades = [of_rest(number) for number in range(120)]
    pages = [trades[100:][::-1], trades[50:100][::-1], trades[:50][::-1]]  # the newest first

    async def run(url: str) -> None:
        filling = backfill.Backfill(
            Rest(url, Signer.from_file("k", key_file), interval_s=0), streams, rows.pool
        )
        for trade in trades[:10]:
            assert streams.filled(backfill.filled_row(msgspec.convert(trade, RestTrade), 1))
        streams.missed(1_767_225_600 * NS + 10 * NS, 1_767_225_600 * NS + 119 * NS)
        await filling._trades(2 * 10**18)

    answers = [(200, {"trades": page, "cursor": "c" if page[-1] != trades[0] else ""}) for page in pages]
    with server(*answers) as (url, asked):
        asyncio.run(run(url))
    assert len(asked) == 3
    rows.recorder.seal()
    stored = Counter(row.trade_id for row in rows.rows.trades)
    assert set(stored.values()) == {1}
    assert len(stored) == kept
    missed = [detail for event, detail in rows.health if event == "trades_missed"]
    if kept == 120:
        assert missed == []
    else:
        assert len(missed) == 1, "and what is left out is said, with those of the margin"
        assert f": {120 - kept + 5} until 2026-01-01 00:01:40" in missed[0]
    filled = backfill.filled_row(msgspec.convert(of_rest(200), RestTrade), 1)
    while len(streams._recent) > most:
        before = len(streams._recent)
        assert streams.filled(msgspec.structs.replace(filled, trade_id=trade_id(1000 + before)))
        assert len(streams._recent) == before - 1, "little by little the old ones are forgotten again"


def test_trades_by_rest_that_cannot_be_are_refused() -> None:
    good = RestTrade(
        "d91bc706-ee49-470d-82d8-11418bda6fed", "A", "no", "2026-01-01T00:00:00.5Z", count=2, yes_price=36
    )
    row = backfill.filled_row(good, 5)
    assert (row.yes_price_e4, row.qty_e2, row.ts_us, row.ingest_ns) == (3600, 200, 1_767_225_600_500_000, 5)
    by_no = RestTrade(good.trade_id, "A", "no", good.created_time, no_price_dollars="0.6400", count_fp="0.01")
    assert (backfill.filled_row(by_no, 5).yes_price_e4, backfill.filled_row(by_no, 5).qty_e2) == (3600, 1)
    for wrong in (
        RestTrade(good.trade_id, "A", "no", "yesterday", count=2, yes_price=36),
        RestTrade(good.trade_id, "A", "no", good.created_time, yes_price=36),
        RestTrade(good.trade_id, "A", "no", good.created_time, count=2),
    ):
        with pytest.raises(FieldError):
            backfill.filled_row(wrong, 5)
