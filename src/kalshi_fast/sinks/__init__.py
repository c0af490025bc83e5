"""The stores that sealed batches end in. Each sink takes batches in order, from one thread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kalshi_fast.batch import Batch


class Sink(Protocol):
    """What the writer asks of a store.

    ``write`` returns when the rows no longer depend on the batches' memory, and raises SinkError when
    they cannot be stored. ``tick`` is called now and then, also when nothing arrives.
    """

    name: str
    rows: int  # events stored for good, or, for a file, handed to it

    def write(self, batches: Sequence[Batch]) -> None: ...

    def tick(self) -> None: ...

    def close(self) -> None: ...
