"""How long to wait before the next attempt: exponential, full jitter, a cap, and a reset when all was well.

Full jitter (a uniform draw from zero to the bound) spreads the reconnects of many clients best. A refusal
of our key, signature or clock waits on a slower scale: nothing mends it but a human, and hammering an
exchange with bad credentials gets an address blocked. Where nobody answers there is nobody to spare, and the
link that is back should be used soon: that scale ends early. Pure: time and randomness come in as arguments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import random

NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Scale:
    """The first bound and the largest one."""

    first_ns: int
    most_ns: int

    def delay_ns(self, failures: int, rng: random.Random) -> int:
        """A delay after so many failures in a row (at least 1)."""
        return rng.randrange(self.bound_ns(failures) + 1)

    def bound_ns(self, failures: int) -> int:
        """The largest delay after so many failures in a row."""
        return min(self.first_ns << min(max(failures - 1, 0), 40), self.most_ns)


RECONNECT: Final = Scale(NS // 2, 30 * NS)
REFUSED: Final = Scale(30 * NS, 300 * NS)
UNANSWERED_NS: Final = NS  # the largest delay where nobody answered
HEALTHY_NS: Final = 60 * NS  # a connection that lasted so long was a good one


class Backoff:
    """The delays between the connections of one feed."""

    def __init__(self, rng: random.Random, usual: Scale = RECONNECT, refused: Scale = REFUSED) -> None:
        self.failures = 0
        self.unanswered = 0
        self._rng = rng
        self._usual = usual
        self._refused = refused

    def next_ns(self, lasted_ns: int, *, refused: bool = False, unanswered: bool = False) -> int:
        """After a connection (or an attempt) that lasted so long: how long to wait for the next one."""
        if unanswered:  # says nothing of the exchange: its failures stay as they are
            self.unanswered += 1
            bound_ns = min(self._usual.bound_ns(self.unanswered), UNANSWERED_NS)
            return self._rng.randrange(bound_ns + 1)
        self.unanswered = 0
        self.failures = 1 if lasted_ns >= HEALTHY_NS else self.failures + 1
        if refused:
            # Never at once: at least half the bound.
            half = self._refused.bound_ns(self.failures) // 2
            return half + self._rng.randrange(half + 1)
        return self._usual.delay_ns(self.failures, self._rng)
