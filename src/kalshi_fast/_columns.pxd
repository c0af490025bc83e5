"""Memory of the column buffers: one preallocated numpy array per column, written through raw pointers."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef struct EventRows:
    Py_ssize_t n
    Py_ssize_t capacity
    int8_t* type
    uint64_t* conn_id
    uint32_t* sid
    uint64_t* seq
    int32_t* market_ix
    int32_t* id_ix
    int8_t* side
    uint16_t* price_e4
    int64_t* qty_e2
    int64_t* ts_us
    int64_t* ingest_ns

cdef inline bint append_event(
    EventRows* rows, int8_t type, uint64_t conn_id, uint32_t sid, uint64_t seq, int32_t market_ix,
    int32_t id_ix, int8_t side, uint16_t price_e4, int64_t qty_e2, int64_t ts_us, int64_t ingest_ns,
) noexcept nogil:
    """One more event; False when the buffer is full (nothing written)."""
    cdef Py_ssize_t row = rows.n
    if row == rows.capacity:
        return False
    rows.type[row] = type
    rows.conn_id[row] = conn_id
    rows.sid[row] = sid
    rows.seq[row] = seq
    rows.market_ix[row] = market_ix
    rows.id_ix[row] = id_ix
    rows.side[row] = side
    rows.price_e4[row] = price_e4
    rows.qty_e2[row] = qty_e2
    rows.ts_us[row] = ts_us
    rows.ingest_ns[row] = ingest_ns
    rows.n = row + 1
    return True

cdef struct LevelRows:
    Py_ssize_t n
    Py_ssize_t capacity
    int64_t version  # the last that was given
    int32_t* market_ix
    int32_t* id_ix
    int8_t* side
    uint16_t* price_e4
    int64_t* size_e2
    int64_t* ts_us
    int64_t* ingest_ns
    uint64_t* version_column

cdef inline bint append_level(
    LevelRows* rows, int32_t market_ix, int32_t id_ix, int8_t side, uint16_t price_e4, int64_t size_e2,
    int64_t ts_us, int64_t ingest_ns,
) noexcept nogil:
    """One more state of a level; False when the buffer is full (nothing written)."""
    cdef Py_ssize_t row = rows.n
    if row == rows.capacity:
        return False
    rows.version = ingest_ns if ingest_ns > rows.version else rows.version + 1
    rows.market_ix[row] = market_ix
    rows.id_ix[row] = id_ix
    rows.side[row] = side
    rows.price_e4[row] = price_e4
    rows.size_e2[row] = size_e2
    rows.ts_us[row] = ts_us
    rows.ingest_ns[row] = ingest_ns
    rows.version_column[row] = rows.version
    rows.n = row + 1
    return True

cdef enum:
    MOST_STAGED = 64

cdef struct StagedRows:
    # Deltas of one read on their way to the columns: a row written straight to those touches
    # nineteen places far apart, a block of rows copied column by column a few, one after the other.
    Py_ssize_t n
    Py_ssize_t most  # so many, for the columns or the block have no room for more
    int8_t type
    uint64_t conn_id
    int64_t ingest_ns
    uint64_t seq[MOST_STAGED]
    int64_t qty_e2[MOST_STAGED]
    int64_t size_e2[MOST_STAGED]  # of the level, after the change
    int64_t ts_us[MOST_STAGED]
    uint32_t sid[MOST_STAGED]
    int32_t market_ix[MOST_STAGED]
    int32_t id_ix[MOST_STAGED]
    uint16_t price_e4[MOST_STAGED]
    int8_t side[MOST_STAGED]

cdef inline void append_staged(EventRows* events, LevelRows* levels, StagedRows* staged) noexcept nogil:
    """All staged rows, as ``append_event`` and ``append_level`` do with each; both have room for them."""
    cdef Py_ssize_t n = staged.n, first = events.n, first_level = levels.n, i
    for i in range(n):
        events.type[first + i] = staged.type
    for i in range(n):
        events.conn_id[first + i] = staged.conn_id
    for i in range(n):
        events.ingest_ns[first + i] = levels.ingest_ns[first_level + i] = staged.ingest_ns
    memcpy(&events.sid[first], staged.sid, n * sizeof(uint32_t))
    memcpy(&events.seq[first], staged.seq, n * sizeof(uint64_t))
    memcpy(&events.market_ix[first], staged.market_ix, n * sizeof(int32_t))
    memcpy(&events.id_ix[first], staged.id_ix, n * sizeof(int32_t))
    memcpy(&events.side[first], staged.side, n * sizeof(int8_t))
    memcpy(&events.price_e4[first], staged.price_e4, n * sizeof(uint16_t))
    memcpy(&events.qty_e2[first], staged.qty_e2, n * sizeof(int64_t))
    memcpy(&events.ts_us[first], staged.ts_us, n * sizeof(int64_t))
    memcpy(&levels.market_ix[first_level], staged.market_ix, n * sizeof(int32_t))
    memcpy(&levels.id_ix[first_level], staged.id_ix, n * sizeof(int32_t))
    memcpy(&levels.side[first_level], staged.side, n * sizeof(int8_t))
    memcpy(&levels.price_e4[first_level], staged.price_e4, n * sizeof(uint16_t))
    memcpy(&levels.size_e2[first_level], staged.size_e2, n * sizeof(int64_t))
    memcpy(&levels.ts_us[first_level], staged.ts_us, n * sizeof(int64_t))
    if staged.ingest_ns > levels.version:
        levels.version = staged.ingest_ns - 1
    for i in range(n):
        levels.version_column[first_level + i] = levels.version + 1 + i
    levels.version += n
    events.n = first + n
    levels.n = first_level + n
    staged.n = 0

cdef class EventColumns:
    cdef readonly dict arrays
    cdef EventRows rows

cdef class LevelColumns:
    cdef readonly dict arrays
    cdef LevelRows rows
