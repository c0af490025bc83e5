"""Markets that are wanted and that the exchange does not have: said once, never known, asked for ever more
rarely, and recorded as soon as they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from frames import MARKET_ID, delta, frame, snapshot
from kalshi_fast.admission import PROBE
from kalshi_fast.discovery.inquiry import UNKNOWN, described
from kalshi_fast.rest_bodies import RestMarket
from kalshi_fast.status.health import reasons
from recordings import capture
from test_scale import ON_YES, Rig
from test_status import World

if TYPE_CHECKING:
    from kalshi_fast.admission import Admission


def nobodys(seq: int, ticker: str) -> bytes:
    """The exchange's answer for a ticker that it does not have."""
    return frame("orderbook_snapshot", 1, seq, market_ticker=ticker, market_id="")


def probes(rig: Rig) -> list[tuple[str, ...]]:
    """What is asked when the next probe is due."""
    (subscription,) = rig.link.session.subscriptions.values()
    rig.now += min(subscription.put_off.values()) - (rig.now - 1_800_000_000_000_000_000)
    return rig.tick()


def test_an_empty_snapshot_without_an_id_is_no_book(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig("AB")
    rig.feed(snapshot(1, "A", **ON_YES), nobodys(2, "B"))
    assert rig.known == {"A"}
    assert "B" not in rig.books.by_ticker
    assert [row for row in rig.rows if row[1] == "B"] == []
    assert rig.recorder.counts.known == 1
    assert rig.said("absent") == [
        ("B", "there is no such market: the exchange answers with an empty book that has no market_id")
    ]
    assert "B: there is no such market" in caplog.text
    assert list(rig.recorder.absent.by_ticker) == ["B"]


def test_an_empty_book_of_a_market_that_there_is_is_a_book() -> None:
    """Recorded on the demo exchange: neither side, and an id. Old frames have none at all."""
    (recorded,) = (f for f in capture("hypnogaba_demo").frames() if b"snapshot" in f)
    ticker = "KXBTCD-26AUG2017-T73749.99"
    rig = Rig([ticker, "OLD"])
    rig.feed(recorded, frame("orderbook_snapshot", 1, 2, market_ticker="OLD", yes=[[40, 3]]))
    assert rig.known == {ticker, "OLD"}
    assert len(rig.recorder.absent) == 0


def test_it_is_asked_for_ever_more_rarely_and_said_once() -> None:
    rig = Rig("AB")
    rig.feed(snapshot(1, "A", **ON_YES), nobodys(2, "B"))
    asked_ns, seq = [], 2
    for _ in range(8):
        before = rig.now
        assert rig.tick(1) == []
        assert probes(rig) == [("B",)]
        asked_ns.append(rig.now - before)
        seq += 1
        rig.feed(nobodys(seq, "B"))
    assert asked_ns[0] >= PROBE.first_ns
    assert asked_ns == sorted(asked_ns)
    assert asked_ns[-1] >= PROBE.most_ns
    assert len(rig.said("absent")) == 1
    rig.disconnect()
    rig.connect(2)
    rig.feed(snapshot(1, "A", **ON_YES), nobodys(2, "B"))
    assert len(rig.said("absent")) == 1, "a new connection is no news"
    rig.feed(frame("ok", 1, 9))  # numbers are missing
    assert [ticker for asked in rig.tick() for ticker in asked] == ["A"]


def test_it_is_known_as_soon_as_it_is_there() -> None:
    rig = Rig("AB")
    rig.feed(snapshot(1, "A", **ON_YES), nobodys(2, "B"))
    rig.recorder.awake("B")  # it is announced
    assert rig.tick() == [("B",)]
    rig.feed(nobodys(3, "B"))
    rig.feed(delta(4, "0.4000", "1.00", "yes", "B"))  # and this is news of it too
    assert rig.tick() == [("B",)]
    rig.feed(snapshot(5, "B", **ON_YES))
    assert rig.known == {"A", "B"}
    assert rig.said("present") == [("B", "the market is there now")]
    assert len(rig.recorder.absent) == 0
    assert rig.recorder.counts.known == 2


def test_a_known_market_that_vanishes_is_unknown_from_then_on() -> None:
    rig = Rig("A")
    rig.feed(snapshot(1, "A", **ON_YES), nobodys(2, "A"))
    assert rig.known == set()
    assert [row[0] for row in rig.rows][-1] == "gap"
    assert rig.recorder.counts.known == 0


def test_markets_that_are_not_wanted_any_more_are_let_go() -> None:
    rig = Rig("AB")
    rig.feed(snapshot(1, "A", **ON_YES), nobodys(2, "B"))
    rig.link.remove(["B"])
    rig.recorder.forget(["B"], rig.now)
    assert len(rig.recorder.absent) == 0
    admission: Admission = rig.link.admission
    assert admission._probes == {}


def test_rests_answer_is_said_once() -> None:
    rig = Rig("A")
    rig.feed(nobodys(1, "A"))
    absent = rig.recorder.absent
    assert absent.to_ask() == ["A"]
    for _ in range(2):
        absent.answered("A", UNKNOWN, rig.now, rig.link)
    absent.answered("OTHER", UNKNOWN, rig.now, rig.link)
    assert absent.to_ask() == []
    assert [detail for _, detail in rig.said("absent")][1:] == [UNKNOWN]
    assert absent.described(5) == [f"A ({UNKNOWN})"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ("active", "REST knows it, and says that it is active"),
        ("finalized", "REST knows it, and says that it is finalized; its close_time is 2026-01-02T03:04:05Z"),
        (None, "REST knows it, and says that it is of no status; its close_time is 2026-01-02T03:04:05Z"),
    ],
)
def test_what_rest_says_in_a_sentence(status: str | None, expected: str) -> None:
    assert described(RestMarket("A", status=status, close_time="2026-01-02T03:04:05Z")) == expected


def test_absent_markets_are_a_reason_of_their_own_and_none_of_unknown_books() -> None:
    world = World()
    world.writing()
    for _ in range(100):
        world.now += 1
        world.writing()
        world.capture(markets_wanted=4, markets_known=2, markets_absent=2, absent=["A (why)"])
    assert [reason.what for reason in reasons(world.state)] == ["absent"]
    assert reasons(world.state)[0].detail == "the exchange does not have A (why) and 1 more"
    world.capture(scale_doubts=["connection 3: its books contradict the yes scale"])
    assert world.reasons == {"scale": "connection 3: its books contradict the yes scale"}


def test_the_id_of_a_market_may_be_missing_but_not_empty() -> None:
    """What tells an old frame from the answer for a dead ticker is the key itself."""
    old = msgspec.json.encode(
        {"type": "orderbook_snapshot", "sid": 1, "seq": 1, "msg": {"market_ticker": "A"}}
    )
    rig = Rig("AB")
    rig.feed(old, nobodys(2, "B"), snapshot(3, "A"))
    assert rig.known == {"A"}
    assert list(rig.recorder.absent.by_ticker) == ["B"]
    assert rig.books.by_ticker["A"].market_id == MARKET_ID
