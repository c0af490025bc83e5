"""What the exchange simulator plays and how it is told: recordings in both schemas, in their own time; prices
on the yes scale; the lifecycle channel; checkpoints of the truth; and its command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client import Client, connect, exchange, rebuilt
from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.faults import fault
from kalshi_fast.simulator.pace import Pace
from kalshi_fast.simulator.recorded import RecordedMarkets
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from test_simulator import TICKERS, process, subscribe, update

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.simulator.exchange import Exchange

DELTA = "orderbook_delta"
START = datetime(2026, 10, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def truth(running: Exchange) -> dict[str, dict[str, dict[int, int]]]:
    return {t: {side: dict(levels) for side, levels in book.items()} for t, book in running.books().items()}


# --- commands ---------------------------------------------------------------------------------------


def test_use_yes_price_tells_the_no_side_as_yes_prices(tmp_path: Path) -> None:
    async def run() -> None:
        storm = fault(0.3, "storm")
        async with exchange(tmp_path, rate=2000, seconds=0.4, faults=[storm], old_sids=True) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe(*TICKERS, use_yes_price=True))
            client.send({**subscribe(*TICKERS, use_yes_price=False, send_initial_snapshot=True), "id": 2})
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            yes_scale, own_scale = (
                rebuilt([frame for frame in client.frames if frame.get("sid") == sid]) for sid in (1, 2)
            )
            assert own_scale == truth(running)
            assert yes_scale == {
                ticker: {"yes": book["yes"], "no": {10_000 - p: q for p, q in book["no"].items()}}
                for ticker, book in truth(running).items()
            }

    asyncio.run(run())


def test_one_subscription_per_channel(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=1, max_subscriptions=3) as running:
            client = await connect(tmp_path, running.url)
            both = ["orderbook_delta", "market_lifecycle_v2"]
            client.send(subscribe(TICKERS[0], channels=both))
            await client.until(lambda: len([f for f in client.frames if f["type"] == "subscribed"]) == 2)
            listed = await client.reply({"id": 2, "cmd": "list_subscriptions"})
            assert listed["msg"] == [{"channel": channel, "sid": n} for n, channel in enumerate(both, 1)]
            refused = await client.reply(update(2, "add_markets", TICKERS[0]))
            assert (refused["msg"]["code"], refused["sid"], refused["seq"]) == (13, 2, 1)
            more = await client.reply(subscribe(channels=["market_lifecycle_v2"]))
            assert (more["type"], more["sid"], more["seq"]) == ("ok", 2, 2), "the same sid once more"
            third = await client.reply(subscribe(channels=["trade"]))
            assert third["msg"] == {"channel": "trade", "sid": 3}, "needs no markets"
            one_too_many = await client.reply(subscribe(TICKERS[0], channels=["ticker"]))
            assert (one_too_many["type"], one_too_many["msg"]["code"]) == ("error", 1)
            gone = await client.reply({"id": 3, "cmd": "unsubscribe", "params": {"sids": [2]}})
            assert (gone["type"], gone["sid"], gone["seq"]) == ("unsubscribed", 2, 3)
            seen = len(client.frames)
            client.send(subscribe(TICKERS[0], channels=["ticker", "gossip"]))
            await client.until(lambda: len(client.frames) >= seen + 2)
            granted, refused = (f for f in client.frames[seen:] if "id" in f)
            assert granted["msg"] == {"channel": "ticker", "sid": 4}
            assert refused["msg"]["code"] == 8, "the others are granted all the same"

    asyncio.run(run())


def test_a_further_subscribe_is_merged_as_recorded(tmp_path: Path) -> None:
    """As in the recordings of August and September 2026: ``ok`` with a number and all tickers, in order, then
    snapshots of the markets that are new; that of the ticker channel without a number."""

    async def run() -> None:
        async with exchange(tmp_path, rate=1) as running:
            running.end_play()
            client = await connect(tmp_path, running.url)
            for command_id, tickers in enumerate((TICKERS[2:], TICKERS[:2], TICKERS), 1):
                client.send({**subscribe(*tickers), "id": command_id})
            await client.until(lambda: bool(client.frames) and client.frames[-1].get("id") == 3)
            told = [(f["type"], f.get("id"), f.get("sid"), f.get("seq")) for f in client.frames]
            assert told == [
                ("subscribed", 1, None, None),
                ("orderbook_snapshot", None, 1, 1),
                ("ok", 2, 1, 2),
                ("orderbook_snapshot", None, 1, 3),
                ("orderbook_snapshot", None, 1, 4),
                ("ok", 3, 1, 5),
            ]
            assert client.frames[2]["msg"] == {"market_tickers": TICKERS}
            assert list(client.frames[2]) == ["type", "id", "sid", "seq", "msg"]
            await client.reply({**subscribe(TICKERS[1], channels=["ticker"]), "id": 4})
            merged = await client.reply({**subscribe(TICKERS[0], channels=["ticker"]), "id": 5})
            assert merged == {"type": "ok", "id": 5, "sid": 2, "msg": {"market_tickers": TICKERS[:2]}}

    asyncio.run(run())


def test_a_ticker_that_is_none_gets_an_empty_snapshot(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=1) as running:
            running.end_play()
            client = await connect(tmp_path, running.url)
            client.send(subscribe("NOPE"))
            await client.until(lambda: len(client.frames) == 2)
            assert client.frames[1]["msg"] == {"market_ticker": "NOPE", "market_id": ""}

    asyncio.run(run())


def test_answers_out_of_order(tmp_path: Path) -> None:
    """Each one in its place of the sequence, but not in that of the commands."""

    async def run() -> None:
        source = SyntheticMarkets(60, 1)
        async with exchange(tmp_path, source, rate=1, out_of_order=True) as running:
            running.end_play()
            client = await connect(tmp_path, running.url)
            for command_id, ticker in enumerate(source.books, 1):
                client.send({**subscribe(ticker), "id": command_id})
            await client.until(lambda: len(client.frames) == 120)
            answers = [frame["id"] for frame in client.frames if "id" in frame]
            assert sorted(answers) == list(range(1, 61))
            assert answers != sorted(answers)
            assert [f["type"] for f in client.frames].count("subscribed") == 1
            numbers = [frame["seq"] for frame in client.frames if "seq" in frame]
            assert numbers == list(range(1, 120))
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


def test_events_fees_metadata_and_multivariate_markets_are_announced_and_fills_told(tmp_path: Path) -> None:
    async def run() -> None:
        source = SyntheticMarkets(20, 1)
        async with exchange(tmp_path, source, rate=4000, life_every_s=0.05, life_lead_s=0.05) as running:
            client = await connect(tmp_path, running.url)
            names = ["market_lifecycle_v2", "multivariate_market_lifecycle", "trade", "fill"]
            client.send(subscribe(channels=names))
            running.subscribed.set()

            def told(channel: str) -> list[dict[str, Any]]:
                return [frame["msg"] for frame in client.frames if frame["type"] == channel]

            await client.until(
                lambda: (
                    len(told("event_lifecycle")) >= 2
                    and any(msg["fee_type_override"] is None for msg in told("event_fee_update"))
                    and any(msg["event_type"] == "settled" for msg in told("multivariate_market_lifecycle"))
                    and len(told("fill")) > 2
                )
            )
            running.end_play()
            await asyncio.sleep(0.05)
            new = {msg["event_ticker"] for msg in told("event_lifecycle")}
            assert "KXSIM-26DEC31" not in new, "it was there before"
            created = {t.rpartition("-")[0] for t in running.life.created}
            assert new == created - {"KXSIM-26DEC31"}
            fees = told("event_fee_update")
            overrides = {(msg["fee_type_override"], msg["fee_multiplier_override"]) for msg in fees}
            assert overrides == {("quadratic_with_maker_fees", 2), (None, None)}
            (renamed, *_) = [m for m in told("market_lifecycle_v2") if m["event_type"] == "metadata_updated"]
            assert {"yes_sub_title", "strike_type", "floor_strike", "custom_strike"} < renamed.keys()
            turns = defaultdict(list)
            for msg in told("multivariate_market_lifecycle"):
                turns[msg["market_ticker"]].append(msg["event_type"])
            assert turns.pop("KXMVESIM-26DEC31-M0000") == [
                *("created", "activated", "deactivated", "determined", "settled"),
            ]
            trades = [msg["trade_id"] for msg in told("trade")]
            assert [msg["trade_id"] for msg in told("fill")] == trades[9::10]
            counts = Counter(
                "multivariate_market_lifecycle" if "KXMVE" in str(frame["msg"]) else kind
                for frame in client.frames
                if "lifecycle" in frame["type"] or "fee" in frame["type"]
                for kind in [frame["msg"].get("event_type", frame["type"])]
            )
            assert counts == running.stats.announcements
            assert counts.total() == running.stats.announcements_sent

    asyncio.run(run())


@pytest.mark.parametrize(("unique", "expected"), [(False, [1, 1]), (True, [1, 2])])
def test_sids_of_two_connections(tmp_path: Path, unique: bool, expected: list[int]) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=1, unique_sids=unique) as running:
            clients = [await connect(tmp_path, running.url) for _ in range(2)]
            replies = [await client.reply(subscribe(TICKERS[0])) for client in clients]
            assert [reply["msg"]["sid"] for reply in replies] == expected

    asyncio.run(run())


# --- checkpoints ------------------------------------------------------------------------------------


def test_checkpoints_are_the_books_after_the_frame_they_name(tmp_path: Path) -> None:
    async def run() -> list[Client]:
        script = [fault(0.2, "unknown", s=0.2), fault(0.3, "empty"), fault(0.5, "storm")]
        async with exchange(
            tmp_path,
            rate=1000,
            seconds=2,
            faults=script,
            checkpoint_every_s=0.1,
            directory=tmp_path,
            unique_sids=True,
        ) as running:
            clients = [await connect(tmp_path, running.url) for _ in range(2)]
            clients[0].send(subscribe(*TICKERS[:2]))
            clients[0].send(subscribe(channels=["market_lifecycle_v2"]))
            clients[1].send(subscribe(*TICKERS))
            await asyncio.sleep(0.2)
            (first,) = {f["msg"]["sid"] for f in clients[0].frames if f["type"] == "subscribed"} - {2, 3} or {
                1
            }
            clients[0].send(update(first, "add_markets", TICKERS[2]))
            clients[1].send(update(3, "get_snapshot", TICKERS[2]))
            await running.finished.wait()
            sent = running.stats.frames_sent
            await clients[0].until(lambda: sum(len(client.frames) for client in clients) == sent)
            assert running.stats.checkpoints == 20, "one each 100 ms, the last at the end"
        return clients

    clients = asyncio.run(run())
    lines = [json.loads(line) for line in (tmp_path / "checkpoints.jsonl").read_text().splitlines()]
    assert 20 < len(lines) <= 40
    for line in lines:
        assert set(line) == {"sid", "seq", "books"}
        frames = [
            frame
            for client in clients
            for frame in client.frames
            if frame.get("sid") == line["sid"] and frame["seq"] <= line["seq"]
        ]
        assert len(frames) == line["seq"]
        books = {t: {side: dict(levels) for side, levels in b.items()} for t, b in line["books"].items()}
        assert rebuilt(frames) == books
    assert {len(line["books"]) for line in lines} == {2, 3}


# --- recordings -------------------------------------------------------------------------------------


class Ours:
    """Writes rows as our own Parquet sink does: one more second for each."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.conn_id = 7
        self.seq = 0

    def row(self, kind: str, ticker: str, side: str = "yes", price_e4: int = 0, qty_e2: int = 0) -> Ours:
        self.seq += kind != "snapshot"
        moment = START + timedelta(seconds=len(self.rows))
        self.rows.append(
            {
                "type": kind,
                "conn_id": self.conn_id,
                "sid": 1,
                "seq": self.seq,
                "market_id": f"id-{ticker}",
                "market_ticker": ticker,
                "side": side,
                "price_e4": price_e4,
                "qty_e2": qty_e2,
                "ts": moment,
                "ingest_ts": moment,
            }
        )
        return self

    def write(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(self.rows, schema=EVENT_SCHEMA), file)


