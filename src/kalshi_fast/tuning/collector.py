"""The garbage collector out of the way of the feed: what there is at the start is frozen, it is switched off.

The frames' way makes no cyclic garbage, so the collector finds nothing there and only costs pauses. Some
comes from connections that end and from errors; it is collected in a quiet moment, and without one when it
has become much, so that memory stays bounded whatever happens. Reference counts free all the rest as ever.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

LOOK_S: Final = 0.1
WORTH_IT: Final = 2_000  # container objects more than at the last collection
TOO_MUCH: Final = 200_000  # about 20 MB: then it does not wait for a quiet moment


class QuietCollector:
    """``with QuietCollector(frames)``: ``frames()`` counts what has been received; ``look`` is called now and
    then, and it was quiet when nothing has come since the last look."""

    def __init__(self, frames: Callable[[], int]) -> None:
        self.collections = 0
        self._frames = frames
        self._seen = 0
        self._was_enabled = True

    def __enter__(self) -> QuietCollector:
        self._was_enabled = gc.isenabled()
        gc.collect()
        gc.freeze()
        gc.disable()
        self._seen = self._frames()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()

    def look(self) -> None:
        seen, self._seen = self._seen, self._frames()
        more = gc.get_count()[0]
        if more > TOO_MUCH or (more > WORTH_IT and seen == self._seen):
            gc.collect()
            self.collections += 1
