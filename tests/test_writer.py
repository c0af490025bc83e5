"""The writer delivers every batch in order to every sink, merges what waits, and says when it cannot."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import pytest

from kalshi_fast.batch import Batch, BatchPool
from kalshi_fast.errors import SinkError
from kalshi_fast.writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class Memory:
    """A sink that remembers; ``before`` runs in each write."""

    name = "memory"

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self.rows = 0
        self.writes: list[list[int]] = []
        self.closed = False
        self._before = before

    def write(self, batches: Sequence[Batch]) -> None:
        self._before()
        self.writes.append([batch.number for batch in batches])
        self.rows += sum(batch.events.n for batch in batches)

    def tick(self) -> None:
        assert not self.closed

    def close(self) -> None:
        self.closed = True


def batches(pool: BatchPool, count: int) -> list[Batch]:
    made = []
    for number in range(1, count + 1):
        batch = pool.acquire(0)
        batch.number = number
        batch.events.add(*(0,) * 11)
        made.append(batch)
    return made


def test_everything_offered_before_close_is_delivered_in_order_to_all() -> None:
    pool, sinks = BatchPool(4, 100), [Memory(), Memory()]
    writer = Writer(sinks, release=pool.release, failed=lambda: pytest.fail("failed"))
    writer.start()
    for batch in batches(pool, 50):
        writer.offer(batch)
    writer.close()
    for sink in sinks:
        assert [number for write in sink.writes for number in write] == list(range(1, 51))
        assert sink.rows == 50
        assert sink.closed
    assert writer.undelivered_rows == 0
    assert writer.offered_rows == 50
    assert not pool.pressed
    assert pool.acquire(0).empty


def test_batches_that_wait_are_merged() -> None:
    entered, proceed = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        assert proceed.wait(10)

    pool, sink = BatchPool(4, 100), Memory(slow)
    writer = Writer([sink], release=pool.release, failed=lambda: None)
    writer.start()
    first, *others = batches(pool, 20)
    writer.offer(first)
    assert entered.wait(10)
    for batch in others:
        writer.offer(batch)
    assert writer.waiting == 19
    proceed.set()
    writer.close()
    assert sink.writes == [[1], list(range(2, 21))]


def test_a_sink_that_gives_up_is_told_once_with_what_was_not_delivered() -> None:
    def refuse() -> None:
        raise SinkError("no room")

    failures: list[int] = []
    pool, good, bad = BatchPool(4, 100), Memory(), Memory(refuse)
    writer = Writer([good, bad], release=pool.release, failed=lambda: failures.append(1))
    for batch in batches(pool, 3):
        writer.offer(batch)
    writer.start()
    deadline = time.monotonic() + 10
    while not failures and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(SinkError, match=r"no room \(3 events not delivered\)"):
        writer.close()
    assert failures == [1]
    assert good.writes == [[1, 2, 3]]