def played(source: RecordedMarkets) -> list[tuple[str, dict[str, Any]]]:
    found = []
    while (change := source.step(0)) is not None:
        found.append((change.type.decode().removeprefix("orderbook_"), json.loads(change.body)))
    return found


def test_our_own_recordings(tmp_path: Path) -> None:
    first = Ours().row("clear", "A").row("snapshot", "A", "yes", 1234, 550)
    first.row("snapshot", "A", "no", 10, 100)
    first.row("clear", "B").row("delta", "A", "yes", 1234, -550).row("delta", "B", "no", 9990, 1)
    first.row("gap", "A").row("delta", "A", "no", 10, -999).row("delta", "B", "no", 9990, 1)
    first.write(tmp_path / "orderbook" / "date=2026-10-01" / "part-1.parquet")
    second = Ours()
    second.conn_id = 8
    second.row("clear", "A").row("snapshot", "A", "yes", 5000, 300).row("delta", "A", "yes", 5000, 1)
    second.row("delta", "B", "no", 100, -25).row("clear", "B").row("gap", "B")
    second.write(tmp_path / "orderbook" / "date=2026-10-02" / "part-2.parquet")
    source = RecordedMarkets(tmp_path, "current")
    assert {ticker: book.market_id for ticker, book in source.books.items()} == {"A": "id-A", "B": "id-B"}
    assert source.structures == {"A": "deci_cent", "B": "tapered_deci_cent"}
    found = [
        (
            kind,
            body["market_ticker"],
            body.get("yes_dollars_fp"),
            body.get("delta_fp"),
            body.get("no_dollars_fp"),
        )
        for kind, body in played(source)
    ]
    assert found == [
        ("snapshot", "A", [["0.1234", "5.50"]], None, [["0.0010", "1.00"]]),
        ("snapshot", "B", None, None, None),
        ("delta", "A", None, "-5.50", None),
        ("delta", "B", None, "0.01", None),
        ("delta", "B", None, "0.01", None),
        # A new connection: what it has of B before a clear of its own cannot be used.
        ("snapshot", "A", [["0.5000", "3.00"]], None, None),
        ("delta", "A", None, "0.01", None),
        ("snapshot", "B", None, None, None),
    ]
    assert source.books["A"].sides == ({5000: 301}, {})
    with pytest.raises(SimulatorError, match="--form: legacy has whole cents and contracts only, and A"):
        RecordedMarkets(tmp_path, "legacy")


