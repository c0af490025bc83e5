"""The stores that the journal is delivered to. Each has its own thread, its own cursor and its own
position."""

from __future__ import annotations

from typing import Protocol


class Sink(Protocol):
    """What ``delivery`` asks of a store.

    ``step`` takes the next entries of the journal and stores them; False when there was nothing to do. It
    raises SinkError or JournalError when that failed; after ``reset`` the same entries come again. ``close``
    completes what is open. ``done_seq``: batches before it will never be asked for again.
    """

    name: str

    @property
    def rows(self) -> int: ...  # events of the present recorder in the store, for a file: handed to it

    @property
    def done_seq(self) -> int: ...

    @property
    def pause_s(self) -> float: ...

    def step(self) -> bool: ...

    def reset(self) -> None: ...

    def close(self) -> None: ...
