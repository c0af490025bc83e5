"""Faults at random calls of journal, ClickHouse and Parquet, one process after the other on one directory.

After each the next one takes up what is left and compares both stores with the journal (``storing``). As a
program: ``python tests/sweep.py FAULTS [SEED]`` prints what was injected and what was found, and ends at the
first thing that is wrong. Not here: the library (``injector``).
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

from injector import Action, Call, Faults, build

HERE: Final = Path(__file__).parent
KILLS: Final = (Action.KILL_BEFORE, Action.KILL_AFTER)
ERRORS: Final = (errno.EIO, errno.ENOSPC)
PLACES: Final = ("/journal/", "/clickhouse/store/", "/clickhouse/store/", "/parquet/")
ROUNDS: Final = 24
# How many calls of a kind a process makes below one place, about.
USUAL: Final = {Call.RENAME: 40, Call.WRITE: 400, Call.FSYNC: 200, Call.UNLINK: 40, Call.MKDIR: 40}
FAULTS_AT_ONCE: Final = 8


class Sweep:
    """``run`` injects at least so many faults; AssertionError says what is wrong afterwards."""

    def __init__(self, directory: Path, faults: Faults, seed: int) -> None:
        self.directory, self.faults = directory, faults
        self.rng = random.Random(seed)
        self.seed = seed
        self.done: Counter[str] = Counter()
        self.runs = 0
        self.rows = 0
        self.repaired = 0
        self._committed = 0
        self._before: list[str] = []

    @property
    def injected(self) -> int:
        return sum(self.done.values())

    def run(self, wanted: int) -> None:
        while self.injected < wanted:
            self._one()
        self.faults.clear()
        self._one(armed=False)

    def _arm(self) -> list[str]:
        """One kill, or some errors; what they are, for the message."""
        rng = self.rng
        kill = rng.random() < 0.5
        told = []
        for number in range(1 if kill else FAULTS_AT_ONCE):
            call = rng.choice(list(USUAL))
            place = rng.choice(PLACES)
            if kill:
                action = rng.choice(KILLS)
            else:
                # A rename that is made and reported as failed does not happen on a disk.
                action = rng.choice((Action.FAIL_BEFORE, Action.FAIL_BEFORE, Action.SHORT_WRITE))
                if action is Action.SHORT_WRITE:
                    call = Call.WRITE
            nth = max(1, int(USUAL[call] * rng.random() ** 2))
            error = rng.choice(ERRORS)
            self.faults.rule(call, action, f"{self.directory}{place}", nth=nth, error=error, number=number)
            told.append(f"{action.name} {call.name} {place} {nth} {errno.errorcode[error]}")
        return told

    def _one(self, *, armed: bool = True) -> None:
        self.runs += 1
        self.faults.clear()
        at_once = armed and self.rng.random() < 0.3  # while it takes up what is left; else while it records
        told = self._arm() if at_once else []
        process = subprocess.Popen(
            [sys.executable, str(HERE / "storing.py"), str(self.directory), str(ROUNDS), str(self.runs)],
            env={**os.environ, **self.faults.environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stderr is not None
        first = process.stdout.readline()
        if first.startswith("{"):
            self._judge(json.loads(first))
        elif not at_once:
            raise AssertionError(f"seed {self.seed}: {self._before}: {process.communicate()[1][-3000:]}")
        if armed and not at_once:
            told = self._arm()
        out, err = process.communicate(timeout=300)
        for line in out.splitlines():
            if line.startswith("committed "):
                self._committed = max(self._committed, int(line.split()[1]))
        killed = any("KILL" in text for text in told) and self.faults.fired() > 0
        assert process.returncode == (-9 if killed else 0), f"{told}: {process.returncode}: {err[-3000:]}"
        for number, text in enumerate(told):
            action, call, place, *_ = text.split()
            if self.faults.fired(number):
                self.done[f"{action} {call} {place}"] += 1
        self._before = [f"{told[n]} {self.faults.where(n)}" for n in range(len(told)) if self.faults.fired(n)]

    def _judge(self, verdict: dict[str, Any]) -> None:
        what = f"seed {self.seed}, after {self._before}: {verdict}"
        assert verdict["clickhouse"] == verdict["parquet"] == {"missing": 0, "too_many": 0}, what
        assert verdict["known"] == [], what
        assert verdict["health_doubled"] == 0, what
        assert verdict["end"] >= self._committed, f"{self._committed} batches were committed; {what}"
        self.rows = verdict["rows"]
        self.repaired += verdict["repaired"]


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(wanted: int, seed: int) -> int:
    directory = Path(tempfile.mkdtemp(prefix="kalshi-fast-sweep-"))
    started = time.monotonic()
    faults = Faults(build(directory), directory / "faults")
    sweep = Sweep(directory / "stores", faults, seed)
    sweep.directory.mkdir()
    while sweep.injected < wanted:
        sweep.run(min(wanted, sweep.injected + 20))
        took_s = time.monotonic() - started
        say(f"{sweep.injected} faults, {sweep.runs} runs, {sweep.rows} rows, {took_s:.0f} s")
    for what, count in sorted(sweep.done.items()):
        say(f"{count:5d} {what}")
    say(
        f"{sweep.injected} faults in {sweep.runs} runs: {sweep.rows} rows, each in both stores once; in"
        f" {sweep.repaired} cases a row that an insert of unknown outcome should have brought was not there"
    )
    shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1))
