"""The table of books that recorded columns are applied to; Cython users cimport it together with the book."""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t

from kalshi_fast._book cimport OrderBook

cdef enum Kind:  # of a row, as ``_columns`` has them
    SNAPSHOT = 0
    DELTA = 1
    CLEAR = 2
    GAP = 3

cdef enum Outcome:
    DONE = 0
    NEGATIVE = 1  # a delta takes more than there is
    TOO_LARGE = 2  # a level beyond the limit of a book
    NO_PRICE = 3  # a price above one dollar
    NO_CODE = 4  # a type, a side or a market that there is not
    NO_SIZE = 5  # a snapshot's level without a size
    TWICE = 6  # a snapshot's level that the book has already
    SKIPPED = 7  # nothing wrong: the book is unknown, and stays so

cdef struct Columns:
    const int8_t* type
    const int32_t* market_ix
    const int8_t* side
    const uint16_t* price_e4
    const int64_t* qty_e2

cdef inline bint ends(Columns* columns, Py_ssize_t row, Py_ssize_t stop) noexcept nogil:
    """Is this the last row of what came with one frame? A snapshot is its clear and all levels behind it."""
    cdef int kind = columns.type[row]
    if kind == DELTA or kind == GAP or row + 1 >= stop:
        return True
    return columns.type[row + 1] != SNAPSHOT or columns.market_ix[row + 1] != columns.market_ix[row]

cdef class BookTable:
    cdef readonly list books  # OrderBook by market number
    cdef void** table  # the same, not counted
    cdef Py_ssize_t n
    cdef Py_ssize_t room
    cdef readonly int64_t applied
    cdef readonly int64_t skipped
    cdef readonly int64_t faults
    cdef readonly int fault
    cdef readonly Py_ssize_t fault_row

    cdef int grow_for(self, Columns* columns, Py_ssize_t first, Py_ssize_t stop) except -1
    cdef void run(self, Columns* columns, Py_ssize_t first, Py_ssize_t stop) noexcept nogil

cdef class Rows:
    cdef tuple kept
    cdef readonly Py_ssize_t n
    cdef Columns columns
    cdef const int64_t* ingest_ns
    cdef const int64_t* ts_us  # NULL, as the following: not asked for
    cdef const uint64_t* conn_id
    cdef const uint32_t* sid
    cdef const uint64_t* seq

cdef class Event:
    cdef readonly int kind
    cdef readonly int market_ix
    cdef readonly str ticker
    cdef readonly int side
    cdef readonly int price_e4
    cdef readonly int64_t qty_e2
    cdef readonly int64_t ts_us
    cdef readonly int64_t ingest_ns
    cdef readonly uint64_t conn_id
    cdef readonly uint32_t sid
    cdef readonly uint64_t seq
    cdef readonly OrderBook book

cdef class EventReader:
    cdef readonly BookTable table
    cdef list tickers
    cdef object chunks
    cdef readonly Event event
    cdef Rows rows
    cdef Py_ssize_t at

    cdef int advance(self) except -1
