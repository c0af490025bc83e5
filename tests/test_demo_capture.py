"""``demo --recording FILE``: what a capture holds is found, what cannot be played is said and counted, and
both stores have all of it."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

import oracle
from conformance import WITH_BOOKS, named, of_books
from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.capture_truth import scale, truth
from kalshi_fast.simulator.captured import MOST_CONNECTIONS, Capture
from recordings import CAPTURES, capture
from recordings import Capture as Recorded

if TYPE_CHECKING:
    from pathlib import Path


def written(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(line.rstrip(b"\n") + b"\n" for line in lines))
    return path


def lanes(found: Capture) -> list[list[int]]:
    """How many frames each connection of the two lanes has."""
    return [[len(connection.frames) for connection in lane] for lane in (found.books, found.beside)]


def snapshot(seq: int, ticker: str = "A", sid: int = 1, size: str = "5.00") -> bytes:
    body = {"market_ticker": ticker, "market_id": "", "yes_dollars_fp": [["0.4000", size]]}
    return json.dumps({"type": "orderbook_snapshot", "sid": sid, "seq": seq, "msg": body}).encode()


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", CAPTURES, ids=named)
def test_every_frame_of_a_recorded_file_is_placed_or_counted(found: Recorded) -> None:
    read = Capture(found.path)
    frames = found.frames()
    granted = sum(message["type"] == "subscribed" for message in found.messages())
    assert read.frames == len(frames)
    assert read.junk == 0
    placed = [frame.payload + b"\n" for frame in read.all_frames()]
    assert len(placed) + granted + sum(read.unplaced.values()) == len(frames)
    assert set(placed) <= set(frames), "byte for byte"
    assert sum(read.unplaced.values()) == (2 if found.name.startswith("asyncapi") else 0)


def test_a_whole_recording_is_one_connection() -> None:
    assert lanes(Capture(capture("cockpit").path)) == [[268], []]
    assert lanes(Capture(capture("johnivanov04_prod_b").path)) == [[8], [4]]


def test_lines_that_are_no_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    junk = [
        b"# a remark",
        b"[1,2]",
        b'{"no":"type"}',
        b'{"type":3}',
        b"",
        b'{"type":"orderbook_delta","sid":1',
        b"\xff",
    ]
    found = Capture(written(tmp_path / "c.jsonl", junk[0], snapshot(1), *junk[1:], snapshot(2)))
    assert (found.frames, found.junk) == (2, 6)
    assert lanes(found) == [[2], []]
    (remark,) = found.remarks()
    assert remark.startswith("6 lines are no frames and are left out; the first: line 1: ")


def test_numbers_that_go_back_begin_a_connection_and_the_same_frame_twice_does_not(tmp_path: Path) -> None:
    twice = snapshot(2)
    found = Capture(
        written(
            tmp_path / "c.jsonl",
            snapshot(1),
            twice,
            twice,
            snapshot(3),
            snapshot(1),
            snapshot(2, size="6.00"),
        )
    )
    assert lanes(found) == [[4, 2], []]
    (remark,) = found.remarks()
    assert remark.startswith("the frames of books are of 2 connections, told apart where numbers go back")
    assert truth(found, on_yes_scale=False).repeated == 1


def test_connections_that_are_named_are_told_apart_though_they_are_mixed(tmp_path: Path) -> None:
    def line(conn_id: int, frame: bytes, *, text: bool = False) -> bytes:
        inner = json.dumps(frame.decode()).encode() if text else frame
        return b'{"ingest_ns":1795000000000000000,"conn_id":%d,"frame":%b}' % (conn_id, inner)

    frames = [
        line(7, snapshot(1)),
        line(8, snapshot(1)),
        line(8, snapshot(2)),
        line(7, snapshot(2), text=True),
    ]
    path = tmp_path / "c.ndjson.gz"
    path.write_bytes(gzip.compress(b'{"use_yes_price":true}\n' + b"\n".join(frames) + b"\n"))
    found = Capture(path)
    assert lanes(found) == [[2, 2], []]
    assert [frame.payload for frame in found.all_frames()] == [snapshot(1), snapshot(2)] * 2
    assert scale(found, None) == (True, "as told")
    assert scale(found, told=False)[0] is False


def test_frames_of_many_connections_without_their_names_are_refused(tmp_path: Path) -> None:
    lines = [snapshot(number % 2 + 1, size=f"{number}.00") for number in range(2 * MOST_CONNECTIONS, 0, -1)]
    with pytest.raises(SimulatorError, match=r"line 20\d: the numbers go back more than 100 times.*conn_id"):
        Capture(written(tmp_path / "c.jsonl", *lines, snapshot(1), snapshot(1, size="7.00")))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "has no frame of a channel$"),
        (b"hello\n", r"has no frame of a channel; 1 lines are no frames \(line 1: "),
        (b'{"type":"rfq_created","sid":1,"msg":{}}\n', "has no frame of a channel$"),
        (b"\x1f\x8bno gzip", "has no frame of a channel; 1 lines"),
    ],
)
def test_what_has_nothing_to_play_is_refused(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(content)
    with pytest.raises(SimulatorError, match=expected):
        Capture(path)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for name, content in (("c.jsonl.gz", b"no gzip"), ("missing.jsonl", None)):
        path = tmp_path / name
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SimulatorError, match=f"--recording: {path} cannot be read: "):
            Capture(path)


# --- what it says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", WITH_BOOKS, ids=named)
def test_its_books_and_rows_are_those_of_the_other_reading(found: Recorded) -> None:
    """The tests' own reading and the demo's share no code."""
    expected = oracle.Books(found.yes_scale)
    for frame in of_books(found):
        expected.take(oracle.load(frame))
    said = truth(Capture(found.path), on_yes_scale=found.yes_scale)
    assert said.books == expected.integers()
    assert Counter((row[1], row[3], row[0], *row[4:7]) for row in said.book_rows.elements()) == Counter(
        row.key() for row in expected.rows
    )
    times = {(row[1], row[3]): row[7] for row in said.book_rows if row[0] == "delta"}
    assert times == {(row.ticker, row.seq): row.ts_us for row in expected.rows if row.kind == "delta"}


def test_the_scale_is_proven_by_its_snapshots() -> None:
    assert scale(Capture(capture("cockpit").path), None) == (False, "12 of 12 snapshots that can tell say so")
    assert scale(Capture(capture("bot_btc").path), None) == (False, "7 of 7 snapshots that can tell say so")
    on_yes, who = scale(Capture(capture("delta_hedged").path), None)
    assert not on_yes
    assert who.startswith("nothing in it says so")


# --- from end to end ----------------------------------------------------------------------------------------


def demo(directory: Path, path: Path, *more: str, code: int = 0) -> tuple[str, dict[str, Any]]:
    """What is printed, and the figures."""
    command = [
        sys.executable,
        "-m",
        "kalshi_fast",
        "demo",
        "--json",
        "--quiet",
        "--recording",
        str(path),
        *more,
    ]
    done = subprocess.run([*command, "--dir", str(directory)], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    text, _, figures = done.stdout.rpartition("\n{")
    return text, json.loads("{" + figures) if figures else {}


def rows(figures: dict[str, Any]) -> dict[str, int]:
    for table in figures["tables"].values():
        assert table["same"]
        assert table["capture"] == table["clickhouse"] == table["parquet"]
    return {name: table["capture"] for name, table in figures["tables"].items()}


def test_a_recorded_session_plays_from_end_to_end(tmp_path: Path) -> None:
    text, figures = demo(tmp_path, capture("cockpit").path)
    beside = {"trades": 0, "tickers": 0, "market_lifecycle": 0, "reference_prices": 0}
    assert rows(figures) == {"orderbook_events": 1371, **beside}
    assert figures["books"] == {"capture": 12, "recorder": 12, "clickhouse": 12, "parquet": 12}
    assert (figures["played"], figures["gaps"], figures["frames_rejected"]) == (268, 0, 0)
    assert "DIFFERENT" not in text
    assert "the no side on the no scale (12 of 12 snapshots that can tell say so)" in text


def test_all_channels_on_the_yes_scale(tmp_path: Path) -> None:
    _, figures = demo(tmp_path, capture("delta_hedged").path, "--use-yes-price")
    beside = {"trades": 1, "tickers": 1, "market_lifecycle": 2, "reference_prices": 3}
    assert rows(figures) == {"orderbook_events": 53, **beside}
    assert (figures["scale"], figures["gaps"], figures["frames_rejected"]) == ("yes scale", 3, 0)


def test_a_capture_with_everything_wrong_loses_nothing_else(tmp_path: Path) -> None:
    """Junk, a hole, a frame that says nothing, another product, unknown channels, and a second connection."""
    books = capture("johnivanov04_prod_a").frames()
    other = capture("johnivanov04_prod_b").frames()
    spoiled = books[-1].replace(b'"side":"', b'"side":"neither ').replace(b'"seq":12', b'"seq":14')
    lines = [
        *(b"# recorded by hand", *books[:8], b"{", *books[9:]),  # one delta is left out
        spoiled,
        *other,
        *capture("perps_margin").frames()[1:],
        *capture("asyncapi").frames()[-2:],
    ]
    text, figures = demo(tmp_path, written(tmp_path / "mixed.jsonl", *lines))
    counted = rows(figures)
    assert counted["trades"] == 4
    assert counted["orderbook_events"] == 287 + 281
    assert figures["books"] == {"capture": 4, "recorder": 4, "clickhouse": 4, "parquet": 4}
    assert figures["unreadable"] == {"orderbook_delta": 1, "trade": 4}
    assert figures["frames_rejected"] == 5
    assert "note: 2 lines are no frames and are left out; the first: line 1: " in text
    assert "note: 2 frames are of no channel that can be told: 1 market_position, 1 rfq_created" in text
    assert "note: the frames of books are of 2 connections, " in text


def test_what_the_stores_do_not_have_makes_it_fail(tmp_path: Path) -> None:
    """On the wrong scale the recorder stores no book: its snapshots contradict it."""
    text, figures = demo(tmp_path, capture("cockpit").path, "--use-yes-price", code=1)
    assert text.rstrip().endswith("FAILED: the stores do not have what the capture says.")
    assert figures["agrees"] is False
    assert figures["books"]["parquet"] == 0


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--hot-standby",), "--hot-standby: a capture is of one connection at a time"),
        (("--form", "legacy"), "a capture is played as it is; leave --form legacy out"),
        (("--rate", "100"), "a capture is played as it is; leave --rate out"),
        (("--chaos",), "--chaos: a recording is played as it is"),
    ],
)
def test_options_that_are_of_no_use_are_refused(tmp_path: Path, more: tuple[str, ...], expected: str) -> None:
    command = [sys.executable, "-m", "kalshi_fast", "demo", "--quiet", "--dir", str(tmp_path), *more]
    path = str(capture("cockpit").path)
    done = subprocess.run([*command, "--recording", path], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert expected in done.stderr
    assert "Traceback" not in done.stderr


def test_a_scale_is_for_captures_only(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "kalshi_fast",
        "demo",
        "--quiet",
        "--dir",
        str(tmp_path),
        "--use-yes-price",
    ]
    done = subprocess.run(
        [*command, "--recording", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--use-yes-price: only a capture" in done.stderr
