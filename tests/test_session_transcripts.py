"""Recorded sessions of production, with their commands replaced by ours: the session understands the answers
as they came, in their order, and sends what it should and no more. Sources: tests/exchange/SOURCES.md.
"""

from __future__ import annotations

import json
import random
from typing import Any

import recordings
from kalshi_fast import wire
from kalshi_fast.backoff import NS
from kalshi_fast.session import Session
from kalshi_fast.subscription import Limits, Verdict


class Transcript:
    def __init__(self, session: Session) -> None:
        self.session = session
        self.commands: list[dict[str, Any]] = []
        self.read()

    def read(self) -> list[dict[str, Any]]:
        new = [json.loads(command) for command in self.session.outbox]
        self.session.outbox.clear()
        self.commands += new
        return new

    def feed(self, frame: dict[str, Any]) -> None:
        """As the link does: a number of a sid that we have counts first."""
        session, sid, seq = self.session, frame.get("sid", 0), frame.get("seq")
        if sid in session.subscriptions and seq is not None:
            assert session.receive(sid, seq) is Verdict.IN_ORDER, frame
        kind, message = frame["type"], wire.decode(json.dumps(frame).encode())
        if isinstance(message, wire.Subscribed):
            session.on_subscribed(message)
        elif isinstance(message, wire.Ok):
            session.on_ok(message)
        elif kind in ("orderbook_snapshot", "orderbook_delta"):
            ticker = frame["msg"]["market_ticker"]
            assert session.carries(sid, ticker)
            if kind == "orderbook_snapshot":
                session.repaired(sid, ticker)
            else:
                assert session.exact(sid, ticker)


def test_twelve_merges_answered_out_of_order() -> None:
    """Of the client that was recorded each market had a subscribe of its own; the first answer was that of
    its second one. Ours subscribes one market and adds the others; the answers are those recorded."""
    frames = recordings.capture("cockpit_orderbook_prod").messages()
    # Markets as they were granted.
    order = [frame["msg"]["market_ticker"] for frame in frames if frame["type"] == "orderbook_snapshot"]
    assert len(order) == 12
    rng = random.Random(1)
    limits = Limits(markets_per_command=1, portions=12)
    rest = order[1:]
    rng.shuffle(rest)  # they were asked for in another order than they were answered
    session = Session([order[0], *rest], clock=lambda: NS, rng=rng, limits=limits)
    session.size.grant(12, NS)
    session.opened()
    transcript = Transcript(session)
    ids: dict[str, int] = {}
    carried: set[str] = set()
    for frame in frames:
        if frame["type"] == "subscribed":
            frame["id"] = 1
        elif frame["type"] == "ok":
            (new,) = set(frame["msg"]["market_tickers"]) - carried
            carried.add(new)
            frame["id"] = ids[new]
        transcript.feed(frame)
        for command in transcript.read():
            (ticker,) = command["params"]["market_tickers"]
            ids[ticker] = command["id"]
        if frame["type"] == "subscribed":
            carried.add(order[0])
    assert [command["cmd"] for command in transcript.commands] == ["subscribe"] + ["update_subscription"] * 11
    assert {c["params"]["action"] for c in transcript.commands[1:]} == {"add_markets"}
    assert [ids[ticker] for ticker in rest] == list(range(2, 13))
    assert all(session.exact(1, ticker) for ticker in order)
    assert session.subscriptions[1].next_seq == 269
    assert session.lost == []
    assert session._open == {}


def test_a_session_of_production_from_its_beginning() -> None:
    """One subscribe for four markets, of which one has an empty side."""
    frames = recordings.capture("johnivanov04_prod_a").messages()
    tickers = sorted({frame["msg"]["market_ticker"] for frame in frames if "seq" in frame})
    session = Session(tickers, clock=lambda: NS, rng=random.Random(1))
    session.opened()
    transcript = Transcript(session)
    for frame in frames:
        transcript.feed(frame)
    assert transcript.read() == []
    assert [command["cmd"] for command in transcript.commands] == ["subscribe"]
    assert all(session.exact(1, ticker) for ticker in tickers)


def test_merges_of_markets_that_are_carried_bring_no_snapshot() -> None:
    """September 2026: four ``ok`` for the order book before the first snapshot. Those of commands that were
    not ours use up numbers and change nothing."""
    frames = [
        frame
        for frame in recordings.capture("delta_hedged_prod").messages()
        if frame.get("sid") == 1 or frame.get("msg", {}).get("sid") == 1
    ]
    assert [frame["type"] for frame in frames[:6]] == ["subscribed"] + ["ok"] * 4 + ["orderbook_snapshot"]
    (snapshot,) = [frame for frame in frames if frame["type"] == "orderbook_snapshot"]
    ticker = snapshot["msg"]["market_ticker"]
    session = Session([ticker], clock=lambda: NS, rng=random.Random(1))
    session.opened()
    transcript = Transcript(session)
    for frame in frames[:6]:
        transcript.feed(frame)
    assert session.exact(1, ticker)
    assert transcript.read() == []
