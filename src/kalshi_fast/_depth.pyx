"""Recorded columns become absolute depth updates of the yes book, compiled: what other back-testers read.

A row per change: what it is, the price on the yes scale (a bid for no is an ask at 10000 minus its price) and
the size that the level has afterwards. ``CLEARED`` empties both sides: the book has become unknown, or the
levels of a snapshot follow. The rules of the rows are those of ``_replay``. Some readers hide the levels of
a crossed book, and do not find them again; when ours uncrosses, the levels that could have been hidden are
said once more. Not here: the form in which another program wants them (``exporting``).
"""

from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t

import numpy as np

from kalshi_fast._book cimport OrderBook, slot_below
from kalshi_fast._replay cimport BookTable, Columns

from kalshi_fast.errors import FieldError

SET = 0  # a level has this size now, 0: it is gone
LEVEL = 1  # a level of a snapshot
CLEARED = 2  # both sides are empty

cdef enum:
    C_SET = 0
    C_LEVEL = 1
    C_CLEARED = 2
    C_SNAPSHOT = 0
    C_DELTA = 1
    C_CLEAR = 2
    TOP_E4 = 10000
    NOT_CROSSED = -1
    FIRST_ROOM = 1024

UPDATE = np.dtype(
    [
        ("kind", np.int8),
        ("ask", np.int8),
        ("price_e4", np.uint16),
        ("market_ix", np.int32),
        ("qty_e2", np.int64),
        ("row", np.int64),
    ]
)

cdef packed struct Update:
    int8_t kind
    int8_t ask
    uint16_t price_e4
    int32_t market_ix
    int64_t qty_e2
    int64_t row


cdef struct State:
    bint wanted
    bint known
    # While a book is crossed: how high its bids and how low its asks have been.
    int high_bid
    int low_ask


