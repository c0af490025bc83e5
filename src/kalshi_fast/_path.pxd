"""The fast path of one connection: its tables and its one entry point in C."""

cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t

from kalshi_fast._ahead cimport MAX_HEAD, Ahead, Table, scan_times
from kalshi_fast._columns cimport EventColumns, EventRows, LevelColumns, LevelRows, StagedRows
from kalshi_fast._state cimport BookState, Sequence

cdef enum Taken:
    NOT_TAKEN = 0
    TAKEN = 1
    TAKEN_AND_FULL = 2

cdef enum:
    HEADS = 64  # of so many subscriptions the next frame is known

cdef struct Head:
    # Of the next frame of a subscription.
    char text[MAX_HEAD]  # how it will begin, up to its ticker
    Py_ssize_t length  # 0: not known
    Py_ssize_t to_seq  # what stands before the number
    char* last_digit  # of the number
    uint64_t seq  # the number
    uint32_t sid
    void* subscription  # its Sequence

@cython.final
cdef class DeltaPath:
    cdef dict subscriptions
    cdef public bint no_on_yes_scale
    cdef Table table
    cdef list names
    cdef list states  # whose ``hot`` the table has
    cdef Ahead ahead
    cdef bytes read  # what ``take`` was given
    # The frame before had this head; that of a sid stands at its number modulo HEADS.
    cdef Head* head
    cdef Head heads[HEADS]
    cdef list subscriptions_of_heads
    cdef scan_times times  # how those of the frame before were written
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
    cdef Taken scan(self, const char* text, Py_ssize_t length, Py_ssize_t tail, int64_t ingest_ns) noexcept
    cdef void flush(self) noexcept nogil
    cdef void _write_rows(self) noexcept nogil
    cdef bint _begin_block(self, int64_t ingest_ns) noexcept nogil
    cdef _widen(self)
    cdef Head* _head_of(self, const char* text, const char* end) noexcept
    cdef bint _learn(self, Head* head, uint32_t sid) noexcept
    cdef _forget_heads(self)
    cdef int64_t _times(self, const char* at, const char* end, const char* behind) noexcept nogil
    cdef void _keep_times(
        self, const char* at, const char* end, const char* behind, int64_t ts_us, int64_t ts_ms
    ) noexcept nogil
    cdef _insert(self, uint32_t number)
