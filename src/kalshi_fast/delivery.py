"""One thread a store: takes it step by step through the journal, and again after a wait when it fails.

A store that is away costs nothing but disk: its entries stay in the journal. Not here: what a step is
(sinks).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import KalshiFastError

if TYPE_CHECKING:
    from kalshi_fast.journal import Journal
    from kalshi_fast.sinks import Sink

log = logging.getLogger("kalshi_fast.delivery")

FIRST_WAIT_S: Final = 0.1
MAX_WAIT_S: Final = 15.0
TICK_S: Final = 0.25


class Delivery:
    """``start``; ``finish`` lets it deliver what is in the journal and end, ``give_up`` ends it at once.

    ``error``: what the store last said, None while it takes rows. ``complete``: it ended with all delivered.
    """

    def __init__(self, sink: Sink, journal: Journal) -> None:
        self.sink = sink
        self.error: str | None = None
        self.complete = False
        self.broken: BaseException | None = None  # a bug: the thread is gone
        self._journal = journal
        self._finishing = threading.Event()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kalshi-fast {sink.name}", daemon=True)

    def start(self) -> None:
        """May be called again."""
        if self._thread.ident is None:
            self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        """Nothing will be added to the journal."""
        self._finishing.set()
        self._journal.wake()

    def give_up(self) -> None:
        self._over.set()
        self._journal.wake()

    def join(self, timeout_s: float) -> None:
        self._thread.join(timeout_s)

    def _run(self) -> None:
        failures = 0
        try:
            while not self._over.is_set():
                try:
                    finishing = self._finishing.is_set()  # before the look: nothing can come after it
                    if self.sink.step():
                        failures, self.error = 0, None
                        self._pause(self.sink.pause_s)
                        continue
                    if finishing:
                        self.sink.close()
                        self.complete, self.error = True, None
                        return
                    self._journal.wait(self._journal.end, TICK_S)
                except KalshiFastError as error:
                    failures += 1
                    self._failed(error, failures)
        except BaseException as error:
            self.broken = error
            log.exception("%s: the delivery has ended", self.sink.name)

    def _failed(self, error: KalshiFastError, failures: int) -> None:
        bound_s = min(MAX_WAIT_S, FIRST_WAIT_S * 2 ** min(failures - 1, 20))
        wait_s = bound_s * random.uniform(0.5, 1.0)  # noqa: S311 - spreads attempts, guards nothing
        if str(error) != self.error or failures & (failures - 1) == 0:
            log.warning(
                "%s (attempt %d); again in %.1f s, the journal keeps the rows", error, failures, wait_s
            )
        self.error = str(error)
        self.sink.reset()
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not self._over.is_set():
            self._over.wait(min(wait_s, TICK_S))
            if self._finishing.is_set():
                until = min(until, time.monotonic() + 1.0)

    def _pause(self, pause_s: float) -> None:
        if pause_s > 0 and not self._finishing.is_set():
            self._over.wait(pause_s)
