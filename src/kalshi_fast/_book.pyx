"""The order book of one market: two sides of bids in fixed arrays, exact integers, no objects inside.

Prices are ``price_e4`` (1/10,000 dollar, 0…10000), sizes ``qty_e2`` (1/100 contract). Both sides are
bids; the best ask of one side is 10000 minus the best bid of the other. A slot exists for every tick of
the market's price grid and for no other price, so a cent market costs 1.6 KB and the finest possible one
160 KB. A book is either exact or ``stale``: an update that cannot be true (off the grid, below zero,
beyond the limit) changes nothing but that flag, and only a snapshot takes the flag away.

Not here: which market it is, sequences, storage, where updates come from.
"""

from libc.stdint cimport int64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from kalshi_fast._decode cimport PRICE_MAX_E4, QTY_LIMIT_E2
from kalshi_fast.errors import (
    BookError,
    DuplicateLevelError,
    FieldError,
    LevelLimitError,
    NegativeLevelError,
    PriceOffGridError,
)

YES = 0
NO = 1
SIDES = ("yes", "no")

cdef object numpy_module = None


cdef _numpy():
    """Imported when an array is first asked for: it costs more than everything else here."""
    global numpy_module
    if numpy_module is None:
        import numpy

        numpy_module = numpy
    return numpy_module


cdef class Grid:
    """The prices a market may use (its ``price_level_structure``). Immutable, shared by its books.

    ``ranges`` is a tuple of (start_e4, end_e4, step_e4), both ends included. 0 and 10000 always belong.
    Raises FieldError for a range that is not inside 0…10000 or whose step does not lead to its end.
    """

    def __cinit__(self, str name not None, ranges):
        cdef int start, end, step, price, slot = 0
        self.name = name
        self.ranges = tuple((int(a), int(b), int(c)) for a, b, c in ranges)
        on_grid = {0, PRICE_MAX_E4}
        for start_, end_, step_ in self.ranges:
            if not (0 <= start_ < end_ <= PRICE_MAX_E4 and 0 < step_ and (end_ - start_) % step_ == 0):
                raise FieldError(
                    "price_ranges", (start_, end_, step_),
                    "start and end within 0…10000, and a step that leads from one to the other",
                )
            on_grid.update(range(start_, end_ + 1, step_))
        memset(self.slot_of, 0xFF, sizeof(self.slot_of))
        for price in sorted(on_grid):
            self.slot_of[price] = slot
            self.price_of[slot] = price
            slot += 1
        self.n_ticks = slot

    def __contains__(self, price_e4):
        return 0 <= price_e4 <= PRICE_MAX_E4 and self.slot_of[<int>price_e4] >= 0

    @property
    def prices(self):
        """All prices, ascending: numpy uint16 of shape (n_ticks,)."""
        np = _numpy()
        return np.array([self.price_of[slot] for slot in range(self.n_ticks)], dtype=np.uint16)

    def __eq__(self, other):
        return (
            isinstance(other, Grid)
            and self.n_ticks == (<Grid>other).n_ticks
            and memcmp(self.slot_of, (<Grid>other).slot_of, sizeof(self.slot_of)) == 0
        )

    def __hash__(self):
        return hash(self.ranges)

    def __reduce__(self):
        return Grid, (self.name, self.ranges)

    def __repr__(self):
        return f"Grid({self.name!r}, {self.n_ticks} ticks)"


def _tapered(str name, int edge, int center, int width=1000):
    """Ticks of ``edge`` within ``width`` of both ends, of ``center`` between."""
    return Grid(name, [(0, width, edge), (width, 10000 - width, center), (10000 - width, 10000, edge)])


