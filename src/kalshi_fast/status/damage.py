"""What share of each channel's frames was rejected or lost fields lately.

A message that drifts costs a field, or itself; whoever only looks at totals does not see it for weeks.
Figures of the last minutes are kept every few seconds. Not here: who says so (``health``), the alert on the
same share (deploy/prometheus).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from kalshi_fast.status.figures import Capture

DAMAGED_S: Final = 300.0
DAMAGED_SHARE: Final = 0.01
DAMAGED_FRAMES: Final = 10
_EVERY_S: Final = 5.0
_NAMED_FIELDS: Final = 3


class _Figures(NamedTuple):
    at: float
    frames: dict[str, int]
    rejected: dict[str, int]
    lossy: dict[str, int]


class Damage:
    """``hear`` what the capture process says; ``sentences`` tells of channels with too much of it."""

    def __init__(self) -> None:
        self._kept: deque[_Figures] = deque()

    def hear(self, capture: Capture, now: float) -> None:
        kept = self._kept
        figures = _Figures(now, capture.channel_frames, capture.rejected_frames, capture.lossy_frames)
        if kept and any(figures.frames.get(name, 0) < count for name, count in kept[-1].frames.items()):
            kept.clear()  # another capture process: it counts anew
        if not kept and capture.at_ns - capture.started_ns < DAMAGED_S * 1e9:
            kept.append(_Figures(now, {}, {}, {}))  # all that it has counted is of lately
        if len(kept) < 2 or now - kept[-1].at >= _EVERY_S:
            kept.append(figures)
        while len(kept) > 2 and kept[1].at <= now - DAMAGED_S:
            kept.popleft()

    def sentences(self, capture: Capture) -> list[str]:
        """One a channel of which more than DAMAGED_SHARE, and DAMAGED_FRAMES at least, are damaged."""
        if not self._kept:
            return []
        before, found = self._kept[0], []
        for channel, count in sorted(capture.channel_frames.items()):
            frames = count - before.frames.get(channel, 0)
            rejected = capture.rejected_frames.get(channel, 0) - before.rejected.get(channel, 0)
            lossy = capture.lossy_frames.get(channel, 0) - before.lossy.get(channel, 0)
            if rejected + lossy >= DAMAGED_FRAMES and rejected + lossy > DAMAGED_SHARE * frames:
                found.append(
                    f"{channel}: of {frames} frames of the last {DAMAGED_S / 60:.0f} minutes {rejected} were"
                    f" rejected and {lossy} lost fields{_most(capture)}"
                )
        return found


def _most(capture: Capture) -> str:
    """The fields that have been lost most often."""
    counts = [
        (count, f"{kind}.{name}")
        for kind, fields in capture.lost_fields.items()
        for name, count in fields.items()
    ]
    names = [f"{name} {count}" for count, name in sorted(counts, reverse=True)[:_NAMED_FIELDS]]
    return f" (since the start: {', '.join(names)})" if names else ""
