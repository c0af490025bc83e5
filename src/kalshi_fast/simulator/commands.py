"""What a client may command, and the reply or refusal of each command.

Source: Kalshi's AsyncAPI document 2.0.0 (commands, error codes, which replies take a number).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast import wire
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
    error_body,
    key,
)

if TYPE_CHECKING:
    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange


WITHOUT_BOOKS_S: Final = 1.0  # so long the play waits for a subscription to books


class Commands:
    """The commands of one connection."""

    def __init__(self, client: Client, exchange: Exchange) -> None:
        self._client = client
        self._exchange = exchange
        self._last_sid = 0

    def obey(self, payload: bytes) -> None:
        try:
            command = wire.decode_command(payload)
        except FrameError:
            self._client.send(replies.error(error_body(1)))
            return
        handlers = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "update_subscription": self._update,
            "list_subscriptions": self._list,
        }
        try:
            handler = handlers.get(command.cmd)
            if handler is None:
                raise RefusedError(5)
            if command.params is None and command.cmd != "list_subscriptions":
                raise RefusedError(2)
            handler(command.id, command.params or wire.Params())
        except RefusedError as refused:
            self._refuse(command, refused)

    def _refuse(self, command: wire.Command, refused: RefusedError) -> None:
        """Scoped to the subscription that the command names, if there is one: then it takes a seq."""
        params = command.params or wire.Params()
        sids = _sids(params)
        subscription = self._client.subscriptions.get(sids[0]) if len(sids) == 1 else None
        self._client.send(replies.error(refused.body, command.id, subscription))

    def _subscribe(self, command_id: int, params: wire.Params) -> None:
        channels = list(dict.fromkeys(params.channels or ()))
        if not channels:
            raise RefusedError(3)
        if not set(channels) <= set(CHANNELS):
            raise RefusedError(8)
        named = bool(params.market_tickers or params.market_ticker)
        tickers = self._known(params) if named or BOOKS in channels else []
        self._check_market_limit(len(tickers))
        most = self._exchange.max_subscriptions
        if most is not None and len(self._client.subscriptions) + len(channels) > most:
            raise RefusedError(1)
        for channel in channels:
            self._last_sid = self._exchange.next_sid(self._last_sid)
            subscription = Subscription(
                self._last_sid,
                channel,
                set(tickers) if channel in BY_MARKET else set(),
                silent_acks=bool(params.skip_ticker_ack),
                yes_scale=self._exchange.on_yes_scale(asked=bool(params.use_yes_price)),
                whole=channel not in BY_MARKET or not tickers,
            )
            self._client.subscriptions[subscription.sid] = subscription
            self._exchange.carry(self._client, subscription, subscription.keys)
            self._client.send(replies.subscribed(command_id, subscription))
            if channel == BOOKS:
                self._client.snapshots(subscription, tickers)
            elif channel in (TRADE, TICKER, FILL):
                self._exchange.tape.active = True
                if channel == TICKER and params.send_initial_snapshot:
                    self._tickers(subscription, tickers or list(self._exchange.source.books))
        if BOOKS in channels:
            self._exchange.subscribed.set()
        else:  # whoever wants books too, on another connection, is to have them from the beginning
            asyncio.get_running_loop().call_later(WITHOUT_BOOKS_S, self._exchange.subscribed.set)

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
        actions = set() if subscription.whole else {"add_markets", "delete_markets"}
        if subscription.channel == BOOKS:
            actions = {"add_markets", "delete_markets", "get_snapshot"}
        if params.action not in actions:
            raise RefusedError(13)
        tickers = self._known(params)
        if params.action == "get_snapshot":
            if not set(tickers) <= subscription.tickers:
                raise RefusedError(
                    11, tickers=[ticker for ticker in tickers if ticker not in subscription.tickers]
                )
            self._client.snapshots(subscription, tickers, command_id)
            return
        new = [ticker for ticker in tickers if ticker not in subscription.tickers]
        if params.action == "add_markets":
            if new:
                self._check_market_limit(len(subscription.tickers) + len(new))
            subscription.tickers.update(new)
            self._exchange.carry(self._client, subscription, [key(subscription.channel, t) for t in new])
        else:
            subscription.tickers.difference_update(tickers)
            self._exchange.drop(self._client, subscription, [key(subscription.channel, t) for t in tickers])
        told = None if subscription.silent_acks else sorted(subscription.tickers)
        self._client.send(replies.ok(command_id, subscription, told))
        if params.action == "add_markets" and subscription.channel == BOOKS:
            self._client.snapshots(subscription, new)
        elif params.action == "add_markets" and subscription.channel == TICKER:
            self._tickers(subscription, new)

    def _tickers(self, subscription: Subscription, tickers: list[str]) -> None:
        books, now_us = self._exchange.source.books, time.time_ns() // 1000
        for ticker in tickers:
            self._exchange.tape.ticker(self._client, subscription, books[ticker], now_us)

    def _list(self, command_id: int, params: wire.Params) -> None:
        self._client.send(replies.listing(command_id, list(self._client.subscriptions.values())))

    def _check_market_limit(self, markets: int) -> None:
        limit = self._exchange.conditions.market_limit
        if limit is not None and markets > limit:
            raise RefusedError(26)

    def _known(self, params: wire.Params) -> list[str]:
        """The markets that a command names, each once; all of them exist."""
        named = [*(params.market_tickers or ()), *filter(None, [params.market_ticker])]
        tickers = list(dict.fromkeys(named))
        if not tickers:
            raise RefusedError(14)
        unknown = [ticker for ticker in tickers if ticker not in self._exchange.source.books]
        if unknown:
            raise RefusedError(11, tickers=unknown)
        return tickers


def _sids(params: wire.Params) -> list[int]:
    return [*(params.sids or ()), *([params.sid] if params.sid is not None else ())]
