"""Markets that come and go, recorded whole: real sockets, TLS and REST, real processes and files, against the
exchange's own log."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter, defaultdict
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.dataset as ds
import pytest

from client import KEY_ID, exchange
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.config import CHANNELS, load
from kalshi_fast.discovery.follower import Follower
from kalshi_fast.errors import ConfigError
from kalshi_fast.recording import Recording
from kalshi_fast.simulator.commands import Commands
from kalshi_fast.simulator.subscription import BOOKS, LIFECYCLE, RefusedError
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.status.usage import usage
from test_crash import in_clickhouse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kalshi_fast import wire
    from kalshi_fast.config import Settings
    from kalshi_fast.simulator.announcements import Announcement
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.source import Change

# What becomes more up to a bound of its own: known markets (MOST_MARKETS), batches (slots of the memory).
BOUNDED = (
    "kalshi_fast.channels.rows.MarketRow",
    "kalshi_fast.batch.Batch",
    "kalshi_fast._columns.EventColumns",
    "kalshi_fast._columns.LevelColumns",
    "kalshi_fast.channels.rows.ChannelRows",
)
# Bytes and descriptors that 150 markets more may cost: the exchange and its log are in this process, too, and
# the embedded engine in the other one opens files as it likes.
MORE = {"capture": (64 << 20, 5), "writer": (192 << 20, 64)}
Announced = tuple[str, str, str, str]  # event_type, market_ticker, event_ticker, body
Deltas = list[tuple[str, int, int]]


def settings_for(directory: Path, running: Exchange, **more: str) -> Settings:
    told = {
        "PROD_KEYID": KEY_ID,
        "PROD_KEYFILE": str(directory / "client.pem"),
        "WS_URL": running.url,
        "REST_URL": running.rest_url,
        "WS_CAFILE": str(directory / "ca.pem"),
        "CLICKHOUSE_URL": "off",
        "PARQUET_DIR": str(directory / "parquet"),
        "JOURNAL_DIR": str(directory / "journal"),
        "WS_BACKOFF_SECS": "0.05",
        "WS_BACKOFF_MAX_SECS": "0.2",
        **more,
    }
    return load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings


@asynccontextmanager
async def recorded(directory: Path, running: Exchange, **more: str) -> AsyncIterator[Recording]:
    recording = Recording(settings_for(directory, running, **more))
    await asyncio.to_thread(recording.open)  # it asks the exchange, which runs here
    recording.follower._drop_after_s = 0.3
    assert recording.channels.backfill is not None or recording.channels.feeds == []
    if recording.channels.backfill is not None:
        recording.channels.backfill._settle_ns = NS // 10
    task = asyncio.ensure_future(recording.run())
    try:
        yield recording
    finally:
        recording.stop()
        await task
        await asyncio.to_thread(recording.close)


async def until(condition: Callable[[], bool], what: str = "") -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def living(running: Exchange) -> set[str]:
    return {ticker for ticker, market in running.life.markets.items() if market.status != "finalized"}


def carried(running: Exchange) -> set[str]:
    """What the exchange sends books of."""
    found: set[str] = set()
    for client in running.clients:
        for subscription in client.subscriptions.values():
            if subscription.channel == BOOKS:
                found |= subscription.tickers
    return found


def exact(recording: Recording, tickers: set[str]) -> bool:
    books = recording.books.by_ticker
    return all(ticker in books and not books[ticker].book.stale for ticker in tickers)


def stored(directory: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of every market, in order."""
    rows = defaultdict(list)
    for row in ds.dataset(directory / "parquet" / "orderbook", format="parquet").to_table().to_pylist():
        rows[row["market_ticker"]].append(row)
    return rows


def deltas(rows: list[dict[str, Any]]) -> Deltas:
    return [(row["side"], row["price_e4"], row["qty_e2"]) for row in rows if row["type"] == "delta"]


