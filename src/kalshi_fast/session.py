"""The protocol session of one connection, sans I/O: replies, sequence numbers, a clock and a random source
in; commands and losses out. It owns command ids, the subscription, its sequence, resync and its pace.

The rules, after Kalshi's AsyncAPI document 2.0.0 and recordings of production sessions of 2026:

* A connection has one sid for ``orderbook_delta``. The first subscribe is answered by ``subscribed``; a
  further one is merged into the same sid and answered by ``ok``. So there is one subscribe, and markets are
  added to it in portions (``add_markets``). Answers come in any order, and between snapshots.
* A market that is carried already gets no snapshot when it is added again.
* ``seq`` counts per sid, from 1, over all its markets; every frame with a seq counts, ``ok``,
  ``unsubscribed`` and subscription-scoped ``error`` frames included.
* A missing number makes every book of the sid doubtful until each has had a snapshot. ``get_snapshot``
  brings one, in the subscription's own sequence: what comes before it is in it, what comes after is not.
* A new connection starts sids and sequences anew; so does ``unsubscribe`` followed by ``subscribe``.
* Errors 10 and 25 end a subscription; 26 says it is too large (``size``), 27 that it is asked too often.

Commands to send wait in ``outbox`` as JSON text. Books that became unknown wait in ``lost``. ``exact`` says
which are known. ``tick`` is to be called from ``wake_ns`` on. Nothing here knows a socket or a book.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from kalshi_fast import wire
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.errors import SubscriptionError
from kalshi_fast.size import Size
from kalshi_fast.subscription import Command, Group, Kind, Limits, Loss, Subscription, Verdict

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable

CHANNEL: Final = "orderbook_delta"
NEVER: Final = 2**63 - 1
RETRY: Final = Scale(NS // 10, 10 * NS)
_RETRIED_ERRORS = frozenset({1, 18, 27}) | wire.TERMINAL_ERRORS  # cannot process, timeout, command rate
_STRAY_SIDS = 1000
_LATE_SUBSCRIBES = 100
_ASK_AGAIN_NS = NS // 20  # another session asks which size is allowed
_REPEATS = 100  # so many known numbers in a row, and none that is due: the sid counts anew
_HEALTHY_NS = 60 * NS  # what has gone well for so long starts its failures anew
_PORTIONS = (Kind.SUBSCRIBE, Kind.ADD)
_DELETE_AGAIN = (1, 18, 27)  # after any other refusal of a delete there is nothing to delete
_PROBE_FIRST_NS = NS
_PROBE_MOST_NS = 3600 * NS
_SINGLES = 5  # so many markets refused alone, and none granted: it is not about the markets

log = logging.getLogger("kalshi_fast.session")


def _no_activity(ticker: str) -> int:
    return 0


class Session:
    """``Session(tickers, clock=…, rng=…)``: wants the order books of these markets on every connection it is
    given. ``activity(ticker)`` says how busy a market is: the busiest are repaired first. ``size`` is what
    all sessions of a process know of the exchange's limit.
    """

    def __init__(
        self,
        tickers: Iterable[str],
        *,
        clock: Callable[[], int],
        rng: random.Random,
        limits: Limits | None = None,
        use_yes_price: bool = False,
        size: Size | None = None,
    ) -> None:
        self.tickers: dict[str, None] = dict.fromkeys(tickers)
        self.unknown_tickers: list[str] = []
        self.overflow: list[str] = []  # for which this connection has no room: for another one
        self.subscriptions: dict[int, Subscription] = {}  # one, once it is granted
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
        self.size = size or Size()
        self._clock = clock
        self._rng = rng
        self._limits = limits or Limits()
        self._served = False  # some subscription has been granted, ever
        self._refused_alone = 0
        self._next_id = 1
        self._open: dict[int, Command] = {}
        self._late: dict[int, Command] = {}  # subscribes that were given up: their answer may yet come
        self._groups: deque[Group] = deque()  # to be subscribed or added
        self._deletes: deque[Group] = deque()
        self._strays: dict[int, int] = {}  # sids of nobody, and the last number seen of each
        self._granted_here = False  # this connection has carried some market
        self._suspects: dict[str, wire.Error] = {}  # refused alone before anything was granted
        self._all_refused = False  # error 11 is not about the markets: everything is tried again, slowly

    # --- the connection ---------------------------------------------------------------------------

    def opened(self) -> None:
        """A new connection is up: everything of the old one is void."""
        self._forget()
        self.closing, self.again_soon = None, False
        self._queue_all()
        self.tick()

    def closed(self) -> None:
        """The connection is gone, and every book with it."""
        for subscription in self.subscriptions.values():
            self._lose(subscription, sorted(subscription.tickers), subscription.next_seq)
        self._forget()

    def _forget(self) -> None:
        for subscription in list(self.subscriptions.values()):
            self._drop(subscription)
        self.size.release(self)
        self.outbox.clear()
        self._open.clear()
        self._late.clear()
        self._groups.clear()
        self._deletes.clear()
        self._strays.clear()
        self._granted_here, self._all_refused = False, False
        self._suspects.clear()
        self._next_id = 1
        self.wake_ns = NEVER

    @property
    def _subscribing(self) -> bool:
        return any(c.kind is Kind.SUBSCRIBE and not c.answered for c in self._open.values())

    @property
    def _subscription(self) -> Subscription | None:
        return next(iter(self.subscriptions.values()), None)

    # --- sequences and books ----------------------------------------------------------------------

    def receive(self, sid: int, seq: int) -> Verdict:
        """Counts one frame of a sequence. After a GAP the sequence goes on behind this frame."""
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            if sid in self._strays or len(self._strays) < _STRAY_SIDS:
                self._strays[sid] = max(seq, self._strays.get(sid, 0))
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
            self._remake(subscription)

    def carries(self, sid: int, ticker: str) -> bool:
        """This market's frames on this subscription are to be used. One that is on its way into it counts:
        a snapshot of it in the sequence comes only when it is carried, whenever that is acknowledged."""
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
        subscription.probes.pop(ticker, None)
        self._came(subscription, subscription.waiting.pop(ticker, 0), ticker)

    def _came(self, subscription: Subscription, command_id: int, ticker: str) -> None:
        """A snapshot: the market is carried, whatever becomes of the command that added it."""
        subscription.adding.pop(ticker, None)
        subscription.doubtful.discard(ticker)
        if self._no_longer_expected(command_id, ticker):
            subscription.failures = 0
            if self._groups:
                self._place(self._clock())

    def put_off(self, sid: int, ticker: str, seq: int, delay_ns: int) -> None:
        """A snapshot of this market has come, and its book is unknown all the same. That is no failure of the
        subscription: whatever happens to it, the market is asked for after that delay, and not before."""
        subscription = self.subscriptions.get(sid)
        if subscription is None or ticker not in subscription.tickers:
            return
        self._lose(subscription, [ticker], seq)
        command_id, subscription.waiting[ticker] = subscription.waiting.get(ticker, 0), 0
        subscription.due.pop(ticker, None)
        subscription.aside.pop(ticker, None)
        subscription.probes[ticker] = delay_ns
        subscription.put_off[ticker] = due_ns = self._clock() + delay_ns
        self.wake_ns = min(self.wake_ns, due_ns)
        self._came(subscription, command_id, ticker)

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
            if ticker in subscription.adding:
                continue  # to be asked for when it is carried
            failures, due_ns = subscription.aside.get(ticker, (0, 0))
            if unusable:
                failures = 1 if due_ns + _HEALTHY_NS < now else failures + 1
                due_ns = now + (RETRY.delay_ns(failures - 1, self._rng) if failures > 1 else 0)
                subscription.aside[ticker] = (failures, due_ns)
            if due_ns <= now:
                self._ask_soon(subscription, ticker)
            else:
                subscription.due.pop(ticker, None)
                self.wake_ns = min(self.wake_ns, due_ns)
        self._ask(subscription, now)

    def _no_longer_expected(self, command_id: int, ticker: str) -> bool:
        """True when with this market a command has all that it was to bring."""
        command = self._open.get(command_id)
        if command is None:
            return False
        command.missing.discard(ticker)
        if command.missing or not command.answered:
            command.deadline_ns = self._clock() + self._limits.reply_ns  # it goes on
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
            known = set(new)
            self.unknown_tickers = [ticker for ticker in self.unknown_tickers if ticker not in known]
            self.tickers.update(dict.fromkeys(new))
            self._queue(new)
            self.tick()

    def remove(self, tickers: Iterable[str]) -> None:
        """These markets are not wanted any more."""
        gone = {ticker for ticker in tickers if self.tickers.pop(ticker, self) is None}
        if self.overflow:
            self.overflow = [ticker for ticker in self.overflow if ticker not in gone]
        for subscription in list(self.subscriptions.values()):
            if not self.tickers and (subscription.tickers or subscription.doubtful or subscription.adding):
                self._lose(subscription, sorted(subscription.tickers), subscription.next_seq)
                self._drop(subscription)
                self._unsubscribe(subscription.sid)
                continue
            # The answer to what is on its way will find those unwanted.
            self._let_go(subscription, gone & subscription.tickers, gone & subscription.doubtful)
        self.tick()

    def _let_go(self, subscription: Subscription, carried: set[str], doubtful: set[str]) -> None:
        """Frames of these are not used from now on, and those that are carried, or may be, are deleted."""
        if not carried and not doubtful:
            return
        self._lose(subscription, sorted(carried), subscription.next_seq)
        self._set_down(subscription, carried)
        leaving = (carried | doubtful) - subscription.adding.keys()
        subscription.doubtful -= leaving
        self._delete(subscription, sorted(leaving))

    def _set_down(self, subscription: Subscription, tickers: Iterable[str]) -> None:
        for ticker in tickers:
            subscription.tickers.discard(ticker)
            self._no_longer_expected(subscription.waiting.pop(ticker, 0), ticker)
            subscription.due.pop(ticker, None)
            subscription.aside.pop(ticker, None)
            subscription.put_off.pop(ticker, None)
            subscription.probes.pop(ticker, None)

    def _delete(
        self, subscription: Subscription, tickers: list[str], due_ns: int = 0, failures: int = 0
    ) -> None:
        subscription.deleting.update(dict.fromkeys(tickers, 0))
        portion = self._limits.markets_per_command
        for start in range(0, len(tickers), portion):
            self._deletes.append(Group(tickers[start : start + portion], due_ns, failures))
            self.wake_ns = min(self.wake_ns, due_ns)

    # --- replies ----------------------------------------------------------------------------------

    def on_subscribed(self, reply: wire.Subscribed) -> None:
        """The exchange has given a subscribe command its sid; the snapshots come by themselves."""
        command = self._taken(reply.id)
        if command is not None:
            self._granted(command, reply.msg.sid, reply.id)
        elif reply.msg.sid not in self.subscriptions:
            self._strays.setdefault(reply.msg.sid, 0)  # of a command that was not ours
        self.tick()

    def on_ok(self, reply: wire.Ok) -> None:
        """A command has been carried out; in answer to a subscribe: its markets are in the sid there is."""
        command = self._open.get(reply.id)
        if reply.sid is not None and (taken := self._taken(reply.id)) is not None:
            self._granted(taken, reply.sid, reply.id, merged_at=reply.seq or 0)
        elif command is not None and (subscription := self.subscriptions.get(command.sid)) is not None:
            if command.kind is Kind.ADD:
                self._added(subscription, command, reply.id)
            elif command.kind is Kind.DELETE:
                del self._open[reply.id]
                self._deleted(subscription, command, reply.id)
        self.tick()

    def _taken(self, command_id: int) -> Command | None:
        """The subscribe command that is answered now."""
        command = self._open.get(command_id)
        if command is None:
            return self._late.pop(command_id, None)
        if command.kind is not Kind.SUBSCRIBE or command.answered:
            return None
        del self._open[command_id]
        self.size.release(self)
        return command

    def _granted(self, command: Command, sid: int, command_id: int, merged_at: int = 0) -> None:
        """A subscribe is answered: by a sid, or by the number that its ``ok`` has in a sid."""
        self._served = True
        self._vouch(command)
        seen = max(self._strays.pop(sid, 0), merged_at)
        subscription = self.subscriptions.get(sid)
        new = subscription is None
        if subscription is None:
            for other in list(self.subscriptions.values()):  # the exchange has one sid: the last it has named
                self._remake(other)
            subscription = Subscription(sid, set(), self._clock(), command.failures)
            subscription.next_seq = seen + 1
            self.subscriptions[sid] = subscription
        command.sid, command.answered = sid, True
        fresh = [ticker for ticker in command.tickers if ticker not in subscription.tickers]
        wanted = [ticker for ticker in fresh if ticker in self.tickers]
        subscription.tickers.update(wanted)
        if new and seen:  # what has come so far was not used, or nothing came: it was carried already
            for ticker in wanted:
                subscription.waiting[ticker] = 0
                self._ask_soon(subscription, ticker)
        elif wanted:
            self._expect(subscription, command, wanted, command_id)
        self._grant_size(subscription)
        unwanted = [ticker for ticker in fresh if ticker not in self.tickers]
        if not self.tickers:
            self._drop(subscription)
            self._unsubscribe(sid)
        elif unwanted:
            self._delete(subscription, unwanted)

    def _vouch(self, command: Command) -> None:
        """The exchange has granted some market: those that were refused alone before are asked for once more,
        and are unknown if they are refused again."""
        self._granted_here, self._all_refused = True, False
        self._groups.extend(Group([ticker]) for ticker in self._suspects if ticker not in command.tickers)
        self._suspects.clear()

    def _grant_size(self, subscription: Subscription) -> None:
        self._refused_alone = 0
        self.size.grant(len(subscription.tickers) - len(subscription.adding), self._clock())

    def _expect(
        self, subscription: Subscription, command: Command, tickers: Iterable[str], command_id: int
    ) -> None:
        """A snapshot has to come of each of these markets."""
        command.missing.update(tickers)
        command.deadline_ns = self._clock() + self._limits.reply_ns
        self._open[command_id] = command
        self.wake_ns = min(self.wake_ns, command.deadline_ns)
        subscription.waiting.update(dict.fromkeys(tickers, command_id))

    def _added(self, subscription: Subscription, command: Command, command_id: int) -> None:
        """An add is answered; of some markets the snapshot may have come before."""
        if command.question:
            self.size.release(self)
        command.answered = True
        self._vouch(command)
        unwanted = []
        for ticker in self._take_adding(subscription, command, command_id):
            if ticker not in self.tickers:
                unwanted.append(ticker)
            elif ticker not in subscription.tickers:  # gone and back again: its snapshot may have been missed
                subscription.tickers.add(ticker)
                subscription.waiting[ticker] = 0
                self._ask_soon(subscription, ticker)
            elif subscription.waiting.get(ticker) == 0 or ticker in subscription.doubtful:
                self._no_longer_expected(command_id, ticker)
                subscription.waiting[ticker] = 0
                self._ask_soon(subscription, ticker)
            subscription.doubtful.discard(ticker)
        self._grant_size(subscription)
        if not command.missing:
            self._open.pop(command_id, None)
        command.deadline_ns = self._clock() + self._limits.reply_ns
        self._delete(subscription, unwanted)

    @staticmethod
    def _take_adding(subscription: Subscription, command: Command, command_id: int) -> list[str]:
        """What this command was to add and is not known to be carried; it is on its way no more."""
        asked = [t for t in command.tickers if subscription.adding.get(t) == command_id]
        for ticker in asked:
            del subscription.adding[ticker]
        return asked

    def _deleted(self, subscription: Subscription, command: Command, command_id: int) -> None:
        done = [t for t in command.tickers if subscription.deleting.get(t) == command_id]
        for ticker in done:
            del subscription.deleting[ticker]
        back = [ticker for ticker in done if ticker in self.tickers]
        if back:
            self._groups.appendleft(Group(back))

    def on_unsubscribed(self, reply: wire.Unsubscribed) -> None:
        """The exchange has ended a subscription: as asked, or its markets need another."""
        command = self._open.get(reply.id)
        if command is not None and command.kind is Kind.UNSUBSCRIBE:
            del self._open[reply.id]
        self._strays.pop(reply.sid, None)
        subscription = self.subscriptions.get(reply.sid)
        if subscription is not None:
            self._end(subscription, reply.seq or subscription.next_seq)
        self.tick()

    def on_error(self, error: wire.Error) -> None:
        """An error reply: what it ends is lost and made anew, what it refuses is done another way."""
        code = error.msg.code
        command = self._open.get(error.id)
        if command is not None and command.answered and command.kind in _PORTIONS:
            command = None  # it has got what it asked for
        if command is not None:
            del self._open[error.id]
            if command.question:
                self.size.release(self)
        subscription = self.subscriptions.get(error.sid) if error.sid is not None else None
        if code == 9:
            self.closing = f"the exchange wants authentication ({_text(error)})"
        elif subscription is not None and code in wire.TERMINAL_ERRORS:
            self._end(subscription, error.seq or subscription.next_seq)
        elif command is None:
            self._late.pop(error.id, None)
        elif command.kind is Kind.SUBSCRIBE:
            self._subscribe_refused(command, error)
        elif (subscription := self.subscriptions.get(command.sid)) is not None:
            self._update_refused(subscription, command, error)
        self.tick()

    def _subscribe_refused(self, command: Command, error: wire.Error) -> None:
        code, asked = error.msg.code, command.tickers
        named = _named(error).intersection(asked)
        if named:
            self._drop_unknown(named, error)
            self._groups.appendleft(Group([ticker for ticker in asked if ticker not in named]))
        elif code == 26:
            self._too_many(asked, command, 0)
        elif code == 11:
            self._find_unknown(asked, error, command.failures + 1)
        elif code in _RETRIED_ERRORS or self._served:
            self._again(asked, command.failures + 1)
        else:
            self.fatal = SubscriptionError(f"the exchange refused the subscription: {_text(error)}")

    def _too_many(self, asked: list[str], command: Command, carried: int) -> None:
        """Less at a time, until nothing more fits; the rest goes to other connections."""
        self.size.refuse(command.total, carried, self._clock())
        if command.total > 1:
            self._groups.appendleft(Group(asked))
            return
        self.overflow += [ticker for ticker in asked if ticker in self.tickers]
        self._refused_alone += 1  # is it this market, or nothing at all? The others take their time
        due_ns = self._clock() + RETRY.bound_ns(self._refused_alone)
        for group in self._groups:
            group.due_ns = max(group.due_ns, due_ns)

    def _find_unknown(self, asked: list[str], error: wire.Error, depth: int) -> None:
        """One of these is not known to the exchange, which does not say which: in halves it will be found.

        As long as nothing is granted on this connection, the error may be about something else: then all
        that waits keeps the pace, the other half comes first, and a market refused alone is only a suspect.
        """
        if len(asked) == 1 and self._granted_here:
            self._drop_unknown(set(asked), error)
            return
        bound_ns, delay_ns = RETRY.bound_ns(64), RETRY.delay_ns(depth, self._rng)
        due_ns = self._clock() + (bound_ns if self._all_refused else delay_ns)
        self.wake_ns = min(self.wake_ns, due_ns)
        if len(asked) == 1:
            self._suspects[asked[0]] = error
            if len(self._suspects) >= _SINGLES:
                self._refused_in_general(error)
                return
        half = (len(asked) + 1) // 2
        halves = [Group(part, due_ns, depth) for part in (asked[:half], asked[half:]) if len(asked) > 1]
        if self._granted_here:
            self._groups.extendleft(reversed(halves))
            return
        other = [self._groups.popleft()] if self._groups else []
        self._groups.extendleft(reversed([*other, *halves]))
        for group in self._groups:
            group.due_ns = max(group.due_ns, due_ns)

    def _refused_in_general(self, error: wire.Error) -> None:
        """It is not this or that market: all stay wanted, and are asked for again slowly."""
        if not self._all_refused:
            log.warning(
                "the exchange refuses to subscribe any market, %d of them one by one, and has granted none on"
                " this connection (%s): all %d markets stay wanted and are asked for again slowly",
                len(self._suspects),
                _text(error),
                len(self.tickers),
            )
        self._all_refused = True
        self._suspects.clear()
        due_ns = self._clock() + RETRY.bound_ns(64)
        self._queue_all(due_ns)
        self.wake_ns = min(self.wake_ns, due_ns)

    def _judge_suspects(self) -> None:
        """No other market is left that the exchange could grant: they are not known."""
        if self._suspects and self.tickers.keys() <= self._suspects.keys():
            error = next(reversed(self._suspects.values()))
            tickers = self.tickers.keys() & self._suspects.keys()
            self._suspects.clear()
            if tickers:
                self._drop_unknown(tickers, error)

    def _update_refused(self, subscription: Subscription, command: Command, error: wire.Error) -> None:
        code = error.msg.code
        named = _named(error).intersection(command.tickers)
        if code == 7:
            self._end(subscription, subscription.next_seq)
        elif command.kind is Kind.ADD:
            self._add_refused(subscription, command, error)
        elif command.kind is Kind.DELETE:
            if code in _DELETE_AGAIN:
                self._delete_again(subscription, command, error.id, too_often=code == 27)
            else:
                self._deleted(subscription, command, error.id)
        elif command.kind is Kind.SNAPSHOT:
            if named and code == 11 and not command.probe:
                self._drop_unknown(named, error)
                self._let_go(subscription, named & subscription.tickers, set())
            self._unanswered(subscription, command, too_often=code == 27)

    def _add_refused(self, subscription: Subscription, command: Command, error: wire.Error) -> None:
        code = error.msg.code
        refused = self._take_adding(subscription, command, error.id)
        self._set_down(subscription, refused)
        asked = [ticker for ticker in refused if ticker in self.tickers]
        named = _named(error).intersection(asked)
        if named:
            self._drop_unknown(named, error)
            self._groups.appendleft(Group([ticker for ticker in asked if ticker not in named]))
        elif code == 26 and refused:
            self._too_many(asked, command, command.total - len(command.tickers))
        elif code == 11 and asked:
            self._find_unknown(asked, error, command.failures + 1)
        elif asked:
            self._again(asked, command.failures + 1)

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
            if command.deadline_ns <= now and self._open.pop(command_id, None) is not None:
                self._timed_out(command, command_id)
        subscription = self._subscription
        if self._strays and not self._subscribing and (subscription is not None or not self.tickers):
            self._command("unsubscribe", wire.Params(sids=list(self._strays)))
            self._strays.clear()
        self._judge_suspects()
        if subscription is not None:
            self._send_deletes(subscription, now)
        self._place(now)
        for each in self.subscriptions.values():
            self._ask(each, now)
        self.wake_ns = min(
            self.wake_ns,
            min((group.due_ns for group in self._deletes), default=NEVER),
            min((command.deadline_ns for command in self._open.values()), default=NEVER),
        )

    def _timed_out(self, command: Command, command_id: int) -> None:
        if command.question:
            self.size.release(self)
        subscription = self.subscriptions.get(command.sid)
        if command.kind is Kind.SUBSCRIBE and not command.answered:
            if len(self._late) < _LATE_SUBSCRIBES:
                self._late[command_id] = command
            self._again(command.tickers, command.failures + 1)
        elif subscription is None:
            return  # an unsubscribe: if the sid lives on after all, a subscribe is merged into it
        elif command.kind is Kind.ADD and not command.answered:
            asked = self._take_adding(subscription, command, command_id)
            self._set_down(subscription, asked)
            wanted = [ticker for ticker in asked if ticker in self.tickers]
            subscription.doubtful.update(wanted)
            self._again(wanted, command.failures + 1)
            self._delete(subscription, [ticker for ticker in asked if ticker not in self.tickers])
        elif command.kind is Kind.DELETE:
            self._delete_again(subscription, command, command_id)
        else:
            self._unanswered(subscription, command)

    def _delete_again(
        self, subscription: Subscription, command: Command, command_id: int, *, too_often: bool = False
    ) -> None:
        """Ever more slowly. At last it counts as done: frames of these markets are not used in any case."""
        failures = command.failures + 1
        if failures > self._limits.failures and not too_often:
            # Those that are wanted again may be carried still, and then get no snapshot by themselves.
            deleting, wanted = subscription.deleting, self.tickers
            subscription.doubtful.update(
                t for t in command.tickers if deleting.get(t) == command_id and t in wanted
            )
            self._deleted(subscription, command, command_id)
            return
        tickers = [t for t in command.tickers if subscription.deleting.get(t) == command_id]
        self._delete(subscription, tickers, self._clock() + RETRY.delay_ns(failures, self._rng), failures)

    def _unanswered(self, subscription: Subscription, command: Command, *, too_often: bool = False) -> None:
        """The snapshots that have not come are asked for again, slower each time; at last on a new sid,
        unless it is only that we have asked too often. Markets that were put off are no failure of it."""
        if command.probe:
            self._put_off_again(subscription, command)
            return
        if subscription.hold_ns <= self._clock():  # commands that fail together are one failure
            subscription.failures += 1
            if subscription.failures > self._limits.failures and not too_often:
                self._remake(subscription)
                return
            subscription.hold_ns = self._clock() + 1 + RETRY.delay_ns(subscription.failures, self._rng)
        for ticker in command.missing & subscription.waiting.keys():
            subscription.waiting[ticker] = 0
            self._ask_soon(subscription, ticker)

    def _put_off_again(self, subscription: Subscription, command: Command) -> None:
        """Nothing has come of these either: twice as late next time, not all together."""
        for ticker in sorted(command.missing & subscription.waiting.keys()):
            delay_ns = max(2 * subscription.probes.get(ticker, 0), _PROBE_FIRST_NS)
            subscription.probes[ticker] = delay_ns = min(delay_ns, _PROBE_MOST_NS)
            subscription.waiting[ticker] = 0
            due_ns = self._clock() + delay_ns - self._rng.randrange(delay_ns // 2)
            subscription.put_off[ticker] = due_ns
            self.wake_ns = min(self.wake_ns, due_ns)

    def _remake(self, subscription: Subscription) -> None:
        """Unsubscribe and subscribe: a new sid, with numbers from 1."""
        self._unsubscribe(subscription.sid)
        self._end(subscription, subscription.next_seq)

    def _end(self, subscription: Subscription, seq: int) -> None:
        """The subscription is over; its markets get another one, the later the less each one lives."""
        self._lose(subscription, sorted(subscription.tickers), seq)
        self._drop(subscription)
        healthy = self._clock() - subscription.opened_ns >= _HEALTHY_NS
        failures = 1 if healthy else subscription.lives + 1
        due_ns = self._clock() + RETRY.delay_ns(failures, self._rng)
        self._queue_all(due_ns, failures)
        self.wake_ns = min(self.wake_ns, due_ns)

    def _drop(self, subscription: Subscription) -> None:
        subscription.ended = True
        self.subscriptions.pop(subscription.sid, None)
        self._deletes.clear()
        for command_id, command in list(self._open.items()):
            if command.sid == subscription.sid and command.kind is not Kind.UNSUBSCRIBE:
                del self._open[command_id]
                if command.question:
                    self.size.release(self)

    # --- commands ---------------------------------------------------------------------------------

    def _queue_all(self, due_ns: int = 0, failures: int = 0) -> None:
        """All that is wanted, to be subscribed from the beginning."""
        elsewhere = set(self.overflow)
        self._groups.clear()
        self._queue([ticker for ticker in self.tickers if ticker not in elsewhere], due_ns, failures)

    def _queue(self, tickers: list[str], due_ns: int = 0, failures: int = 0) -> None:
        portion = self._limits.markets_per_command
        for start in range(0, len(tickers), portion):
            self._groups.append(Group(tickers[start : start + portion], due_ns, failures))

    def _again(self, tickers: list[str], failures: int) -> None:
        due_ns = self._clock() + RETRY.delay_ns(failures, self._rng)
        self._queue(tickers, due_ns, failures)
        self.wake_ns = min(self.wake_ns, due_ns)

    def _place(self, now: int) -> None:
        """Subscribes, or adds to the subscription, what is due, as far as there is room for it now."""
        waiting: list[Group] = []
        while self._groups:
            group = self._groups.popleft()
            if group.due_ns > now:
                waiting.append(group)
                self.wake_ns = min(self.wake_ns, group.due_ns)
                continue
            subscription = self._subscription
            wanted = self._wanted(group, subscription)
            if not wanted:
                continue
            if self._busy(subscription):  # what it waits for will call again
                self._groups.appendleft(Group(wanted, 0, group.failures))
                break
            carried = 0 if subscription is None else subscription.counted
            count, question = self.size.next(carried, len(wanted), self, now)
            on_its_way = subscription is not None and bool(subscription.adding)
            if not count and self.size.full(carried, now):
                if subscription is not None and subscription.deleting:
                    self._groups.appendleft(Group(wanted, 0, group.failures))
                    break  # there will be room
                self.overflow += wanted
                continue
            if not count or (question and on_its_way):
                self._groups.appendleft(Group(wanted, 0, group.failures))
                self.wake_ns = min(self.wake_ns, now + _ASK_AGAIN_NS)
                break
            if count < len(wanted):
                self._groups.appendleft(Group(wanted[count:], 0, group.failures))
            self._send(subscription, wanted[:count], group.failures, carried + count, question=question)
        self._groups.extendleft(reversed(waiting))

    def _wanted(self, group: Group, subscription: Subscription | None) -> list[str]:
        """Those of a group that are wanted, and neither carried nor on their way in or out."""
        wanted = [ticker for ticker in group.tickers if ticker in self.tickers]
        if subscription is None:
            return wanted
        placed, adding, deleting = subscription.tickers, subscription.adding, subscription.deleting
        return [t for t in wanted if t not in placed and t not in adding and t not in deleting]

    def _busy(self, subscription: Subscription | None) -> bool:
        """No further portion now: so many are on their way, or the sid that was is not over yet."""
        kinds = [command.kind for command in self._open.values()]
        if subscription is None:  # else it would be merged into what is about to end
            return self._subscribing or Kind.UNSUBSCRIBE in kinds
        return sum(kind in _PORTIONS for kind in kinds) >= self._limits.portions

    def _send(
        self,
        subscription: Subscription | None,
        tickers: list[str],
        failures: int,
        total: int,
        *,
        question: bool,
    ) -> None:
        if question:
            self.size.ask(self)
        if subscription is None:
            # The default of use_yes_price is going to change: it is always said.
            params = wire.Params(
                channels=[CHANNEL],
                market_tickers=tickers,
                skip_ticker_ack=True,
                use_yes_price=self.use_yes_price,
            )
            command_id = self._command("subscribe", params)
            self._await(Kind.SUBSCRIBE, 0, tickers, command_id, failures, total, question=question)
            return
        command_id = self._update(subscription, "add_markets", tickers)
        command = self._await(
            Kind.ADD, subscription.sid, tickers, command_id, failures, total, question=question
        )
        subscription.tickers.update(tickers)
        subscription.adding.update(dict.fromkeys(tickers, command_id))
        self._expect(subscription, command, tickers, command_id)

    def _send_deletes(self, subscription: Subscription, now: int) -> None:
        waiting: list[Group] = []
        on_their_way = sum(command.kind is Kind.DELETE for command in self._open.values())
        while self._deletes and on_their_way < self._limits.portions:
            group = self._deletes.popleft()
            if group.due_ns > now:
                waiting.append(group)
                continue
            command_id = self._update(subscription, "delete_markets", group.tickers)
            self._await(Kind.DELETE, subscription.sid, group.tickers, command_id, group.failures)
            subscription.deleting.update(dict.fromkeys(group.tickers, command_id))
            on_their_way += 1
        self._deletes.extendleft(reversed(waiting))

    @staticmethod
    def _ask_soon(subscription: Subscription, ticker: str) -> None:
        if ticker not in subscription.due:
            subscription.due[ticker] = None
            subscription.order.clear()  # to be sorted anew

    def _ask(self, subscription: Subscription, now: int) -> None:
        """Requests the snapshots that are due, the busiest markets first, no faster than allowed."""
        for ticker, (_, due_ns) in subscription.aside.items():
            if ticker in subscription.due or subscription.waiting.get(ticker) != 0:
                continue
            if due_ns <= now:
                self._ask_soon(subscription, ticker)
            else:
                self.wake_ns = min(self.wake_ns, due_ns)
        for ticker, due_ns in list(subscription.put_off.items()):
            if due_ns <= now:
                del subscription.put_off[ticker]
                self._ask_soon(subscription, ticker)
            else:
                self.wake_ns = min(self.wake_ns, due_ns)
        if not subscription.due:
            return
        limits, order = self._limits, subscription.order
        ahead_ns = (limits.command_burst - 1) * limits.command_interval_ns
        earliest_ns = max(subscription.hold_ns, subscription.paced_ns - ahead_ns)
        while subscription.due and earliest_ns <= now:
            if not order:
                probes = subscription.probes
                order += sorted(
                    subscription.due, key=lambda t: (t in probes, -self.activity(t), t), reverse=True
                )
            tickers: list[str] = []
            probe = order[-1] in subscription.probes
            while order and len(tickers) < limits.snapshots_per_command:
                if (order[-1] in subscription.probes) != probe:
                    break  # what is put off must not be the failure of a command that repairs
                ticker = order.pop()
                if subscription.due.pop(ticker, subscription) is None:
                    tickers.append(ticker)
            if tickers:
                command_id = self._update(subscription, "get_snapshot", tickers)
                command = self._await(Kind.SNAPSHOT, subscription.sid, tickers, command_id)
                command.answered = True  # by the snapshots themselves
                command.probe = probe
                self._expect(subscription, command, tickers, command_id)
                self.requests += 1
            earliest_ns = subscription.paced_ns - ahead_ns
        if subscription.due:
            self.wake_ns = min(self.wake_ns, earliest_ns)

    def _update(self, subscription: Subscription, action: str, tickers: list[str]) -> int:
        params = wire.Params(sid=subscription.sid, market_tickers=tickers, action=action)
        subscription.paced_ns = max(subscription.paced_ns, self._clock()) + self._limits.command_interval_ns
        return self._command("update_subscription", params)

    def _await(
        self,
        kind: Kind,
        sid: int,
        tickers: list[str],
        command_id: int,
        failures: int = 0,
        total: int = 0,
        *,
        question: bool = False,
    ) -> Command:
        """An answer has to come in time."""
        deadline_ns = self._clock() + self._limits.reply_ns
        command = Command(kind, sid, tickers, deadline_ns, failures, total, question)
        self._open[command_id] = command
        self.wake_ns = min(self.wake_ns, deadline_ns)
        return command

    def _unsubscribe(self, sid: int) -> None:
        command_id = self._command("unsubscribe", wire.Params(sids=[sid]))
        self._await(Kind.UNSUBSCRIBE, sid, [], command_id)

    def _command(self, cmd: str, params: wire.Params) -> int:
        command_id = self._next_id
        self._next_id += 1
        self.outbox.append(wire.encode(wire.Command(cmd, command_id, params)))
        return command_id


def _named(error: wire.Error) -> set[str]:
    return {*(error.msg.market_tickers or ()), *filter(None, [error.msg.market_ticker])}


def _text(error: wire.Error) -> str:
    text = error.msg.msg or wire.ERROR_TEXTS.get(error.msg.code, "no reason given")
    return f"error {error.msg.code}: {text}"
