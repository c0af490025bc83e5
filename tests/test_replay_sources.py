"""Sources: bad files are named, or repaired with a warning; captures and databases are read as files are."""

from __future__ import annotations

import gzip
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import frames
import replay_model
import test_journal_damage
from kalshi_fast._columns import DELTA, GAP
from kalshi_fast.arrow import SCHEMA_VERSION
from kalshi_fast.cli import main
from kalshi_fast.errors import ReplayError
from kalshi_fast.replaying.chunks import BOOK_COLUMNS
from kalshi_fast.replaying.files import ReplayWarning
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.replaying.source import open_source
from kalshi_fast.replaying.verify import verify
from kalshi_fast.sinks.layout import RANGES_KEY, SCHEMA_VERSION_KEY, writer_options
from replay_model import digest, rows_of, some_rows, table_of, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

ROWS = some_rows(1200)
NAME = "orderbook/date=2026-11-18/part-110640_000000.parquet"
LATER = "orderbook/date=2026-11-18/part-110641_000000.parquet"


def types(where: Path, **options: Any) -> list[int]:  # noqa: ANN401
    with open_source(where, **options) as source:
        return [kind for chunk in source.chunks() for kind in chunk.type.tolist()]


def refused(where: Path) -> ReplayError:
    with pytest.raises(ReplayError) as caught:
        types(where)
    return caught.value


# --- bad files ----------------------------------------------------------------------------------------


def test_a_file_that_is_cut_off_is_named_and_with_repair_makes_every_book_unknown(tmp_path: Path) -> None:
    table = table_of(ROWS)
    write(tmp_path / NAME, table.slice(0, 600))
    bad = tmp_path / LATER
    last = write(tmp_path / NAME.replace("110640", "110642"), table.slice(900))
    whole = write(bad, table.slice(600, 300)).read_bytes()
    for length in (0, 3, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:length])
        error = refused(tmp_path)
        assert error.path == bad
        assert str(bad) in str(error)
    # Its name says that it begins after the first file and before the last, by a second each.
    with pytest.warns(ReplayWarning, match="every book is unknown"):
        replayed = list(Replay(tmp_path, repair=True).events())
    assert replayed
    with pytest.warns(ReplayWarning):
        kinds = types(tmp_path, repair=True)
    known = sum(book.levels is not None for book in _books(ROWS[:600]))
    assert sum(kind == GAP for kind in kinds) >= known > 0
    assert len(kinds) == len(ROWS) - 300 + known
    last.unlink()


def _books(rows: list[replay_model.Row]) -> list[replay_model.ReferenceBook]:
    books = [replay_model.ReferenceBook() for _ in range(5)]
    for kind, market, side, price, qty in rows:
        books[market].apply(kind, side, price, qty)
    return books


def test_a_damaged_page_is_named_by_file_and_row_group(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / NAME, table_of(ROWS), row_group=300)
    group = pq.read_metadata(path).row_group(2)
    data = bytearray(path.read_bytes())
    column = next(
        group.column(i) for i in range(group.num_columns) if group.column(i).path_in_schema == "qty_e2"
    )
    at = column.data_page_offset + column.total_compressed_size // 2
    data[at : at + 8] = bytes(8)
    path.write_bytes(data)
    error = refused(tmp_path)
    assert (error.path, error.row_group) == (path, 2)
    assert "row group 2" in str(error)
    with pytest.warns(ReplayWarning, match="row group 2"):
        kinds = types(tmp_path, repair=True)
    known = sum(book.levels is not None for book in _books(ROWS[:600]))
    assert len(kinds) == len(ROWS) - 300 + known
    assert kinds[600 : 600 + known] == [GAP] * known
    with pytest.warns(ReplayWarning, match="row group 2"):
        later = types(tmp_path, repair=True, start=table_of(ROWS)["ingest_ts"][1000].value)
    assert 0 < len(later) < len(kinds)
    assert main(["replay", str(tmp_path), "--quiet", "--repair"]) == 0
    assert "row group 2" in capsys.readouterr().err


