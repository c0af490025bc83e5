"""Recorded columns become books: the rules of the rows, compiled, a whole column at a time.

``clear`` empties a book and makes it known, ``gap`` makes it unknown, ``snapshot`` and ``delta`` change a known
one and are nothing to an unknown one. A row that cannot be true (a level below zero, a price that there is not)
makes its book unknown until the next clear, and is counted. Grids widen as live. Not here: where columns come
from (``replaying.source``), what is done with the books.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

import numpy as np

from kalshi_fast._book cimport OrderBook, clear, put, slot_below
from kalshi_fast._decode cimport PRICE_MAX_E4, QTY_LIMIT_E2

from kalshi_fast._book import COARSE_TO_FINE
from kalshi_fast.errors import FieldError

cdef extern from *:
    """
    #define KF_PREFETCH(address) __builtin_prefetch((address), 1, 3)
    """
    void KF_PREFETCH(const void* address) noexcept nogil

cdef enum:
    AHEAD = 12  # rows: so far ahead a level is fetched
    FAR_AHEAD = 24  # and its book
    MAX_MARKETS = 1 << 24

OUTCOMES = (
    "done",
    "a delta takes more than the level has",
    "a level is larger than a book can hold",
    "a price is above one dollar",
    "a type, side or market that there is not",
    "a snapshot has a level without a size",
    "a snapshot has a level that the book has already",
)


cdef inline void _clear(OrderBook book) noexcept nogil:
    clear(book.levels)
    book.levels.stale = False


cdef void _widen(OrderBook book, int price) noexcept with gil:
    """To the coarsest grid with this price and all that rest; as ``books.Replica.fit_grid`` does live."""
    resting = [resting_price for levels in book.ladders() for resting_price, _ in levels]
    for grid in COARSE_TO_FINE:
        if price in grid and all(resting_price in grid for resting_price in resting):
            book.change_grid(grid)
            return


cdef inline Outcome _step(OrderBook book, int kind, int side, int price, int64_t qty) noexcept nogil:
    cdef int slot
    cdef int64_t after
    if kind > DELTA:
        if kind == CLEAR:
            _clear(book)
        elif kind == GAP:
            book.levels.stale = True
        else:
            return NO_CODE
        return DONE
    if book.levels.stale:
        return SKIPPED
    if price > PRICE_MAX_E4 or side & ~1 or kind < 0:
        book.levels.stale = True
        return NO_PRICE if price > PRICE_MAX_E4 else NO_CODE
    slot = book.levels.slot_of[price]
    if slot < 0:
        _widen(book, price)
        slot = book.levels.slot_of[price]
        if slot < 0:  # no memory for it
            book.levels.stale = True
            return NO_PRICE
    after = book.levels.qty[side][slot]
    if kind == SNAPSHOT:
        if after != 0 or qty <= 0:
            book.levels.stale = True
            return TWICE if after != 0 else NO_SIZE
        after = qty
    else:
        if qty > QTY_LIMIT_E2 or qty < -QTY_LIMIT_E2:
            book.levels.stale = True
            return TOO_LARGE
        after += qty
    if after < 0 or after > QTY_LIMIT_E2:
        book.levels.stale = True
        return NEGATIVE if after < 0 else TOO_LARGE
    put(book.levels, side, slot, after)
    return DONE


cdef class BookTable:
    """``BookTable(markets=0)``: a book per market number, all unknown at first. Grows as numbers come.

    ``applied``: rows read so far; ``skipped``: of those the levels and deltas of unknown books; ``faults``: those
    that cannot be true. ``fault`` and ``fault_row`` are of the last call of ``apply`` that met one: what (an index
    of ``OUTCOMES``), and where.
    """

    def __cinit__(self, Py_ssize_t markets=0):
        self.books = []
        self.fault_row = -1
        self.grow(markets)

    def __dealloc__(self):
        free(self.table)

    def grow(self, Py_ssize_t markets):
        """At least so many markets."""
        cdef void** table
        cdef Py_ssize_t room
        if markets > MAX_MARKETS:
            raise FieldError("market_ix", markets - 1, f"a number below {MAX_MARKETS}")
        if markets > self.room:
            room = max(markets, 2 * self.room, 64)
            table = <void**>realloc(self.table, room * sizeof(void*))
            if table == NULL:
                raise MemoryError
            self.table = table
            self.room = room
        while self.n < markets:
            book = OrderBook(stale=True)
            self.books.append(book)
            self.table[self.n] = <void*>book
            self.n += 1

    def __len__(self):
        return self.n

    # --- rows -------------------------------------------------------------------------------------

    def apply(
        self,
        const int8_t[::1] type not None,
        const int32_t[::1] market_ix not None,
        const int8_t[::1] side not None,
        const uint16_t[::1] price_e4 not None,
        const int64_t[::1] qty_e2 not None,
        Py_ssize_t first=0,
        Py_ssize_t stop=-1,
    ):
        """Applies rows ``first`` to ``stop`` (-1: all) of columns of one length, without the interpreter.

        Raises FieldError for columns of several lengths, rows that there are not, or a market number that
        cannot be; then nothing is applied.
        """
        cdef Columns columns
        cdef Py_ssize_t length = type.shape[0]
        if not (length == market_ix.shape[0] == side.shape[0] == price_e4.shape[0] == qty_e2.shape[0]):
            raise FieldError("columns", length, "five columns of one length")
        if stop < 0:
            stop = length
        if not 0 <= first <= stop <= length:
            raise FieldError("rows", (first, stop), f"rows from 0 to {length}")
        if first == stop:
            return
        columns.type = &type[0]
        columns.market_ix = &market_ix[0]
        columns.side = &side[0]
        columns.price_e4 = &price_e4[0]
        columns.qty_e2 = &qty_e2[0]
        self.grow_for(&columns, first, stop)
        with nogil:
            self.run(&columns, first, stop)

    cdef int grow_for(self, Columns* columns, Py_ssize_t first, Py_ssize_t stop) except -1:
        """Books for all markets of these rows, which ``run`` relies on."""
        cdef int32_t most = -1
        cdef int32_t least = 0
        cdef Py_ssize_t i
        with nogil:
            for i in range(first, stop):
                most = max(most, columns.market_ix[i])
                least = min(least, columns.market_ix[i])
        if least < 0:
            raise FieldError("market_ix", least, "a number from 0 on")
        if most >= self.n:
            self.grow(most + 1)
        return 0

    cdef void run(self, Columns* columns, Py_ssize_t first, Py_ssize_t stop) noexcept nogil:
        cdef Py_ssize_t i
        cdef int32_t market
        cdef int price
        cdef void* book
        cdef Outcome outcome
        for i in range(first, stop):
            if i + FAR_AHEAD < stop:
                book = self.table[columns.market_ix[i + FAR_AHEAD]]
                KF_PREFETCH(book)
                KF_PREFETCH(<char*>book + 64)
                price = columns.price_e4[i + AHEAD]
                if price <= PRICE_MAX_E4:
                    book = self.table[columns.market_ix[i + AHEAD]]
                    KF_PREFETCH(
                        (<OrderBook>book).levels.qty[columns.side[i + AHEAD] & 1]
                        + (<OrderBook>book).levels.slot_of[price]
                    )
            outcome = _step(
                <OrderBook>self.table[columns.market_ix[i]],
                columns.type[i],
                columns.side[i],
                columns.price_e4[i],
                columns.qty_e2[i],
            )
            if outcome != DONE:
                if outcome == SKIPPED:
                    self.skipped += 1
                else:
                    self.faults += 1
                    self.fault = outcome
                    self.fault_row = i
        self.applied += stop - first

    # --- whole books ------------------------------------------------------------------------------

    def snapshot_columns(self):
        """All known books as rows: a clear for each, then its levels as a recorder writes them, best first."""
        cdef Py_ssize_t market, row = 0, length = 0
        cdef int side, slot
        cdef OrderBook book
        for market in range(self.n):
            book = self.books[market]
            if not book.levels.stale:
                length += 1 + book.levels.depth[0] + book.levels.depth[1]
        columns = {
            "type": np.zeros(length, np.int8),
            "market_ix": np.zeros(length, np.int32),
            "side": np.zeros(length, np.int8),
            "price_e4": np.zeros(length, np.uint16),
            "qty_e2": np.zeros(length, np.int64),
        }
        cdef int8_t[::1] types = columns["type"]
        cdef int32_t[::1] markets = columns["market_ix"]
        cdef int8_t[::1] sides = columns["side"]
        cdef uint16_t[::1] prices = columns["price_e4"]
        cdef int64_t[::1] sizes = columns["qty_e2"]
        for market in range(self.n):
            book = self.books[market]
            if book.levels.stale:
                continue
            types[row] = CLEAR
            markets[row] = market
            row += 1
            for side in range(2):
                slot = book.levels.best[side]
                while slot >= 0:
                    types[row] = SNAPSHOT
                    markets[row] = market
                    sides[row] = side
                    prices[row] = book.grid.price_of[slot]
                    sizes[row] = book.levels.qty[side][slot]
                    row += 1
                    slot = slot_below(book.levels, side, slot)
        return columns


# --- frames -----------------------------------------------------------------------------------------


def open_frame(const int8_t[::1] type not None, const int32_t[::1] market_ix not None):
    """The row where the snapshot begins that the last row belongs to, and that may go on behind it.

    The number of rows when the last one is no part of a snapshot.
    """
    cdef Py_ssize_t row = type.shape[0]
    if row == 0 or (type[row - 1] != SNAPSHOT and type[row - 1] != CLEAR):
        return row
    row -= 1
    while row > 0 and type[row] == SNAPSHOT and market_ix[row - 1] == market_ix[row]:
        if type[row - 1] != SNAPSHOT and type[row - 1] != CLEAR:
            break
        row -= 1
    return row


cdef class Rows:
    """Columns of a chunk, held together with their addresses. Not to be changed while it is used."""

    def __cinit__(
        self,
        const int8_t[::1] type not None,
        const int32_t[::1] market_ix not None,
        const int8_t[::1] side not None,
        const uint16_t[::1] price_e4 not None,
        const int64_t[::1] qty_e2 not None,
        const int64_t[::1] ingest_ns not None,
        const int64_t[::1] ts_us=None,
        const uint64_t[::1] conn_id=None,
        const uint32_t[::1] sid=None,
        const uint64_t[::1] seq=None,
    ):
        cdef Py_ssize_t length = type.shape[0]
        if not (
            length == market_ix.shape[0] == side.shape[0] == price_e4.shape[0] == qty_e2.shape[0]
            == ingest_ns.shape[0]
            and (ts_us is None or ts_us.shape[0] == length)
            and (conn_id is None or conn_id.shape[0] == length)
            and (sid is None or sid.shape[0] == length)
            and (seq is None or seq.shape[0] == length)
        ):
            raise FieldError("columns", length, "columns of one length")
        self.n = length
        self.kept = (type, market_ix, side, price_e4, qty_e2, ingest_ns, ts_us, conn_id, sid, seq)
        if length == 0:
            return
        self.columns.type = &type[0]
        self.columns.market_ix = &market_ix[0]
        self.columns.side = &side[0]
        self.columns.price_e4 = &price_e4[0]
        self.columns.qty_e2 = &qty_e2[0]
        self.ingest_ns = &ingest_ns[0]
        if ts_us is not None:
            self.ts_us = &ts_us[0]
        if conn_id is not None:
            self.conn_id = &conn_id[0]
        if sid is not None:
            self.sid = &sid[0]
        if seq is not None:
            self.seq = &seq[0]

    def __len__(self):
        return self.n

    def place(self, int64_t at_ns, bint behind):
        """The first row received at that time or later; ``behind``: the first one received later."""
        cdef Py_ssize_t low = 0, high = self.n, middle
        while low < high:
            middle = (low + high) // 2
            if self.ingest_ns[middle] < at_ns or (behind and self.ingest_ns[middle] == at_ns):
                low = middle + 1
            else:
                high = middle
        return low

    def part(self, Py_ssize_t first, Py_ssize_t stop):
        """Rows ``first`` to ``stop`` over the same memory."""
        if not 0 <= first <= stop <= self.n:
            raise FieldError("rows", (first, stop), f"rows from 0 to {self.n}")
        if first == 0 and stop == self.n:
            return self
        cdef Rows some = Rows.__new__(Rows, *_NO_ROWS)
        some.kept = self.kept
        some.n = stop - first
        if some.n == 0:
            return some
        some.columns.type = self.columns.type + first
        some.columns.market_ix = self.columns.market_ix + first
        some.columns.side = self.columns.side + first
        some.columns.price_e4 = self.columns.price_e4 + first
        some.columns.qty_e2 = self.columns.qty_e2 + first
        some.ingest_ns = self.ingest_ns + first
        if self.ts_us != NULL:
            some.ts_us = self.ts_us + first
        if self.conn_id != NULL:
            some.conn_id = self.conn_id + first
        if self.sid != NULL:
            some.sid = self.sid + first
        if self.seq != NULL:
            some.seq = self.seq + first
        return some


_NO_ROWS = tuple(
    np.empty(0, dtype) for dtype in (np.int8, np.int32, np.int8, np.uint16, np.int64, np.int64)
)


cdef class Event:
    """What one frame did to one book. The iterator uses one object over and over: ``copy`` what is to stay.

    ``kind``: SNAPSHOT (the whole book; ``side``, ``price_e4``, ``qty_e2`` are 0), DELTA (``qty_e2`` is the
    change) or GAP. ``book`` is the market's book after it, ``known`` whether it is known; a delta of an
    unknown book has changed nothing.
    """

    @property
    def known(self):
        return not self.book.levels.stale

    def copy(self):
        """An event that stays as it is; its book is a copy too."""
        cdef Event twin = Event.__new__(Event)
        twin.kind, twin.ticker, twin.market_ix = self.kind, self.ticker, self.market_ix
        twin.side, twin.price_e4, twin.qty_e2 = self.side, self.price_e4, self.qty_e2
        twin.ts_us, twin.ingest_ns = self.ts_us, self.ingest_ns
        twin.conn_id, twin.sid, twin.seq = self.conn_id, self.sid, self.seq
        twin.book = self.book.copy()
        return twin

    def __repr__(self):
        what = ("snapshot", "delta", "clear", "gap")[self.kind]
        if self.kind == DELTA:
            what += f" {('yes', 'no')[self.side]} {self.price_e4} {self.qty_e2:+d}"
        return f"<Event {self.ingest_ns} {self.ticker} {what} {self.book!r}>"


cdef class EventReader:
    """``EventReader(table, tickers, chunks)``: applies rows to the books and stops behind every frame.

    ``chunks`` is an iterator of ``Rows`` that end with whole frames; ``tickers`` may grow meanwhile.
    """

    def __cinit__(self, BookTable table not None, list tickers not None, chunks):
        self.table = table
        self.tickers = tickers
        self.chunks = iter(chunks)
        self.event = Event.__new__(Event)

    def __iter__(self):
        return self

    def __next__(self):
        if not self.advance():
            raise StopIteration
        return self.event

    cdef int advance(self) except -1:
        """The next frame into ``event``; 0 when there is none."""
        cdef Py_ssize_t row
        cdef Rows rows
        cdef Event event = self.event
        while self.rows is None or self.at >= self.rows.n:
            self.rows = next(self.chunks, None)
            if self.rows is None:
                return 0
            self.at = 0
            if self.rows.n:
                self.table.grow_for(&self.rows.columns, 0, self.rows.n)
        rows = self.rows
        row = self.at
        while not ends(&rows.columns, row, rows.n):
            row += 1
        self.table.run(&rows.columns, self.at, row + 1)
        self.at = row + 1
        event.kind = rows.columns.type[row]
        if event.kind == CLEAR:
            event.kind = SNAPSHOT
        event.market_ix = rows.columns.market_ix[row]
        event.ticker = self.tickers[event.market_ix]
        event.book = self.table.books[event.market_ix]
        if event.kind == DELTA:
            event.side = rows.columns.side[row]
            event.price_e4 = rows.columns.price_e4[row]
            event.qty_e2 = rows.columns.qty_e2[row]
        else:
            event.side = event.price_e4 = 0
            event.qty_e2 = 0
        event.ingest_ns = rows.ingest_ns[row]
        event.ts_us = 0 if rows.ts_us == NULL else rows.ts_us[row]
        event.conn_id = 0 if rows.conn_id == NULL else rows.conn_id[row]
        event.sid = 0 if rows.sid == NULL else rows.sid[row]
        event.seq = 0 if rows.seq == NULL else rows.seq[row]
        return 1

    def drive(self, on_snapshot, on_delta, on_gap, on_book):
        """Calls these (None: nobody wants to know) with every event; ``on_book`` after each that leaves a
        known book. Returns how many events there were."""
        cdef int64_t events = 0
        cdef Event event = self.event
        while self.advance():
            events += 1
            if event.kind == DELTA:
                if on_delta is not None:
                    on_delta(event)
            elif event.kind == SNAPSHOT:
                if on_snapshot is not None:
                    on_snapshot(event)
            elif on_gap is not None:
                on_gap(event)
            if on_book is not None and event.kind != GAP and not event.book.levels.stale:
                on_book(event)
        return events



def advance(BookTable table not None, Rows rows not None, Py_ssize_t at, int64_t frames, int64_t until_ns):
    """Applies rows from ``at`` on: so many frames at most, none received behind ``until_ns``.

    Returns the row behind the last one applied, and how many frames that were.
    """
    cdef Py_ssize_t row = at
    cdef int64_t done = 0
    if at >= rows.n or frames <= 0:
        return at, 0
    table.grow_for(&rows.columns, at, rows.n)
    with nogil:
        while row < rows.n and done < frames and rows.ingest_ns[row] <= until_ns:
            while not ends(&rows.columns, row, rows.n):
                row += 1
            row += 1
            done += 1
        table.run(&rows.columns, at, row)
    return row, done
