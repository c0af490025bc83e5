"""Rebuilds books from rows and checks, event by event, what must be true of them.

Not here: where rows come from, how the findings are told (``replaying.verify``).
"""

from libc.stdint cimport int64_t, uint64_t

import numpy as np

from kalshi_fast._book cimport OrderBook
from kalshi_fast._decode cimport PRICE_MAX_E4
from kalshi_fast._replay cimport CLEAR, DELTA, GAP, BookTable, Rows, ends

from kalshi_fast._replay import OUTCOMES

COUNTS = (
    "events", "snapshots", "deltas", "gaps", "skipped", "crossed", "impossible", "numbers", "foreign", "differing",
)

cdef enum:
    EVENTS = 0
    SNAPSHOTS = 1
    DELTAS = 2
    GAPS = 3
    SKIPPED_DELTAS = 4
    CROSSED = 5
    IMPOSSIBLE = 6
    NUMBERS = 7
    FOREIGN = 8
    DIFFERING = 9
    N_COUNTS = 10


cdef class Verifier:
    """``Verifier(table)``: ``take`` rows that end with whole frames; ``counts`` by market, in the order of COUNTS.

    ``violations``: (market_ix, ingest_ns, what, detail) of the first ones, at most ``keep``. ``unwritten``: numbers
    of subscriptions that no row has and no gap explains: replies to commands, frames of a standby, or lost rows.
    """

    cdef readonly BookTable table
    cdef object counts_array
    cdef object origin_array
    cdef int64_t[:, ::1] counts
    cdef uint64_t[:, ::1] origin  # by market: connection, sid and number of the last event of the known book
    cdef readonly list violations
    cdef Py_ssize_t keep
    cdef readonly dict sequences
    cdef list sequence  # of the last row: the number of its last event, and whether a gap has been said since
    cdef uint64_t conn
    cdef uint64_t sid
    cdef readonly int64_t unwritten

    def __cinit__(self, BookTable table not None, Py_ssize_t keep=100):
        self.table = table
        self.violations = []
        self.sequences = {}
        self.keep = keep
        self._grow()

    def _grow(self):
        have = 0 if self.counts_array is None else len(self.counts_array)
        if have and self.table.n <= have:
            return
        before = self.counts_array, self.origin_array
        size = max(64, 2 * self.table.n)
        self.counts_array = np.zeros((size, N_COUNTS), np.int64)
        self.origin_array = np.zeros((size, 3), np.uint64)
        if have:
            self.counts_array[:have], self.origin_array[:have] = before
        self.counts, self.origin = self.counts_array, self.origin_array

    def found(self):
        """The counts of every market so far: (markets, len(COUNTS))."""
        return self.counts_array[: self.table.n].copy()

    cdef int _violation(self, Rows rows, Py_ssize_t row, int count, str detail) except -1:
        cdef int market = rows.columns.market_ix[row]
        self.counts[market, count] += 1
        if len(self.violations) < self.keep:
            self.violations.append((market, rows.ingest_ns[row], COUNTS[count], detail))
        return 0

    def take(self, Rows rows not None):
        """Applies the rows. They must have all columns."""
        cdef Py_ssize_t row = 0, first
        cdef BookTable table = self.table
        cdef OrderBook book
        cdef OrderBook before
        cdef int kind, market
        cdef int64_t faults, skipped
        cdef uint64_t conn, sid, seq
        cdef bint was_known
        if rows.n == 0:
            return
        if rows.conn_id == NULL or rows.sid == NULL or rows.seq == NULL:
            raise ValueError("rows to be verified need all columns")
        table.grow_for(&rows.columns, 0, rows.n)
        self._grow()
        while row < rows.n:
            first = row
            while not ends(&rows.columns, row, rows.n):
                row += 1
            kind = rows.columns.type[row]
            market = rows.columns.market_ix[row]
            book = <OrderBook>table.table[market]
            was_known = not book.levels.stale
            conn, sid, seq = rows.conn_id[row], rows.sid[row], rows.seq[row]
            before = None
            self._count_number(kind, conn, sid, seq)
            self.counts[market, EVENTS] += 1
            if kind == DELTA:
                self.counts[market, DELTAS] += 1
                if was_known:
                    self._check_number(rows, row, market, conn, sid, seq)
            elif kind == GAP:
                self.counts[market, GAPS] += 1
            else:
                self.counts[market, SNAPSHOTS] += 1
                if was_known and rows.columns.type[first] == CLEAR:
                    before = book.copy()
            faults, skipped = table.faults, table.skipped
            table.run(&rows.columns, first, row + 1)
            if table.faults > faults:
                self._violation(rows, row, IMPOSSIBLE, OUTCOMES[table.fault])
            self.counts[market, SKIPPED_DELTAS] += table.skipped - skipped
            if not book.levels.stale:
                self.origin[market, 0], self.origin[market, 1], self.origin[market, 2] = conn, sid, seq
                if before is not None and before != book:
                    self._violation(rows, row, DIFFERING, f"{before!r} was, {book!r} came")
                if (
                    book.levels.best[0] >= 0 and book.levels.best[1] >= 0
                    and book.grid.price_of[book.levels.best[0]] + book.grid.price_of[book.levels.best[1]] >= PRICE_MAX_E4
                ):
                    self.counts[market, CROSSED] += 1
            row += 1

    cdef int _check_number(
        self, Rows rows, Py_ssize_t row, int market, uint64_t conn, uint64_t sid, uint64_t seq
    ) except -1:
        if self.origin[market, 0] == 0:
            return 0  # the books that a start in mid-recording begins with are of no connection
        if conn != self.origin[market, 0] or sid != self.origin[market, 1]:
            self._violation(
                rows, row, FOREIGN,
                f"sid {sid} of connection {conn} and not {self.origin[market, 1]} of {self.origin[market, 0]}",
            )
        elif seq <= self.origin[market, 2]:
            self._violation(rows, row, NUMBERS, f"number {seq} behind {self.origin[market, 2]}")
        return 0

    cdef int _count_number(self, int kind, uint64_t conn, uint64_t sid, uint64_t seq) except -1:
        if self.sequence is None or conn != self.conn or sid != self.sid:
            self.conn, self.sid = conn, sid
            self.sequence = self.sequences.setdefault((conn, sid), [seq - 1, False])
        cdef uint64_t last = self.sequence[0]
        if kind == GAP:
            self.sequence[1] = True  # its number is the first one that is missing
            return 0
        if seq > last:
            if seq > last + 1 and not self.sequence[1]:
                self.unwritten += seq - last - 1
            self.sequence[0] = seq
            self.sequence[1] = False
        return 0