def sizes(recording: Recording) -> dict[str, int]:
    """Of everything of ours that has one entry for each market."""
    found = {
        "tasks": len(asyncio.all_tasks()),
        "markets": len(recording.books.by_ticker),
        "found": len(recording.follower.found),
        "late": len(recording.follower._late),
        "wanted": len(recording.channels.streams.wanted),
        "asked": len(recording.channels.streams.to_ask),
        "unknown": len(recording.fleet.unknown_tickers),
        "connections": len(recording.fleet.feeds),
    }
    for feed in recording.fleet.feeds:
        session = feed.link.session
        found["replicas"] = len(feed.link.replicas)
        found["tickers"] = len(session.tickers)
        found["open"] = len(session._open) + len(session._groups) + len(session._strays)
        found["carried"] = sum(len(each.tickers) for each in session.subscriptions.values())
        found["waiting"] = sum(len(each.waiting) + len(each.aside) for each in session.subscriptions.values())
    for channel in recording.channels.feeds:
        found["channel tickers"] = len(channel.link.session.tickers)
        found["channel markets"] = max(len(each.markets or ()) for each in channel.link.session._channels)
    return found


def objects() -> Counter[str]:
    """Our own, by type; the exchange runs in this process too."""
    gc.collect()
    kinds = (type(thing) for thing in gc.get_objects())
    names = (f"{kind.__module__}.{kind.__qualname__}" for kind in kinds)
    return Counter(name for name in names if name.startswith("kalshi_fast.") and "simulator" not in name)


def system(recording: Recording) -> dict[str, tuple[int, int]]:
    """Resident bytes and open descriptors of both processes; empty where the system does not tell."""
    gc.collect()
    found = {}
    for name, pid in (("capture", os.getpid()), ("writer", recording.writer.pid)):
        used = usage(pid)
        if used is not None:
            found[name] = (used.resident_bytes, len(list(Path(f"/proc/{pid}/fd").iterdir())))
    return found


def announced(directory: Path) -> list[Announced]:
    """What is stored of what has been said of markets and events, in order."""
    rows = ds.dataset(directory / "parquet" / "market_lifecycle", format="parquet").to_table().to_pylist()
    rows.sort(key=lambda row: (row["ingest_ts"], row["sid"], row["seq"]))
    return [(row["event_type"], row["market_ticker"], row["event_ticker"], row["body"]) for row in rows]


def by_name(said: list[Announced]) -> dict[str, list[str]]:
    """What has been said of each market or event, in order."""
    found = defaultdict(list)
    for event_type, ticker, event, _ in said:
        found[ticker or event].append(event_type)
    return found


def as_row(found: Announcement) -> Announced:
    """As it is to be stored."""
    body = found.body
    text = msgspec.json.encode(body).decode()
    if "market_ticker" not in body:
        return found.type, "", body["event_ticker"], text
    event = body.get("additional_metadata", {}).get("event_ticker", "")
    return body["event_type"], body["market_ticker"], event, text


