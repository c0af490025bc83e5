"""The simulator speaks the exchange's protocol: who may connect, what commands get, how frames are numbered,
and that its frames tell exactly the books it says it has. Real sockets, real TLS, real signatures."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import picows
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client import KEY_ID, connect, e2, e4, exchange, rebuilt
from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.frames import FORMS, Form
from kalshi_fast.simulator.recorded import RecordedMarkets
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from pathlib import Path

SUBSCRIBE = {"id": 1, "cmd": "subscribe", "params": {"channels": ["orderbook_delta"]}}
TICKERS = [f"KXSIM-26DEC31-T{n:04d}" for n in range(3)]


def subscribe(*tickers: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        **SUBSCRIBE,
        "params": {"channels": ["orderbook_delta"], "market_tickers": list(tickers), **params},
    }


def update(sid: int, action: str | None, *tickers: str, command_id: int = 9) -> dict[str, Any]:
    params: dict[str, Any] = {"sid": sid, "market_tickers": list(tickers)}
    return {
        "id": command_id,
        "cmd": "update_subscription",
        "params": params | ({"action": action} if action else {}),
    }


@pytest.mark.parametrize(
    ("header", "value", "code"),
    [
        ("KALSHI-ACCESS-KEY", "", "missing_header"),
        ("KALSHI-ACCESS-KEY", "someone", "unknown_key"),
        ("KALSHI-ACCESS-TIMESTAMP", "yesterday", "stale_timestamp"),
        ("KALSHI-ACCESS-TIMESTAMP", "9" * 5000, "stale_timestamp"),
        pytest.param(
            *("KALSHI-ACCESS-TIMESTAMP", str(time.time_ns() // 1_000_000 - 60_000), "stale_timestamp"),
            id="a minute old",
        ),
        ("KALSHI-ACCESS-SIGNATURE", "not base64!", "bad_signature"),
        ("KALSHI-ACCESS-SIGNATURE", base64.b64encode(b"x" * 256).decode(), "bad_signature"),
    ],
)
def test_handshake_is_refused(tmp_path: Path, header: str, value: str, code: str) -> None:
    async def run() -> None:
        async with exchange(tmp_path) as running:
            with pytest.raises(picows.WSHandshakeError) as caught:
                await connect(tmp_path, running.url, None, key_id=KEY_ID, **{header: value})
            assert caught.value.response is not None
            assert caught.value.response.status == 401
            assert json.loads(caught.value.raw_body or b"")["error"]["code"] == code
            assert running.stats.handshakes_refused == 1

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["rsa", "ed25519"])
def test_a_handshake_with_either_kind_of_key(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with exchange(tmp_path, key_kind=kind) as running:
            client = await connect(tmp_path, running.url)
            assert (await client.reply(subscribe(TICKERS[0])))["type"] == "subscribed"
            await client.leave()

    asyncio.run(run())


def test_other_paths_are_not_found(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path) as running:
            with pytest.raises(picows.WSHandshakeError) as caught:
                await connect(tmp_path, running.url + "/other")
            assert caught.value.response is not None
            assert caught.value.response.status == 404

    asyncio.run(run())


def test_frames_tell_the_true_books_and_every_frame_of_a_sid_has_its_number(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=5000, seconds=0.6) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe(*TICKERS[:2], skip_ticker_ack=True))
            await asyncio.sleep(0.1)
            client.send(update(1, "add_markets", TICKERS[2]))
            await asyncio.sleep(0.1)
            client.send(update(1, "get_snapshot", TICKERS[0]))
            client.send(update(1, "wrong"))
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            assert client.frames[0] == {
                "type": "subscribed",
                "id": 1,
                "msg": {"channel": "orderbook_delta", "sid": 1},
            }
            numbered = client.frames[1:]
            assert [frame["seq"] for frame in numbered] == list(range(1, len(numbered) + 1))
            assert {frame["sid"] for frame in numbered} == {1}
            kinds = [frame["type"] for frame in numbered]
            assert kinds.count("ok") == 1
            assert kinds.count("error") == 1
            assert kinds.count("orderbook_snapshot") == 4
            assert kinds.count("orderbook_delta") == running.stats.deltas_sent > 500
            (asked,) = [f for f in numbered if f["type"] == "orderbook_snapshot" and "id" in f]
            assert (asked["id"], asked["msg"]["market_ticker"]) == (9, TICKERS[0])
            truth = {
                ticker: {side: dict(levels) for side, levels in sides.items()}
                for ticker, sides in running.books().items()
            }
            assert rebuilt(client.frames) == truth

    asyncio.run(run())


def test_commands_get_the_replies_of_the_protocol(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=1, refuse_unknown=True) as running:
            client = await connect(tmp_path, running.url)

            async def code(command: dict[str, Any] | bytes) -> tuple[int, int | None]:
                reply = await client.reply(command)
                assert reply["type"] == "error", reply
                return reply["msg"]["code"], reply.get("seq")

            assert await code(b"no json") == (1, None)
            assert await code({"id": 2, "cmd": "subscribe"}) == (2, None)
            assert await code({"id": 2, "cmd": "subscribe", "params": {}}) == (3, None)
            assert await code({"id": 2, "cmd": "unsubscribe", "params": {}}) == (4, None)
            assert await code({"id": 2, "cmd": "dance", "params": {}}) == (5, None)
            assert await code({"id": 2, "cmd": "unsubscribe", "params": {"sids": [4]}}) == (7, None)
            assert await code(subscribe(*TICKERS, channels=["gossip"])) == (8, None)
            assert await code(SUBSCRIBE) == (14, None)
            refused = await client.reply(subscribe(TICKERS[0], "NOPE-1", "NOPE-2"))
            assert refused["msg"]["code"] == 11
            assert refused["msg"]["market_tickers"] == ["NOPE-1", "NOPE-2"]
            assert running.stats.snapshots_sent == 0
            assert await code(update(1, "get_snapshot", TICKERS[0])) == (7, None)

            client.send(subscribe(TICKERS[0]))
            await client.until(lambda: client.frames[-1]["type"] in ("orderbook_snapshot", "orderbook_delta"))
            last = max(frame.get("seq", 0) for frame in client.frames)
            assert (await code(update(1, None, TICKERS[0])))[0] == 15
            assert (await code(update(1, "dance", TICKERS[0])))[0] == 13
            assert (await code(update(1, "add_markets")))[0] == 14
            assert (await code(update(1, "get_snapshot", TICKERS[1])))[0] == 11
            many = {
                "id": 3,
                "cmd": "update_subscription",
                "params": {"sids": [1, 2], "action": "get_snapshot"},
            }
            assert await code(many) == (12, None)
            listed = await client.reply({"id": 4, "cmd": "list_subscriptions"})
            assert listed == {"type": "ok", "id": 4, "msg": [{"channel": "orderbook_delta", "sid": 1}]}
            gone = await client.reply({"id": 5, "cmd": "unsubscribe", "params": {"sids": [1]}})
            assert gone["type"] == "unsubscribed"
            assert gone["seq"] >= last + 5, "scoped errors take numbers"
            numbers = [frame["seq"] for frame in client.frames if "seq" in frame]
            assert numbers == list(range(1, len(numbers) + 1))

    asyncio.run(run())


def test_heartbeats(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, heartbeat_s=0.05) as running:
            client = await connect(tmp_path, running.url)
            await client.until(lambda: len(client.pings) >= 3)
            assert set(client.pings) == {b"heartbeat"}

    asyncio.run(run())


def test_dropped_frames_use_up_their_number(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path, rate=2000, seconds=0.3, drop_every=50) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe(*TICKERS))
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            numbers = [frame["seq"] for frame in client.frames[1:]]
            missing = set(range(1, numbers[-1])) - set(numbers)
            assert len(missing) == len(range(50, running.played, 50)) > 3

    asyncio.run(run())


def test_a_slow_client_is_waited_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe(*TICKERS))
            await client.until(lambda: len(client.frames) > 10)
            assert client.transport is not None
            client.transport.underlying_transport.pause_reading()
            held = -1
            async with asyncio.timeout(60):  # once the socket is full nothing is played
                while held != running.played:
                    held = running.played
                    await asyncio.sleep(0.3)
            assert not running.finished.is_set()
            client.transport.underlying_transport.resume_reading()
            await client.until(lambda: running.played > held, 60)
            running.end_play()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent, 60)

    asyncio.run(run())


def test_synthetic_markets_are_the_same_for_the_same_seed() -> None:
    first, second, other = SyntheticMarkets(5, 7), SyntheticMarkets(5, 7), SyntheticMarkets(5, 8)
    bodies = [[source.step(10**18).body for _ in range(3000)] for source in (first, second, other)]
    assert bodies[0] == bodies[1]
    assert bodies[0] != bodies[2]
    sizes = [size for book in first.books.values() for side in book.sides for size in side.values()]
    assert min(sizes) > 0
    assert any(size % 100 for size in sizes), "fractional sizes"
    prices = [price for book in first.books.values() for side in book.sides for price in side]
    assert any(price % 100 for price in prices), "sub-penny prices"
    with pytest.raises(SimulatorError, match="--markets"):
        SyntheticMarkets(0, 1)


def recorded_deltas(directory: Path) -> list[tuple[str, str, int, int]]:
    rows = [
        row
        for file in sorted(directory.rglob("*.parquet"))
        for row in pq.ParquetFile(file).read().to_pylist()
        if row["type"] == "delta"
    ]
    return [(row["market_ticker"], row["side"], row["price"] * 100, row["qty"] * 100) for row in rows]


@pytest.mark.parametrize("form", FORMS)
def test_recordings_are_played_row_for_row(recordings: Path, form: Form) -> None:
    source = RecordedMarkets(recordings, form)
    expected = recorded_deltas(recordings)
    played = []
    while (change := source.step(0)) is not None:
        if change.type == b"orderbook_delta":
            msg = json.loads(change.body)
            if form == "legacy":
                played.append((msg["market_ticker"], msg["side"], msg["price"] * 100, msg["delta"] * 100))
                assert "price_dollars" not in msg
            else:
                played.append(
                    (msg["market_ticker"], msg["side"], e4(msg["price_dollars"]), e2(msg["delta_fp"]))
                )
                assert "price" not in msg
            assert msg["ts"].endswith("Z")
    assert len(expected) == 11_480
    assert played == expected


def test_what_is_no_recording_is_named(tmp_path: Path) -> None:
    with pytest.raises(SimulatorError, match="no Parquet files"):
        RecordedMarkets(tmp_path / "none", "current")
    file = tmp_path / "part.parquet"
    file.write_bytes(b"PAR1 not really")
    with pytest.raises(SimulatorError, match=r"part.parquet is no readable Parquet file"):
        RecordedMarkets(tmp_path, "current")
    pq.write_table(pa.table({"type": ["delta"]}), file)
    with pytest.raises(SimulatorError, match="no column sid, seq"):
        RecordedMarkets(tmp_path, "current")
    row = {
        "type": "delta",
        "sid": 1,
        "seq": 1,
        "market_id": "",
        "market_ticker": "A",
        "side": "yes",
        "qty": 1,
        "ts": "",
    }
    pq.write_table(pa.Table.from_pylist([{**row, "price": 101}]), file)
    with pytest.raises(SimulatorError, match="row 0: price cannot be 101"):
        RecordedMarkets(tmp_path, "current")


def test_port_in_use(tmp_path: Path) -> None:
    async def run() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(SimulatorError, match=f"--port: {port} cannot be opened"):
                async with exchange(tmp_path, port=port):
                    pass

    asyncio.run(run())


def process(directory: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "kalshi_fast.simulator", "--dir", str(directory), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("farewell", ["stop\n", ""])
def test_the_process_obeys_its_parent_and_never_outlives_it(tmp_path: Path, farewell: str) -> None:
    with process(tmp_path, "--markets", "2") as child:
        assert child.stdout is not None
        assert child.stdin is not None
        ready = json.loads(child.stdout.readline())
        assert ready["event"] == "ready"
        assert ready["url"].startswith("wss://127.0.0.1:")
        assert ready["tickers"] == TICKERS[:2]
        child.stdin.write("report\nnonsense\n")
        child.stdin.flush()
        report, error = (json.loads(child.stdout.readline()) for _ in range(2))
        assert report["event"] == "report"
        assert report["frames_sent"] == 0
        assert set(report["books"]) == set(TICKERS[:2])
        assert "nonsense" in error["message"]
        child.stdin.write(farewell)
        child.stdin.close()
        assert child.wait(10) == 0


def test_the_process_says_why_it_cannot_start(tmp_path: Path) -> None:
    with process(tmp_path, "--recording", str(tmp_path / "none")) as child:
        assert child.stdout is not None
        assert json.loads(child.stdout.readline())["event"] == "error"
        assert child.wait(10) == 2