def test_times_of_our_own_recordings(tmp_path: Path) -> None:
    Ours().row("clear", "A").row("delta", "A", "yes", 100, 100).write(tmp_path / "part.parquet")
    for old, expected in (
        (False, ("2026-10-01T12:00:01.25Z", 1790856001250)),
        (True, ("2026-10-01T12:00:01.250000Z", None)),
    ):
        source = RecordedMarkets(tmp_path, "current", old_frames=old)
        times = []
        while True:
            at_s = source.next_at_s
            change = source.step(0)
            if change is None:
                break
            body = json.loads(change.body)
            times.append((at_s, (body.get("ts"), body.get("ts_ms"))))
        assert times == [(0.0, (None, None)), (1.0, expected)]


def test_our_own_recordings_that_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "part.parquet"
    Ours().row("delta", "A", "yes", 10_001, 1).write(file)
    with pytest.raises(SimulatorError, match="row 0: price_e4 cannot be 10001"):
        RecordedMarkets(tmp_path, "current")
    Ours().row("clear", "A").row("delta", "A", "yes", 100, -1).write(file)
    with pytest.raises(SimulatorError, match="A yes 100 falls to -1"):
        RecordedMarkets(tmp_path, "current")
    pq.write_table(pa.table({"type": ["gap"], "price_e4": [1]}), file)
    with pytest.raises(SimulatorError, match="no column conn_id"):
        RecordedMarkets(tmp_path, "current")


