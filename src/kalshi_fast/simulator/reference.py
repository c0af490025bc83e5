"""Reference prices of the simulated exchange: CF Benchmarks indices and Pyth underlyings that wander.

The walks are drawn from the seed and move five times a second, the times are those of the clock. Once a
second ``cfbenchmarks_value`` tells each index with its averages, each time ``cfbenchmarks_value_5hz`` and
``pyth_value`` theirs. The first two have the form of frames that production sent on 2026-09-25. Never seen in
a recording, so after Kalshi's AsyncAPI document 2.0.0 alone: all of ``pyth_value``, the listings, the
actions and their ``ok``, errors 24 and 28, and how many digits ``data`` has for another index than BRTI.
Nothing moves before somebody listens. Not here: other commands (``commands``).
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Decimal
from random import Random
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast.channels.reference import FIVE_HZ
from kalshi_fast.config import CF, CF_5HZ, EVERYTHING, PYTH, REFERENCE_CHANNELS
from kalshi_fast.simulator import replies
from kalshi_fast.simulator.subscription import RefusedError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from kalshi_fast import wire
    from kalshi_fast.simulator.agenda import Agenda
    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.subscription import Subscription

STEP_MS: Final = 200
WINDOW_MS: Final = 60_000
QUARTER_MS: Final = 900_000
_MOVE: Final = 2e-5  # of the value, in one step
# Where the walks begin.
INDICES: Final = {
    "BRTI": "84017.28",
    "ETHUSD_RTI": "2741.06",
    "SOLUSD_RTI": "151.3874",
    "XRPUSD_RTI": "2.14052",
    "DOGEUSD_RTI": "0.198734",
    "BNBUSD_RTI": "866.15",
    "SHIBUSD_RTI": "0.00001284713",
}
UNDERLYINGS: Final = {"Metal.XAG/USD": "46.13500000", "Metal.XAU/USD": "3765.12345000"}
_ADDING: Final = ("subscribe_indices", "subscribe_underlyings")
_REMOVING: Final = ("unsubscribe_indices", "unsubscribe_underlyings")
_ACTIONS: Final = {
    CF: (_ADDING[0], _REMOVING[0], "indexlist"),
    CF_5HZ: (_ADDING[0], _REMOVING[0], "indexlist"),
    PYTH: (_ADDING[1], _REMOVING[1], "underlying_list"),
}


@dataclass(slots=True)
class _Walk:
    """A value in units of its last digit; ``seconds``: its whole seconds of the last minute."""

    name: str
    digits: int
    value: int
    seconds: deque[tuple[int, Decimal]] = field(default_factory=deque)
    final: list[Decimal] = field(default_factory=list)
    close_ms: int = 0  # of the quarter that ``final`` is of

    @classmethod
    def begin(cls, name: str, text: str) -> _Walk:
        digits = len(text.partition(".")[2])
        return cls(name, digits, int(text.replace(".", "")))

    @property
    def decimal(self) -> Decimal:
        return Decimal(self.value).scaleb(-self.digits)

    def move(self, rng: Random) -> None:
        self.value = max(1, self.value + round(self.value * rng.gauss(0, _MOVE)))


class Reference:
    """``listens`` when somebody has subscribed; ``update`` obeys an action on such a subscription."""

    def __init__(self, exchange: Exchange, agenda: Agenda) -> None:
        self._exchange = exchange
        self._agenda = agenda
        self._rng = Random(f"{exchange.seed} reference")  # noqa: S311 - a simulation
        self._indices = [_Walk.begin(name, text) for name, text in INDICES.items()]
        self._underlyings = [_Walk.begin(name, text) for name, text in UNDERLYINGS.items()]
        self._moves = False
        self._last_ms = 0

    def listens(self, subscription: Subscription, params: wire.Params) -> None:
        """A new subscription, to the names that its command gives; without any it brings nothing yet."""
        if subscription.channel in REFERENCE_CHANNELS:
            subscription.names.update(_named(subscription.channel, params))
            if not self._moves:
                self._moves = True
                self._step()

    def update(
        self, client: Client, subscription: Subscription, command_id: int, params: wire.Params
    ) -> None:
        """Raises RefusedError."""
        channel, action = subscription.channel, params.action
        if action not in _ACTIONS[channel]:
            raise RefusedError(13)
        if action not in (*_ADDING, *_REMOVING):
            self._list(client, subscription, command_id)
            return
        names = _named(channel, params)
        if not names:
            raise RefusedError(28 if channel == PYTH else 24)
        if action in _ADDING:
            subscription.names.update(names)
        else:
            subscription.names.difference_update(names)
        client.send(replies.ok(command_id, subscription, None))

    def _list(self, client: Client, subscription: Subscription, command_id: int) -> None:
        channel = subscription.channel
        there = {CF: list(INDICES), CF_5HZ: list(FIVE_HZ), PYTH: list(UNDERLYINGS)}[channel]
        kind, key = (
            ("pyth_value_underlying_list", "underlying_tickers")
            if channel == PYTH
            else (f"{channel}_indexlist", "index_ids")
        )
        frame = {"type": kind, "id": command_id, "sid": subscription.sid, "seq": subscription.next_seq()}
        client.send(msgspec.json.encode(frame | {"msg": {key: there}}))

    # --- the walks --------------------------------------------------------------------------------

    def _step(self) -> None:
        self._agenda.after(STEP_MS / 1000, self._step)
        now_ms = time.time_ns() // 1_000_000
        source_ms = now_ms // STEP_MS * STEP_MS
        if source_ms <= self._last_ms:
            return  # the play is ahead of the clock
        second_ms = source_ms // 1000 * 1000
        new_second = second_ms > self._last_ms
        self._last_ms = source_ms
        for walk in (*self._indices, *self._underlyings):
            walk.move(self._rng)
        for walk in self._indices:
            if new_second:
                self._tell(CF, walk.name, _value(walk, second_ms, now_ms))
            if walk.name in FIVE_HZ:
                self._tell(CF_5HZ, walk.name, _fast(walk, source_ms, now_ms))
        for walk in self._underlyings:
            self._tell(PYTH, walk.name, _pyth(walk, source_ms, now_ms))

    def _tell(self, channel: str, name: str, body: dict[str, Any]) -> None:
        for client, subscription in self._exchange.carriers(channel):
            if name in subscription.names or EVERYTHING in subscription.names:
                head = {"type": channel, "sid": subscription.sid, "seq": subscription.next_seq()}
                client.send(msgspec.json.encode(head | {"msg": body}))
                self._exchange.stats.reference_sent += 1


def _named(channel: str, params: wire.Params) -> Collection[str]:
    return (params.underlying_tickers if channel == PYTH else params.index_ids) or ()


def _upstream(walk: _Walk, source_ms: int) -> str:
    """The frame of CF Benchmarks, as text."""
    frame = {"type": "value", "time": source_ms, "id": walk.name, "value": f"{walk.decimal:f}"}
    return msgspec.json.encode(frame).decode()


def _value(walk: _Walk, source_ms: int, now_ms: int) -> dict[str, Any]:
    """Of the channel with averages. That of 60 s is of the seconds before, or of this one when there are
    none; that of the last minute before a full quarter of an hour is of its seconds, this one included."""
    value, seconds = walk.decimal, walk.seconds
    while seconds and seconds[0][0] < source_ms - WINDOW_MS:
        seconds.popleft()
    body = {
        "index_id": walk.name,
        "received_at": now_ms,
        "data": _upstream(walk, source_ms),
        "avg_60s_data": _average([one for _, one in seconds], value, source_ms - WINDOW_MS, source_ms),
    }
    seconds.append((source_ms, value))
    close_ms = -(-source_ms // QUARTER_MS) * QUARTER_MS
    if source_ms > close_ms - WINDOW_MS:
        if walk.close_ms != close_ms:
            walk.close_ms, walk.final = close_ms, []
        walk.final.append(value)
        average = _average(walk.final, value, close_ms - WINDOW_MS, source_ms)
        body["last_60s_windowed_average_15min"] = average
    return body


def _average(values: Sequence[Decimal], value: Decimal, start_ms: int, end_ms: int) -> dict[str, Any]:
    mean = sum(values, Decimal(0)) / len(values) if values else value
    return {
        "value": _eight(mean),
        "window_size": len(values),
        "window_start_ts_ms": start_ms,
        "window_end_ts_exclusive": end_ms,
    }


def _fast(walk: _Walk, source_ms: int, now_ms: int) -> dict[str, Any]:
    return {
        "index_id": walk.name,
        "value_usd": _eight(walk.decimal),
        "source_ts_ms": source_ms,
        "received_at": now_ms,
        "data": _upstream(walk, source_ms),
    }


def _pyth(walk: _Walk, source_ms: int, now_ms: int) -> dict[str, Any]:
    return {
        "underlying_ticker": walk.name,
        "value_usd": _eight(walk.decimal),
        "source_ts_ms": source_ms,
        "received_at": now_ms,
    }


def _eight(value: Decimal) -> str:
    return f"{value.quantize(Decimal('1e-8'), ROUND_HALF_EVEN):f}"
