"""What a session knows of its subscriptions and of what it has asked for: plain records, no rules.

The rules are in ``session``; a sequence number stands where the fast path reads it (``_state``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from kalshi_fast._state import Sequence
from kalshi_fast.backoff import NS


class Verdict(enum.Enum):
    """What a sequence number means."""

    IN_ORDER = "in order"
    REPEATED = "repeated"
    GAP = "gap"
    FOREIGN = "of no subscription"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a session allows itself."""

    markets_per_subscription: int = 1000
    subscriptions: int = 100
    snapshots_per_command: int = 100
    command_interval_ns: int = NS // 20  # of one subscription, on the average
    command_burst: int = 10
    reply_ns: int = 5 * NS
    failures: int = 4  # unanswered requests for snapshots in a row, then the subscription is made anew


class Loss(NamedTuple):
    """The book of a market is unknown on this connection from number ``seq`` of ``sid`` on."""

    ticker: str
    sid: int
    seq: int


class Subscription(Sequence):
    """``tickers``: the markets that it carries, as the exchange has acknowledged.

    ``adding``: markets on their way into it, by the command that asks for them; their frames are not used.
    ``waiting``: its markets without an exact book, and the command whose answer is to repair each (0: yet to
    be asked for, and then in ``due`` or ``aside`` too). ``aside``: markets with frames that could not
    be used, how often in a row, and when to ask for a snapshot again. ``put_off``: markets whose snapshot has
    come and does not make their book known, and when to ask once more.
    """

    __slots__ = (
        "adding",
        "aside",
        "due",
        "failures",
        "hold_ns",
        "lives",
        "opened_ns",
        "paced_ns",
        "put_off",
        "repeated_at",
        "repeats",
        "sid",
        "tickers",
        "waiting",
    )

    def __init__(self, sid: int, tickers: set[str], opened_ns: int = 0, lives: int = 0) -> None:
        self.sid = sid
        self.tickers = tickers
        self.adding: dict[str, int] = {}
        self.waiting: dict[str, int] = {}
        self.due: dict[str, None] = {}
        self.aside: dict[str, tuple[int, int]] = {}
        self.put_off: dict[str, int] = {}
        self.failures = 0  # requests for snapshots in a row that came to nothing
        self.lives = lives  # subscriptions of these markets that the exchange has ended before, in a row
        self.opened_ns = opened_ns
        self.hold_ns = 0
        self.paced_ns = 0  # when the commands sent so far are paid for
        self.repeats = 0
        self.repeated_at = 0


@dataclass(slots=True)
class Command:
    """A command whose answer is awaited. ``kind``: subscribe, add, snapshot, or other."""

    kind: str
    sid: int
    tickers: set[str]
    deadline_ns: int
    failures: int = 0
    id: int = 0


@dataclass(slots=True)
class Group:
    """Markets that want a subscription, at the earliest at ``due_ns``; ``join``: an existing one will do."""

    tickers: list[str]
    due_ns: int = 0
    failures: int = 0
    join: bool = False
