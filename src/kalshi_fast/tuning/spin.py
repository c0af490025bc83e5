"""An event loop that does not sleep: it asks the sockets again at once, and no wake-up is waited for.

A core is busy all the time then, so it has to be one that nobody else needs (``CAPTURE_CPU``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio


class Spinner:
    """``Spinner(loop)`` spins from ``start`` to ``stop``.

    A loop with a callback that is due polls its sockets without waiting, and this one is always due.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.turns = 0
        self._call_soon = loop.call_soon
        self._on = False
        self._again = self._turn  # bound once, not at every turn

    def start(self) -> None:
        self._on = True
        self._turn()

    def stop(self) -> None:
        self._on = False

    def _turn(self) -> None:
        if self._on:
            self.turns += 1
            self._call_soon(self._again)