def test_other_columns_or_another_version_are_refused(tmp_path: Path) -> None:
    table = table_of(ROWS)
    path = tmp_path / NAME
    for wrong, what in (
        (table.drop_columns(["seq"]), "seq is missing"),
        (table.set_column(7, "price_e4", table["price_e4"].cast(pa.int32())), "price_e4 is int32"),
        (
            table.set_column(10, "ingest_ts", table["ingest_ts"].cast(pa.timestamp("us", "UTC"))),
            "ingest_ts is",
        ),
    ):
        write(path, wrong)
        assert what in str(refused(path))
    write(path, table, version=None)
    assert "no kalshi_fast.schema_version" in str(refused(path))
    write(path, table, version="x")
    assert "not an event file" in str(refused(path))
    cents = pa.table({"type": ["delta"], "price": [1], "qty": [1], "market_ticker": ["A"]})
    write(path, cents, version=None)
    assert "kalshi-fast import" in str(refused(path))
    # One file of a later version among those that can be read.
    write(path, table.slice(0, 600))
    later = write(tmp_path / LATER, table.slice(600), version=99)
    error = refused(tmp_path)
    assert (error.path, "schema version 99" in str(error)) == (later, True)
    with pytest.warns(ReplayWarning, match="schema version 99"):
        assert types(tmp_path, repair=True).count(GAP) > 0


def test_text_instead_of_codes_is_read_all_the_same(tmp_path: Path) -> None:
    """As other tools write it: no dictionaries, columns in another order."""
    table = table_of(ROWS)
    plain = pa.table(
        {
            name: table[name].cast(pa.string()) if pa.types.is_dictionary(table[name].type) else table[name]
            for name in reversed(table.column_names)
        }
    )
    write(tmp_path / NAME, plain)
    with open_source(tmp_path / NAME) as source:
        assert [row[1:] for row in rows_of(source.chunks(), source.tickers)] == [
            (k, s, p, q) for k, _, s, p, q in ROWS
        ]