# The twelve structures of Kalshi's API documentation of September 2026 (price_level_structure). A name is a hint:
# where a market comes with its price_ranges, those count, under whatever name.
LINEAR_CENT = Grid("linear_cent", [(0, 10000, 100)])
TAPERED_DECI_CENT = _tapered("tapered_deci_cent", 10, 100)
DECI_CENT = Grid("deci_cent", [(0, 10000, 10)])
CENTER_DECI_EDGE_CENTI_CENT = _tapered("center_deci_edge_centi_cent", 1, 10, 100)
FINEST = Grid("finest", [(0, 10000, 1)])
GRIDS = {
    grid.name: grid
    for grid in (
        LINEAR_CENT,
        TAPERED_DECI_CENT,
        DECI_CENT,
        _tapered("center_whole_edge_half_cent", 50, 100),
        _tapered("center_whole_edge_quint_cent", 20, 100),
        Grid("center_half_edge_half_cent", [(0, 10000, 50)]),
        _tapered("center_half_edge_quint_cent", 20, 50),
        _tapered("center_half_edge_deci_cent", 10, 50),
        Grid("center_quint_edge_quint_cent", [(0, 10000, 20)]),
        _tapered("center_quint_edge_deci_cent", 10, 20),
        CENTER_DECI_EDGE_CENTI_CENT,
        Grid("center_centi_edge_centi_cent", [(0, 10000, 1)]),
        FINEST,
    )
}
# What a book whose grid nobody has told, or which has a price off it, goes on to: the first that has all its prices.
COARSE_TO_FINE = (LINEAR_CENT, TAPERED_DECI_CENT, DECI_CENT, CENTER_DECI_EDGE_CENTI_CENT, FINEST)


cdef Py_ssize_t _words(Grid grid) noexcept:
    """Words of bits of one side."""
    return (grid.n_ticks + 63) // 64


cdef inline int _side(int side) except -1:
    if side != 0 and side != 1:
        raise FieldError("side", side, "0 (YES) or 1 (NO)")
    return side


