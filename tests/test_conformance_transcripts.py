"""Recorded sessions against our own session: the answers of the exchange, in the order in which it gave them.

The recorded client sent other commands than ours, so the ids of its answers are not ours. ``subscribed``
answers our subscribe of its channel. An ``ok`` that names a market which our session has asked for and has no
answer of yet answers that command: so our ids are answered out of order, as theirs were. Any other ``ok`` has
an id that we have never used. Everything else is as recorded: sids, numbers, snapshots, deltas.

Checked: which commands are sent; that all books are exact, on one sid, and those of an independent reading;
that nothing is asked for again, not even after a minute. Not checked: when commands are sent.
"""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

import oracle
from conformance import BOOKS, Rig, of_books
from kalshi_fast.books import Books
from kalshi_fast.channels.link import ChannelLink
from kalshi_fast.channels.session import LIFECYCLE, TICKER, TRADE, ChannelSession
from kalshi_fast.channels.streams import Streams
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import Session
from kalshi_fast.size import Size
from kalshi_fast.subscription import Limits
from recordings import Capture, capture

NS = 1_000_000_000
FOREIGN = 1_000_000


def with_id(frame: bytes, command_id: int) -> bytes:
    """The same frame in answer to another command."""
    changed, times = re.subn(rb'"id":\d+', b'"id":%d' % command_id, frame, count=1)
    assert times == 1
    return changed


class Replay:
    """One connection of a recorded session, played against ours; ``sent``: our commands, in order."""

    def __init__(self, tickers: list[str], *, yes_scale: bool = False, limits: Limits | None = None) -> None:
        self.now_ns = NS
        self.sent: list[dict[str, Any]] = []
        self.open: dict[int, dict[str, Any]] = {}
        self.books = Books()
        size = Size()
        size.granted = len(tickers)  # known from another connection: else the limit is asked for first
        pool = LocalPool(4000, 4)
        self.recorder = Recorder(self.books, pool, pool.release, seal_rows=4000)
        session = Session(
            tickers,
            clock=lambda: self.now_ns,
            rng=random.Random(1),
            use_yes_price=yes_scale,
            limits=limits or Limits(),
            size=size,
        )
        self.link = Link(self.recorder, session)
        self.link.on_connected(7, self.now_ns)
        self.collect()

    def collect(self) -> None:
        for text in self.link.session.outbox:
            command = json.loads(text)
            self.sent.append(command)
            self.open[command["id"]] = command
        self.link.session.outbox.clear()

    def play(self, frames: list[bytes]) -> None:
        carried: set[str] = set()
        for frame in frames:
            message = json.loads(frame)
            if message["type"] == "subscribed":
                frame = with_id(frame, self._answered(lambda c: c["cmd"] == "subscribe"))
            elif message["type"] == "ok":
                new = set(message["msg"]["market_tickers"]) - carried
                carried |= new
                frame = with_id(
                    frame,
                    self._answered(
                        lambda c, new=new: bool(new.intersection(c["params"].get("market_tickers", ())))
                    ),
                )
            elif message["type"] == "orderbook_snapshot":
                carried.add(message["msg"]["market_ticker"])
            self.now_ns += NS // 100
            self.link.feed(frame, self.now_ns)
            self.link.on_tick(self.now_ns)
            self.collect()

    def _answered(self, fits: Any) -> int:  # noqa: ANN401
        found = next((command_id for command_id, command in self.open.items() if fits(command)), None)
        if found is None:
            return FOREIGN + len(self.sent)
        del self.open[found]
        return found

    def wait_a_minute(self) -> None:
        for _ in range(600):
            self.now_ns += NS // 10
            self.link.on_tick(self.now_ns)
            self.collect()

    def check(self, found: Capture) -> None:
        """All books exact on one sid, and those of an independent reading; nothing open, nothing asked."""
        expected = oracle.Books(found.yes_scale)
        for frame in of_books(found):
            expected.take(oracle.load(frame))
        session = self.link.session
        assert list(session.subscriptions) == [1]
        assert {t for t in session.tickers if session.exact(1, t)} == expected.known.keys()
        assert Rig.known(self.books) == expected.integers()
        before = len(self.sent)
        self.wait_a_minute()
        assert self.sent[before:] == []
        counts = self.recorder.counts
        assert (counts.gaps, counts.rejected, counts.foreign, counts.repeated, counts.resyncs) == (
            0,
            0,
            0,
            0,
            0,
        )
        assert (session.unknown_tickers, session.overflow, session.fatal, session.closing) == (
            [],
            [],
            None,
            None,
        )


def book_tickers(found: Capture) -> list[str]:
    """In the order of their snapshots."""
    return [m["msg"]["market_ticker"] for m in found.messages() if m["type"] == "orderbook_snapshot"]


