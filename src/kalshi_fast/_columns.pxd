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

cdef struct Place:
    uint64_t key  # of a level, and above it the generation
    int64_t row

cdef struct LevelRows:
    Py_ssize_t n
    Py_ssize_t capacity
    int64_t version  # the last that was given
    uint64_t generation  # places of older generations count as empty: begin() costs nothing
    uint64_t mask  # of the hash table (a power of two minus one)
    Place* places
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
    # 31 bits market, 1 bit side, 14 bits price; the 16 bits above hold the generation.
    cdef uint64_t key = (
        (rows.generation << 48) | (<uint64_t>market_ix << 16) | (<uint64_t>side << 15) | price_e4
    )
    cdef uint64_t slot = ((key * <uint64_t>0x9E3779B97F4A7C15) >> 20) & rows.mask
    cdef Place* place = &rows.places[slot]
    cdef Py_ssize_t row
    while place.key != key and place.key >> 48 == rows.generation:
        slot = (slot + 1) & rows.mask
        place = &rows.places[slot]
    if place.key == key:
        row = place.row
    else:
        row = rows.n
        if row == rows.capacity:
            return False
        place.key = key
        place.row = row
        rows.market_ix[row] = market_ix
        rows.side[row] = side
        rows.price_e4[row] = price_e4
        rows.n = row + 1
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
