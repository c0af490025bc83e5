"""The pace of a play: how many frames are due, when it is over, and what its clock says.

With a rate the clock counts frames, so that whatever is planned for a moment comes between the same two
frames each time; otherwise it is the time since the first subscription.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

MAX_BURST: Final = 1000  # frames between two looks at the event loop
NEVER: Final = 2**62  # a number of frames
_ROUNDING_S: Final = 1e-9  # sums of seconds are not exact, and frames must be


@dataclass(frozen=True, slots=True)
class Pace:
    """``rate`` in frames per second, or ``speed`` of a recording; with neither as fast as it is taken."""

    rate: int = 0
    speed: float = 0
    seconds: float | None = None

    @property
    def counts_frames(self) -> bool:
        return self.rate > 0

    @property
    def waits(self) -> bool:
        """Whether the play waits for a connection that takes nothing at the moment."""
        return not (self.rate or self.speed)

    def over(self, elapsed_s: float, played: int) -> bool:
        if self.seconds is None:
            return False
        if not self.rate:
            return elapsed_s >= self.seconds
        # Always the same frames, unless nobody can take them so fast.
        return played >= int(self.rate * self.seconds) or elapsed_s >= 2 * self.seconds + 1

    def due(self, elapsed_s: float, played: int) -> int:
        """How many frames may be played now; recorded times are not looked at."""
        if self.rate:
            total = int(self.rate * elapsed_s)
            if self.seconds is not None:
                total = min(total, int(self.rate * self.seconds))
            return total - played
        return MAX_BURST - 1 if self.speed else MAX_BURST

    def recorded_until_s(self, elapsed_s: float) -> float:
        """How far into the recording its own times allow to play."""
        return elapsed_s * self.speed if self.speed else math.inf

    def moment_s(self, played: int) -> float:
        """What the clock says after so many frames, where it counts frames."""
        return played / self.rate + _ROUNDING_S

    def frames_until(self, moment_s: float) -> int:
        """After how many frames it is that moment; never, where the clock does not count frames."""
        if not self.rate or moment_s == math.inf:
            return NEVER
        return math.ceil((moment_s - _ROUNDING_S) * self.rate)