cdef class DepthUpdates:
    """``DepthUpdates()``, ``want`` markets, ``apply`` chunks. ``crossed``: rows after which a wanted book was
    crossed or locked; ``unknown``: rows that found a wanted book unknown and left it so; ``faults``: rows that
    cannot be true."""

    cdef readonly BookTable table
    cdef State[::1] states
    cdef Update[::1] out
    cdef object out_array
    cdef Py_ssize_t n
    cdef readonly int64_t crossed
    cdef readonly int64_t unknown

    def __cinit__(self):
        self.table = BookTable()
        self.states = np.zeros(0, dtype=[("wanted", np.intc), ("known", np.intc), ("high", np.intc), ("low", np.intc)])
        self._make_room(FIRST_ROOM)

    @property
    def faults(self):
        return self.table.faults

    def want(self, Py_ssize_t market_ix):
        """Updates of this market are wanted."""
        if market_ix < 0:
            raise FieldError("market_ix", market_ix, "a number from 0")
        self._grow(market_ix + 1)
        self.states[market_ix].wanted = True

    cdef _grow(self, Py_ssize_t markets):
        cdef Py_ssize_t before = self.states.shape[0], ix
        if markets <= before:
            return
        self.table.grow(markets)
        grown = np.zeros(max(markets, 2 * before), dtype=np.asarray(self.states).dtype)
        grown[:before] = np.asarray(self.states)
        self.states = grown
        for ix in range(before, grown.shape[0]):
            self.states[ix].high_bid = self.states[ix].low_ask = NOT_CROSSED

    cdef _make_room(self, Py_ssize_t rows):
        cdef Py_ssize_t before = 0 if self.out_array is None else self.out.shape[0]
        if rows <= before:
            return
        grown = np.empty(max(rows, 2 * before), UPDATE)
        if before:
            grown[: self.n] = self.out_array[: self.n]
        self.out_array = grown
        self.out = grown

    cdef inline void _put(
        self, int kind, bint ask, int price_e4, Py_ssize_t market_ix, int64_t qty_e2, Py_ssize_t row
    ) noexcept nogil:
        cdef Update* to = &self.out[self.n]
        to.kind = kind
        to.ask = ask
        to.price_e4 = price_e4
        to.market_ix = <int32_t>market_ix
        to.qty_e2 = qty_e2
        to.row = row
        self.n += 1

    def apply(
        self,
        const int8_t[::1] type not None,
        const int32_t[::1] market_ix not None,
        const int8_t[::1] side not None,
        const uint16_t[::1] price_e4 not None,
        const int64_t[::1] qty_e2 not None,
    ):
        """The updates of these rows, in order; ``row`` is the place of the cause. A copy of their own."""
        cdef Py_ssize_t length = type.shape[0], row
        cdef int32_t market
        cdef Columns columns
        if not length:
            return np.empty(0, UPDATE)
        if not (market_ix.shape[0] == side.shape[0] == price_e4.shape[0] == qty_e2.shape[0] == length):
            raise FieldError("columns", None, "arrays of one length")
        columns.type = &type[0]
        columns.market_ix = &market_ix[0]
        columns.side = &side[0]
        columns.price_e4 = &price_e4[0]
        columns.qty_e2 = &qty_e2[0]
        self.n = 0
        self.table.grow_for(&columns, 0, length)
        self._grow(self.table.n)
        for row in range(length):
            market = market_ix[row]
            if market < 0 or not self.states[market].wanted:
                continue
            if self.n + 2 > self.out.shape[0]:
                self._make_room(self.n + 2)
            self.table.run(&columns, row, row + 1)
            self._step(&columns, market, row)
        return self.out_array[: self.n].copy()

    cdef _step(self, Columns* columns, int32_t market, Py_ssize_t row):
        cdef State* state = &self.states[market]
        cdef OrderBook book = <OrderBook>self.table.table[market]
        cdef int kind = columns.type[row], side = columns.side[row], price = columns.price_e4[row]
        if book.levels.stale:
            if state.known:
                state.known = False
                state.high_bid = state.low_ask = NOT_CROSSED
                self._put(C_CLEARED, 0, 0, market, 0, row)
            else:
                self.unknown += 1
            return
        if kind > C_CLEAR:
            return  # a code that there is not
        state.known = True
        if kind == C_CLEAR:
            state.high_bid = state.low_ask = NOT_CROSSED
            self._put(C_CLEARED, 0, 0, market, 0, row)
            return
        self._put(
            C_LEVEL if kind == C_SNAPSHOT else C_SET,
            side == 1,
            price if side == 0 else TOP_E4 - price,
            market,
            book.levels.qty[side][book.levels.slot_of[price]],
            row,
        )
        self._look_at(state, book, market, row)

    cdef _look_at(self, State* state, OrderBook book, int32_t market, Py_ssize_t row):
        cdef int bid, ask
        if book.levels.best[0] >= 0 and book.levels.best[1] >= 0:
            bid = book.grid.price_of[book.levels.best[0]]
            ask = TOP_E4 - book.grid.price_of[book.levels.best[1]]
            if bid >= ask:
                self.crossed += 1
                if state.high_bid == NOT_CROSSED:
                    state.high_bid, state.low_ask = bid, ask
                state.high_bid = max(state.high_bid, bid)
                state.low_ask = min(state.low_ask, ask)
                return
        if state.high_bid != NOT_CROSSED:
            self._say_again(book, 0, state.low_ask, market, row)
            self._say_again(book, 1, TOP_E4 - state.high_bid, market, row)
            state.high_bid = state.low_ask = NOT_CROSSED

    cdef _say_again(self, OrderBook book, int side, int from_e4, int32_t market, Py_ssize_t row):
        """The levels of a side from its best down to a price."""
        cdef int slot = book.levels.best[side]
        cdef int price
        self._make_room(self.n + book.levels.depth[side] + 2)
        while slot >= 0 and book.grid.price_of[slot] >= from_e4:
            price = book.grid.price_of[slot]
            self._put(C_SET, side, price if side == 0 else TOP_E4 - price, market, book.levels.qty[side][slot], row)
            slot = slot_below(book.levels, side, slot)

    def levels(self, Py_ssize_t market_ix, Py_ssize_t row=-1):
        """The whole book of a market as CLEARED and its levels; nothing when it is unknown."""
        cdef OrderBook book
        if market_ix >= self.table.n:
            return np.empty(0, UPDATE)
        book = <OrderBook>self.table.table[market_ix]
        if book.levels.stale:
            return np.empty(0, UPDATE)
        self.n = 0
        self._make_room(book.levels.depth[0] + book.levels.depth[1] + 3)
        self._put(C_CLEARED, 0, 0, market_ix, 0, row)
        self._say_again(book, 0, 0, market_ix, row)
        self._say_again(book, 1, 0, market_ix, row)
        again = self.out_array[: self.n].copy()
        again["kind"][1:] = C_LEVEL
        return again
