"""Recorded columns become books: the rules of the rows, compiled, a whole column at a time.

``clear`` empties a book and makes it known, ``gap`` makes it unknown, ``snapshot`` and ``delta`` change a known
one and are nothing to an unknown one. A row that cannot be true (a level below zero, a price that there is not)
makes its book unknown until the next clear, and is counted. Grids widen as live. Not here: where columns come
from (``replaying.source``), what is done with the books.
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

import numpy as np

from kalshi_fast._book cimport OrderBook
from kalshi_fast._decode cimport PRICE_MAX_E4, QTY_LIMIT_E2

from kalshi_fast._book import DECI_CENT, FINEST, LINEAR_CENT, TAPERED_DECI_CENT
from kalshi_fast.errors import FieldError

cdef extern from *:
    """
    #define KF_PREFETCH(address) __builtin_prefetch((address), 1, 3)
    """
    void KF_PREFETCH(const void* address) noexcept nogil

cdef enum:
    SNAPSHOT = 0
    DELTA = 1
    CLEAR = 2
    GAP = 3
    AHEAD = 12  # rows: so far ahead a level is fetched
    FAR_AHEAD = 24  # and its book
    MAX_MARKETS = 1 << 24

_COARSE_TO_FINE = (LINEAR_CENT, TAPERED_DECI_CENT, DECI_CENT, FINEST)

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
    if book.levels[0] or book.levels[1]:
        memset(book.qty[0], 0, 2 * book.grid.n_ticks * sizeof(int64_t))
        book.levels[0] = book.levels[1] = 0
        book.best[0] = book.best[1] = -1
        book.sum[0] = book.sum[1] = 0
    book.stale = False


cdef void _widen(OrderBook book, int price) noexcept with gil:
    """To the coarsest grid with this price and all that rest; as ``books.Replica.fit_grid`` does live."""
    resting = [resting_price for levels in book.ladders() for resting_price, _ in levels]
    for grid in _COARSE_TO_FINE:
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
            book.stale = True
        else:
            return NO_CODE
        return DONE
    if book.stale:
        return SKIPPED
    if price > PRICE_MAX_E4 or side & ~1 or kind < 0:
        book.stale = True
        return NO_PRICE if price > PRICE_MAX_E4 else NO_CODE
    slot = book.grid.slot_of[price]
    if slot < 0:
        _widen(book, price)
        slot = book.grid.slot_of[price]
    after = book.qty[side][slot]
    if kind == SNAPSHOT:
        if after != 0 or qty <= 0:
            book.stale = True
            return TWICE if after != 0 else NO_SIZE
        after = qty
    else:
        if qty > QTY_LIMIT_E2 or qty < -QTY_LIMIT_E2:
            book.stale = True
            return TOO_LARGE
        after += qty
    if after < 0 or after > QTY_LIMIT_E2:
        book.stale = True
        return NEGATIVE if after < 0 else TOO_LARGE
    book.put(side, slot, after)
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
                        (<OrderBook>book).qty[columns.side[i + AHEAD] & 1]
                        + (<OrderBook>book).grid.slot_of[price]
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
            if not book.stale:
                length += 1 + book.levels[0] + book.levels[1]
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
            if book.stale:
                continue
            types[row] = CLEAR
            markets[row] = market
            row += 1
            for side in range(2):
                for slot in range(book.best[side], -1, -1):
                    if book.qty[side][slot] != 0:
                        types[row] = SNAPSHOT
                        markets[row] = market
                        sides[row] = side
                        prices[row] = book.grid.price_of[slot]
                        sizes[row] = book.qty[side][slot]
                        row += 1
        return columns
