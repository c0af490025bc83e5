"""Every fault of the simulated exchange does what it says, as a client on a real socket sees it."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import picows
import pytest

from client import Client, connect, e4, exchange, rebuilt
from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator import grids
from kalshi_fast.simulator.faults import CLEAN_S, CONNECTION_KINDS, KINDS, Fault, chaos, fault, read_faults
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kalshi_fast.simulator.exchange import Exchange

TICKERS = [f"KXSIM-26DEC31-T{n:04d}" for n in range(3)]
BOOKS = ("orderbook_snapshot", "orderbook_delta")


class Witness(Client):
    """Keeps what is no JSON too, and how the connection ended."""

    def __init__(self) -> None:
        super().__init__()
        self.broken: list[bytes] = []
        self.pongs = 0
        self.close_code: int | None = None
        self.gone = False

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.CLOSE:
            self.close_code = frame.get_close_code().value
            transport.disconnect()
        elif frame.msg_type == picows.WSMsgType.TEXT:
            try:
                self.frames.append(json.loads(frame.get_payload_as_bytes()))
            except ValueError:
                self.broken.append(frame.get_payload_as_bytes())
        else:
            self.pongs += frame.msg_type == picows.WSMsgType.PONG
            super().on_ws_frame(transport, frame)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.gone = True

    @property
    def seqs(self) -> list[int]:
        return [frame["seq"] for frame in self.frames if "seq" in frame]


@asynccontextmanager
async def played(
    directory: Path,
    *faults: Fault,
    rate: int = 1000,
    seconds: float = 0.4,
    to_the_end: bool = True,
    channels: tuple[str, ...] = ("orderbook_delta",),
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[tuple[Exchange, Witness]]:
    """A play with these faults and one client that carries all markets."""
    async with exchange(directory, rate=rate, seconds=seconds, faults=faults, **options) as running:
        client = await witness(directory, running)
        client.send(subscribe(*TICKERS, channels=channels))
        if to_the_end:
            await running.finished.wait()
            await client.until(lambda: len(client.frames) + len(client.broken) == running.stats.frames_sent)
        yield running, client


async def witness(directory: Path, running: Exchange) -> Witness:
    client = Witness()
    await connect(directory, running.url, client)
    return client


def subscribe(*tickers: str, channels: tuple[str, ...] = ("orderbook_delta",)) -> dict[str, Any]:
    return {
        "id": 1,
        "cmd": "subscribe",
        "params": {"channels": list(channels), "market_tickers": list(tickers)},
    }


def get_snapshot(ticker: str) -> dict[str, Any]:
    params = {"sid": 1, "market_tickers": [ticker], "action": "get_snapshot"}
    return {"id": 7, "cmd": "update_subscription", "params": params}


def truth(running: Exchange) -> dict[str, dict[str, dict[int, int]]]:
    return {t: {side: dict(levels) for side, levels in book.items()} for t, book in running.books().items()}


async def refused_with(directory: Path, running: Exchange) -> tuple[int, dict[str, str], bytes]:
    with pytest.raises(picows.WSHandshakeError) as caught:
        await witness(directory, running)
    response = caught.value.response
    assert response is not None
    return int(response.status), dict(response.headers), caught.value.raw_body or b""


# --- frames -----------------------------------------------------------------------------------------


def test_drop_leaves_numbers_out(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "drop", n=3)) as (running, client):
            missing = sorted(set(range(1, client.seqs[-1])) - set(client.seqs))
            assert missing == [204, 205, 206], "after 3 snapshots and 200 deltas"
            assert running.stats.faults == {"drop": 1}

    asyncio.run(run())


def test_duplicate_says_frames_twice(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "duplicate", n=2)) as (_, client):
            twice = {seq for seq, times in Counter(client.seqs).items() if times == 2}
            assert twice == {204, 205}
            assert client.frames[client.seqs.index(204) + 1] == client.frames[client.seqs.index(204) + 2]
            assert sorted(set(client.seqs)) == list(range(1, client.seqs[-1] + 1))

    asyncio.run(run())


def test_reorder_lets_the_following_pass(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "reorder", k=3)) as (_, client):
            assert client.seqs[202:209] == [203, 205, 206, 207, 204, 208, 209]
            assert sorted(client.seqs) == list(range(1, 404))

    asyncio.run(run())


def test_what_is_kept_back_at_the_end_of_the_play_is_still_sent(tmp_path: Path) -> None:
    async def run() -> None:
        late = [fault(0.39, "reorder", k=1000), fault(0.395, "stall", s=60)]
        async with played(tmp_path, *late) as (_, client):
            assert sorted(client.seqs) == list(range(1, 404))
            assert client.seqs[-1] == 394

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["corrupt", "truncate"])
def test_damaged_frames_are_no_json(tmp_path: Path, kind: str) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, kind, n=4)) as (_, client):
            assert len(client.broken) == 4
            assert set(range(1, 404)) - set(client.seqs) == {204, 205, 206, 207}
            whole = len(json.dumps(client.frames[-1], separators=(",", ":")))
            if kind == "corrupt":
                assert all(payload.count(b"\xff") == 1 for payload in client.broken)
            else:
                assert all(len(payload) < whole + 10 for payload in client.broken)

    asyncio.run(run())


def test_replies_are_dropped_too(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0, "drop", n=3), rate=1, seconds=60, to_the_end=False) as found:
            running, client = found
            await client.until(lambda: running.stats.faults == {"drop": 1})  # and one delta is gone
            client.send({"id": 8, "cmd": "list_subscriptions"})
            client.send(get_snapshot(TICKERS[0]))
            client.send({"id": 9, "cmd": "list_subscriptions"})
            await client.until(lambda: client.frames[-1].get("id") == 9)
            assert not any(frame.get("id") in (7, 8) for frame in client.frames)
            (serving,) = running.clients
            assert serving.link is None, "nothing is wrong any more"

    asyncio.run(run())


# --- connections ------------------------------------------------------------------------------------


def test_stall_keeps_frames_back_and_loses_none(tmp_path: Path) -> None:
    async def run() -> None:
        stalled = fault(0.2, "stall", s=2)
        async with played(tmp_path, stalled, seconds=2.5, to_the_end=False, heartbeat_s=0.02) as found:
            running, client = found
            await client.until(lambda: running.played >= 400)
            assert len(client.frames) <= 204, "1 reply, 3 snapshots, 200 deltas"
            await client.until(lambda: client.seqs[-1:] == [203] or len(client.seqs) > 203)
            pings = len(client.pings)
            await client.until(lambda: running.played >= 500)
            assert len(client.pings) == pings
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            assert client.seqs == list(range(1, 2504))

    asyncio.run(run())


def test_stall_holds_up_a_play_that_is_as_fast_as_it_is_taken(tmp_path: Path) -> None:
    async def run() -> None:
        stalled = fault(0, "stall", s=2)
        async with played(tmp_path, stalled, rate=0, seconds=2.2, to_the_end=False) as (running, client):
            await client.until(lambda: running.stats.faults == {"stall": 1})
            await asyncio.sleep(0.02)
            held = running.played
            await asyncio.sleep(0.1)
            assert running.played == held
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            assert client.seqs == list(range(1, len(client.seqs) + 1))
            assert running.played > held

    asyncio.run(run())


def test_hang_says_nothing_more_and_hears_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "hang"), heartbeat_s=0.02) as (running, client):
            assert client.seqs == list(range(1, 204))
            (hung,) = running.clients
            assert next(iter(hung.subscriptions.values())).seq == 403, "numbered and lost"
            assert client.transport is not None
            await asyncio.sleep(0.05)
            pings = len(client.pings)
            client.transport.send_ping(b"are you there?")
            client.send(get_snapshot(TICKERS[0]))
            await asyncio.sleep(0.1)
            assert len(client.frames) == 204
            assert (client.pongs, len(client.pings), client.gone) == (0, pings, False)
            client.transport.disconnect()
            await client.until(lambda: not running.clients)

    asyncio.run(run())


def test_pings_are_answered_otherwise(tmp_path: Path) -> None:
    async def run() -> None:
        async with exchange(tmp_path) as running:
            client = await witness(tmp_path, running)
            assert client.transport is not None
            client.transport.send_ping(b"are you there?")
            await client.until(lambda: client.pongs == 1)

    asyncio.run(run())


@pytest.mark.parametrize("tls", [True, False])
def test_reset_comes_in_the_middle_of_a_frame(tmp_path: Path, tls: bool) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "reset"), to_the_end=False, tls=tls) as (running, client):
            await client.until(lambda: client.gone)
            assert client.close_code is None
            assert client.broken == []
            assert client.seqs == list(range(1, len(client.seqs) + 1))
            assert len(client.seqs) <= 203
            await running.finished.wait()
            assert not running.clients

    asyncio.run(run())


@pytest.mark.parametrize("code", [1001, 1011, 1012])
def test_close_has_its_code(tmp_path: Path, code: int) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "close", code=code), to_the_end=False) as (_, client):
            await client.until(lambda: client.gone)
            assert client.close_code == code
            assert client.seqs == list(range(1, 204))

    asyncio.run(run())


@pytest.mark.parametrize("status", [429, 500, 503])
def test_refuse_resets_everybody_and_lets_nobody_in(tmp_path: Path, status: int) -> None:
    async def run() -> None:
        refuse = fault(0.1, "refuse", s=2, status=status)
        async with played(tmp_path, refuse, seconds=30, to_the_end=False) as (running, client):
            await client.until(lambda: client.gone)
            assert client.close_code is None
            found, headers, _ = await refused_with(tmp_path, running)
            assert found == status
            assert headers["Date"].endswith("GMT")
            await client.until(lambda: running.conditions.refusal is None)
            assert running.played >= 2100 - 1
            again = await witness(tmp_path, running)
            again.send(subscribe(*TICKERS))
            await again.until(lambda: len(again.frames) > 4)
            assert running.stats.handshakes_refused == 1

    asyncio.run(run())


def test_expire_takes_every_timestamp_for_stale(tmp_path: Path) -> None:
    async def run() -> None:
        expired = fault(0.1, "expire", s=2)
        async with played(tmp_path, expired, seconds=30, to_the_end=False) as (running, client):
            await client.until(lambda: client.gone)
            assert client.close_code == 1008
            status, headers, body = await refused_with(tmp_path, running)
            assert (status, json.loads(body)["error"]["code"]) == (401, "stale_timestamp")
            assert "Date" in headers
            await client.until(lambda: running.conditions.refusal is None)
            await witness(tmp_path, running)

    asyncio.run(run())


# --- protocol ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [10, 25])
def test_terminal_errors_end_the_subscription(tmp_path: Path, code: int) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "terminal", code=code)) as (running, client):
            last = client.frames[-1]
            assert (last["type"], last["sid"], last["seq"]) == ("error", 1, 204)
            assert last["msg"]["code"] == code
            assert len(client.frames) == 205
            reply = await client.reply(get_snapshot(TICKERS[0]))
            assert reply["msg"]["code"] == 7
            assert not any(map(running.carriers, TICKERS))

    asyncio.run(run())


def test_limit_markets(tmp_path: Path) -> None:
    async def run() -> None:
        limit = fault(0.05, "limit_markets", n=3, s=60)
        async with played(tmp_path, limit, source=SyntheticMarkets(5, 1), seconds=0.2) as (_, client):
            names = [f"KXSIM-26DEC31-T{n:04d}" for n in range(5)]
            last = client.seqs[-1]
            assert (await client.reply(subscribe(*names[:4])))["msg"]["code"] == 26
            add = get_snapshot(names[3])
            add["params"]["action"] = "add_markets"
            reply = await client.reply(add)
            assert (reply["msg"]["code"], reply["sid"], reply["seq"]) == (26, 1, last + 1)
            assert (await client.reply(subscribe(*names[3:])))["msg"]["code"] == 26, "it would be merged"

    asyncio.run(run())


def test_out_of_order_answers_in_another_order(tmp_path: Path) -> None:
    async def run() -> None:
        source = SyntheticMarkets(60, 1)
        mixed = fault(0.05, "out_of_order", s=2)
        async with played(tmp_path, mixed, source=source, seconds=30, to_the_end=False) as (running, client):
            await client.until(lambda: running.conditions.out_of_order)
            for number, ticker in enumerate(source.books, 1):
                client.send({**subscribe(ticker), "id": number})
            await client.until(lambda: [f["type"] for f in client.frames].count("ok") == 60)
            answers = [frame["id"] for frame in client.frames if frame["type"] == "ok"]
            assert answers != sorted(answers)
            assert client.seqs == list(range(1, len(client.seqs) + 1))
            await client.until(lambda: not running.conditions.out_of_order)

    asyncio.run(run())


def test_refuse_subscribe_ends_all_connections_and_refuses_what_follows(tmp_path: Path) -> None:
    async def run() -> None:
        refusing = fault(0.05, "refuse_subscribe", n=2, code=25)
        async with played(tmp_path, refusing, seconds=30, to_the_end=False) as (running, client):
            await client.until(lambda: client.gone)
            again = await witness(tmp_path, running)
            for _ in range(2):
                reply = await again.reply(subscribe(*TICKERS))
                assert (reply["type"], reply["msg"]["code"]) == ("error", 25)
                assert "sid" not in reply
            assert (await again.reply(subscribe(*TICKERS)))["type"] == "subscribed"

    asyncio.run(run())


def test_cut_merge_says_half_of_one_and_then_nothing(tmp_path: Path) -> None:
    async def run() -> None:
        source = SyntheticMarkets(9, 1)
        names = list(source.books)
        cut = fault(0.05, "cut_merge", s=60)
        async with played(tmp_path, cut, source=source, seconds=30, to_the_end=False) as (running, client):
            await client.until(lambda: client.gone)
            again = await witness(tmp_path, running)
            again.send(subscribe(names[0]))
            await again.until(lambda: len(again.seqs) > 0)
            again.send(subscribe(*names))
            await again.until(lambda: any(frame["type"] == "ok" for frame in again.frames))
            ticked = running.played
            await again.until(lambda: running.played > ticked + 200)
            at = [frame["type"] for frame in again.frames].index("ok")
            assert [frame["type"] for frame in again.frames[at:]] == ["ok"] + ["orderbook_snapshot"] * 4
            assert not again.gone

    asyncio.run(run())


def test_limit_rate(tmp_path: Path) -> None:
    async def run() -> None:
        limit = fault(0.05, "limit_rate", s=2)
        async with played(tmp_path, limit, seconds=30, to_the_end=False) as (running, client):
            await client.until(lambda: running.conditions.rate_limited)
            client.send(get_snapshot(TICKERS[0]))
            await client.until(lambda: any(frame["type"] == "error" for frame in client.frames))
            (error,) = [frame for frame in client.frames if frame["type"] == "error"]
            assert (error["msg"]["code"], error["id"], error["sid"]) == (27, 7, 1)
            await client.until(lambda: not running.conditions.rate_limited)
            client.send(get_snapshot(TICKERS[0]))
            await client.until(lambda: any(f["type"] == BOOKS[0] and f.get("id") == 7 for f in client.frames))

    asyncio.run(run())


def test_storm_is_a_snapshot_of_everything(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.2, "storm")) as (running, client):
            storm = [frame for frame in client.frames if frame["type"] == BOOKS[0]][3:]
            assert [frame["msg"]["market_ticker"] for frame in storm] == TICKERS
            assert [frame["seq"] for frame in storm] == [204, 205, 206]
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


# --- markets ----------------------------------------------------------------------------------------


def test_grid_becomes_finer_and_a_lifecycle_event_says_so(tmp_path: Path) -> None:
    async def run() -> None:
        source = SyntheticMarkets(3, 1)
        before = dict(source.structures)
        both = ("orderbook_delta", "market_lifecycle_v2")
        async with played(tmp_path, fault(0.2, "grid"), source=source, channels=both) as (running, client):
            (event,) = [frame for frame in client.frames if frame["type"] == "market_lifecycle_v2"]
            msg = event["msg"]
            ticker = msg["market_ticker"]
            assert (event["sid"], event["seq"]) == (2, 1)
            assert msg["event_type"] == "price_level_structure_updated"
            new = source.structures[ticker]
            assert new != before[ticker]
            allowed = {
                price
                for found in msg["price_ranges"]
                for price in range(e4(found["start"]), e4(found["end"]), e4(found["step"]))
            }
            assert allowed - {0} == set(grids.prices(new))
            old = set(grids.prices(before[ticker]))
            at = client.frames.index(event)
            prices = [
                (n > at, e4(frame["msg"]["price_dollars"]))
                for n, frame in enumerate(client.frames)
                if frame["type"] == BOOKS[1] and frame["msg"]["market_ticker"] == ticker
            ]
            assert {later for later, price in prices if price not in old} == {True}
            assert {price for _, price in prices} <= allowed
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


def test_empty_takes_every_level_by_deltas(tmp_path: Path) -> None:
    async def run() -> None:
        # All at the end of the play: what follows would fill the book again.
        async with played(tmp_path, fault(0.399, "empty"), fault(0.399, "storm")) as (running, client):
            storm = [frame for frame in client.frames if frame["type"] == BOOKS[0]][3:]
            (empty,) = [
                frame for frame in storm if not {"yes_dollars_fp", "no_dollars_fp"} & set(frame["msg"])
            ]
            at = client.frames.index(storm[0])
            levels = [f for f in client.frames[:at] if f["type"] == BOOKS[1]][399:]
            assert len(levels) > 10
            assert {f["msg"]["market_ticker"] for f in levels} == {empty["msg"]["market_ticker"]}
            assert all(f["msg"]["delta_fp"].startswith("-") for f in levels)
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


def test_huge_fills_every_price(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.399, "huge"), fault(0.399, "storm")) as (running, client):
            storm = [frame for frame in client.frames if frame["type"] == BOOKS[0]][3:]
            sizes = {
                frame["msg"]["market_ticker"]: [
                    len(frame["msg"][f"{side}_dollars_fp"]) for side in ("yes", "no")
                ]
                for frame in storm
            }
            assert sizes[TICKERS[2]] == [999, 999], "the one on the finest grid"
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


# --- dialects ---------------------------------------------------------------------------------------


def test_shuffle_changes_the_order_of_keys_only(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.1, "shuffle", s=0.2)) as (running, client):
            orders = [
                (list(frame), list(frame["msg"])) for frame in client.frames if frame["type"] == BOOKS[1]
            ]
            assert len({json.dumps(order) for order in orders[:100]}) == 1
            assert len({json.dumps(outer) for outer, _ in orders[100:300]}) > 10
            assert len({json.dumps(inner) for _, inner in orders[100:300]}) > 50
            assert orders[300:] == orders[:100]
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


def test_extra_adds_keys_that_nobody_knows(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.1, "extra", s=0.2)) as (running, client):
            known = {"type", "sid", "seq", "msg"}
            deltas = [frame for frame in client.frames if frame["type"] == BOOKS[1]]
            plain = set(deltas[0]["msg"])
            assert all(set(frame) == known for frame in deltas[:100] + deltas[300:])
            assert all(set(frame) > known and set(frame["msg"]) > plain for frame in deltas[100:300])
            nested = [frame.get("trace") for frame in deltas[100:300]]
            assert {"market_ticker": "NOT-THIS"} in [value["msg"] for value in nested if value]
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


def test_drift_spoils_fields_that_no_row_needs(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.1, "drift", s=0.2)) as (running, client):
            deltas = [frame["msg"] for frame in client.frames if frame["type"] == BOOKS[1]]
            plain = list(deltas[0])
            assert all(list(body) == plain for body in deltas[:100] + deltas[300:])
            needed = {"market_ticker", "price_dollars", "delta_fp", "side"}
            assert all(needed <= set(body) <= set(plain) for body in deltas[100:300])
            assert {name for body in deltas[100:300] for name in plain if name not in body} == set(
                plain
            ) - needed
            assert {repr(body["ts"]) for body in deltas[100:300] if "ts" in body} >= {
                "None",
                "''",
                "[]",
                "1.5",
            }
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


def test_unknown_frames_are_mixed_in_some_with_numbers(tmp_path: Path) -> None:
    async def run() -> None:
        async with played(tmp_path, fault(0.1, "unknown", s=0.25)) as (running, client):
            unknown = [frame for frame in client.frames if frame["type"] == "market_mood"]
            assert {"seq" in frame for frame in unknown} == {True, False}
            assert client.seqs == list(range(1, len(client.seqs) + 1))
            assert len(client.seqs) > 403
            assert rebuilt(client.frames) == truth(running)

    asyncio.run(run())


# --- scripts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is no JSON"),
        ('{"at_s": 1}', "expected a list of faults"),
        ('[{"at_s": 1, "kind": "drop"}, 5]', "entry 2: expected an object with at_s and kind, got 5"),
        ('[{"kind": "drop"}]', "entry 1: at_s is missing"),
        ('[{"at_s": 1}]', "entry 1: kind is missing"),
        ('[{"at_s": -1, "kind": "drop"}]', "entry 1: at_s: expected seconds from 0, got -1"),
        ('[{"at_s": NaN, "kind": "drop"}]', "entry 1: at_s: expected seconds from 0, got nan"),
        ('[{"at_s": true, "kind": "drop"}]', "entry 1: at_s: expected seconds"),
        ('[{"at_s": 1, "kind": "dorp"}]', r"entry 1: kind: expected one of drop, .* got 'dorp'"),
        ('[{"at_s": 1, "kind": "drop", "m": 1}]', "entry 1: 'm' is not known: drop takes n"),
        ('[{"at_s": 1, "kind": "hang", "s": 1}]', "entry 1: 's' is not known: hang takes nothing"),
        ('[{"at_s": 1, "kind": "drop", "n": 0}]', "entry 1: n: expected a whole number from 1 to"),
        ('[{"at_s": 1, "kind": "drop", "n": 1.5}]', "entry 1: n: expected a whole number from 1 to"),
        ('[{"at_s": 1, "kind": "stall", "s": 0}]', "entry 1: s: expected seconds above 0"),
        ('[{"at_s": 1, "kind": "close", "code": 5}]', "entry 1: code: expected one of 1000, 1001"),
    ],
)
def test_scripts_that_are_wrong(tmp_path: Path, content: str, complaint: str) -> None:
    file = tmp_path / "faults.json"
    file.write_text(content)
    with pytest.raises(SimulatorError, match=complaint):
        read_faults(file)


def test_scripts(tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    with pytest.raises(SimulatorError, match=r"faults.json cannot be read: No such file"):
        read_faults(file)
    entries = [{"at_s": 4, "kind": "stall", "s": 0.5}, {"at_s": 1.5, "kind": "drop"}]
    file.write_text(json.dumps(entries))
    assert read_faults(file) == [Fault(1.5, "drop", {"n": 1}), Fault(4.0, "stall", {"s": 0.5})]


@pytest.mark.parametrize("seed", range(20))
def test_chaos_is_dense_complete_and_ends_in_time(seed: int) -> None:
    seconds = 30.0
    script = chaos(seed, seconds)
    assert script == chaos(seed, seconds)
    assert script != chaos(seed + 1, seconds)
    moments = [found.at_s for found in script]
    assert moments == sorted(moments)
    seconds_hit = {int(moment) for moment in moments}
    assert seconds_hit == set(range(int(seconds - CLEAN_S)))
    assert {found.kind for found in script} == set(KINDS)
    for found in script:
        assert found.at_s + found.args.get("s", 0) <= seconds - CLEAN_S + 1e-3
        assert fault(found.at_s, found.kind, **found.args) == found, "valid arguments, all of them"
    assert chaos(seed, CLEAN_S) == []


def test_the_same_seed_is_the_same_play(tmp_path: Path) -> None:
    steady = [found for found in chaos(3, 12) if found.kind not in CONNECTION_KINDS or found.kind == "stall"]
    script = [found for found in steady if found.kind != "terminal"]
    assert len(script) > 10

    def without_times(frames: list[dict[str, Any]]) -> list[str]:
        for frame in frames:
            if isinstance(frame.get("msg"), dict):
                frame["msg"].pop("ts", None)
                frame["msg"].pop("ts_ms", None)
        return [json.dumps(frame) for frame in frames]

    async def run(directory: Path, seed: int) -> tuple[list[str], int, dict[str, int]]:
        directory.mkdir()
        faster = [Fault(found.at_s / 10, found.kind, found.args) for found in script]
        source = SyntheticMarkets(3, seed)
        async with played(directory, *faster, source=source, seconds=1.2, seed=seed) as (running, client):
            return without_times(client.frames), len(client.broken), running.stats.faults

    first, second, other = (asyncio.run(run(tmp_path / str(n), seed)) for n, seed in enumerate((5, 5, 6)))
    assert first == second
    assert first[0] != other[0]
    assert sum(first[2].values()) == len(script)


def test_faults_that_find_nobody_wait_for_somebody(tmp_path: Path) -> None:
    async def run() -> None:
        script = [fault(0.1, "reset"), fault(0.2, "drop", n=1), fault(30, "drop", n=1)]
        async with played(tmp_path, *script, seconds=60, to_the_end=False) as (running, client):
            await client.until(lambda: client.gone and running.played > 250)
            assert running.stats.faults == {"reset": 1}
            again = await witness(tmp_path, running)
            again.send(subscribe(*TICKERS))
            await again.until(lambda: running.stats.faults == {"reset": 1, "drop": 1})
            await again.until(lambda: len(set(range(1, max(again.seqs, default=1))) - set(again.seqs)) == 1)

    asyncio.run(run())


class Hardy:
    """Knows nothing of repairs: whenever something seems wrong it connects anew."""

    def __init__(self, client: Witness) -> None:
        self.client = client
        self._heard = (0, time.monotonic())

    def seems_well(self) -> bool:
        client = self.client
        heard = len(client.frames) + len(client.pings)
        if heard > self._heard[0]:
            self._heard = (heard, time.monotonic())
        return not (
            client.gone
            or client.broken
            or client.seqs != list(range(1, len(client.seqs) + 1))
            or any(frame["type"] == "error" for frame in client.frames)
            or time.monotonic() - self._heard[1] > 0.5
        )


@pytest.mark.clock
def test_chaos_leaves_time_to_recover(tmp_path: Path) -> None:
    async def run() -> None:
        script = chaos(1, 10)
        async with exchange(tmp_path, rate=1000, seconds=10, faults=script, heartbeat_s=0.1) as running:
            hardy: Hardy | None = None
            while not running.finished.is_set():
                if hardy is None or not hardy.seems_well():
                    if hardy is not None and hardy.client.transport is not None:
                        hardy.client.transport.disconnect(graceful=False)
                    try:
                        hardy = Hardy(await witness(tmp_path, running))
                    except (picows.WSHandshakeError, OSError):
                        hardy = None
                    else:
                        hardy.client.send(subscribe(*TICKERS))
                await asyncio.sleep(0.05)
            assert hardy is not None
            (last,) = (client for client in running.clients if client.subscriptions)
            (subscription,) = last.subscriptions.values()
            await hardy.client.until(lambda: hardy.client.seqs[-1:] == [subscription.seq])
            assert rebuilt(hardy.client.frames) == truth(running)
            assert sum(running.stats.faults.values()) > len(script) // 2
            assert running.stats.connections > 2

    asyncio.run(run())
