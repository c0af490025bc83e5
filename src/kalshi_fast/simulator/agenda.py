"""What is to happen at which moment of a play, in seconds of it. The clock is kept by whoever runs it."""

from __future__ import annotations

import heapq
import itertools
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Agenda:
    """Calls in order of their moment; calls of the same moment in the order in which they were entered."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._numbers = itertools.count()
        self._entries: list[tuple[float, int, Callable[[], None]]] = []

    @property
    def next_s(self) -> float:
        """The moment of the next call; infinity when there is none."""
        return self._entries[0][0] if self._entries else math.inf

    def at(self, moment_s: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._entries, (moment_s, next(self._numbers), call))

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        self.at(self.now_s + seconds, call)

    def run(self, now_s: float) -> None:
        """Makes every call that is due; each sees its own moment as ``now_s``."""
        while self._entries and self._entries[0][0] <= now_s:
            self.now_s, _, call = heapq.heappop(self._entries)
            call()
        self.now_s = max(self.now_s, now_s)
