"""Arrays that looks at books go into; Cython users may call ``write`` themselves."""

from libc.stdint cimport int8_t, int32_t, int64_t

from kalshi_fast._book cimport OrderBook
from kalshi_fast._replay cimport BookTable, Rows

cdef class Features:
    cdef readonly Py_ssize_t capacity
    cdef readonly Py_ssize_t n
    cdef readonly int depth
    cdef readonly dict arrays
    cdef int32_t* market_ix
    cdef int64_t* at_ns
    cdef int8_t* known
    cdef int32_t* price[2]  # bid, ask: (capacity, depth)
    cdef int64_t* qty[2]
    cdef int32_t* mid_half_e4
    cdef int64_t* microprice_e8
    cdef double* imbalance

    cdef void write(self, OrderBook book, int32_t market_ix, int64_t at_ns) noexcept nogil

cdef class Collector:
    cdef readonly BookTable table
    cdef readonly Features features
    cdef readonly int64_t frames
    cdef public int64_t next_ns
    cdef Py_ssize_t market
    cdef object seen_array
    cdef int64_t[:, ::1] seen

    cdef bint _write_all(self) noexcept nogil
    cdef bint _changed(self, OrderBook book, Py_ssize_t market) noexcept nogil

cdef class Bars:
    cdef readonly BookTable table
    cdef readonly int64_t every_ns
    cdef public int64_t since_ns
    cdef object state_array
    cdef int64_t[:, ::1] state
    cdef list done
    cdef int grow(self) except -1
    cdef void _note(self, OrderBook book, Py_ssize_t market, int64_t at_ns) noexcept nogil
    cdef void _pass(self, int64_t* state, int64_t until_ns) noexcept nogil
    cdef int _close(self, int64_t until_ns) except -1
