"""Which markets: selections by themselves, and lists by real REST over TLS against the exchange simulator."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import subprocess
import threading
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client import KEY_ID, exchange
from kalshi_fast import cli
from kalshi_fast import rest as rest_module
from kalshi_fast.auth import Signer
from kalshi_fast.backoff import Scale
from kalshi_fast.channels.catalogue import Catalogue
from kalshi_fast.channels.messages import LifecycleBody
from kalshi_fast.commands.parser import parser
from kalshi_fast.config import load, read_tickers
from kalshi_fast.discovery import listing, table
from kalshi_fast.discovery.selection import Selection, selected, volume_e2
from kalshi_fast.errors import ConfigError, KalshiFastError, RestError
from kalshi_fast.rest import Rest
from kalshi_fast.rest_bodies import RestMarket
from kalshi_fast.simulator.life import Market
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from test_cli import COMMAND, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kalshi_fast.simulator.exchange import Exchange

SERIES = ("KXA", "KXB", "KXAB", "OLD")
STATUSES = ("active", "initialized", "inactive", "closed", "determined", "finalized")
names = st.sampled_from(SERIES)
events = st.builds(lambda series, day: f"{series}-26DEC{day}", names, st.integers(1, 3))
tickers = st.builds(lambda event, strike: f"{event}-T{strike}", events, st.integers(0, 9))
patterns = st.sampled_from(("KXA*", "*-T1", "KX?-26DEC[12]-T*", "*", "NOPE*", "KXA-26DEC1-T1", "[!K]*"))
selections = st.builds(
    Selection,
    series=st.lists(names, max_size=2, unique=True).map(tuple),
    events=st.lists(events, max_size=2, unique=True).map(tuple),
    patterns=st.lists(patterns, max_size=2, unique=True).map(tuple),
)


def wanted(selection: Selection, ticker: str) -> bool:
    """The same as simply as can be."""
    series, day, _ = ticker.split("-")
    return (
        series in selection.series
        or f"{series}-{day}" in selection.events
        or any(fnmatchcase(ticker, pattern) for pattern in selection.patterns)
    )


# --- selections -------------------------------------------------------------------------------------


@given(selections, tickers)
def test_a_market_is_met_by_its_series_its_event_or_a_pattern(selection: Selection, ticker: str) -> None:
    series, day, _ = ticker.split("-")
    assert selection.matches(ticker) == wanted(selection, ticker), "by its name alone"
    assert selection.matches(ticker, f"{series}-{day}", series) == wanted(selection, ticker)
    assert Selection(all_open=True).matches(ticker)
    assert Selection(top=3).matches(ticker)


def test_what_an_announcement_says_counts_more_than_a_name() -> None:
    selection = Selection(series=("FED",), events=("RATES-26",))
    assert selection.matches("ODD", event="RATES-26")
    assert selection.matches("ODD", series="FED")
    assert selection.matches("ODD", event="FED-26DEC")
    assert not selection.matches("FEDX-26DEC-T1")
    assert not selection.matches("RATES-261-T1")


volumes = st.dictionaries(tickers, st.integers(0, 5), max_size=20)


@given(volumes, st.integers(1, 12), st.data())
def test_the_busiest_are_chosen_and_those_that_are_in_stay_a_while(
    volumes: dict[str, int], top: int, data: st.DataObject
) -> None:
    found = {ticker: RestMarket(ticker, volume=volume) for ticker, volume in volumes.items()}
    carried = data.draw(st.lists(st.sampled_from(sorted(volumes)), unique=True)) if volumes else []
    chosen = Selection(top=top).choose(found, carried)
    assert len(set(chosen)) == len(chosen) <= top * 5 // 4
    best = sorted(volumes.values(), reverse=True)[:top]
    assert [volumes[ticker] for ticker in chosen[:top]] == best
    assert set(chosen[top:]) <= set(carried)
    assert sorted(Selection(all_open=True).choose(found)) == sorted(found)


def test_volumes_are_exact_and_nonsense_is_none() -> None:
    assert volume_e2(RestMarket("A", volume_fp="12.34", volume=99)) == 1234
    assert volume_e2(RestMarket("A", volume=7)) == 700
    assert volume_e2(RestMarket("A")) == volume_e2(RestMarket("A", volume_fp="many")) == 0


def setting(*flags: str, **told: str) -> Selection:
    options = parser().parse_args(["config", *flags])
    given_flags = {name: getattr(options, name, None) for name in vars(options) if name.isupper()}
    return selected(load(given_flags, environ=told, env_file=None, toml_file=Path(os.devnull)).settings)


def test_flags_may_be_repeated_and_add_to_what_is_configured(tmp_path: Path) -> None:
    file = tmp_path / "tickers"
    file.write_text("# mine\nA-1, B-2\n\nC-3 D-4 # later\nA-1\n")
    found = setting(
        *("--series", "KXA,KXB", "--series", "OLD", "--event", "E-1", "--match", "K*", "--match", "?Q"),
        *("--tickers", "Z-9", "--tickers-file", str(file), "--top", "5"),
    )
    assert found == Selection(
        ("Z-9", "A-1", "B-2", "C-3", "D-4"), ("KXA", "KXB", "OLD"), ("E-1",), ("K*", "?Q"), False, 5
    )
    assert setting(MARKET_SERIES="KXA", MARKET_ALL_OPEN="off") == Selection(series=("KXA",))
    assert setting("--all-open", MARKET_TICKERS="A") == Selection(("A",), all_open=True)
    assert not setting("--tickers", "A").discovers


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--all-open", "--series", "KXA"], "MARKET_ALL_OPEN: every market is meant"),
        (["--match", "kx*"], r"MARKET_MATCH: expected patterns of .*did you mean KX\*"),
        (["--match", "KX/*"], "MARKET_MATCH: expected patterns of"),
        (["--top", "0"], "MARKET_TOP: expected an integer from 1"),
        (["--series", "KXA", "--rest-url", "off"], "REST_URL is off: .*MARKET_TICKERS"),
        (["--tickers-file", "/nowhere"], "MARKET_TICKERS_FILE: /nowhere does not exist"),
    ],
)
def test_a_selection_that_cannot_be_is_one_sentence(flags: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        setting(*flags)


def test_a_wrong_line_of_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "tickers"
    file.write_text("A-1\nB_2\n")
    with pytest.raises(ConfigError, match=r"line 2: expected tickers of .* 'B_2' is none"):
        read_tickers(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_tickers(file)


@given(st.binary(max_size=200))
@settings(max_examples=50)
def test_no_file_makes_it_fail_another_way(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any tickers"
    file.write_bytes(content)
    try:
        found = read_tickers(file)
    except ConfigError:
        return
    assert all(name.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") == "" for name in found)


def test_an_answer_is_older_than_what_was_announced_while_it_was_waited_for() -> None:
    catalogue = Catalogue()
    assert catalogue.learn(RestMarket("A-1", status="active"), 10) is not None
    assert catalogue.apply(LifecycleBody("A-1", "determined", result="yes"), 30) is not None
    assert catalogue.learn(RestMarket("A-1", status="active"), 20) is None
    later = catalogue.learn(RestMarket("A-1", status="finalized", result="yes"), 40)
    assert later is not None
    assert (later.status, later.result, later.version) == ("finalized", "yes", 40)


# --- lists ------------------------------------------------------------------------------------------


class Shop:
    """An exchange that runs in a thread of its own, and what is needed to ask it."""

    def __init__(self, directory: Path, running: Exchange, loop: asyncio.AbstractEventLoop) -> None:
        self.directory = directory
        self.running = running
        self._loop = loop

    def rest(self) -> Rest:
        signer = Signer.from_file(KEY_ID, self.directory / "client.pem")
        return Rest(self.running.rest_url, signer, cafile=self.directory / "ca.pem", interval_s=0)

    def flags(self) -> list[str]:
        flags = {
            "--prod-keyid": KEY_ID,
            "--prod-keyfile": self.directory / "client.pem",
            "--ws-cafile": self.directory / "ca.pem",
            "--rest-url": self.running.rest_url,
        }
        return [str(part) for pair in flags.items() for part in pair]

    def do(self, work: Callable[[], None]) -> None:
        """In the exchange's own thread."""

        async def call() -> None:
            work()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    opened, closing = threading.Event(), threading.Event()
    held: list[Any] = []

    async def serve() -> None:
        source = SyntheticMarkets(1, 1)
        async with exchange(directory, source) as running:
            running.life.markets.clear()
            for number, series in enumerate(SERIES * 30):
                ticker = f"{series}-26DEC{number % 3 + 1}-T{number // 3:03d}"
                status = STATUSES[number % len(STATUSES)] if number % 2 else "active"
                running.life.markets[ticker] = Market(ticker, 1_000, 2_000 + number, status, strike=number)
                source.add_market(ticker, "linear_cent", running.life._rng)
            held.append(Shop(directory, running, asyncio.get_running_loop()))
            opened.set()
            await asyncio.to_thread(closing.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert opened.wait(30)
    yield held[0]
    closing.set()
    thread.join()


@given(selections, st.integers(9, 130), st.sampled_from(("open", "unopened", "settled", "")))
@settings(max_examples=15)
def test_every_page_is_asked_for_and_every_filter_kept(
    shop: Shop, selection: Selection, page: int, status: str
) -> None:
    status_of = {"open": {"active"}, "unopened": {"initialized"}, "settled": {"finalized"}}
    there_are = {
        ticker
        for ticker, market in shop.running.life.markets.items()
        if wanted(selection, ticker) and market.status in status_of.get(status, STATUSES)
    }
    known = {market.event_ticker for market in shop.running.life.markets.values()}
    rest = shop.rest()
    before, rest_module.PAGE = rest_module.PAGE, page  # type: ignore[misc]
    try:
        assert set(selection.events) <= known
        found = listing.find(rest, selection, (status,))
    finally:
        rest_module.PAGE = before  # type: ignore[misc]
        rest.close()
    assert found.keys() == there_are
    assert all(market.event_ticker == ticker.rpartition("-")[0] for ticker, market in found.items())


def test_what_changes_between_two_pages_makes_none_be_missed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "PAGE", 10)
    markets = shop.running.life.markets
    active = [ticker for ticker, market in markets.items() if market.status == "active"]
    rest = shop.rest()
    pages = listing.pages(rest, {"status": "open"})
    found = [next(pages).ticker]

    def settle(status: str) -> None:
        for ticker in active[2:9:2]:
            markets[ticker].status = status

    shop.do(lambda: settle("finalized"))
    found += [market.ticker for market in pages]
    shop.do(lambda: settle("active"))
    rest.close()
    assert found == active, "those of the first page had been read, the others are all there"


