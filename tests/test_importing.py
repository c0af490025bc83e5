"""``kalshi-fast import``: what becomes of the seed's files, the good ones and the bad ones."""

from __future__ import annotations

import gzip
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seedfiles
from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.cli import main
from kalshi_fast.compact import event_files
from kalshi_fast.errors import ConfigError, ForeignFileError
from kalshi_fast.importing import ImportReport, import_recordings, ordering
from seedfiles import Feed, Frame, Row, rows_of, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def imported(out: Path) -> list[Row]:
    """All rows of the result in the order of time; the files of a date follow one another."""
    rows: list[Row] = []
    for directory in sorted((out / "orderbook").glob("date=*")):
        for path in event_files(directory):
            assert pq.read_schema(path).equals(EVENT_SCHEMA)
            rows += pq.ParquetFile(path).read().to_pylist()
    return rows


def run(source: Path, out: Path, *, skip_damaged: bool = False, dry_run: bool = False) -> ImportReport:
    report = import_recordings([source], out, quiet=True, skip_damaged=skip_damaged, dry_run=dry_run)
    aside = sum(f["count"] for f in report.findings.values() if f["done"] == "kept aside")
    assert report.rows_read == report.rows_written + report.rows_aside
    assert report.rows_aside == aside
    return report


def count(report: ImportReport, kind: str) -> int:
    return int(report.findings.get(kind, {"count": 0})["count"])


