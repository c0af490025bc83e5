"""Memory and C signatures of the book: one zeroed array of int64 sizes per side, one slot per tick, and above
it a bit for each slot that has a size. What every delta reads and writes of it is two cache lines, ``Levels``."""

from libc.stdint cimport int16_t, int64_t, uint16_t, uint64_t
from libc.string cimport memset
from posix.stdlib cimport posix_memalign

cdef extern from *:
    int clz64 "__builtin_clzll" (uint64_t) noexcept nogil

cdef enum Status:
    APPLIED = 0
    STALE = 1
    OFF_GRID = 2
    NEGATIVE = 3
    LIMIT = 4

cdef enum:
    TOP_WORDS = 3  # the finest grid has 10,001 slots: 157 words of 64 bits, and 3 words for those
    CACHE_LINE = 64

cdef struct Levels:
    # The first cache line.
    int64_t* qty[2]  # qty[side][slot]; both sides and their bits are one allocation
    uint64_t* bits[2]  # a bit for each slot whose size is not 0
    const int16_t* slot_of  # the grid's: price_e4 → slot, -1 off the grid
    int16_t best[2]  # slot of the best bid, -1 when the side is empty
    int16_t depth[2]  # how many slots are not zero
    int64_t updates  # deltas applied since the book was made
    bint stale
    # The second one.
    int64_t sum[2]
    uint64_t top[2][TOP_WORDS]  # a bit for each word of ``bits`` that is not 0

cdef inline void* zeroed_lines(size_t size) noexcept nogil:
    """So many bytes 0 from the beginning of a cache line on, for ``free``; NULL when there is no memory."""
    cdef void* block = NULL
    if posix_memalign(&block, CACHE_LINE, size) != 0:
        return NULL
    return memset(block, 0, size)

cdef inline int slot_below(const Levels* levels, int side, int slot) noexcept nogil:
    """The highest slot below this one that has a size, -1 when there is none: two or three words are looked at,
    however far it is."""
    cdef int word = slot >> 6
    cdef int top = word >> 6
    cdef uint64_t found = 0
    if slot & 63:
        found = levels.bits[side][word] & ((<uint64_t>1 << (slot & 63)) - 1)
    if found == 0:
        if word & 63:
            found = levels.top[side][top] & ((<uint64_t>1 << (word & 63)) - 1)
        while found == 0:
            top -= 1
            if top < 0:
                return -1
            found = levels.top[side][top]
        word = top * 64 + 63 - clz64(found)
        found = levels.bits[side][word]
    return word * 64 + 63 - clz64(found)

cdef inline void put(Levels* levels, int side, int slot, int64_t qty_e2) noexcept nogil:
    """Sets one level; keeps the best bid, the depth and the total true."""
    cdef int64_t before = levels.qty[side][slot]
    cdef int rests = qty_e2 != 0
    cdef int word = slot >> 6
    cdef uint64_t bits = levels.bits[side][word]
    # Whether a level comes or goes nobody can predict: no branch.
    cdef uint64_t now = (bits & ~(<uint64_t>1 << (slot & 63))) | (<uint64_t>rests << (slot & 63))
    levels.qty[side][slot] = qty_e2
    levels.updates += 1
    levels.sum[side] += qty_e2 - before
    levels.depth[side] += rests - (before != 0)
    levels.bits[side][word] = now
    if (now == 0) != (bits == 0):
        levels.top[side][word >> 6] ^= <uint64_t>1 << (word & 63)
    if slot >= levels.best[side]:
        levels.best[side] = slot if rests else slot_below(levels, side, slot)

cdef inline void clear(Levels* levels) noexcept nogil:
    """No level any more; what is in use is cleared, not the whole grid."""
    cdef int side, slot
    for side in range(2):
        slot = levels.best[side]
        while slot >= 0:
            levels.qty[side][slot] = 0
            levels.bits[side][slot >> 6] &= ~(<uint64_t>1 << (slot & 63))
            slot = slot_below(levels, side, slot)
        levels.best[side] = -1
        levels.depth[side] = 0
        levels.sum[side] = 0
        for slot in range(TOP_WORDS):
            levels.top[side][slot] = 0

cdef class Grid:
    cdef readonly str name
    cdef readonly tuple ranges
    cdef readonly int n_ticks
    cdef int16_t slot_of[10001]  # price_e4 → slot, -1 off the grid
    cdef uint16_t price_of[10001]  # slot → price_e4, ascending

cdef class OrderBook:
    cdef readonly Grid grid
    cdef Levels* levels  # at the same place as long as the book lives

    cdef Status add(self, int side, int64_t price_e4, int64_t delta_e2, int64_t* after_e2) noexcept nogil
    cdef void _take(self, OrderBook other) noexcept
