"""The times of deltas, and real deltas: each of a recording goes the fast way, and both ways read the same of
it as json and Decimal do (``oracle``)."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from decimal import Decimal
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import links
import oracle
from conftest import FEW
from kalshi_fast._book import SIDES
from kalshi_fast.books import Books
from kalshi_fast.errors import FrameError
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.simulator.frames import times as simulated_times
from kalshi_fast.times import exchange_us
from recordings import CAPTURES, Capture, Kind
from test_path import TICKERS, Again, LongWay, Rig, same, usual

REAL: Final = [capture for capture in CAPTURES if capture.kind is Kind.REAL]
MS: Final = 1_795_000_050_500
NOW_NS: Final = 1_795_000_051_000_000_000


def deltas_of(capture: Capture) -> list[bytes]:
    """Those in fixed point; those of 2025 had cents."""
    return [
        frame
        for frame, message in zip(capture.frames(), capture.messages(), strict=True)
        if message["type"] == "orderbook_delta" and "price_dollars" in message["msg"]
    ]


class RealRig:
    """All markets of a capture, each with a book whose levels bear every delta."""

    def __init__(self, capture: Capture, *, fast: bool) -> None:
        self.rows: list[Any] = []
        self.books = Books()
        pool = LocalPool(10_000, 2)
        self.recorder = Recorder(self.books, pool, lambda batch: None, seal_rows=10_000)
        messages = [json.loads(frame, parse_float=Decimal) for frame in deltas_of(capture)]
        self.sids = {message["sid"] for message in messages}
        needed: defaultdict[tuple[str, str], dict[tuple[str, str], None]] = defaultdict(dict)
        for message in messages:
            body = message["msg"]
            needed[body["market_ticker"], body["market_id"]][body["side"], body["price_dollars"]] = None
        self.link = links.link(
            self.recorder, [name for name, _ in needed], lambda: NOW_NS, use_yes_price=capture.yes_scale
        )
        (sid,) = self.sids
        links.grant(self.link, 9, NOW_NS, sid)
        self.subscription = self.link.session.subscriptions[sid]
        for (ticker, market_id), levels in needed.items():
            sides = {
                f"{side}_dollars_fp": [[price, "900000.00"] for name, price in levels if name == side]
                for side in SIDES
            }
            body = {"market_ticker": ticker, "market_id": market_id, **sides}
            snapshot = {
                "type": "orderbook_snapshot",
                "sid": sid,
                "seq": self.subscription.next_seq,
                "msg": body,
            }
            self.link.feed(json.dumps(snapshot).encode(), NOW_NS)
        if not fast:
            self.link.path = LongWay(self.link.path)  # type: ignore[assignment]

    def give(self, frame: bytes, seq: int) -> tuple[int, dict[str, int]]:
        """How the fast path answers, and the row that was written one way or the other."""
        self.subscription.next_seq = seq
        taken = self.link.path.take(frame, NOW_NS)
        if taken == 0:
            self.link.on_frame(frame, NOW_NS)
        columns = self.recorder._batch.events
        return taken, {name: int(array[columns.n - 1]) for name, array in columns.arrays.items()}


@pytest.mark.parametrize("capture", [c for c in REAL if deltas_of(c)], ids=lambda capture: capture.name)
@pytest.mark.parametrize("end", [b"\n", b""], ids=["newline", "bare"])
def test_each_real_delta_goes_the_fast_way_and_is_what_it_says(capture: Capture, end: bytes) -> None:
    fast, slow = RealRig(capture, fast=True), RealRig(capture, fast=False)
    for frame in deltas_of(capture):
        message = oracle.load(frame)
        body = message["msg"]
        side, price, change = oracle.level(body, yes_scale=capture.yes_scale)
        expected = {
            "side": SIDES.index(side),
            "price_e4": oracle.e4(price),
            "qty_e2": oracle.e2(change),
            "ts_us": oracle.book_ts_us(body),
            "sid": message["sid"],
            "seq": message["seq"],
        }
        for rig, way in ((fast, 1), (slow, 0)):
            taken, row = rig.give(frame.rstrip(b"\n") + end, message["seq"])
            assert taken == way, frame
            assert {name: row[name] for name in expected} == expected, frame
            assert rig.books.tickers[row["market_ix"]] == body["market_ticker"]


def test_there_are_real_deltas() -> None:
    assert sum(len(deltas_of(capture)) for capture in REAL) >= 320


def test_the_simulator_writes_times_as_the_exchange_does() -> None:
    found = 0
    for capture in REAL:
        for frame in deltas_of(capture):
            body = json.loads(frame)["msg"]
            if "ts_ms" in body:
                text = frame[frame.index(b',"ts":') :].rstrip(b"}\n")
                assert simulated_times(oracle.rfc3339_us(body["ts"])) == text
                found += 1
    assert found >= 290


# --- made up -----------------------------------------------------------------------------------------


def told(rng: random.Random) -> str:
    """The times of a delta, as they might be: usual ones, and everything beside them."""
    ms = MS + rng.randrange(-3, 4) + 1000 * rng.randrange(2)
    second = f"2026-11-18T11:07:{ms // 1000 % 60:02d}"
    digits = rng.choice((0, 1, 2, 3, 3, 4, 5, 5, 6, 6, 6, 6, 6, 7, 8, 9))
    fraction = f"{ms % 1000:03d}" if rng.random() < 0.8 else f"{rng.randrange(1000):03d}"
    fraction = (fraction + f"{rng.randrange(10**6):06d}")[:digits]
    if rng.random() < 0.8:
        fraction = fraction.rstrip("0")
    ts = f"{second}{'.' if fraction else ''}{fraction}{rng.choice('ZZZZZZZZz')}"
    if rng.random() < 0.1:
        ts = rng.choice(
            (f"{second}.Z", f"{second}.12x4Z", "", "yesterday", f"{second}.5+00:00", "2026-11-18")
        )
    parts = [f',"ts":"{ts}"', f',"ts_ms":{ms}']
    kind = rng.random()
    if kind < 0.15:
        parts.pop()
    elif kind < 0.3:
        parts.pop(0)
    elif kind < 0.33:
        parts.reverse()
    return "".join(parts)


@settings(max_examples=30 if FEW else 300)
@given(st.integers(0, 2**32))
def test_times_of_every_kind_are_the_same_on_both_ways(seed: int) -> None:
    rng = random.Random(seed)
    usual_one = told(rng)
    frames = []
    for seq in range(3, 50):
        times = usual_one if rng.random() < 0.3 else told(rng)
        end = rng.choice((b"\n", b"\n", b"\n", b"", b"\n\n", b" ", b"\r\n"))
        frames.append(
            usual(seq, rng.choice(TICKERS), times=times, side=rng.choice(SIDES), price="0.4000") + end
        )
    same(frames)


@settings(max_examples=40 if FEW else 400)
@given(st.integers(0, 2**32))
def test_times_are_what_the_oracle_says(seed: int) -> None:
    rng, rig = random.Random(seed), Again(3)
    for _ in range(20):
        rig.give(usual(3, times=told(rng)) + rng.choice((b"\n", b"")))


@pytest.mark.parametrize("end", [b"\n", b""], ids=["newline", "bare"])
def test_the_fraction_may_have_any_length(end: bytes) -> None:
    rig = Rig(fast=True)
    for seq, digits in enumerate((6, 5, 4, 3, 6, 2, 1, 6, 0, 7, 6, 9, 5, 8), 3):
        text = "500123456"[:digits]
        times = f',"ts":"2026-11-18T11:07:30{"." if digits else ""}{text}Z","ts_ms":1795000050500'
        assert rig.link.path.take(usual(seq, times=times) + end, rig.now) == 1, digits
        columns = rig.recorder._batch.events
        expected = 1_795_000_050_000_000 + int(text[:6].ljust(6, "0")) if digits else MS * 1000
        assert columns.arrays["ts_us"][columns.n - 1] == expected, digits


def test_one_newline_is_taken_and_no_other_end() -> None:
    rig = Rig(fast=True)
    assert rig.link.path.take(usual(3) + b"\n", rig.now) == 1
    for end in (b"\n\n", b" ", b"\r\n", b"\n ", b"\t", b"\0", b"}\n"):
        assert rig.link.path.take(usual(4) + end, rig.now) == 0
    frames = [usual(seq) + end for seq, end in enumerate((b"\n\n", b" ", b"\r\n", b"\n", b"\n "), 3)]
    same(frames)


@pytest.mark.parametrize(
    "times",
    [
        ',"ts":"2026-11-18T11:07:30.500123Z","ts_ms":1795000050500',
        ',"ts":"2026-11-18T11:07:30.50012Z","ts_ms":1795000050500',
        ',"ts":"2026-11-18T11:07:30.500123Z"',
        ',"ts_ms":1795000050500',
    ],
)
def test_every_beginning_and_every_byte_of_a_real_frame(times: str) -> None:
    whole = usual(4, price="0.4000", side="no", times=times) + b"\n"
    same([usual(3, times=times) + b"\n", *(whole[:length] for length in range(len(whole))), whole])
    rig = Again(4)
    assert rig.give(whole)
    for at in range(whole.index(b',"side"'), len(whole)):
        for value in range(256) if not FEW else b'\0/09:;?@"\\x\x80\n}Zz.':
            rig.give(whole[:at] + bytes([value]) + whole[at + 1 :])
            rig.give(whole[:at] + bytes([value]) + whole[at:])
        rig.give(whole[:at] + whole[at + 1 :])


def test_the_rule_of_times() -> None:
    assert exchange_us("2026-11-18T11:07:30.500123Z", MS) == MS * 1000 + 123
    assert exchange_us("2026-11-18T11:07:30.499999Z", MS) == MS * 1000
    assert exchange_us("2026-11-18T11:07:30Z", MS) == MS * 1000
    assert exchange_us("yesterday", MS) == MS * 1000
    assert exchange_us(None, MS) == MS * 1000
    assert exchange_us("2026-11-18T11:07:30.500123987Z", None) == MS * 1000 + 123
    assert exchange_us(None, None) is None
    with pytest.raises(FrameError, match="ts"):
        exchange_us("yesterday", None)