def test_faults_do_not_break_a_recording(tmp_path: Path) -> None:
    recorded = Ours().row("clear", "A").row("snapshot", "A", "yes", 100, 500)
    for _ in range(100):
        recorded.row("delta", "A", "yes", 100, -5)
    recorded.write(tmp_path / "part.parquet")

    async def run() -> None:
        source = RecordedMarkets(tmp_path, "current")
        script = [fault(0.02, "grid"), fault(0.05, "empty")]
        async with exchange(tmp_path, source, rate=1000, faults=script) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe("A"))
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            assert running.stats.faults == {"grid": 1, "empty": 1}
            assert rebuilt(client.frames) == truth(running) == {"A": {"yes": {}, "no": {}}}

    asyncio.run(run())


def test_speed_is_that_of_the_recording(tmp_path: Path) -> None:
    recorded = Ours().row("clear", "A").row("delta", "A", "yes", 100, 100).row("delta", "A", "no", 100, 100)
    recorded.rows[-1]["ingest_ts"] += timedelta(hours=1)
    recorded.write(tmp_path / "part.parquet")

    async def run() -> None:
        async with exchange(tmp_path, RecordedMarkets(tmp_path, "current"), speed=10) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe("A"))
            await client.until(lambda: client.frames[-1:] != [] and client.frames[-1]["type"] == DELTA)
            assert running.played == 2, "the third is six minutes away"
        async with exchange(tmp_path, RecordedMarkets(tmp_path, "current"), speed=100_000) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe("A"))
            await running.finished.wait()
            assert running.played == 3

    asyncio.run(run())


