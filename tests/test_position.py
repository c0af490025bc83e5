"""A store's position: always one that was written, never older than the last but one acknowledged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_fast.errors import JournalError
from kalshi_fast.journal import Point, Position
from kalshi_fast.journal.position import PLACE_BYTES

POINTS = st.builds(
    Point,
    journal=st.text("0123456789abcdef", min_size=32, max_size=32),
    seq=st.integers(0, 2**63),
    row=st.integers(0, 2**31),
    until=st.integers(0, 2**63),
    recorder=st.text(max_size=40),
    rows=st.integers(0, 2**63),
    detail=st.text(max_size=100),
)


def there(path: Path) -> Point | None:
    position = Position(path, fsync=False)
    position.close()
    return position.point


@settings(max_examples=50)
@given(st.lists(POINTS, max_size=8), st.booleans())
def test_the_last_point_written_is_found_again(points: list[Point], fsync: bool) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "position"
        assert there(path) is None
        for point in points:
            position = Position(path, fsync=fsync)
            position.write(point)
            assert position.point == point
            position.close()
            assert there(path) == point
        assert path.stat().st_size <= 2 * PLACE_BYTES


@settings(max_examples=100)
@given(st.lists(POINTS, min_size=2, max_size=5), st.integers(0, 2 * PLACE_BYTES), st.binary(min_size=1))
def test_damage_in_one_place_leaves_the_other(points: list[Point], at: int, garbage: bytes) -> None:
    """One write tears one place at most; the last point or the one before it is found, or the same again."""
    with TemporaryDirectory() as directory:
        path = Path(directory) / "position"
        position = Position(path, fsync=False)
        for point in points:
            position.write(point)
        position.close()
        data = path.read_bytes()
        garbage = garbage[: PLACE_BYTES - at % PLACE_BYTES]  # within one place
        path.write_bytes(
            (data[:at].ljust(at, b"\0") + garbage + data[at + len(garbage) :])[: 2 * PLACE_BYTES]
        )
        assert there(path) in points[-2:]
        position = Position(path, fsync=False)
        position.write(points[0])
        position.close()
        assert there(path) == points[0]


def test_the_newest_place_torn_at_any_byte_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "position"
    position = Position(path, fsync=False)
    points = [Point("j", seq) for seq in range(3)]
    for point in points[:2]:
        position.write(point)
    before = path.read_bytes()
    position.write(points[2])
    position.close()
    after = path.read_bytes()
    start = 0 if before[:PLACE_BYTES] != after[:PLACE_BYTES] else PLACE_BYTES
    size = len(after[start : start + PLACE_BYTES].rstrip(b"\0"))
    for cut in range(size):
        torn = after[: start + cut].ljust(start + cut, b"\0") + before[start + cut :]
        path.write_bytes(torn)
        # The bytes not yet written may happen to be the same as before: then it is whole already.
        assert there(path) == (points[2] if torn.ljust(len(after), b"\0") == after else points[1])


@pytest.mark.parametrize("data", [b"", b"KFP1", b"x" * 20_000, bytes(8192), b"KFP1" + b"\xff" * 8188])
def test_a_file_that_holds_no_position_is_none(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "position"
    path.write_bytes(data)
    assert there(path) is None
    position = Position(path, fsync=False)
    position.write(Point("j", 1))
    position.close()
    assert there(path) == Point("j", 1)


def test_what_cannot_be_written_is_said_and_the_point_before_counts(tmp_path: Path) -> None:
    position = Position(tmp_path / "position", fsync=True)
    position.write(Point("j", 1))
    with pytest.raises(JournalError, match="too large"):
        position.write(Point("j", 2, detail="x" * PLACE_BYTES))
    assert position.point == Point("j", 1)
    position.close()
    assert there(tmp_path / "position") == Point("j", 1)
    with pytest.raises(JournalError, match="cannot be used"):
        Position(tmp_path / "nowhere" / "position", fsync=False)


WRITES = """
import sys
from pathlib import Path
from kalshi_fast.journal.position import Point, Position
position = Position(Path(sys.argv[1]), fsync=False)
seq = position.point.seq if position.point else 0
while True:
    seq += 1
    position.write(Point("j", seq, rows=seq, detail="x" * (seq * 37 % 3000)))
    print(seq, flush=True)
"""


def test_after_kill_9_the_position_is_the_last_written_one(tmp_path: Path) -> None:
    path = tmp_path / "position"
    dice = Random(4)
    last = 0
    for _ in range(4):
        with subprocess.Popen(
            [sys.executable, "-c", WRITES, str(path)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            for _ in range(dice.randrange(1, 3000)):
                process.stdout.readline()
            process.kill()
            lines = process.stdout.read().split("\n")
        acknowledged = int(lines[-2]) if len(lines) > 1 else last
        point = there(path)
        assert point is not None
        assert point.seq >= max(last, acknowledged - 1)
        assert point == Point("j", point.seq, rows=point.seq, detail="x" * (point.seq * 37 % 3000))
        last = point.seq
