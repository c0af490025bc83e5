"""Where the recorder's batches come from and go to: slots of the shared memory.

``acquire`` gives an empty batch, ``deliver`` hands a sealed one to the other process; neither ever waits.
When all slots are taken, ``pressed`` says so: the feed stops reading until the writer has caught up, and what
the exchange then drops shows as a sequence gap. What has been read by then still finds room, in memory of
this process, and follows through ``pump`` in its turn. Not here: what is written into a batch (``recorder``).
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final, Protocol

from kalshi_fast._clock import receive_ns
from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.batch import Batch, HealthEvent, pack_extra
from kalshi_fast.errors import FieldError
from kalshi_fast.ring import EXTRA_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kalshi_fast.batch import RawFrame, RejectedFrame
    from kalshi_fast.channels.rows import ChannelRows
    from kalshi_fast.ring import Ring

log = logging.getLogger("kalshi_fast.pool")

_KEPT: Final = 8  # batches in memory of this process that are kept for the next time of pressure
_NO_ROOM: Final = (
    FieldError,
    ValueError,
    OverflowError,
)  # the latter two: a value that msgpack has no form for


class Pool(Protocol):
    """What the recorder and the feeds ask of either pool."""

    rows: int

    @property
    def pressed(self) -> bool: ...

    def acquire(self, version: int) -> Batch: ...


class BatchPool:
    """``BatchPool(ring, tickers, ids, wake, version)``: ``tickers`` and ``ids`` are the growing lists of
    ``Books``, ``wake`` is called when something has been handed over, versions of level states are greater
    than ``version``."""

    def __init__(
        self,
        ring: Ring,
        tickers: Sequence[str],
        ids: Sequence[str],
        wake: Callable[[], None] = lambda: None,
        version: int = 0,
    ) -> None:
        self.rows = ring.rows
        self.sealed_rows = 0
        self.records_left_out = 0
        self._ring = ring
        self._version = version
        self._tickers = tickers
        self._ids = ids
        self._wake = wake
        self._named = (0, 0)
        self._in_slots: dict[int, Batch] = {}
        self._in_memory: list[Batch] = []
        self._unsent: deque[Batch] = deque()

    @property
    def pressed(self) -> bool:
        """No slot is free beside the one that is being filled."""
        return bool(self._unsent) or self._ring.waiting >= self._ring.slots - 1

    @property
    def waiting(self) -> int:
        """Batches that the writer has not taken yet."""
        return self._ring.waiting

    @property
    def slots(self) -> int:
        """Room for so many."""
        return self._ring.slots

    @property
    def unsent(self) -> int:
        """Sealed batches that have found no slot yet."""
        return len(self._unsent)

    def acquire(self, version: int) -> Batch:
        """An empty batch; the versions of its levels go on after ``version``."""
        slot = None if self._unsent else self._ring.claim()
        if slot is None:
            rows = self.rows
            batch = (
                self._in_memory.pop() if self._in_memory else Batch(EventColumns(rows), LevelColumns(rows))
            )
        else:
            batch = self._in_slots.get(slot) or self._on_slot(slot)
        batch.begin(max(version, self._version))
        return batch

    def _on_slot(self, slot: int) -> Batch:
        ring = self._ring
        batch = Batch(
            EventColumns(self.rows, ring.event_memory(slot)),
            LevelColumns(self.rows, ring.level_memory(slot)),
            slot,
        )
        self._in_slots[slot] = batch
        return batch

    def deliver(self, batch: Batch) -> None:
        """Hands a sealed batch over, behind those that have not found a slot yet."""
        self.sealed_rows += batch.events.n
        self._unsent.append(batch)
        self.pump()

    def pump(self) -> bool:
        """Hands over what waits for a slot, as far as there are slots; True when nothing waits any more."""
        while self._unsent:
            batch = self._unsent[0]
            slot = self._ring.claim() if batch.slot is None else batch.slot
            if slot is None:
                return False
            extra = self._packed(batch)  # before anything is changed
            self._unsent.popleft()
            if batch.slot is None:
                self._copy(batch, slot)
                if len(self._in_memory) < _KEPT:
                    self._in_memory.append(batch)
            self._name(batch)
            self._ring.seal(
                slot,
                batch.number,
                events=batch.events.n,
                levels=batch.levels.n,
                names=batch.names,
                extra=extra,
            )
            self._wake()
        return True

    def _packed(self, batch: Batch) -> bytes:
        """The records of a batch, as far as there is room. The recorder's bounds leave room for all;
        were it not so, what is left out is said, and the columns stay."""
        try:
            return _pack(batch.health, batch.rejected, batch.channels, batch.raw)
        except _NO_ROOM as error:
            rows = len(batch.rejected) + len(batch.channels) + len(batch.raw)
            detail = f"{rows} records of batch {batch.number} are left out, and its columns kept: {error}"
        self.records_left_out += rows
        log.error("%s", detail)
        said = HealthEvent(receive_ns(), 0, "left_out", detail=detail)
        try:
            return _pack([*batch.health, said])
        except _NO_ROOM as error:
            log.error("so are its %d health events: %s", len(batch.health), error)
            self.records_left_out += len(batch.health)
            return _pack([said])

    def _copy(self, batch: Batch, slot: int) -> None:
        there = self._in_slots.get(slot) or self._on_slot(slot)
        for ours, theirs in ((batch.events, there.events), (batch.levels, there.levels)):
            for name, column in ours.arrays.items():
                theirs.arrays[name][: ours.n] = column[: ours.n]

    def _name(self, batch: Batch) -> None:
        if batch.names != self._named:
            self._ring.add_names(self._tickers[: batch.names[0]], self._ids[: batch.names[1]], self._named)
            self._named = batch.names


def _pack(
    health: list[HealthEvent],
    rejected: list[RejectedFrame] | None = None,
    channels: ChannelRows | None = None,
    raw: list[RawFrame] | None = None,
) -> bytes:
    """Raises one of _NO_ROOM when they cannot be packed, or not into one slot."""
    packed = pack_extra(health, rejected or [], channels, raw)
    if len(packed) > EXTRA_BYTES:
        raise FieldError("extra", f"{len(packed)} bytes", f"at most {EXTRA_BYTES}")
    return packed


class LocalPool:
    """Batches in memory of this process, for those who have no writer: ``release`` gives one back."""

    def __init__(self, rows: int, max_batches: int) -> None:
        self.rows = rows
        self.max_batches = max_batches
        self.made = 0
        self._free: deque[Batch] = deque()

    @property
    def pressed(self) -> bool:
        """No more than ``max_batches`` are in use at ease."""
        return self.made >= self.max_batches and not self._free

    def acquire(self, version: int) -> Batch:
        """An empty batch; the versions of its levels go on after ``version``."""
        if self._free:
            batch = self._free.popleft()
        else:
            self.made += 1
            batch = Batch(EventColumns(self.rows), LevelColumns(self.rows))
        batch.begin(version)
        return batch

    def release(self, batch: Batch) -> None:
        """The batch is done with; its memory is free for the next rows."""
        self._free.append(batch)