def test_values_that_cannot_be_are_named(tmp_path: Path) -> None:
    table = table_of(ROWS)
    for column, value, what in (
        (7, 10_001, "price_e4 is 10001"),
        (0, "sale", "type is 'sale'"),
        (6, "maybe", "side"),
    ):
        field = table.schema.field(column)
        values = table[column].to_pylist()
        values[700] = value
        plain = pa.array(values, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        bad = plain.dictionary_encode().cast(field.type) if pa.types.is_dictionary(field.type) else plain
        write(tmp_path / NAME, table.set_column(column, field, bad), row_group=500)
        error = refused(tmp_path)
        assert error.row_group == 1
        assert what in str(error)


def test_the_same_rows_twice_are_refused_or_left_out(tmp_path: Path) -> None:
    table = table_of(ROWS)
    ranges = [["journal", 5, 0, 9, 0]]
    path = write(tmp_path / NAME, table, ranges=ranges)
    copy = tmp_path / LATER
    shutil.copy(path, copy)
    assert refused(tmp_path).path == copy
    with pytest.warns(ReplayWarning, match="left out"):
        assert len(types(tmp_path, repair=True)) == len(ROWS)
    # In part only: which rows those are nobody can say.
    write(copy, table.slice(600), ranges=[["journal", 7, 0, 12, 0]])
    assert "holds too" in str(refused(tmp_path))
    with pytest.raises(ReplayError, match="holds too"):
        types(tmp_path, repair=True)
    # Files that tell nothing of the journal, with the same rows.
    write(path, table)
    shutil.copy(path, copy)
    assert refused(tmp_path).path == copy
    with pytest.warns(ReplayWarning, match="left out"):
        assert len(types(tmp_path, repair=True)) == len(ROWS)


@pytest.mark.parametrize("how", ["rows", "row groups"])
def test_rows_out_of_order_are_refused_or_put_in_order(tmp_path: Path, how: str) -> None:
    table = table_of(ROWS, step_ns=100_000)
    order = np.arange(len(ROWS))
    if how == "rows":
        order[700:760] = order[700:760][::-1]
    else:
        order = np.concatenate([order[:500], order[1000:], order[500:1000]])
    path = write(
        tmp_path / NAME,
        table.take(pa.array(order)).unify_dictionaries(),
        row_group=500 if how == "rows" else 100,
    )
    error = refused(tmp_path)
    assert error.path == path
    assert error.row_group is not None
    assert "not in the order" in str(error)
    with pytest.warns(ReplayWarning, match="put in order"), open_source(tmp_path, repair=True) as source:
        times = np.concatenate([chunk.ingest_ns for chunk in source.chunks()])
    assert times.tolist() == table["ingest_ts"].cast(pa.int64()).to_pylist()


def test_the_nanosecond_of_a_handover_is_no_disorder(tmp_path: Path) -> None:
    table = table_of(ROWS)
    times = table["ingest_ts"].cast(pa.int64()).to_numpy().copy()
    rows = np.flatnonzero(np.array([row[0] == DELTA for row in ROWS]))[100:300:2]
    times[rows] += 1001  # a nanosecond behind the event that follows
    moved = table.set_column(10, table.schema.field(10), pa.array(times).cast(table.schema.field(10).type))
    write(tmp_path / NAME, moved, row_group=77)
    with open_source(tmp_path) as source:
        found = np.concatenate([chunk.ingest_ns for chunk in source.chunks()])
    assert len(found) == len(ROWS)
    assert (np.diff(found) >= 0).all()


def test_files_of_two_recorders_are_merged_in_time_order(tmp_path: Path) -> None:
    whole = table_of(ROWS)
    markets = np.array([row[1] for row in ROWS])
    for number, mine in enumerate((markets < 2, markets >= 2)):
        part = whole.filter(pa.array(mine)).unify_dictionaries()
        write(tmp_path / f"orderbook/date=2026-11-18/part-11064{number}_000000.parquet", part, row_group=100)
    with open_source(tmp_path) as source:
        chunks = list(source.chunks())
        found = rows_of(chunks, source.tickers)
        times = np.concatenate([chunk.ingest_ns for chunk in chunks])
    assert (np.diff(times) >= 0).all()
    assert found == [(f"KX-{m}", k, s, p, q) for k, m, s, p, q in ROWS], (
        "no two markets have a moment in common"
    )


def test_markets_and_columns_that_are_not_wanted_are_not_there(tmp_path: Path) -> None:
    write(tmp_path / NAME, table_of(ROWS))
    with open_source(tmp_path, markets=["KX-1", "KX-4", "KX-NEVER"]) as source:
        chunks = list(source.chunks(BOOK_COLUMNS))
        assert sorted(source.tickers) == ["KX-1", "KX-4"]
        found = rows_of(chunks, source.tickers)
        assert found == [(f"KX-{m}", k, s, p, q) for k, m, s, p, q in ROWS if m in (1, 4)]
        assert all((chunk.seq == 0).all() and chunk.seq.strides == (0,) for chunk in chunks)
    assert types(tmp_path, markets=[]) == []


def test_patterns_and_single_files(tmp_path: Path) -> None:
    table = table_of(ROWS)
    first = write(tmp_path / NAME, table.slice(0, 600))
    write(tmp_path / LATER, table.slice(600))
    assert len(types(first)) == 600
    assert len(types(tmp_path / "orderbook")) == len(types(tmp_path)) == len(ROWS)
    assert len(types(f"{tmp_path}/orderbook/date=*/part-110641*.parquet")) == len(ROWS) - 600  # type: ignore[arg-type]


def test_the_tables_of_other_channels_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path / "parquet" / NAME, table_of(ROWS))
    trades = tmp_path / "parquet/trades/date=2026-11-18/part-110640_000000.parquet"
    trades.parent.mkdir(parents=True)
    pq.write_table(pa.table({"trade_id": ["a"]}), trades)
    assert len(types(tmp_path)) == len(types(tmp_path / "parquet")) == len(ROWS)


