"""Replies to commands as JSON, their keys in the order of recorded ones (``unseen``: what was never seen).

Not here: which command gets which reply (``commands``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from kalshi_fast import wire
    from kalshi_fast.simulator.subscription import Subscription


def subscribed(command_id: int, subscription: Subscription) -> bytes:
    """The first subscribe of a channel on a connection; it takes no number."""
    body = {"channel": subscription.channel, "sid": subscription.sid}
    return msgspec.json.encode({"type": "subscribed", "id": command_id, "msg": body})


def ok(command_id: int, subscription: Subscription, tickers: list[str] | None) -> bytes:
    """It takes a number where the channel has any. ``tickers``: all that it carries; None: not told."""
    reply = {"type": "ok", "id": command_id, **_scope(subscription)}
    if tickers is not None:
        reply["msg"] = {"market_tickers": tickers}
    return msgspec.json.encode(reply)


def listing(command_id: int, subscriptions: list[Subscription]) -> bytes:
    found = [{"channel": held.channel, "sid": held.sid} for held in subscriptions]
    return msgspec.json.encode({"type": "ok", "id": command_id, "msg": found})


def unsubscribed(command_id: int, subscription: Subscription) -> bytes:
    return msgspec.json.encode({"type": "unsubscribed", "id": command_id, **_scope(subscription)})


def error(body: wire.ErrorBody, command_id: int = 0, subscription: Subscription | None = None) -> bytes:
    """Scoped to a subscription it takes a number there; ``command_id`` 0: it answers no command."""
    reply: dict[str, Any] = {"type": "error"}
    if command_id:
        reply["id"] = command_id
    if subscription is not None:
        reply |= _scope(subscription)
    return msgspec.json.encode({**reply, "msg": body})


def _scope(subscription: Subscription) -> dict[str, Any]:
    if subscription.numbered:
        return {"sid": subscription.sid, "seq": subscription.next_seq()}
    return {"sid": subscription.sid}
