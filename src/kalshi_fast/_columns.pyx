"""Preallocated column buffers: a row is a handful of stores, a full buffer is handed on as it is.

``EventColumns`` holds rows of orderbook_events, ``LevelColumns`` the last state of every level that
changed while the buffer was filled. ``arrays`` are the numpy arrays themselves (``capacity`` long, the
first ``n`` entries valid), which ``batch`` wraps as Arrow arrays without copying. Text columns hold
codes: ``market_ix`` and ``id_ix`` index the lists of tickers and ids, ``type`` and ``side`` an index into their names.

Not here: names, schemas, when a buffer is full enough, who reads it.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

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
        self.capacity = _checked(capacity)
        if memory is None:
            memory = bytearray(event_bytes(capacity))
        self.arrays = _writable(event_arrays(memory, capacity))
        self.type = <int8_t*>_address(self.arrays["type"])
        self.conn_id = <uint64_t*>_address(self.arrays["conn_id"])
        self.sid = <uint32_t*>_address(self.arrays["sid"])
        self.seq = <uint64_t*>_address(self.arrays["seq"])
        self.market_ix = <int32_t*>_address(self.arrays["market_ix"])
        self.id_ix = <int32_t*>_address(self.arrays["id_ix"])
        self.side = <int8_t*>_address(self.arrays["side"])
        self.price_e4 = <uint16_t*>_address(self.arrays["price_e4"])
        self.qty_e2 = <int64_t*>_address(self.arrays["qty_e2"])
        self.ts_us = <int64_t*>_address(self.arrays["ts_us"])
        self.ingest_ns = <int64_t*>_address(self.arrays["ingest_ns"])

    cdef bint append(
        self, int8_t type, uint64_t conn_id, uint32_t sid, uint64_t seq, int32_t market_ix, int32_t id_ix,
        int8_t side, uint16_t price_e4, int64_t qty_e2, int64_t ts_us, int64_t ingest_ns,
    ) noexcept nogil:
        cdef Py_ssize_t row = self.n
        if row == self.capacity:
            return False
        self.type[row] = type
        self.conn_id[row] = conn_id
        self.sid[row] = sid
        self.seq[row] = seq
        self.market_ix[row] = market_ix
        self.id_ix[row] = id_ix
        self.side[row] = side
        self.price_e4[row] = price_e4
        self.qty_e2[row] = qty_e2
        self.ts_us[row] = ts_us
        self.ingest_ns[row] = ingest_ns
        self.n = row + 1
        return True

    def add(
        self, int8_t type, uint64_t conn_id, uint32_t sid, uint64_t seq, int32_t market_ix, int32_t id_ix,
        int8_t side, uint16_t price_e4, int64_t qty_e2, int64_t ts_us, int64_t ingest_ns,
    ):
        """Appends one event; False when the buffer is full (nothing written)."""
        return self.append(
            type, conn_id, sid, seq, market_ix, id_ix, side, price_e4, qty_e2, ts_us, ingest_ns
        )

    def begin(self):
        """Empties the buffer for its next use."""
        self.n = 0

    def __len__(self):
        return self.n


cdef class LevelColumns:
    """``LevelColumns(capacity)``: room for the last state of that many levels, in memory of its own or in a
    writable block of ``level_bytes(capacity)``.

    A level written twice takes one row. ``version`` grows with every write and is at least the receive
    time in ns, so of two states of one level the later always has the larger version, also across
    buffers (``begin`` takes over the previous buffer's).
    """

    def __cinit__(self, Py_ssize_t capacity, memory=None):
        self.capacity = _checked(capacity)
        if memory is None:
            memory = bytearray(level_bytes(capacity))
        self.arrays = _writable(level_arrays(memory, capacity))
        self.market_ix = <int32_t*>_address(self.arrays["market_ix"])
        self.id_ix = <int32_t*>_address(self.arrays["id_ix"])
        self.side = <int8_t*>_address(self.arrays["side"])
        self.price_e4 = <uint16_t*>_address(self.arrays["price_e4"])
        self.size_e2 = <int64_t*>_address(self.arrays["size_e2"])
        self.ts_us = <int64_t*>_address(self.arrays["ts_us"])
        self.ingest_ns = <int64_t*>_address(self.arrays["ingest_ns"])
        self.version_column = <uint64_t*>_address(self.arrays["version"])
        cdef uint64_t slots = 4
        while slots < <uint64_t>(2 * capacity):
            slots *= 2
        self.mask = slots - 1
        self.generation = 1
        self.keys = <uint64_t*>calloc(slots, sizeof(uint64_t))
        self.rows = <int32_t*>calloc(slots, sizeof(int32_t))
        if self.keys == NULL or self.rows == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.keys)
        free(self.rows)

    cdef bint append(
        self, int32_t market_ix, int32_t id_ix, int8_t side, uint16_t price_e4, int64_t size_e2,
        int64_t ts_us, int64_t ingest_ns,
    ) noexcept nogil:
        # 31 bits market, 1 bit side, 14 bits price; the 16 bits above hold the generation.
        cdef uint64_t key = (
            (self.generation << 48) | (<uint64_t>market_ix << 16) | (<uint64_t>side << 15) | price_e4
        )
        cdef uint64_t slot = ((key * <uint64_t>0x9E3779B97F4A7C15) >> 20) & self.mask
        cdef Py_ssize_t row
        while self.keys[slot] != key and self.keys[slot] >> 48 == self.generation:
            slot = (slot + 1) & self.mask
        if self.keys[slot] == key:
            row = self.rows[slot]
        else:
            row = self.n
            if row == self.capacity:
                return False
            self.keys[slot] = key
            self.rows[slot] = <int32_t>row
            self.market_ix[row] = market_ix
            self.side[row] = side
            self.price_e4[row] = price_e4
            self.n = row + 1
        self.version = ingest_ns if ingest_ns > self.version else self.version + 1
        self.id_ix[row] = id_ix
        self.size_e2[row] = size_e2
        self.ts_us[row] = ts_us
        self.ingest_ns[row] = ingest_ns
        self.version_column[row] = self.version
        return True

    def set(
        self, int32_t market_ix, int32_t id_ix, int8_t side, uint16_t price_e4, int64_t size_e2,
        int64_t ts_us, int64_t ingest_ns,
    ):
        """Writes the state of one level; False when the buffer is full (nothing written)."""
        return self.append(market_ix, id_ix, side, price_e4, size_e2, ts_us, ingest_ns)

    def begin(self, int64_t version=0):
        """Empties the buffer for its next use; versions go on after the given one."""
        self.n = 0
        self.version = max(self.version, version)
        self.generation += 1
        if self.generation >> 16:
            memset(self.keys, 0, (self.mask + 1) * sizeof(uint64_t))
            self.generation = 1

    def __len__(self):
        return self.n