def test_pace() -> None:
    real, twice, free = Pace(speed=1), Pace(speed=2), Pace()
    assert (real.recorded_until_s(3), twice.recorded_until_s(3)) == (3, 6)
    assert (real.waits, twice.waits, free.waits, Pace(rate=5).waits) == (False, False, True, False)
    steady = Pace(rate=1000, seconds=2)
    assert [steady.due(s, 500) for s in (0.5, 1.5, 99)] == [0, 1000, 1500]
    assert [steady.over(2.5, played) for played in (1999, 2000)] == [False, True]
    assert steady.over(5, 10), "nobody can take it so fast"
    assert [steady.frames_until(s) for s in (0.2, 0.1 + 0.2, 0.3001)] == [200, 300, 301]
    assert all(steady.moment_s(steady.frames_until(n / 7)) >= n / 7 for n in range(100))
    assert not free.over(10**9, 0)


def test_nothing_is_played_as_fast_as_possible_to_nobody(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(3, 1)) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe(*TICKERS))
            await client.until(lambda: running.played > 0)
            assert client.transport is not None
            await client.leave()
            await client.until(lambda: not running.clients)
            held = running.played
            await asyncio.sleep(0.1)
            assert running.played == held

    asyncio.run(run())


# --- the processes ----------------------------------------------------------------------------------


def test_the_process_reports_its_faults(tmp_path: Path) -> None:
    script = tmp_path / "faults.json"
    script.write_text('[{"at_s": 0, "kind": "storm"}, {"at_s": 0.1, "kind": "drop", "n": 2}]')
    options = [
        "--markets",
        "2",
        "--rate",
        "1000",
        "--seconds",
        "0.3",
        "--checkpoints",
        "0.1",
        "--unique-sids",
    ]
    with process(tmp_path, *options, "--faults", str(script), "--heartbeat", "0.05") as child:
        assert child.stdin is not None
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())

        async def run() -> None:
            client = await connect(tmp_path, ready["url"], key_id=ready["key_id"])
            client.send(subscribe(*ready["tickers"]))
            await client.until(lambda: len(client.frames) > 200 and len(client.pings) > 1)
            await client.leave()

        asyncio.run(run())
        assert json.loads(child.stdout.readline())["event"] == "finished"
        child.stdin.write("report\n")
        child.stdin.flush()
        report = json.loads(child.stdout.readline())
        assert report["faults"] == {"storm": 1, "drop": 1}
        assert report["checkpoints"] == 3
        child.stdin.close()
        assert child.wait(10) == 0
    assert (tmp_path / "checkpoints.jsonl").stat().st_size > 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--rate", "5", "--speed", "2"], "--rate and --speed exclude each other"),
        (["--speed", "2"], "--speed: only a recording has times"),
        (["--faults", "nowhere.json"], "nowhere.json cannot be read"),
        (["--host", "no-such-host.invalid"], "--host: nobody can listen on no-such-host.invalid"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: list[str], complaint: str) -> None:
    with process(tmp_path, *options) as child:
        assert child.stdout is not None
        error = json.loads(child.stdout.readline())
        assert error["event"] == "error"
        assert complaint in error["message"]
        assert child.wait(10) == 2


