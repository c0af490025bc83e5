"""Shared memory: what is sealed on one side is taken on the other, once, in order, whoever dies."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from batches import id_of, ticker_of
from kalshi_fast._shared import Cells
from kalshi_fast.batch import Batch, HealthEvent, RejectedFrame, unpack_extra
from kalshi_fast.channels.rows import LifecycleRow
from kalshi_fast.errors import FieldError
from kalshi_fast.pool import BatchPool
from kalshi_fast.ring import EXTRA_BYTES, LAYOUT_VERSION, MAX_SLOTS, Ring, SealedSlot

if TYPE_CHECKING:
    from collections.abc import Iterator

ROWS = 16
RECORDER = uuid.UUID("ffffffff-0000-0000-8000-000000000001")  # its halves lie at both ends of 64 bits


@pytest.fixture
def fds() -> Iterator[list[int]]:
    """Closed behind the test."""
    opened: list[int] = []
    yield opened
    for fd in opened:
        os.close(fd)


def make_ring(fds: list[int], slots: int = 4, rows: int = ROWS) -> Ring:
    ring = Ring.create(rows, slots, RECORDER)
    fds.append(ring.fd)
    return ring


def fill(batch: Batch, number: int, rows: int = 3, names: tuple[int, int] = (1, 1)) -> None:
    batch.number, batch.names = number, names
    for row in range(rows):
        assert batch.events.add(1, 1, 2, number * 100 + row, 0, 0, 0, row, number, number, number)
        assert batch.levels.set(0, 0, 1, row, number, number, number)
    batch.add_health(HealthEvent(number, 1, "note", detail=f"batch {number}"))


def seen(slot: SealedSlot) -> dict[str, Any]:
    """Everything in a slot, copied."""
    return {
        "number": slot.number,
        "names": slot.names,
        "events": {name: column[: slot.events].tolist() for name, column in slot.event_arrays.items()},
        "levels": {name: column[: slot.levels].tolist() for name, column in slot.level_arrays.items()},
        "extra": slot.extra,
    }


def content(batch: Batch) -> dict[str, Any]:
    return {
        "events": {name: column[: batch.events.n].tolist() for name, column in batch.events.arrays.items()},
        "levels": {name: column[: batch.levels.n].tolist() for name, column in batch.levels.arrays.items()},
    }


def drain(ring: Ring) -> list[dict[str, Any]]:
    taken = []
    while (slot := ring.peek()) is not None:
        taken.append(seen(slot))
        ring.release()
    return taken


def test_batches_are_taken_in_the_order_of_sealing_with_all_that_is_in_them(fds: list[int]) -> None:
    ring = make_ring(fds)
    wakes: list[int] = []
    pool = BatchPool(ring, ["A"], [id_of(0)], lambda: wakes.append(1))
    first, second = pool.acquire(0), pool.acquire(0)
    fill(first, 1, rows=2)
    fill(second, 2, rows=ROWS)
    pool.deliver(second)  # the order of sealing, not of acquiring
    pool.deliver(first)
    assert (ring.waiting, pool.unsent, pool.sealed_rows, len(wakes)) == (2, 0, 2 + ROWS, 2)
    ahead = ring.peek(1)
    assert ahead is not None
    assert seen(ahead) | content(first) == seen(ahead)
    taken = drain(ring)
    assert [batch["number"] for batch in taken] == [2, 1]
    assert taken[0] | content(second) == taken[0]
    assert unpack_extra(taken[1]["extra"]).health == [HealthEvent(1, 1, "note", detail="batch 1")]
    assert ring.recorder == RECORDER
    assert ring.peek() is None


def test_names_of_any_length_come_over_and_grow(fds: list[int]) -> None:
    tickers = [ticker_of(ix) for ix in range(300)] + ["Z" * 128]
    ids = [id_of(ix) for ix in range(200)]
    assert {len(ticker) for ticker in tickers} >= {127, 128, 5}
    ring = make_ring(fds)
    pool = BatchPool(ring, tickers, ids)
    for number, names in enumerate(((1, 0), (250, 120), (250, 120), (301, 200)), 1):
        batch = pool.acquire(0)
        fill(batch, number, names=names)
        pool.deliver(batch)
        slot = ring.peek()
        assert slot is not None
        assert slot.names == names
        assert ring.tickers(0, names[0]) == tickers[: names[0]]
        assert ring.ids(0, names[1]) == ids[: names[1]]
        ring.release()
    assert ring.tickers(299, 301) == tickers[299:]


def test_names_for_which_there_is_no_room_are_refused_and_overwrite_nothing(fds: list[int]) -> None:
    ring = make_ring(fds)
    ring.add_names(["A", "B"], [id_of(0)], (0, 0))
    with pytest.raises(FieldError, match="128"):
        ring.add_names(["X" * 129], [], (0, 0))
    with pytest.raises(FieldError, match="36"):
        ring.add_names([], ["X" * 37], (0, 0))
    with pytest.raises(FieldError, match="names"):
        ring.add_names(range(1_000_001), [], (1_000_000, 0))  # type: ignore[arg-type]
    with pytest.raises(FieldError, match="names"):
        ring.add_names([], range(2_000_001), (0, 2_000_000))  # type: ignore[arg-type]
    assert (ring.tickers(0, 2), ring.ids(0, 1)) == (["A", "B"], [id_of(0)])


def test_slots_are_used_again_and_again(fds: list[int]) -> None:
    ring = make_ring(fds, slots=3)
    pool = BatchPool(ring, ["A"], [id_of(0)])
    used = set()
    for number in range(1, 50):
        batch = pool.acquire(0)
        assert batch.empty
        assert batch.slot is not None
        used.add(batch.slot)
        fill(batch, number, rows=number % ROWS)
        pool.deliver(batch)
        (taken,) = drain(ring)
        assert (taken["number"], len(taken["events"]["seq"])) == (number, number % ROWS)
    assert used <= {0, 1, 2}


def test_when_all_slots_are_taken_batches_wait_in_memory_and_follow_in_order(fds: list[int]) -> None:
    ring = make_ring(fds, slots=3)
    pool = BatchPool(ring, ["A"], [id_of(0)])
    contents: dict[int, dict[str, Any]] = {}
    taken: list[dict[str, Any]] = []
    pressed: list[bool] = []
    current = pool.acquire(0)
    for number in range(1, 31):
        fill(current, number, rows=number % 5)
        contents[number] = content(current)
        sealed, current = current, pool.acquire(current.levels.version)
        pool.deliver(sealed)
        pressed.append(pool.pressed)
    assert pressed[:2] == [False, True]
    assert all(pressed[1:])
    assert (ring.waiting, pool.unsent) == (3, 27)
    assert not pool.pump()
    while ring.waiting:
        slot = ring.peek()
        assert slot is not None
        taken.append(seen(slot))
        ring.release()
        assert pool.pump() == (pool.unsent == 0)
    assert [batch["number"] for batch in taken] == list(range(1, 31))
    for batch in taken:
        assert batch | contents[batch["number"]] == batch
    assert not pool.pressed
    fill(current, 31)  # it was begun in memory, and the slots are free again
    pool.deliver(current)
    assert [batch["number"] for batch in drain(ring)] == [31]
    assert pool.acquire(0).slot is not None


@pytest.mark.parametrize("text", ["x" * EXTRA_BYTES, "\ud800"], ids=["too large", "no text at all"])
def test_records_that_find_no_room_cost_neither_the_columns_nor_a_slot(text: str, fds: list[int]) -> None:
    ring = make_ring(fds, slots=2)
    pool = BatchPool(ring, ["A"], [id_of(0)])
    bad, good = pool.acquire(0), pool.acquire(0)
    in_memory = pool.acquire(0)
    batches = [bad, good, in_memory]
    assert [batch.slot is None for batch in batches] == [False, False, True]
    for number, batch in enumerate(batches, 1):
        fill(batch, number)
    contents = [content(batch) for batch in batches]
    for batch in (bad, in_memory):
        batch.add_row("market_lifecycle", LifecycleRow(1, 2, 3, "A", "", "created", text, 4), len(text))
        batch.add_rejected(RejectedFrame(1, 1, "why", b"frame"))
    taken = []
    for batch in batches:
        pool.deliver(batch)
    while ring.waiting:
        taken += drain(ring)
        pool.pump()
    assert [there["number"] for there in taken] == [1, 2, 3]
    for there, columns in zip(taken, contents, strict=True):
        assert there | columns == there
    extras = [unpack_extra(there["extra"]) for there in taken]
    assert [[row.event for row in extra.health] for extra in extras] == [
        ["note", "left_out"],
        ["note"],
        ["note", "left_out"],
    ]
    assert "2 records of batch 3 are left out" in extras[2].health[1].detail
    assert [extra.rows for extra in extras] == [2, 1, 2]
    assert (pool.records_left_out, pool.unsent) == (4, 0)
    assert {pool.acquire(0).slot for _ in range(2)} == {0, 1}


def test_health_that_finds_no_room_is_left_out_too(fds: list[int]) -> None:
    ring = make_ring(fds)
    pool = BatchPool(ring, ["A"], [id_of(0)])
    batch = pool.acquire(0)
    fill(batch, 1)
    batch.add_health(HealthEvent(1, 1, "note", detail="x" * EXTRA_BYTES))
    pool.deliver(batch)
    (taken,) = drain(ring)
    assert len(taken["events"]["seq"]) == 3
    assert [row.event for row in unpack_extra(taken["extra"]).health] == ["left_out"]
    assert pool.records_left_out == 2


def test_level_versions_go_on_above_those_of_the_recorder_before(fds: list[int]) -> None:
    pool = BatchPool(make_ring(fds), [], [], version=10**18)
    batch = pool.acquire(5)
    fill(batch, 1, rows=2)
    assert batch.levels.arrays["version"][:2].tolist() == [10**18 + 1, 10**18 + 2]


OTHER_PROCESS = """
import sys
from kalshi_fast.ring import Ring
ring = Ring.attach(int(sys.argv[1]))
while (slot := ring.peek()) is not None:
    rows = slot.event_arrays["seq"][: slot.events].tolist()
    print(slot.number, rows, ring.tickers(0, slot.names[0]), ring.ids(0, slot.names[1]), slot.extra.hex())
    ring.release()
