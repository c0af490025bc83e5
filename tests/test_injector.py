"""The fault injector bites where it has to: in Python, in Arrow's files, in the engine, and once only."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from injector import Action, Call, Faults

if TYPE_CHECKING:
    from pathlib import Path

TOKEN = """
import os, sys
import clickhouse_connect
client = clickhouse_connect.get_client(interface="chdb", path=sys.argv[1])
client.command("CREATE DATABASE IF NOT EXISTS d")
client.command(
    "CREATE TABLE IF NOT EXISTS d.t (a Int64) ENGINE = MergeTree ORDER BY a"
    " SETTINGS non_replicated_deduplication_window = 100"
)
settings = {"insert_deduplication_token": "t", "async_insert": 0, "insert_deduplicate": 1}
client.insert("d.t", [[1], [2]], ["a"], settings=settings)
print(client.query("SELECT count() FROM d.t").result_rows[0][0], flush=True)
os._exit(0)
"""
FILES = """
import os, sys
from pathlib import Path
directory = Path(sys.argv[1])
with (directory / "file").open("wb", buffering=0) as file:
    for _ in range(5):
        try:
            print(os.write(file.fileno(), b"12345678"), os.fsync(file.fileno()), flush=True)
        except OSError as error:
            print(error.errno, flush=True)
(directory / "file").rename(directory / "other")
print("renamed", flush=True)
"""


def python(code: str, directory: Path, faults: Faults) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, str(directory)],
        env={**os.environ, **faults.environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_errors_short_writes_and_kills_come_at_the_call_that_was_asked_for(
    faults: Faults, tmp_path: Path
) -> None:
    faults.rule(Call.WRITE, Action.FAIL_BEFORE, tmp_path / "file", nth=2, error=errno.ENOSPC)
    faults.rule(Call.WRITE, Action.SHORT_WRITE, tmp_path / "file", nth=3, number=1)
    faults.rule(Call.FSYNC, Action.FAIL_AFTER, tmp_path / "file", nth=3, error=errno.EIO, number=2)
    faults.rule(Call.RENAME, Action.KILL_AFTER, tmp_path / "other", number=3)
    ended = python(FILES, tmp_path, faults)
    assert ended.returncode == -9
    assert ended.stdout.split("\n")[:-1] == ["8 None", str(errno.ENOSPC), "4 None", str(errno.EIO), "8 None"]
    assert (tmp_path / "other").stat().st_size == 8 + 4 + 8 + 8
    assert [faults.fired(number) for number in range(4)] == [1, 1, 1, 1]
    assert faults.where(3) == str(tmp_path / "other")
    again = python(FILES, tmp_path, faults)
    assert (again.returncode, again.stdout.count("8 None")) == (0, 5), "a fault happens once"


@pytest.mark.parametrize("action", [Action.KILL_BEFORE, Action.FAIL_BEFORE])
def test_it_reaches_the_engine_whose_token_is_no_proof(
    action: Action, faults: Faults, tmp_path: Path
) -> None:
    faults.rule(Call.RENAME, action, "/all_1_1_0", error=errno.EIO)
    first = python(TOKEN, tmp_path / "engine", faults)
    assert first.returncode in (-9, 1), first.stderr
    assert faults.fired() == 1
    second = python(TOKEN, tmp_path / "engine", faults)
    assert second.returncode == 0, second.stderr
    # The insert was answered and its rows are not there: why the recorder reads what a table holds.
    assert second.stdout == "0\n"
