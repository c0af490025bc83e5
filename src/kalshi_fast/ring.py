"""The memory that the capture process and the writer process share: slots for sealed batches, and names.

One process fills slots and seals them, the other takes them in the order of sealing and gives them back. Both
sides only ever advance counters of their own, so neither waits for the other and either may die at any
instant: whoever comes in its place goes on from the counters. The memory has no name in the file system and
is gone with the last process that has it. Not here: whose turn it is (``pool``, ``writing``), what the rows
mean.

Layout: cells (see ``_CELL_*``), one cell a slot for its state, one cell a slot for the order of sealing, the
tickers, the ids, the slots. A slot: ``_SLOT_CELLS`` cells, event columns, level columns, extras.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast._columns import event_arrays, event_bytes, level_arrays, level_bytes
from kalshi_fast._shared import Cells
from kalshi_fast.errors import FieldError
from kalshi_fast.tuning.memory import populate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LAYOUT_VERSION: Final = 1
EXTRA_BYTES: Final = 1 << 20  # of health events and rejected frames in one slot; untouched pages cost nothing
MAX_NAMES: Final = 1_000_000
MAX_IDS: Final = 2_000_000
MAX_SLOTS: Final = 1 << 20
_TICKER_BYTES: Final = 129  # its length, then up to 128 characters
_ID_BYTES: Final = 37
_PAGE: Final = 4096

_CELLS: Final = 16
(
    _CELL_VERSION,
    _CELL_SLOTS,
    _CELL_ROWS,
    _CELL_SEALED,
    _CELL_TAKEN,
    _CELL_CLOSING,
    _CELL_RECORDER_HIGH,
    _CELL_RECORDER_LOW,
) = range(8)
_SLOT_CELLS: Final = 8
_SLOT_NUMBER, _SLOT_EVENTS, _SLOT_LEVELS, _SLOT_TICKERS, _SLOT_IDS, _SLOT_EXTRA = range(6)
_FREE, _USED = 0, 1


def _pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE


@dataclass(frozen=True, slots=True)
class SealedSlot:
    """What lies in a sealed slot. The arrays are the shared memory itself, ``events`` and ``levels`` rows
    long.

    ``names``: how many tickers and ids the rows may refer to.
    """

    number: int
    events: int
    levels: int
    names: tuple[int, int]
    event_arrays: dict[str, NDArray[Any]]
    level_arrays: dict[str, NDArray[Any]]
    extra: bytes


class Ring:
    """``Ring.create(rows, slots)`` in one process, ``Ring.attach(fd)`` in the other."""

    def __init__(self, fd: int, rows: int, slots: int, *, new: bool = False) -> None:
        self.fd = fd
        self.rows = rows
        self.slots = slots
        self._states_at = _PAGE
        self._order_at = self._states_at + _pages(8 * slots)
        self._tickers_at = self._order_at + _pages(8 * slots)
        self._ids_at = self._tickers_at + _pages(_TICKER_BYTES * MAX_NAMES)
        self._slots_at = self._ids_at + _pages(_ID_BYTES * MAX_IDS)
        self._events_at = _pages(8 * _SLOT_CELLS)
        self._levels_at = self._events_at + _pages(event_bytes(rows))
        self._extra_at = self._levels_at + _pages(level_bytes(rows))
        self._slot_bytes = self._extra_at + _pages(EXTRA_BYTES)
        self.size_bytes = self._slots_at + slots * self._slot_bytes
        if new:
            os.ftruncate(fd, self.size_bytes)
        elif (there := os.fstat(fd).st_size) < self.size_bytes:
            raise FieldError("shared memory", f"{there} bytes", f"{self.size_bytes} bytes")
        self._mapped = mmap.mmap(fd, self.size_bytes)
        self._memory = memoryview(self._mapped)
        self._cells = Cells(self._memory, _CELLS)
        self._states = Cells(self._memory[self._states_at :], slots)
        self._order = Cells(self._memory[self._order_at :], slots)

    @classmethod
    def create(cls, rows: int, slots: int, recorder: uuid.UUID) -> Ring:
        """New memory for ``slots`` batches of up to ``rows`` events and level states each."""
        if not 1 <= slots <= MAX_SLOTS:
            raise FieldError("slots", slots, f"1 to {MAX_SLOTS}")
        event_bytes(rows)  # refuses a number of rows that cannot be
        fd = _anonymous_file()
        try:
            ring = cls(fd, rows, slots, new=True)
        except BaseException:
            os.close(fd)
            raise
        ring._cells.set(_CELL_SLOTS, slots)
        ring._cells.set(_CELL_ROWS, rows)
        high, low = recorder.int >> 64, recorder.int & (1 << 64) - 1
        ring._cells.set(_CELL_RECORDER_HIGH, high - (1 << 63))
        ring._cells.set(_CELL_RECORDER_LOW, low - (1 << 63))
        ring._cells.set(_CELL_VERSION, LAYOUT_VERSION)
        return ring

    @classmethod
    def attach(cls, fd: int) -> Ring:
        """The memory that another process has made. Raises FieldError when it is none of this layout."""
        try:
            if (there := os.fstat(fd).st_size) < _PAGE:
                raise FieldError("shared memory", f"{there} bytes", "a ring of batches")
            with mmap.mmap(fd, _PAGE) as head:
                cells = Cells(head, _CELLS)
                version, rows, slots = (cells.get(at) for at in (_CELL_VERSION, _CELL_ROWS, _CELL_SLOTS))
                del cells
        except OSError as error:
            raise FieldError("shared memory", f"descriptor {fd}: {error.strerror}", "a ring") from error
        if version != LAYOUT_VERSION or not 1 <= slots <= MAX_SLOTS:
            raise FieldError("shared memory", f"layout {version}, {slots} slots", f"layout {LAYOUT_VERSION}")
        return cls(fd, rows, slots)

    @property
    def recorder(self) -> uuid.UUID:
        """The identity of the recorder whose batches these are."""
        high, low = (self._cells.get(at) + (1 << 63) for at in (_CELL_RECORDER_HIGH, _CELL_RECORDER_LOW))
        return uuid.UUID(int=high << 64 | low)

    def populate(self, slots: int) -> None:
        """The columns of the first so many slots are in memory from now on: their first use costs no page
        fault. Raises TuningError."""
        for slot in range(min(slots, self.slots)):
            populate(self._mapped, self._slot_at(slot), self._extra_at)

    # --- the side that fills ----------------------------------------------------------------------

    def claim(self) -> int | None:
        """The first free slot, which now belongs to the caller; None when there is none."""
        states = self._states
        for slot in range(self.slots):
            if states.get(slot) == _FREE:
                states.set(slot, _USED)
                return slot
        return None

    def event_memory(self, slot: int) -> memoryview:
        """The block of a slot's event columns."""
        at = self._slot_at(slot) + self._events_at
        return self._memory[at : at + event_bytes(self.rows)]

    def level_memory(self, slot: int) -> memoryview:
        """The block of a slot's level columns."""
        at = self._slot_at(slot) + self._levels_at
        return self._memory[at : at + level_bytes(self.rows)]

    def seal(
        self, slot: int, number: int, *, events: int, levels: int, names: tuple[int, int], extra: bytes
    ) -> None:
        """Hands a claimed and filled slot over. ``extra`` has at most EXTRA_BYTES."""
        if len(extra) > EXTRA_BYTES:
            raise FieldError("extra", f"{len(extra)} bytes", f"at most {EXTRA_BYTES}")
        at = self._slot_at(slot)
        cells = Cells(self._memory[at:], _SLOT_CELLS)
        for cell, value in (
            (_SLOT_NUMBER, number),
            (_SLOT_EVENTS, events),
            (_SLOT_LEVELS, levels),
            (_SLOT_TICKERS, names[0]),
            (_SLOT_IDS, names[1]),
            (_SLOT_EXTRA, len(extra)),
        ):
            cells.set(cell, value)
        self._memory[at + self._extra_at : at + self._extra_at + len(extra)] = extra
        sealed = self._cells.get(_CELL_SEALED)
        self._order.set(sealed % self.slots, slot)
        self._cells.set(_CELL_SEALED, sealed + 1)

    def add_names(self, tickers: Sequence[str], ids: Sequence[str], known: tuple[int, int]) -> None:
        """Writes the names from the ``known``-th on; before a batch that refers to them is sealed."""
        for names, first, size, at, most in (
            (tickers, known[0], _TICKER_BYTES, self._tickers_at, MAX_NAMES),
            (ids, known[1], _ID_BYTES, self._ids_at, MAX_IDS),
        ):
            if len(names) > most:
                raise FieldError("names", len(names), f"at most {most}")
            for ix in range(first, len(names)):
                text = names[ix].encode("ascii")
                if len(text) >= size:
                    raise FieldError("name", names[ix], f"at most {size - 1} characters")
                start = at + ix * size
                self._memory[start : start + 1 + len(text)] = bytes([len(text)]) + text

    def say_closing(self) -> None:
        """Nothing will be sealed any more."""
        self._cells.set(_CELL_CLOSING, 1)

    # --- the side that takes ----------------------------------------------------------------------

    @property
    def closing(self) -> bool:
        """Read before ``waiting``: when it is true and nothing waits, nothing will come."""
        return self._cells.get(_CELL_CLOSING) == 1

    @property
    def waiting(self) -> int:
        """Batches sealed and not yet given back."""
        return self._cells.get(_CELL_SEALED) - self._cells.get(_CELL_TAKEN)

    def peek(self, ahead: int = 0) -> SealedSlot | None:
        """The batch whose turn it is, or one behind it; it stays until ``release``."""
        if self.waiting <= ahead:
            return None
        slot = self._next_slot(ahead)
        at = self._slot_at(slot)
        cells = Cells(self._memory[at:], _SLOT_CELLS)
        extra = cells.get(_SLOT_EXTRA)
        return SealedSlot(
            number=cells.get(_SLOT_NUMBER),
            events=cells.get(_SLOT_EVENTS),
            levels=cells.get(_SLOT_LEVELS),
            names=(cells.get(_SLOT_TICKERS), cells.get(_SLOT_IDS)),
            event_arrays=event_arrays(self.event_memory(slot), self.rows),
            level_arrays=level_arrays(self.level_memory(slot), self.rows),
            extra=bytes(self._memory[at + self._extra_at : at + self._extra_at + extra]),
        )

    def release(self) -> None:
        """The batch whose turn it was is safe; its slot may be filled again."""
        # First the counter: a slot given back and still in line would be taken twice. If we die between the
        # two, the slot is lost until the capture process ends: one of many.
        slot = self._next_slot()
        self._cells.set(_CELL_TAKEN, self._cells.get(_CELL_TAKEN) + 1)
        self._states.set(slot, _FREE)

    def tickers(self, start: int, stop: int) -> list[str]:
        """The tickers with these numbers."""
        return self._names(self._tickers_at, _TICKER_BYTES, start, stop)

    def ids(self, start: int, stop: int) -> list[str]:
        """The market ids with these numbers."""
        return self._names(self._ids_at, _ID_BYTES, start, stop)

    # --- both -------------------------------------------------------------------------------------

    def _names(self, base: int, size: int, start: int, stop: int) -> list[str]:
        found = []
        for at in range(base + start * size, base + stop * size, size):
            length = self._memory[at]
            found.append(str(self._memory[at + 1 : at + 1 + length], "ascii"))
        return found

    def _next_slot(self, ahead: int = 0) -> int:
        return self._order.get((self._cells.get(_CELL_TAKEN) + ahead) % self.slots)

    def _slot_at(self, slot: int) -> int:
        if not 0 <= slot < self.slots:
            raise FieldError("slot", slot, f"0 to {self.slots - 1}")
        return self._slots_at + slot * self._slot_bytes


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("kalshi-fast batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