def test_a_week_of_market_life_is_recorded_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    log: defaultdict[str, Deltas] = defaultdict(list)
    said: list[Announced] = []

    async def week() -> tuple[Exchange, Recording]:
        async with exchange(
            tmp_path,
            SyntheticMarkets(30, 1),
            rate=4000,
            seconds=5,
            seed=3,
            life_every_s=0.02,
            life_lead_s=0.3,
        ) as running:
            publish = running.publish

            def keep(change: Change, *, drop: bool = False) -> None:
                assert change.level is not None
                side, price, qty, _ = change.level
                log[change.ticker].append((("yes", "no")[side], price, qty))
                publish(change, drop=drop)

            announce = running.announce

            def keep_said(channel: str, announcement: Announcement) -> None:
                if running.carriers(channel):
                    said.append(as_row(announcement))
                announce(channel, announcement)

            running.publish = keep  # type: ignore[method-assign]
            running.announce = keep_said  # type: ignore[method-assign]
            more = {"CHANNELS": ",".join(CHANNELS), "CLICKHOUSE_URL": f"chdb://{tmp_path}/clickhouse"}
            async with recorded(
                tmp_path, running, MARKET_ALL_OPEN="on", BATCH_ROWS="500", **more
            ) as recording:
                await until(lambda: len(running.life.created) > 100)
                sizes_then, objects_then, system_then = sizes(recording), objects(), system(recording)
                await until(running.finished.is_set)
                await until(lambda: recording.recorder.counts.frames >= running.stats.frames_sent)
                await until(lambda: recording.books.by_ticker.keys() == living(running) == carried(running))
                await until(lambda: not recording.follower._late)
                await until(lambda: exact(recording, living(running)) and recording.channels.idle)
                sizes_now, objects_now = sizes(recording), objects()
                assert sizes_now.keys() == sizes_then.keys()
                for name, size in sizes_now.items():
                    assert size <= max(sizes_then[name], len(living(running))), (name, size, sizes_then[name])
                grown = {name: objects_now[name] - objects_then[name] for name in objects_now}
                for name in BOUNDED:
                    grown.pop(name, None)
                assert max(grown.values()) <= 10, {name: more for name, more in grown.items() if more}
                for name, (resident, descriptors) in system(recording).items():
                    then, more_now = system_then[name], MORE[name]
                    assert resident - then[0] < more_now[0], (name, resident, then)
                    assert descriptors - then[1] < more_now[1], (name, descriptors, then)
                truth = running.books()
                for ticker in living(running):
                    ladders = [side[::-1] for side in recording.books.by_ticker[ticker].book.ladders()]
                    assert ladders == [truth[ticker]["yes"], truth[ticker]["no"]]
            return running, recording

    running, recording = asyncio.run(week())
    rows = stored(tmp_path)
    created = running.life.created
    assert len(created) > 200
    assert len(running.life.markets) - len(living(running)) > 180
    assert rows.keys() == running.life.markets.keys()
    for ticker in created:
        assert rows[ticker][0]["type"] == "clear", "from the first moment"
        assert deltas(rows[ticker]) == log[ticker], "each of them, once, in order"
        assert rows[ticker][-1]["type"] == "gap", "to the last"
        assert Counter(row["type"] for row in rows[ticker])["gap"] == 1
    for ticker in running.life.markets.keys() - set(created):
        found = deltas(rows[ticker])
        assert found == log[ticker][len(log[ticker]) - len(found) :]
    assert recording.recorder.counts.gaps == 0
    assert recording.recorder.counts.rejected == 0
    told = [(trade.trade_id, trade.ticker) for trade in running.tape.trades]
    trades = ds.dataset(tmp_path / "parquet" / "trades", format="parquet").to_table().to_pylist()
    assert sorted(told) == sorted((str(row["trade_id"]), row["market_ticker"]) for row in trades)
    found_said = announced(tmp_path)
    assert sorted(found_said) == sorted(said), "each announcement, once, word for word"
    turns = by_name(found_said)
    assert turns == by_name(said), "those of each market in their order"
    columns = "event_type, market_ticker, event_ticker, body"
    asked = in_clickhouse(tmp_path, f"SELECT {columns} FROM kalshi.market_lifecycle")
    assert sorted(tuple(row) for row in asked) == sorted(said)
    kinds = Counter(event_type for event_type, ticker, _, _ in said if not ticker.startswith("KXMVE"))
    assert {kind for kind, count in kinds.items() if count > 50} == {
        *("created", "activated", "deactivated", "close_date_updated", "determined", "settled"),
        *("price_level_structure_updated", "metadata_updated", "event_lifecycle", "event_fee_update"),
    }
    several = Counter(event_type for event_type, ticker, _, _ in said if ticker.startswith("KXMVE"))
    assert several.keys() == {"created", "activated", "deactivated", "determined", "settled"}
    assert min(several.values()) > 50
    paused = [
        ticker
        for ticker, told_of_it in turns.items()
        if ("deactivated", "activated")
        in pairwise(kind for kind in told_of_it if kind in ("activated", "deactivated"))
    ]
    assert len(paused) > 10, "and opened again"
    catalogue = recording.channels.streams.catalogue
    for ticker, market in running.life.markets.items():
        row = catalogue._rows[ticker]
        assert (row.result, row.series_ticker) == (market.result, market.series_ticker)
        assert row.price_level_structure == running.source.structures[ticker]
        assert row.floor_strike == market.strike + 0.5
        assert (row.status == "finalized") == (market.status == "finalized")


