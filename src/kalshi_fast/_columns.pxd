"""Memory of the column buffers: one preallocated numpy array per column, written through raw pointers."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

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
    uint32_t* places  # hash table of rows, each above ``generation``
    uint64_t mask  # of the hash table (a power of two minus one)
    uint32_t generation  # a multiple of ``step``: places below it count as empty, so begin() costs nothing
    uint32_t step  # a power of two, at least the capacity
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
    """The state of one level; False when the buffer is full (nothing written)."""
    cdef uint64_t key = (<uint64_t>market_ix << 16) | (<uint64_t>side << 15) | price_e4
    cdef uint64_t slot = ((key * <uint64_t>0x9E3779B97F4A7C15) >> 20) & rows.mask
    cdef uint32_t row
    while True:
        row = rows.places[slot] - rows.generation
        if row >= rows.step:
            row = <uint32_t>rows.n
            if rows.n == rows.capacity:
                return False
            rows.places[slot] = rows.generation + row
            rows.market_ix[row] = market_ix
            rows.side[row] = side
            rows.price_e4[row] = price_e4
            rows.n += 1
            break
        if rows.market_ix[row] == market_ix and rows.price_e4[row] == price_e4 and rows.side[row] == side:
            break
        slot = (slot + 1) & rows.mask
    rows.version = ingest_ns if ingest_ns > rows.version else rows.version + 1
    rows.id_ix[row] = id_ix
    rows.size_e2[row] = size_e2
    rows.ts_us[row] = ts_us
    rows.ingest_ns[row] = ingest_ns
    rows.version_column[row] = rows.version
    return True

cdef class EventColumns:
    cdef readonly dict arrays
    cdef EventRows rows

cdef class LevelColumns:
    cdef readonly dict arrays
    cdef LevelRows rows