def simulate(cwd: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "import sys; from kalshi_fast.cli import main; sys.exit(main())"]
    return subprocess.Popen(
        [*command, "simulate", *options],
        cwd=cwd,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_simulate_serves_until_it_is_stopped(tmp_path: Path, signum: signal.Signals) -> None:
    keys = []
    for _ in range(2):
        with simulate(tmp_path, "--port", "0", "--markets", "3", "--rate", "500", "--dir", "here") as server:
            assert server.stdout is not None
            told: dict[str, str] = {}
            for line in server.stdout:
                name, _, value = line.strip().partition("  ")
                told[name] = value.strip()
                if line.startswith("  ") and " run --prod-keyid " in line:
                    example = line
                    break
            url = told["the exchange listens at"]
            assert told["key file"] == "here/client.pem"
            assert told["CA file"] == "here/ca.pem"
            assert f"--ws-url {url} --ws-cafile {tmp_path / 'here' / 'ca.pem'} --rest-url http" in example

            async def run(url: str, key_id: str) -> None:
                client = await connect(tmp_path / "here", url, key_id=key_id)
                client.send(subscribe(*TICKERS))
                await client.until(lambda: len(client.frames) > 20)
                await client.leave()

            asyncio.run(run(url, told["key id"]))
            server.send_signal(signum)
            out, err = server.communicate(timeout=10)
            assert server.returncode == 0, err
            assert "Traceback" not in err
            assert "connections         1\n" in out
            keys.append((tmp_path / "here" / "client.pem").read_bytes())
    assert keys[0] == keys[1], "an existing key is kept"


def test_simulate_ends_with_its_play(tmp_path: Path) -> None:
    with simulate(tmp_path, "--port", "0", "--seconds", "0.5", "--quiet", "--chaos", "--no-tls") as server:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        assert url.startswith("ws://127.0.0.1:")

        async def run() -> None:
            client = await connect(tmp_path / "simulator-data", url, key_id="simulated-key")
            client.send(subscribe(TICKERS[0]))
            await client.until(lambda: len(client.frames) > 2)
            await client.leave()

        asyncio.run(run())
        out, err = server.communicate(timeout=20)
        assert (server.returncode, err) == (0, "")
        assert "faults              0\n" in out, "the last three seconds are clean"


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--markets", "0"], "--markets: expected 1 to 100000, got 0"),
        (["--recording", "nowhere"], "no Parquet files in nowhere"),
        (["--host", "192.0.2.1"], "--host: nobody can listen on 192.0.2.1"),
        (["--faults", "a", "--chaos"], "not allowed with argument"),
        (["--speed", "-1"], "argument --speed: expected a number from 0, got '-1'"),
        (["--port", "70000"], "argument --port: expected a port from 0 to 65535"),
        (["--dir", "file"], "--dir: file cannot be written"),
        (["--dir", "bad"], "--dir: bad/client.pem is no private key"),
    ],
)
def test_simulate_with_wrong_options(tmp_path: Path, options: list[str], complaint: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "client.pem").write_text("no key")
    with simulate(tmp_path, *options) as server:
        out, err = server.communicate(timeout=20)
        assert (server.returncode, out) == (2, "")
        assert complaint in err.splitlines()[-1]
        assert "Traceback" not in err