def test_what_was_announced_while_nobody_listened_is_found_by_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_fast.rest.RETRY", Scale(NS // 100, NS // 10))
    monkeypatch.setattr("kalshi_fast.discovery.follower.AGAIN", Scale(NS // 20, NS // 5))

    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(10, 1), rate=1000, heartbeat_s=0.2) as running:
            life = running.life
            async with recorded(tmp_path, running, MARKET_ALL_OPEN="on") as recording:
                await until(lambda: exact(recording, living(running)))
                await until(lambda: recording.follower.listings == 1)
                (listener,) = [client for client, _ in running.carriers(LIFECYCLE)]
                running.conditions.refusal = (503, "unavailable", "not now")
                listener.reset()
                await until(lambda: not running.carriers(LIFECYCLE))
                for _ in range(3):
                    life._turn()
                closed = [
                    market for market in life.markets.values() if "close_date_updated" in market.announced
                ]
                assert closed
                for market in closed:
                    life._settle(market)
                running.conditions.refusal = None
                await until(lambda: recording.follower.listings > 1)
                await until(lambda: recording.books.by_ticker.keys() == living(running) == carried(running))
                assert recording.channels.streams.wanted == living(running)
                assert recording.fleet.unknown_tickers == []

    asyncio.run(run())


@pytest.mark.parametrize("channels", ["orderbook_delta,market_lifecycle_v2", "orderbook_delta"])
def test_a_pattern_waits_for_markets_that_are_not_there_yet(
    tmp_path: Path, channels: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(5, 1), rate=500, life_every_s=0.2) as running:
            more = {
                "MARKET_MATCH": "KXRAIN*,KXSIM-26DEC31-T0004",
                "CHANNELS": channels,
                "DISCOVERY_SECS": "1",
            }
            async with recorded(tmp_path, running, **more) as recording:
                running.subscribed.set()  # the play begins without us
                await until(lambda: len(recording.books.by_ticker) >= 3)
                found = carried(running) - {"KXSIM-26DEC31-T0004"}
                assert {ticker.partition("-")[0] for ticker in found} == {"KXRAIN"}
                assert recording.fleet.tickers == set(recording.follower.found)

    asyncio.run(run())
    assert ("are found every 1 s only" in caplog.text) == ("lifecycle" not in channels)


def test_the_selection_follows_a_file_and_new_settings_without_a_reconnect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("kalshi_fast.discovery.follower.FILE_S", 0.05)
    file = tmp_path / "tickers"
    file.write_text("")

    def name(number: int) -> str:
        return f"KXSIM-26DEC31-T{number:04d}"

    async def run() -> None:
        async with (
            exchange(tmp_path, SyntheticMarkets(20, 1), rate=1000) as running,
            recorded(tmp_path, running, MARKET_TICKERS_FILE=str(file)) as recording,
        ):

            async def carries(*numbers: int) -> None:
                tickers = {name(number) for number in numbers}
                await until(lambda: carried(running) == tickers and exact(recording, tickers))
                assert recording.books.by_ticker.keys() == recording.fleet.tickers == tickers
                assert recording.channels.streams.wanted == tickers

            file.write_text(f"{name(0)}\n{name(1)} # two\n")
            await carries(0, 1)
            (tmp_path / "next").write_text(f"{name(1)},{name(2)}")
            (tmp_path / "next").replace(file)
            await carries(1, 2)
            file.write_text("no ticker\n")
            await until(lambda: "the markets stay as they are" in caplog.text)
            await carries(1, 2)
            one = settings_for(tmp_path, running, MARKET_TICKERS=name(1))
            recording.follow(one)
            await carries(1)
            recording.follow(settings_for(tmp_path, running, MARKET_MATCH="*-T000?"))
            await carries(*range(10))
            top = settings_for(tmp_path, running, MARKET_TOP="4", MARKET_TICKERS=name(19))
            recording.follow(top)
            await until(lambda: len(carried(running)) in (5, 6) and name(19) in carried(running))
            recording.follow(one)
            await carries(1)
            assert running.stats.connections == 2

    asyncio.run(run())
    for ticker, found in stored(tmp_path).items():
        kinds = [row["type"] for row in found if row["type"] in ("clear", "gap")]
        assert kinds == ["clear", "gap"] * (len(kinds) // 2), f"{ticker} comes and goes"


def test_a_market_that_is_not_known_yet_is_tried_again_when_it_opens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, hidden = SyntheticMarkets(3, 1), {"KXSIM-26DEC31-N0000"}
    known = Commands._known

    def known_to_it(self: Commands, params: wire.Params) -> list[str]:
        if hidden & set(params.market_tickers or ()):
            raise RefusedError(11, tickers=sorted(hidden))
        return known(self, params)

    monkeypatch.setattr(Commands, "_known", known_to_it)
    monkeypatch.setattr("kalshi_fast.simulator.life.PATIENCE_NS", 0)

    async def run() -> None:
        async with (
            exchange(tmp_path, source, rate=500, life_lead_s=0.3) as running,
            recorded(tmp_path, running, MARKET_ALL_OPEN="on") as recording,
        ):
            await until(lambda: exact(recording, living(running)))
            follower = recording.follower
            running.life._create(source)
            (new,) = running.life.created
            assert {new} == hidden, "announced, but not there yet"
            await until(lambda: new in follower.found)
            await until(lambda: new not in follower.found)
            assert recording.fleet.unknown_tickers == []
            hidden.clear()
            await until(lambda: running.life.markets[new].status == "active")
            await until(lambda: exact(recording, {new}))

    asyncio.run(run())


def test_rest_that_is_away_is_asked_again_and_nothing_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kalshi_fast.rest.ATTEMPTS", 1)
    monkeypatch.setattr(Follower, "_failed", slow_motion_off(Follower._failed))

    async def run() -> None:
        async with (
            exchange(tmp_path, SyntheticMarkets(5, 1), rate=500) as running,
            recorded(tmp_path, running, MARKET_ALL_OPEN="on") as recording,
        ):
            await until(lambda: exact(recording, living(running)))
            running.conditions.rest_faults.extend([("rest_error", 500)] * 4)
            listings = recording.follower.listings
            recording.follower.resumed()
            await until(lambda: recording.follower.listings > listings)
            assert carried(running) == living(running)

    asyncio.run(run())
    assert caplog.text.count("the markets cannot be listed: REST_URL: ") == 4


def slow_motion_off(failed: Callable[[Follower, Any], None]) -> Callable[[Follower, Any], None]:
    """The same, and the next attempt is due at once."""

    def at_once(self: Follower, error: Any) -> None:  # noqa: ANN401
        failed(self, error)
        self._retry_s = 0.0

    return at_once


@pytest.mark.parametrize(
    ("told", "sentence", "code"),  # 1: time may mend it
    [
        ({"MARKET_MATCH": "NOPE*"}, r"there is no market to record: .*\(pattern NOPE\*\)", 1),
        ({"MARKET_ALL_OPEN": "on", "MARKET_COMBOS": "only"}, "there is no combination market to record: ", 1),
        (
            {"MARKET_TICKERS": "NOPE-1,NOPE-2"},
            "MARKET_TICKERS: .* the exchange does not know NOPE-1, NOPE-2$",
            2,
        ),
    ],
)
def test_a_selection_that_finds_nothing_is_an_error_at_start(
    tmp_path: Path, told: dict[str, str], sentence: str, code: int
) -> None:
    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(2, 1)) as running:
            with pytest.raises(ConfigError, match=sentence) as caught:
                await asyncio.to_thread(Recording(settings_for(tmp_path, running, **told)).open)
            assert caught.value.exit_code == code

    asyncio.run(run())


@pytest.mark.parametrize("combos", ["exclude", "include", "only"])
def test_combinations_are_recorded_as_they_are_asked_for(tmp_path: Path, combos: str) -> None:
    """With their books, most of them all but empty, and with the channel that announces their life."""

    async def run() -> None:
        async with (
            exchange(tmp_path, SyntheticMarkets(3, 1, 4), rate=200) as running,
            recorded(tmp_path, running, MARKET_ALL_OPEN="on", MARKET_COMBOS=combos) as recording,
        ):
            everything = set(running.life.markets)
            found = {ticker for ticker in everything if running.life.is_combination(ticker)}
            wanted = {"exclude": everything - found, "include": everything, "only": found}[combos]
            assert (len(everything), len(found)) == (7, 4)
            await until(lambda: exact(recording, wanted))
            assert carried(running) == wanted == set(recording.books.by_ticker)
            heard = "multivariate_market_lifecycle" in recording.settings.channels
            assert heard == (combos != "exclude")
            await until(lambda: all(ticker in recording.channels.streams.catalogue for ticker in wanted))

    asyncio.run(run())
