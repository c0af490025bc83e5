"""The protocol session of one connection, sans I/O: commands out, replies and sequence numbers in.

Rules, after Kalshi's AsyncAPI document 2.0.0:

* ``seq`` counts per sid, from 1, over all markets of that subscription; every frame with a seq counts,
  ``ok``, ``unsubscribed`` and subscription-scoped ``error`` frames included.
* A missing number makes every book of the sid doubtful until each has had a snapshot.
* A new connection starts new sids and sequences.
* Errors 10 and 25 end a subscription.

What is to be sent waits in ``outbox`` as JSON text. Nothing here knows a socket, a clock or a book.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from kalshi_fast import wire
from kalshi_fast.errors import SubscriptionError

CHANNEL = "orderbook_delta"
TICKERS_PER_COMMAND = 500


class Verdict(enum.Enum):
    """What a sequence number means."""

    IN_ORDER = "in order"
    REPEATED = "repeated"
    GAP = "gap"


@dataclass(slots=True)
class Subscription:
    sid: int
    next_seq: int = 1
    tickers: list[str] = field(default_factory=list)


class Session:
    """``Session(tickers)``: wants the order books of these markets, on every connection it is given."""

    def __init__(self, tickers: list[str]) -> None:
        self.tickers = list(tickers)
        self.unknown_tickers: list[str] = []
        self.subscriptions: dict[int, Subscription] = {}
        self.outbox: list[bytes] = []
        self.fatal: SubscriptionError | None = None
        self.first_missing_seq = 0  # of the last GAP
        self._next_id = 1
        self._asked: dict[int, list[str]] = {}  # subscribe command → its tickers

    def opened(self) -> None:
        """A new connection is up: everything of the old one is void."""
        self.subscriptions.clear()
        self.outbox.clear()
        self._asked.clear()
        self._next_id = 1
        self._subscribe(self.tickers)

    def receive(self, sid: int, seq: int) -> Verdict:
        """Counts one frame of a sequence. After a GAP the sequence goes on behind this frame."""
        subscription = self.subscriptions.get(sid)
        if subscription is None:
            subscription = self.subscriptions[sid] = Subscription(sid)
        if seq == subscription.next_seq:
            subscription.next_seq = seq + 1
            return Verdict.IN_ORDER
        if seq < subscription.next_seq:
            return Verdict.REPEATED
        self.first_missing_seq = subscription.next_seq
        subscription.next_seq = seq + 1
        return Verdict.GAP

    def request_snapshots(self, sid: int, tickers: list[str]) -> None:
        """Asks for fresh snapshots within a subscription; they come in its sequence."""
        for start in range(0, len(tickers), TICKERS_PER_COMMAND):
            self._command(
                "update_subscription",
                wire.Params(
                    sid=sid,
                    market_tickers=tickers[start : start + TICKERS_PER_COMMAND],
                    action="get_snapshot",
                ),
            )

    def on_subscribed(self, reply: wire.Subscribed) -> None:
        """The exchange has given a subscribe command its sid."""
        sid = reply.msg.sid
        subscription = self.subscriptions.setdefault(sid, Subscription(sid))
        subscription.tickers = self._asked.pop(reply.id, [])

    def on_unsubscribed(self, reply: wire.Unsubscribed) -> None:
        """The exchange has ended a subscription as asked."""
        self.subscriptions.pop(reply.sid, None)

    def on_error(self, error: wire.Error) -> bool:
        """Takes an error reply; True when it ended a subscription (its books are unknown now).

        A subscribe that names unknown markets is sent again without them; ``fatal`` is set when no
        market is left or the exchange will not serve the subscription at all.
        """
        if error.sid is not None:
            ended = self.subscriptions.get(error.sid) if error.msg.code in wire.TERMINAL_ERRORS else None
            if ended is None:
                return False
            del self.subscriptions[error.sid]
            self._subscribe(ended.tickers or self.tickers)
            return True
        asked = self._asked.pop(error.id, None)
        if asked is None:
            return False
        named = {*(error.msg.market_tickers or ()), *filter(None, [error.msg.market_ticker])}
        refused = [ticker for ticker in asked if ticker in named]
        known = [ticker for ticker in asked if ticker not in named]
        self.unknown_tickers += refused
        self.tickers = [ticker for ticker in self.tickers if ticker not in named]
        text = error.msg.msg or wire.ERROR_TEXTS.get(error.msg.code, "no reason given")
        if not refused:
            self.fatal = SubscriptionError(
                f"the exchange refused the subscription: {text} (error {error.msg.code})"
            )
        elif known:
            self._subscribe(known)
        elif not self.tickers:
            self.fatal = SubscriptionError(
                f"MARKET_TICKERS: the exchange knows none of {', '.join(self.unknown_tickers[:5])}"
                f"{' …' if len(self.unknown_tickers) > 5 else ''} (error {error.msg.code}: {text})"
            )
        return False

    def _subscribe(self, tickers: list[str]) -> None:
        command_id = self._command(
            "subscribe",
            # The default of use_yes_price is going to change: it is always said.
            wire.Params(
                channels=[CHANNEL], market_tickers=tickers, skip_ticker_ack=True, use_yes_price=False
            ),
        )
        self._asked[command_id] = tickers

    def _command(self, cmd: str, params: wire.Params) -> int:
        command_id = self._next_id
        self._next_id += 1
        self.outbox.append(wire.encode(wire.Command(cmd, command_id, params)))
        return command_id
