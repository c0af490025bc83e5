"""What a client may command, and the reply or refusal of each command.

A connection has one sid a channel: the first subscribe is answered by ``subscribed``, a further one is merged
into it and answered by ``ok``, and snapshots follow of the markets that are new (recordings of production,
August and September 2026; there 12 subscribes in flight were answered out of order). A ticker that the
exchange does not know gets an empty snapshot with an empty id (as on the demo exchange). Errors 10, 11, 25,
26 and 27 are in no recording: Kalshi's AsyncAPI document 2.0.0 names them, when they come here is a guess.
``old_sids`` and ``refuse_unknown`` bring back what this simulator did before: a sid for every subscribe, and
error 11 for tickers it does not know.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast import wire
from kalshi_fast.config import REFERENCE_CHANNELS
from kalshi_fast.errors import FrameError
from kalshi_fast.simulator import replies
from kalshi_fast.simulator.subscription import (
    BOOKS,
    BY_MARKET,
    CHANNELS,
    FILL,
    TICKER,
    TRADE,
    RefusedError,
    Subscription,
    key,
)

if TYPE_CHECKING:
    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange


WITHOUT_BOOKS_S: Final = 1.0  # so long the play waits for a subscription to books
SHUFFLE_S: Final = 0.02  # so much later a command may be obeyed, when answers come out of order


class Commands:
    """The commands of one connection."""

    def __init__(self, client: Client, exchange: Exchange) -> None:
        self._client = client
        self._exchange = exchange
        self._last_sid = 0
        self._rng = random.Random(f"{exchange.seed} commands {client.number}")  # noqa: S311 - a simulation

    def obey(self, payload: bytes) -> None:
        if self._exchange.conditions.out_of_order:
            asyncio.get_running_loop().call_later(self._rng.uniform(0, SHUFFLE_S), self._obey, payload)
        else:
            self._obey(payload)

    def _obey(self, payload: bytes) -> None:
        if self._client.transport is None:
            return  # it has left meanwhile
        try:
            command = wire.decode_command(payload)
        except FrameError:
            self._refused(0, RefusedError(1))
            return
        commands = self._exchange.stats.commands
        commands[command.cmd] = commands.get(command.cmd, 0) + 1
        handlers = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "update_subscription": self._update,
            "list_subscriptions": self._list,
        }
        params = command.params or wire.Params()
        try:
            handler = handlers.get(command.cmd)
            if handler is None:
                raise RefusedError(5)
            if command.params is None and command.cmd != "list_subscriptions":
                raise RefusedError(2)
            handler(command.id, params)
        except RefusedError as refused:
            sids = _sids(params)
            scope = self._client.subscriptions.get(sids[0]) if len(sids) == 1 else None
            self._refused(command.id, refused, scope)

    def _refused(self, command_id: int, refused: RefusedError, scope: Subscription | None = None) -> None:
        """Scoped to the subscription that the command names, if there is one: then it takes a seq."""
        counts = self._exchange.stats.commands_refused
        code = str(refused.body.code)
        counts[code] = counts.get(code, 0) + 1
        self._client.send(replies.error(refused.body, command_id, scope))

    def _subscribe(self, command_id: int, params: wire.Params) -> None:
        """Every channel by itself: what is wrong with one of them is no matter of the others (recorded)."""
        channels = list(dict.fromkeys(params.channels or ()))
        if not channels:
            raise RefusedError(3)
        conditions = self._exchange.conditions
        if conditions.subscribe_refusals:
            raise RefusedError(conditions.subscribe_refusals.popleft())
        granted = set()
        for channel in channels:
            try:
                self._subscribe_to(channel, command_id, params)
                granted.add(channel)
            except RefusedError as refused:
                self._refused(command_id, refused)
        if BOOKS in granted:
            self._exchange.subscribed.set()
        elif granted:  # whoever wants books too, on another connection, is to have them from the beginning
            asyncio.get_running_loop().call_later(WITHOUT_BOOKS_S, self._exchange.subscribed.set)

    def _subscribe_to(self, channel: str, command_id: int, params: wire.Params) -> None:
        if channel not in CHANNELS:
            raise RefusedError(8)
        named = bool(params.market_tickers or params.market_ticker)
        tickers = self._known(params) if channel == BOOKS or (named and channel in BY_MARKET) else []
        held = None
        if not self._exchange.old_sids:
            held = next((s for s in self._client.subscriptions.values() if s.channel == channel), None)
        if held is not None:
            held.silent_acks = bool(params.skip_ticker_ack)
            self._exchange.reference.listens(held, params)
            self._merge(held, command_id, tickers, whole=channel not in BY_MARKET or not named)
            return
        self._check_market_limit(len(tickers))
        most = self._exchange.max_subscriptions
        if most is not None and len(self._client.subscriptions) >= most:
            raise RefusedError(1)
        self._last_sid = self._exchange.next_sid(self._last_sid)
        subscription = Subscription(
            self._last_sid,
            channel,
            tickers=set(tickers),
            silent_acks=bool(params.skip_ticker_ack),
            yes_scale=self._exchange.on_yes_scale(asked=bool(params.use_yes_price)),
            whole=channel not in BY_MARKET or not named,
            quotes=bool(params.send_initial_snapshot),
        )
        self._client.subscriptions[subscription.sid] = subscription
        self._exchange.carry(self._client, subscription, subscription.keys)
        self._answer(subscription, replies.subscribed(command_id, subscription), tickers)
        self._exchange.reference.listens(subscription, params)
        if channel in (TRADE, TICKER, FILL):
            self._exchange.tape.active = True
            if subscription.quotes:
                self._tickers(subscription, tickers or list(self._exchange.source.books))

    def _merge(
        self, subscription: Subscription, command_id: int, tickers: list[str], *, whole: bool = False
    ) -> None:
        """More markets for a subscription, whatever command has asked for them."""
        new = [ticker for ticker in tickers if ticker not in subscription.tickers]
        if new:
            self._check_market_limit(len(subscription.tickers) + len(new))
        if whole and not subscription.whole:
            self._exchange.drop(self._client, subscription, subscription.keys)
            subscription.whole = True
            self._exchange.carry(self._client, subscription, subscription.keys)
        elif not subscription.whole:
            subscription.tickers.update(new)
            self._exchange.carry(self._client, subscription, [key(subscription.channel, t) for t in new])
        self._answer(subscription, None, new, command_id)
        if subscription.channel == TICKER and subscription.quotes:
            self._tickers(subscription, new)

    def _answer(
        self, subscription: Subscription, reply: bytes | None, new: list[str], command_id: int = 0
    ) -> None:
        """The reply (None: an ``ok``) and the snapshots; out of order, some of these before it."""
        if subscription.channel != BOOKS:
            new = []
        conditions = self._exchange.conditions
        before = self._rng.randint(0, len(new)) if conditions.out_of_order and self._rng.random() < 0.3 else 0
        self._client.snapshots(subscription, new[:before])
        if reply is None:
            silent = subscription.silent_acks or subscription.whole
            reply = replies.ok(command_id, subscription, None if silent else sorted(subscription.tickers))
            if new and conditions.cut_merge:
                conditions.cut_merge = False
                self._client.send(reply)
                self._client.snapshots(subscription, new[before : (before + len(new)) // 2])
                self._client.faulty().hung = True  # and is heard of no more
        self._client.send(reply)
        self._client.snapshots(subscription, new[before:])

    def _unsubscribe(self, command_id: int, params: wire.Params) -> None:
        if not params.sids:
            raise RefusedError(4)
        if not set(params.sids) <= set(self._client.subscriptions):
            raise RefusedError(7)
        for sid in dict.fromkeys(params.sids):
            subscription = self._client.subscriptions[sid]
            self._client.end(subscription)
            self._client.send(replies.unsubscribed(command_id, subscription))

    def _update(self, command_id: int, params: wire.Params) -> None:
        sids = _sids(params)
        if len(sids) != 1:
            raise RefusedError(12)
        subscription = self._client.subscriptions.get(sids[0])
        if subscription is None:
            raise RefusedError(7)
        if self._exchange.conditions.rate_limited:
            raise RefusedError(27)
        if not params.action:
            raise RefusedError(15)
        if subscription.channel in REFERENCE_CHANNELS:
            self._exchange.reference.update(self._client, subscription, command_id, params)
            return
        actions = set() if subscription.whole else {"add_markets", "delete_markets"}
        if subscription.channel == BOOKS:
            actions = {"add_markets", "delete_markets", "get_snapshot"}
        if params.action not in actions:
            raise RefusedError(13)
        tickers = self._known(params)
        if params.action == "get_snapshot":
            if not set(tickers) <= subscription.tickers:
                raise RefusedError(11, tickers=[t for t in tickers if t not in subscription.tickers])
            self._client.snapshots(subscription, tickers, command_id)
        elif params.action == "add_markets":
            self._merge(subscription, command_id, tickers)
        else:
            gone = [ticker for ticker in tickers if ticker in subscription.tickers]
            subscription.tickers.difference_update(gone)
            self._exchange.drop(self._client, subscription, [key(subscription.channel, t) for t in gone])
            self._answer(subscription, None, [], command_id)

    def _tickers(self, subscription: Subscription, tickers: list[str]) -> None:
        books, now_us = self._exchange.source.books, time.time_ns() // 1000
        for ticker in (ticker for ticker in tickers if ticker in books):
            self._exchange.tape.ticker(self._client, subscription, books[ticker], now_us)

    def _list(self, command_id: int, params: wire.Params) -> None:
        self._client.send(replies.listing(command_id, list(self._client.subscriptions.values())))

    def _check_market_limit(self, markets: int) -> None:
        limits = (self._exchange.conditions.market_limit, self._exchange.market_limit)
        if any(limit is not None and markets > limit for limit in limits):
            raise RefusedError(26)

    def _known(self, params: wire.Params) -> list[str]:
        """The markets that a command names, each once."""
        named = [*(params.market_tickers or ()), *filter(None, [params.market_ticker])]
        tickers = list(dict.fromkeys(named))
        if not tickers:
            raise RefusedError(14)
        if self._exchange.refuse_unknown:
            unknown = [ticker for ticker in tickers if ticker not in self._exchange.source.books]
            if unknown:
                raise RefusedError(11, tickers=unknown)
        return tickers


def _sids(params: wire.Params) -> list[int]:
    return [*(params.sids or ()), *([params.sid] if params.sid is not None else ())]
