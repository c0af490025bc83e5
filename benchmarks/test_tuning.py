"""The program behind docs/tuning.md runs and shows what it says it does; its figures are not judged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def test_latency_of_the_settings() -> None:
    arguments = ("nothing", "quickack", "--rounds", "1", "--rate", "2000", "--seconds", "0.3")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.tuning", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    rows = re.findall(r"^(nothing|quickack) +([0-9.]+) \(", done.stdout, re.MULTILINE)
    assert [name for name, _ in rows] == ["nothing", "quickack"] * 3
    assert all(float(p50_us) > 0 for _, p50_us in rows)
