"""Every benchmark that a document names runs in a short form, and its own checks hold; no figure is judged.

``python -m benchmarks.tuning`` has a test of its own (``test_tuning``), the gate on instructions a line in
``.ci/run``.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]
SHORT: Final = {
    "endurance": (("--rate", "2000", "--seconds", "2", "--every", "1"),),
    "replay": (("--events", "20000"), ("--events", "20000", "--memory", "2")),
    "simulate": (("--events", "20000", "--rounds", "1"),),
    "tuning_parts": ((),),
}
ELSEWHERE: Final = {"tuning", "instructions"}


def run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_benchmark_that_a_document_names_is_run() -> None:
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md")]
    named = {name for file in documents for name in re.findall(r"-m\s+benchmarks\.(\w+)", file.read_text())}
    assert named == {*SHORT, *ELSEWHERE}


@pytest.mark.parametrize("arguments", SHORT["endurance"])
def test_endurance(arguments: tuple[str, ...], tmp_path: Path) -> None:
    *looks, summary = map(
        json.loads, run("endurance", *arguments, "--dir", str(tmp_path / "new")).splitlines()
    )
    assert looks
    assert summary["agrees"] is True
    assert summary["frames_received"] == summary["sent"] + summary["answers"]
    assert summary["events"] == summary["clickhouse_rows"] == summary["parquet_rows"] > 3000


@pytest.mark.parametrize("arguments", SHORT["replay"], ids=" ".join)
def test_replay(arguments: tuple[str, ...]) -> None:
    said = run("replay", *arguments)
    if "--memory" in arguments:
        (events,) = re.findall(r"^([0-9,]+) events$", said, re.MULTILINE)
        assert int(events.replace(",", "")) > 40_000
        assert said.count(" MB (") == 2
    else:
        assert len(re.findall(r" ns +wall ", said)) >= 4


@pytest.mark.parametrize("arguments", SHORT["simulate"])
def test_simulate(arguments: tuple[str, ...]) -> None:
    said = run("simulate", *arguments)
    found = re.findall(r"^(wss?) +(compiled|Python) +([0-9.]+) M messages/s", said, re.MULTILINE)
    assert [name for name, _, _ in found] == ["ws", "ws", "wss", "wss"]
    assert all(float(rate) > 0 for _, _, rate in found)


def test_tuning_parts() -> None:
    said = run("tuning_parts")
    assert "a turn of the loop that does not sleep" in said
    (left,) = re.findall(r"deltas leave, garbage found then *(-?[0-9]+) [0-9]+$", said, re.MULTILINE)
    assert int(left) < 1000, "containers that deltas leave: they took the long way"
