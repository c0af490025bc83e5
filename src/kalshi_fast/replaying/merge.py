"""Streams of chunks, each in time order, become one; and a stream is read ahead in a thread of its own.

Not here: what is in the streams.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray


class Timed(Protocol):
    """Rows in the order of ``ingest_ns``: a chunk of events, a block of another table."""

    @property
    def ingest_ns(self) -> NDArray[np.int64]: ...

    def __len__(self) -> int: ...

    def slice(self, first: int, stop: int) -> Self: ...

    def take(self, rows: NDArray[Any]) -> Self: ...


T = TypeVar("T")
R = TypeVar("R", bound=Timed)
AHEAD: Final = 2  # chunks
_LOOK_S: Final = 0.1


@dataclass(slots=True)
class Stream(Generic[R]):
    """``first_ns``: no row of it is earlier. ``open`` begins to read it."""

    first_ns: int
    open: Callable[[], Iterator[R]]


@dataclass(slots=True)
class _Active(Generic[R]):
    rest: Iterator[R]
    rows: R


def merge(streams: Iterable[Stream[R]], join: Callable[[list[R]], R]) -> Iterator[R]:
    """All rows in time order; equal times in the order of the streams. Streams come by ``first_ns``.

    A stream is opened when its time has come, so those that do not overlap are read one after the other,
    and their chunks come through untouched.
    """
    waiting = deque(streams)
    active: list[_Active[R]] = []
    while waiting or active:
        bound = min((int(one.rows.ingest_ns[-1]) for one in active), default=None)
        while waiting and (bound is None or waiting[0].first_ns <= bound):
            rest = waiting.popleft().open()
            rows = next(rest, None)
            if rows is not None:
                active.append(_Active(rest, rows))
                last_ns = int(rows.ingest_ns[-1])
                bound = last_ns if bound is None else min(bound, last_ns)
        if bound is None:
            return
        if len(active) == 1:
            yield active[0].rows
            stops = [len(active[0].rows)]
        else:
            # Of the stream that reaches the bound more rows of that moment may follow, in its next chunk:
            # what the streams behind it have of that moment waits.
            reach = next(at for at, one in enumerate(active) if int(one.rows.ingest_ns[-1]) == bound)
            stops = [
                int(np.searchsorted(one.rows.ingest_ns, bound, "right" if at <= reach else "left"))
                for at, one in enumerate(active)
            ]
            ready = [one.rows.slice(0, stop) for one, stop in zip(active, stops, strict=True) if stop]
            rows = join(ready)
            yield rows if len(ready) == 1 else rows.take(np.argsort(rows.ingest_ns, kind="stable"))
        still = []
        for one, stop in zip(active, stops, strict=True):
            left = one.rows.slice(stop, len(one.rows)) if stop < len(one.rows) else next(one.rest, None)
            if left is not None:
                one.rows = left
                still.append(one)
        active = still


def ahead(items: Iterator[T], depth: int = AHEAD) -> Iterator[T]:
    """The same items, made in a thread of their own while the last one is being used.

    What the other thread raises is raised here, in its place. Closing this iterator ends the thread.
    """
    ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(depth)
    over = threading.Event()

    def put(item: T | None, error: BaseException | None) -> bool:
        while not over.is_set():
            try:
                ready.put((item, error), timeout=_LOOK_S)
            except queue.Full:
                continue
            return True
        return False

    def work() -> None:
        try:
            for item in items:
                if not put(item, None):
                    return
        except BaseException as error:
            put(None, error)
        else:
            put(None, None)

    thread = threading.Thread(target=work, name="kalshi-fast-read-ahead", daemon=True)
    thread.start()
    try:
        while True:
            item, error = ready.get()
            if error is not None:
                raise error
            if item is None:
                return
            yield item
    finally:
        over.set()
        thread.join()
