"""The fast path of one connection: its tables and its one entry point in C."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from kalshi_fast._columns cimport EventColumns, LevelColumns
from kalshi_fast._state cimport BookState, Sequence

cdef enum Taken:
    NOT_TAKEN = 0
    TAKEN = 1
    TAKEN_AND_FULL = 2

cdef struct Entry:
    uint64_t hash
    const char* name  # of a bytes object in ``names``
    Py_ssize_t length
    void* state  # a BookState in ``states``, not counted; NULL: empty

cdef class DeltaPath:
    cdef dict subscriptions
    cdef bint no_on_yes_scale
    cdef Entry* table
    cdef uint64_t mask
    cdef Py_ssize_t used
    cdef list names
    cdef list states
    cdef Sequence last  # the subscription of the frame before
    cdef uint32_t last_sid
    cdef EventColumns events
    cdef LevelColumns levels
    cdef Py_ssize_t seal_rows
    cdef uint64_t conn_id
    cdef public int64_t taken
    cdef public int64_t written
    cdef public int64_t last_frame_ns

    cdef _enter(self, bytes name, BookState state)
    cdef Taken scan(self, const char* text, Py_ssize_t length, int64_t ingest_ns)
    cdef void* _find(self, uint64_t hash, const char* name, Py_ssize_t length) noexcept nogil
    cdef void _insert(self, Entry entry) noexcept nogil