cdef class OrderBook:
    """``OrderBook(grid=LINEAR_CENT, *, stale=False)``: an empty book."""

    def __cinit__(self, Grid grid not None=LINEAR_CENT, *, bint stale=False):
        cdef Levels* levels
        cdef Py_ssize_t words = _words(grid)
        self.levels = levels = <Levels*>zeroed_lines(sizeof(Levels))
        if levels == NULL:
            raise MemoryError
        self.grid = grid
        levels.slot_of = grid.slot_of
        levels.stale = stale
        levels.best[0] = levels.best[1] = -1
        levels.qty[0] = <int64_t*>calloc(2 * (grid.n_ticks + words), sizeof(int64_t))
        if levels.qty[0] == NULL:
            raise MemoryError
        levels.qty[1] = levels.qty[0] + grid.n_ticks
        levels.bits[0] = <uint64_t*>(levels.qty[1] + grid.n_ticks)
        levels.bits[1] = levels.bits[0] + words

    def __dealloc__(self):
        if self.levels != NULL:
            free(self.levels.qty[0])
            free(self.levels)

    @property
    def stale(self):
        """Whether the book is unknown; its last known levels stay readable."""
        return bool(self.levels.stale)

    @property
    def updates(self):
        """How many deltas have been applied since the book was made: how busy the market is."""
        return self.levels.updates

    # --- updates --------------------------------------------------------------------------------

    cdef Status add(self, int side, int64_t price_e4, int64_t delta_e2, int64_t* after_e2) noexcept nogil:
        """The delta in C: APPLIED and the level's new size, or why not (and the book is stale then)."""
        cdef Levels* levels = self.levels
        cdef int slot
        cdef int64_t after
        if levels.stale:
            return STALE
        if price_e4 < 0 or price_e4 > PRICE_MAX_E4 or levels.slot_of[price_e4] < 0:
            levels.stale = True
            return OFF_GRID
        slot = levels.slot_of[price_e4]
        if delta_e2 < -QTY_LIMIT_E2 or delta_e2 > QTY_LIMIT_E2:
            levels.stale = True
            return LIMIT
        after = levels.qty[side][slot] + delta_e2
        if after < 0 or after > QTY_LIMIT_E2:
            levels.stale = True
            return NEGATIVE if after < 0 else LIMIT
        put(levels, side, slot, after)
        after_e2[0] = after
        return APPLIED

    def apply_delta(self, int side, int64_t price_e4, int64_t delta_e2):
        """Adds a signed change to one level; returns the level's size after it (``qty_e2``).

        Raises PriceOffGridError, NegativeLevelError, LevelLimitError (book unchanged and stale from now
        on), or BookError when the book already is stale.
        """
        cdef int64_t after = 0
        cdef Status status = self.add(_side(side), price_e4, delta_e2, &after)
        if status == APPLIED:
            return after
        if status == STALE:
            raise BookError("book", "stale", "a snapshot before the next delta")
        if status == OFF_GRID:
            raise PriceOffGridError("price_e4", price_e4, f"a tick of the {self.grid.name} grid")
        if status == NEGATIVE:
            raise NegativeLevelError(
                "delta_e2", delta_e2,
                f"at most the {self.size_at(side, price_e4)} resting on {SIDES[side]} at {price_e4}",
            )
        raise LevelLimitError("delta_e2", delta_e2, f"a level of at most {QTY_LIMIT_E2} after it")

    def apply_snapshot(self, yes, no):
        """Replaces all levels by the (price_e4, qty_e2) pairs of both sides; the book is exact after it.

        A size of 0 is no level. Raises PriceOffGridError, NegativeLevelError, LevelLimitError or
        DuplicateLevelError: the levels are unchanged and the book is stale then.
        """
        cdef OrderBook fresh = OrderBook.__new__(OrderBook, self.grid)
        cdef int side, slot
        cdef int64_t price, qty
        cdef set seen
        try:
            for side, pairs in enumerate((yes, no)):
                seen = set()
                for price, qty in pairs:
                    if price < 0 or price > PRICE_MAX_E4 or self.grid.slot_of[price] < 0:
                        raise PriceOffGridError("price_e4", price, f"a tick of the {self.grid.name} grid")
                    if qty < 0:
                        raise NegativeLevelError("qty_e2", qty, "a size of 0 or more")
                    if qty > QTY_LIMIT_E2:
                        raise LevelLimitError("qty_e2", qty, f"a size of at most {QTY_LIMIT_E2}")
                    if price in seen:
                        raise DuplicateLevelError("price_e4", price, f"each {SIDES[side]} price once")
                    seen.add(price)
                    put(fresh.levels, side, self.grid.slot_of[price], qty)
        except BaseException:
            self.levels.stale = True
            raise
        self._take(fresh)
        self.levels.stale = False

    def change_grid(self, Grid grid not None):
        """Moves every level to another grid: the market's price_level_structure changed.

        Raises PriceOffGridError when a resting level has no tick there: book unchanged and stale.
        """
        cdef OrderBook fresh = OrderBook.__new__(OrderBook, grid)
        cdef int side, slot, price
        for side in range(2):
            slot = self.levels.best[side]
            while slot >= 0:
                price = self.grid.price_of[slot]
                if grid.slot_of[price] < 0:
                    self.levels.stale = True
                    raise PriceOffGridError("price_e4", price, f"a tick of the {grid.name} grid")
                put(fresh.levels, side, grid.slot_of[price], self.levels.qty[side][slot])
                slot = slot_below(self.levels, side, slot)
        self._take(fresh)

    cdef void _take(self, OrderBook other) noexcept:
        """Swaps grids and levels with another book, which keeps what this one had."""
        cdef Levels mine = self.levels[0]
        self.grid, other.grid = other.grid, self.grid
        self.levels[0] = other.levels[0]
        other.levels[0] = mine
        self.levels.stale, self.levels.updates = mine.stale, mine.updates

    def mark_stale(self):
        """From now on unknown, until the next snapshot. The last known levels stay readable."""
        self.levels.stale = True

    # --- questions ------------------------------------------------------------------------------

    def best_bid(self, int side):
        """Best bid in price_e4, None when the side is empty."""
        cdef int slot = self.levels.best[_side(side)]
        return None if slot < 0 else self.grid.price_of[slot]

    def best_ask(self, int side):
        """Best ask in price_e4: 10000 minus the other side's best bid; None when that side is empty."""
        cdef int slot = self.levels.best[1 - _side(side)]
        return None if slot < 0 else PRICE_MAX_E4 - self.grid.price_of[slot]

    def size_at(self, int side, int64_t price_e4):
        """Size resting at a price in qty_e2; 0 at a price without orders or off the grid."""
        if price_e4 < 0 or price_e4 > PRICE_MAX_E4:
            raise FieldError("price_e4", price_e4, "a price from 0 to 10000")
        cdef int slot = self.grid.slot_of[price_e4]
        return 0 if slot < 0 else self.levels.qty[_side(side)][slot]

    def depth(self, int side):
        """How many prices of the side have a size."""
        return self.levels.depth[_side(side)]

    def total(self, int side):
        """Sum of all sizes of the side in qty_e2."""
        return self.levels.sum[_side(side)]

    @property
    def spread_e4(self):
        """Best yes ask minus best yes bid in price_e4 (negative: crossed); None without both sides."""
        if self.levels.best[0] < 0 or self.levels.best[1] < 0:
            return None
        return PRICE_MAX_E4 - self.grid.price_of[self.levels.best[1]] - self.grid.price_of[self.levels.best[0]]

    @property
    def mid_half_e4(self):
        """Mid of the yes price in half price_e4, exact: best yes bid plus best yes ask; None as above."""
        if self.levels.best[0] < 0 or self.levels.best[1] < 0:
            return None
        return PRICE_MAX_E4 - self.grid.price_of[self.levels.best[1]] + self.grid.price_of[self.levels.best[0]]

    def ladder(self, int side, max_levels=None):
        """The side's levels, best first: (price_e4 uint16, qty_e2 int64), two numpy arrays of one length."""
        cdef int n = self.levels.depth[_side(side)]
        if max_levels is not None:
            if max_levels < 0:
                raise FieldError("max_levels", max_levels, "0 or more")
            n = min(n, max_levels)
        np = _numpy()
        prices = np.empty(n, dtype=np.uint16)
        sizes = np.empty(n, dtype=np.int64)
        cdef uint16_t[::1] price_view = prices
        cdef int64_t[::1] size_view = sizes
        cdef int slot = self.levels.best[side], i
        for i in range(n):
            price_view[i] = self.grid.price_of[slot]
            size_view[i] = self.levels.qty[side][slot]
            slot = slot_below(self.levels, side, slot)
        return prices, sizes

    def ladders(self):
        """Both sides' levels, best first, as lists of (price_e4, qty_e2)."""
        return tuple(
            [list(zip(prices.tolist(), sizes.tolist())) for prices, sizes in map(self.ladder, (YES, NO))]
        )

    @property
    def nbytes(self):
        """Bytes of both sides' sizes and bits (the grid is shared and not counted)."""
        return 2 * (self.grid.n_ticks + _words(self.grid)) * sizeof(int64_t)

    def __sizeof__(self):
        return object.__sizeof__(self) + sizeof(Levels) + self.nbytes

    def copy(self):
        """An independent book with the same grid, levels and stale flag."""
        cdef OrderBook twin = OrderBook.__new__(OrderBook, self.grid)
        cdef Levels own = twin.levels[0]
        memcpy(own.qty[0], self.levels.qty[0], self.nbytes)
        twin.levels[0] = self.levels[0]
        twin.levels.updates = 0
        for side in range(2):
            twin.levels.qty[side], twin.levels.bits[side] = own.qty[side], own.bits[side]
        return twin

    __copy__ = copy

    def __deepcopy__(self, memo):
        return self.copy()

    def __reduce__(self):
        return _restore, (self.grid, *self.ladders(), self.stale)

    def __eq__(self, other):
        """Same levels on both sides and the same stale flag; the grids may differ."""
        if not isinstance(other, OrderBook):
            return NotImplemented
        cdef OrderBook twin = other
        cdef const Levels* mine = self.levels
        cdef const Levels* theirs = twin.levels
        cdef int side, slot, there
        if mine.stale != theirs.stale:
            return False
        for side in range(2):
            if mine.depth[side] != theirs.depth[side] or mine.sum[side] != theirs.sum[side]:
                return False
            slot = mine.best[side]
            while slot >= 0:
                there = theirs.slot_of[self.grid.price_of[slot]]
                if there < 0 or theirs.qty[side][there] != mine.qty[side][slot]:
                    return False
                slot = slot_below(mine, side, slot)
        return True

    __hash__ = None

    def __repr__(self):
        bid, ask = self.best_bid(YES), self.best_ask(YES)
        shown = ["-" if price is None else f"{price // 10000}.{price % 10000:04d}" for price in (bid, ask)]
        return (
            f"<OrderBook {self.grid.name} yes {shown[0]}/{shown[1]}"
            f" depth {self.levels.depth[0]}+{self.levels.depth[1]}{' STALE' if self.stale else ''}>"
        )


def _restore(grid, yes, no, stale):
    book = OrderBook(grid)
    book.apply_snapshot(yes, no)
    if stale:
        book.mark_stale()
    return book
