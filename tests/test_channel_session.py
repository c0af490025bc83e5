"""The subscriptions beside the order book: one a channel, by market while these are few, made anew when they
end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from channels import commands
from kalshi_fast import wire
from kalshi_fast.channels.session import (
    BY_MARKET,
    CHANNELS,
    LIFECYCLE,
    NEVER,
    REPLY_NS,
    TICKER,
    TRADE,
    ChannelSession,
)
from kalshi_fast.subscription import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

S = 10**9


class Rig:
    """A session on an open connection; ``asked`` are the commands of the last look."""

    def __init__(self, *channels: str, tickers: Iterable[str] = ("A", "B"), most_markets: int = 3) -> None:
        self.now = S
        self.session = ChannelSession(
            channels or (TRADE, TICKER, LIFECYCLE),
            tickers,
            clock=lambda: self.now,
            rng=random.Random(1),
            most_markets=most_markets,
        )
        self.session.opened()

    def asked(self) -> list[dict[str, Any]]:
        found = []
        for command in commands(self.session):
            params = command.params or wire.Params()
            what = {"cmd": command.cmd, "id": command.id, "channels": params.channels, "sid": params.sid}
            what |= {"sids": params.sids, "tickers": params.market_tickers, "action": params.action}
            found.append({key: value for key, value in what.items() if value is not None})
        return found

    def grant(self, first_sid: int = 1) -> None:
        for sid, command in enumerate(self.asked(), first_sid):
            (channel,) = command["channels"]
            self.session.on_subscribed(wire.Subscribed(command["id"], wire.ChannelSid(channel, sid)))

    def refuse(self, command: dict[str, Any], code: int, sid: int | None = None) -> None:
        self.session.on_error(wire.Error(wire.ErrorBody(code), command["id"], sid))

    def later(self, seconds: float = 60) -> None:
        self.now += int(seconds * S)
        self.session.tick()


def test_every_channel_has_a_subscription_of_its_own_with_the_markets_it_takes() -> None:
    rig = Rig()
    assert rig.asked() == [
        {"cmd": "subscribe", "id": 1, "channels": [TRADE], "tickers": ["A", "B"]},
        {"cmd": "subscribe", "id": 2, "channels": [TICKER], "tickers": ["A", "B"]},
        {"cmd": "subscribe", "id": 3, "channels": [LIFECYCLE]},
    ]
    many = Rig(TRADE, tickers=map(str, range(4)))
    assert many.asked() == [{"cmd": "subscribe", "id": 1, "channels": [TRADE]}], "too many: all of them"


def test_a_refusal_by_market_is_followed_by_all_markets() -> None:
    for code in (11, 26):
        rig = Rig(TRADE)
        (command,) = rig.asked()
        rig.refuse(command, code)
        assert rig.asked() == [{"cmd": "subscribe", "id": 2, "channels": [TRADE]}]


def test_other_refusals_are_tried_again_ever_more_slowly() -> None:
    rig = Rig(LIFECYCLE)
    waits = []
    for _ in range(12):
        (command,) = rig.asked()
        rig.refuse(command, 1)
        assert rig.asked() == []
        waits.append(rig.session.wake_ns - rig.now)
        rig.now = rig.session.wake_ns
        rig.session.tick()
    assert max(waits[6:]) > max(waits[:3])
    assert max(waits) <= 30 * S


def test_a_channel_that_the_exchange_does_not_know_is_left_out() -> None:
    rig = Rig(TRADE, LIFECYCLE)
    first, _ = rig.asked()
    rig.refuse(first, 8)
    rig.later()
    rig.later()
    assert [command["channels"] for command in rig.asked()] == [[LIFECYCLE]], "the other one was not answered"
    assert rig.session.unknown == rig.session.refused == [TRADE]
    rig.session.closed()
    assert rig.session.refused == [TRADE], "nobody has said anything else"
    rig.session.opened()
    again, _ = rig.asked()
    assert again["channels"] == [TRADE], "on a new connection it is asked for again"
    rig.refuse(again, 8)
    assert rig.session.unknown == rig.session.refused == [TRADE]
    rig.session.closed()
    rig.session.opened()
    rig.grant()
    assert rig.session.refused == []


def test_a_channel_that_fails_time_and_again_is_refused_until_it_is_carried() -> None:
    rig = Rig(LIFECYCLE)
    for failures in range(1, 8):
        (command,) = rig.asked()
        rig.refuse(command, 10)
        assert rig.session.refused == ([LIFECYCLE] if failures >= 5 else [])
        rig.now = rig.session.wake_ns
        rig.session.tick()
    rig.grant()
    assert rig.session.refused == []


def test_an_answer_that_does_not_come_is_asked_for_again_and_a_late_one_counts() -> None:
    rig = Rig(TRADE)
    (command,) = rig.asked()
    assert rig.session.wake_ns == rig.now + REPLY_NS
    rig.later(5)
    rig.later(1)
    (again,) = rig.asked()
    assert again["cmd"] == "subscribe"
    rig.session.on_subscribed(wire.Subscribed(command["id"], wire.ChannelSid(TRADE, 9)))
    assert rig.session.channel_of(9) == TRADE
    assert not rig.session.hears(TRADE, "A"), "the second one is not answered"
    assert rig.session.receive(9, 1) is Verdict.IN_ORDER
    rig.session.on_ok(wire.Ok(again["id"], 9, 2))
    assert rig.session.hears(TRADE, "A")
    assert rig.asked() == []
    assert rig.session.granted == [TRADE], "once"


def test_an_ok_to_a_subscribe_is_a_merge() -> None:
    """The exchange had a sid for the channel that nobody has told us of. That of ``ticker`` has no number."""
    rig = Rig(TRADE, TICKER)
    trade, ticker = rig.asked()
    rig.session.on_ok(wire.Ok(ticker["id"], 4))
    rig.session.on_ok(wire.Ok(trade["id"], 3, 17))
    assert (rig.session.channel_of(3), rig.session.channel_of(4)) == (TRADE, TICKER)
    assert rig.session.receive(3, 18) is Verdict.IN_ORDER
    assert rig.session.granted == [TICKER, TRADE]
    rig.later()
    assert rig.asked() == []


def test_a_refusal_for_the_moment_does_not_change_what_is_asked_for() -> None:
    rig = Rig(TRADE)
    for code in (10, 25, 27, 1):
        (command,) = rig.asked()
        assert command["tickers"] == ["A", "B"]
        rig.refuse(command, code)
        rig.later()


def test_markets_come_and_go_in_the_subscriptions_that_name_them() -> None:
    rig = Rig(TRADE, LIFECYCLE)
    rig.grant()
    rig.session.add(["C"])
    rig.session.remove(["A"])
    (added,) = rig.asked()
    assert added == {
        "cmd": "update_subscription",
        "id": 3,
        "sid": 1,
        "tickers": ["C"],
        "action": "add_markets",
    }
    rig.session.on_ok(wire.Ok(added["id"], 1, 1))
    (gone,) = rig.asked()
    assert (gone["action"], gone["tickers"]) == ("delete_markets", ["A"])
    rig.session.on_ok(wire.Ok(gone["id"], 1, 2))
    rig.later()
    assert rig.asked() == []
    assert rig.session.wake_ns == NEVER


def test_a_change_that_fails_or_grows_too_large_makes_it_one_of_all_markets() -> None:
    for fail in (True, False):
        rig = Rig(TRADE)
        rig.grant()
        rig.session.granted.clear()
        rig.session.add(["C"] if fail else ["C", "D"])
        if fail:
            (change,) = rig.asked()
            rig.refuse(change, 27, sid=1)
        (old,) = rig.asked()
        assert old["sids"] == [1]
        assert rig.asked() == [], "a subscribe would be merged into what is about to end"
        if fail:
            rig.session.on_unsubscribed(wire.Unsubscribed(1, old["id"], 3))
        else:
            rig.later(5)
        (new,) = rig.asked()
        assert {**new, "id": 0} == {"cmd": "subscribe", "id": 0, "channels": [TRADE]}
        assert rig.session.interrupted == [TRADE]
        assert rig.session.channel_of(1) is None
        rig.session.on_subscribed(wire.Subscribed(new["id"], wire.ChannelSid(TRADE, 2)))
        assert rig.session.granted == [TRADE]


def test_without_a_market_left_nothing_is_asked_for_until_there_is_one() -> None:
    rig = Rig(TRADE, LIFECYCLE)
    rig.grant()
    rig.session.remove(["A", "B"])
    (old,) = rig.asked()
    assert (old["cmd"], old["sids"]) == ("unsubscribe", [1])
    rig.session.on_unsubscribed(wire.Unsubscribed(1, old["id"], 3))
    rig.later()
    assert rig.asked() == [], "not all markets"
    assert rig.session.wake_ns == NEVER
    rig.session.closed()
    rig.session.opened()
    assert [command["channels"] for command in rig.asked()] == [[LIFECYCLE]]
    rig.session.add(["C"])
    (new,) = rig.asked()
    assert (new["channels"], new["tickers"]) == ([TRADE], ["C"])
    rig.session.remove(["C"])
    rig.session.on_subscribed(wire.Subscribed(new["id"], wire.ChannelSid(TRADE, 5)))
    (old,) = rig.asked()
    assert (old["cmd"], old["sids"]) == ("unsubscribe", [5])


def test_what_the_exchange_ends_is_made_anew_and_was_interrupted() -> None:
    rig = Rig(TRADE, LIFECYCLE)
    rig.grant()
    rig.session.on_error(wire.Error(wire.ErrorBody(25), sid=1, seq=1))
    rig.session.on_unsubscribed(wire.Unsubscribed(2))
    assert rig.session.interrupted == [TRADE, LIFECYCLE]
    assert not rig.session.carries(TRADE)
    rig.later()
    assert [command["channels"] for command in rig.asked()] == [[TRADE], [LIFECYCLE]]


def test_a_new_connection_begins_anew_and_the_old_one_was_interrupted() -> None:
    rig = Rig(TRADE, TICKER)
    (_, second) = rig.asked()
    rig.session.on_subscribed(wire.Subscribed(second["id"], wire.ChannelSid(TICKER, 5)))
    rig.session.closed()
    assert rig.session.interrupted == [TICKER], "the other one was never carried"
    rig.session.opened()
    assert [command["id"] for command in rig.asked()] == [1, 2]
    rig.session.on_error(wire.Error(wire.ErrorBody(9, "who?")))
    assert "who?" in (rig.session.closing or "")


def test_numbers_that_repeat_without_end_end_the_subscription() -> None:
    rig = Rig(TRADE)
    rig.grant()
    assert rig.session.receive(1, 1) is Verdict.IN_ORDER
    verdicts = {rig.session.receive(1, 1) for _ in range(100)}
    assert verdicts == {Verdict.REPEATED}
    assert rig.session.receive(1, 2) is Verdict.FOREIGN
    assert [command["cmd"] for command in rig.asked()] == ["unsubscribe"]


@given(st.lists(st.integers(0, 12), max_size=30))
def test_a_sequence_is_in_order_or_what_is_missing_is_named(numbers: list[int]) -> None:
    rig = Rig(TRADE)
    rig.grant()
    rig.session.granted.clear()
    due = 1
    for seq in numbers:
        verdict = rig.session.receive(1, seq)
        if seq < due:
            assert verdict is Verdict.REPEATED
            continue
        assert verdict is (Verdict.IN_ORDER if seq == due else Verdict.GAP)
        if verdict is Verdict.GAP:
            assert rig.session.missing == (due, seq - 1)
            assert rig.session.interrupted == rig.session.granted == [TRADE]
            rig.session.interrupted.clear()
            rig.session.granted.clear()
        due = seq + 1


@given(st.data())
def test_whatever_is_answered_every_channel_is_carried_or_will_be(data: st.DataObject) -> None:
    """Random answers, late and wrong ones too: no channel is forgotten."""
    rig = Rig(*CHANNELS)
    sid = 0
    for _ in range(data.draw(st.integers(1, 25))):
        for command in rig.asked():
            what = data.draw(st.sampled_from(("grant", "refuse", "nothing", "ok")))
            if what == "refuse":
                rig.refuse(command, data.draw(st.sampled_from((1, 11, 18, 25, 26, 27))), command.get("sid"))
            elif what == "ok":
                rig.session.on_ok(wire.Ok(command["id"]))
            elif what == "grant" and command["cmd"] == "subscribe":
                sid += 1
                subscribed = wire.ChannelSid(command["channels"][0], sid)
                rig.session.on_subscribed(wire.Subscribed(command["id"], subscribed))
        step = data.draw(st.sampled_from(("later", "add", "remove", "end", "reconnect")))
        ticker = data.draw(st.sampled_from("ABCDE"))
        if step == "add":
            rig.session.add([ticker])
        elif step == "remove":
            rig.session.remove([ticker])
        elif step == "end":
            rig.session.on_error(wire.Error(wire.ErrorBody(10), sid=sid))
        elif step == "reconnect":
            rig.session.closed()
            rig.session.opened()
        rig.later(data.draw(st.sampled_from((0, 1, 40))))
    for _ in range(12):  # from now on all is granted
        for command in rig.asked():
            if command["cmd"] == "subscribe":
                sid += 1
                subscribed = wire.ChannelSid(command["channels"][0], sid)
                rig.session.on_subscribed(wire.Subscribed(command["id"], subscribed))
            else:
                rig.session.on_ok(wire.Ok(command["id"]))
        rig.later(31)
    wanted = [channel for channel in CHANNELS if rig.session.tickers or channel not in BY_MARKET]
    assert [channel for channel in CHANNELS if rig.session.carries(channel)] == wanted
    assert rig.asked() == []
    for channel in rig.session._channels:
        if channel.sid is not None:
            assert channel.markets is None or channel.markets == set(rig.session.tickers)
