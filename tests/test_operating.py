"""What an operator sees of a real recording: metrics, health, the page, top, watch, logs, alerts, dashboard.

One recorder and one exchange for all of these tests, which therefore run in this order: the exchange loses
and damages frames and hangs up at the beginning; the last tests kill the writer and take the exchange away.
"""

from __future__ import annotations

import html
import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pyarrow.dataset as ds
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from kalshi_fast.status.metrics import METRICS
from operators import Exchange, Recorder, eventually, recording, tmux, tool

if TYPE_CHECKING:
    from collections.abc import Iterator

MARKETS = 40
PASSWORD = "a-password-that-nobody-may-see"
FAULTS: list[dict[str, Any]] = [
    {"at_s": 0.4, "kind": "drop", "n": 3},
    {"at_s": 0.8, "kind": "corrupt", "n": 2},
    {"at_s": 1.2, "kind": "close", "code": 1012},
]
DEPLOY = Path(__file__).resolve().parents[1] / "deploy"
RULES = DEPLOY / "prometheus" / "kalshi-fast.rules.yml"
DASHBOARD = DEPLOY / "grafana" / "kalshi-fast.json"
COMMAND = [sys.executable, "-m", "kalshi_fast"]


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    directory = tmp_path_factory.mktemp("exchange")
    script = directory / "faults.json"
    script.write_text(json.dumps(FAULTS))
    exchange = Exchange(directory, "--markets", str(MARKETS), "--rate", "1000", "--faults", str(script))
    yield exchange
    exchange.stop()


@pytest.fixture(scope="module")
def recorder(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    settings = {"CLICKHOUSE_PASSWORD": PASSWORD, "LOG_FORMAT": "json"}
    with recording(tmp_path_factory.mktemp("recorder"), exchange, **settings) as recorder:
        yield recorder


def metrics(recorder: Recorder) -> dict[str, dict[tuple[str, ...], float]]:
    """Name of the sample → values of its labels → value, as another's parser reads it."""
    status, text = recorder.get("/metrics")
    assert status == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels.values())] = sample.value
    return found


def one(recorder: Recorder, name: str) -> float:
    (value,) = metrics(recorder)[f"kalshi_fast_{name}"].values()
    return value


def test_every_metric_is_there_and_tells_what_happened(recorder: Recorder) -> None:
    eventually(
        "the faults have been seen, and the books are exact again",
        lambda: (
            all(one(recorder, name) > 0 for name in ("gaps_total", "resyncs_total", "reconnects_total"))
            and "kalshi_fast_frames_rejected_total" in metrics(recorder)
            and one(recorder, "markets_known") == MARKETS
            and one(recorder, "wire_to_queryable_seconds_count") > 0
        ),
    )
    found = metrics(recorder)
    names = {metric.name + ("_count" if metric.kind == "histogram" else "") for metric in METRICS}
    assert names <= found.keys(), names - found.keys()

    def value(name: str, *labels: str) -> float:
        return found[f"kalshi_fast_{name}"][labels]

    assert value("connects_total") == value("reconnects_total") + len(found["kalshi_fast_connections"])
    assert value("markets_wanted") == MARKETS
    assert value("markets_unknown") == 0
    assert value("gap_events_total") >= MARKETS, "the close alone made all of them unknown"
    assert value("events_total") >= value("deltas_total") + value("gap_events_total")
    assert 0 < value("sink_rows_total", "Parquet") <= value("events_total") + 2000
    assert value("sink_failing", "ClickHouse") == 0
    assert value("healthy") == 1
    assert value("publish_seconds") > 0
    for process in ("capture", "writer", "status"):
        assert value("process_resident_bytes", process) > 1e7
    for histogram in ("wire_to_row", "wire_to_queryable", "exchange_to_wire"):
        counts = list(found[f"kalshi_fast_{histogram}_seconds_bucket"].values())
        assert counts == sorted(counts)
        assert counts[-1] == value(f"{histogram}_seconds_count")
    frames = value("frames_total")
    eventually("they go on", lambda: one(recorder, "frames_total") > frames)


