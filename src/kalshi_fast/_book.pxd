"""Memory and C signatures of the book: one zeroed array of int64 sizes per side, one slot per tick."""

from libc.stdint cimport int16_t, int64_t, uint16_t

cdef enum Status:
    APPLIED = 0
    STALE = 1
    OFF_GRID = 2
    NEGATIVE = 3
    LIMIT = 4

cdef class Grid:
    cdef readonly str name
    cdef readonly tuple ranges
    cdef readonly int n_ticks
    cdef int16_t slot_of[10001]  # price_e4 → slot, -1 off the grid
    cdef uint16_t price_of[10001]  # slot → price_e4, ascending

cdef class OrderBook:
    cdef readonly Grid grid
    cdef readonly bint stale
    cdef int64_t* qty[2]  # qty[side][slot]; both sides share one allocation
    cdef int best[2]  # slot of the best bid, -1 when the side is empty
    cdef int levels[2]  # how many slots are not zero
    cdef int64_t sum[2]
    cdef readonly int64_t updates  # levels set since the book was made: how busy the market is

    cdef Status add(self, int side, int64_t price_e4, int64_t delta_e2, int64_t* after_e2) noexcept nogil
    cdef void put(self, int side, int slot, int64_t qty_e2) noexcept nogil
    cdef void _take(self, OrderBook other) noexcept
