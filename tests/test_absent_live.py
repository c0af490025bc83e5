"""Markets that the exchange does not have, recorded whole: real sockets, REST, processes and files."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from client import exchange
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.discovery.inquiry import UNKNOWN
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from test_market_life import recorded, settings_for, stored, until
from test_scale_live import listen, of

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def healthz(url: str) -> dict[str, str]:
    """The reasons of /healthz, by what they are."""
    try:
        with urllib.request.urlopen(f"{url}/healthz", timeout=5) as answer:
            body = json.load(answer)
    except urllib.error.HTTPError as error:
        body = json.load(error)
    return {reason["what"]: reason["detail"] for reason in body["reasons"]}


def test_markets_that_are_not_there_are_said_and_the_others_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_fast.admission.PROBE", Scale(NS // 2, NS))

    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(5, 1), rate=200) as running:
            there = list(running.source.books)
            more = {"CHANNELS": "orderbook_delta", "HTTP_LISTEN": "127.0.0.1:0"}
            async with recorded(
                tmp_path, running, MARKET_TICKERS=",".join([*there, "NOPE-1"]), **more
            ) as rec:
                said = listen(rec)
                absent = rec.recorder.absent
                await until(
                    lambda: rec.recorder.counts.known == 5 and absent.to_ask() == [] and len(absent) == 1
                )
                assert absent.described(9) == [f"NOPE-1 ({UNKNOWN})"]
                assert any("NOPE-1: there is no such market" in text for text in caplog.messages)
                assert UNKNOWN in of(said, "absent")
                assert rec.status is not None
                told: dict[str, str] = {}
                # First the exchange's word stands there, then REST's; what is published is a moment old.
                expected = {"absent": f"the exchange does not have NOPE-1 ({UNKNOWN})"}
                async with asyncio.timeout(20):
                    while told != expected:
                        told = await asyncio.to_thread(healthz, rec.status.url)
                # Another one with a change of the settings; the first one is not wanted any more.
                rec.follow(
                    settings_for(tmp_path, running, MARKET_TICKERS=",".join([*there, "NOPE-2"]), **more)
                )
                await until(lambda: list(absent.by_ticker) == ["NOPE-2"] and absent.to_ask() == [])
                assert rec.recorder.counts.known == 5
                subscribes = running.stats.commands["subscribe"]
                snapshots = running.stats.snapshots_sent
                await asyncio.sleep(2.5)
                assert running.stats.commands["subscribe"] == subscribes == 1, "no end of subscribing"
                assert 1 <= running.stats.snapshots_sent - snapshots <= 4, "it is asked for now and then"
                assert len([d for d in of(said, "absent") if "empty book" in d]) <= 2, "and said once"

    asyncio.run(run())
    assert not any(ticker.startswith("NOPE") for ticker in stored(tmp_path))


def test_a_market_that_comes_is_recorded_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_fast.admission.PROBE", Scale(NS // 5, NS // 5))

    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(3, 1), rate=200) as running:
            ticker = list(running.source.books)[-1]
            books = running.source.books
            assert isinstance(books, dict)
            hidden = books.pop(ticker)
            more = {"CHANNELS": "orderbook_delta", "MARKET_TICKERS": ",".join([*books, ticker])}
            async with recorded(tmp_path, running, **more) as rec:
                said = listen(rec)
                await until(lambda: rec.recorder.counts.known == 2 and len(rec.recorder.absent) == 1)
                assert rec.recorder.absent.to_ask() in ([ticker], [])
                books[ticker] = hidden
                await until(lambda: rec.recorder.counts.known == 3)
                assert len(rec.recorder.absent) == 0
                assert of(said, "present") == ["the market is there now"]

    asyncio.run(run())
    assert stored(tmp_path)


def test_without_rest_the_websocket_says_it(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(2, 1), rate=100) as running:
            more = {"CHANNELS": "orderbook_delta", "REST_URL": "off"}
            async with recorded(
                tmp_path, running, MARKET_TICKERS=",".join([*running.source.books, "NOPE"]), **more
            ) as rec:
                said = listen(rec)
                await until(lambda: rec.recorder.counts.known == 2 and len(rec.recorder.absent) == 1)
                assert of(said, "absent") == [
                    "there is no such market: the exchange answers with an empty book that has no market_id"
                ]

    asyncio.run(run())
