"""How many markets the exchange lets one subscription carry, as far as this process has found out.

The limit exists (error 26 of Kalshi's AsyncAPI document) and is not published. It is found by asking: each
size once, with at most ``REFUSALS`` refused commands, and then every connection of the process knows it. What
is granted meanwhile is no waste, those markets are carried; so the steps are chosen for few refusals, not for
few commands. A limit can change: what has been refused is asked for again after a while, ever more rarely.
Not here: commands (``session``), connections (``fleet``).
"""

from __future__ import annotations

from math import comb
from typing import Final

from kalshi_fast.backoff import NS, Scale

REFUSALS: Final = 5  # of one search
_FORGOTTEN: Final = Scale(10 * NS, 3600 * NS)  # then a size that was refused may be asked for again


class Size:
    """``granted`` markets are known to be allowed, ``refused`` are known not to be (None: nothing is).

    Sizes between the two are asked for by one session at a time: ``asker``.
    """

    def __init__(self) -> None:
        self.granted = 0
        self.refused: int | None = None
        self.refusals = 0  # in all
        self._left = 0  # refusals that the search may still cost
        self._asker: object | None = None
        self._known_until_ns = 0
        self._confirmed = 0  # times in a row that the same size was refused again

    def room(self, now_ns: int) -> int | None:
        """So many markets at most are for one connection; None: no limit is known."""
        if self.refused is None or now_ns >= self._known_until_ns:
            return None
        return self.refused - 1

    def full(self, carried: int, now_ns: int) -> bool:
        """A subscription with so many markets gets no more."""
        room = self.room(now_ns)
        return room is not None and carried >= room

    def next(self, carried: int, wanted: int, asker: object, now_ns: int) -> tuple[int, bool]:
        """How many more markets a subscription with ``carried`` of them may ask for, and whether that is a
        question to which nobody knows the answer. 0: somebody else is asking one, or it is full."""
        if carried + wanted <= self.granted:
            return wanted, False
        if carried < self.granted:
            return self.granted - carried, False
        if self.full(carried, now_ns) or self._asker not in (None, asker):
            return 0, False
        if self.refused is None:
            return wanted, True
        if now_ns >= self._known_until_ns:
            return min(wanted, max(self.refused - carried, 1)), True
        return min(wanted, _step(carried, self.refused, self._left) - carried), True

    def ask(self, asker: object) -> None:
        """This session asks a question now."""
        self._asker = asker

    def release(self, asker: object) -> None:
        """It is answered, or will not be."""
        if self._asker is asker:
            self._asker = None

    def grant(self, total: int, now_ns: int) -> None:
        """A subscription carries so many."""
        self.granted = max(self.granted, total)
        if self.refused is None:
            return
        if self.granted >= self.refused:
            self.refused, self._confirmed = None, 0
        elif now_ns < self._known_until_ns and self.granted < self.refused - 1:
            self._remember(now_ns)  # the search goes on

    def refuse(self, total: int, carried: int, now_ns: int) -> None:
        """A subscription with ``carried`` markets was not allowed ``total``."""
        self.refusals += 1
        if total <= 1:
            return  # one market alone: that is no matter of size
        if self.refused is None or total <= self.granted:
            self.granted = min(self.granted, carried)
            self.refused, self._left, self._confirmed = total, REFUSALS - 1, 0
        elif total == self.refused:
            self._confirmed += 1
        else:
            self.refused = min(self.refused, total)
            self._left -= 1
        if self._left <= 0:
            self.refused = self.granted + 1
        self._remember(now_ns)

    def _remember(self, now_ns: int) -> None:
        self._known_until_ns = now_ns + _FORGOTTEN.bound_ns(self._confirmed + 1)


def _reach(commands: int, refusals: int) -> int:
    """Among how many sizes so many commands, of which so many may be refused, find the right one."""
    return sum(comb(commands, n) for n in range(1, refusals + 1))


def _step(granted: int, refused: int, refusals: int) -> int:
    """The size to be asked for next."""
    unknown = refused - granted - 1
    commands = 1
    while _reach(commands, refusals) < unknown:
        commands += 1
    return granted + min(_reach(commands - 1, refusals - 1) + 1, unknown)
