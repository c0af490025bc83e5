"""What a viewer's connection makes of trades, which the session of the books knows nothing of."""

from __future__ import annotations

import itertools
import json
import random
from typing import Any

import pytest

from kalshi_fast.books import Books
from kalshi_fast.ladder_view import TradeSeen
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import Session
from kalshi_fast.watch import WatchLink

TICKER = "KXSIM-1"
NOW_NS = 1_700_000_000_000_000_000
CURRENT = {"yes_price_dollars": "0.3605", "count_fp": "12.50", "ts_ms": 1_700_000_000_123}
LEGACY = {"yes_price": 36, "count": 12}


@pytest.fixture
def link() -> WatchLink:
    pool = LocalPool(100, 2)
    recorder = Recorder(Books(), pool, pool.release, seal_rows=100)
    session = Session([TICKER], clock=itertools.count().__next__, rng=random.Random(1))
    link = WatchLink(recorder, session)
    link.on_connected(1, NOW_NS)
    return link


def say(link: WatchLink, kind: str, msg: dict[str, Any], **envelope: Any) -> None:  # noqa: ANN401 - JSON
    link.on_frame(json.dumps({"type": kind, **envelope, "msg": msg}).encode(), NOW_NS)


def trade(link: WatchLink, **fields: Any) -> None:  # noqa: ANN401 - JSON
    body = {"trade_id": "t", "market_ticker": TICKER, "taker_side": "no", **fields}
    say(link, "trade", body, sid=9, seq=1)


def commands(link: WatchLink) -> list[dict[str, Any]]:
    sent = [json.loads(command) for command in link.session.outbox]
    link.session.outbox.clear()
    return sent


def test_the_book_and_the_trades_are_asked_for_on_each_connection(link: WatchLink) -> None:
    for _ in range(2):
        sent = commands(link)
        assert [command["params"]["channels"] for command in sent] == [["orderbook_delta"], ["trade"]]
        assert all(command["params"]["market_tickers"] == [TICKER] for command in sent)
        link.on_disconnected(NOW_NS, "lost")
        link.on_connected(2, NOW_NS)


@pytest.mark.parametrize(
    ("fields", "seen"),
    [
        (CURRENT, TradeSeen(1_700_000_000_123_000_000, 3605, 1250, "no")),
        (LEGACY, TradeSeen(NOW_NS, 3600, 1200, "no")),
    ],
)
def test_trades_of_both_forms_are_shown_and_logged(
    link: WatchLink, fields: dict[str, Any], seen: TradeSeen
) -> None:
    trade(link, **fields)
    assert list(link.trades) == [seen]
    (line,) = link.unlogged
    assert (line["price_e4"], line["qty_e2"], line["ts_ns"]) == (seen.price_e4, seen.count_e2, seen.ts_ns)


def test_a_subscription_that_is_granted_is_left_alone(link: WatchLink) -> None:
    asked = commands(link)[1]
    say(link, "subscribed", {"channel": "trade", "sid": 9}, id=asked["id"])
    link.on_tick(NOW_NS)
    assert commands(link) == [], "the session does not end what it has not asked for"
    assert link.trades_note == ""


def test_an_exchange_without_trades_is_a_note(link: WatchLink) -> None:
    asked = commands(link)[1]
    say(link, "error", {"code": 8, "msg": "Unknown channel"}, id=asked["id"])
    assert link.trades_note == "not to be had (Unknown channel)"
    assert link.session.fatal is None


@pytest.mark.parametrize(
    "fields",
    [{}, {"yes_price": 36}, {"count": 1}, {"yes_price_dollars": "1.5", "count": 1}, {"yes_price": "x"}],
)
def test_a_trade_that_cannot_be_true_is_counted_and_not_shown(
    link: WatchLink, fields: dict[str, Any]
) -> None:
    trade(link, **fields)
    assert not link.trades
    assert link._recorder.counts.rejected == 1
