"""What the capture process has between the socket and the writer, without either: books, session, receiver,
and a ring of shared memory whose slots are given back at once, as the writer process would.

Not here: frames (``workload``), who measures what.
"""

from __future__ import annotations

import os
import random
import time
import uuid
from typing import TYPE_CHECKING, Final

from kalshi_fast import wire
from kalshi_fast._bench import Frames, drive
from kalshi_fast.bench.workload import N_MARKETS
from kalshi_fast.books import Books
from kalshi_fast.errors import KalshiFastError
from kalshi_fast.link import Link
from kalshi_fast.pool import BatchPool
from kalshi_fast.receiver import Receiver
from kalshi_fast.recorder import Recorder
from kalshi_fast.ring import Ring
from kalshi_fast.session import CHANNEL, Session
from kalshi_fast.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kalshi_fast.ring import SealedSlot

BATCH_ROWS: Final = 2000
SLOTS: Final = 64
FRAMES_PER_READ: Final = 60  # about 16 KiB, what a read from a busy socket brings


class WrongResultError(KalshiFastError):
    """A contender did not do what it was measured for: its time is worth nothing."""


class Rig:
    """``Rig(tickers)``; ``warm`` gives it books, ``drive`` more frames. ``look`` sees every sealed batch.
    The markets are spread over so many ``sids``."""

    def __init__(
        self, tickers: Iterable[str], look: Callable[[SealedSlot], None] | None = None, sids: int = 1
    ) -> None:
        self.books = Books()
        self.ring = Ring.create(BATCH_ROWS, SLOTS, uuid.uuid4())
        self.pool = BatchPool(self.ring, self.books.tickers, self.books.ids, self._taken)
        self.recorder = Recorder(self.books, self.pool, self.pool.deliver, seal_rows=BATCH_ROWS)
        rng = random.Random(1)  # noqa: S311
        self.session = Session(tickers, clock=time.monotonic_ns, rng=rng, use_yes_price=True)
        self.sids = sids
        self.link = Link(self.recorder, self.session)
        self.receiver = Receiver(self.link, self.pool)
        self._look = look

    def _taken(self) -> None:
        if self._look is not None and (sealed := self.ring.peek()) is not None:
            self._look(sealed)
        self.ring.release()

    def warm(self, frames: list[bytes]) -> None:
        """Connected, subscribed, and these frames are dealt with: snapshots, then deltas."""
        now_ns = time.time_ns()
        self.link.on_connected(1, now_ns)
        markets, portion = list(self.session.tickers), -(-N_MARKETS // self.sids)
        if self.sids == 1:
            self.session.on_subscribed(wire.Subscribed(1, wire.ChannelSid(CHANNEL, 1)))
        else:  # as no exchange has it: a session has one
            for sid in range(1, self.sids + 1):
                carried = markets[(sid - 1) * portion : sid * portion]
                self.session.subscriptions[sid] = one = Subscription(sid, set(carried), time.monotonic_ns())
                one.waiting.update(dict.fromkeys(carried, 0))
        self.session.outbox.clear()
        for frame in frames[:N_MARKETS]:
            self.link.feed(frame, now_ns)
        self.drive(Frames(frames[N_MARKETS:]))

    def drive(self, frames: Frames) -> int:
        """As ``FrameListener`` would."""
        return drive(self.link.path, self.receiver, frames, FRAMES_PER_READ)

    def check(self, frames: int) -> None:
        """Raises WrongResultError unless so many frames were all used, none of them doubtful."""
        counts = self.recorder.counts
        bad = counts.gaps + counts.rejected + counts.foreign + counts.repeated
        if counts.frames != frames or bad:
            raise WrongResultError(f"expected {frames} frames and none unusable, got {counts}")

    def close(self) -> None:
        os.close(self.ring.fd)
