"""From a socket, over ws:// and wss://: everything that we do beside receivers that do nothing.

The sender is a process on a core of its own that writes prepared bytes with blocking calls. That it is not
the bottleneck shows in the same run: its processor time per frame is reported beside the receiver's, and
``drain`` reads the same bytes without looking at them. Slow receivers get fewer frames. Not here: how each of
them receives (``receivers``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import uvloop

from kalshi_fast.bench import receivers
from kalshi_fast.bench.peers import peer, why_not
from kalshi_fast.bench.rig import WrongResultError
from kalshi_fast.bench.rounds import Contender, Sample
from kalshi_fast.bench.sender import Play
from kalshi_fast.bench.workload import N_MARKETS, N_WARM
from kalshi_fast.errors import reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from kalshi_fast.bench.sending import Sending

OURS: Final = "kalshi-fast: everything, to sealed columns"
FLOOR: Final = "picows, compiled, only counts (the floor)"
WEBSOCKETS: Final = "websockets, does nothing"
AIOHTTP: Final = "aiohttp, does nothing"
DRAIN: Final = "no WebSocket: the bytes are read (what the sender can do)"

SLOW_FRAMES: Final = 20_000


@dataclass(frozen=True)
class Kind:
    name: str
    receive: Callable[[Sending, Play], Awaitable[Sample]]
    needs: str | None = None
    slow: bool = False


KINDS: Final = (
    Kind(FLOOR, receivers.floor),
    Kind(OURS, receivers.kalshi_fast),
    Kind(DRAIN, receivers.drain),
    Kind(WEBSOCKETS, receivers.websockets, "websockets", slow=True),
    Kind(AIOHTTP, receivers.aiohttp, "aiohttp", slow=True),
)


def named(scheme: str, name: str) -> str:
    """A contender's name among those of both schemes."""
    return f"{scheme}:// {name}"


def contenders(sending: Sending, n_frames: int) -> list[Contender]:
    """Those of one scheme; ``n_frames`` deltas are measured."""
    found = []
    for kind in KINDS:
        name = named(sending.scheme, kind.name)
        if kind.needs is not None and peer(kind.needs) is None:
            found.append(Contender(sending.scheme, name, None, why_not(kind.needs)))
            continue
        # The slow do nothing with what they get: no books to warm.
        play = Play(N_MARKETS, SLOW_FRAMES) if kind.slow else Play(N_WARM, n_frames)
        found.append(Contender(sending.scheme, name, partial(_once, kind, sending, play)))
    return found


def _once(kind: Kind, sending: Sending, play: Play) -> Sample:
    async def receive() -> Sample:
        return await kind.receive(sending, play)

    try:
        sample = uvloop.run(receive())
    except OSError as error:  # a timeout is one of them
        raise WrongResultError(f"{kind.name}: the play was not received: {reason(error)}") from error
    return sample._replace(sender_cpu_ns=sending.report()["cpu_s"] * 1e9 / play.frames)
