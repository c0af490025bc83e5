"""The subscriptions of one connection to the channels beside the order book, sans I/O: replies, sequence
numbers and a clock in; commands and interruptions out.

A connection has one sid a channel, as recordings of production of 2026 show: the first subscribe is
answered by ``subscribed``, a further one is merged into the same sid and answered by ``ok`` (that of
``ticker`` has no number, for ``ticker`` has no sequence). So there is one subscribe a channel, and no other
one before the sid that was has ended. ``trade`` and ``ticker`` are asked for by market while the markets are
few, else for all of them: what nobody wants is then left out here (``streams``). When the last market
is gone they are not subscribed until there is one again. The life-cycle channels take
no markets. What ends is made anew, ever more slowly; a channel that the exchange does not know, on the next
connection. The rules of sequences are those of ``session``. Commands wait in ``outbox``; ``interrupted`` are
the channels of which something was missed and ``granted`` those that are carried (again), each until it is
taken note of. ``tick`` is to be called from ``wake_ns`` on. Not here: order books (``session``), what the
frames say (``link``).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from kalshi_fast import wire
from kalshi_fast.backoff import NS, Scale
from kalshi_fast.channels.reference import NAMES_REQUIRED, listing_action, seeds
from kalshi_fast.subscription import Verdict

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterable, Mapping

    from kalshi_fast.errors import SubscriptionError

TRADE: Final = "trade"
TICKER: Final = "ticker"
LIFECYCLE: Final = "market_lifecycle_v2"
MULTIVARIATE: Final = "multivariate_market_lifecycle"
CHANNELS: Final = (TRADE, TICKER, LIFECYCLE, MULTIVARIATE)
BY_MARKET: Final = (TRADE, TICKER)  # their subscriptions may name markets

NEVER: Final = 2**63 - 1
RETRY: Final = Scale(NS // 10, 30 * NS)
REPLY_NS: Final = 5 * NS
_REPEATS: Final = 100  # so many known numbers in a row, and none that is due: the sid counts anew
_HEALTHY_NS: Final = 60 * NS
_REFUSALS: Final = 5  # so many failures in a row, and a channel counts as refused
_BY_MARKET_REFUSED: Final = (11, 14, 26)  # one that is not known, none that is, too many
_LATE: Final = 100


@dataclass(slots=True)
class _Channel:
    """``sid`` None: not carried. ``asked``: id of the subscribe that is on its way. ``markets``: whose the
    subscription is, None: of all. ``update``: id of the last change of them, until it is answered.
    ``ending``: the sid that is to end before the channel is subscribed again."""

    name: str
    sid: int | None = None
    next_seq: int = 1
    repeats: int = 0
    asked: int = 0
    update: int = 0
    deadline_ns: int = NEVER
    due_ns: int = 0
    failures: int = 0
    granted_ns: int = 0
    markets: set[str] | None = None
    adding: set[str] = field(default_factory=set)  # with the last change
    whole: bool = False  # by market it was refused: for all markets from then on
    ending: int | None = None
    ending_ns: int = NEVER


class ChannelSession:
    """``ChannelSession(channels, tickers, clock=…, rng=…)``: wants these channels on every connection."""

    def __init__(
        self,
        channels: Iterable[str],
        tickers: Iterable[str],
        *,
        clock: Callable[[], int],
        rng: random.Random,
        most_markets: int = 1000,
        reference: Mapping[str, tuple[str, ...]] | None = None,
    ) -> None:
        self.reference = dict(reference or {})  # by channel: the indices or underlyings that are asked for
        self.tickers: dict[str, None] = dict.fromkeys(tickers)
        self.channels = tuple(dict.fromkeys(channels))
        self.outbox: list[bytes] = []
        self.interrupted: list[str] = []
        self.granted: list[str] = []
        self.unknown: list[str] = []  # channels that the exchange would not have when last asked for them
        self.fatal: SubscriptionError | None = None
        self.closing: str | None = None  # why this connection is of no use any more
        self.again_soon = False  # the next connection mends that
        self.missing = (0, 0)  # the numbers of the last GAP, both included
        self.wake_ns = NEVER
        self._clock = clock
        self._rng = rng
        self._most_markets = most_markets
        self._by_market = bool(self.tickers)  # markets have been named, ever: none is then not all of them
        self._next_id = 1
        self._channels: list[_Channel] = []
        self._by_sid: dict[int, _Channel] = {}
        self._late: dict[int, str] = {}  # subscribes that were given up, and their channel

    # --- the connection ---------------------------------------------------------------------------

    def opened(self) -> None:
        """A new connection is up: everything of the old one is void."""
        self.closing = None
        self.outbox.clear()
        self._next_id = 1
        self._by_sid.clear()
        self._late.clear()
        self._channels = [_Channel(name) for name in self.channels]
        self.tick()

    def closed(self) -> None:
        """The connection is gone, and every subscription with it."""
        self.interrupted += [channel.name for channel in self._channels if channel.sid is not None]
        self._channels = []
        self._by_sid.clear()
        self.outbox.clear()
        self.wake_ns = NEVER

    # --- frames -----------------------------------------------------------------------------------

    def channel_of(self, sid: int | None) -> str | None:
        """The channel that this subscription carries, None when it is none of ours."""
        channel = self._by_sid.get(sid) if sid is not None else None
        return None if channel is None else channel.name

    def sid_of(self, name: str) -> int | None:
        """The subscription that carries this channel, None when none does."""
        return next((channel.sid for channel in self._channels if channel.name == name), None)

    def carries(self, name: str) -> bool:
        """Frames of this channel come on this connection."""
        return any(channel.name == name and channel.sid is not None for channel in self._channels)

    @property
    def refused(self) -> list[str]:
        """Channels that are wanted and that the exchange does not give us: it does not know them, or has
        failed to begin them time and again."""
        failing = (c.name for c in self._channels if c.sid is None and c.failures >= _REFUSALS)
        return [*self.unknown, *(name for name in failing if name not in self.unknown)]

    def hears(self, name: str, ticker: str) -> bool:
        """Everything of this market comes on this channel: the exchange has said so."""
        for channel in self._channels:
            if channel.name == name and channel.sid is not None:
                unanswered = channel.asked or (channel.update and ticker in channel.adding)
                return channel.markets is None or (ticker in channel.markets and not unanswered)
        return False

    def receive(self, sid: int, seq: int) -> Verdict:
        """Counts one frame of a sequence. After a GAP the sequence goes on behind this frame."""
        channel = self._by_sid.get(sid)
        if channel is None:
            return Verdict.FOREIGN
        if seq == channel.next_seq:
            channel.next_seq, channel.repeats = seq + 1, 0
            return Verdict.IN_ORDER
        if seq < channel.next_seq:
            channel.repeats += 1
            if channel.repeats >= _REPEATS:
                self._unsubscribe(channel)
                self._end(channel)
            return Verdict.REPEATED
        self.missing = (channel.next_seq, seq - 1)
        channel.next_seq, channel.repeats = seq + 1, 0
        self.interrupted.append(channel.name)
        self.granted.append(channel.name)  # it goes on at once
        return Verdict.GAP

    def miss(self, sid: int | None) -> None:
        """A frame of this subscription could not be used; None: nobody can say of which."""
        for channel in self._channels:
            if channel.sid is not None and sid in (None, channel.sid):
                self.interrupted.append(channel.name)
                self.granted.append(channel.name)

    # --- wishes -----------------------------------------------------------------------------------

    def add(self, tickers: Iterable[str]) -> None:
        """These markets too, from now on."""
        self.tickers.update(dict.fromkeys(tickers))
        self._by_market = self._by_market or bool(self.tickers)
        self.tick()

    def remove(self, tickers: Iterable[str]) -> None:
        """These markets are not wanted any more."""
        for ticker in tickers:
            self.tickers.pop(ticker, None)
        self.tick()

    # --- replies ----------------------------------------------------------------------------------

    def on_subscribed(self, reply: wire.Subscribed) -> None:
        channel = self._answered(reply.id, reply.msg.channel)
        if channel is not None:
            self._carried(channel, reply.msg.sid, 1)
        self.tick()

    def _answered(self, command_id: int, name: str | None) -> _Channel | None:
        """The channel whose subscribe is answered, late or not; ``name``: as the answer has it."""
        late = self._late.pop(command_id, None)
        for channel in self._channels:
            mine = bool(command_id) and channel.asked == command_id
            if mine:
                channel.asked, channel.deadline_ns = 0, NEVER
            if (mine or late == channel.name) and name in (None, channel.name):
                return channel
        return None

    def _carried(self, channel: _Channel, sid: int, next_seq: int) -> None:
        """The exchange carries the channel by this sid."""
        if channel.sid == sid:
            return  # the same subscription, granted or added to once more
        if channel.sid is not None:  # it has one sid a channel: the last it has named
            self._end(channel, at_once=True)
        channel.sid, channel.next_seq, channel.repeats = sid, next_seq, 0
        channel.granted_ns = self._clock()
        channel.ending = None
        self._by_sid[sid] = channel
        if channel.name in self.unknown:
            self.unknown.remove(channel.name)
        self.granted.append(channel.name)
        if action := listing_action(channel.name, self.reference):
            self._command("update_subscription", wire.Params(sid=channel.sid, action=action))

    def grant(self, name: str, sid: int, seq: int) -> None:
        """This subscription carries the channel from this number on, asked for or not: frames played again
        have no replies to commands before them."""
        channel = next((c for c in self._channels if c.name == name), None)
        if channel is None:
            channel = _Channel(name)
            self._channels.append(channel)
        elif channel.sid is not None:
            self._by_sid.pop(channel.sid, None)
        channel.sid, channel.next_seq, channel.repeats = sid, seq, 0
        channel.asked, channel.deadline_ns = 0, NEVER
        self._by_sid[sid] = channel

    def on_ok(self, reply: wire.Ok) -> None:
        """A change is made; in answer to a subscribe: the channel had a sid, and this is added to it."""
        if reply.sid is not None and (carried := self._answered(reply.id, None)) is not None:
            self._carried(carried, reply.sid, (reply.seq or 0) + 1)
        for channel in self._channels:
            if reply.id and channel.update == reply.id:
                channel.update, channel.deadline_ns = 0, NEVER
        self.tick()

    def on_unsubscribed(self, reply: wire.Unsubscribed) -> None:
        channel = self._by_sid.get(reply.sid)
        if channel is not None:
            self._end(channel)
        for waiting in self._channels:
            if waiting.ending == reply.sid:
                waiting.ending = None
        self.tick()

    def on_error(self, error: wire.Error) -> None:
        code = error.msg.code
        scoped = self._by_sid.get(error.sid) if error.sid is not None else None
        if code == 9:
            self.closing = f"the exchange wants authentication (error 9: {error.msg.msg})"
        elif scoped is not None and code in wire.TERMINAL_ERRORS:
            self._end(scoped)
        elif error.id:
            self._late.pop(error.id, None)
            for channel in list(self._channels):
                if channel.asked == error.id:
                    self._refused(channel, code)
                elif channel.update == error.id:
                    self._change_failed(channel)
        self.tick()

    def _refused(self, channel: _Channel, code: int) -> None:
        channel.asked, channel.deadline_ns = 0, NEVER
        if code == 8 or code in NAMES_REQUIRED:
            if channel.name not in self.unknown:
                self.unknown.append(channel.name)
            self._channels.remove(channel)
        elif channel.markets is not None and not channel.whole and code in _BY_MARKET_REFUSED:
            channel.whole = True
        else:
            self._later(channel)

    def _change_failed(self, channel: _Channel) -> None:
        """Which markets it carries is not known any more: a subscription to all of them takes its place."""
        assert channel.sid is not None  # noqa: S101 - only a carried one is changed
        channel.whole = True
        self._unsubscribe(channel)
        self._end(channel, at_once=True)

    def _end(self, channel: _Channel, *, at_once: bool = False) -> None:
        if channel.sid is not None:
            del self._by_sid[channel.sid]
            channel.sid = None
            self.interrupted.append(channel.name)
        channel.asked = channel.update = 0
        channel.deadline_ns = NEVER
        if self._clock() - channel.granted_ns >= _HEALTHY_NS:
            channel.failures = 0
        if at_once:
            channel.due_ns = 0
        else:
            self._later(channel)
        self.wake_ns = min(self.wake_ns, channel.due_ns)

    def _later(self, channel: _Channel) -> None:
        channel.failures += 1
        channel.due_ns = self._clock() + RETRY.delay_ns(channel.failures, self._rng)

    # --- time -------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Does what is due: subscriptions, changes of their markets, answers that have not come."""
        now = self._clock()
        self.wake_ns = NEVER
        for channel in self._channels:
            if channel.deadline_ns <= now:
                if channel.update:
                    self._change_failed(channel)
                else:
                    if len(self._late) < _LATE:
                        self._late[channel.asked] = channel.name
                    channel.asked, channel.deadline_ns = 0, NEVER
                    self._later(channel)
            if channel.ending is not None and channel.ending_ns <= now:
                channel.ending = None  # if it lives on after all, the subscribe is merged into it
            if channel.sid is None and not channel.asked:
                if self._idle(channel):
                    continue
                due_ns = channel.due_ns if channel.ending is None else channel.ending_ns
                if due_ns <= now:
                    self._subscribe(channel, now)
                else:
                    self.wake_ns = min(self.wake_ns, due_ns)
            elif not channel.asked and self._idle(channel):
                self._unsubscribe(channel)
                self._end(channel, at_once=True)
                self.wake_ns = min(self.wake_ns, channel.ending_ns)
            elif channel.markets is not None and not channel.update and not channel.asked:
                self._follow(channel, now)
            self.wake_ns = min(self.wake_ns, channel.deadline_ns)

    def _idle(self, channel: _Channel) -> bool:
        """Nothing of this channel is wanted until there are markets again."""
        return channel.name in BY_MARKET and self._by_market and not self.tickers

    def _subscribe(self, channel: _Channel, now: int) -> None:
        by_market = channel.name in BY_MARKET and not channel.whole
        channel.markets = (
            set(self.tickers) if by_market and 0 < len(self.tickers) <= self._most_markets else None
        )
        params = wire.Params(
            channels=[channel.name],
            market_tickers=None if channel.markets is None else sorted(channel.markets),
            send_initial_snapshot=True if channel.name == TICKER else None,
            skip_ticker_ack=None if channel.markets is None else True,
            **seeds(channel.name, self.reference),
        )
        channel.asked = self._command("subscribe", params)
        channel.deadline_ns = now + REPLY_NS

    def _follow(self, channel: _Channel, now: int) -> None:
        """Its markets become those that are wanted: first those that come, then those that go."""
        assert channel.markets is not None  # noqa: S101 - asked by the caller
        assert channel.sid is not None  # noqa: S101 - asked by the caller
        gone, new = channel.markets - self.tickers.keys(), self.tickers.keys() - channel.markets
        if not gone and not new:
            return
        if len(self.tickers) > self._most_markets:
            self._change_failed(channel)
            self.wake_ns = min(self.wake_ns, channel.ending_ns)
            return
        action, tickers = ("add_markets", new) if new else ("delete_markets", gone)
        channel.markets = channel.markets | new if new else channel.markets - gone
        channel.adding = new
        params = wire.Params(sid=channel.sid, market_tickers=sorted(tickers), action=action)
        channel.update = self._command("update_subscription", params)
        channel.deadline_ns = now + REPLY_NS

    def _unsubscribe(self, channel: _Channel) -> None:
        assert channel.sid is not None  # noqa: S101 - only a carried one is ended
        self._command("unsubscribe", wire.Params(sids=[channel.sid]))
        channel.ending, channel.ending_ns = channel.sid, self._clock() + REPLY_NS

    def _command(self, cmd: str, params: wire.Params) -> int:
        command_id = self._next_id
        self._next_id += 1
        self.outbox.append(wire.encode(wire.Command(cmd, command_id, params)))
        return command_id
