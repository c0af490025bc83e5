"""Both stores have each journalled row once, whatever fails on the way: calls of the system, and the power.

A bounded part of what ``make crash`` does; the truth is the journal, of which nothing is trimmed here.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from powercut import Cuts, Disk
from sweep import Sweep

if TYPE_CHECKING:
    from pathlib import Path

    from injector import Faults

FAULTS = int(os.environ.get("KALSHI_FAST_SWEEP_FAULTS", "12"))
CUTS = int(os.environ.get("KALSHI_FAST_POWER_CUTS", "2"))


def test_whatever_call_fails_or_is_the_last_each_row_is_stored_once(faults: Faults, tmp_path: Path) -> None:
    (tmp_path / "stores").mkdir()
    sweep = Sweep(tmp_path / "stores", faults, 5)
    sweep.run(FAULTS)
    assert sweep.injected >= FAULTS
    assert sweep.rows > 0


@pytest.mark.parametrize("fsync", ["always", "interval"])
def test_after_a_power_cut_each_row_of_the_journal_is_stored_once(fsync: str, tmp_path: Path) -> None:
    try:
        disk = Disk(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        said = getattr(error, "stderr", b"") or str(error).encode()
        pytest.skip(f"no file system of our own here: {said.decode().strip()}")
    try:
        cuts = Cuts(disk, fsync, 3)
        for _ in range(CUTS):
            cuts.one()
        cuts.one(cut=False)
        assert cuts.rows > 0
    finally:
        with suppress(subprocess.CalledProcessError):
            disk.unmount()
