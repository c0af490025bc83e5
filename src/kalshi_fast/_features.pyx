"""Looks at books while columns are applied: into preallocated arrays, with no Python in the loop.

``Collector`` looks behind every so many frames, at moments, or whenever the best prices change; ``Bars`` sums
up what happened between two moments. Rows must end with whole frames. Not here: the rules of rows (``_replay``).
"""

from libc.math cimport llrint
from libc.stdint cimport int32_t, int64_t

import numpy as np

from kalshi_fast._book cimport OrderBook
from kalshi_fast._decode cimport PRICE_MAX_E4
from kalshi_fast._replay cimport BookTable, Rows, ends

from kalshi_fast.errors import FieldError


cdef void* _address(array):
    return <void*><size_t>array.ctypes.data


cdef class Features:
    """``Features(capacity, depth)``: preallocated arrays, a row for each look at a book.

    ``arrays``: ``market_ix``, ``at_ns``, ``known``; of the yes side's point of view ``bid_price_e4``,
    ``bid_qty_e2``, ``ask_price_e4``, ``ask_qty_e2`` of shape (capacity, depth), best first (price -1 and size 0:
    no such level); ``mid_half_e4`` (bid plus ask, exact; -1: a side is empty), ``microprice_e8`` (the mid weighted
    with the other side's size, rounded to 1e-8 dollar; -1 as before) and ``imbalance`` of the sizes in those
    levels, from -1 (all on the ask) to 1. The first ``n`` rows are filled. An unknown book has no levels.
    """

    def __cinit__(self, Py_ssize_t capacity, int depth=1):
        if capacity < 1:
            raise FieldError("capacity", capacity, "1 row or more")
        if not 1 <= depth <= PRICE_MAX_E4 + 1:
            raise FieldError("depth", depth, f"1 to {PRICE_MAX_E4 + 1} levels")
        self.capacity = capacity
        self.depth = depth
        self.arrays = {
            "market_ix": np.empty(capacity, np.int32),
            "at_ns": np.empty(capacity, np.int64),
            "known": np.empty(capacity, np.bool_),
            "bid_price_e4": np.empty((capacity, depth), np.int32),
            "bid_qty_e2": np.empty((capacity, depth), np.int64),
            "ask_price_e4": np.empty((capacity, depth), np.int32),
            "ask_qty_e2": np.empty((capacity, depth), np.int64),
            "mid_half_e4": np.empty(capacity, np.int32),
            "microprice_e8": np.empty(capacity, np.int64),
            "imbalance": np.empty(capacity, np.float64),
        }
        self.market_ix = <int32_t*>_address(self.arrays["market_ix"])
        self.at_ns = <int64_t*>_address(self.arrays["at_ns"])
        self.known = <int8_t*>_address(self.arrays["known"])
        self.price[0] = <int32_t*>_address(self.arrays["bid_price_e4"])
        self.price[1] = <int32_t*>_address(self.arrays["ask_price_e4"])
        self.qty[0] = <int64_t*>_address(self.arrays["bid_qty_e2"])
        self.qty[1] = <int64_t*>_address(self.arrays["ask_qty_e2"])
        self.mid_half_e4 = <int32_t*>_address(self.arrays["mid_half_e4"])
        self.microprice_e8 = <int64_t*>_address(self.arrays["microprice_e8"])
        self.imbalance = <double*>_address(self.arrays["imbalance"])

    def __len__(self):
        return self.n

    @property
    def full(self):
        """Is there no room for another row?"""
        return self.n == self.capacity

    def filled(self):
        """The filled rows of every array, over the same memory."""
        return {name: array[: self.n] for name, array in self.arrays.items()}

    def look(self, OrderBook book not None, int32_t market_ix=0, int64_t at_ns=0):
        """One row of a book. Raises FieldError when there is no room for it."""
        if self.n >= self.capacity:
            raise FieldError("capacity", self.capacity, "room for another row")
        self.write(book, market_ix, at_ns)

    cdef void write(self, OrderBook book, int32_t market_ix, int64_t at_ns) noexcept nogil:
        cdef Py_ssize_t row = self.n
        cdef Py_ssize_t at = row * self.depth
        cdef int side, slot, level, price
        cdef int64_t total[2]
        cdef int64_t bid_qty, ask_qty
        cdef int32_t bid, ask
        self.market_ix[row] = market_ix
        self.at_ns[row] = at_ns
        self.known[row] = not book.levels.stale
        for side in range(2):
            total[side] = 0
            level = 0
            slot = -1 if book.levels.stale else book.levels.best[side]
            while level < self.depth and slot >= 0:
                if book.levels.qty[side][slot] != 0:
                    price = book.grid.price_of[slot]
                    self.price[side][at + level] = price if side == 0 else PRICE_MAX_E4 - price
                    self.qty[side][at + level] = book.levels.qty[side][slot]
                    total[side] += book.levels.qty[side][slot]
                    level += 1
                slot -= 1
            while level < self.depth:
                self.price[side][at + level] = -1
                self.qty[side][at + level] = 0
                level += 1
        bid, ask = self.price[0][at], self.price[1][at]
        bid_qty, ask_qty = self.qty[0][at], self.qty[1][at]
        if bid < 0 or ask < 0:
            self.mid_half_e4[row] = -1
            self.microprice_e8[row] = -1
        else:
            self.mid_half_e4[row] = bid + ask
            self.microprice_e8[row] = llrint(
                (<double>bid * ask_qty + <double>ask * bid_qty) / (<double>bid_qty + ask_qty) * 1e4
            )
        if total[0] + total[1] == 0:
            self.imbalance[row] = 0.0
        else:
            self.imbalance[row] = (<double>total[0] - total[1]) / (<double>total[0] + total[1])
        self.n = row + 1


