"""The session without a socket: sequences per sid, subscriptions that mend themselves, errors told apart."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast import wire
from kalshi_fast.session import Session, Verdict


def sent(session: Session) -> list[dict[str, Any]]:
    commands = [json.loads(command) for command in session.outbox]
    session.outbox.clear()
    return commands


def opened(*tickers: str) -> Session:
    session = Session(list(tickers))
    session.opened()
    session.on_subscribed(wire.Subscribed(1, wire.ChannelSid("orderbook_delta", 7)))
    session.outbox.clear()
    return session


def test_subscribes_with_everything_said() -> None:
    session = Session(["A", "B"])
    assert sent(session) == []
    session.opened()
    assert sent(session) == [
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
    session = Session(["A"])
    session.opened()
    expected: dict[int, int] = {}
    for sid, seq in frames:
        following = expected.get(sid, 1)
        verdict = session.receive(sid, seq)
        if seq == following:
            assert verdict is Verdict.IN_ORDER
        elif seq < following:
            assert verdict is Verdict.REPEATED
            continue
        else:
            assert verdict is Verdict.GAP
            assert session.first_missing_seq == following
        expected[sid] = seq + 1


def test_a_new_connection_starts_new_sequences_and_command_ids() -> None:
    session = opened("A")
    assert session.receive(7, 1) is Verdict.IN_ORDER
    session.opened()
    assert session.receive(7, 1) is Verdict.IN_ORDER
    assert sent(session)[0]["id"] == 1


def test_snapshots_are_requested_in_bounded_commands() -> None:
    session = opened("A")
    session.request_snapshots(7, [f"M-{i}" for i in range(1100)])
    commands = sent(session)
    assert [len(command["params"]["market_tickers"]) for command in commands] == [500, 500, 100]
    assert {command["params"]["action"] for command in commands} == {"get_snapshot"}
    assert {command["params"]["sid"] for command in commands} == {7}
    assert len({command["id"] for command in commands}) == 3


def error(code: int, **fields: Any) -> wire.Error:  # noqa: ANN401
    body = {name: fields.pop(name) for name in ("market_ticker", "market_tickers") if name in fields}
    return wire.Error(wire.ErrorBody(code, "no", **body), **fields)


def test_unknown_markets_are_left_out_and_the_others_subscribed() -> None:
    session = Session(["A", "NOPE", "B"])
    session.opened()
    sent(session)
    assert not session.on_error(error(11, id=1, market_tickers=["NOPE"]))
    (again,) = sent(session)
    assert again["params"]["market_tickers"] == ["A", "B"]
    assert again["id"] == 2
    assert session.unknown_tickers == ["NOPE"]
    assert session.fatal is None
    session.opened()
    assert sent(session)[0]["params"]["market_tickers"] == ["A", "B"]


def test_no_known_market_left_is_fatal_and_says_which() -> None:
    session = Session(["NOPE"])
    session.opened()
    session.on_error(error(11, id=1, market_ticker="NOPE"))
    assert "NOPE" in str(session.fatal)
    assert "MARKET_TICKERS" in str(session.fatal)


def test_a_refusal_that_names_no_market_is_fatal() -> None:
    session = Session(["A"])
    session.opened()
    session.on_error(error(8, id=1))
    assert "error 8" in str(session.fatal)


def test_terminal_errors_end_the_subscription_and_start_another() -> None:
    for code in wire.TERMINAL_ERRORS:
        session = opened("A", "B")
        assert session.on_error(error(code, sid=7, seq=3))
        assert 7 not in session.subscriptions
        (command,) = sent(session)
        assert command["cmd"] == "subscribe"
        assert command["params"]["market_tickers"] == ["A", "B"]


def test_other_errors_change_nothing() -> None:
    session = opened("A")
    assert not session.on_error(error(11, sid=7, seq=3, id=9))
    assert not session.on_error(error(5, id=77))
    assert not session.on_error(error(25, sid=99))
    assert sent(session) == []
    assert session.fatal is None
    session.on_unsubscribed(wire.Unsubscribed(7))
    assert session.subscriptions == {}
