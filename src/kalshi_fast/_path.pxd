"""The fast path of one connection: its tables and its one entry point in C."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from kalshi_fast._columns cimport EventColumns, EventRows, LevelColumns, LevelRows, StagedRows
from kalshi_fast._state cimport BookState, Sequence

cdef enum Taken:
    NOT_TAKEN = 0
    TAKEN = 1
    TAKEN_AND_FULL = 2

cdef enum:
    MAX_HEAD = 64
    MAX_TIMES = 96
    NUMBER_BITS = 20  # of a market on one connection
    SEQ_DIGITS = 16

cdef struct Head:
    char text[MAX_HEAD]
    Py_ssize_t length  # 0: not known
    uint64_t seq  # the number that comes next, as it will be written
    int digits
    char seq_text[SEQ_DIGITS]
    char seq_mask[SEQ_DIGITS]

@cython.final
cdef class DeltaPath:
    cdef dict subscriptions
    cdef bint no_on_yes_scale
    # Of each market its number in ``books`` and from one on, and in the upper bits what else there is of its hash: 0 is
    # an empty place. As small as can be: every frame reads it somewhere else.
    cdef uint32_t* table
    cdef uint64_t mask
    cdef list names
    cdef list states
    cdef void** books  # the BookStates of ``states``, not counted
    cdef void* guess  # the BookState that the next frame seems to be for, NULL: no idea
    # The frame before had this subscription, and began so, up to its number.
    cdef Sequence last
    cdef Head head
    # Its times, from the comma to the last digit but three of ts_ms; and what time those digits are.
    cdef char times[MAX_TIMES]
    cdef Py_ssize_t times_length
    cdef int64_t second_us
    cdef EventColumns event_columns  # owners of the rows
    cdef LevelColumns level_columns
    cdef EventRows* events
    cdef LevelRows* levels
    cdef StagedRows staged
    cdef Py_ssize_t seal_rows
    cdef uint64_t turns  # how often the rows were to go somewhere else
    cdef public int64_t not_before_ns  # rows are not older than this: a takeover has been written at this time
    cdef public bint every_read  # the end of each read is to be told, whether something is due or not
    cdef public int64_t taken
    cdef public int64_t written
    cdef public int64_t last_frame_ns

    cdef _enter(self, bytes name, BookState state)
    cdef Taken scan(
        self, const char* text, Py_ssize_t length, Py_ssize_t tail, int64_t ingest_ns
    ) except? NOT_TAKEN
    cdef Taken _scan(
        self, const char* text, Py_ssize_t length, Py_ssize_t tail, int64_t ingest_ns
    ) except? NOT_TAKEN
    cdef void flush(self) noexcept nogil
    cdef void _fetch(self, void* state, const char* names, const char* end, const char* end_of_frame) noexcept nogil
    cdef _widen(self)
    cdef bint _turn_to(self, const char* text, const char* end)
    cdef int64_t _times(self, const char* at, const char* end, int64_t ingest_ns) noexcept nogil
    cdef void _keep_times(self, const char* times, Py_ssize_t length, int64_t ts_us) noexcept nogil
    cdef _insert(self, uint32_t number)
