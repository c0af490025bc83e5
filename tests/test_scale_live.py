"""An exchange that tells no-side prices on another scale than it was asked for, recorded whole: real sockets,
TLS, REST, processes and files. What is stored is the exchange's own books, or nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from client import exchange
from kalshi_fast.backoff import NS
from kalshi_fast.discovery.inquiry import Inquiry
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from test_market_life import exact, recorded, stored, until

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.recorder import Speaker
    from kalshi_fast.recording import Recording
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.subscription import ScaleRule

Books = dict[str, tuple[dict[int, int], dict[int, int]]]


def true_books(running: Exchange) -> Books:
    return {
        ticker: (dict(book.sides[0]), dict(book.sides[1])) for ticker, book in running.source.books.items()
    }


def recorders_books(recording: Recording) -> Books:
    return {
        ticker: (dict(market.book.ladders()[0]), dict(market.book.ladders()[1]))
        for ticker, market in recording.books.by_ticker.items()
        if not market.book.stale
    }


def rebuilt(rows: list[dict[str, Any]]) -> tuple[dict[int, int], dict[int, int]]:
    """The book that the rows of a market come to."""
    sides: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for row in rows:
        side = sides[row["side"] == "no"]
        if row["type"] == "clear":
            sides = ({}, {})
        elif row["type"] == "snapshot":
            side[row["price_e4"]] = row["qty_e2"]
        elif row["type"] == "delta":
            side[row["price_e4"]] = side.get(row["price_e4"], 0) + row["qty_e2"]
            if not side[row["price_e4"]]:
                del side[row["price_e4"]]
    return sides


def listen(recording: Recording) -> list[tuple[str, str]]:
    """What goes to feed_health from now on: event and detail."""
    said: list[tuple[str, str]] = []
    health = recording.recorder.health

    def heard(ts_ns: int, link: Speaker, event: str, **more: Any) -> None:  # noqa: ANN401
        said.append((event, more.get("detail", "")))
        health(ts_ns, link, event, **more)

    recording.recorder.health = heard  # type: ignore[method-assign]
    return said


def of(said: list[tuple[str, str]], kind: str) -> list[str]:
    return [detail for event, detail in said if event == kind]


@pytest.mark.parametrize(
    ("told", "asked", "connections"),
    [("asked", "on", 1), ("asked", "off", 1), ("no", "on", 2), ("yes", "off", 2)],
)
def test_books_are_right_whatever_the_exchange_does_with_use_yes_price(
    tmp_path: Path, told: ScaleRule, asked: str, connections: int
) -> None:
    said: list[tuple[str, str]] = []

    async def run() -> tuple[Books, Books, int, int]:
        async with exchange(tmp_path, SyntheticMarkets(30, 1), rate=500, scale=told) as running:
            tickers = ",".join(running.source.books)
            more = {"MARKET_TICKERS": tickers, "USE_YES_PRICE": asked, "CHANNELS": "orderbook_delta"}
            async with recorded(tmp_path, running, **more) as recording:
                heard = listen(recording)
                await until(lambda: exact(recording, set(running.source.books)))
                await asyncio.sleep(0.5)
                running.end_play()
                await until(lambda: recorders_books(recording) == true_books(running))
                counts = recording.recorder.counts
                said.extend(heard)
                return (
                    true_books(running),
                    recorders_books(recording),
                    recording.fleet.connections,
                    counts.scale_contradictions,
                )

    expected, found, made, contradictions = asyncio.run(run())
    assert found == expected
    assert made == connections
    assert contradictions == (3 if connections == 2 else 0)
    rows = stored(tmp_path)
    assert {ticker: rebuilt(rows[ticker]) for ticker in expected} == expected
    assert len({row["conn_id"] for each in rows.values() for row in each}) == 1, "nothing of a wrong one"
    on_yes_scale = told == "yes" or (told == "asked" and asked == "on")
    scale = "yes scale" if on_yes_scale else "no scale"
    words = of(said, "scale")
    assert words[-1].startswith(f"proven: no-side prices come on the {scale}")
    assert sum("as believed" in detail for detail in words) == contradictions
    assert sum("contradict the" in detail for detail in words) == connections - 1
    assert f"on the {scale}" in of(said, "connect")[-1]


def one_sided(n: int) -> SyntheticMarkets:
    """Books that cannot tell their scale: no yes bid, and hardly a change."""
    source = SyntheticMarkets(n, 1)
    for book in source.books.values():
        book.sides[0].clear()
    return source


def test_books_that_cannot_tell_their_scale_are_proven_by_rest(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, one_sided(3), rate=1) as running:
            more = {"MARKET_TICKERS": ",".join(running.source.books), "CHANNELS": "orderbook_delta"}
            async with recorded(tmp_path, running, **more) as recording:
                said = listen(recording)
                await until(lambda: recorders_books(recording) == true_books(running))
                assert recording.recorder.held == 0
                (proof,) = of(said, "scale")
                assert "no levels are those of the REST interface" in proof

    asyncio.run(run())


def test_an_exchange_on_the_other_scale_is_found_out_by_rest_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, one_sided(3), rate=1, scale="no") as running:
            more = {"MARKET_TICKERS": ",".join(running.source.books), "CHANNELS": "orderbook_delta"}
            async with recorded(tmp_path, running, **more) as recording:
                await until(lambda: recorders_books(recording) == true_books(running))
                assert recording.fleet.connections == 2

    asyncio.run(run())
    rows = stored(tmp_path)
    assert len({row["conn_id"] for each in rows.values() for row in each}) == 1


def test_without_any_word_nothing_is_stored_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_fast.admission.DOUBT_NS", NS // 5)

    async def run() -> None:
        async with exchange(tmp_path, one_sided(3), rate=50) as running:
            more = {"MARKET_TICKERS": ",".join(running.source.books), "CHANNELS": "orderbook_delta"}
            async with recorded(tmp_path, running, **more, REST_URL="off") as recording:
                await until(lambda: recording.recorder.scale_doubts(10**30) != [])
                (doubt,) = recording.recorder.scale_doubts(10**30)
                assert "3 books wait for it: the channel ticker or REST_URL would tell" in doubt
                assert recording.recorder.counts.known == 0

    asyncio.run(run())
    assert [row for each in stored(tmp_path).values() for row in each if row["side"] == "no"] == []


def test_the_ticker_channel_is_a_word_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(self: Inquiry) -> None:
        """REST is asked for no books."""

    monkeypatch.setattr(Inquiry, "_books", silent)
    monkeypatch.setattr("kalshi_fast.scale.told_by_book", lambda yes, no: None)
    monkeypatch.setattr("kalshi_fast.admission.HELD_NS", NS // 2)

    async def run() -> None:
        async with exchange(tmp_path, one_sided(3), rate=50) as running:
            more = {"MARKET_TICKERS": ",".join(running.source.books), "CHANNELS": "orderbook_delta,ticker"}
            async with recorded(tmp_path, running, **more) as recording:
                said = listen(recording)
                await until(lambda: recording.recorder.counts.known == 3)
                running.end_play()
                await until(lambda: recorders_books(recording) == true_books(running))
                (proof,) = of(said, "scale")
                assert "the ticker channel's yes ask" in proof

    asyncio.run(run())
