"""Every block of Python in docs/replay.md runs, on a recording that is where it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from replay_model import some_rows, table_of, write

if TYPE_CHECKING:
    import pytest

PAGE = Path(__file__).parents[1] / "docs" / "replay.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    table = table_of(some_rows(2000), step_ns=1_000_000)
    write(tmp_path / "data/parquet/orderbook/date=2026-11-18/part-110640_000000.parquet", table)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    strategy = names["strategy"]
    assert getattr(strategy, "widest", None)
