"""The session without a socket: sequences per sid, subscriptions that mend themselves, errors told apart."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast import wire
from kalshi_fast.backoff import HEALTHY_NS, NS, RECONNECT, REFUSED, Backoff
from kalshi_fast.session import CHANNEL, NEVER, Session
from kalshi_fast.subscription import Command, Kind, Limits, Loss, Verdict


class Rig:
    """A session with a clock that the test moves."""

    def __init__(self, *tickers: str, **limits: int) -> None:
        self.now = 10 * NS
        self.session = Session(tickers, clock=lambda: self.now, rng=random.Random(1), limits=Limits(**limits))

    def opened(self) -> list[dict[str, Any]]:
        self.session.opened()
        return self.sent()

    def sent(self) -> list[dict[str, Any]]:
        commands = [json.loads(command) for command in self.session.outbox]
        self.session.outbox.clear()
        return commands

    def asked(self) -> list[tuple[Any, ...]]:
        return [
            (command["params"]["action"], *command["params"]["market_tickers"]) for command in self.sent()
        ]

    def grant(self, sid: int, command_id: int = 1, *, exact: bool = True) -> None:
        asked = self.session._open[command_id].tickers
        self.session.on_subscribed(wire.Subscribed(command_id, wire.ChannelSid(CHANNEL, sid)))
        if exact:
            for ticker in sorted(self.session.subscriptions[sid].tickers.intersection(asked)):
                assert self.session.receive(sid, self.session.subscriptions[sid].next_seq) is Verdict.IN_ORDER
                self.session.repaired(sid, ticker)

    def added(self, command: dict[str, Any]) -> list[dict[str, Any]]:
        """An add is answered, and the snapshots come; what is sent then."""
        (sid,) = self.session.subscriptions
        self.session.on_ok(wire.Ok(command["id"], sid))
        for ticker in tickers(command):
            self.session.repaired(sid, ticker)
        return self.sent()

    def error(self, code: int, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        body = {name: fields.pop(name) for name in ("market_ticker", "market_tickers") if name in fields}
        self.session.on_error(wire.Error(wire.ErrorBody(code, "no", **body), **fields))
        return self.sent()

    def soon(self) -> list[dict[str, Any]]:
        """What is sent next, whenever that is; nothing if no command is to be expected."""
        for _ in range(20):
            if self.session.wake_ns == NEVER:
                break
            if commands := self.wake():
                return commands
        return []

    def wake(self) -> list[dict[str, Any]]:
        assert self.session.wake_ns < NEVER
        self.now = max(self.now, self.session.wake_ns)
        self.session.tick()
        return self.sent()


def opened(*tickers: str, **limits: int) -> Rig:
    rig = Rig(*tickers, **limits)
    rig.opened()
    rig.grant(7)
    return rig


def tickers(command: dict[str, Any]) -> list[str]:
    found: list[str] = command["params"]["market_tickers"]
    return found


def test_subscribes_with_everything_said() -> None:
    rig = Rig("A", "B")
    assert rig.sent() == []
    assert rig.opened() == [
        {
            "cmd": "subscribe",
            "id": 1,
            "params": {
                "channels": ["orderbook_delta"],
                "market_tickers": ["A", "B"],
                "skip_ticker_ack": True,
                "use_yes_price": False,
            },
        }
    ]


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 12)), max_size=60))
def test_sequences_are_counted_per_sid(frames: list[tuple[int, int]]) -> None:
    rig = Rig("A", "B", "C")
    rig.opened()
    rig.grant(2, exact=False)
    expected = 1
    for sid, seq in frames:
        verdict = rig.session.receive(sid, seq)
        if sid != 2:
            assert verdict is Verdict.FOREIGN
            continue
        if seq == expected:
            assert verdict is Verdict.IN_ORDER
        elif seq < expected:
            assert verdict is Verdict.REPEATED
            continue
        else:
            assert verdict is Verdict.GAP
            assert rig.session.first_missing_seq == expected
        expected = seq + 1


def test_a_new_connection_starts_new_sequences_and_command_ids() -> None:
    rig = opened("A")
    rig.session.closed()
    assert rig.session.lost == [Loss("A", 7, 2)], "unknown from the first number that has not come"
    (command,) = rig.opened()
    assert command["id"] == 1
    rig.grant(7, exact=False)
    assert rig.session.receive(7, 1) is Verdict.IN_ORDER


def test_a_gap_loses_every_book_once_and_asks_for_all() -> None:
    rig = opened("A", "B", "C")
    assert rig.session.receive(7, 6) is Verdict.GAP
    assert rig.session.lost == [Loss("A", 7, 4), Loss("B", 7, 4), Loss("C", 7, 4)]
    assert rig.asked() == [("get_snapshot", "A", "B", "C")]
    rig.session.lost.clear()
    rig.session.repaired(7, "B")
    assert [rig.session.exact(7, ticker) for ticker in "ABC"] == [False, True, False]
    assert rig.session.receive(7, 9) is Verdict.GAP
    assert rig.session.lost == [Loss("B", 7, 7)], "the others were unknown anyway"
    assert rig.asked() == [("get_snapshot", "A", "B", "C")], "what was on its way may be what is missing"


def test_one_doubtful_book_is_one_request() -> None:
    rig = opened("A", "B")
    rig.session.lose(7, ["A"], 3)
    assert rig.asked() == [("get_snapshot", "A")]
    assert rig.session.exact(7, "B")
    rig.session.repaired(7, "A")
    assert rig.session.exact(7, "A")
    assert rig.session.wake_ns < NEVER
    assert rig.wake() == []
    assert rig.session.wake_ns == NEVER


def test_snapshots_are_asked_for_in_bounded_commands_busiest_first_no_faster_than_allowed() -> None:
    names = [f"M-{n:03d}" for n in range(250)]
    rig = opened(*names, snapshots_per_command=50, command_burst=2, command_interval_ns=NS)
    rig.session.activity = lambda ticker: int(ticker[2:])
    rig.session.receive(7, 999)
    first, second = rig.sent()
    assert [*tickers(first), *tickers(second)] == names[:-101:-1]
    for left in (names[149:99:-1], names[99:49:-1], names[49::-1]):
        before = rig.now
        (command,) = rig.wake()
        assert rig.now == before + NS
        assert tickers(command) == left
    assert rig.session.requests == 5


def test_an_answer_that_does_not_come_is_asked_for_again_slower_each_time_and_at_last_on_a_new_sid() -> None:
    rig = opened("A", "B", failures=3)
    rig.session.lose(7, ["A"], 3)
    assert rig.asked() == [("get_snapshot", "A")]
    commands: list[dict[str, Any]] = []
    while 7 in rig.session.subscriptions:
        commands += rig.wake()
        assert rig.now < 60 * NS
    actions = [command["params"].get("action", command["cmd"]) for command in commands]
    assert actions == ["get_snapshot"] * 3 + ["unsubscribe"]
    assert Loss("B", 7, 3) in rig.session.lost
    while not (commands := rig.wake()):
        assert rig.now < 60 * NS
    assert tickers(commands[0]) == ["A", "B"]


def test_a_subscribe_without_an_answer_is_sent_again_and_its_late_answer_counts() -> None:
    rig = Rig("A")
    rig.opened()
    assert rig.session.receive(5, 1) is Verdict.FOREIGN
    commands: list[dict[str, Any]] = []
    while not commands:
        commands = rig.wake()
        assert rig.now < 60 * NS
    assert [command["cmd"] for command in commands] == ["subscribe"]
    rig.session.on_subscribed(wire.Subscribed(1, wire.ChannelSid(CHANNEL, 5)))
    assert rig.session.carries(5, "A")
    assert rig.session.receive(5, 2) is Verdict.IN_ORDER, "number 1 has been seen, and was not used"
    assert rig.asked() == [("get_snapshot", "A")], "it may have been its snapshot"
    rig.session.on_ok(wire.Ok(commands[0]["id"], 5, 3))
    rig.session.receive(5, 3)
    rig.session.repaired(5, "A")
    assert rig.session.exact(5, "A")
    assert rig.wake() == []
    assert list(rig.session.subscriptions) == [5]


def test_a_subscription_of_nobody_is_ended() -> None:
    rig = opened("A")
    rig.session.receive(5, 1)
    (command,) = rig.wake()
    assert (command["cmd"], command["params"]) == ("unsubscribe", {"sids": [5]})
    for sid in range(10, 5000):
        rig.session.receive(sid, 1)
    (command,) = rig.wake()
    assert len(command["params"]["sids"]) == 1000, "as many as are remembered"


def test_unknown_markets_are_left_out_and_the_others_subscribed() -> None:
    rig = Rig("A", "NOPE", "B")
    rig.opened()
    (again,) = rig.error(11, id=1, market_tickers=["NOPE"])
    assert tickers(again) == ["A", "B"]
    assert again["id"] == 2
    assert rig.session.unknown_tickers == ["NOPE"]
    assert rig.session.fatal is None
    assert tickers(rig.opened()[0]) == ["A", "B"]


def test_an_unknown_market_that_the_error_does_not_name_is_found() -> None:
    names = [f"M-{n}" for n in range(20)]
    rig = Rig(*names)
    commands, refused = rig.opened(), 0
    while commands:
        command = commands.pop(0)
        if "M-13" in tickers(command):
            refused += 1
            following = rig.error(11, id=command["id"])
            assert refused > 1 or not following, "the halves are not asked for at once"
            commands += following
        elif command["cmd"] == "subscribe":
            rig.grant(7, command["id"])
            commands += rig.sent()
        else:
            commands += rig.added(command)
        commands = commands or rig.soon()
    assert refused <= 6
    assert rig.session.subscriptions[7].tickers == set(names) - {"M-13"}
    assert rig.session.unknown_tickers == ["M-13"]


def test_no_known_market_left_is_fatal_and_says_which() -> None:
    rig = Rig("NOPE")
    rig.opened()
    assert rig.error(11, id=1, market_ticker="NOPE") == []
    assert "NOPE" in str(rig.session.fatal)
    assert "MARKET_TICKERS" in str(rig.session.fatal)


def test_a_refusal_that_names_no_market_is_fatal_at_first_and_retried_later() -> None:
    rig = Rig("A")
    rig.opened()
    rig.error(8, id=1)
    assert "error 8" in str(rig.session.fatal)
    rig = opened("A")
    rig.opened()
    assert rig.error(8, id=1) == []
    assert rig.session.fatal is None
    assert rig.wake()[0]["cmd"] == "subscribe"


@pytest.mark.parametrize("code", sorted(wire.TERMINAL_ERRORS))
def test_terminal_errors_end_the_subscription_and_start_another(code: int) -> None:
    rig = opened("A", "B")
    assert rig.error(code, sid=7, seq=3) == [], "not at once"
    assert rig.session.lost == [Loss("A", 7, 3), Loss("B", 7, 3)]
    assert 7 not in rig.session.subscriptions
    (command,) = rig.wake()
    assert command["cmd"] == "subscribe"
    assert tickers(command) == ["A", "B"]


@pytest.mark.parametrize("limit", [1, 2, 3, 9, 400, 999, 1000, 1199])
def test_too_many_markets_for_a_subscription_go_to_other_connections(limit: int) -> None:
    names = [f"M-{n}" for n in range(1200)]
    rig = Rig(*names)
    commands, refused, sent = rig.opened(), 0, 0
    while commands:
        command = commands.pop(0)
        sent += 1
        carried = rig.session.subscriptions[7].counted if rig.session.subscriptions else len(tickers(command))
        if carried > limit:
            refused += 1
            commands += rig.error(26, id=command["id"])
        elif command["cmd"] == "subscribe":
            rig.grant(7, command["id"])
            commands += rig.sent()
        else:
            commands += rig.added(command)
        while not commands and rig.session.wake_ns < NEVER and rig.now < 20 * NS:
            commands += rig.wake()
    assert refused <= 5
    assert sent < 40
    assert rig.session.subscriptions[7].tickers == set(names[:limit])
    assert sorted(rig.session.overflow) == sorted(names[limit:])
    assert rig.session.fatal is None
    assert rig.session.size.room(rig.now) == limit


def test_asked_too_often_waits_and_never_gives_the_subscription_up() -> None:
    rig = opened("A", "B", failures=2)
    rig.session.lose(7, ["A"], 3)
    (command,) = rig.sent()
    for _ in range(20):
        assert rig.error(27, id=command["id"], sid=7, seq=3) == []
        commands = rig.wake()
        while not commands:
            commands = rig.wake()
        (command,) = commands
        assert tickers(command) == ["A"]
    assert rig.session.exact(7, "B")


def test_markets_come_and_go() -> None:
    rig = opened("A", "B")
    rig.session.add(["C", "A"])
    (command,) = rig.sent()
    assert (command["params"]["action"], tickers(command)) == ("add_markets", ["C"])
    assert not rig.session.exact(7, "C")
    rig.session.on_ok(wire.Ok(command["id"], 7, 3))
    assert rig.session.carries(7, "C")
    assert not rig.session.exact(7, "C"), "its snapshot has not come"
    rig.session.repaired(7, "C")
    rig.session.remove(["A", "X"])
    (deleted,) = rig.sent()
    assert (deleted["params"]["action"], tickers(deleted)) == ("delete_markets", ["A"])
    assert rig.session.lost == [Loss("A", 7, 3)]
    assert not rig.session.carries(7, "A")
    rig.session.add(["A"])
    assert rig.sent() == [], "not before it is out"
    rig.session.on_ok(wire.Ok(deleted["id"], 7, 4))
    assert rig.asked() == [("add_markets", "A")]
    rig.session.remove(["A", "B", "C"])
    assert rig.sent()[0]["params"] == {"sids": [7]}
    assert rig.session.subscriptions == {}


def test_what_nobody_wants_any_more_when_it_is_granted_is_let_go() -> None:
    rig = Rig("A", "B")
    (command,) = rig.opened()
    rig.session.remove(["A"])
    rig.grant(7, command["id"])
    assert rig.asked() == [("delete_markets", "A")]
    assert rig.session.subscriptions[7].tickers == {"B"}
    rig = Rig("A")
    (command,) = rig.opened()
    rig.session.remove(["A"])
    rig.grant(7, command["id"], exact=False)
    (ended,) = rig.sent()
    assert ended["params"] == {"sids": [7]}
    rig.session.add(["B"])
    assert rig.sent() == [], "a subscribe would be merged into what is about to end"
    rig.session.on_unsubscribed(wire.Unsubscribed(7, ended["id"], 2))
    (command,) = rig.sent()
    assert (command["cmd"], tickers(command)) == ("subscribe", ["B"])


def test_added_markets_that_are_refused_go_elsewhere_or_are_unknown() -> None:
    rig = opened("A", "B")
    rig.session.add(["C"])
    (command,) = rig.sent()
    assert rig.error(26, id=command["id"], sid=7, seq=3) == []
    assert rig.session.overflow == ["C"]
    assert not rig.session.carries(7, "C")
    rig = opened("A", "B")
    rig.session.add(["NOPE", "D"])
    (command,) = rig.sent()
    (command,) = rig.error(11, id=command["id"], sid=7, seq=3, market_ticker="NOPE")
    assert rig.session.unknown_tickers == ["NOPE"]
    assert (command["params"]["action"], tickers(command)) == ("add_markets", ["D"])


def test_an_added_market_that_the_error_does_not_name_is_found_and_the_others_recorded() -> None:
    names = [f"M-{n}" for n in range(9)]
    rig = opened("A", "B")
    rig.session.add([*names, "NOPE"])
    commands = rig.sent()
    while commands:
        command = commands.pop(0)
        if "NOPE" in tickers(command):
            commands += rig.error(11, id=command["id"])
        else:
            commands += rig.added(command)
        commands = commands or rig.soon()
    assert rig.session.unknown_tickers == ["NOPE"]
    assert all(rig.session.exact(7, name) for name in names)


@pytest.mark.parametrize("answer", [1, 10, 18, 27, None])
def test_an_added_market_is_asked_for_until_it_is_carried(answer: int | None) -> None:
    """Refused for now, or unanswered. What was added without an answer may be carried already, and then gets
    no snapshot: it is asked for."""
    rig = opened("A")
    rig.session.add(["B"])
    (command,) = rig.sent()
    for _ in range(5):
        if answer is not None:
            assert rig.error(answer, id=command["id"]) == []
            assert not rig.session.carries(7, "B")
        commands: list[dict[str, Any]] = []
        while not any(c["params"].get("action") == "add_markets" for c in commands):
            commands += rig.wake()
            assert all(c["params"]["action"] != "get_snapshot" for c in commands)
        command = commands[-1]
        assert tickers(command) == ["B"]
    rig.session.on_ok(wire.Ok(command["id"], 7, 2))
    assert rig.session.carries(7, "B")
    assert not rig.session.exact(7, "B")
    assert rig.asked() == ([] if answer else [("get_snapshot", "B")])
    assert rig.session.unknown_tickers == []


def test_a_snapshot_that_comes_before_its_ok_is_used() -> None:
    rig = opened("A")
    rig.session.add(["B", "C"])
    (command,) = rig.sent()
    assert rig.session.receive(7, 2) is Verdict.IN_ORDER
    assert rig.session.carries(7, "B")
    rig.session.repaired(7, "B")
    assert rig.session.exact(7, "B")
    rig.session.receive(7, 3)
    rig.session.on_ok(wire.Ok(command["id"], 7, 3))
    assert rig.session.exact(7, "B")
    rig.session.receive(7, 4)
    rig.session.repaired(7, "C")
    assert rig.session.exact(7, "C")
    rig.now += 60 * NS
    rig.session.tick()
    assert rig.sent() == []


def test_snapshots_before_the_sid_is_named_are_asked_for_at_once() -> None:
    rig = Rig("A", "B")
    (command,) = rig.opened()
    for seq in (1, 2, 3):
        assert rig.session.receive(4, seq) is Verdict.FOREIGN
    rig.session.on_subscribed(wire.Subscribed(command["id"], wire.ChannelSid(CHANNEL, 4)))
    assert rig.asked() == [("get_snapshot", "A", "B")]
    assert rig.session.receive(4, 4) is Verdict.IN_ORDER
    assert rig.session.lost == []


def test_an_ok_to_a_subscribe_names_the_sid_that_there_is() -> None:
    """The first one was granted and nobody told us: the answer to the second is a merge into it."""
    rig = Rig("A", "B")
    (command,) = rig.opened()
    rig.session.on_ok(wire.Ok(command["id"], 4, 17))
    assert rig.session.carries(4, "A")
    assert rig.asked() == [("get_snapshot", "A", "B")], "carried already: no snapshot would come"
    assert rig.session.receive(4, 18) is Verdict.IN_ORDER


def test_a_sid_that_is_granted_twice_is_the_same_subscription() -> None:
    rig = opened("A", "B")
    before = rig.session.subscriptions[7]
    rig.session._late[40] = Command(Kind.SUBSCRIBE, 0, ["A", "C"], 0)
    rig.session.add(["C"])
    rig.sent()
    rig.session.on_subscribed(wire.Subscribed(40, wire.ChannelSid(CHANNEL, 7)))
    assert rig.session.subscriptions == {7: before}
    assert not before.ended
    assert rig.session.exact(7, "A")
    assert rig.session.receive(7, 3) is Verdict.IN_ORDER


@pytest.mark.parametrize("code", [10, 25])
def test_a_terminal_error_in_answer_to_the_very_first_subscribe_is_tried_again(code: int) -> None:
    rig = Rig("A")
    commands, waits = rig.opened(), []
    for _ in range(12):
        (command,) = commands
        assert rig.error(code, id=command["id"]) == []
        assert rig.session.fatal is None
        waits.append(rig.session.wake_ns - rig.now)
        commands = rig.wake()
    assert max(waits[6:]) > max(waits[:3]), "ever more slowly"
    rig.grant(7, commands[0]["id"])
    assert rig.session.exact(7, "A")


def test_a_market_that_goes_and_comes_back_is_carried_once() -> None:
    rig = Rig("A", "B")
    (first,) = rig.opened()
    rig.session.remove(["A"])
    rig.session.add(["A"])
    assert rig.sent() == [], "the subscription on its way will bring it"
    rig.grant(1, first["id"])
    assert rig.session.exact(1, "A")
    rig.session.lose(1, ["A"], 5)
    rig.session.remove(["A"])
    rig.session.add(["A"])
    snapshot, delete = rig.sent()
    assert [c["params"]["action"] for c in (snapshot, delete)] == ["get_snapshot", "delete_markets"]
    assert not rig.session.carries(1, "A"), "the answer to the old request must not count"
    rig.session.on_ok(wire.Ok(delete["id"], 1, 9))
    (add,) = rig.sent()
    assert add["params"]["action"] == "add_markets"
    rig.session.remove(["A"])
    assert rig.sent() == []
    rig.session.on_ok(wire.Ok(add["id"], 1, 10))
    assert rig.asked() == [("delete_markets", "A")]


def test_an_added_market_that_went_and_came_back_before_the_answer_is_asked_for() -> None:
    """Its snapshot may have come when nobody wanted it."""
    rig = opened("A")
    rig.session.add(["B"])
    (add,) = rig.sent()
    rig.session.remove(["B"])
    rig.session.receive(7, 2)
    assert not rig.session.carries(7, "B")
    rig.session.add(["B"])
    assert rig.sent() == [], "it is on its way"
    rig.session.on_ok(wire.Ok(add["id"], 7, 3))
    assert rig.asked() == [("get_snapshot", "B")]


@pytest.mark.parametrize("code", sorted(wire.TERMINAL_ERRORS))
def test_an_exchange_that_ends_every_subscription_is_not_hammered(code: int) -> None:
    rig = Rig("A")
    (command,) = rig.opened()
    started, subscribes = rig.now, 0
    while rig.now < started + 300 * NS:
        rig.grant(subscribes + 1, command["id"])
        commands = rig.error(code, sid=subscribes + 1, seq=2)
        while not commands:
            commands = rig.wake()
        (command,) = commands
        subscribes += 1
    assert subscribes < 120, "10 seconds are the bound of the wait, with full jitter"


def test_a_market_whose_snapshots_are_never_usable_is_asked_for_ever_more_rarely() -> None:
    rig = opened("A", "B")
    started, requests, gone = rig.now, 0, 3
    rig.session.lose(7, ["A"], gone, unusable=True)
    assert rig.asked() == [("get_snapshot", "A")], "at once, the first time"
    while rig.now < started + 300 * NS:
        rig.session.lose(7, ["A"], gone, unusable=True)
        commands = rig.sent()
        while not commands:
            commands = rig.wake()
        requests += len(commands)
    assert requests < 120
    assert rig.session.exact(7, "B")
    rig.session.lose(7, ["A"], gone, unusable=True)
    rig.session.lose(7, ["A", "B"], gone)
    assert rig.asked() == [("get_snapshot", "B")], "a gap does not hurry it"


def test_a_sid_that_counts_anew_is_made_anew() -> None:
    rig = opened(*(f"M-{n:03d}" for n in range(200)))
    for seq in range(1, 99):
        assert rig.session.receive(7, seq) is Verdict.REPEATED
    assert 7 in rig.session.subscriptions
    rig.session.receive(7, 99)
    rig.session.receive(7, 100)
    assert 7 not in rig.session.subscriptions
    assert len(rig.session.lost) == 200
    assert rig.sent()[0]["cmd"] == "unsubscribe"


def test_deletes_that_are_refused_for_now_are_sent_again_and_at_last_count_as_done() -> None:
    rig = opened("A", "B", failures=2)
    rig.session.remove(["A"])
    (command,) = rig.sent()
    for _ in range(3):
        assert rig.error(27, id=command["id"]) == []
        commands = rig.wake()
        while not commands:
            commands = rig.wake()
        (command,) = commands
        assert (command["params"]["action"], tickers(command)) == ("delete_markets", ["A"])
    rig.session.add(["A"])
    (command,) = rig.error(1, id=command["id"])
    assert rig.session.exact(7, "B")
    assert (command["params"]["action"], tickers(command)) == ("add_markets", ["A"])
    rig.session.on_ok(wire.Ok(command["id"], 7))
    assert rig.asked() == [("get_snapshot", "A")], "it may never have gone: no snapshot comes by itself"


def test_a_delete_without_any_answer_ends_as_done_and_no_book_is_lost() -> None:
    rig = opened("A", "B", failures=2)
    rig.session.remove(["A"])
    rig.session.lost.clear()
    commands = rig.sent()
    while found := rig.soon():
        commands += found
    assert [c["params"]["action"] for c in commands] == ["delete_markets"] * 3
    assert rig.session.subscriptions[7].deleting == {}
    assert rig.session.exact(7, "B")
    assert rig.session.lost == []


@pytest.mark.parametrize("code", [2, 11, 14])
def test_a_delete_that_is_refused_for_good_is_done(code: int) -> None:
    rig = opened("A", "B")
    rig.session.remove(["A"])
    (command,) = rig.sent()
    assert rig.error(code, id=command["id"]) == []
    assert rig.session.subscriptions[7].deleting == {}
    assert rig.soon() == []
    assert rig.session.exact(7, "B")


def test_a_refusal_of_everything_is_not_taken_for_unknown_markets(caplog: pytest.LogCaptureFixture) -> None:
    """Error 11 whatever is asked for: all stay wanted, ever more slowly, and are carried when it is over."""
    names = [f"M-{n:04d}" for n in range(2000)]
    rig = Rig(*names)
    commands, started, sent = rig.opened(), rig.now, 0
    while rig.now < started + 600 * NS:
        (command,) = commands
        sent += 1
        assert rig.error(11, id=command["id"]) == []
        commands = rig.soon()
    assert sent < 140
    assert rig.session.fatal is None
    assert rig.session.unknown_tickers == []
    assert caplog.text.count("stay wanted") == 1
    while commands:
        command = commands.pop(0)
        if names[3] in tickers(command):
            commands += rig.error(11, id=command["id"])
        elif command["cmd"] == "subscribe":
            rig.grant(7, command["id"])
            commands += rig.sent()
        else:
            commands += rig.added(command)
        commands = commands or rig.soon()
    assert rig.session.unknown_tickers == [names[3]]
    assert rig.session.subscriptions[7].tickers == set(names) - {names[3]}


@pytest.mark.parametrize("place", [0, 1, 2, 500, 998, 999])
def test_one_unknown_market_among_a_thousand_is_found_and_holds_up_few(place: int) -> None:
    names = [f"M-{n:04d}" for n in range(1000)]
    rig = Rig(*names)
    commands, started, refused = rig.opened(), rig.now, 0
    half_ns = 0
    while commands:
        command = commands.pop(0)
        if names[place] in tickers(command):
            refused += 1
            commands += rig.error(11, id=command["id"])
        elif command["cmd"] == "subscribe":
            rig.grant(7, command["id"])
            half_ns = rig.now - started
            commands += rig.sent()
        else:
            commands += rig.added(command)
        commands = commands or rig.soon()
    assert half_ns < NS, "half of them are recorded at once"
    assert refused <= 11
    assert rig.session.unknown_tickers == [names[place]]
    assert rig.session.subscriptions[7].tickers == set(names) - {names[place]}


def test_markets_that_are_all_refused_one_by_one_are_unknown_when_they_are_few() -> None:
    rig = Rig("X", "Y", "Z")
    commands = rig.opened()
    while commands:
        (command,) = commands
        commands = rig.error(11, id=command["id"]) or rig.soon()
    assert "knows none of X, Y, Z" in str(rig.session.fatal)


def test_one_subscribe_and_then_portions_as_many_at_a_time_as_are_dealt_with() -> None:
    names = [f"M-{n:05d}" for n in range(10_000)]
    rig = Rig(*names)
    size = rig.session.size
    commands = rig.opened()
    assert [c["cmd"] for c in commands] == ["subscribe"]
    assert tickers(commands[0]) == names[:1000]
    rig.grant(7, commands[0]["id"])
    added: list[str] = []
    (command,) = rig.sent()  # more than was ever granted is asked for one portion at a time
    while True:
        assert command["params"]["action"] == "add_markets"
        assert len(tickers(command)) == 1000
        added += tickers(command)
        following = rig.added(command)
        if not following:
            break
        (command,) = following
    assert added == names[1000:]
    assert rig.session.requests == 0
    assert all(rig.session.exact(7, name) for name in names)
    assert (size.granted, size.refused) == (10_000, None)
    rig.session.closed()
    (command,) = rig.opened()
    rig.grant(7, command["id"], exact=False)
    (command,) = rig.sent()  # known to be allowed: a second portion while the first one's snapshots come
    assert tickers(command) == names[1000:2000]


def test_wanted_authentication_closes_the_connection() -> None:
    rig = opened("A")
    rig.error(9)
    assert "authentication" in str(rig.session.closing)
    rig.opened()
    assert rig.session.closing is None


def test_a_sid_that_the_exchange_has_forgotten_is_made_anew() -> None:
    rig = opened("A")
    rig.session.lose(7, ["A"], 3)
    (command,) = rig.sent()
    rig.error(7, id=command["id"])
    assert rig.session.subscriptions == {}
    assert rig.wake()[0]["cmd"] == "subscribe"


def test_other_errors_change_nothing() -> None:
    rig = opened("A")
    assert rig.error(11, sid=7, seq=3, id=9) == []
    assert rig.error(5, id=77) == []
    assert rig.error(25, sid=99) == []
    assert rig.session.fatal is None
    assert rig.session.exact(7, "A")


def test_back_off_is_jittered_capped_and_reset_and_slow_for_refusals() -> None:
    backoff = Backoff(random.Random(3))
    delays = [backoff.next_ns(0) for _ in range(200)]
    assert all(delay <= min(RECONNECT.first_ns << n, RECONNECT.most_ns) for n, delay in enumerate(delays))
    assert max(delays) > RECONNECT.most_ns * 9 // 10
    assert min(delays[20:]) < RECONNECT.most_ns // 10, "full jitter"
    assert backoff.next_ns(HEALTHY_NS) <= RECONNECT.first_ns
    refusals = [Backoff(random.Random(n)).next_ns(0, refused=True) for n in range(50)]
    assert min(refusals) >= REFUSED.first_ns // 2
    assert len(set(refusals)) > 40


def test_a_market_that_is_put_off_is_asked_for_at_its_time_and_not_before() -> None:
    """Its snapshot has come and says nothing: no failure and no loop, whatever else happens."""
    rig = Rig("A", "B")
    rig.opened()
    rig.grant(7, exact=False)
    until_ns = rig.now + 60 * NS
    assert rig.session.receive(7, 1) is Verdict.IN_ORDER
    rig.session.put_off(7, "A", 1, 60 * NS)
    assert rig.session.receive(7, 2) is Verdict.IN_ORDER
    rig.session.repaired(7, "B")
    assert not rig.session.exact(7, "A")
    assert rig.session.exact(7, "B")
    assert rig.session.lost == []  # it was never known
    assert rig.session.receive(7, 9) is Verdict.GAP  # makes B doubtful, A was unknown
    assert [loss.ticker for loss in rig.session.lost] == ["B"]
    assert rig.asked() == [("get_snapshot", "B")]
    rig.session.receive(7, 10)
    rig.session.repaired(7, "B")
    rig.now = until_ns - 1
    rig.session.tick()
    assert rig.sent() == []
    assert rig.session.wake_ns == until_ns
    assert [command["params"]["market_tickers"] for command in rig.wake()] == [["A"]]
    rig.session.receive(7, 11)
    rig.session.repaired(7, "A")
    assert rig.session.exact(7, "A")


def test_a_book_that_was_known_is_lost_when_it_is_put_off() -> None:
    rig = opened("A")
    rig.session.put_off(7, "A", 5, NS)
    assert rig.session.lost == [Loss("A", 7, 5)]
    rig.session.put_off(7, "NOT-CARRIED", 5, NS)
    rig.session.put_off(9, "A", 5, NS)  # of no subscription
    assert rig.session.lost == [Loss("A", 7, 5)]


@pytest.mark.parametrize("code", [None, 11, 18])
def test_probes_without_a_result_are_put_off_ever_longer_and_cost_nothing(code: int | None) -> None:
    rig = opened("A", "B", "C", failures=2)
    rig.session.put_off(7, "A", 4, 60 * NS)
    rig.session.put_off(7, "B", 4, 60 * NS)
    rig.session.lost.clear()
    asked, times = 0, []
    while rig.now < 3 * 3600 * NS:
        for command in rig.wake():
            assert command["params"]["action"] == "get_snapshot"
            assert set(tickers(command)) <= {"A", "B"}
            asked += 1
            times.append(rig.now)
            if code is not None:
                named = {"market_ticker": "A"} if "A" in tickers(command) else {}
                assert rig.error(code, id=command["id"], **named) == []
    assert 6 < asked < 24
    assert times[-1] - times[-3] > 1200 * NS
    assert (rig.session.lost, rig.session.unknown_tickers) == ([], [])
    assert rig.session.exact(7, "C")
    assert rig.session.subscriptions[7].failures == 0


def test_probes_and_repairs_are_not_asked_for_together() -> None:
    rig = opened("A", "B", "C", "D")
    rig.session.put_off(7, "A", 5, 60 * NS)
    rig.session.put_off(7, "D", 5, 60 * NS)
    rig.now += 60 * NS
    rig.session.subscriptions[7].hold_ns = rig.now + 1
    rig.session.lose(7, ["C", "B"], 5)
    assert rig.asked() == []
    rig.now += 1
    rig.session.tick()
    assert rig.asked() == [("get_snapshot", "B", "C"), ("get_snapshot", "A", "D")]
    rig.session.repaired(7, "A")
    rig.session.lose(7, ["A"], 6)
    assert rig.asked() == [("get_snapshot", "A")]
    assert rig.session.subscriptions[7].probes.keys() == {"D"}, "A has a book: it is repaired like any other"
