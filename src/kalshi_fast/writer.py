"""The thread between the loop and the stores: takes sealed batches, in order, and gives them to each sink.

One write at a time: batches that come meanwhile are merged into the next one, and between two writes lie
at least ``MERGE_S``, so that ClickHouse gets a few larger parts instead of a hundred small ones a second.
When a store refuses for good, the writer stops and keeps the error; what was offered and not stored is
counted. Not here: how a store works.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import KalshiFastError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kalshi_fast.batch import Batch
    from kalshi_fast.sinks import Sink

MERGE_S: Final = 0.05
MAX_MERGED_ROWS: Final = 200_000
TICK_S: Final = 0.5


class Writer:
    """``offer`` from one thread; ``close`` delivers everything offered before, then closes the sinks.

    ``release`` is called with each batch whose memory is free again; ``failed`` once, from the writer's
    thread, when a sink has given up.
    """

    def __init__(
        self,
        sinks: Sequence[Sink],
        *,
        release: Callable[[Batch], None],
        failed: Callable[[], None],
    ) -> None:
        self.error: BaseException | None = None
        self.offered_rows = 0
        self.undelivered_rows = 0
        self._sinks = sinks
        self._release = release
        self._failed = failed
        self._queue: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="kalshi-fast writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def offer(self, batch: Batch) -> None:
        """Hands over a sealed batch; never blocks."""
        self.offered_rows += batch.events.n
        self._queue.put(batch)

    @property
    def waiting(self) -> int:
        """Batches offered and not yet taken up."""
        return self._queue.qsize()

    def close(self) -> None:
        """Blocks until all is delivered, or a sink has given up: then raises its error."""
        self._closing = True
        self._queue.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            self._deliver_all()
            for sink in self._sinks:
                sink.close()
        except BaseException as error:
            self.error = error
            self._give_up()

    def _deliver_all(self) -> None:
        open_for_more = True
        while open_for_more:
            batches, open_for_more = self._collect()
            if batches:
                started = time.monotonic()
                self._write(batches)
                pause = MERGE_S - (time.monotonic() - started)
                if pause > 0 and not self._closing:
                    time.sleep(pause)
            for sink in self._sinks:
                sink.tick()

    def _collect(self) -> tuple[list[Batch], bool]:
        """What waits, up to MAX_MERGED_ROWS; False when nothing will come after it."""
        batches: list[Batch] = []
        rows = 0
        try:
            batch = self._queue.get(timeout=TICK_S)
            while batch is not None:
                batches.append(batch)
                rows += batch.events.n
                if rows >= MAX_MERGED_ROWS:
                    return batches, True
                batch = self._queue.get_nowait()
        except queue.Empty:
            return batches, True
        return batches, False

    def _write(self, batches: list[Batch]) -> None:
        rows = sum(batch.events.n for batch in batches)
        self.undelivered_rows += rows
        for sink in self._sinks:
            sink.write(batches)
        self.undelivered_rows -= rows
        for batch in batches:
            self._release(batch)

    def _give_up(self) -> None:
        self._failed()
        while (batch := self._next()) is not None:
            self.undelivered_rows += batch.events.n
        if not isinstance(self.error, KalshiFastError):
            return
        self.error.args = (f"{self.error} ({self.undelivered_rows} events not delivered)",)

    def _next(self) -> Batch | None:
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            return None