# --- other kinds --------------------------------------------------------------------------------------


def capture_lines() -> list[dict[str, Any]]:
    """A gap that is repaired, and a new connection."""
    made = [
        (7, frames.snapshot(1, "A", yes=[("0.4500", "10.00")], no=[("0.5300", "5.00")])),
        (7, frames.snapshot(2, "B", yes=[("0.1000", "1.00")])),
        (7, frames.delta(3, "0.4500", "2.50", ticker="A")),
        (7, b"no JSON at all"),
        (7, frames.delta(5, "0.1000", "1.00", ticker="B")),
        (7, frames.snapshot(6, "B", yes=[("0.1000", "9.00")])),
        (7, frames.delta(7, "0.1000", "1.00", ticker="B")),
        (8, frames.snapshot(1, "A", yes=[("0.4550", "3.00")])),
        (8, frames.delta(2, "0.4550", "-3.00", ticker="A")),
    ]
    return [
        {"ingest_ns": 1_795_000_000_000_000_000 + n, "conn_id": conn, "frame": text}
        for n, (conn, text) in enumerate(made)
    ]


def write_capture(path: Path, lines: list[dict[str, Any]]) -> Path:
    def text(line: dict[str, Any]) -> str:
        frame = line["frame"].decode()
        body = frame if frame.startswith("{") else json.dumps(frame)
        return f'{{"ingest_ns":{line["ingest_ns"]},"conn_id":{line["conn_id"]},"frame":{body}}}\n'

    data = "".join(map(text, lines)).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("suffix", ["ndjson", "jsonl.gz"])
def test_a_capture_goes_through_the_live_path(tmp_path: Path, suffix: str) -> None:
    path = write_capture(tmp_path / f"capture.{suffix}", capture_lines())
    seen = [(e.ticker, e.kind, e.known, e.conn_id) for e in Replay(path).events()]
    assert [(ticker, kind, known) for ticker, kind, known, _ in seen] == [
        ("A", 0, True),
        ("B", 0, True),
        ("A", 1, True),
        ("A", 3, False),  # number 4 was no frame: who knows whose
        ("B", 3, False),
        ("B", 1, False),
        ("B", 0, True),
        ("B", 1, True),
        ("B", 3, False),  # the connection is gone
        ("A", 0, True),
        ("A", 1, True),
    ]
    assert {conn for *_, conn in seen} == {7, 8}
    books = Replay(path).book_at("2027-01-01")
    assert {ticker: book.ladders() for ticker, book in books.items()} == {"A": ([], [])}
    one = [e.ticker for e in Replay(path, markets=["B"], end=1_795_000_000_000_000_006).events()]
    assert one == ["B"] * 4
    assert verify(Replay(path)).violations == 0


def test_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "capture.ndjson"
    for text, what in (
        ('{"ingest_ns":1,"frame":{}}\n{"frame":{}}\n', "line 2 has no ingest_ns"),
        ('{"ingest_ns":2,"frame":{}}\n\n{"ingest_ns":1,"frame":{}}\n', "line 3 was received before"),
        ('{"ingest_ns":1,"frame":{}\n', "line 1 is no line"),
        ("hello\n", "line 1 is no line"),
        (f'{{"ingest_ns":{2**63},"frame":{{}}}}\n', "line 1 is no line"),
        ('{"ingest_ns":-1,"frame":{}}\n', "line 1 is no line"),
        (f'{{"ingest_ns":1,"conn_id":{2**64},"frame":{{}}}}\n', "line 1 is no line"),
        ('{"ingest_ns":1,"frame":' + "[" * 5000 + "]" * 5000 + "}\n", "line 1 is no line"),
    ):
        path.write_text(text)
        assert what in str(refused(path))
        with pytest.raises(ReplayError, match=what):
            list(Replay(path).rows())
    gz = tmp_path / "capture.ndjson.gz"
    gz.write_bytes(gzip.compress(b'{"ingest_ns":1,"frame":{}}\n')[:-5])
    assert "cannot be read" in str(refused(gz))
    packed = bytearray(gzip.compress(b'{"ingest_ns":1,"frame":{}}\n'))
    packed[10] = 0xFF  # no such block
    gz.write_bytes(packed)
    assert "cannot be read: Error -3" in str(refused(gz))
    with pytest.raises(ReplayError, match="cannot be read: Error -3"):
        list(Replay(gz).rows())


