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
from kalshi_fast.subscription import Limits, Loss, Verdict


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
        self.session.on_subscribed(wire.Subscribed(command_id, wire.ChannelSid(CHANNEL, sid)))
        if exact:
            for ticker in sorted(self.session.subscriptions[sid].tickers):
                assert self.session.receive(sid, self.session.subscriptions[sid].next_seq) is Verdict.IN_ORDER
                self.session.repaired(sid, ticker)

    def error(self, code: int, **fields: Any) -> list[dict[str, Any]]:  # noqa: ANN401
        body = {name: fields.pop(name) for name in ("market_ticker", "market_tickers") if name in fields}
        self.session.on_error(wire.Error(wire.ErrorBody(code, "no", **body), **fields))
        return self.sent()

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
    rig = Rig("A", "B", "C", markets_per_subscription=1)
    rig.opened()
    for sid in (1, 2, 3):
        rig.grant(sid, command_id=sid, exact=False)
    expected: dict[int, int] = {}
    for sid, seq in frames:
        following = expected.get(sid, 1)
        verdict = rig.session.receive(sid, seq)
        if seq == following:
            assert verdict is Verdict.IN_ORDER
        elif seq < following:
            assert verdict is Verdict.REPEATED
            continue
        else:
            assert verdict is Verdict.GAP
            assert rig.session.first_missing_seq == following
        expected[sid] = seq + 1


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


def test_a_subscribe_without_an_answer_is_sent_again_and_what_it_left_behind_is_ended() -> None:
    rig = Rig("A")
    rig.opened()
    assert rig.session.receive(5, 1) is Verdict.FOREIGN
    commands: list[dict[str, Any]] = []
    while not any(command["cmd"] == "subscribe" for command in commands):
        commands += rig.wake()
        assert rig.now < 60 * NS
    assert [command["cmd"] for command in commands] == ["unsubscribe", "subscribe"]
    assert commands[0]["params"]["sids"] == [5]
    rig.session.on_subscribed(wire.Subscribed(1, wire.ChannelSid(CHANNEL, 6)))
    assert rig.session.subscriptions == {}, "the answer to the first one, too late"
    rig.grant(8, command_id=commands[1]["id"])
    assert rig.session.exact(8, "A")
    assert rig.wake()[0]["params"]["sids"] == [6]


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
    commands, known = rig.opened(), set()
    while commands:
        command = commands.pop(0)
        if "M-13" in tickers(command):
            commands += rig.error(11, id=command["id"])
        else:
            rig.grant(100 + command["id"], command["id"])
            known |= set(tickers(command))
    assert known == set(names) - {"M-13"}
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


def test_too_many_markets_for_a_subscription_go_on_more_of_them_and_then_on_other_connections() -> None:
    names = [f"M-{n}" for n in range(10)]
    rig = Rig(*names, subscriptions=3)
    commands, placed = rig.opened(), []
    while commands:
        command = commands.pop(0)
        if len(tickers(command)) > 3:
            commands += rig.error(26, id=command["id"])
        else:
            rig.grant(100 + command["id"], command["id"])
            placed.append(tickers(command))
    assert len(placed) == 3
    assert all(len(part) <= 3 for part in placed)
    assert sorted([ticker for part in [*placed, rig.session.overflow] for ticker in part]) == names
    assert rig.session.fatal is None


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
    rig = opened("A", "B", markets_per_subscription=3)
    rig.session.add(["C", "A"])
    (command,) = rig.sent()
    assert (command["params"]["action"], tickers(command)) == ("add_markets", ["C"])
    assert not rig.session.carries(7, "C"), "not before the exchange says so"
    rig.session.on_ok(wire.Ok(command["id"], 7, 3))
    assert rig.session.carries(7, "C")
    assert not rig.session.exact(7, "C")
    rig.session.repaired(7, "C")
    rig.session.add(["D"])
    (command,) = rig.sent()
    assert command["cmd"] == "subscribe", "no room left"
    rig.session.remove(["A", "D", "X"])
    assert rig.asked() == [("delete_markets", "A")]
    assert rig.session.lost == [Loss("A", 7, 3)]
    rig.session.on_subscribed(wire.Subscribed(command["id"], wire.ChannelSid(CHANNEL, 8)))
    assert rig.sent()[0]["params"] == {"sids": [8]}, "nobody wants it any more"
    assert list(rig.session.tickers) == ["B", "C"]
    rig.session.remove(["B", "C"])
    assert rig.sent()[0]["params"] == {"sids": [7]}
    assert rig.session.subscriptions == {}


def test_added_markets_that_are_refused_go_elsewhere_or_are_unknown() -> None:
    rig = opened("A", "B")
    rig.session.add(["C"])
    (command,) = rig.sent()
    (again,) = rig.error(26, id=command["id"], sid=7, seq=3)
    assert again["cmd"] == "subscribe"
    assert tickers(again) == ["C"]
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
            rig.grant(100 + command["id"], command["id"])
    assert rig.session.unknown_tickers == ["NOPE"]
    assert all(any(rig.session.exact(sid, name) for sid in rig.session.subscriptions) for name in names)


@pytest.mark.parametrize("answer", [1, 10, 18, 27, None])
def test_an_added_market_is_not_exact_before_it_is_carried(answer: int | None) -> None:
    """Refused for now, or unanswered: it is asked for again, and a snapshot alone proves nothing."""
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
    assert rig.session.unknown_tickers == []


def test_a_market_that_goes_and_comes_back_is_carried_once() -> None:
    rig = Rig("A", "B")
    (first,) = rig.opened()
    rig.session.remove(["A"])
    rig.session.add(["A"])
    assert rig.sent() == [], "the subscription on its way will bring it"
    rig.grant(1, first["id"])
    assert [sid for sid in rig.session.subscriptions if rig.session.carries(sid, "A")] == [1]
    rig.session.lose(1, ["A"], 5)
    rig.session.remove(["A"])
    rig.session.add(["A"])
    snapshot, delete, add = rig.sent()
    assert [c["params"]["action"] for c in (snapshot, delete, add)] == [
        "get_snapshot",
        "delete_markets",
        "add_markets",
    ]
    assert not rig.session.carries(1, "A"), "the answer to the old request must not count"
    rig.session.remove(["A"])
    rig.session.on_ok(wire.Ok(add["id"], 1, 9))
    assert rig.asked() == [("delete_markets", "A")]


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


def test_one_market_too_many_does_not_scatter_all_the_others() -> None:
    rig = opened("A")
    rig.session.add([f"M-{n}" for n in range(999)])
    (command,) = rig.sent()
    commands = rig.error(26, id=command["id"], sid=7, seq=2)
    assert [len(tickers(command)) for command in commands] == [500, 499]


def test_subscribes_are_not_sent_all_at_once() -> None:
    rig = Rig(*(f"M-{n}" for n in range(40)), markets_per_subscription=1)
    assert len(rig.opened()) == 10
    assert len(rig.wake()) == 0, "none of them is answered"
    rig.grant(1, 1)
    assert len(rig.wake()) == 1


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