cdef class Collector:
    """``Collector(table, features)``: applies rows and looks at books on the way.

    Each ``take_…`` begins at row ``at`` and returns the row where it stopped: at the end of the rows, or before
    it because ``features`` is full; then ``refill`` and go on from there.
    """

    def __cinit__(self, BookTable table not None, Features features not None):
        self.table = table
        self.features = features
        self._remember(0)

    def refill(self, Features features not None):
        """From now on rows go into these."""
        self.features = features

    def _remember(self, Py_ssize_t markets):
        before = self.seen_array
        self.seen_array = np.full((max(64, 2 * markets), 5), -2, np.int64)
        if before is not None:
            self.seen_array[: len(before)] = before
        self.seen = self.seen_array

    def take_frames(self, Rows rows not None, Py_ssize_t at, int64_t every):
        """A row behind each ``every``-th frame, of that frame's market."""
        cdef Py_ssize_t row = at
        cdef Py_ssize_t first = at
        cdef BookTable table = self.table
        cdef Features features = self.features
        cdef int32_t market
        if every < 1:
            raise FieldError("events", every, "1 or more")
        if at >= rows.n:
            return at
        table.grow_for(&rows.columns, at, rows.n)
        with nogil:
            while row < rows.n and features.n < features.capacity:
                if ends(&rows.columns, row, rows.n):
                    self.frames += 1
                    if self.frames % every == 0:
                        table.run(&rows.columns, first, row + 1)
                        first = row + 1
                        market = rows.columns.market_ix[row]
                        features.write(<OrderBook>table.table[market], market, rows.ingest_ns[row])
                row += 1
            table.run(&rows.columns, first, row)
        return row

    def take_changes(self, Rows rows not None, Py_ssize_t at):
        """A row behind each frame that changed its market's best prices, their sizes, or whether it is known."""
        cdef Py_ssize_t row = at
        cdef Py_ssize_t first = at
        cdef BookTable table = self.table
        cdef Features features = self.features
        cdef int32_t market
        if at >= rows.n:
            return at
        table.grow_for(&rows.columns, at, rows.n)
        if table.n > self.seen.shape[0]:
            self._remember(table.n)
        with nogil:
            while row < rows.n and features.n < features.capacity:
                if ends(&rows.columns, row, rows.n):
                    table.run(&rows.columns, first, row + 1)
                    first = row + 1
                    market = rows.columns.market_ix[row]
                    if self._changed(<OrderBook>table.table[market], market):
                        features.write(<OrderBook>table.table[market], market, rows.ingest_ns[row])
                row += 1
        return row

    cdef bint _changed(self, OrderBook book, Py_ssize_t market) noexcept nogil:
        cdef int64_t* seen = &self.seen[market, 0]
        cdef int64_t price, qty
        cdef int side
        cdef bint changed = seen[4] != book.levels.stale
        if book.levels.stale and seen[4] == -2:
            return False  # it has never been known: nothing to tell yet
        seen[4] = book.levels.stale
        if book.levels.stale:
            return changed
        for side in range(2):
            price = -1 if book.levels.best[side] < 0 else book.grid.price_of[book.levels.best[side]]
            qty = 0 if book.levels.best[side] < 0 else book.levels.qty[side][book.levels.best[side]]
            if seen[2 * side] != price or seen[2 * side + 1] != qty:
                seen[2 * side] = price
                seen[2 * side + 1] = qty
                changed = True
        return changed

    def take_moments(self, Rows rows not None, Py_ssize_t at, int64_t every_ns):
        """A row for every known book at ``next_ns``, and every ``every_ns`` behind it, as far as the rows go.

        A book at a moment has all that was received until then, that moment included.
        """
        cdef Py_ssize_t row = at
        cdef Py_ssize_t first
        cdef BookTable table = self.table
        if at >= rows.n:
            return at
        table.grow_for(&rows.columns, at, rows.n)
        with nogil:
            while self.features.n < self.features.capacity:
                first = row
                while row < rows.n and rows.ingest_ns[row] <= self.next_ns:
                    row += 1
                table.run(&rows.columns, first, row)
                if row >= rows.n or not self._write_all():
                    break
                self.next_ns += every_ns
        return row

    def take_rest(self, int64_t every_ns, int64_t until_ns):
        """The moments up to ``until_ns``, when no more rows come. False: there was no room for all of them."""
        while self.next_ns <= until_ns:
            if not self._write_all():
                return False
            self.next_ns += every_ns
        return True

    cdef bint _write_all(self) noexcept nogil:
        cdef void* book
        while self.market < self.table.n:
            book = self.table.table[self.market]
            if not (<OrderBook>book).levels.stale:
                if self.features.n >= self.features.capacity:
                    return False
                self.features.write(<OrderBook>book, <int32_t>self.market, self.next_ns)
            self.market += 1
        self.market = 0
        return True


