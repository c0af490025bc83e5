"""The send path of one connection while something is wrong with it: frames get lost, doubled, late, damaged.

Frames come here after they have been numbered; what is lost here is therefore a gap to the client. A
connection with nothing wrong never comes here (``Client.send``).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import picows

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from kalshi_fast.simulator.dialect import Dialect

TEXT = picows.WSMsgType.TEXT


class Link:
    """``send`` does what is wrong at the moment; ``idle`` when nothing is."""

    def __init__(
        self, write: Callable[[picows.WSMsgType, bytes], None], dialect: Dialect, rng: random.Random
    ) -> None:
        self.hung = False
        # How many of the next frames each of these faults takes.
        self.drop = 0
        self.duplicate = 0
        self.corrupt = 0
        self.truncate = 0
        self._write = write
        self._dialect = dialect
        self._rng = rng
        self._overtaking: list[int] = []  # for each reorder that waits for its frame: how many pass it
        self._held: list[tuple[int, bytes]] = []  # frames that still have to be passed so many times
        self._stalls = 0
        self._queue: deque[tuple[picows.WSMsgType, bytes]] = deque()

    @property
    def idle(self) -> bool:
        return not (
            self.hung
            or self.drop
            or self.duplicate
            or self.corrupt
            or self.truncate
            or self._overtaking
            or self._held
            or self._stalls
            or self._dialect.active
        )

    @property
    def stalled(self) -> bool:
        return self._stalls > 0

    @property
    def silent(self) -> bool:
        """Nothing whatsoever is sent."""
        return self.hung or self.stalled

    def send(self, payload: bytes) -> None:
        if self.hung:
            return
        if self._dialect.active:
            payload = self._dialect.rewrite(payload)
        if self.drop:
            self.drop -= 1
            return
        copies = 1
        if self.duplicate:
            self.duplicate -= 1
            copies = 2
        if self.corrupt:
            self.corrupt -= 1
            at = self._rng.randrange(len(payload))
            payload = payload[:at] + b"\xff" + payload[at + 1 :]
        if self.truncate:
            self.truncate -= 1
            payload = payload[: self._rng.randrange(len(payload))]
        for _ in range(copies):
            if self._overtaking:
                self._held.append((self._overtaking.pop(0), payload))
            else:
                self._emit(TEXT, payload)
                self._passed()

    def pong(self, payload: bytes) -> None:
        if not self.hung:
            self._emit(picows.WSMsgType.PONG, payload)

    def reorder(self, following: int) -> None:
        self._overtaking.append(following)

    def stall(self) -> None:
        self._stalls += 1

    def unstall(self) -> None:
        self._stalls -= 1
        if not self._stalls:
            self._flush()

    def relieve(self) -> None:
        """The play is over: what is still kept back goes out, what is armed is forgotten."""
        self.drop = self.duplicate = self.corrupt = self.truncate = 0
        self._overtaking.clear()
        self._queue.extend((TEXT, payload) for _, payload in self._held)
        self._held.clear()
        self._stalls = 0
        if not self.hung:
            self._flush()

    def _emit(self, kind: picows.WSMsgType, payload: bytes) -> None:
        if self._stalls:
            self._queue.append((kind, payload))
        else:
            self._write(kind, payload)

    def _passed(self) -> None:
        """A frame has gone out: those held back are one nearer to their turn."""
        if not self._held:
            return
        held, self._held = self._held, []
        for following, payload in held:
            if following > 1:
                self._held.append((following - 1, payload))
            else:
                self._emit(TEXT, payload)

    def _flush(self) -> None:
        while self._queue:
            self._write(*self._queue.popleft())