print(ring.recorder, ring.closing, ring.waiting)
"""


def test_another_process_sees_the_same_and_gives_slots_back(fds: list[int]) -> None:
    ring = make_ring(fds)
    pool = BatchPool(ring, ["Y" * 128], [id_of(0)])
    expected = []
    for number in (1, 2, 3):
        batch = pool.acquire(0)
        fill(batch, number, rows=number)
        pool.deliver(batch)
        slot = ring.peek(number - 1)
        assert slot is not None
        rows = [number * 100 + row for row in range(number)]
        expected.append(f"{number} {rows} {['Y' * 128]} {[id_of(0)]} {slot.extra.hex()}")
    ring.say_closing()
    command = [sys.executable, "-c", OTHER_PROCESS, str(ring.fd)]
    result = subprocess.run(command, pass_fds=[ring.fd], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines() == [*expected, f"{RECORDER} True 0"]
    assert ring.waiting == 0
    assert {pool.acquire(0).slot for _ in range(4)} == {0, 1, 2, 3}


# --- foreign memory -----------------------------------------------------------------------------------


def head(version: int, slots: int, rows: int) -> bytes:
    return np.array([version, slots, rows, *[0] * 13], np.int64).tobytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x" * 100,
        bytes(8192),
        os.urandom(8192),
        head(LAYOUT_VERSION + 1, 4, 16).ljust(8192, b"\0"),
        head(LAYOUT_VERSION, 0, 16).ljust(8192, b"\0"),
        head(LAYOUT_VERSION, 4, 0).ljust(8192, b"\0"),
        head(LAYOUT_VERSION, 4, -1).ljust(8192, b"\0"),
        head(LAYOUT_VERSION, MAX_SLOTS + 1, 16).ljust(8192, b"\0"),
        head(LAYOUT_VERSION, MAX_SLOTS, 1 << 24).ljust(8192, b"\0"),
        head(LAYOUT_VERSION, 4, 16).ljust(8192, b"\0"),  # all is right, only most of it is missing
    ],
)
def test_what_is_no_ring_is_refused_and_left_as_it_is(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(data)
    with path.open("r+b") as file, pytest.raises(FieldError):
        Ring.attach(file.fileno())
    assert path.read_bytes() == data


def test_a_descriptor_that_is_no_memory_is_refused(fds: list[int]) -> None:
    pipe = os.pipe()
    fds += pipe
    with tempfile.TemporaryFile() as file:
        closed = file.fileno()
    for fd in (pipe[0], pipe[1], closed, -1):
        with pytest.raises(FieldError, match="shared memory"):
            Ring.attach(fd)


def open_files() -> int:
    """How many descriptors this process has, as far as the system tells."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir()) if sys.platform == "linux" else 0