def test_named_markets_are_asked_for_a_hundred_at_a_time(shop: Shop) -> None:
    asked = [*shop.running.life.markets, "NOT-THERE"]
    rest = shop.rest()
    assert list(listing.named(rest, asked)) == asked[:-1]
    assert rest.requests == 2
    rest.close()


@pytest.mark.parametrize(
    ("selection", "sentence"),
    [
        (Selection(series=("KXC",)), "MARKET_SERIES: the exchange has no series KXC; did you mean KX"),
        (Selection(series=("QQQQQ",)), "MARKET_SERIES: the exchange has no series QQQQQ$"),
        (
            Selection(events=("KXA-26DEC9",)),
            "MARKET_EVENTS: the exchange has no event KXA-26DEC9; did you mean KXA-26DEC., KXA-26DEC. or KXA",
        ),
    ],
)
def test_a_name_that_is_not_known_is_said_with_those_that_it_is_like(
    shop: Shop, selection: Selection, sentence: str
) -> None:
    rest = shop.rest()
    with pytest.raises(ConfigError, match=sentence):
        listing.find(rest, selection)
    rest.close()


def test_a_known_series_without_open_markets_is_no_error(shop: Shop) -> None:
    rest = shop.rest()
    assert listing.find(rest, Selection(series=("KXA",)), ("paused",)).keys() == {
        t for t, m in shop.running.life.markets.items() if m.status == "inactive" and t[:4] == "KXA-"
    }
    assert listing.find(rest, Selection(events=("OLD-26DEC1",)), ("closed",)).keys() == {
        t
        for t, m in shop.running.life.markets.items()
        if m.status in ("inactive", "closed", "determined") and t.startswith("OLD-26DEC1-")
    }
    rest.close()


