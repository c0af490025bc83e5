"""Compacting a date keeps every row, in order, whatever is wrong with a file and whenever it is killed."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from journals import mounted
from kalshi_fast import cli
from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.channels.reference_rows import ReferenceRow
from kalshi_fast.channels.rows import NIL_ID, SCHEMAS, LifecycleRow, Row, TickerRow, TradeRow, arrow
from kalshi_fast.compact import Report, compact, dates, days, event_files, merge, source, swap
from kalshi_fast.compact.days import SETTLED_S, describe, groups
from kalshi_fast.compact.digest import Digest
from kalshi_fast.compact.merge import joined_ranges, write_merged
from kalshi_fast.compact.source import Source
from kalshi_fast.errors import CompactError, ConfigError
from kalshi_fast.journal import Point
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.simulator.reading import Recording
from kalshi_fast.sinks.layout import RANGES_KEY, SCHEMA_VERSION_KEY, date_name, part_name, writer_options
from kalshi_fast.sinks.series import held_until
from replay_model import write_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

DAY_US = 20_000 * 86_400_000_000  # 2024-10-04
DATE = date(2024, 10, 4)
ALL_BYTES = 1 << 30


def rows(times_us: Sequence[int], first: int = 0) -> pa.Table:
    """Rows at these times of the day; ``seq`` counts from ``first`` and tells rows apart."""
    n = len(times_us)
    rng = np.random.default_rng(first)
    seq = np.arange(first, first + n)
    columns = {
        "type": pa.array(rng.choice(["snapshot", "delta", "clear", "gap"], n)),
        "conn_id": pa.array(np.full(n, 1_795_000_000_000_000_123), pa.uint64()),
        "sid": pa.array(np.full(n, 7), pa.uint32()),
        "seq": pa.array(seq, pa.uint64()),
        "market_id": pa.array([f"00000000-0000-4000-8000-{k:012d}" for k in rng.integers(0, 40, n)]),
        "market_ticker": pa.array([f"KXSIM-T{k}" for k in rng.integers(0, 40, n)]),
        "side": pa.array(rng.choice(["yes", "no"], n)),
        "price_e4": pa.array(rng.integers(0, 10_001, n), pa.uint16()),
        "qty_e2": pa.array(rng.integers(-(10**12), 10**12, n), pa.int64()),
        "ts": pa.array(DAY_US + np.asarray(times_us, np.int64), pa.int64()),
        "ingest_ts": pa.array((DAY_US + np.asarray(times_us, np.int64)) * 1000, pa.int64()),
    }
    return pa.table(
        [
            column.dictionary_encode().cast(EVENT_SCHEMA.field(name).type)
            if pa.types.is_string(column.type)
            else column.cast(EVENT_SCHEMA.field(name).type)
            for name, column in columns.items()
        ],
        schema=EVENT_SCHEMA,
    )


def write(
    directory: Path, table: pa.Table, metadata: dict[str, str] | None = None, name: str | None = None
) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    if name is None:
        name = part_name(table["ingest_ts"][0].value // 1000)
    with pq.ParquetWriter(directory / name, table.schema, **writer_options()) as writer:
        writer.write_table(table)
        told = {SCHEMA_VERSION_KEY: str(SCHEMA_VERSION), "kalshi_fast.recorder": "r1"}
        writer.add_key_value_metadata({**told, **(metadata or {})})
    return directory / name


def ranges(first: int, end: int) -> dict[str, str]:
    return {RANGES_KEY: json.dumps([["j", first, 0, end, 0]])}


def stored(files: Sequence[Path]) -> pa.Table:
    plain = pa.schema(
        [(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in EVENT_SCHEMA]
    )
    return pa.concat_tables([pq.ParquetFile(path).read().cast(plain) for path in files])


def listing(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def one(directory: Path, *, max_bytes: int = ALL_BYTES, dry_run: bool = False) -> Report:
    (report,) = compact([directory], max_bytes=max_bytes, dry_run=dry_run, quiet=True)
    return report


def metadata(path: Path) -> dict[str, str]:
    return {key.decode(): value.decode() for key, value in pq.read_metadata(path).metadata.items()}


@pytest.fixture(scope="module", autouse=True)
def _settled() -> Iterator[None]:
    """Files that have just been made may be compacted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(days, "SETTLED_S", -1.0)
        yield


@pytest.fixture
def day(tmp_path: Path) -> Path:
    """Five files of one date, 100 rows each; the second begins before the first ends."""
    directory = tmp_path / "orderbook" / date_name(DAY_US)
    for number, start in enumerate((0, 50, 200, 300, 400)):
        write(
            directory,
            rows(range(start, start + 100), number * 100),
            {**ranges(number, number + 1), "kalshi_fast.note": "kept"},
        )
    return directory


