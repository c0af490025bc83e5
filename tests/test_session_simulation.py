"""The session against a small exchange of the test's own, without sockets: a virtual clock, and every step
and every fault drawn from a seed. A book here is a number, how many changes it has seen, so that a missing
or a doubled change shows at once.

Safety, at every frame: a book that the session calls exact has seen exactly the changes that the exchange
made. Liveness, when the faults are over: every wanted market is exact within bounded time. A failing seed is
named, and ``KALSHI_FAST_SEED=n`` runs it alone.
"""

from __future__ import annotations

import os
import random
from collections import deque
from typing import Any

import pytest

from kalshi_fast import wire
from kalshi_fast.backoff import NS
from kalshi_fast.session import CHANNEL, Session
from kalshi_fast.subscription import Kind, Limits, Verdict

STEPS = 20_000
SEEDS = [int(os.environ["KALSHI_FAST_SEED"])] if "KALSHI_FAST_SEED" in os.environ else list(range(300))
LIMITS = Limits(
    markets_per_command=5,
    snapshots_per_command=3,
    command_interval_ns=NS // 10,
    command_burst=4,
    reply_ns=NS,
    failures=3,
)
Frame = tuple[str, int, int, str, Any]  # kind, sid, seq, ticker, what it says


class World:
    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.now = 5 * NS
        self.truth = {f"M{n:02d}": 0 for n in range(self.rng.randrange(3, 16))}
        self.session = Session(
            [*list(self.truth)[1:], "NOPE"], clock=lambda: self.now, rng=self.rng, limits=LIMITS
        )
        self.session.activity = lambda ticker: self.truth.get(ticker, 0)
        self.books: dict[tuple[int, str], int] = {}
        self.subscriptions: dict[int, tuple[set[str], int]] = {}  # the exchange's: markets, last number
        self.next_sid = 1
        self.named = self.rng.choice(("named", "unnamed", "dead"))  # how a ticker that is none is answered
        self.subscribes = 0
        self.sent = 0  # commands
        self.merged = 0
        self.wire: deque[Frame] = deque()
        self.commands: deque[bytes] = deque()
        self.faulty = True
        self.most_markets = 100
        self.throttled = False
        self.broken = False  # every subscribe is refused, with 10 or 25
        self.up = False
        self.checked = 0

    # --- the exchange -----------------------------------------------------------------------------

    def send(
        self,
        kind: str,
        sid: int = 0,
        ticker: str = "",
        says: Any = None,  # noqa: ANN401
        *,
        numbered: bool = True,
    ) -> None:
        seq = 0
        if numbered:
            tickers, seq = self.subscriptions[sid]
            seq += 1
            self.subscriptions[sid] = (tickers, seq)
        frame = (kind, sid, seq, ticker, says)
        fate = self.rng.random() if self.faulty else 1.0
        if fate < 0.004:
            return
        self.wire.append(frame)
        if fate < 0.008:
            self.wire.append(frame)
        elif fate < 0.012 and len(self.wire) > 1:
            self.wire[-1], self.wire[-2] = self.wire[-2], self.wire[-1]

    def change(self) -> None:
        ticker = self.rng.choice(list(self.truth))
        self.truth[ticker] += 1
        for sid, (tickers, _) in list(self.subscriptions.items()):
            if ticker in tickers:
                self.send("delta", sid, ticker, self.truth[ticker])

    def snapshots(self, sid: int, tickers: list[str]) -> None:
        for ticker in tickers:
            self.send("snapshot", sid, ticker, self.truth.get(ticker, 0))

    def granted(self, kind: str, sid: int, new: list[str], command_id: int) -> None:
        """The reply, and the snapshots of the markets that are new: before it, behind it, around it."""
        self.rng.shuffle(new)
        before = self.rng.randrange(len(new) + 1) if self.faulty and self.rng.random() < 0.3 else 0
        self.snapshots(sid, new[:before])
        self.send(kind, sid, says=command_id, numbered=kind != "subscribed")
        self.snapshots(sid, new[before:])

    def refuse(self, command: wire.Command, code: int, sid: int | None = None, unknown: str = "") -> None:
        body = wire.ErrorBody(code, "", market_ticker=unknown or None)
        if sid in self.subscriptions:
            self.send("error", sid, says=(command.id, body))
        else:
            self.send("error", says=(command.id, body), numbered=False)

    def obey(self) -> None:
        """The next command; sometimes one that came behind it, so that answers are out of order."""
        at = self.rng.randrange(min(len(self.commands), 3)) if self.rng.random() < 0.3 else 0
        self.commands.rotate(-at)
        command = wire.decode_command(self.commands.popleft())
        self.commands.rotate(at)
        params = command.params
        assert params is not None
        if command.cmd == "unsubscribe":
            for sid in params.sids or ():
                if sid in self.subscriptions:
                    self.send("unsubscribed", sid, says=command.id)
                    del self.subscriptions[sid]
            return
        tickers = params.market_tickers or []
        assert 0 < len(tickers) <= LIMITS.markets_per_command
        if command.cmd == "subscribe":
            self.subscribes += 1
            self.subscribe(command, tickers)
        elif params.sid not in self.subscriptions:
            self.refuse(command, 7)
        elif self.throttled:
            self.refuse(command, 27, params.sid)
        elif "NOPE" in tickers and self.named != "dead":
            self.refuse(command, 11, params.sid, "NOPE" if self.named == "named" else "")
        else:
            self.update(command, params, params.sid, tickers)

    def subscribe(self, command: wire.Command, tickers: list[str]) -> None:
        """One sid a channel: a further subscribe is merged into it."""
        (sid,) = self.subscriptions or (0,)
        if "NOPE" in tickers and self.named != "dead":
            self.refuse(command, 11, None, "NOPE" if self.named == "named" else "")
        elif self.broken:
            self.refuse(command, self.rng.choice((10, 25)))
        elif len(self.subscriptions.get(sid, (set(), 0))[0].union(tickers)) > self.most_markets:
            self.refuse(command, 26)
        elif sid:
            self.merged += 1
            carried, _ = self.subscriptions[sid]
            new = [ticker for ticker in tickers if ticker not in carried]
            carried.update(new)
            self.granted("ok", sid, new, command.id)
        else:
            sid = self.next_sid
            self.next_sid += 1
            self.subscriptions[sid] = (set(tickers), 0)
            self.granted("subscribed", sid, list(tickers), command.id)

    def update(self, command: wire.Command, params: wire.Params, sid: int, tickers: list[str]) -> None:
        carried, _ = self.subscriptions[sid]
        if params.action == "get_snapshot":
            self.snapshots(sid, [ticker for ticker in tickers if ticker in carried])
            return
        if params.action == "add_markets":
            if len(carried | set(tickers)) > self.most_markets:
                self.refuse(command, 26, sid)
                return
            new = [ticker for ticker in tickers if ticker not in carried]
            carried.update(tickers)
            self.granted("ok", sid, new, command.id)
        else:
            carried.difference_update(tickers)
            self.send("ok", sid, says=command.id)

    # --- the client -------------------------------------------------------------------------------

    def deliver(self) -> None:
        kind, sid, seq, ticker, says = self.wire.popleft()
        session = self.session
        if seq and (kind in ("delta", "snapshot") or sid in session.subscriptions):
            if session.receive(sid, seq) not in (Verdict.IN_ORDER, Verdict.GAP):
                return
            self.check_losses()
        if kind in ("delta", "snapshot"):
            if not session.carries(sid, ticker):
                return
            if self.faulty and self.rng.random() < 0.002:
                session.lose(sid, [ticker], seq)  # the frame could be read, what it says could not
            elif kind == "snapshot":
                self.books[sid, ticker] = says
                session.repaired(sid, ticker)
            elif session.exact(sid, ticker):
                assert says == self.books[sid, ticker] + 1, f"{ticker} on {sid} at {seq}"
                self.books[sid, ticker] = says
                self.checked += 1
        elif kind == "subscribed":
            session.on_subscribed(wire.Subscribed(says, wire.ChannelSid(CHANNEL, sid)))
        elif kind == "ok":
            session.on_ok(wire.Ok(says, sid, seq))
        elif kind == "unsubscribed":
            session.on_unsubscribed(wire.Unsubscribed(sid, says, seq))
        elif kind == "error":
            session.on_error(wire.Error(says[1], says[0], sid or None, seq or None))
        self.check_losses()

    def check_losses(self) -> None:
        for loss in self.session.lost:
            assert not self.session.exact(loss.sid, loss.ticker)
        self.session.lost.clear()
        self.commands.extend(self.session.outbox)
        self.sent += len(self.session.outbox)
        self.session.outbox.clear()
        unanswered = [c for c in self.session._open.values() if c.kind is Kind.SUBSCRIBE and not c.answered]
        assert len(unanswered) <= 1, "one subscribe on its way at a time"
        assert len(self.session.subscriptions) <= 1, "one sid"
        assert len(self.session._strays) <= 1000
        for subscription in self.session.subscriptions.values():
            assert not subscription.deleting.keys() & subscription.tickers, "out before in again"

    def connect(self) -> None:
        self.up = True
        self.session.opened()
        self.check_losses()

    def disconnect(self) -> None:
        self.up = False
        self.session.closed()
        self.check_losses()
        self.wire.clear()
        self.commands.clear()
        self.subscriptions.clear()
        assert not self.session.subscriptions

    def pass_time(self) -> None:
        self.now += self.rng.randrange(NS // 20)
        if self.up and self.session.wake_ns <= self.now:
            self.session.tick()
            self.check_losses()
        if self.up and self.session.overflow and (not self.faulty or self.rng.random() < 0.1):
            # There is no other connection for them: they come back, as long as it takes.
            overflow, self.session.overflow = self.session.overflow, []
            for ticker in overflow:
                self.session.tickers.pop(ticker, None)
            self.session.add(overflow)
            self.check_losses()

    # --- the play ---------------------------------------------------------------------------------

    def step(self) -> None:
        choice = self.rng.random()
        if not self.up:
            self.connect()
        elif choice < 0.35:
            self.change()
        elif choice < 0.75:
            if self.wire:
                self.deliver()
        elif choice < 0.85:
            if self.commands:
                self.obey()
        elif choice < 0.985 or not self.faulty:
            self.pass_time()
        else:
            self.fault()

    def fault(self) -> None:
        kind = self.rng.randrange(9)
        sids = list(self.subscriptions)
        if kind == 0 and sids and self.rng.random() < 0.2:
            sid = self.rng.choice(sids)
            body = wire.ErrorBody(self.rng.choice([10, 25]))
            self.send("error", sid, says=(0, body))
            del self.subscriptions[sid]
        elif kind == 1 and self.rng.random() < 0.1:
            self.disconnect()
        elif kind == 2:
            self.most_markets = self.rng.choice([1, 2, 3, 100, 100, 100])
        elif kind == 3:
            self.throttled = self.rng.random() < 0.3
        elif kind == 4:
            self.session.add([self.rng.choice(list(self.truth))])
        elif kind == 5 and len(self.session.tickers) > 2:
            self.session.remove([self.rng.choice(list(self.truth))])
        elif kind == 6 and sids:
            sid = self.rng.choice(sids)
            self.snapshots(sid, sorted(self.subscriptions[sid][0]))
        elif kind == 8:
            self.broken = self.rng.random() < 0.3
        elif kind == 7:
            self.now += self.rng.randrange(3 * NS)
        self.check_losses()

    def settled(self) -> bool:
        exact = {
            ticker: sid
            for sid, subscription in self.session.subscriptions.items()
            for ticker in subscription.tickers
            if self.session.exact(sid, ticker)
        }
        wanted = set(self.session.tickers)
        return (
            not self.session.overflow
            and not self.wire
            and not self.commands
            and exact.keys() >= wanted
            and all(self.books[sid, t] == self.truth.get(t, 0) for t, sid in exact.items())
        )


def run(seed: int) -> int:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.faulty, world.throttled, world.broken, world.most_markets = False, False, False, 100
    if world.up:
        for sid in list(world.subscriptions):
            world.send("delta", sid, "nobody's", 0)  # a number at the end shows what was lost before it
    for _ in range(200_000):
        world.step()
        if world.settled():
            break
    else:
        pytest.fail(f"seed {seed}: not all markets exact long after the last fault")
    assert world.session.unknown_tickers.count("NOPE") <= 1
    assert ("NOPE" in world.session.tickers) == (world.named == "dead")
    assert world.sent < STEPS, "commands are bounded"
    return world.checked


@pytest.mark.parametrize("seed", SEEDS)
def test_exact_is_exact_and_what_is_lost_comes_back(seed: int) -> None:
    try:
        checked = run(seed)
    except AssertionError as error:
        pytest.fail(f"KALSHI_FAST_SEED={seed}: {error}")
    assert checked > 100