def test_an_exchange_that_is_busy_broken_or_cut_off_is_asked_again(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rest_module, "PAGE", 50)
    waits: list[float] = []
    rest = shop.rest()
    wait = rest._wait

    def soon(seconds: float) -> None:
        waits.append(seconds)
        wait(min(seconds, 0.01))

    monkeypatch.setattr(rest, "_wait", soon)
    faults = [("rest_busy", 7), ("rest_cut", 0), ("rest_error", 503), ("rest_error", 500)]
    shop.do(lambda: shop.running.conditions.rest_faults.extend(faults))
    found = listing.find(rest, Selection(all_open=True), ("",))
    assert found.keys() == shop.running.life.markets.keys()
    assert rest.requests == 3 + len(faults)
    assert 7 in waits, "Retry-After is kept to"
    shop.do(lambda: shop.running.conditions.rest_faults.extend([("rest_error", 500)] * 5))
    with pytest.raises(RestError, match=r"/markets: HTTP 500 \(.*\) \(asked 5 times\)"):
        listing.find(rest, Selection(all_open=True))
    rest.close()


@contextmanager
def answering(*bodies: bytes) -> Iterator[str]:
    """A server on loopback that gives these answers, the last one again and again."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    left = list(bodies)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/trade-api/v2"
        finally:
            server.shutdown()
            thread.join()


def test_a_list_that_does_not_end_and_names_that_are_none_are_noticed(
    key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    page = b'{"markets":[{"ticker":"A-1"},{"ticker":"B\\n\\u001b[2J"}],"cursor":"c"}'
    with answering(page) as url:
        rest = Rest(url, Signer.from_file("k", key_file), interval_s=0)
        with pytest.raises(RestError, match="does not end: the cursor 'c' came twice"):
            listing.find(rest, Selection(all_open=True))
        rest.close()
    assert "is no ticker" in caplog.text
    assert "\x1b" not in caplog.text
    with answering(b'{"markets":[{"ticker":"A-1"}],"cursor":null}', b'{"markets":[]}') as url:
        rest = Rest(url, Signer.from_file("k", key_file), interval_s=0)
        assert list(listing.find(rest, Selection(all_open=True))) == ["A-1"]
        rest.close()


# --- kalshi-fast markets ----------------------------------------------------------------------------


def listed(shop: Shop, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert cli.main(["markets", *arguments, *shop.flags(), "--quiet", "--env-file", os.devnull]) == 0
    return capsys.readouterr().out


def test_the_command_lists_searches_and_writes_what_run_reads(
    shop: Shop, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MARKET_TICKERS", "NOT-LOOKED-AT")
    markets = shop.running.life.markets
    found = listed(shop, capsys, "--format", "tickers").split()
    assert set(found) == {ticker for ticker, market in markets.items() if market.status == "active"}
    (tmp_path / "t").write_text("\n".join(found))
    assert read_tickers(tmp_path / "t") == tuple(found)
    rows = json.loads(listed(shop, capsys, "--match", "KXA-*", "--status", "any", "--json"))
    assert {row["ticker"] for row in rows} == {ticker for ticker in markets if ticker[:4] == "KXA-"}
    assert {row["series_ticker"] for row in rows} == {"KXA"}
    assert listed(shop, capsys, "--tickers", "OLD-26DEC1-T001,NOPE", "--format", "tickers").split() == [
        ticker for ticker in ("OLD-26DEC1-T001",) if ticker in markets
    ]
    shown = listed(shop, capsys, "simulation", "REACH", "--limit", "2").splitlines()
    assert shown[0].split()[:3] == ["TICKER", "STATUS", "VOLUME"]
    assert shown[-1] == f"… and {len(found) - 2:,} more (--limit, --format tickers)"
    assert len(shown) == 4
    assert listed(shop, capsys, "nosuchword", "--json") == "[]\n"


def test_the_command_says_what_is_wrong_in_one_sentence(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*arguments: str, code: int) -> str:
        done = subprocess.run(
            [*COMMAND, "markets", "--quiet", *arguments],
            env=environment(PYTHONPATH=os.environ.get("PYTHONPATH", "")),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr
        (line,) = done.stderr.splitlines()
        return line

    assert "did you mean KXA" in refused(*shop.flags(), "--series", "KXAA", code=2)
    assert "PROD_KEYID is not set" in refused(code=2)
    monkeypatch.setattr(rest_module, "RETRY", Scale(1, 1))
    arguments = [*shop.flags(), "--rest-url", "http://127.0.0.1:1/trade-api/v2", "--quiet"]
    assert cli.main(["markets", *arguments, "--env-file", os.devnull]) == 1
    away = capsys.readouterr().err.strip()
    assert away.startswith("kalshi-fast: REST_URL: http://127.0.0.1:1/trade-api/v2/markets: ")
    assert away.endswith("(asked 5 times)")


def test_a_table_fits_the_terminal_and_no_title_moves_the_cursor() -> None:
    markets = [
        RestMarket("A-1", title="long " * 50, volume_fp="1234567.00", close_time="2026-12-31T10:00:00Z"),
        RestMarket("B-2", title="\x1b[2Jbad", yes_bid_dollars="0.0100"),
    ]
    shown = table.as_table(table.search(markets, ()), None, width=100)
    assert all(len(line) <= 100 for line in shown.splitlines())
    assert "1,234,567" in shown
    assert "\x1b" not in shown
    assert table.search(markets, ["LONG", "a-1"]) == markets[:1]
    assert issubclass(RestError, KalshiFastError)