# --- the rows -----------------------------------------------------------------------------------------


def test_many_files_become_one_with_the_same_rows_in_time_order(day: Path) -> None:
    before = stored(event_files(day))
    report = one(day)
    (file,) = event_files(day)
    assert (report.error, report.files_before, report.files_after, report.rows) == (None, 5, 1, 500)
    assert report.bytes_after == file.stat().st_size < report.bytes_before
    after = stored([file])
    # Files are in the order of their names here, and a stable sort keeps the order within one moment.
    order = np.argsort(before["ingest_ts"].cast(pa.int64()).to_numpy(), kind="stable")
    assert after.equals(before.take(pa.array(order)))
    assert [path.name for path in day.iterdir()] == [file.name], "nothing else is left"
    assert file.name == part_name(DAY_US + 1), "named after its first row; the first input had that name"


def test_the_file_says_how_it_is_sorted_and_where_its_rows_come_from(day: Path) -> None:
    assert one(day).error is None
    (file,) = event_files(day)
    told = metadata(file)
    assert json.loads(told[RANGES_KEY]) == [["j", 0, 0, 5, 0]]
    assert told["kalshi_fast.recorder"] == "r1"
    assert told["kalshi_fast.note"] == "kept", "what this version does not know, and all inputs say"
    assert told[SCHEMA_VERSION_KEY] == str(SCHEMA_VERSION)
    footer = pq.read_metadata(file)
    assert [c.column_index for c in footer.row_group(0).sorting_columns] == [
        EVENT_SCHEMA.names.index("ingest_ts")
    ]
    assert footer.row_group(0).column(10).has_offset_index
    assert pq.ParquetFile(file).schema_arrow.equals(EVENT_SCHEMA)


def test_old_files_without_ranges_are_listed_by_name_also_after_a_second_merge(day: Path) -> None:
    old = {"kalshi_fast.batches": "1-9", "kalshi_fast.recorder": "old"}
    first = write(day, rows(range(500, 510), 500), old)
    assert one(day).error is None
    write(day, rows(range(600, 610), 600), ranges(5, 6))
    assert one(day).error is None
    (file,) = event_files(day)
    told = metadata(file)
    assert json.loads(told["kalshi_fast.sources"]) == [
        {"name": first.name, "rows": 10, "recorder": "old", "batches": "1-9"}
    ]
    assert json.loads(told[RANGES_KEY]) == [["j", 0, 0, 6, 0]]
    assert told["kalshi_fast.recorder"] == "old,r1"
    assert "kalshi_fast.batches" not in told


def test_ranges_of_one_journal_are_joined_where_they_meet_and_only_there() -> None:
    a, b = "a", "b"
    given_ranges = [[a, 0, 0, 3, 5], [b, 0, 0, 1, 0], [a, 3, 5, 4, 0], [b, 2, 0, 3, 0], [a, 4, 1, 5, 0]]
    assert joined_ranges(given_ranges) == [
        [a, 0, 0, 4, 0],
        [b, 0, 0, 1, 0],
        [b, 2, 0, 3, 0],
        [a, 4, 1, 5, 0],
    ]
    assert given_ranges[0] == [a, 0, 0, 3, 5], "the inputs are as they were"