@pytest.mark.parametrize(("rows", "slots"), [(0, 4), (1 << 25, 4), (16, 0), (16, MAX_SLOTS + 1)])
def test_impossible_sizes_are_refused_and_leave_nothing_open(rows: int, slots: int) -> None:
    before = open_files()
    with pytest.raises(FieldError):
        Ring.create(rows, slots, RECORDER)
    assert open_files() == before


def test_extras_that_do_not_fit_are_refused_before_anything_is_sealed(fds: list[int]) -> None:
    ring = make_ring(fds)
    slot = ring.claim()
    assert slot is not None
    with pytest.raises(FieldError, match="extra"):
        ring.seal(slot, 1, events=0, levels=0, names=(0, 0), extra=bytes(EXTRA_BYTES + 1))
    assert ring.waiting == 0
    ring.seal(slot, 1, events=0, levels=0, names=(0, 0), extra=b"e" * EXTRA_BYTES)
    (taken,) = drain(ring)
    assert taken["extra"] == b"e" * EXTRA_BYTES
    with pytest.raises(FieldError, match="slot"):
        ring.event_memory(4)


def test_cells_hold_whole_numbers_within_their_bounds() -> None:
    cells = Cells(bytearray(32), 4)
    for at, value in enumerate((0, -1, 2**63 - 1, -(2**63))):
        cells.set(at, value)
        assert cells.get(at) == value
    for at in (-1, 4):
        with pytest.raises(FieldError):
            cells.get(at)
        with pytest.raises(FieldError):
            cells.set(at, 0)
    for count in (0, -1, 5):
        with pytest.raises(FieldError):
            Cells(bytearray(39), count)
    with pytest.raises((BufferError, ValueError, TypeError)):
        Cells(bytes(32), 4)


