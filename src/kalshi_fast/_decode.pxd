"""Fixed-point text to integers, in C. BAD marks text that is not what it must be."""

from libc.stdint cimport int64_t

cdef enum:
    PRICE_MAX_E4 = 10000

cdef int64_t BAD
cdef int64_t QTY_LIMIT_E2

cdef int64_t parse_price_e4(const char* text, Py_ssize_t length) noexcept nogil
cdef int64_t parse_qty_e2(const char* text, Py_ssize_t length) noexcept nogil
cdef int64_t parse_rfc3339_us(const char* text, Py_ssize_t length) noexcept nogil

cdef inline int64_t joined_us(int64_t ts_us, int64_t ts_ms) noexcept nogil:
    """The time of a message that has it to the microsecond, to the millisecond, or both (BAD: it is not there): to the
    microsecond where the two agree, else what the millisecond says."""
    return ts_us if ts_ms == BAD or (ts_us >= 0 and ts_us // 1000 == ts_ms) else ts_ms * 1000
