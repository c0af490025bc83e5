"""What a session knows of its subscription and of what it has asked for: plain records, no rules.

The rules are in ``session``; a sequence number stands where the fast path reads it (``_state``).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
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

    markets_per_command: int = 1000  # a subscribe, an add or a delete names at most so many
    portions: int = 2  # so many of those are on their way at a time, their snapshots included
    snapshots_per_command: int = 100
    command_interval_ns: int = NS // 20  # of one subscription, on the average
    command_burst: int = 10
    reply_ns: int = 5 * NS
    failures: int = 4  # unanswered requests in a row, then the subscription is made anew


class Loss(NamedTuple):
    """The book of a market is unknown on this connection from number ``seq`` of ``sid`` on."""

    ticker: str
    sid: int
    seq: int


class Subscription(Sequence):
    """``tickers``: the markets whose frames are used: those it carries, and those on their way into it.

    ``adding``: markets on their way into it whose command is not answered, and no snapshot has come yet.
    ``deleting``: on their way out, until that is answered; they are not added again before. Both name the
    command (0: yet to be sent). ``doubtful``: markets of an add without an answer: carried or not.
    ``waiting``: its markets without an exact book, and the command whose answer is to repair each (0: yet
    to be asked for). ``due``: to be asked for now, ``order`` the same, the most urgent one last.
    ``aside``: markets with frames that could not be used, how often in a row, and when to ask again.
    ``put_off``: markets whose snapshot has come and does not make their book known, and when to ask again.
    ``probes``: the same until a book is known, asked for or not, and how long they were put off last.
    """

    __slots__ = (
        "adding",
        "aside",
        "deleting",
        "doubtful",
        "due",
        "failures",
        "hold_ns",
        "lives",
        "opened_ns",
        "order",
        "paced_ns",
        "probes",
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
        self.deleting: dict[str, int] = {}
        self.doubtful: set[str] = set()
        self.waiting: dict[str, int] = {}
        self.due: dict[str, None] = {}
        self.order: list[str] = []
        self.aside: dict[str, tuple[int, int]] = {}
        self.put_off: dict[str, int] = {}
        self.probes: dict[str, int] = {}
        self.failures = 0  # requests in a row that came to nothing
        self.lives = lives  # subscriptions that the exchange has ended before, in a row
        self.opened_ns = opened_ns
        self.hold_ns = 0
        self.paced_ns = 0  # when the commands sent so far are paid for
        self.repeats = 0
        self.repeated_at = 0

    @property
    def counted(self) -> int:
        """How many markets it may carry now in the eyes of the exchange."""
        return len(self.tickers) + len(self.deleting) + len(self.doubtful - self.tickers)


class Kind(enum.Enum):
    """What a command is for."""

    SUBSCRIBE = "subscribe"
    ADD = "add"
    DELETE = "delete"
    SNAPSHOT = "snapshot"
    UNSUBSCRIBE = "unsubscribe"


@dataclass(slots=True)
class Command:
    """A command whose answer or snapshots are awaited. ``missing``: markets whose snapshot is yet to come.

    ``total``: how many markets the subscription has when it is granted. ``question``: nobody knows yet
    whether the exchange grants so many. ``probe``: for the snapshots of markets that were put off.
    """

    kind: Kind
    sid: int
    tickers: list[str]
    deadline_ns: int
    failures: int = 0
    total: int = 0
    question: bool = False
    answered: bool = False
    probe: bool = False
    missing: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Group:
    """Markets that one command is to name, at the earliest at ``due_ns``."""

    tickers: list[str]
    due_ns: int = 0
    failures: int = 0
