"""Reference prices: recorded frames become exact rows, each value once, whatever else goes wrong is said."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow.dataset as ds
import pytest

import channels
from channels import cf_value, commands
from client import Client, connect, exchange
from kalshi_fast import replay, wire
from kalshi_fast.channels import reference
from kalshi_fast.channels.link import ChannelLink
from kalshi_fast.channels.reference import by_channel
from kalshi_fast.channels.reference_rows import ReferenceRow, reference_row, trimmed
from kalshi_fast.channels.session import TRADE, ChannelSession
from kalshi_fast.check import reference as check_reference
from kalshi_fast.config import CF, CF_5HZ, PYTH, Settings, load
from kalshi_fast.errors import ConfigError, FrameError
from kalshi_fast.recording import Recording
from kalshi_fast.simulator import commands as simulator_commands
from kalshi_fast.simulator import subscription
from kalshi_fast.simulator.reference import INDICES, UNDERLYINGS
from kalshi_fast.sinks import clickhouse
from kalshi_fast.strategy import Strategy
from recordings import CAPTURES
from test_channels import Rig
from test_market_life import recorded, settings_for, until

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.simulator.exchange import Exchange

S = 10**9
(HEDGED,) = (capture for capture in CAPTURES if capture.name.startswith("delta_hedged_prod"))
RECORDED = [frame for frame in HEDGED.frames() if json.loads(frame)["type"] in (CF, CF_5HZ)]
PYTH_EXAMPLE = (  # of the document: none has been recorded
    b'{"type":"pyth_value","sid":16,"seq":1,"msg":{"underlying_ticker":"Metal.XAU/USD",'
    b'"value_usd":"2365.12345000","source_ts_ms":1710000000100,"received_at":1710000000123}}'
)


class Rows(Rig):
    """A recorder whose links have every reference price."""

    def __init__(self, links: int = 1) -> None:
        super().__init__(0)
        self.links = [channels.link(self.streams, lambda: self.now, reference=True) for _ in range(links)]
        for number, link in enumerate(self.links):
            channels.grant(link, 50 + number, self.now)
            self.streams.follow(link, self.now)

    def prices(self) -> list[ReferenceRow]:
        self.recorder.seal()
        return self.rows.reference_prices

    def events(self, *kinds: str) -> list[tuple[str, str]]:
        self.recorder.seal()
        return [row for row in self.health if row[0] in kinds]


def settings(**told: str) -> Settings:
    return load(told, environ={}, env_file=None, toml_file=None).settings


def row_of(payload: bytes) -> tuple[ReferenceRow, list[str], list[str]]:
    message = wire.decode(payload)
    assert isinstance(message, reference.VALUES)
    return reference_row(message, 7, 5_000_000)


# --- frames as rows ---------------------------------------------------------------------------------------


def test_the_recorded_frames_are_exact() -> None:
    assert len(RECORDED) == 3
    assert all(wire.unknown_keys(frame) == [] for frame in RECORDED)
    rows = [row_of(frame) for frame in RECORDED]
    assert [(lost, odd) for _, lost, odd in rows] == [([], [])] * 3
    first, last, fast = (msgspec.structs.asdict(row) for row, _, _ in rows)
    nothing: dict[str, Any] = {"avg_final_60s": None, "avg_final_60s_ticks": None}
    head: dict[str, Any] = {"conn_id": 7, "sid": 5, "channel": CF, "index_id": "BRTI", "ingest_ns": 5_000_000}
    assert first == {
        **(head | nothing),
        "seq": 1,
        "value": Decimal("84018.87"),
        "avg_60s": Decimal("84018.87"),
        "avg_60s_ticks": 0,
        "source_ts_ms": 1790363593000,
        "received_ts_ms": 1790363593053,
        "ts_us": 1790363593000000,
    }
    assert last == {
        **head,
        "seq": 49,
        "value": Decimal("84033.39"),
        "avg_60s": Decimal("84023.75645833"),
        "avg_60s_ticks": 48,
        "avg_final_60s": Decimal("84033.39"),
        "avg_final_60s_ticks": 1,
        "source_ts_ms": 1790363641000,
        "received_ts_ms": 1790363641073,
        "ts_us": 1790363641000000,
    }
    assert fast == {
        **(head | nothing),
        "sid": 6,
        "seq": 1,
        "channel": CF_5HZ,
        "value": Decimal("84017.28"),
        "avg_60s": None,
        "avg_60s_ticks": None,
        "source_ts_ms": 1790363592200,
        "received_ts_ms": 1790363592237,
        "ts_us": 1790363592200000,
    }


def test_the_windows_that_are_not_kept_follow_from_the_row() -> None:
    for frame in RECORDED[:2]:
        body = json.loads(frame)["msg"]
        row, _, _ = row_of(frame)
        assert row.source_ts_ms is not None
        average = body["avg_60s_data"]
        assert average["window_start_ts_ms"] == row.source_ts_ms - 60_000
        assert average["window_end_ts_exclusive"] == row.source_ts_ms
        if (final := body.get("last_60s_windowed_average_15min")) is not None:
            close_ms = -(-row.source_ts_ms // 900_000) * 900_000
            assert final["window_start_ts_ms"] == close_ms - 60_000
            assert final["window_end_ts_exclusive"] == row.source_ts_ms


def test_the_documents_example_of_pyth_is_exact() -> None:
    row, lost, odd = row_of(PYTH_EXAMPLE)
    assert (lost, odd) == ([], [])
    assert (row.channel, row.index_id, row.value) == (PYTH, "Metal.XAU/USD", Decimal("2365.12345"))
    assert (row.source_ts_ms, row.received_ts_ms) == (1710000000100, 1710000000123)


# Field, as the rows have it; its place in the message.
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    CF: {
        "received_at": ("received_ts_ms",),
        "data": ("value",),
        "avg_60s_data": ("avg_60s", "avg_60s_ticks"),
        "last_60s_windowed_average_15min": ("avg_final_60s", "avg_final_60s_ticks"),
        "avg_60s_data.value": ("avg_60s",),
        "avg_60s_data.window_size": ("avg_60s_ticks",),
        "avg_60s_data.window_start_ts_ms": (),
        "avg_60s_data.window_end_ts_exclusive": (),
    },
    CF_5HZ: {"source_ts_ms": (), "received_at": ("received_ts_ms",), "data": (), "value_usd": ()},
    PYTH: {"source_ts_ms": ("source_ts_ms",), "received_at": ("received_ts_ms",)},
}
WRONG: dict[str, Any] = {
    "null": None,
    "empty": "",
    "text": "no number",
    "list": [1],
    "object": {"x": 1},
    "bool": True,
    "huge": 10**30,
    "negative text": "-1e400",
}


@pytest.mark.parametrize("damage", ["missing", *WRONG])
@pytest.mark.parametrize(("channel", "name"), [(c, f) for c, fields in FIELDS.items() for f in fields])
def test_a_field_that_is_wrong_costs_itself_alone(channel: str, name: str, damage: str) -> None:
    frames = {CF: RECORDED[1], CF_5HZ: RECORDED[2], PYTH: PYTH_EXAMPLE}
    good, _, _ = row_of(frames[channel])
    frame = json.loads(frames[channel])
    *path, last = name.split(".")
    place = frame["msg"][path[0]] if path else frame["msg"]
    if damage == "missing":
        del place[last]
    else:
        place[last] = WRONG[damage]
    row, lost, _ = row_of(json.dumps(frame).encode())
    expected, found = msgspec.structs.asdict(good), msgspec.structs.asdict(row)
    for column in FIELDS[channel][name]:
        assert found.pop(column) is None
        expected.pop(column)
    if channel == PYTH and name == "source_ts_ms":  # then the exchange's own time is the next best
        assert found.pop("ts_us") == 1710000000123000
        expected.pop("ts_us")
    assert found == expected
    used = not name.endswith("window_start_ts_ms") and not name.endswith("window_end_ts_exclusive")
    inside = damage == "object" and name in ("data", "avg_60s_data", "last_60s_windowed_average_15min")
    assert bool(lost) == (damage not in ("missing", "null", "empty") and used and not inside), lost


@pytest.mark.parametrize(
    "body",
    [
        {"received_at": 1, "data": "no JSON"},
        {"data": '{"time":5,"id":"BRTI"}'},
        {"data": '{"value":"NaN"}', "avg_60s_data": {"value": "Infinity"}},
        {"data": '{"value":"1_000"}'},
    ],
)
def test_without_any_number_there_is_no_row(body: dict[str, Any]) -> None:
    frame = {"type": CF, "sid": 1, "seq": 2, "msg": {"index_id": "BRTI", **body}}
    with pytest.raises(FrameError, match="data"):
        row_of(json.dumps(frame).encode())
    with pytest.raises(FrameError, match="index_id"):
        row_of(json.dumps({**frame, "msg": {**body, "index_id": "", "avg_60s_data": {"value": 1}}}).encode())


def test_the_averages_are_kept_when_the_value_is_not_there() -> None:
    frame = json.loads(RECORDED[1])
    frame["msg"]["data"] = "garbled"
    row, lost, _ = row_of(json.dumps(frame).encode())
    assert (row.value, row.avg_final_60s, row.source_ts_ms) == (None, Decimal("84033.39"), 1790363641000)
    assert lost == ["data"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("84018.87000000", "84018.87"),
        ("0.000", "0"),
        ("1200.00", "1200"),
        ("1E+3", "1000"),
        ("-37.50", "-37.5"),  # oil has been below zero
        ("0.000000000000000001", "1E-18"),
        ("99999999999999999999.123456789012345678", "99999999999999999999.123456789012345678"),
        ("0.0000000000000000001", None),
        ("100000000000000000000", None),
    ],
)
def test_numbers_are_neither_rounded_nor_cut(text: str, expected: str | None) -> None:
    found = trimmed(Decimal(text))
    assert (None if found is None else str(found)) == expected


def test_keys_of_the_sources_own_frame_that_are_not_known_are_told() -> None:
    frame = json.loads(RECORDED[2])
    frame["msg"]["data"] = '{"time":1,"value":"2","repeatOfPreviousValue":false}'
    assert row_of(json.dumps(frame).encode())[2] == ["data.repeatOfPreviousValue"]


# --- what is asked for ------------------------------------------------------------------------------------


def test_names_go_to_the_channels_that_have_them() -> None:
    assert by_channel(["BRTI", "BNBUSD_RTI", "Metal.XAU/USD"]) == {
        CF: ("BRTI", "BNBUSD_RTI"),
        CF_5HZ: ("BRTI",),
        PYTH: ("Metal.XAU/USD",),
    }
    assert by_channel(["BNBUSD_RTI"]) == {CF: ("BNBUSD_RTI",)}
    assert by_channel(["all"]) == {CF: ("all",), CF_5HZ: ("all",), PYTH: ("all",)}
    assert by_channel([]) == {}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("BRTI", ("BRTI",)),
        (" BRTI , ETHUSD_RTI,BRTI", ("BRTI", "ETHUSD_RTI")),
        ("Metal.XAU/USD,Equity.US.AAPL/USD", ("Metal.XAU/USD", "Equity.US.AAPL/USD")),
        ("ALL", ("all",)),
    ],
)
def test_the_setting_takes_names_or_all(text: str, expected: tuple[str, ...]) -> None:
    assert settings(REFERENCE=text).reference == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "all,BRTI",
            "REFERENCE: expected names with commas between, or all and nothing else, got 'all,BRTI'",
        ),
        (",", "REFERENCE: expected names with commas between, or all"),
        ("brti", r"but 'brti' is none \(did you mean BRTI\?\), got 'brti' \(from the flag\)"),
        (
            "BTC/USD",
            "Pyth underlyings such as Metal.XAU/USD, with commas between, or all, but 'BTC/USD' is none",
        ),
        ("X" * 65, "is none"),
    ],
)
def test_names_that_cannot_be_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settings(REFERENCE=text)


def test_the_channels_are_not_for_raw() -> None:
    with pytest.raises(ConfigError, match="cfbenchmarks_value has a table: REFERENCE says what of it"):
        settings(RAW="fill,cfbenchmarks_value")


def session(*names: str) -> ChannelSession:
    wanted = by_channel(names)
    made = ChannelSession([TRADE, *wanted], ["A"], clock=lambda: S, rng=random.Random(1), reference=wanted)
    made.opened()
    return made


def test_one_subscription_a_channel_names_what_is_wanted_and_asks_whether_it_is_there() -> None:
    one = session("BRTI", "BNBUSD_RTI", "Metal.XAU/USD")
    asked = commands(one)
    told = [
        (c.params.channels, c.params.index_ids, c.params.underlying_tickers, c.params.market_tickers)
        for c in asked
        if c.params is not None
    ]
    assert told == [
        ([TRADE], None, None, ["A"]),
        ([CF], ["BRTI", "BNBUSD_RTI"], None, None),
        ([CF_5HZ], ["BRTI"], None, None),
        ([PYTH], None, ["Metal.XAU/USD"], None),
    ]
    for sid, command in enumerate(asked, 1):
        assert command.params is not None
        (channel,) = command.params.channels or [""]
        one.on_subscribed(wire.Subscribed(command.id, wire.ChannelSid(channel, sid)))
    lists = [(c.cmd, c.params.sid, c.params.action) for c in commands(one) if c.params is not None]
    assert lists == [
        ("update_subscription", 2, "indexlist"),
        ("update_subscription", 3, "indexlist"),
        ("update_subscription", 4, "underlying_list"),
    ]
    every = session("all")
    for sid, command in enumerate(commands(every), 1):
        assert command.params is not None
        (channel,) = command.params.channels or [""]
        every.on_subscribed(wire.Subscribed(command.id, wire.ChannelSid(channel, sid)))
    assert commands(every) == [], "whatever there is is wanted"


@pytest.mark.parametrize(("channel", "code"), [(CF, 8), (CF, 24), (CF_5HZ, 24), (PYTH, 28), (PYTH, 8)])
def test_a_channel_that_is_refused_is_said_and_the_others_go_on(
    channel: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig = Rig(0)
    link = ChannelLink(rig.streams, session("BRTI", "Metal.XAU/USD"))
    link.on_connected(9, rig.now)
    sids = {}
    for sid, command in enumerate(commands(link.session), 1):
        assert command.params is not None
        (name,) = command.params.channels or [""]
        if name == channel:
            refused = wire.Error(wire.ErrorBody(code, "so it is"), command.id)
            link.on_frame(wire.encode(refused), rig.now)
        else:
            sids[name] = sid
            granted = wire.Subscribed(command.id, wire.ChannelSid(name, sid))
            link.on_frame(wire.encode(granted), rig.now)
    link.session.outbox.clear()
    for _ in range(5):
        link.session.tick()
    assert link.session.outbox == [], "asking again would not help"
    assert link.session.refused == [channel]
    assert {name for name in (TRADE, CF, CF_5HZ, PYTH) if link.session.carries(name)} == sids.keys()
    rig.recorder.seal()
    assert ("error", f"error {code}: so it is") in rig.health
    assert f"refuses the channel {channel}, which is not recorded: error {code}: so it is" in caplog.text


def test_names_that_the_exchange_does_not_have_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(0)
    link = ChannelLink(rig.streams, session("BRTI", "NOSUCH_RTI"))
    link.on_connected(9, rig.now)
    for command in commands(link.session):
        assert command.params is not None
        (name,) = command.params.channels or [""]
        granted = wire.Subscribed(command.id, wire.ChannelSid(name, {TRADE: 1, CF: 2, CF_5HZ: 3}[name]))
        link.on_frame(wire.encode(granted), rig.now)
    link.on_frame(
        b'{"type":"cfbenchmarks_value_indexlist","id":4,"sid":2,"seq":1,"msg":{"index_ids":["BRTI"]}}',
        rig.now,
    )
    link.on_frame(
        b'{"type":"cfbenchmarks_value_indexlist","id":4,"sid":2,"seq":2,"msg":{"index_ids":["BRTI"]}}',
        rig.now,
    )
    rig.recorder.seal()
    said = [detail for event, detail in rig.health if event == "reference_unknown"]
    assert set(said) == {"cfbenchmarks_value: not among what the exchange has at present: NOSUCH_RTI"}
    assert caplog.text.count("the exchange has no NOSUCH_RTI at present") == 1
    link.on_frame(
        b'{"type":"cfbenchmarks_value_5hz_indexlist","sid":3,"seq":1,"msg":{"index_ids":null}}', rig.now
    )
    assert "the exchange has no BRTI at present" in caplog.text, "a list that is null is empty"
    assert rig.recorder.counts.gaps == 0, "their numbers count"


# --- each once, and what is missed is said ----------------------------------------------------------------


def test_values_have_rows_and_a_hole_in_the_numbers_is_said() -> None:
    rig = Rows()
    rig.feed(cf_value(1, 1), cf_value(2, 2), cf_value(5, 5), cf_value(6, 6, "ETHUSD_RTI"))
    assert [(row.seq, row.index_id, row.value) for row in rig.prices()] == [
        (1, "BRTI", Decimal("84018.01")),
        (2, "BRTI", Decimal("84018.02")),
        (5, "BRTI", Decimal("84018.05")),
        (6, "ETHUSD_RTI", Decimal("84018.06")),
    ]
    (gap, missed) = rig.events("gap", "reference_missed")
    assert gap == ("gap", "cfbenchmarks_value: numbers 3 to 4 are missing")
    assert missed[1].startswith("cfbenchmarks_value: values from 2023-11-14 22:13:20.000 to")
    assert missed[1].endswith("are missing, and cannot be asked for again")
    assert rig.recorder.counts.reference_prices == 4


def test_a_frame_that_cannot_be_used_is_kept_aside_and_said() -> None:
    rig = Rows()
    rig.feed(cf_value(1, 1), cf_value(2, 2, data="-", avg_60s_data=None), cf_value(3, 3))
    assert [row.seq for row in rig.prices()] == [1, 3]
    assert "data" in rig.rejected[0]
    assert [event for event, _ in rig.events("gap", "reference_missed", "reject")] == [
        "reject",
        "reference_missed",
    ]
    assert rig.recorder.counts.repeated == 0, "its number counts once"


def test_what_a_row_loses_is_counted() -> None:
    rig = Rows()
    rig.feed(cf_value(1, 1, received_at="soon"), cf_value(2, 2, avg_60s_data=7))
    assert [row.received_ts_ms for row in rig.prices()] == [None, 1_790_363_595_053]
    assert rig.recorder.counts.losses.fields == {(CF, "received_at"): 1, (CF, "avg_60s_data"): 1}
    assert rig.recorder.counts.losses.lossy == {CF: 2}
    assert rig.rejected == []


def test_two_connections_bring_each_value_once_and_one_makes_up_for_the_other() -> None:
    rig = Rows(2)
    rig.feed(cf_value(1, 1), link=0)
    rig.feed(cf_value(1, 1), cf_value(2, 2), link=1)
    rig.feed(cf_value(4, 4), link=0)  # 2 and 3 were lost there
    rig.feed(cf_value(3, 3), cf_value(4, 4), link=1)
    assert sorted(row.value for row in rig.prices() if row.value is not None) == [
        Decimal(f"84018.0{n}") for n in (1, 2, 3, 4)
    ]
    assert rig.recorder.counts.reference_repeated == 2
    assert [event for event, _ in rig.events("gap", "reference_missed")] == ["gap"], "nothing is missing"
    rig.links[0].on_disconnected(rig.now, "gone")
    rig.feed(cf_value(5, 5), link=1)
    assert rig.events("reference_missed") == []
    rig.links[1].on_disconnected(rig.now, "gone too")
    channels.grant(rig.links[1], 60, rig.now + S)
    assert len(rig.events("reference_missed")) == 3, "once a channel"
    rig.feed(cf_value(1, 5), cf_value(2, 6), link=1)
    assert [row.seq for row in rig.prices()][-2:] == [5, 2], "the last value comes again, and is known"


def test_values_without_a_time_follow_one_connection() -> None:
    rig = Rows(2)
    body = (
        b'{"type":"pyth_value","sid":16,"seq":%d,"msg":{"underlying_ticker":"Metal.XAU/USD","value_usd":"5"}}'
    )
    rig.feed(body % 1, body % 2, link=0)
    rig.feed(body % 1, body % 2, link=1)
    assert [(row.conn_id, row.seq) for row in rig.prices()] == [(50, 1), (50, 2)]


def test_a_value_on_a_subscription_of_another_channel_is_none() -> None:
    rig = Rows()
    rig.feed(RECORDED[2].replace(b'"sid":6', b'"sid":14'))
    assert rig.prices() == []
    assert rig.recorder.counts.foreign == 1


# --- the simulator ----------------------------------------------------------------------------------------


def form(value: Any, key: str = "") -> Any:  # noqa: ANN401
    """What a value is like: keys in order, digits behind the point; ``data`` is looked into."""
    if key == "data":
        return form(json.loads(value))
    if isinstance(value, dict):
        return [(name, form(one, name)) for name, one in value.items()]
    if isinstance(value, str) and value.replace(".", "").isdigit():
        return f"digits, {len(value.partition('.')[2])} behind the point"
    return type(value).__name__


async def heard(directory: Path, running: Exchange, channel: str, names: list[str], enough: int) -> Client:
    client = await connect(directory, running.url)
    key = "underlying_tickers" if channel == PYTH else "index_ids"
    params = {"channels": [channel], key: names} if names else {"channels": [channel]}
    client.send({"id": 1, "cmd": "subscribe", "params": params})
    await client.until(lambda: len(client.frames) > enough)
    return client


def test_the_simulators_frames_have_the_form_of_the_recorded_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_minute = [1790363640.9]  # the clock of the recorded frames: just before the last minute of a quarter
    monkeypatch.setattr(time, "time_ns", lambda: int(last_minute[0] * S))
    real = {
        (f["type"], "last_60s_windowed_average_15min" in f["msg"]): form(f) for f in map(json.loads, RECORDED)
    }

    async def play() -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        async with exchange(tmp_path, rate=50) as running:
            # Signatures are looked at by the same clock.
            client = await connect(tmp_path, running.url)
            for number, channel in enumerate((CF, CF_5HZ), 1):
                params = {"channels": [channel], "index_ids": ["BRTI"]}
                client.send({"id": number, "cmd": "subscribe", "params": params})
            deadline = time.monotonic() + 20
            while len(found) < 3:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
                last_minute[0] = min(last_minute[0] + 0.01, 1790363699)
                for frame in client.frames:
                    if frame["type"] in (CF, CF_5HZ):
                        final = "last_60s_windowed_average_15min" in frame["msg"]
                        found.setdefault((frame["type"], final), form(frame))
        return found

    assert asyncio.run(play()) == real


def test_the_simulators_averages_are_those_of_its_own_values(tmp_path: Path) -> None:
    async def play() -> list[dict[str, Any]]:
        async with exchange(tmp_path, rate=100) as running:
            client = await heard(tmp_path, running, CF, ["BRTI"], 4)
            return [frame for frame in client.frames if frame["type"] == CF]

    frames = asyncio.run(play())
    assert [frame["seq"] for frame in frames] == list(range(1, len(frames) + 1))
    values = [Decimal(json.loads(frame["msg"]["data"])["value"]) for frame in frames]
    times = [json.loads(frame["msg"]["data"])["time"] for frame in frames]
    assert all(later - before >= 1000 and later % 1000 == 0 for before, later in itertools.pairwise(times))
    for number, frame in enumerate(frames):
        average = frame["msg"]["avg_60s_data"]
        before = values[:number] or values[:1]
        assert average["window_size"] == number
        assert Decimal(average["value"]) == (sum(before, Decimal(0)) / len(before)).quantize(Decimal("1e-8"))


def test_the_simulator_obeys_the_actions_and_refuses_what_names_nothing(tmp_path: Path) -> None:
    async def play() -> None:
        async with exchange(tmp_path, rate=100) as running:
            client = await connect(tmp_path, running.url)
            answers: dict[int, dict[str, Any]] = {}

            async def say(number: int, cmd: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
                client.send({"id": number, "cmd": cmd, "params": params})
                await client.until(lambda: any(f.get("id") == number for f in client.frames))
                answers[number] = next(f for f in client.frames if f.get("id") == number)
                return answers[number]

            assert (await say(1, "subscribe", channels=[CF]))["msg"] == {"channel": CF, "sid": 1}
            await asyncio.sleep(0.5)
            assert [f["type"] for f in client.frames] == ["subscribed"], "nothing without names"
            listing = await say(2, "update_subscription", sid=1, action="indexlist")
            assert listing == {
                "type": f"{CF}_indexlist",
                "id": 2,
                "sid": 1,
                "seq": 1,
                "msg": {"index_ids": list(INDICES)},
            }
            refused = await say(3, "update_subscription", sid=1, action="subscribe_indices")
            assert (refused["msg"]["code"], refused["sid"], refused["seq"]) == (24, 1, 2)
            assert (await say(4, "update_subscription", sid=1, action="add_markets"))["msg"]["code"] == 13
            ok = await say(
                5, "update_subscription", sid=1, action="subscribe_indices", index_ids=["ETHUSD_RTI"]
            )
            assert (ok["type"], ok["seq"]) == ("ok", 4)
            await client.until(lambda: client.frames[-1]["type"] == CF)
            assert {f["msg"]["index_id"] for f in client.frames if f["type"] == CF} == {"ETHUSD_RTI"}
            await say(6, "update_subscription", sid=1, action="unsubscribe_indices", index_ids=["ETHUSD_RTI"])
            seen = len(client.frames)
            await say(7, "subscribe", channels=[PYTH], underlying_tickers=["Metal.XAU/USD"])
            await client.until(lambda: any(f["type"] == PYTH for f in client.frames))
            assert not any(f["type"] == CF for f in client.frames[seen:])
            refused = await say(8, "update_subscription", sid=2, action="subscribe_underlyings")
            assert refused["msg"]["code"] == 28
            named = await say(9, "update_subscription", sid=2, action="underlying_list")
            assert named["type"] == "pyth_value_underlying_list"
            assert named["msg"] == {"underlying_tickers": list(UNDERLYINGS)}

    asyncio.run(play())


def test_the_same_seed_walks_the_same_way(tmp_path: Path) -> None:
    async def play() -> list[str]:
        async with exchange(tmp_path, rate=100, seed=5) as running:
            client = await heard(tmp_path, running, PYTH, ["Metal.XAU/USD"], 4)
            return [f["msg"]["value_usd"] for f in client.frames if f["type"] == PYTH][:3]

    assert asyncio.run(play()) == asyncio.run(play())


# --- end to end -------------------------------------------------------------------------------------------


class Watcher(Strategy):
    def __init__(self) -> None:
        self.seen: list[ReferenceRow] = []

    def on_reference(self, price: ReferenceRow, /) -> None:
        self.seen.append(price)


@pytest.mark.parametrize("standby", ["off", "on"])
def test_what_the_simulator_sends_is_in_both_stores_and_in_a_replay(
    tmp_path: Path, engine_url: str, standby: str
) -> None:
    watcher = Watcher()
    database = f"reference_{standby}"

    async def play() -> Exchange:
        async with exchange(tmp_path, rate=200) as running:
            told = settings_for(
                tmp_path,
                running,
                CLICKHOUSE_URL=engine_url,
                CLICKHOUSE_DATABASE=database,
                MARKET_ALL_OPEN="on",
                REFERENCE="all",
                HOT_STANDBY=standby,
                QUERY_LISTEN="off",
            )
            recording = Recording(told, watcher)
            await asyncio.to_thread(recording.open)
            task = asyncio.ensure_future(recording.run())
            await until(lambda: running.stats.reference_sent > 150)
            running.end_play()
            counts = recording.recorder.counters
            await until(
                lambda: counts.reference_prices + counts.reference_repeated == running.stats.reference_sent
            )
            recording.stop()
            await task
            await asyncio.to_thread(recording.close)
            assert recording.summary()["reference_prices"] == counts.reference_prices
            return running

    running = asyncio.run(play())
    sent = running.stats.reference_sent
    live = watcher.seen
    assert len(live) == (sent if standby == "off" else len({_key(row) for row in live}))
    assert len(live) > sent * (0.4 if standby == "on" else 1) - 1
    assert {row.channel for row in live} == {CF, CF_5HZ, PYTH}
    files = ds.dataset(tmp_path / "parquet" / "reference_prices", format="parquet").to_table()
    assert len(files) == len(live)
    where: list[tuple[Any, dict[str, Any]]] = [
        (tmp_path / "parquet", {}),
        (engine_url, {"database": database}),
    ]
    for source, options in where:
        again = Watcher()
        replay(source, **options).drive(again)
        # Of one read the database knows the order within a channel only.
        told = (
            live
            if not options
            else sorted(live, key=lambda row: (row.ingest_ns, row.conn_id, row.sid, row.seq))
        )
        assert again.seen == told, source
        assert [str(row.value) for row in again.seen] == [str(row.value) for row in told]
        table = replay(source, markets=["NOT-ONE"], **options).reference().arrow()
        assert table["seq"].to_pylist() == [row.seq for row in told], "indices belong to every market"
    client = clickhouse.open_reader(engine_url, user="default", password="")
    client.database = database
    latest: dict[tuple[str, str], ReferenceRow] = {}
    for row in live:
        latest[row.index_id, row.channel] = row
    now = client.query(
        "SELECT index_id, channel, value, avg_60s FROM reference_now ORDER BY 1, 2"
    ).result_rows
    assert [tuple(row) for row in now] == [
        (*key, row.value, row.avg_60s) for key, row in sorted(latest.items())
    ]
    client.close()


def _key(row: ReferenceRow) -> tuple[Any, ...]:
    return row.channel, row.index_id, row.source_ts_ms, row.value


def test_an_exchange_without_these_channels_costs_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = tuple(name for name in subscription.CHANNELS if name not in (CF_5HZ, PYTH))
    monkeypatch.setattr(simulator_commands, "CHANNELS", known)

    async def play() -> None:
        async with exchange(tmp_path, rate=200) as running:
            more = {"MARKET_ALL_OPEN": "on", "REFERENCE": "BRTI,NOSUCH_RTI,Metal.XAU/USD"}
            async with recorded(tmp_path, running, **more) as recording:
                counts = recording.recorder.counters
                await until(lambda: counts.reference_prices > 1 and counts.trades > 0)
                assert recording.channels.refused == [CF_5HZ, PYTH]
                await until(lambda: "NOSUCH_RTI" in caplog.text)

    asyncio.run(play())
    rows = ds.dataset(tmp_path / "parquet" / "reference_prices", format="parquet").to_table()
    assert set(rows["index_id"].to_pylist()) == {"BRTI"}
    for channel in (CF_5HZ, PYTH):
        assert f"the exchange refuses the channel {channel}" in caplog.text


@pytest.mark.parametrize(
    ("names", "known", "expected"),
    [
        (
            "BRTI,Metal.XAU/USD",
            (CF, CF_5HZ, PYTH),
            [("ok", f"the exchange has the channels {CF}, {CF_5HZ}, {PYTH}")],
        ),
        ("all", (CF, CF_5HZ, PYTH), [("ok", f"the exchange has the channels {CF}, {CF_5HZ}, {PYTH}")]),
        (
            "BRTI,NOSUCH_RTI,Metal.XPT/USD",
            (CF, PYTH),
            [
                ("warning", f"the exchange refuses {CF_5HZ}: error 8: Unknown channel name"),
                ("warning", f"{CF}: the exchange has no NOSUCH_RTI at present"),
                ("warning", f"{PYTH}: the exchange has no Metal.XPT/USD at present"),
                ("ok", f"the exchange has the channels {CF}, {PYTH}"),
            ],
        ),
    ],
)
def test_the_check_says_which_channels_and_names_there_are(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    names: str,
    known: tuple[str, ...],
    expected: list[tuple[str, str]],
) -> None:
    monkeypatch.setattr(simulator_commands, "CHANNELS", known)

    async def play() -> list[tuple[str, str]]:
        async with exchange(tmp_path, rate=100) as running:
            told = settings_for(tmp_path, running, REFERENCE=names)
            (check,) = check_reference.checks(told)
            found = await asyncio.to_thread(lambda: list(check.look()))
            return [(str(finding.verdict), finding.said) for finding in found]

    assert asyncio.run(play()) == expected


def test_the_check_asks_nothing_without_a_key_or_a_wish() -> None:
    assert check_reference.checks(settings()) == []
    (check,) = check_reference.checks(settings(REFERENCE="BRTI"))
    (finding,) = check.look()
    assert finding.said == "not asked for: there is no key to sign with"


# --- views ------------------------------------------------------------------------------------------------


def test_bars_are_those_of_the_values_in_them(engine_url: str) -> None:
    client = clickhouse.connect(engine_url, user="default", password="", database="reference_views")
    start_ms = 1_769_860_800_000  # 2026-01-31 12:00:00
    dice = random.Random(3)
    rows = []
    for number in range(200):
        at_ms = start_ms + number * 200 + dice.choice([0, 0, 30_000])
        value = Decimal(dice.randrange(8_400_000, 8_410_000)).scaleb(-2)
        rows.append((at_ms, value))
    columns = ["conn_id", "sid", "seq", "channel", "index_id", "value", "ts", "ingest_ts"]
    moments = (f"fromUnixTimestamp64Milli({at})" for at, _ in rows)
    values = ", ".join(
        f"(1, 1, {n}, '{CF_5HZ}', 'BRTI', {value}, {at}, {at})"
        for n, ((_, value), at) in enumerate(zip(rows, moments, strict=True))
    )
    nothing = f"(1, 1, 999, '{CF}', 'BRTI', NULL, fromUnixTimestamp64Milli({start_ms}), now64(9))"
    other = f"(1, 1, 1, '{CF}', 'ETHUSD_RTI', 1, fromUnixTimestamp64Milli({start_ms}), now64(9))"
    client.command(f"INSERT INTO reference_prices ({', '.join(columns)}) VALUES {values}, {nothing}, {other}")
    for every_s in (1, 7, 60):
        bars: dict[int, list[tuple[int, int, Decimal]]] = {}
        for n, (at, value) in enumerate(rows):
            if at < start_ms + 40_000:
                bars.setdefault(at // (every_s * 1000) * every_s, []).append((at, n, value))
        expected = []
        for since, found in sorted(bars.items()):
            in_order = [value for _, _, value in sorted(found)]
            ticks = len({at for at, _, _ in found})
            expected.append((since, in_order[0], max(in_order), min(in_order), in_order[-1], ticks))
        asked = client.query(
            "SELECT toUnixTimestamp(since), open, high, low, close, ticks FROM reference_ohlc(index = 'BRTI',"
            " since = '2026-01-31 12:00:00', until = '2026-01-31 12:00:40', every_s = {every:UInt32})",
            parameters={"every": every_s},
        ).result_rows
        assert [tuple(row) for row in asked] == expected
    client.close()
