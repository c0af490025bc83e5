"""Memory does not grow with the recording: ten times the files, and the process is hardly larger."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from replay_model import some_rows, table_of, write

if TYPE_CHECKING:
    from pathlib import Path

ROWS = 20_000
FILES = 100
GROWTH_MB = 40  # the allocator's; all of the columns would be twice that
PROGRAM = """
import sys
from kalshi_fast import Strategy, replay

class Count(Strategy):
    n = 0
    def on_book(self, event):
        self.n += 1

def largest_mb():
    status = open("/proc/self/status").read().splitlines()
    return int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1024

for pattern in sys.argv[1:]:
    recording = replay(pattern)
    with recording.run() as run:
        events = run.advance()
    looks = sum(len(look["at_ns"]) for _, look in recording.features(events=1))
    bars = sum(batch.num_rows for batch in recording.bars("1s"))
    assert recording.drive(Count()) == events == looks
    print(events, bars > 0, round(largest_mb()))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_times_the_files_take_no_more_memory(tmp_path: Path) -> None:
    table = table_of(some_rows(ROWS))
    place = table.schema.get_field_index("ingest_ts")
    kind = table.schema.field(place).type
    times = table["ingest_ts"].cast(pa.int64()).to_numpy()
    for number in range(FILES):
        moved = pa.array(times + number * ROWS * 1000).cast(kind)
        name = f"{'few' if number < FILES // 10 else 'many'}/date=2026-11-18/part-{number:06d}_000000.parquet"
        write(tmp_path / name, table.set_column(place, table.schema.field(place), moved), row_group=10_000)
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "few"), str(tmp_path / "*" / "date=*")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    few, many = int(told[0]), int(told[3])
    assert many == 10 * few > 10 * 15_000
    assert int(told[5]) < int(told[2]) + GROWTH_MB, told
    print(told)  # noqa: T201 - for whoever wants to see the figures
