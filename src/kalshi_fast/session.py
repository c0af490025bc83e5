"""The protocol session of one connection, sans I/O: replies, sequence numbers, a clock and a random source
in; commands and losses out. It owns command ids, subscriptions, sids, sequences, resync and its pace.

The rules, after Kalshi's AsyncAPI document 2.0.0:

* ``seq`` counts per sid, from 1, over all markets of that subscription; every frame with a seq counts,
  ``ok``, ``unsubscribed`` and subscription-scoped ``error`` frames included.
* A missing number makes every book of the sid doubtful until each has had a snapshot. ``get_snapshot``
  brings one, in the subscription's own sequence: what comes before it is in it, what comes after is not.
* A new connection starts new sids and sequences.
* Errors 10 and 25 end a subscription; 26 says it is too large, 27 that it is asked too often.

Commands to send wait in ``outbox`` as JSON text. Books that became unknown wait in ``lost``. ``exact`` says
which are known. ``tick`` is to be called from ``wake_ns`` on. Nothing here knows a socket or a book.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kalshi_fast import wire
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.errors import SubscriptionError
from kalshi_fast.subscription import Command, Group, Limits, Loss, Subscription, Verdict

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

CHANNEL: Final = "orderbook_delta"
NEVER: Final = 2**63 - 1
RETRY: Final = Scale(NS // 10, 10 * NS)
_RETRIED_ERRORS = frozenset({1, 18, 27})  # cannot process, command timeout, command rate
_STRAY_SIDS = 1000
_OPEN_SUBSCRIBES = 10  # unanswered at a time
_REPEATS = 100  # so many known numbers in a row, and none that is due: the sid counts anew
_HEALTHY_NS = 60 * NS  # what has gone well for so long starts its failures anew


def _no_activity(ticker: str) -> int:
    return 0


class Session:
    """``Session(tickers, clock=…, rng=…)``: wants the order books of these markets on every connection it is
    given. ``activity(ticker)`` says how busy a market is: the busiest are repaired first.
    """

    def __init__(
        self,
        tickers: Iterable[str],
        *,
        clock: Callable[[], int],
        rng: random.Random,
        limits: Limits | None = None,
        use_yes_price: bool = False,
    ) -> None:
        self.tickers: dict[str, None] = dict.fromkeys(tickers)
        self.unknown_tickers: list[str] = []
        self.overflow: list[str] = []  # for which this connection has no room: for another one
        self.subscriptions: dict[int, Subscription] = {}
        self.outbox: list[bytes] = []
        self.lost: list[Loss] = []
        self.fatal: SubscriptionError | None = None
        self.closing: str | None = None  # why this connection is of no use any more
        self.again_soon = False  # the next connection mends that: no reason to wait
        self._given_up = False
        self.first_missing_seq = 0  # of the last GAP
        self.wake_ns = NEVER
        self.requests = 0  # commands for snapshots
        self.activity: Callable[[str], int] = _no_activity
        self.use_yes_price = use_yes_price
        self._clock = clock
        self._rng = rng
        self._limits = limits or Limits()
        self._room = self._limits.markets_per_subscription
        self._served = False  # some subscription has been granted, ever
        self._next_id = 1
        self._open: dict[int, Command] = {}
        self._groups: list[Group] = []
        self._strays: dict[int, None] = {}

    # --- the connection ---------------------------------------------------------------------------

    def opened(self) -> None:
        """A new connection is up: everything of the old one is void."""
        self._forget()
        self.closing, self.again_soon = None, False
        self._room = self._limits.markets_per_subscription
        self._groups = [Group(list(self.tickers))]
        self.tick()

    def closed(self) -> None:
        """The connection is gone, and every book with it."""
        for subscription in self.subscriptions.values():
            self._lose(subscription, sorted(subscription.tickers), subscription.next_seq)
        self._forget()

    def _forget(self) -> None:
        for subscription in list(self.subscriptions.values()):
            self._drop(subscription)
        self.outbox.clear()
        self._open.clear()
        self._groups.clear()
        self._strays.clear()
        self._next_id = 1
        self.wake_ns = NEVER

    # --- sequences and books ----------------------------------------------------------------------

    def receive(self, sid: int, seq: int) -> Verdict:
        """Counts one frame of a sequence. After a GAP the sequence goes on behind this frame."""
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            if len(self._strays) < _STRAY_SIDS:
                self._strays[sid] = None
            self.wake_ns = min(self.wake_ns, self._clock() + self._limits.reply_ns)
            return Verdict.FOREIGN
        if seq == subscription.next_seq:
            subscription.next_seq = seq + 1
            return Verdict.IN_ORDER
        if seq < subscription.next_seq:
            self._count_repeat(subscription)
            return Verdict.REPEATED
        self.first_missing_seq = subscription.next_seq
        subscription.next_seq = seq + 1
        # What is on its way may be what is missing: everything is asked for again.
        self.lose(sid, sorted(subscription.tickers), self.first_missing_seq)
        return Verdict.GAP

    def _count_repeat(self, subscription: Subscription) -> None:
        if subscription.repeated_at != subscription.next_seq:
            subscription.repeated_at, subscription.repeats = subscription.next_seq, 0
        subscription.repeats += 1
        if subscription.repeats >= _REPEATS:
            self._unsubscribe([subscription.sid])
            self._end(subscription, subscription.next_seq)

    def carries(self, sid: int, ticker: str) -> bool:
        """This market's frames come on this subscription."""
        subscription = self.subscriptions.get(sid)
        return subscription is not None and ticker in subscription.tickers

    def exact(self, sid: int, ticker: str) -> bool:
        """Everything that makes up this book has come, in order."""
        subscription = self.subscriptions.get(sid)
        return (
            subscription is not None and ticker in subscription.tickers and ticker not in subscription.waiting
        )

    def repaired(self, sid: int, ticker: str) -> None:
        """A snapshot of this market has been applied."""
        subscription = self.subscriptions[sid]
        subscription.due.pop(ticker, None)
        subscription.put_off.pop(ticker, None)
        if self._no_longer_expected(subscription.waiting.pop(ticker, 0), ticker):
            subscription.failures = 0

    def put_off(self, sid: int, ticker: str, seq: int, delay_ns: int) -> None:
        """A snapshot of this market has come, and its book is unknown all the same. That is no failure of the
        subscription: whatever happens to it, the market is asked for after that delay, and not before."""
        subscription = self.subscriptions.get(sid)
        if subscription is None or ticker not in subscription.tickers:
            return
        self._lose(subscription, [ticker], seq)
        if self._no_longer_expected(subscription.waiting.get(ticker, 0), ticker):
            subscription.failures = 0
        subscription.waiting[ticker] = 0
        subscription.due.pop(ticker, None)
        subscription.aside.pop(ticker, None)
        subscription.put_off[ticker] = due_ns = self._clock() + delay_ns
        self.wake_ns = min(self.wake_ns, due_ns)

    def ask_now(self, tickers: Iterable[str]) -> None:
        """These markets, if they were put off, are asked for with the next tick."""
        wanted, now = set(tickers), self._clock()
        for subscription in self.subscriptions.values() if wanted else ():
            for ticker in wanted & subscription.put_off.keys():
                subscription.put_off[ticker] = self.wake_ns = now

    def give_up(self, why: str) -> None:
        """Nothing that this connection brings is to be used: every book is unknown, and another follows."""
        self.closing, self.again_soon, self._given_up = why, not self._given_up, True
        for subscription in self.subscriptions.values():
            self._lose(subscription, sorted(subscription.tickers), subscription.next_seq)
            subscription.waiting.update(dict.fromkeys(subscription.tickers, 0))

    def subscription_of(self, ticker: str) -> Subscription | None:
        """The one that carries this market."""
        return next((s for s in self.subscriptions.values() if ticker in s.tickers), None)

    def lose(self, sid: int, tickers: Iterable[str], seq: int, *, unusable: bool = False) -> None:
        """These books are unknown from ``seq`` on: they go to ``lost``, and snapshots are asked for.

        ``unusable``: a frame has come that cannot be true; if that goes on, the requests become rare.
        """
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            return
        self._lose(subscription, tickers, seq)
        now = self._clock()
        for ticker in tickers:
            if ticker in subscription.put_off:
                continue  # unknown already, and asked for when it is time
            self._no_longer_expected(subscription.waiting.get(ticker, 0), ticker)
            subscription.waiting[ticker] = 0
            failures, due_ns = subscription.aside.get(ticker, (0, 0))
            if unusable:
                failures = 1 if due_ns + _HEALTHY_NS < now else failures + 1
                due_ns = now + (RETRY.delay_ns(failures - 1, self._rng) if failures > 1 else 0)
                subscription.aside[ticker] = (failures, due_ns)
            if due_ns <= now:
                subscription.due[ticker] = None
            else:
                subscription.due.pop(ticker, None)
                self.wake_ns = min(self.wake_ns, due_ns)
        self._ask(subscription, now)

    def _no_longer_expected(self, command_id: int, ticker: str) -> bool:
        """True when with this market a command has all that it was to bring."""
        command = self._open.get(command_id)
        if command is None:
            return False
        command.tickers.discard(ticker)
        if command.tickers:
            return False
        del self._open[command_id]
        return True

    def _lose(self, subscription: Subscription, tickers: Iterable[str], seq: int) -> None:
        waiting = subscription.waiting
        self.lost += [Loss(ticker, subscription.sid, seq) for ticker in tickers if ticker not in waiting]

    # --- wishes -----------------------------------------------------------------------------------

    def add(self, tickers: Iterable[str]) -> None:
        """These markets are wanted too, from now on."""
        new = [ticker for ticker in dict.fromkeys(tickers) if ticker not in self.tickers]
        if new:
            self.unknown_tickers = [ticker for ticker in self.unknown_tickers if ticker not in new]
            self.tickers.update(dict.fromkeys(new))
            self._groups.append(Group(new, join=True))
            self.tick()

    def remove(self, tickers: Iterable[str]) -> None:
        """These markets are not wanted any more."""
        gone = {ticker for ticker in tickers if self.tickers.pop(ticker, self) is None}
        for group in self._groups:
            group.tickers = [ticker for ticker in group.tickers if ticker not in gone]
        for subscription in list(self.subscriptions.values()):
            for ticker in gone & subscription.adding.keys():
                del subscription.adding[ticker]  # its acknowledgement will find it unwanted
            self._let_go(subscription, gone & subscription.tickers)

    def _let_go(self, subscription: Subscription, tickers: set[str]) -> None:
        if not tickers:
            return
        self._lose(subscription, sorted(tickers), subscription.next_seq)
        subscription.tickers -= tickers
        for ticker in tickers:
            self._no_longer_expected(subscription.waiting.pop(ticker, 0), ticker)
            subscription.due.pop(ticker, None)
            subscription.aside.pop(ticker, None)
            subscription.put_off.pop(ticker, None)
        if subscription.tickers or subscription.adding:
            self._update(subscription, "delete_markets", sorted(tickers), "other")
        else:
            self._drop(subscription)
            self._unsubscribe([subscription.sid])

    # --- replies ----------------------------------------------------------------------------------

    def on_subscribed(self, reply: wire.Subscribed) -> None:
        """The exchange has given a subscribe command its sid; the snapshots come by themselves."""
        sid = reply.msg.sid
        command = self._open.pop(reply.id, None)
        if command is None:
            if sid not in self.subscriptions:
                self._strays[sid] = None  # an answer that was given up, come late
            return
        self._served = True
        self._strays.pop(sid, None)
        superfluous = {t for t in command.tickers if t not in self.tickers} | self._placed() & command.tickers
        tickers = set(command.tickers)
        subscription = Subscription(sid, tickers, self._clock(), command.failures)
        if (replaced := self.subscriptions.get(sid)) is not None:
            replaced.ended = True  # a number given twice: nothing of the first may be used any more
        self.subscriptions[sid] = subscription
        self._expect(subscription, "snapshot", command.tickers)
        self._let_go(subscription, superfluous)
        self.tick()

    def on_ok(self, reply: wire.Ok) -> None:
        """A command has been carried out; the snapshots of added markets are awaited on their own."""
        command = self._open.get(reply.id)
        if command is None or command.kind not in ("add", "other"):
            return
        del self._open[reply.id]
        subscription = self.subscriptions.get(command.sid)
        if command.kind == "other" or subscription is None:
            return
        wanted = set(self._take_adding(subscription, command))
        subscription.tickers |= wanted
        if wanted:
            self._expect(subscription, "snapshot", wanted)
        # Those nobody wants any more, unless they are on their way into it once more.
        unwanted = command.tickers - wanted - subscription.tickers - subscription.adding.keys()
        if unwanted:
            self._update(subscription, "delete_markets", sorted(unwanted), "other")

    def on_unsubscribed(self, reply: wire.Unsubscribed) -> None:
        """The exchange has ended a subscription: as asked, or its markets need another."""
        self._open.pop(reply.id, None)
        self._strays.pop(reply.sid, None)
        subscription = self.subscriptions.get(reply.sid)
        if subscription is not None:
            self._end(subscription, reply.seq or subscription.next_seq)

    def on_error(self, error: wire.Error) -> None:
        """An error reply: what it ends is lost and made anew, what it refuses is done another way."""
        code = error.msg.code
        command = self._open.pop(error.id, None) if error.id else None
        subscription = self.subscriptions.get(error.sid) if error.sid is not None else None
        if code == 9:
            self.closing = f"the exchange wants authentication ({_text(error)})"
        elif subscription is not None and code in wire.TERMINAL_ERRORS:
            self._end(subscription, error.seq or subscription.next_seq)
        elif command is None:
            return
        elif command.kind == "subscribe":
            self._subscribe_refused(command, error)
        elif (subscription := self.subscriptions.get(command.sid)) is not None:
            self._update_refused(subscription, command, error)
        self.tick()

    def _subscribe_refused(self, command: Command, error: wire.Error) -> None:
        code, asked = error.msg.code, sorted(command.tickers)
        named = _named(error) & command.tickers
        if named:
            self._drop_unknown(named, error)
            self._groups.append(Group([ticker for ticker in asked if ticker not in named]))
        elif code == 26 and len(asked) == 1:
            self.overflow += [ticker for ticker in asked if ticker in self.tickers]
        elif code == 26:
            self._room = min(self._room, (len(asked) + 1) // 2)
            self._groups.append(Group(asked))
        elif code == 11:
            self._find_unknown(asked, error)
        elif code in _RETRIED_ERRORS or self._served:
            self._again(asked, command.failures + 1)
        else:
            self.fatal = SubscriptionError(f"the exchange refused the subscription: {_text(error)}")

    def _find_unknown(self, asked: list[str], error: wire.Error) -> None:
        """One of these is not known to the exchange, which does not say which: in halves it will be found."""
        if len(asked) == 1:
            self._drop_unknown(set(asked), error)
            return
        half = (len(asked) + 1) // 2
        self._groups += [Group(asked[:half]), Group(asked[half:])]

    def _update_refused(self, subscription: Subscription, command: Command, error: wire.Error) -> None:
        code = error.msg.code
        named = _named(error) & command.tickers
        if code == 7:
            self._end(subscription, subscription.next_seq)
        elif command.kind == "add":
            self._add_refused(subscription, command, error)
        elif named and command.kind == "snapshot" and code == 11:
            self._drop_unknown(named, error)
            self._let_go(subscription, named)
            self._unanswered(subscription, command)
        elif command.kind == "snapshot":
            self._unanswered(subscription, command, too_often=code == 27)

    def _add_refused(self, subscription: Subscription, command: Command, error: wire.Error) -> None:
        code = error.msg.code
        asked = self._take_adding(subscription, command)
        named = _named(error) & set(asked)
        if named:
            self._drop_unknown(named, error)
            self._groups.append(Group([ticker for ticker in asked if ticker not in named], join=True))
        elif code == 26:
            carried = len(subscription.tickers)
            self._room = min(self._room, max(carried, (carried + len(asked)) // 2, 1))
            self._groups.append(Group(asked))
        elif code == 11 and asked:
            self._find_unknown(asked, error)
        else:
            self._again(asked, command.failures + 1, join=True)

    @staticmethod
    def _take_adding(subscription: Subscription, command: Command) -> list[str]:
        """What this command was to add and is still wanted; it is on its way no more."""
        asked = sorted(t for t in command.tickers if subscription.adding.get(t) == command.id)
        for ticker in asked:
            del subscription.adding[ticker]
        return asked

    def _drop_unknown(self, tickers: set[str], error: wire.Error) -> None:
        self.unknown_tickers += sorted(tickers)
        for ticker in tickers:
            self.tickers.pop(ticker, None)
        if not self.tickers:
            self.fatal = SubscriptionError(
                f"MARKET_TICKERS: the exchange knows none of {', '.join(self.unknown_tickers[:5])}"
                f"{' …' if len(self.unknown_tickers) > 5 else ''} ({_text(error)})"
            )

    # --- time -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Does what is due: commands that wait for their turn, answers that have not come."""
        now = self._clock()
        self.wake_ns = NEVER
        for command_id, command in list(self._open.items()):
            if command.deadline_ns <= now:
                del self._open[command_id]
                self._timed_out(command)
        if self._strays and not any(command.kind == "subscribe" for command in self._open.values()):
            self._unsubscribe(list(self._strays))
            self._strays.clear()
        groups, self._groups = self._groups, []
        for group in groups:
            if group.due_ns > now:
                self._groups.append(group)
            else:
                self._place(group)
        for subscription in self.subscriptions.values():
            self._ask(subscription, now)
        self.wake_ns = min(
            self.wake_ns,
            min((group.due_ns for group in self._groups), default=NEVER),
            min((command.deadline_ns for command in self._open.values()), default=NEVER),
        )

    def _timed_out(self, command: Command) -> None:
        if command.kind == "subscribe":
            self._again(sorted(command.tickers), command.failures + 1)
        elif (subscription := self.subscriptions.get(command.sid)) is None:
            return
        elif command.kind == "add":
            asked = self._take_adding(subscription, command)
            if asked:  # who knows whether it carries them: not any more
                self._update(subscription, "delete_markets", asked, "other")
                self._again(asked, command.failures + 1, join=True)
        elif command.kind == "snapshot":
            self._unanswered(subscription, command)

    def _unanswered(self, subscription: Subscription, command: Command, *, too_often: bool = False) -> None:
        """The snapshots that have not come are asked for again, slower each time; at last on a new sid,
        unless it is only that we have asked too often."""
        if subscription.hold_ns <= self._clock():  # commands that fail together are one failure
            subscription.failures += 1
            if subscription.failures > self._limits.failures and not too_often:
                self._unsubscribe([subscription.sid])
                self._end(subscription, subscription.next_seq)
                return
            subscription.hold_ns = self._clock() + 1 + RETRY.delay_ns(subscription.failures, self._rng)
        for ticker in command.tickers & subscription.waiting.keys():
            subscription.waiting[ticker] = 0
            subscription.due[ticker] = None

    def _end(self, subscription: Subscription, seq: int) -> None:
        """The subscription is over; its markets get another one, the later the less each one lives."""
        self._lose(subscription, sorted(subscription.tickers), seq)
        self._drop(subscription)
        healthy = self._clock() - subscription.opened_ns >= _HEALTHY_NS
        failures = 1 if healthy else subscription.lives + 1
        self._again(sorted(subscription.tickers | subscription.adding.keys()), failures)

    def _drop(self, subscription: Subscription) -> None:
        subscription.ended = True
        self.subscriptions.pop(subscription.sid, None)

    def _again(self, tickers: list[str], failures: int, *, join: bool = False) -> None:
        due_ns = self._clock() + RETRY.delay_ns(failures, self._rng)
        self._groups.append(Group(tickers, due_ns, failures, join))
        self.wake_ns = min(self.wake_ns, due_ns)

    # --- commands ---------------------------------------------------------------------------------

    def _placed(self) -> set[str]:
        """Markets that a subscription carries or is to carry."""
        placed: set[str] = set()
        for subscription in self.subscriptions.values():
            placed |= subscription.tickers
            placed |= subscription.adding.keys()
        return placed

    def _place(self, group: Group) -> None:
        subscribes = [command for command in self._open.values() if command.kind == "subscribe"]
        placed = self._placed().union(*(command.tickers for command in subscribes))
        wanted = [t for t in dict.fromkeys(group.tickers) if t in self.tickers and t not in placed]
        if not wanted:
            return
        if group.join:
            for subscription in self.subscriptions.values():
                if len(subscription.tickers) + len(subscription.adding) + len(wanted) <= self._room:
                    command_id = self._update(subscription, "add_markets", wanted, "add", group.failures)
                    subscription.adding.update(dict.fromkeys(wanted, command_id))
                    return
        room, pending = self._room, len(subscribes)
        for start in range(0, len(wanted), room):
            tickers = wanted[start : start + room]
            if len(self.subscriptions) + pending >= self._limits.subscriptions:
                self.overflow += wanted[start:]
                return
            if pending >= _OPEN_SUBSCRIBES:
                due_ns = self._clock() + self._limits.command_interval_ns
                self._groups.append(Group(wanted[start:], due_ns, group.failures))
                return
            # The default of use_yes_price is going to change: it is always said.
            params = wire.Params(
                channels=[CHANNEL],
                market_tickers=tickers,
                skip_ticker_ack=True,
                use_yes_price=self.use_yes_price,
            )
            command_id = self._command("subscribe", params)
            deadline_ns = self._clock() + self._limits.reply_ns
            self._open[command_id] = Command("subscribe", 0, set(tickers), deadline_ns, group.failures)
            pending += 1

    def _ask(self, subscription: Subscription, now: int) -> None:
        """Requests the snapshots that are due, the busiest markets first, no faster than allowed."""
        for ticker, (_, due_ns) in subscription.aside.items():
            if ticker in subscription.due or subscription.waiting.get(ticker) != 0:
                continue
            if due_ns <= now:
                subscription.due[ticker] = None
            else:
                self.wake_ns = min(self.wake_ns, due_ns)
        for ticker, due_ns in list(subscription.put_off.items()):
            if due_ns <= now:
                del subscription.put_off[ticker]
                subscription.due[ticker] = None
            else:
                self.wake_ns = min(self.wake_ns, due_ns)
        if not subscription.due:
            return
        limits = self._limits
        ahead_ns = (limits.command_burst - 1) * limits.command_interval_ns
        earliest_ns = max(subscription.hold_ns, subscription.paced_ns - ahead_ns)
        if earliest_ns <= now:
            order = sorted(subscription.due, key=lambda ticker: (-self.activity(ticker), ticker))
            for start in range(0, len(order), limits.snapshots_per_command):
                earliest_ns = subscription.paced_ns - ahead_ns
                if earliest_ns > now:
                    break
                tickers = order[start : start + limits.snapshots_per_command]
                for ticker in tickers:
                    del subscription.due[ticker]
                self._update(subscription, "get_snapshot", tickers, "snapshot")
                self.requests += 1
        if subscription.due:
            self.wake_ns = min(self.wake_ns, earliest_ns)

    def _update(
        self, subscription: Subscription, action: str, tickers: list[str], kind: str, failures: int = 0
    ) -> int:
        params = wire.Params(sid=subscription.sid, market_tickers=tickers, action=action)
        command_id = self._command("update_subscription", params)
        subscription.paced_ns = max(subscription.paced_ns, self._clock()) + self._limits.command_interval_ns
        self._expect(subscription, kind, tickers, command_id, failures)
        return command_id

    def _expect(
        self,
        subscription: Subscription,
        kind: str,
        tickers: Iterable[str],
        command_id: int = 0,
        failures: int = 0,
    ) -> None:
        """An answer has to come in time; ``snapshot``: one for each market."""
        command_id = command_id or self._id()
        deadline_ns = self._clock() + self._limits.reply_ns
        command = Command(kind, subscription.sid, set(tickers), deadline_ns, failures, command_id)
        self._open[command_id] = command
        self.wake_ns = min(self.wake_ns, deadline_ns)
        if kind == "snapshot":
            subscription.waiting.update(dict.fromkeys(tickers, command_id))

    def _unsubscribe(self, sids: list[int]) -> None:
        self._command("unsubscribe", wire.Params(sids=sids))

    def _command(self, cmd: str, params: wire.Params) -> int:
        command_id = self._id()
        self.outbox.append(wire.encode(wire.Command(cmd, command_id, params)))
        return command_id

    def _id(self) -> int:
        command_id = self._next_id
        self._next_id += 1
        return command_id


def _named(error: wire.Error) -> set[str]:
    return {*(error.msg.market_tickers or ()), *filter(None, [error.msg.market_ticker])}


def _text(error: wire.Error) -> str:
    text = error.msg.msg or wire.ERROR_TEXTS.get(error.msg.code, "no reason given")
    return f"error {error.msg.code}: {text}"