def known_books(rows: list[Row]) -> list[tuple[str, int, seedfiles.Book | None]]:
    """After every frame of the result: its market, its number, and the book if it is known."""
    books: dict[str, seedfiles.Book] = {}
    found: list[tuple[str, int, seedfiles.Book | None]] = []
    last: tuple[Any, ...] | None = None
    for row in rows:
        ticker, kind = row["market_ticker"], row["type"]
        if kind == "clear":
            books[ticker] = {}
        elif kind == "gap":
            books.pop(ticker, None)
        elif ticker in books:
            level = (row["side"], row["price_e4"] // 100)
            size = books[ticker].pop(level, 0) + row["qty_e2"] // 100
            assert size >= 0
            if size:
                books[ticker][level] = size
        book = dict(books[ticker]) if ticker in books else None
        frame = (row["conn_id"], ticker, row["seq"], kind == "gap")
        if frame == last:
            found.pop()
        found.append((ticker, row["seq"], book))
        last = frame
    return found


# --- what is good stays as it is ------------------------------------------------------------------------


def test_a_sound_recording_keeps_every_row_and_its_books_are_known_from_snapshot_to_end(
    tmp_path: Path,
) -> None:
    frames = Feed(1).run(connections=2, deltas=200)
    write(tmp_path / "in" / "part-1.parquet", rows_of(frames))
    report = run(tmp_path / "in", tmp_path / "out")
    rows = imported(tmp_path / "out")
    told = [row for row in rows if row["type"] in ("snapshot", "delta")]
    assert report.rows_aside == 0
    assert len(told) == len(rows_of(frames)) == report.rows_written
    assert [(r["seq"], r["price_e4"], r["qty_e2"]) for r in told] == [
        (r["seq"], r["price"] * 100, r["qty"] * 100) for r in rows_of(frames)
    ]
    assert [r["ts"].isoformat(timespec="microseconds") for r in told] == [r["ts"] for r in rows_of(frames)]
    # Three markets each time: known with their snapshot, unknown when the connection ends.
    assert (report.clears, report.gaps, report.connections) == (6, 6, 2)
    known = [(ticker, seq, book) for ticker, seq, book in known_books(rows) if book is not None]
    assert known == [(frame.ticker, frame.seq, frame.book) for frame in frames]
    assert [r["ingest_ts"].value for r in rows] == sorted(r["ingest_ts"].value for r in rows)
    assert len({r["conn_id"] for r in rows}) == 2


def test_dates_are_those_of_the_receive_time_and_no_file_holds_two(tmp_path: Path) -> None:
    write(tmp_path / "in.parquet", rows_of(Feed(2).run(connections=2, deltas=50)))
    report = run(tmp_path / "in.parquet", tmp_path / "out")
    assert len(report.outputs) >= 2
    for path in report.outputs:
        days = {row["ingest_ts"].strftime("date=%Y-%m-%d") for row in pq.ParquetFile(path).read().to_pylist()}
        assert days == {path.split("/")[-2]}


def test_a_connection_goes_on_from_file_to_file(tmp_path: Path) -> None:
    rows = rows_of(Feed(3).run(connections=1, deltas=100))
    for number, start in enumerate(range(0, len(rows), 13)):  # also in the middle of a snapshot
        write(tmp_path / "in" / f"part-{number:03}.parquet", rows[start : start + 13])
    report = run(tmp_path / "in", tmp_path / "out")
    assert (report.connections, report.clears, report.rows_aside) == (1, 3, 0)
    assert count(report, "seq_gaps") == 0


def test_the_same_bytes_are_imported_once(tmp_path: Path) -> None:
    source = write(tmp_path / "in" / "part-1.parquet", rows_of(Feed(4).run(1, 20)))
    (tmp_path / "in" / "copy.parquet").write_bytes(source.read_bytes())
    first = run(tmp_path / "in", tmp_path / "out")
    assert len(first.copies) == 1
    before = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    source.rename(tmp_path / "in" / "renamed.parquet")
    second = run(tmp_path / "in", tmp_path / "out")
    assert (second.files, len(second.already), second.outputs) == (0, 2, [])
    assert before == {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def test_two_imports_of_one_file_give_the_same_rows(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", rows_of(Feed(5).run(2, 20)))
    run(source, tmp_path / "a")
    run(source, tmp_path / "b")
    assert imported(tmp_path / "a") == imported(tmp_path / "b")


# --- what is wrong is said --------------------------------------------------------------------------------


def spoiled(tmp_path: Path, spoil: Callable[[list[Frame]], list[Row]], seed: int = 6) -> ImportReport:
    frames = Feed(seed).run(connections=1, deltas=40)
    write(tmp_path / "in.parquet", spoil(frames))
    return run(tmp_path / "in.parquet", tmp_path / "out")


def test_a_missing_number_makes_every_book_of_the_subscription_unknown(tmp_path: Path) -> None:
    report = spoiled(tmp_path, lambda frames: rows_of(frames[:20] + frames[22:]))
    assert count(report, "seq_gaps") == 2
    assert report.gaps == 3
    gap = next(row for row in imported(tmp_path / "out") if row["type"] == "gap")
    assert gap["seq"] == 21  # the first number from which it is unknown
    assert count(report, "deltas_unknown") == 40 + 3 - 22


def test_a_row_that_cannot_be_true_costs_its_own_market_and_is_kept_aside(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        row = frames[20].rows[0]
        row["price"] = 101
        return rows_of(frames)

    report = spoiled(tmp_path, spoil)
    assert count(report, "bad_price") == report.rows_aside == 1
    gaps = [row for row in imported(tmp_path / "out") if row["type"] == "gap"]
    assert [gap["seq"] for gap in gaps[:1]] == [21]
    assert gaps[0]["ingest_ts"] < gaps[1]["ingest_ts"]  # the others only at the end
    with gzip.open(report.aside_file, "rt") as lines:
        (kept,) = map(json.loads, lines)
    assert kept["reason"] == "bad_price"
    assert (kept["file"], kept["values"]["price"]) == ("in.parquet", 101)


def test_a_change_below_zero_is_kept_aside(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        frames[20].rows[0]["qty"] = -10_000
        return rows_of(frames)

    report = spoiled(tmp_path, spoil)
    assert count(report, "negative_level") == 1
    assert "changed by -10000" in report.findings["negative_level"]["examples"][0]


def test_a_snapshot_with_a_wrong_row_is_no_snapshot(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        broken = next(frame for frame in frames if len(frame.rows) > 1)
        broken.rows[-1]["side"] = "maybe"
        return rows_of(frames)

    feed = Feed(7)
    for _ in range(30):
        for ticker in seedfiles.IDS:
            feed._change(ticker)
    frames = feed.run(1, 5)
    write(tmp_path / "in.parquet", spoil(frames))
    report = run(tmp_path / "in.parquet", tmp_path / "out")
    assert report.clears == 2
    assert count(report, "bad_side") == 1
    assert count(report, "broken_snapshot") == len(frames[0].rows) - 1
    assert count(report, "no_snapshot") == 1


def test_repetitions_are_kept_aside_and_harm_nothing(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        return rows_of([*frames[:20], *frames[10:20], *frames[20:]])

    report = spoiled(tmp_path, spoil)
    assert count(report, "duplicate") == 10
    assert (report.gaps, count(report, "seq_gaps")) == (3, 0)


def test_rows_in_another_order_are_sorted(tmp_path: Path) -> None:
    frames = Feed(6).run(connections=1, deltas=40)
    rows = rows_of(frames)
    rows.sort(key=lambda row: (row["market_ticker"], row["side"], row["price"], row["ts"]))
    write(tmp_path / "in.parquet", rows)
    report = run(tmp_path / "in.parquet", tmp_path / "out")
    assert count(report, "unsorted") > 0
    assert count(report, "seq_gaps") == report.rows_aside == 0
    known = [(t, seq, book) for t, seq, book in known_books(imported(tmp_path / "out")) if book is not None]
    assert known == [(frame.ticker, frame.seq, frame.book) for frame in frames]


def test_a_clock_that_was_set_back_is_no_disorder(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        for frame in frames[20:]:
            for row in frame.rows:
                row["ingest_ts"] = "2025-11-04T23:59:59.000000+00:00"
        return rows_of(frames)

    report = spoiled(tmp_path, spoil)
    assert count(report, "clock_back") == len(range(20, 43))
    assert count(report, "unsorted") == count(report, "seq_gaps") == 0


def test_times_that_cannot_be_read_stand_in_for_each_other(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        frames[10].rows[0]["ts"] = "yesterday"
        frames[11].rows[0]["ingest_ts"] = None
        frames[12].rows[0]["ts"] = "1970-01-01T00:00:00+00:00"
        frames[13].rows[0]["ts"] = frames[13].rows[0]["ts"].replace("+00:00", "")
        frames[14].rows[0]["ts"] = frames[14].rows[0]["ingest_ts"] = ""
        return rows_of(frames)

    report = spoiled(tmp_path, spoil)
    assert (count(report, "bad_ts"), count(report, "bad_ingest_ts")) == (2, 1)
    assert (count(report, "no_zone"), count(report, "no_time")) == (1, 1)
    assert "'yesterday'" in report.findings["bad_ts"]["examples"][0]


def test_a_market_id_is_taken_from_other_rows_of_the_market(tmp_path: Path) -> None:
    def spoil(frames: list[Frame]) -> list[Row]:
        rows = rows_of(frames)
        mine = [row for row in rows if row["market_ticker"] == "KXA-1"]
        for row in mine[:-1]:
            row["market_id"] = ""
        rows[0]["market_id"] = "not an id"
        return rows

    report = spoiled(tmp_path, spoil)
    rows = imported(tmp_path / "out")
    assert {row["market_id"] for row in rows if row["market_ticker"] == "KXA-1"} == {seedfiles.IDS["KXA-1"]}
    assert count(report, "market_id_filled") > 0
    assert count(report, "bad_market_id") == 1
    assert {row["market_id"] for row in rows if row["market_ticker"] == "KXB-2"} == {
        "00000000-0000-0000-0000-000000000000"
    }


def test_other_types_of_columns_are_read_too(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(rows_of(Feed(8).run(1, 30)), seedfiles.SCHEMA)
    columns = {name: table.column(name) for name in table.column_names if name != "market_id"}
    columns["price"] = columns["price"].cast(pa.float64())
    columns["seq"] = columns["seq"].cast(pa.string())
    columns["market_ticker"] = columns["market_ticker"].combine_chunks().dictionary_encode()
    columns["ts"] = columns["ts"].cast(pa.timestamp("us", "UTC")).cast(pa.timestamp("us"))
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    report = run(tmp_path / "in.parquet", tmp_path / "out")
    assert report.rows_aside == 0
    assert count(report, "no_zone") == len(table)
    plain = write(tmp_path / "plain.parquet", table.to_pylist())
    run(plain, tmp_path / "plain")
    named = EVENT_SCHEMA.names
    one, other = (
        [[row[name] for name in named if name not in ("market_id", "conn_id")] for row in imported(out)]
        for out in (tmp_path / "out", tmp_path / "plain")
    )
    assert one == other


def mislabelled(tmp_path: Path, *, snapshots: int) -> ImportReport:
    """Every change bears the name of a market of which there is nothing else."""
    feed = Feed(14)
    for ticker in list(seedfiles.IDS)[snapshots:]:
        del feed.books[ticker]
    for _ in range(100):
        for ticker in feed.books:
            feed._change(ticker)
    rows = rows_of(feed.run(1, 400))
    for row in rows:
        if row["type"] == "delta":
            row["market_ticker"], row["market_id"] = "KXNOT-HERE", ""
    write(tmp_path / "in.parquet", rows)
    return run(tmp_path / "in.parquet", tmp_path / "out")


def test_changes_under_a_wrong_name_are_taken_for_those_of_the_only_book_they_fit(tmp_path: Path) -> None:
    report = mislabelled(tmp_path, snapshots=1)
    assert count(report, "relabelled") == 400
    assert "KXNOT-HERE is KXA-1" in report.findings["relabelled"]["examples"][0]
    books = known_books(imported(tmp_path / "out"))
    assert [book is not None for _, _, book in books] == [True] * 401 + [False]


def test_changes_under_a_wrong_name_are_anybodys_where_two_markets_have_books(tmp_path: Path) -> None:
    report = mislabelled(tmp_path, snapshots=2)
    assert (count(report, "relabelled"), count(report, "label_doubtful")) == (0, 400)
    books = known_books(imported(tmp_path / "out"))
    assert [book is not None for _, _, book in books] == [True] * 2 + [False] * 402


def test_changes_that_need_no_other_book_are_not_relabelled(tmp_path: Path) -> None:
    """A market that began with an empty book has no snapshot rows: its changes would fit any book."""
    feed = Feed(15)
    feed.books = {"KXA-1": feed.books["KXA-1"]}
    rows = rows_of(feed.run(1, 0))
    other = Feed(16)
    other.books = {"KXB-2": {}}
    other.at = feed.at
    other.seq = feed.seq
    for _ in range(200):
        other.delta()
    write(tmp_path / "in.parquet", rows + rows_of(other.frames))
    report = run(tmp_path / "in.parquet", tmp_path / "out")
    assert (count(report, "relabelled"), count(report, "label_doubtful")) == (0, 200)


def test_many_rows_out_of_order_are_refused_but_a_clock_set_back_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ordering, "SORT_ROWS", 50)
    frames = Feed(17).run(connections=1, deltas=100)
    write(tmp_path / "reversed.parquet", rows_of(frames)[::-1])
    with pytest.raises(ForeignFileError, match=r"reversed\.parquet: .* rows are not in the order of time"):
        run(tmp_path / "reversed.parquet", tmp_path / "out")
    for frame in frames[60:]:
        for row in frame.rows:
            row["ingest_ts"] = row["ingest_ts"].replace("2025-11-05T00:00:0", "2025-11-04T23:50:0")
    write(tmp_path / "back.parquet", rows_of(frames))
    report = run(tmp_path / "back.parquet", tmp_path / "out")
    assert count(report, "clock_back") > 0
    assert count(report, "unsorted") == count(report, "seq_gaps") == 0


def test_files_that_overlap_are_brought_into_one_order(tmp_path: Path) -> None:
    rows = rows_of(Feed(18).run(connections=1, deltas=100))
    write(tmp_path / "in" / "a.parquet", rows[::2])
    write(tmp_path / "in" / "b.parquet", rows[1::2])
    report = run(tmp_path / "in", tmp_path / "out")
    assert count(report, "unsorted") > 0
    assert count(report, "seq_gaps") == report.rows_aside == 0


@settings(max_examples=60)
@given(data=st.data())
def test_a_book_that_is_known_is_exact_whatever_happened_to_the_rows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Frames lost, doubled and damaged, rows shuffled, files cut anywhere: known means true, and every row
    is accounted for."""
    frames = Feed(data.draw(st.integers(0, 1000))).run(
        data.draw(st.integers(1, 3)), data.draw(st.integers(0, 30))
    )
    fates = data.draw(
        st.lists(
            st.sampled_from(["keep"] * 12 + ["lose", "double", "null", "side", "price", "ticker", "seq"]),
            min_size=len(frames),
            max_size=len(frames),
        )
    )
    kept: list[Row] = []
    for frame, fate in zip(frames, fates, strict=True):
        rows = [dict(row) for row in frame.rows]
        victim = data.draw(st.sampled_from(rows))
        match fate:
            case "lose":
                rows = []
            case "double":
                rows = rows + rows
            case "null":
                victim[data.draw(st.sampled_from(list(victim)))] = None
            case "side":
                victim["side"] = "both"
            case "price":
                victim["price"] = -5
            case "ticker":
                victim["market_ticker"] = "kxa-1 "
            case "seq":
                victim["seq"] = -1
        kept += rows
    if data.draw(st.booleans()) and not any(fate in ("null", "seq") for fate in fates):
        kept = data.draw(st.permutations(kept)) if len(kept) < 40 else kept[::-1]
    directory = tmp_path_factory.mktemp("import")
    cut = data.draw(st.integers(0, len(kept)))
    write(directory / "in" / "a.parquet", kept[:cut], row_group_rows=7)
    write(directory / "in" / "b.parquet", kept[cut:], row_group_rows=7)
    report = run(directory / "in", directory / "out")
    assert report.rows_read == len(kept) or len(report.copies)
    rows = imported(directory / "out")
    times = [row["ingest_ts"].value for row in rows]
    assert times == sorted(times)
    exact = {(f.ticker, f.seq, tuple(sorted(f.book.items()))) for f in frames}
    for ticker, seq, book in known_books(rows):
        if book is not None:
            assert (ticker, seq, tuple(sorted(book.items()))) in exact


def test_levels_without_a_size_are_no_part_of_a_snapshot(tmp_path: Path) -> None:
    frames = Feed(13).run(1, 0)
    for row in frames[0].rows:
        row["qty"] = 0
    write(tmp_path / "in.parquet", rows_of(frames))
    report = run(tmp_path / "in.parquet", tmp_path / "out")
    assert count(report, "empty_level") == report.rows_aside == len(frames[0].rows)
    assert known_books(imported(tmp_path / "out"))[0][2] == {}


# --- files that are none ------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    rows = rows_of(Feed(9).run(1, 300))
    write(tmp_path / "in" / "good.parquet", rows[:100])
    bad = write(tmp_path / "in" / "part-2.parquet", rows[100:], row_group_rows=50)
    at = pq.ParquetFile(bad).metadata.row_group(2).column(7).data_page_offset
    content = bytearray(bad.read_bytes())
    content[at : at + 12] = b"\xff" * 12
    bad.write_bytes(content)
    with pytest.raises(
        ForeignFileError, match=r"part-2\.parquet: row group 2 is damaged: .*nothing was imported"
    ):
        run(tmp_path / "in", tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))
    report = run(tmp_path / "in", tmp_path / "out", skip_damaged=True)
    assert list(report.refused) == ["part-2.parquet"]
    assert report.rows_read == 100


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "no readable Parquet file"),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "no readable Parquet file"),
        ({"type": ["delta"]}, "no column seq, market_ticker"),
        ({"price_e4": [1]}, "in the layout of kalshi-fast already"),
        (
            {n: [1] for n in ("type", "seq", "market_ticker", "side", "price", "qty", "ts")},
            "type: expected text or nothing else, got int64",
        ),
    ],
)
def test_what_is_no_recording_of_the_seed_is_refused_with_its_name(
    tmp_path: Path, content: bytes | dict[str, list[Any]], expected: str
) -> None:
    path = tmp_path / "odd.parquet"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        pq.write_table(pa.table(content), path)
    with pytest.raises(ForeignFileError, match=rf"odd\.parquet.*{expected}"):
        run(path, tmp_path / "out")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "in.parquet", rows_of(Feed(9).run(1, 30)))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ForeignFileError, match="no readable Parquet file"):
        run(path, tmp_path / "out")


def test_an_interrupted_import_is_finished_or_forgotten_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kalshi_fast.importing import publish

    source = write(tmp_path / "in.parquet", rows_of(Feed(10).run(2, 30)))
    with monkeypatch.context() as patch:
        # As if killed after the import had happened and before its files had their names.
        patch.setattr(publish.Place, "_publish", lambda *_: [])
        run(source, tmp_path / "out")
    assert imported(tmp_path / "out") == []
    stray = tmp_path / "out" / "orderbook" / "date=2025-11-05" / ".import-x-0.tmp"
    stray.write_bytes(b"half")
    report = run(source, tmp_path / "out")
    assert report.already == ["in.parquet"]
    run(source, tmp_path / "other")
    assert imported(tmp_path / "out") == imported(tmp_path / "other")
    assert not stray.exists()


def test_two_imports_into_one_directory_do_not_meet(tmp_path: Path) -> None:
    from kalshi_fast.importing.publish import Place

    source = write(tmp_path / "in.parquet", rows_of(Feed(10).run(1, 3)))
    with Place(tmp_path / "out").alone(), pytest.raises(ConfigError, match="another import into"):
        run(source, tmp_path / "out")


def test_dry_run_writes_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "in.parquet", rows_of(Feed(11).run(1, 30)))
    report = run(source, tmp_path / "out", dry_run=True)
    assert (report.files, report.outputs, (tmp_path / "out").exists()) == (1, [], False)


@settings(max_examples=60)
@given(flips=st.lists(st.tuples(st.integers(0, 10**6), st.integers(1, 255)), min_size=1, max_size=8))
def test_a_spoilt_file_is_refused_or_accounted_for(
    flips: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("spoilt")
    path = write(directory / "in.parquet", rows_of(Feed(19).run(1, 50)), row_group_rows=20)
    content = bytearray(path.read_bytes())
    for place, mask in flips:
        content[place % len(content)] ^= mask
    path.write_bytes(content)
    report = None
    with suppress(ForeignFileError):  # anything else would be a fault
        report = run(path, directory / "out")
    assert (report is None) == (not list((directory / "out").rglob("*.parquet")))


# --- the command --------------------------------------------------------------------------------------------


def test_the_command_reports_and_gives_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(Feed(12).run(1, 30))
    rows[20]["price"] = 500
    write(tmp_path / "in" / "a.parquet", rows)
    command = ["import", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--json", "--quiet"]
    assert main(command) == 0
    told, _, figures = capsys.readouterr().out.rstrip().rpartition("\n")
    assert "price is no whole number of cents from 0 to 100" in told
    assert "a.parquet, row 20" in told
    assert json.loads(figures)["findings"]["bad_price"]["count"] == 1
    assert main(command) == 0
    assert "nothing to import" in capsys.readouterr().out
    assert main(["import", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]) == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_the_recordings_of_2025(recordings: Path, tmp_path: Path) -> None:
    report = run(recordings, tmp_path / "out")
    assert (report.files, report.rows_read, report.rows_aside) == (22, 11_756, 0)
    assert (report.markets, report.connections, report.clears) == (1, 4, 4)
    # Every change bears the name of a market that has nothing else, and fits the book of the other market.
    assert count(report, "relabelled") == count(report, "market_id_filled") == 11_480
    assert count(report, "text_timestamps") == 2 * 11_756
    assert count(report, "deltas_unknown") == count(report, "seq_gaps") == 0
    assert {row["market_ticker"] for row in imported(tmp_path / "out")} == {"KXBTCMAXY-25-DEC31-129999.99"}


def test_labels_that_are_kept_leave_no_book_known(recordings: Path, tmp_path: Path) -> None:
    report = import_recordings([recordings], tmp_path / "out", keep_labels=True, quiet=True)
    # What the seed itself made of them: below zero 1,191 times.
    assert count(report, "would_be_negative") == 1_191
    assert count(report, "label_doubtful") == count(report, "deltas_unknown") == 11_480
    assert report.findings["no_snapshot"]["examples"] == ["FEDFUNDS-DEC25"]
    books = known_books(imported(tmp_path / "out"))
    assert sum(book is not None for _, _, book in books) == 4  # the snapshots, until the first change
