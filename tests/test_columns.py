"""Columns hold what was written, in order; Arrow sees the same memory, not a copy of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast._columns import EventColumns, LevelColumns, event_arrays, event_bytes, last_states
from kalshi_fast.arrow import EVENT_SCHEMA, LEVEL_SCHEMA, STORED_EVENTS, STORED_LEVELS, Names, stored
from kalshi_fast.errors import FieldError
from kalshi_fast.pool import LocalPool

TICKERS = ["A", "B-26.5", "C"]
IDS = [
    "9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1",
    "00000000-0000-0000-0000-000000000000",
    "d91bc706-ee49-470d-82d8-11418bda6fed",
]
I64 = st.integers(-(2**63), 2**63 - 1)
EVENT_ROWS = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**64 - 1),
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(0, 10_000),
        I64,
        st.integers(0, 2**62),
        st.integers(0, 2**62),
    ),
    max_size=40,
)
LEVEL_ROWS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.just(1),
        st.integers(0, 1),
        st.sampled_from([0, 1, 9999, 10_000, 5000]),
        st.integers(0, 2**62),
        st.integers(0, 2**62),
        st.integers(0, 2**40),
    ),
    max_size=60,
)


def filled(rows: list[tuple[int, ...]], capacity: int = 64) -> EventColumns:
    columns = EventColumns(capacity)
    for row in rows:
        assert columns.add(*row)
    return columns


@given(EVENT_ROWS)
def test_events_come_out_as_they_went_in(rows: list[tuple[int, ...]]) -> None:
    columns = filled(rows)
    view = Names(TICKERS, IDS).events(stored(STORED_EVENTS, columns.arrays, columns.n))
    assert view.schema == EVENT_SCHEMA
    view.validate(full=True)
    raw = view.set_column(9, "ts", view["ts"].cast(pa.int64())).set_column(
        10, "ingest_ts", view["ingest_ts"].cast(pa.int64())
    )
    kinds, sides = ["snapshot", "delta", "clear", "gap"], ["yes", "no"]
    expected = [
        (kinds[kind], conn, sid, seq, IDS[ids], TICKERS[ix], sides[side], price, qty, ts, ingest)
        for kind, conn, sid, seq, ix, ids, side, price, qty, ts, ingest in rows
    ]
    assert [tuple(row.values()) for row in raw.to_pylist()] == expected


LEVEL_NAMES = ("market_ix", "id_ix", "side", "price_e4", "size_e2", "ts_us", "ingest_ns", "version")


@given(LEVEL_ROWS, st.integers(0, 2**41))
def test_states_of_levels_have_a_growing_version(rows: list[tuple[int, ...]], start: int) -> None:
    columns = LevelColumns(64)
    columns.begin(start)
    expected, last = [], start
    for row in rows:
        assert columns.set(*row)
        last = max(last + 1, row[6])
        assert columns.version == last
        expected.append((*row, last))
    view = Names(TICKERS, IDS).levels(stored(STORED_LEVELS, columns.arrays, columns.n))
    assert view.schema == LEVEL_SCHEMA
    found = zip(*(columns.arrays[name][: columns.n].tolist() for name in LEVEL_NAMES), strict=True)
    assert list(found) == expected


@given(LEVEL_ROWS)
def test_the_last_state_of_each_level_is_left(rows: list[tuple[int, ...]]) -> None:
    columns = LevelColumns(64)
    model: dict[tuple[int, ...], tuple[int, ...]] = {}
    for row in rows:
        assert columns.set(*row)
        key = (row[0], *row[2:4])
        model.pop(key, None)  # the last comes last
        model[key] = (*row, columns.version)
    before = {name: column.copy() for name, column in columns.arrays.items()}
    last = last_states(columns.arrays, columns.n)
    assert list(zip(*(last[name].tolist() for name in LEVEL_NAMES), strict=True)) == list(model.values())
    for name, column in columns.arrays.items():
        assert last[name].dtype == column.dtype
        assert np.array_equal(before[name], column), "the buffer itself stays as it is"


def test_the_last_states_of_more_rows_than_there_are_are_refused() -> None:
    with pytest.raises(FieldError, match="states"):
        last_states(LevelColumns(4).arrays, 5)


def test_arrow_shares_the_memory_of_the_columns() -> None:
    columns = filled([(1, 2, 3, 4, 0, 1, 1, 5, 6, 7, 8)])
    view = Names(TICKERS, IDS).events(stored(STORED_EVENTS, columns.arrays, columns.n))
    names = {"ts": "ts_us", "ingest_ts": "ingest_ns", "market_id": "id_ix", "market_ticker": "market_ix"}
    for column in EVENT_SCHEMA.names:
        array = view[column]
        codes = array.indices if isinstance(array, pa.DictionaryArray) else array
        assert codes.buffers()[1].address == columns.arrays[names.get(column, column)].ctypes.data, column
    columns.arrays["qty_e2"][0] = 99
    assert view["qty_e2"].to_pylist() == [99]


def test_a_full_buffer_says_so_and_stays_as_it_is() -> None:
    events, levels = filled([(0,) * 11] * 2, capacity=2), LevelColumns(2)
    assert not events.add(*(1,) * 11)
    assert len(events) == 2
    assert events.arrays["type"].tolist() == [0, 0]
    assert levels.set(0, 0, 0, 1, 1, 1, 1)
    assert levels.set(0, 0, 0, 2, 1, 1, 1)
    assert not levels.set(0, 0, 0, 3, 1, 1, 1)
    assert levels.arrays["price_e4"].tolist() == [1, 2]
    events.begin()
    assert len(events) == 0


@given(EVENT_ROWS)
def test_columns_may_lie_in_memory_that_is_given(rows: list[tuple[int, ...]]) -> None:
    memory = bytearray(event_bytes(40))
    columns = EventColumns(40, memory)
    for row in rows:
        assert columns.add(*row)
    seen = event_arrays(memory, 40)
    found = list(zip(*(seen[name][: len(rows)].tolist() for name in columns.arrays), strict=True))
    assert found == [tuple(row) for row in rows]


def test_memory_that_cannot_hold_columns_is_refused() -> None:
    with pytest.raises(FieldError, match="read-only memory"):
        EventColumns(4, bytes(event_bytes(4)))
    with pytest.raises(ValueError, match="smaller than requested"):
        LevelColumns(4, bytearray(64))


@pytest.mark.parametrize("columns", [EventColumns, LevelColumns])
@pytest.mark.parametrize("capacity", [0, -1, 2**25])
def test_impossible_capacity(columns: Any, capacity: int) -> None:  # noqa: ANN401
    with pytest.raises(FieldError, match="capacity"):
        columns(capacity)


def test_pool_uses_buffers_again_and_says_when_it_is_pressed() -> None:
    pool = LocalPool(10, 2)
    first, second = pool.acquire(5), pool.acquire(0)
    assert pool.pressed
    first.events.add(*(1,) * 11)
    first.levels.set(0, 0, 0, 1, 1, 1, 1)
    assert first.levels.version == 6
    assert not first.empty
    pool.release(first)
    assert not pool.pressed
    again = pool.acquire(first.levels.version)
    assert again is first
    assert again.empty
    assert pool.made == 2
    assert second.empty
