"""What the hot path and the Python code share of a subscription and of a market's book: plain C fields."""

from libc.stdint cimport int32_t, uint64_t

from kalshi_fast._book cimport OrderBook

cdef enum:
    ID_CHARS = 36

cdef class Sequence:
    cdef public uint64_t next_seq
    cdef public bint ended

cdef class BookState:
    cdef public OrderBook book
    cdef public bint active
    cdef public Sequence subscription
    cdef readonly int32_t ix
    cdef readonly int32_t id_ix
    cdef char market_id[ID_CHARS]
    cdef bint id_known