cdef enum:  # a market's line in Bars.state
    OPEN = 0
    HIGH = 1
    LOW = 2
    CLOSE = 3
    SPREAD_OPEN = 4
    SPREAD_HIGH = 5
    SPREAD_LOW = 6
    SPREAD_CLOSE = 7
    KNOWN_NS = 8
    QUOTED_NS = 9
    FRAMES = 10
    SINCE_NS = 11  # since when what follows holds
    KNOWN_NOW = 12
    MID_NOW = 13  # -1: not both sides
    SPREAD_NOW = 14
    STATES = 15

_NAMES = (
    "open_half_e4", "high_half_e4", "low_half_e4", "close_half_e4", "spread_open_e4", "spread_high_e4",
    "spread_low_e4", "spread_close_e4", "known_ns", "quoted_ns", "events",
)
NO_SPREAD = -(2**31)


cdef class Bars:
    """``Bars(table, every_ns, since_ns)``: what mid and spread did in each stretch of ``every_ns``, by market.

    What stands when a bar begins opens it. A market has a bar where it was known or had an event.
    """

    def __cinit__(self, BookTable table not None, int64_t every_ns, int64_t since_ns):
        if every_ns < 1:
            raise FieldError("every", every_ns, "a length of time above 0")
        self.table = table
        self.every_ns = every_ns
        self.since_ns = since_ns
        self.done = []
        self.grow()

    cdef int grow(self) except -1:
        cdef Py_ssize_t have = 0 if self.state_array is None else len(self.state_array)
        if have and self.table.n <= have:
            return 0
        before = self.state_array
        self.state_array = np.zeros((max(64, 2 * self.table.n), STATES), np.int64)
        self.state_array[:, :SPREAD_OPEN] = -1
        self.state_array[:, SPREAD_OPEN:KNOWN_NS] = NO_SPREAD
        self.state_array[:, SINCE_NS] = self.since_ns
        self.state_array[:, MID_NOW] = -1
        if before is not None:
            self.state_array[:have] = before
        self.state = self.state_array
        return 0

    def take(self, Rows rows not None):
        """Applies rows; the bars that are over with them."""
        cdef Py_ssize_t row = 0
        cdef Py_ssize_t first = 0
        cdef BookTable table = self.table
        cdef int32_t market
        if rows.n == 0:
            return self._taken()
        table.grow_for(&rows.columns, 0, rows.n)
        self.grow()
        while row < rows.n:
            with nogil:
                while row < rows.n and rows.ingest_ns[row] < self.since_ns + self.every_ns:
                    if ends(&rows.columns, row, rows.n):
                        table.run(&rows.columns, first, row + 1)
                        first = row + 1
                        market = rows.columns.market_ix[row]
                        self._note(<OrderBook>table.table[market], market, rows.ingest_ns[row])
                    row += 1
            if row < rows.n:
                self._close(self.since_ns + self.every_ns)
        return self._taken()

    def finish(self, int64_t until_ns):
        """The bars up to ``until_ns``, the last of which may be a short one."""
        while self.since_ns < until_ns:
            self._close(min(until_ns, self.since_ns + self.every_ns))
        return self._taken()

    cdef void _note(self, OrderBook book, Py_ssize_t market, int64_t at_ns) noexcept nogil:
        cdef int64_t* state = &self.state[market, 0]
        cdef int bid, ask
        self._pass(state, at_ns)
        state[FRAMES] += 1
        state[KNOWN_NOW] = not book.levels.stale
        state[MID_NOW] = -1
        if book.levels.stale or book.levels.best[0] < 0 or book.levels.best[1] < 0:
            return
        bid = book.grid.price_of[book.levels.best[0]]
        ask = PRICE_MAX_E4 - book.grid.price_of[book.levels.best[1]]
        state[MID_NOW] = bid + ask
        state[SPREAD_NOW] = ask - bid
        _count(state)

    cdef void _pass(self, int64_t* state, int64_t until_ns) noexcept nogil:
        """Until now nothing has changed."""
        if state[KNOWN_NOW]:
            state[KNOWN_NS] += until_ns - state[SINCE_NS]
            if state[MID_NOW] >= 0:
                state[QUOTED_NS] += until_ns - state[SINCE_NS]
        state[SINCE_NS] = until_ns

    cdef int _close(self, int64_t until_ns) except -1:
        """The bar is over: its rows, and what stands opens the next."""
        cdef Py_ssize_t market
        cdef int64_t* state
        cdef int i
        with nogil:
            for market in range(self.table.n):
                self._pass(&self.state[market, 0], until_ns)
        states = self.state_array[: self.table.n]
        rows = np.flatnonzero((states[:, KNOWN_NS] > 0) | (states[:, FRAMES] > 0))
        if len(rows):
            bar = {"market_ix": rows.astype(np.int32), "since_ns": np.full(len(rows), self.since_ns, np.int64)}
            for i, name in enumerate(_NAMES):
                bar[name] = states[rows, i]
            self.done.append(bar)
        self.since_ns = until_ns
        with nogil:
            for market in range(self.table.n):
                state = &self.state[market, 0]
                for i in range(SPREAD_OPEN):
                    state[i] = -1
                for i in range(SPREAD_OPEN, KNOWN_NS):
                    state[i] = _NO_SPREAD
                state[KNOWN_NS] = state[QUOTED_NS] = state[FRAMES] = 0
                if state[KNOWN_NOW] and state[MID_NOW] >= 0:
                    _count(state)
        return 0

    def _taken(self):
        done, self.done = self.done, []
        return done


cdef int64_t _NO_SPREAD = NO_SPREAD


cdef inline void _count(int64_t* state) noexcept nogil:
    """The present mid and spread belong to the bar."""
    cdef int64_t mid = state[MID_NOW]
    cdef int64_t spread = state[SPREAD_NOW]
    if state[OPEN] < 0:
        state[OPEN] = state[HIGH] = state[LOW] = mid
        state[SPREAD_OPEN] = state[SPREAD_HIGH] = state[SPREAD_LOW] = spread
    state[HIGH] = max(state[HIGH], mid)
    state[LOW] = min(state[LOW], mid)
    state[CLOSE] = mid
    state[SPREAD_HIGH] = max(state[SPREAD_HIGH], spread)
    state[SPREAD_LOW] = min(state[SPREAD_LOW], spread)
    state[SPREAD_CLOSE] = spread