@given(
    st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=40).map(sorted), min_size=2, max_size=6),
    st.integers(1, 7),
    st.integers(1, 50),
)
def test_any_overlap_any_ties_any_block_size_is_a_stable_merge(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[int]], block_rows: int, group_rows: int
) -> None:
    directory = tmp_path_factory.mktemp("merge")
    files = [
        write(directory, rows(moments, number * 1000), name=f"part-{number}.parquet")
        for number, moments in enumerate(times)
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(source, "_BLOCK_ROWS", block_rows)
        patch.setattr(merge, "ROW_GROUP_ROWS", group_rows)
        done: list[int] = []
        count = write_merged([Source(path) for path in files], directory / "out", done.append)
    everything = sum(map(len, times))
    assert count == everything
    assert done[-1] == 2 * everything, "written and verified"
    in_order = sorted(range(len(times)), key=lambda number: (times[number][0], number))
    expected = sorted(
        (moment, place, number * 1000 + row)
        for place, number in enumerate(in_order)
        for row, moment in enumerate(times[number])
    )
    assert stored([directory / "out"])["seq"].to_pylist() == [seq for *_, seq in expected]
    footer = pq.read_metadata(directory / "out")
    sizes = [footer.row_group(i).num_rows for i in range(footer.num_row_groups)]
    assert set(sizes[:-1]) <= {group_rows}
    shutil.rmtree(directory)


@given(st.integers(0, 10), st.sampled_from(EVENT_SCHEMA.names), st.data())
def test_the_digest_sees_any_change_and_any_exchange_of_rows(
    seed: int, name: str, data: st.DataObject
) -> None:
    table = rows(range(20), seed * 100)

    def digest(of: pa.Table, cut: int = 20) -> Digest:
        found = Digest()
        for batch in of.combine_chunks().to_batches(max_chunksize=cut):
            found.add(batch)
        return found

    whole = digest(table)
    assert digest(table, cut=data.draw(st.integers(1, 20))) == whole
    order = data.draw(st.permutations(range(20)))
    moved = digest(table.take(pa.array(order)))
    assert moved.rows == whole.rows
    assert (moved.order == whole.order) == (list(order) == list(range(20)))
    row = data.draw(st.integers(0, 18))
    values = table[name].to_pylist()
    column = table[name].cast(pa.string() if pa.types.is_dictionary(table[name].type) else table[name].type)
    picked = list(range(20))
    picked[row] = row + 1
    other = column.take(pa.array(picked)).combine_chunks()
    if pa.types.is_string(other.type):
        other = other.dictionary_encode().cast(EVENT_SCHEMA.field(name).type)
    changed = table.set_column(EVENT_SCHEMA.names.index(name), EVENT_SCHEMA.field(name), other)
    assert (digest(changed).rows == whole.rows) == (values[row] == values[row + 1])
    assert digest(table.slice(1)).rows != whole.rows


def test_a_null_is_not_a_zero_to_the_digest() -> None:
    null, zero = Digest(), Digest()
    null.add(pa.record_batch({"n": pa.array([None], pa.int64())}))
    zero.add(pa.record_batch({"n": pa.array([0], pa.int64())}))
    assert null.rows != zero.rows


@pytest.mark.parametrize("wrong", ["one row less", "one row twice", "two rows exchanged"])
def test_a_merged_file_with_other_rows_is_refused(tmp_path: Path, wrong: str) -> None:
    table = rows(range(10))
    file = write(tmp_path, table)
    picked = {
        "one row less": range(9),
        "one row twice": [*range(9), 8],
        "two rows exchanged": [1, 0, *range(2, 10)],
    }
    expected = Digest()
    for batch in table.take(pa.array(picked[wrong])).combine_chunks().to_batches():
        expected.add(batch)
    with pytest.raises(CompactError, match="does not hold the rows that it was made of"):
        merge._verify(file, expected, expected, lambda done: None)


# --- other tables -------------------------------------------------------------------------------------


def other_rows(table: str, times_us: Sequence[int], first: int) -> list[Row]:
    """Rows of another table at these times of the day, told apart by a number."""
    made: list[Row] = []
    for number, time_us in enumerate(times_us, first):
        market, ns = f"KX-{number % 5}", (DAY_US + time_us) * 1000
        if table == "trades":
            ids = str(uuid.UUID(int=number))
            side, block = ("yes", "no")[number % 2], number % 3 == 0
            made.append(TradeRow(7, 1, number, ids, market, side, block, 4500, 100, ns // 1000, ns))
        elif table == "tickers":
            none = (None,) * 5
            price = None if number % 4 == 0 else number % 10_000
            made.append(
                TickerRow(7, 1, NIL_ID, market, price, *none, number, None, None, None, ns // 1000, ns)
            )
        elif table == "reference_prices":
            value = None if number % 4 == 0 else Decimal(number).scaleb(-number % 18)
            more = (value, Decimal(number), number, None, None, number, None)
            made.append(ReferenceRow(7, 1, number, "pyth_value", f"X.{number % 3}", *more, ns // 1000, ns))
        else:
            body = json.dumps({"n": number, "text": "ü"})
            made.append(LifecycleRow(7, 1, number, market, "E", "created", body, ns))
    return made


@given(st.lists(st.sampled_from([None, 0, 1, 4500]), min_size=1, max_size=30), st.data())
def test_the_digest_is_the_same_however_the_rows_are_cut(
    prices: list[int | None], data: st.DataObject
) -> None:
    """Some blocks have nulls in a column and some none, and a null has no word of any neighbour's."""
    made: list[TickerRow] = []
    for number, price in enumerate(prices):
        values: list[Any] = data.draw(st.lists(st.sampled_from([None, 0, number]), min_size=9, max_size=9))
        ns = (DAY_US + number) * 1000
        row: list[Any] = [7, 1, NIL_ID, "KX", price, *values, ns // 1000, ns]
        made.append(TickerRow(*row))
    batch = arrow("tickers", made)
    whole, cut = Digest(), Digest()
    whole.add(batch)
    ends = sorted({len(prices), *data.draw(st.lists(st.integers(1, len(prices))))})
    for first, stop in itertools.pairwise([0, *ends]):
        cut.add(batch.slice(first, stop - first))
    assert cut == whole


def test_tickers_whose_blocks_have_nulls_here_and_there_are_compacted(tmp_path: Path) -> None:
    """A price is empty until a market's first trade: the merge cuts other blocks than the files have."""
    directory = tmp_path / "tickers" / date_name(DAY_US)
    made = other_rows("tickers", range(300), 3)
    empty = [row for row in made if isinstance(row, TickerRow) and row.price_e4 is None]
    priced = [row for row in made if isinstance(row, TickerRow) and row.price_e4 is not None]
    halves = (priced[:100] + empty[:20], priced[100:] + empty[20:])
    for number, half in enumerate(halves):
        half.sort(key=lambda row: row.ingest_ns)
        path = directory / part_name(DAY_US + number)
        found = [row for row in half if number or row.price_e4 is not None]
        write_rows(path, "tickers", found, row_group=40)
    before = list(Replay(tmp_path).rows("tickers"))
    (report,) = compact([directory], table="tickers", quiet=True)
    assert (report.error, report.files_after, report.rows) == (None, 1, len(before))
    assert list(Replay(tmp_path).rows("tickers")) == before


@pytest.mark.parametrize("table", ["trades", "tickers", "market_lifecycle", "reference_prices"])
def test_other_tables_keep_every_row_in_order_too(tmp_path: Path, table: str) -> None:
    directory = tmp_path / table / date_name(DAY_US)
    for number, start in enumerate((0, 50, 200)):
        path = directory / part_name(DAY_US + start)
        found = other_rows(table, range(start, start + 100), number * 100)
        write_rows(path, table, found, row_group=40, ranges=[["j", number, 0, number + 1, 0]])
    before = list(Replay(tmp_path).rows(table))
    assert len(before) == 300
    damaged = directory / part_name(DAY_US + 900)
    damaged.write_bytes(b"no file")
    left = listing(directory)
    (report,) = compact([directory], table=table, quiet=True)
    assert str(damaged) in str(report.error)
    assert listing(directory) == left, "as it was"
    write_rows(damaged, "trades" if table != "trades" else "tickers", [], columns=rows([900]))
    (report,) = compact([directory], table=table, quiet=True)
    assert "has other columns than its table" in str(report.error)
    damaged.unlink()

    (report,) = compact([directory], table=table, quiet=True)
    assert (report.error, report.files_before, report.files_after, report.rows) == (None, 3, 1, 300)
    (file,) = event_files(directory)
    assert json.loads(metadata(file)[RANGES_KEY]) == [["j", 0, 0, 3, 0]]
    assert pq.ParquetFile(file).schema_arrow.equals(SCHEMAS[table])
    assert list(Replay(tmp_path).rows(table)) == before
    # A recorder whose position had not been written before it died finds that the file has its rows.
    assert held_until(directory, Point("j", 1)) == Point("j", 3, 0)
    (again,) = compact([directory], table=table, quiet=True)
    assert (again.files_after, again.rows) == (1, 0)


@given(st.sampled_from(["trades", "tickers", "market_lifecycle", "reference_prices"]), st.data())
def test_the_digest_sees_a_change_in_any_column_of_any_table(table: str, data: st.DataObject) -> None:
    batch = arrow(table, other_rows(table, range(20), 0))
    digest, other = Digest(), Digest()
    digest.add(batch)
    name = data.draw(st.sampled_from(batch.schema.names))
    column = batch.column(name)
    row, taken = data.draw(st.integers(0, 19)), data.draw(st.integers(0, 19))
    picked = [*range(row), taken, *range(row + 1, 20)]
    changed = batch.set_column(
        batch.schema.names.index(name), batch.schema.field(name), column.take(pa.array(picked))
    )
    other.add(changed)
    assert (other == digest) == (column[row] == column[taken])


def test_a_swap_of_trades_that_was_interrupted_is_read_once(tmp_path: Path) -> None:
    directory = tmp_path / "trades" / date_name(DAY_US)
    files = []
    for number in range(2):
        path = directory / part_name(DAY_US + number * 50)
        found = other_rows("trades", range(number * 50, number * 50 + 50), number * 50)
        files.append(write_rows(path, "trades", found, ranges=[["j", number, 0, number + 1, 0]]))
    before = list(Replay(tmp_path).rows())
    output = part_name(DAY_US + 1)
    temporary = directory / swap.temporary_name(output)
    schema = SCHEMAS["trades"]
    merged = write_merged([Source(path, schema) for path in files], temporary, lambda done: None)
    parts = [swap.Part(path.name, path.stat().st_size) for path in files]
    intent = swap.Intent(swap.Part(output, temporary.stat().st_size), merged, parts)
    for _ in swap.swap(directory, intent):
        assert list(Replay(tmp_path).rows()) == before
    assert [path.name for path in directory.iterdir()] == [output]


# --- which files --------------------------------------------------------------------------------------


def test_files_of_full_size_stay_and_a_second_run_finds_nothing(day: Path) -> None:
    write(day, rows(range(1000, 40_000), 1000), name="part-000001_000000.parquet")
    big = day / "part-000001_000000.parquet"
    sizes = sum(path.stat().st_size for path in event_files(day)) - big.stat().st_size
    report = one(day, max_bytes=sizes)
    assert (report.files_before, report.files_after, report.rows) == (6, 2, 500)
    assert big in event_files(day)
    left = listing(day)
    again = one(day, max_bytes=sizes)
    assert (again.files_after, again.rows, again.error) == (2, 0, None)
    assert listing(day) == left


def test_neighbours_are_packed_up_to_the_size_asked_for(day: Path) -> None:
    sources = [Source(path) for path in event_files(day)]
    each = max(found.bytes for found in sources)
    assert [len(group) for group in groups(sources, 2 * each)] == [2, 2]
    assert [len(group) for group in groups(sources, ALL_BYTES)] == [5]
    assert groups(sources, 1) == []


def test_temporary_files_of_a_recorder_are_not_touched(day: Path) -> None:
    (day / ".part-235959_000000.parquet.tmp").write_bytes(b"in the making")
    assert one(day).error is None
    assert (day / ".part-235959_000000.parquet.tmp").read_bytes() == b"in the making"
    assert len(event_files(day)) == 1


def test_a_dry_run_changes_nothing(day: Path) -> None:
    left = listing(day)
    report = one(day, dry_run=True)
    assert (report.files_before, report.files_after, report.rows) == (5, 1, 500)
    assert listing(day) == left


def test_dates_before_today_by_default_and_today_only_when_asked_for(tmp_path: Path) -> None:
    for name in ("date=2024-10-03", "date=2024-10-04", "date=2024-10-05", "date=junk", "rejected"):
        (tmp_path / name).mkdir()

    def chosen(*named: str, everything: bool = False) -> list[str]:
        return [path.name[5:] for path in dates(tmp_path, named, everything=everything, today=DATE)]

    assert chosen() == ["2024-10-03"]
    assert chosen(everything=True) == ["2024-10-03", "2024-10-04", "2024-10-05"]
    assert chosen("2024-10-04", "2024-10-03") == ["2024-10-03", "2024-10-04"]
    for wrong in ("2024-10-06", "2024-13-01", "20241003", "junk", "../x", ""):
        with pytest.raises(ConfigError, match="DATE"):
            chosen(wrong)
    with pytest.raises(ConfigError, match="nothing has been recorded"):
        dates(tmp_path / "no", [], everything=False, today=DATE)


@pytest.mark.parametrize("ago_days", [0, 1, 500])
def test_files_of_the_last_minute_stay_whatever_their_date(
    day: Path, ago_days: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of yesterday: a recorder that is started at midnight writes what it had left of it."""
    monkeypatch.setattr(days, "SETTLED_S", SETTLED_S)
    of_date = day.with_name(f"date={datetime.now(UTC).date() - timedelta(days=ago_days)}")
    day.rename(of_date)
    new = event_files(of_date)[-1]
    for path in event_files(of_date)[:-1]:
        os.utime(path, (time.time() - 100,) * 2)
    report = one(of_date)
    assert (report.files_before, report.files_after, report.new_files) == (5, 2, 1)
    assert new in event_files(of_date)
    assert "1 of the last minute stay as they are" in describe(report, dry_run=False)


# --- bad input ----------------------------------------------------------------------------------------


def _truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(0).column(EVENT_SCHEMA.names.index("qty_e2"))
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(data)


def _foreign(path: Path) -> None:
    pq.write_table(pa.table({"type": ["delta"], "price": [1]}), path)


def _column_more(path: Path) -> None:
    table = rows(range(10))
    write(path.parent, table.append_column("more", pa.array(range(10))), name=path.name)


def _newer(path: Path) -> None:
    write(path.parent, rows(range(10)), {SCHEMA_VERSION_KEY: str(SCHEMA_VERSION + 1)}, name=path.name)


def _odd_ranges(path: Path) -> None:
    write(path.parent, rows(range(10)), {RANGES_KEY: '[["j", 1, 2]]'}, name=path.name)


def _odd_journal(path: Path) -> None:
    write(path.parent, rows(range(10)), {RANGES_KEY: '[[["j"], 1, 2, 3, 4]]'}, name=path.name)


def _no_json(path: Path) -> None:
    write(path.parent, rows(range(10)), {RANGES_KEY: "[["}, name=path.name)


def _odd_sources(path: Path) -> None:
    write(path.parent, rows(range(10)), {"kalshi_fast.sources": "[1]"}, name=path.name)


def _unsorted(path: Path) -> None:
    write(path.parent, rows([1, 2, 3, 2, 4]), name=path.name)


def _null_time(path: Path) -> None:
    table = rows(range(10))
    times = pa.array(
        [None if n == 5 else value for n, value in enumerate(table["ingest_ts"].cast(pa.int64()).to_pylist())]
    )
    write(
        path.parent,
        table.set_column(10, EVENT_SCHEMA.field(10), times.cast(EVENT_SCHEMA.field(10).type)),
        name=path.name,
    )


def _no_rows(path: Path) -> None:
    write(path.parent, rows([]), name=path.name)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_truncated, "cannot be read"),
        (_empty, "cannot be read"),
        (_damaged, "cannot be read"),
        (_directory, "cannot be read"),
        (_foreign, "is not an event file"),
        (_column_more, "other columns than the event schema: more"),
        (_newer, f"schema version {SCHEMA_VERSION + 1}"),
        (_odd_ranges, "kalshi_fast.ranges: expected a list"),
        (_odd_journal, "kalshi_fast.ranges: expected a list"),
        (_no_json, "kalshi_fast.ranges: expected a list"),
        (_odd_sources, "kalshi_fast.sources: expected a list"),
        (_unsorted, "not in the order of ingest_ts: row 3"),
        (_null_time, "without ingest_ts"),
        (_no_rows, "holds no rows"),
    ],
)
def test_a_bad_file_is_named_and_the_date_stays_as_it_is(
    day: Path, spoil: Callable[[Path], None], says: str
) -> None:
    bad = event_files(day)[2]
    spoil(bad)
    good = {path.name: path.read_bytes() for path in day.iterdir() if path != bad}
    other = day.with_name("date=2024-10-05")
    write(other, rows(range(10)))
    write(other, rows(range(20, 30)))
    reports = compact([day, other], quiet=True)
    assert reports[0].error is not None
    assert says in reports[0].error
    assert str(bad) in reports[0].error
    assert "\n" not in reports[0].error
    assert reports[1].error is None, "another date does not suffer"
    assert {path.name: path.read_bytes() for path in day.iterdir() if path != bad} == good
    assert len(event_files(other)) == 1


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Permissions mean nothing to root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65_534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_unreadable_directory_is_named(day: Path) -> None:
    day.chmod(0)
    try:
        with _as_nobody():
            report = one(day)
    finally:
        day.chmod(0o755)
    assert report.error is not None
    assert f"{day} cannot be opened" in report.error


def test_a_full_disk_is_said_and_nothing_is_lost(day: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1m") as small:
        directory = small / day.name
        for number in range(4):
            write(directory, rows(range(number * 10**7, number * 10**7 + 15_000), number * 15_000))
        before = listing(directory)
        assert sum(map(len, before.values())) > 1 << 19, "the merged file does not fit beside them"
        report = one(directory)
        assert report.error is not None
        assert "No space left on device" in report.error
        assert ".parquet" in report.error
        assert listing(directory) == before


def test_two_compactions_do_not_meet(day: Path) -> None:
    handle = os.open(day, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        left = listing(day)
        assert one(day).error == f"{day} is being compacted by another process"
        assert listing(day) == left
    finally:
        os.close(handle)
    assert one(day).error is None


# --- killed -------------------------------------------------------------------------------------------

STOP_AT_STEP = """
import itertools, os, signal, sys
from pathlib import Path
from kalshi_fast.compact import event_files
from kalshi_fast.compact.merge import write_merged
from kalshi_fast.compact.source import Source
from kalshi_fast.compact.swap import Intent, Part, swap, temporary_name

day, stop = Path(sys.argv[1]), int(sys.argv[2])
sources = [Source(path) for path in event_files(day)]
name = "part-000000_000001.parquet"
temporary = day / temporary_name(name)
rows = write_merged(sources, temporary, lambda done: None)
inputs = [Part(source.path.name, source.bytes) for source in sources]
intent = Intent(Part(name, temporary.stat().st_size), rows, inputs)
for number, step in enumerate(itertools.chain(["merged"], swap(day, intent))):
    if number == stop:
        print(step, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""
STEPS = ["merged", "intent written", "intent in place", "output in place", *["removed"] * 5, "intent removed"]


KILLS = int(os.environ.get("KALSHI_FAST_KILLS", "9"))


def rows_once(day: Path, expected: pa.Table) -> None:
    """What a reader through kalshi-fast sees: each row once."""
    found = stored(event_files(day))
    assert found.sort_by("seq").equals(expected)


@pytest.mark.parametrize("stop", range(len(STEPS)), ids=lambda n: f"{n} {STEPS[n]}")
def test_killed_after_any_step_nothing_is_lost_or_doubled(day: Path, stop: int) -> None:
    expected = stored(event_files(day)).sort_by("seq")
    done = subprocess.run(
        [sys.executable, "-c", STOP_AT_STEP, str(day), str(stop)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done.stdout.strip().endswith(STEPS[stop])
    rows_once(day, expected)
    plain = stored(sorted(day.glob("*.parquet")))  # a reader that knows nothing of swaps
    assert set(plain["seq"].to_pylist()) == set(expected["seq"].to_pylist()), "never too little"
    report = one(day)
    assert report.error is None
    assert report.finished_swaps == (2 <= stop <= 8)
    rows_once(day, expected)
    assert [path.name for path in day.iterdir()] == [event_files(day)[0].name]


def test_killed_at_any_instant_nothing_is_lost_or_doubled(tmp_path: Path) -> None:
    original = tmp_path / "original"
    for number in range(12):
        first = number * 10**6
        path = write(
            original, rows(range(first, first + 12_000), number * 12_000), ranges(number, number + 1)
        )
        os.utime(path, (time.time() - 100,) * 2)  # a copy has this time too
    expected = stored(event_files(original)).sort_by("seq")
    rng = random.Random(5)
    day = tmp_path / "orderbook" / date_name(DAY_US)
    command = [sys.executable, "-m", "kalshi_fast", "compact", "--parquet-dir", str(tmp_path), "--quiet"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    seconds, outcomes = 0.0, set()
    for attempt in range(KILLS):
        shutil.copytree(original, day)
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environment) as process:
            while not any(path.name.startswith(".") for path in day.iterdir()) and process.poll() is None:
                time.sleep(0.001)
            begun = time.monotonic()
            if attempt == 0:
                assert process.wait() == 0
                seconds = time.monotonic() - begun  # with the interpreter's end
            else:
                time.sleep(seconds * rng.random())
                process.kill()
        outcomes.add(tuple(sorted(path.suffix for path in day.iterdir() if path.name.startswith("."))))
        rows_once(day, expected)
        assert one(day).error is None
        rows_once(day, expected)
        (file,) = event_files(day)
        assert json.loads(metadata(file)[RANGES_KEY]) == [["j", 0, 0, 12, 0]]
        shutil.rmtree(day)
    assert len(outcomes) > 1, "not always at the same place"


def test_a_recording_with_an_interrupted_swap_is_played_once(tmp_path: Path) -> None:
    for start in (0, 100):
        table = rows(range(start, start + 10), start)
        kinds = pa.array(["clear"] * 10).dictionary_encode().cast(EVENT_SCHEMA.field("type").type)
        write(tmp_path, table.set_column(0, EVENT_SCHEMA.field("type"), kinds))
    sources = [Source(path) for path in event_files(tmp_path)]
    temporary = tmp_path / swap.temporary_name("part-9.parquet")
    count = write_merged(sources, temporary, lambda done: None)
    inputs = [swap.Part(found.path.name, found.bytes) for found in sources]
    output = swap.Part("part-9.parquet", temporary.stat().st_size)
    for step in swap.swap(tmp_path, swap.Intent(output, count, inputs)):
        if step == "output in place":
            break
    assert len(list(tmp_path.glob("*.parquet"))) == 3
    assert [len(events) for events in Recording(tmp_path).segments] == [20]


# --- intents that cannot be ---------------------------------------------------------------------------


def _intent(day: Path, output: str, *inputs: str, rows: int = 1, bytes: int = 1) -> Path:  # noqa: A002
    parts = [swap.Part(name, 1) for name in inputs]
    path = day / f".compact-{output.replace('/', '_')}.json"
    path.write_bytes(msgspec.json.encode(swap.Intent(swap.Part(output, bytes), rows, parts)))
    return path


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"output": 1}', b"\xff\xfe", b'{"x": 1}'])
def test_an_intent_that_is_none_is_named_and_nothing_goes(day: Path, text: bytes) -> None:
    path = day / ".compact-x.json"
    path.write_bytes(text)
    left = listing(day)
    assert f"{path} is no intent" in str(one(day).error)
    with pytest.raises(CompactError, match="is no intent"):
        event_files(day)
    assert listing(day) == left


@pytest.mark.parametrize(
    ("output", "inputs"),
    [
        ("part-1.parquet", ["../../victim.parquet"]),
        ("part-1.parquet", ["part-1.parquet"]),
        ("part-1.parquet", [".hidden.parquet"]),
        ("part-1.parquet", ["notes.txt"]),
        ("../part-1.parquet", ["part-2.parquet"]),
    ],
)
def test_an_intent_removes_only_other_event_files_of_its_directory(
    day: Path, output: str, inputs: list[str]
) -> None:
    victim = day.parent.parent / "victim.parquet"
    victim.write_bytes(b"x")
    _intent(day, output, *inputs)
    left = listing(day)
    assert "no intent of a compaction" in str(one(day).error)
    assert listing(day) == left
    assert victim.exists()


def test_an_intent_whose_result_was_lost_is_taken_back_or_said(day: Path) -> None:
    there = event_files(day)[0].name
    _intent(day, "part-lost.parquet", there)
    assert one(day, dry_run=True).finished_swaps == 1
    assert one(day).error is None, "every input is there: the swap never was"
    (file,) = event_files(day)
    path = _intent(day, "part-lost.parquet", "part-gone.parquet")
    assert one(day).error == (
        f"{path}: the merged file part-lost.parquet has gone, and of its inputs part-gone.parquet:"
        " restore them, or remove the intent file to give up these rows"
    )
    assert file.exists()


def test_an_intent_about_other_files_than_are_there_changes_nothing(day: Path) -> None:
    first, second, third = event_files(day)[:3]
    size = first.stat().st_size
    for count, told in ((99, size), (100, size + 1)):
        wrong = _intent(day, first.name, second.name, rows=count, bytes=told)
        left = listing(day)
        assert "is not the merged file" in str(one(day).error)
        assert listing(day) == left
        wrong.unlink()
    _intent(day, first.name, second.name, rows=100, bytes=size)
    assert f"{second} has changed since" in str(one(day).error)
    assert second.exists()
    (day / swap.temporary_name(first.name)).write_bytes(third.read_bytes())
    assert "is in the way of" in str(one(day).error)


# --- the command --------------------------------------------------------------------------------------


def test_the_command(
    day: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        code = cli.main(["compact", "--parquet-dir", str(tmp_path), *arguments])
        return code, *capsys.readouterr()

    code, out, err = run("--dry-run")
    assert (code, out) == (0, "2024-10-04  5 files -> 1, 500 rows would be merged\n")
    code, out, err = run("2024-10-04", "--json")
    assert code == 0
    assert "looking at 5 files" in err, "progress"
    first, last = out.splitlines()
    assert first.startswith("2024-10-04  5 files -> 1, 500 rows, ")
    (report,) = json.loads(last)["dates"]
    assert (report["files_before"], report["files_after"], report["error"]) == (5, 1, None)
    assert run("--quiet") == (0, "2024-10-04  1 files, nothing to merge\n", "")
    for number, date_us in enumerate((DAY_US, DAY_US, DAY_US - 86_400_000_000)):
        path = tmp_path / "trades" / date_name(date_us) / part_name(date_us + number)
        write_rows(path, "trades", other_rows("trades", [date_us - DAY_US + number], number))
    both = "2024-10-04  1 files, nothing to merge\n2024-10-03  trades  1 files, nothing to merge\n"
    assert run("--quiet", "--dry-run") == (
        0,
        f"{both}2024-10-04  trades  2 files -> 1, 2 rows would be merged\n",
        "",
    )
    assert run("--quiet", "2024-10-03") == (0, "2024-10-03  trades  1 files, nothing to merge\n", "")
    event_files(day)[0].write_bytes(b"")
    code, out, err = run("--quiet", "--all")
    assert code == 1
    assert err.startswith("kalshi-fast: ")
    assert str(event_files(day)[0]) in err
    for wrong in (["2024-1-1"], ["2024-10-09"], ["--all", "2024-10-04"]):
        code, out, err = run(*wrong)
        assert (code, out) == (2, "")
        assert err.startswith("kalshi-fast: ")
    assert cli.main(["compact", "--parquet-dir", "off"]) == 2
    assert cli.main(["compact", "--parquet-dir", str(tmp_path / "none")]) == 2
