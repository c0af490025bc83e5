"""What the hot path and the Python code share of a subscription and of a market's book: plain C fields."""

from libc.stdint cimport int32_t, uint64_t

from kalshi_fast._book cimport Levels, OrderBook

cdef enum:
    MAX_KEY = 224  # a ticker of 128 characters, an id of 36, and what stands around them

cdef class Sequence:
    cdef public uint64_t next_seq
    cdef public bint ended

cdef struct Hot:
    # All that a delta needs to know of its market's book: with the ticker of a usual market two cache lines.
    Levels* levels  # the book's
    const void* subscription  # the Sequence, to be compared with another one
    int32_t ix
    int32_t id_ix
    bint active
    int key_length  # 0: there is none, its frames do not go the fast way
    char key[MAX_KEY]  # what stands in its deltas from the ticker to the price

cdef class BookState:
    cdef OrderBook _book
    cdef Sequence _subscription
    cdef Hot* hot
