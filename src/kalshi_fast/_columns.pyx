"""Preallocated column buffers: a row is a handful of stores, a full buffer is handed on as it is.

``EventColumns`` holds rows of orderbook_events, ``LevelColumns`` the states that levels got while the buffer was
filled; ``last_states`` leaves the last of each. ``arrays`` are the numpy arrays themselves (``capacity`` long, the
first ``n`` entries valid), which ``batch`` wraps as Arrow arrays without copying. Text columns hold
codes: ``market_ix`` and ``id_ix`` index the lists of tickers and ids, ``type`` and ``side`` an index into their names.

Not here: names, schemas, when a buffer is full enough, who reads it.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

import numpy as np

from kalshi_fast.errors import FieldError

SNAPSHOT = 0
DELTA = 1
CLEAR = 2
GAP = 3

_MAX_CAPACITY = 1 << 24
_ALIGN = 64  # bytes: a column begins on a cache line, as Arrow likes it

_EVENT_DTYPES = {
    "type": np.dtype(np.int8),
    "conn_id": np.dtype(np.uint64),
    "sid": np.dtype(np.uint32),
    "seq": np.dtype(np.uint64),
    "market_ix": np.dtype(np.int32),
    "id_ix": np.dtype(np.int32),
    "side": np.dtype(np.int8),
    "price_e4": np.dtype(np.uint16),
    "qty_e2": np.dtype(np.int64),
    "ts_us": np.dtype(np.int64),
    "ingest_ns": np.dtype(np.int64),
}
_LEVEL_DTYPES = {
    "market_ix": np.dtype(np.int32),
    "id_ix": np.dtype(np.int32),
    "side": np.dtype(np.int8),
    "price_e4": np.dtype(np.uint16),
    "size_e2": np.dtype(np.int64),
    "ts_us": np.dtype(np.int64),
    "ingest_ns": np.dtype(np.int64),
    "version": np.dtype(np.uint64),
}


cdef Py_ssize_t _checked(Py_ssize_t capacity) except -1:
    if not 1 <= capacity <= _MAX_CAPACITY:
        raise FieldError("capacity", capacity, f"1 to {_MAX_CAPACITY} rows")
    return capacity


cdef void* _address(array):
    return <void*><size_t>array.ctypes.data


def _block_bytes(dtypes, capacity):
    return sum(-(-capacity * dtype.itemsize // _ALIGN) * _ALIGN for dtype in dtypes.values())


def event_bytes(Py_ssize_t capacity):
    """Bytes of memory that the columns of so many events take."""
    return _block_bytes(_EVENT_DTYPES, _checked(capacity))


def level_bytes(Py_ssize_t capacity):
    """Bytes of memory that the columns of so many level states take."""
    return _block_bytes(_LEVEL_DTYPES, _checked(capacity))


def event_arrays(memory, Py_ssize_t capacity):
    """The event columns that lie in a block of ``event_bytes(capacity)``, by name."""
    return _arrays(_EVENT_DTYPES, memory, _checked(capacity))


def level_arrays(memory, Py_ssize_t capacity):
    """The level columns that lie in a block of ``level_bytes(capacity)``, by name."""
    return _arrays(_LEVEL_DTYPES, memory, _checked(capacity))


def _arrays(dtypes, memory, capacity):
    arrays, offset = {}, 0
    for name, dtype in dtypes.items():
        arrays[name] = np.frombuffer(memory, dtype, capacity, offset)
        offset += -(-capacity * dtype.itemsize // _ALIGN) * _ALIGN
    return arrays


def _writable(arrays):
    if not arrays["side"].flags.writeable:
        raise FieldError("memory", "read-only memory", "a block that may be written to")
    return arrays


cdef class EventColumns:
    """``EventColumns(capacity)``: room for that many events, in memory of its own or in a writable block of
    ``event_bytes(capacity)`` that is given."""

    def __cinit__(self, Py_ssize_t capacity, memory=None):
        cdef EventRows* rows = &self.rows
        rows.capacity = _checked(capacity)
        if memory is None:
            memory = bytearray(event_bytes(capacity))
        self.arrays = _writable(event_arrays(memory, capacity))
        rows.type = <int8_t*>_address(self.arrays["type"])
        rows.conn_id = <uint64_t*>_address(self.arrays["conn_id"])
        rows.sid = <uint32_t*>_address(self.arrays["sid"])
        rows.seq = <uint64_t*>_address(self.arrays["seq"])
        rows.market_ix = <int32_t*>_address(self.arrays["market_ix"])
        rows.id_ix = <int32_t*>_address(self.arrays["id_ix"])
        rows.side = <int8_t*>_address(self.arrays["side"])
        rows.price_e4 = <uint16_t*>_address(self.arrays["price_e4"])
        rows.qty_e2 = <int64_t*>_address(self.arrays["qty_e2"])
        rows.ts_us = <int64_t*>_address(self.arrays["ts_us"])
        rows.ingest_ns = <int64_t*>_address(self.arrays["ingest_ns"])

    @property
    def capacity(self):
        """Room for so many rows."""
        return self.rows.capacity

    @property
    def n(self):
        """Rows that are there."""
        return self.rows.n

    def add(
        self, int8_t type, uint64_t conn_id, uint32_t sid, uint64_t seq, int32_t market_ix, int32_t id_ix,
        int8_t side, uint16_t price_e4, int64_t qty_e2, int64_t ts_us, int64_t ingest_ns,
    ):
        """Appends one event; False when the buffer is full (nothing written)."""
        return bool(append_event(
            &self.rows, type, conn_id, sid, seq, market_ix, id_ix, side, price_e4, qty_e2, ts_us, ingest_ns
        ))

    def begin(self):
        """Empties the buffer for its next use."""
        self.rows.n = 0

    def __len__(self):
        return self.rows.n


cdef class LevelColumns:
    """``LevelColumns(capacity)``: room for so many states of levels, in memory of its own or in a writable block
    of ``level_bytes(capacity)``.

    ``version`` grows with every state and is at least the receive time in ns, so of two states of one level
    the later always has the larger version, also across buffers (``begin`` takes over the previous buffer's).
    """

    def __cinit__(self, Py_ssize_t capacity, memory=None):
        cdef LevelRows* rows = &self.rows
        rows.capacity = _checked(capacity)
        if memory is None:
            memory = bytearray(level_bytes(capacity))
        self.arrays = _writable(level_arrays(memory, capacity))
        rows.market_ix = <int32_t*>_address(self.arrays["market_ix"])
        rows.id_ix = <int32_t*>_address(self.arrays["id_ix"])
        rows.side = <int8_t*>_address(self.arrays["side"])
        rows.price_e4 = <uint16_t*>_address(self.arrays["price_e4"])
        rows.size_e2 = <int64_t*>_address(self.arrays["size_e2"])
        rows.ts_us = <int64_t*>_address(self.arrays["ts_us"])
        rows.ingest_ns = <int64_t*>_address(self.arrays["ingest_ns"])
        rows.version_column = <uint64_t*>_address(self.arrays["version"])

    @property
    def capacity(self):
        """Room for so many states."""
        return self.rows.capacity

    @property
    def n(self):
        """States that are there."""
        return self.rows.n

    @property
    def version(self):
        """The last version that was given."""
        return self.rows.version

    def set(
        self, int32_t market_ix, int32_t id_ix, int8_t side, uint16_t price_e4, int64_t size_e2,
        int64_t ts_us, int64_t ingest_ns,
    ):
        """One more state of a level; False when the buffer is full (nothing written)."""
        return bool(append_level(&self.rows, market_ix, id_ix, side, price_e4, size_e2, ts_us, ingest_ns))

    def begin(self, int64_t version=0):
        """Empties the buffer for its next use; versions go on after the given one."""
        cdef LevelRows* rows = &self.rows
        rows.n = 0
        rows.version = max(rows.version, version)

    def __len__(self):
        return self.rows.n


def last_states(dict arrays not None, Py_ssize_t n):
    """Of the first ``n`` states the last of each level, in the order in which they came, as columns of their own."""
    cdef int32_t[::1] market_ix = arrays["market_ix"]
    cdef int8_t[::1] side = arrays["side"]
    cdef uint16_t[::1] price_e4 = arrays["price_e4"]
    cdef uint64_t places = 4, mask, key, slot
    cdef uint32_t* table
    cdef Py_ssize_t row = n, other, kept = n
    if not 0 <= n <= market_ix.shape[0]:
        raise FieldError("states", n, f"at most {market_ix.shape[0]}")
    last = np.empty(n, np.int64)
    cdef int64_t[::1] rows = last
    while places < <uint64_t>(2 * n):
        places *= 2
    mask = places - 1
    table = <uint32_t*>calloc(places, sizeof(uint32_t))  # of rows that are kept, from one on
    if table == NULL:
        raise MemoryError
    while row > 0:  # from the end: what comes first is the last
        row -= 1
        key = (<uint64_t>market_ix[row] << 16) | (<uint64_t>side[row] << 15) | price_e4[row]
        slot = ((key * <uint64_t>0x9E3779B97F4A7C15) >> 20) & mask
        while table[slot] != 0:
            other = table[slot] - 1
            if market_ix[other] == market_ix[row] and price_e4[other] == price_e4[row] and side[other] == side[row]:
                break
            slot = (slot + 1) & mask
        else:
            table[slot] = <uint32_t>(row + 1)
            kept -= 1
            rows[kept] = row
    free(table)
    return {name: column.take(last[kept:]) for name, column in arrays.items()}
