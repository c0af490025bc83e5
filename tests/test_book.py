"""The compiled book never differs from the model, never guesses, and costs what its grid needs."""

from __future__ import annotations

import copy
import pickle
import sys
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import FEW
from kalshi_fast._book import (
    DECI_CENT,
    FINEST,
    GRIDS,
    LINEAR_CENT,
    NO,
    TAPERED_DECI_CENT,
    YES,
    Grid,
    OrderBook,
)
from kalshi_fast.errors import (
    BookError,
    DuplicateLevelError,
    FieldError,
    LevelLimitError,
    NegativeLevelError,
    PriceOffGridError,
)
from model import LIMIT, ModelBook, ModelError

if TYPE_CHECKING:
    from collections.abc import Callable

SIDES = st.sampled_from([YES, NO])


def prices(grid: Grid) -> st.SearchStrategy[int]:
    """Mostly on the grid and close together, so that histories meet the same level again."""
    some = grid.prices.tolist()
    return st.one_of(
        st.sampled_from(some[:3] + some[len(some) // 2 :][:5] + some[-3:]),
        st.sampled_from(some),
        st.integers(-5, 10_005),
    )


SIZES = st.one_of(st.integers(-500, 500), st.integers(-(2**62), 2**62), st.sampled_from([0, LIMIT, -LIMIT]))


@st.composite
def histories(draw: st.DrawFn) -> tuple[Grid, list[tuple[Any, ...]]]:
    grid = draw(st.sampled_from(list(GRIDS.values())))
    price = prices(grid)
    levels = st.lists(st.tuples(price, st.one_of(st.integers(0, 1000), SIZES)), max_size=12)
    clean = st.lists(
        st.tuples(st.sampled_from(grid.prices.tolist()), st.integers(0, 1000)),
        max_size=12,
        unique_by=lambda p: p[0],
    )
    step = st.one_of(
        st.tuples(st.just("delta"), SIDES, price, SIZES),
        st.tuples(st.just("delta"), SIDES, price, st.integers(0, 300)),
        st.tuples(st.just("remove"), SIDES, st.integers(0, 5)),
        st.tuples(st.just("snapshot"), clean, clean),
        st.tuples(st.just("snapshot"), levels, levels),
        st.tuples(st.just("stale")),
        st.tuples(st.just("copy")),
    )
    return grid, draw(st.lists(step, max_size=60))


def assert_same(book: OrderBook, model: ModelBook) -> None:
    assert book.stale == model.stale
    best: list[int | None] = []
    for side in (YES, NO):
        expected = model.levels(side)
        ladder_prices, sizes = book.ladder(side)
        assert list(zip(ladder_prices.tolist(), sizes.tolist(), strict=True)) == expected
        assert book.depth(side) == len(expected)
        assert book.total(side) == sum(size for _, size in expected)
        top = expected[0][0] if expected else None
        best.append(top)
        assert book.best_bid(side) == top
        assert book.best_ask(1 - side) == (None if top is None else 10_000 - top)
        assert [book.size_at(side, price) for price, _ in expected] == [size for _, size in expected]
        assert book.ladder(side, 2)[0].tolist() == [price for price, _ in expected[:2]]
    yes, no = best
    if yes is None or no is None:
        assert book.spread_e4 is None
        assert book.mid_half_e4 is None
    else:
        assert book.spread_e4 == 10_000 - no - yes
        assert book.mid_half_e4 == yes + 10_000 - no


@settings(max_examples=60 if FEW else 600)
@given(histories())
def test_never_differs_from_the_model(history: tuple[Grid, list[tuple[Any, ...]]]) -> None:
    grid, steps = history
    book, model = OrderBook(grid), ModelBook(set(grid.prices.tolist()))
    for kind, *arguments in steps:
        if kind == "stale":
            book.mark_stale()
            model.stale = True
        elif kind == "copy":
            book = book.copy()
        elif kind == "snapshot":
            same_answer(book.apply_snapshot, model.snapshot, arguments)
        elif kind == "delta":
            same_answer(book.apply_delta, model.delta, arguments)
        else:
            side, number = arguments
            if resting := model.levels(side):
                price, size = resting[number % len(resting)]
                same_answer(book.apply_delta, model.delta, [side, price, -size])
        assert_same(book, model)


def same_answer(ours: Callable[..., Any], theirs: Callable[..., Any], arguments: list[Any]) -> None:
    try:
        expected = theirs(*arguments)
    except ModelError:
        with pytest.raises(BookError):
            ours(*arguments)
    else:
        assert ours(*arguments) == expected


def some_book(grid: Grid = LINEAR_CENT) -> OrderBook:
    book = OrderBook(grid)
    book.apply_snapshot([(800, 30_000), (2200, 33_300)], [(5400, 2000), (5600, 14_600)])
    return book


@pytest.mark.parametrize(
    ("side", "price", "change", "error"),
    [
        (YES, 800, -30_001, NegativeLevelError),
        (NO, 100, -1, NegativeLevelError),
        (YES, 805, 1, PriceOffGridError),
        (YES, -100, 1, PriceOffGridError),
        (NO, 10_100, 1, PriceOffGridError),
        (YES, 2**62, 1, PriceOffGridError),
        (YES, 800, LIMIT, LevelLimitError),
        (YES, 800, 2**62, LevelLimitError),
        (YES, 800, -(2**62), LevelLimitError),
    ],
)
def test_impossible_delta_changes_nothing_but_the_flag(
    side: int, price: int, change: int, error: type[BookError]
) -> None:
    book = some_book()
    before = book.copy()
    with pytest.raises(error):
        book.apply_delta(side, price, change)
    assert book.stale
    assert book != before
    before.mark_stale()
    assert book == before


def test_stale_book_takes_no_delta_until_a_snapshot() -> None:
    book = some_book()
    book.mark_stale()
    with pytest.raises(BookError, match="snapshot"):
        book.apply_delta(YES, 800, 1)
    assert book.size_at(YES, 800) == 30_000
    book.apply_snapshot([(900, 1)], [])
    assert not book.stale
    assert book.apply_delta(YES, 900, 4) == 5
    assert book.depth(NO) == 0


@pytest.mark.parametrize(
    ("yes", "no", "error"),
    [
        ([(800, 1), (800, 2)], [], DuplicateLevelError),
        ([], [(805, 1)], PriceOffGridError),
        ([(800, -1)], [], NegativeLevelError),
        ([(100, 5)], [(800, LIMIT + 1)], LevelLimitError),
    ],
)
def test_impossible_snapshot_changes_nothing_but_the_flag(
    yes: list[tuple[int, int]], no: list[tuple[int, int]], error: type[BookError]
) -> None:
    book = some_book()
    before = book.copy()
    before.mark_stale()
    with pytest.raises(error):
        book.apply_snapshot(yes, no)
    assert book == before


def test_a_snapshot_that_is_no_pairs_leaves_the_book_stale_and_whole() -> None:
    book = some_book()
    with pytest.raises((TypeError, ValueError)):
        book.apply_snapshot([(800, "many")], [])  # type: ignore[list-item]
    assert book.stale
    assert book.depth(YES) == 2


def test_memory_follows_the_grid() -> None:
    for grid, ticks in ((LINEAR_CENT, 101), (TAPERED_DECI_CENT, 281), (DECI_CENT, 1001), (FINEST, 10_001)):
        assert OrderBook(grid).nbytes == 2 * 8 * (ticks + -(-ticks // 64))  # a size and a bit for each
    assert sys.getsizeof(OrderBook()) < 2000


def test_the_best_is_found_however_far_it_is() -> None:
    slots = [0, 1, 62, 63, 64, 65, 4095, 4096, 4097, 8191, 8192, 9999, 10_000]
    for above in slots:
        for below in slots:
            if below < above:
                book = OrderBook(FINEST)
                for price in (below, above):
                    book.apply_delta(NO, price, 5)
                assert book.best_bid(NO) == above
                book.apply_delta(NO, above, -5)
                assert book.best_bid(NO) == below
                assert book.ladder(NO)[0].tolist() == [below]
                book.apply_delta(NO, below, -5)
                assert book.best_bid(NO) is None


def test_grids_are_the_exchange_s() -> None:
    assert 4810 not in LINEAR_CENT
    assert 4800 in TAPERED_DECI_CENT
    assert 4810 not in TAPERED_DECI_CENT
    assert {10, 990, 1000, 9000, 9010, 9990} <= set(TAPERED_DECI_CENT.prices.tolist())
    assert 1010 not in TAPERED_DECI_CENT
    assert 4810 in DECI_CENT
    assert 4811 not in DECI_CENT
    assert 4811 in FINEST
    assert -1 not in FINEST
    assert 10_001 not in FINEST
    for grid in GRIDS.values():
        assert grid.prices.tolist() == sorted(set(grid.prices.tolist()))


@pytest.mark.parametrize(
    "ranges", [[(0, 10_001, 1)], [(5, 5, 1)], [(0, 100, 0)], [(0, 100, 33)], [(-10, 0, 10)]]
)
def test_impossible_grid_is_refused(ranges: list[tuple[int, int, int]]) -> None:
    with pytest.raises(FieldError, match="price_ranges"):
        Grid("custom", ranges)


def test_grid_change_in_mid_life() -> None:
    book = some_book()
    book.change_grid(DECI_CENT)
    assert book == some_book()
    assert book.grid is DECI_CENT
    assert book.apply_delta(YES, 2210, 100) == 100
    assert book.best_bid(YES) == 2210
    with pytest.raises(PriceOffGridError, match="2210"):
        book.change_grid(LINEAR_CENT)
    assert book.stale
    assert book.size_at(YES, 2210) == 100
    assert book.grid is DECI_CENT
    book.apply_snapshot([(800, 1)], [])
    book.change_grid(LINEAR_CENT)
    assert not book.stale
    assert book.nbytes == OrderBook(LINEAR_CENT).nbytes


def test_copies_are_independent_and_equal() -> None:
    book = some_book(TAPERED_DECI_CENT)
    twins = [book.copy(), copy.copy(book), copy.deepcopy(book), pickle.loads(pickle.dumps(book))]
    for twin in twins:
        assert twin == book
        twin.apply_delta(YES, 10, 1)
        assert twin != book
    book.mark_stale()
    assert pickle.loads(pickle.dumps(book)).stale
    assert book != "a book"
    with pytest.raises(TypeError):
        hash(book)


@pytest.mark.parametrize("side", [-1, 2])
def test_side_must_be_a_side(side: int) -> None:
    book = some_book()
    for question in (book.best_bid, book.best_ask, book.depth, book.total, book.ladder):
        with pytest.raises(FieldError, match="side"):
            question(side)
    with pytest.raises(FieldError):
        book.apply_delta(side, 800, 1)
    assert not book.stale


def test_repr_says_dollars_and_staleness() -> None:
    book = some_book()
    assert repr(book) == "<OrderBook linear_cent yes 0.2200/0.4400 depth 2+2>"
    book.mark_stale()
    assert "STALE" in repr(book)
    assert "-/-" in repr(OrderBook())
