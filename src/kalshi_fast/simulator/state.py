"""What an exchange counts, and what it refuses at the moment."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field


@dataclass(slots=True)
class Stats:
    """``frames_sent`` went out on a socket; snapshots and deltas were numbered, whatever became of them."""

    frames_sent: int = 0
    deltas_sent: int = 0
    snapshots_sent: int = 0
    connections: int = 0
    handshakes_refused: int = 0
    checkpoints: int = 0
    trades: int = 0  # made, whoever has heard of them
    tickers_sent: int = 0
    announcements_sent: int = 0
    announcements: dict[str, int] = field(default_factory=dict)  # by what they say
    fills_sent: int = 0
    reference_sent: int = 0
    rest_requests: int = 0
    commands: dict[str, int] = field(default_factory=dict)  # by what they command
    commands_refused: dict[str, int] = field(default_factory=dict)  # by the error's code
    faults: dict[str, int] = field(default_factory=dict)  # kind → how often it did happen


@dataclass(slots=True)
class Conditions:
    """What the exchange refuses at the moment."""

    refusal: tuple[int, str, str] | None = None  # of every upgrade: HTTP status, code, message
    market_limit: int | None = None
    rate_limited: bool = False
    out_of_order: bool = False  # commands are obeyed, and so answered, in another order than they came
    cut_merge: bool = False  # the next merge goes half, and then nothing more is heard of its connection
    subscribe_refusals: deque[int] = field(default_factory=deque)  # the errors of the next subscribes
    rest_faults: deque[tuple[str, int]] = field(default_factory=deque)  # of the next requests by REST
