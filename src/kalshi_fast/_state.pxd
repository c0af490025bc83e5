"""What the hot path and the Python code share of a subscription and of a market's book: plain C fields."""

from libc.stdint cimport int32_t, uint64_t

from kalshi_fast._book cimport Levels, OrderBook

cdef enum:
    MAX_KEY = 256  # a ticker of 128 characters, an id of 36, and what stands around them

cdef class Sequence:
    cdef public uint64_t next_seq
    cdef public bint ended

cdef class BookState:
    cdef OrderBook _book
    cdef Levels* levels  # the book's
    cdef public bint active
    cdef public Sequence subscription
    cdef readonly int32_t ix
    cdef readonly int32_t id_ix
    cdef int key_length  # 0: there is none, its frames do not go the fast way
    # What stands in its deltas from the ticker to the price, and before it what stands before the ticker.
    cdef char text[MAX_KEY]
    cdef const char* key