# --- at random ----------------------------------------------------------------------------------------


class RingMachine(RuleBasedStateMachine):
    """The ring against a queue: claimed slots, sealed batches in order, a reader that may die at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.ring = Ring.create(4, 3, RECORDER)
        self.reader = Ring.attach(self.ring.fd)
        self.claimed: list[int] = []
        self.sealed: deque[tuple[int, list[int]]] = deque()
        self.number = 0

    @rule()
    def claim(self) -> None:
        slot = self.ring.claim()
        assert (slot is None) == (len(self.claimed) + len(self.sealed) == 3)
        if slot is not None:
            assert slot not in self.claimed
            self.claimed.append(slot)

    @precondition(lambda self: self.claimed)
    @rule(which=st.integers(0, 2), values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4))
    def seal(self, which: int, values: list[int]) -> None:
        slot = self.claimed.pop(which % len(self.claimed))
        self.number += 1
        columns = np.frombuffer(self.ring.event_memory(slot), np.uint8)
        columns[:] = self.number % 256
        there = BatchPool(self.ring, [], [])._on_slot(slot)
        there.events.arrays["qty_e2"][: len(values)] = values
        extra = str(values).encode()
        self.ring.seal(slot, self.number, events=len(values), levels=0, names=(0, 0), extra=extra)
        self.sealed.append((self.number, values))

    @rule(ahead=st.integers(0, 3))
    def peek(self, ahead: int) -> None:
        slot = self.reader.peek(ahead)
        if ahead >= len(self.sealed):
            assert slot is None
            return
        assert slot is not None
        values = slot.event_arrays["qty_e2"][: slot.events].tolist()
        assert (slot.number, values) == self.sealed[ahead]
        assert slot.extra == str(values).encode()

    @precondition(lambda self: self.sealed)
    @rule()
    def release(self) -> None:
        self.peek(0)
        self.reader.release()
        self.sealed.popleft()

    @rule()
    def the_reader_dies_and_a_new_one_attaches(self) -> None:
        self.reader = Ring.attach(self.ring.fd)

    @invariant()
    def both_sides_count_the_same(self) -> None:
        assert self.ring.waiting == self.reader.waiting == len(self.sealed)

    def teardown(self) -> None:
        os.close(self.ring.fd)


TestRingMachine = RingMachine.TestCase
TestRingMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
