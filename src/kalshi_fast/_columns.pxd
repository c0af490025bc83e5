"""Memory of the column buffers: one preallocated numpy array per column, written through raw pointers."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

cdef class EventColumns:
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t n
    cdef readonly dict arrays
    cdef int8_t* type
    cdef uint64_t* conn_id
    cdef uint32_t* sid
    cdef uint64_t* seq
    cdef int32_t* market_ix
    cdef int32_t* id_ix
    cdef int8_t* side
    cdef uint16_t* price_e4
    cdef int64_t* qty_e2
    cdef int64_t* ts_us
    cdef int64_t* ingest_ns

    cdef bint append(
        self, int8_t type, uint64_t conn_id, uint32_t sid, uint64_t seq, int32_t market_ix, int32_t id_ix,
        int8_t side, uint16_t price_e4, int64_t qty_e2, int64_t ts_us, int64_t ingest_ns,
    ) noexcept nogil

cdef class LevelColumns:
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t n
    cdef readonly int64_t version
    cdef readonly dict arrays
    cdef int32_t* market_ix
    cdef int32_t* id_ix
    cdef int8_t* side
    cdef uint16_t* price_e4
    cdef int64_t* size_e2
    cdef int64_t* ts_us
    cdef int64_t* ingest_ns
    cdef uint64_t* version_column
    cdef uint64_t mask  # of the hash table (a power of two minus one)
    cdef uint64_t generation  # entries of older generations count as empty: begin() costs nothing
    cdef uint64_t* keys
    cdef int32_t* rows

    cdef bint append(
        self, int32_t market_ix, int32_t id_ix, int8_t side, uint16_t price_e4, int64_t size_e2,
        int64_t ts_us, int64_t ingest_ns,
    ) noexcept nogil