def book_frames(found: Capture) -> list[bytes]:
    """With the grant."""
    granted = [
        frame
        for frame, message in zip(found.frames(), found.messages(), strict=True)
        if message["type"] == "subscribed" and message["msg"]["channel"] == BOOKS
    ]
    return [*granted, *of_books(found)]


def test_twelve_answers_out_of_order_to_adds_of_one_market_each() -> None:
    """The recorded client had twelve subscribes in flight; ours has one, and then eleven adds at once."""
    found = capture("cockpit")
    first, *others = book_tickers(found)
    asked = random.Random(3).sample(others, len(others))  # the answers come in another order than that
    replay = Replay([first, *asked], limits=Limits(markets_per_command=1, portions=12))
    (subscribe,) = replay.sent
    assert (subscribe["cmd"], subscribe["params"]["channels"]) == ("subscribe", [BOOKS])
    assert subscribe["params"]["market_tickers"] == [first]
    replay.play(book_frames(found))
    adds = replay.sent[1:]
    assert [command["params"]["market_tickers"] for command in adds] == [[ticker] for ticker in asked]
    assert {(c["cmd"], c["params"]["action"], c["params"]["sid"]) for c in adds} == {
        ("update_subscription", "add_markets", 1)
    }
    assert replay.open == {}
    replay.check(found)


@pytest.mark.parametrize(
    "name", ["cockpit", "johnivanov04_prod_a", "johnivanov04_prod_b", "openpx", "bot_btc", "hypnogaba_demo"]
)
def test_one_subscribe_and_answers_to_others(name: str) -> None:
    """The ``ok``s of the recording answer nothing of ours then, and take their numbers."""
    found = capture(name)
    replay = Replay(book_tickers(found))
    replay.play(book_frames(found))
    assert [command["cmd"] for command in replay.sent] == ["subscribe"]
    assert sorted(replay.sent[0]["params"]["market_tickers"]) == sorted(book_tickers(found))
    replay.check(found)


def test_merged_subscribes_and_then_a_hole() -> None:
    """Four ``ok``s answer merged subscribes; before the delta the file leaves 41,070 numbers out."""
    found = capture("delta_hedged")
    (ticker,) = book_tickers(found)
    replay = Replay([ticker], yes_scale=True)
    *before, delta = book_frames(found)
    replay.play(before)
    assert [command["cmd"] for command in replay.sent] == ["subscribe"]
    assert replay.sent[0]["params"]["use_yes_price"] is True
    session = replay.link.session
    assert session.exact(1, ticker)
    assert replay.recorder.counts.gaps == 0
    replay.play([delta])
    assert not session.exact(1, ticker)
    assert replay.recorder.counts.gaps == 1
    asked = replay.sent[-1]["params"]
    assert (asked["action"], asked["sid"], asked["market_tickers"]) == ("get_snapshot", 1, [ticker])
    assert len(replay.sent) == 2


def test_the_channels_beside_the_books() -> None:
    """Each channel is subscribed once; its ``ok``s have a number, or none, and the trade follows them."""
    found = capture("delta_hedged")
    frames = list(zip(found.frames(), found.messages(), strict=True))
    channels = {m["msg"]["channel"]: m["msg"]["sid"] for _, m in frames if m["type"] == "subscribed"}
    ours = (TRADE, TICKER, LIFECYCLE)
    traded = [m["msg"]["market_ticker"] for _, m in frames if m["type"] in ("trade", "ticker")]
    now_ns = NS
    pool = LocalPool(1000, 4)
    recorder = Recorder(Books(), pool, pool.release, seal_rows=1000)
    session = ChannelSession(ours, traded, clock=lambda: now_ns, rng=random.Random(1))
    link = ChannelLink(Streams(recorder, traded), session)
    link.on_connected(7, now_ns)
    sent = [json.loads(text) for text in session.outbox]
    session.outbox.clear()
    assert sorted(channel for command in sent for channel in command["params"]["channels"]) == sorted(ours)
    for frame, message in frames:
        if message["type"] == "subscribed":
            if message["msg"]["channel"] not in ours:
                continue
            (asked,) = (c["id"] for c in sent if message["msg"]["channel"] in c["params"]["channels"])
            frame = with_id(frame, asked)
        elif message["sid"] not in [channels[channel] for channel in ours]:
            continue
        elif message["type"] == "ok":
            frame = with_id(frame, FOREIGN)
        now_ns += NS // 100
        link.on_frame(frame, now_ns)
        link.on_tick(now_ns)
    assert session.outbox == []
    counts = recorder.counts
    assert (counts.trades, counts.tickers, counts.lifecycle) == (1, 1, 2)
    assert (counts.rejected, counts.repeated, counts.foreign) == (0, 0, 0)
    assert counts.gaps == 1, "the author of the file left announcements 2 to 22 out"
    assert {channel: session.channel_of(channels[channel]) for channel in ours} == dict(
        zip(ours, ours, strict=True)
    )