def test_alerts_and_dashboard_use_metrics_that_there_are(recorder: Recorder) -> None:
    rules = yaml.safe_load(RULES.read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    dashboard = json.loads(DASHBOARD.read_text())
    targets = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    assert len(expressions) > 10
    assert len(targets) > 40
    used = {name for text in (*expressions, *targets) for name in re.findall(r"kalshi_fast_[a-z_]+", text)}
    eventually("all are told, some when something has happened", lambda: used <= metrics(recorder).keys())
    reasons = {labels[0] for labels in metrics(recorder)["kalshi_fast_unhealthy"]}
    asked = {reason for text in expressions for reason in re.findall(r'reason="([a-z]+)"', text)}
    assert asked
    assert asked <= reasons
    shown = {
        metric.name for metric in METRICS if any(metric.name in text for text in (*expressions, *targets))
    }
    left_out = {metric.name.removeprefix("kalshi_fast_") for metric in METRICS} - {
        name.removeprefix("kalshi_fast_") for name in shown
    }
    # Everything is on the dashboard but what other panels say better.
    assert left_out <= {
        *("snapshots_total", "deltas_total", "connects_total", "blackout_max_seconds"),
        *("last_frame_timestamp_seconds", "batches_total", "queue_slots", "trades_repeated_total"),
        *("reference_prices_total", "reference_prices_repeated_total"),
    }


def test_prometheus_itself_takes_metrics_and_rules(recorder: Recorder) -> None:
    promtool = tool("promtool")
    _, text = recorder.get("/metrics")
    checked = subprocess.run(
        [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, capture_output=True)


def test_a_ladder_is_the_exchange_s_book(recorder: Recorder, exchange: Exchange) -> None:
    ticker = exchange.tickers[-1]  # the quietest of them

    def look() -> tuple[Any, Any] | None:
        """A moment at which the book did not change on its way to us."""
        before = exchange.books()[ticker]
        ladder = recorder.json(f"/api/ladder?market={ticker}")
        return (ladder, before) if exchange.books()[ticker] == before else None

    def same() -> bool:
        seen = eventually("a quiet moment", look)
        ladder, book = seen
        assert ladder["known"]
        return all(
            ladder[side] == sorted(([p, q] for p, q in book[side]), reverse=True)[:20]
            for side in ("yes", "no")
        )

    eventually("a ladder that was not overtaken by a frame", same)
    assert recorder.get("/api/ladder?market=KXSIM-UNKNOWN")[0] == 404


def test_markets_are_listed_busiest_first(recorder: Recorder, exchange: Exchange) -> None:
    def settled() -> Any:  # noqa: ANN401 - JSON
        listed = recorder.json("/api/markets")
        return listed if all(m["known"] for m in listed["markets"]) and listed["count"] == MARKETS else None

    markets = eventually("all are known", settled)["markets"]
    assert {market["ticker"] for market in markets} == set(exchange.tickers)
    rates = [market["events_per_s"] for market in markets]
    assert rates == sorted(rates, reverse=True)
    assert all(market["gaps"] >= 1 for market in markets), "the close made each unknown"
    assert recorder.json("/api/markets?limit=3")["markets"][2]


HOSTILE = [
    b"GET /healthz HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET /../../etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/ladder?market=' HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/ladder?market=" + b"A" * 129 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/markets?limit=-1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/status?since=1e9 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /api/status?" + b"a=1&" * 50 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /metrics HTTP/1.1\r\nHost: [\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"DELETE / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello\r\n\r\n",
    b"GET / HTTP/9.9\r\n\r\n",
]


@pytest.mark.parametrize("request_bytes", HOSTILE, ids=range(len(HOSTILE)))
def test_what_should_not_be_asked_is_refused(recorder: Recorder, request_bytes: bytes) -> None:
    parts = urlsplit(recorder.url)
    with socket.create_connection((str(parts.hostname), parts.port or 0), timeout=20) as connection:
        connection.sendall(request_bytes)
        answer = connection.recv(65_536)
    line = answer.split(b"\r\n")[0]
    # What is no HTTP/1 is told so without a head, as HTTP/0.9 has it.
    assert re.match(rb"HTTP/1\.1 (4\d\d|501|505) |Bad |Invalid ", line), line
    assert b"Traceback" not in answer
    assert recorder.health()[0] == 200


def test_top_once_and_as_json(recorder: Recorder, exchange: Exchange) -> None:
    arguments = [*COMMAND, "top", "--http", urlsplit(recorder.url).netloc, "--once", "--env-file", os.devnull]
    shown = subprocess.run(arguments, capture_output=True, check=True, text=True).stdout
    assert f"books exact {MARKETS} of {MARKETS}" in shown
    assert all(ticker in shown for ticker in exchange.tickers)
    wanted = [*arguments, "--json", "--match", "*T000?", "--limit", "4"]
    figures = json.loads(subprocess.run(wanted, capture_output=True, check=True, text=True).stdout)
    assert figures["markets_shown_of"] == 10
    assert len(figures["markets"]) == 4


def test_top_on_a_terminal(recorder: Recorder, exchange: Exchange) -> None:
    command = [*COMMAND, "top", "--http", urlsplit(recorder.url).netloc, "--interval", "0.2"]
    with tmux([*command, "--env-file", os.devnull], columns=110, rows=20) as screen:
        first = eventually(
            "the markets are shown", lambda: (shown := screen()) and "T0000" in shown and shown
        )
        lines = first.rstrip("\n").split("\n")
        assert lines[0].startswith("kalshi-fast ok")
        assert "frames/s" in lines[1]
        assert "queue" in lines[2]
        assert "journal" in lines[2]
        assert re.match(r"rows: .*ClickHouse [\d,]+", lines[3])
        assert re.match(r"market +events/s +events +gaps +lag +last +book", lines[5])
        assert re.match(r"KXSIM-26DEC31-T0000 .* exact", lines[6]), "the busiest market is the first"
        assert len(lines) <= 20

        def frames(shown: str) -> str:
            return shown.split("frames ")[1].split()[0]

        eventually("it is redrawn in place", lambda: frames(screen()) != frames(first))
        assert screen().count("kalshi-fast ok") == 1


def watch(exchange: Exchange, *arguments: str) -> list[str]:
    key = exchange.environment
    told = [
        "--prod-keyid",
        key["PROD_KEYID"],
        "--prod-keyfile",
        key["PROD_KEYFILE"],
        "--ws-url",
        key["WS_URL"],
    ]
    told += ["--ws-cafile", key["WS_CAFILE"], "--env-file", os.devnull]
    return [*COMMAND, "watch", *arguments, *told]


def test_watch_on_a_terminal(recorder: Recorder, exchange: Exchange) -> None:
    ticker = exchange.tickers[0]
    with tmux(watch(exchange, ticker, "--rate", "10"), columns=90, rows=30) as screen:
        shown = eventually(
            "a ladder of both sides, and the rate",
            lambda: (
                (shown := screen())
                and re.search(r"[1-9][\d,.]* updates/s", shown)
                and "  bid  " in shown
                and "  ask  " in shown
                and shown
            ),
        )
        assert re.match(rf"{ticker}  exact  [\d.,]+ updates/s  last frame \d+\.\d s ago", shown)
        levels = re.findall(
            r"^  (ask|bid)   +(\d\.\d{4}) +([\d,]+\.\d\d) +(█*[▏▎▍▌▋▊▉█])$", shown, re.MULTILINE
        )
        prices = [float(price) for _, price, _, _ in levels]
        assert prices == sorted(prices, reverse=True)
        assert len(levels) >= 8
        asks = [float(price) for side, price, _, _ in levels if side == "ask"]
        bids = [float(price) for side, price, _, _ in levels if side == "bid"]
        assert f"spread {min(asks) - max(bids):.4f}" in shown
        longest = max(levels, key=lambda level: float(level[2].replace(",", "")))
        assert len(longest[3]) == max(len(bar) for *_, bar in levels)
        eventually("it is redrawn", lambda: screen() != shown)
        trade = r"^  \d\d:\d\d:\d\d\.\d{3}  \d\.\d{4} +[\d,]+\.\d\d  (yes|no) taker$"
        eventually("trades are shown", lambda: re.search(trade, screen(), re.MULTILINE))


def test_watch_prints_lines_and_logs_every_event(
    recorder: Recorder, exchange: Exchange, tmp_path: Path
) -> None:
    ticker, log = exchange.tickers[0], tmp_path / "events.ndjson"
    arguments = ["--ticker", ticker, "--compact", "--rate", "5", "--seconds", "3", "--log", str(log)]
    done = subprocess.run(watch(exchange, *arguments), capture_output=True, check=True, text=True)
    lines = done.stdout.splitlines()
    assert 2 <= len(lines) <= 16, "at most five a second"
    form = rf"\d\d:\d\d:\d\d\.\d{{3}}  {ticker}  bid \d\.\d{{4}} x [\d,.]+  ask .*  spread .*/s  exact"
    assert all(re.fullmatch(form, line) for line in lines), lines
    events = [json.loads(line) for line in log.read_text().splitlines()]
    events = [event for event in events if event["type"] != "trade"]
    assert [events[0]["type"], events[1]["type"], events[-1]["type"]] == ["clear", "snapshot", "gap"]
    seqs = [event["seq"] for event in events if event["type"] == "delta"]
    assert len(seqs) > len(lines), "the file has every event, the screen has not"
    assert seqs == sorted(set(seqs))
    assert {event["market_ticker"] for event in events} == {ticker}
    delta = next(event for event in events if event["type"] == "delta")
    assert delta["price_dollars"] == f"{delta['price_e4'] / 10_000:.4f}"
    assert float(delta["qty"]) * 100 == pytest.approx(delta["qty_e2"])


def test_watch_once_as_json(recorder: Recorder, exchange: Exchange) -> None:
    arguments = [exchange.tickers[1], "--json", "--once", "--levels", "3"]
    done = subprocess.run(watch(exchange, *arguments), capture_output=True, check=True, text=True)
    book = json.loads(done.stdout)
    assert book["market_ticker"] == exchange.tickers[1]
    assert book["state"] == "exact"
    assert len(book["yes"]) == len(book["no"]) == 3
    assert book["spread_e4"] == 10_000 - book["no"][0]["price_e4"] - book["yes"][0]["price_e4"]


def test_the_page_in_a_browser(recorder: Recorder, exchange: Exchange, tmp_path: Path) -> None:
    browser = tool("chromium", "chromium-browser", "google-chrome")
    ticker = exchange.tickers[1]
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,1300"]
    arguments += [f"--user-data-dir={tmp_path}/profile", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run(
        [browser, *arguments, f"{recorder.url}/#{ticker}"], capture_output=True, check=True, timeout=60
    )
    dom = done.stdout.decode()
    updates = re.search(r'data-updates="(\d+)"', dom)
    assert updates is not None
    assert int(updates[1]) >= 3, "it updates itself"
    assert re.search(r'id="health" class="ok">ok<', dom)
    tiles = dict(re.findall(r'data-name="([^"]+)"><span class="dim">[^<]*</span><b>([^<]*)</b>', dom))
    assert tiles["markets known"] == f"{MARKETS} of {MARKETS}"
    assert int(tiles["frames"].replace(",", "")) > 0
    assert {"rows in ClickHouse", "rows in Parquet", "journal", "queue", "writer memory"} <= tiles.keys()
    for chart in ("throughput", "latency"):
        drawn = re.search(rf'<svg id="{chart}".*?</svg>', dom, re.DOTALL)
        assert drawn is not None
        assert len(re.findall(r'<path d="M[\d.]+ [\d.]+L', drawn[0])) >= 2, "lines of more than one point"
    ladder = dom.split('id="ladder"')[1].split("</table>")[0]
    prices = [float(price) for price in re.findall(r"<tr class=\"(?:ask|bid)\"><td>([\d.]+)</td>", ladder)]
    assert len(prices) >= 6
    assert prices == sorted(prices, reverse=True)
    assert re.search(r"spread 0\.\d{4}", ladder)
    assert f"<td>{ticker}</td>" in dom
    assert "exact" in html.unescape(dom)


def test_no_secret_is_told_anywhere(recorder: Recorder, exchange: Exchange) -> None:
    key = Path(exchange.environment["PROD_KEYFILE"]).read_text().splitlines()[1]
    told = [recorder.said.read_text()]
    told += [recorder.get(path)[1] for path in ("/", "/metrics", "/healthz", "/api/status", "/api/markets")]
    for text in told:
        for secret in (exchange.environment["PROD_KEYID"], PASSWORD, key):
            assert secret not in text


def test_logs_are_json(recorder: Recorder) -> None:
    lines = [json.loads(line) for line in recorder.said.read_text().splitlines()]
    assert all(line.keys() >= {"ts", "level", "logger", "message"} for line in lines)
    assert any(line["logger"] == "kalshi_fast.feed" and line["level"] == "WARNING" for line in lines)


def test_a_dead_writer_is_told_and_comes_back(recorder: Recorder) -> None:
    before = {market["ticker"]: market["events"] for market in recorder.json("/api/markets")["markets"]}
    os.kill(recorder.json("/api/status")["capture"]["writer_pid"], signal.SIGKILL)
    eventually("it is told", lambda: recorder.health() == (503, {"writer"}))
    eventually("it is well again", lambda: recorder.health() == (200, set()))
    assert one(recorder, "writer_restarts_total") == 1

    def settled() -> bool:
        now = recorder.json("/api/markets")["markets"]
        return all(market["known"] and market["events"] > before[market["ticker"]] for market in now)

    eventually("markets are known, and counted on", settled)


def test_a_dead_status_process_comes_back(recorder: Recorder) -> None:
    status = next(
        int(child)
        for task in Path(f"/proc/{recorder.process.pid}/task").iterdir()
        for child in (task / "children").read_text().split()
        if "kalshi_fast.status.process" in Path(f"/proc/{child}/cmdline").read_text()
    )
    os.kill(status, signal.SIGKILL)
    eventually("it says how it is, at the same address", lambda: recorder.health()[0] == 200)
    eventually("all markets are there again", lambda: recorder.json("/api/markets")["count"] == MARKETS)


def test_without_the_exchange_it_is_not_well(recorder: Recorder, exchange: Exchange) -> None:
    exchange.stop()
    eventually("it is told", lambda: recorder.health() == (503, {"connection"}))
    down = {("books",): 0, ("channels",): 0}
    eventually("both are down", lambda: metrics(recorder)["kalshi_fast_connections_up"] == down)
    found = metrics(recorder)
    assert found["kalshi_fast_markets_known"][()] == 0
    assert found["kalshi_fast_unhealthy"][("connection",)] == 1


def test_every_row_is_there_once_and_nothing_is_left(recorder: Recorder) -> None:
    figures = recorder.stop()
    files = ds.dataset(recorder.said.parent / "data" / "orderbook", format="parquet")
    assert figures["events"] == figures["clickhouse_rows"] == figures["parquet_rows"] == files.count_rows()
    assert figures["writer_restarts"] == 1
    with pytest.raises(ConnectionRefusedError):
        recorder.get("/healthz")