def test_a_frame_with_numbers_that_no_column_holds_is_a_rejected_frame(tmp_path: Path) -> None:
    path = tmp_path / "capture.ndjson"
    for name in ("trade", "orderbook_snapshot", "orderbook_delta"):
        for numbers in (f'"sid":{2**33},"seq":1', '"sid":-1,"seq":1', f'"sid":1,"seq":{2**70}'):
            path.write_text(
                f'{{"ingest_ns":1,"frame":{{"type":"{name}",{numbers},"msg":{{"market_ticker":"A"}}}}}}\n'
            )
            assert (list(Replay(path).events()), list(Replay(path).rows())) == ([], [])


@pytest.mark.parametrize("text", ['[[["j"],1,2,3,4]]', '[["j",1,2,3,"4"]]', "{}", "[" * 5000])
def test_ranges_that_are_none_are_said_and_with_repair_the_file_is_left_out(
    tmp_path: Path, text: str
) -> None:
    metadata = {SCHEMA_VERSION_KEY: str(SCHEMA_VERSION), RANGES_KEY: text}
    table = table_of(ROWS)
    (tmp_path / NAME).parent.mkdir(parents=True)
    with pq.ParquetWriter(tmp_path / NAME, table.schema, **writer_options()) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(metadata)
    assert "ranges: expected a list of ranges" in str(refused(tmp_path))
    with pytest.warns(ReplayWarning, match="expected a list of ranges"):
        assert list(Replay(tmp_path, repair=True).events()) == []


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_a_database_is_read_as_files_are(
    tmp_path: Path, open_database: Callable[[], Client], engine_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kalshi_fast.replaying import database

    write(tmp_path / NAME, table_of(ROWS))
    client = open_database()
    client.insert_arrow("orderbook_events", table_of(ROWS))
    options = {"database": client.database}
    monkeypatch.setattr(database, "STRETCH_ROWS", 100)
    start_ns = 1_795_000_000_000_500_000
    for more in (
        {},
        {"markets": ["KX-2"]},
        {"start": start_ns},
        {"end": start_ns},
        {"start": start_ns, "markets": ["KX-1", "KX-9"]},
    ):

        def events(where: Any, chosen: dict[str, Any], **options: Any) -> list[Any]:  # noqa: ANN401
            recorded = Replay(where, **chosen, **options)
            return [
                (e.ticker, e.kind, e.ingest_ns, e.ts_us, e.seq, digest(e.book)) for e in recorded.events()
            ]

        there = events(engine_url, more, **options)
        here = events(tmp_path, more)
        # The books that a start begins with may come in another order.
        assert sorted(there, key=lambda e: e[2]) == there
        assert sorted(there, key=repr) == sorted(here, key=repr)
        assert len(there) > 50
    assert Replay(engine_url, **options).trades().arrow().num_rows == 0
    wrong = Replay(engine_url, database="nowhere")
    with pytest.raises(ReplayError, match="events cannot be read"):
        list(wrong.events())


@pytest.mark.parametrize("place", [0.0, 0.3, 0.5, 0.8])
def test_a_damaged_journal_is_read_as_its_own_readers_do(tmp_path: Path, place: float) -> None:
    """Nothing is passed over in silence: what cannot be read is a gap for every book that was known."""
    paths = test_journal_damage.SEGMENTED.put(tmp_path)
    path = paths[len(paths) // 2]
    data = bytearray(path.read_bytes())
    if place:
        data[int(len(data) * place)] ^= 0xFF
        path.write_bytes(data)

    with open_source(tmp_path) as source:
        found = rows_of(source.chunks(), source.tickers)
    journal = test_journal_damage.opened(tmp_path)
    expected = []
    for entry in test_journal_damage.read(journal):
        if entry.events is not None:
            names = ("market_ix", "type", "side", "price_e4", "qty_e2")
            for market, *rest in zip(*(entry.events.column(n).to_pylist() for n in names), strict=True):
                expected.append((entry.names.tickers[market], *rest))
    journal.close()
    assert len(found) == len(expected) > 30
    # A gap has the time of its connection's last row: only a market's own rows are in the order of writing.
    for ticker in {row[0] for row in expected}:
        assert [row for row in found if row[0] == ticker] == [row for row in expected if row[0] == ticker]


# --- the command --------------------------------------------------------------------------------------


def test_verify_finds_what_is_wrong(tmp_path: Path) -> None:
    good = [row for row in ROWS if row[1] == 0][:60]
    market = 0
    price = next(row[3] for row in good if row[0] == DELTA)
    wrong = {
        "impossible": [(DELTA, market, 0, price, -(10**9))],
        "differing": [(2, market, 0, 0, 0), (0, market, 0, 100, 77)],
    }
    for name, rows in wrong.items():
        write(tmp_path / name / NAME, table_of([*good, *rows]))
        report = verify(Replay(tmp_path / name))
        assert report.violations == 1
        assert getattr(report.markets[0], name) == 1
        assert len(report.examples) == 1
        assert main(["replay", str(tmp_path / name), "--quiet"]) == 0
        assert main(["replay", str(tmp_path / name), "--verify", "--quiet"]) == 1
    table = table_of(good)
    for name, column, value in (("numbers", 3, 1), ("foreign", 2, 9)):
        values = table[column].to_pylist()
        last = max(i for i, row in enumerate(good) if row[0] == DELTA)
        values[last] = value
        write(
            tmp_path / name / NAME,
            table.set_column(
                column, table.schema.field(column), pa.array(values, table.schema.field(column).type)
            ),
        )
        report = verify(Replay(tmp_path / name))
        assert getattr(report.markets[0], name) == 1 == report.violations
    write(tmp_path / "hole" / NAME, table, ranges=[["j", 1, 0, 5, 0]])
    write(
        tmp_path / "hole" / LATER,
        table_of(good, start_ns=1_795_000_001_000_000_000),
        ranges=[["j", 6, 0, 9, 0]],
    )
    assert verify(Replay(tmp_path / "hole")).holes == ["batches 5 to 6 of journal j are in no file"]


def test_the_command_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path / NAME, table_of(ROWS))
    assert main(["replay", str(tmp_path), "--verify", "--json", "--quiet"]) == 0
    out = capsys.readouterr().out
    figures = json.loads(out.splitlines()[-1])
    assert figures["rows"] == len(ROWS)
    assert figures["violations"] == 0
    assert {market["market"] for market in figures["markets"]} == {f"KX-{i}" for i in range(5)}
    assert sum(market["deltas"] for market in figures["markets"]) == sum(row[0] == DELTA for row in ROWS)
    assert "everything holds" in out
    assert (
        main(
            ["replay", str(tmp_path), "--markets", "KX-1, KX-2", "--quiet", "--start", "2026-11-18T11:06:40Z"]
        )
        == 0
    )
    assert "2 markets" in capsys.readouterr().out
    assert main(["replay", str(tmp_path / "nowhere"), "--quiet"]) == 1
    assert "no event files" in capsys.readouterr().err
    assert main(["replay", str(tmp_path), "--start", "soon", "--quiet"]) == 1
    assert "start: expected a time" in capsys.readouterr().err
