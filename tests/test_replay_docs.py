"""Every block of Python in docs/replay.md runs, on a recording that is where it says."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Cython.Build import cythonize

import kalshi_fast
from channels import trade_id
from kalshi_fast import LifecycleRow, ReferenceRow, TickerRow, TradeRow
from kalshi_fast._replay import BookTable
from kalshi_fast.channels.rows import NIL_ID
from kalshi_fast.replaying.replay import whole_frames
from replay_model import some_rows, table_of, write, write_rows

if TYPE_CHECKING:
    import pytest

AT_NS = 1_795_000_001_000_000_000
TRADE = TradeRow(7, 2, 1, trade_id(1), "KX-1", "yes", False, 4500, 100, AT_NS // 1000, AT_NS)
TICKER = TickerRow(7, 3, NIL_ID, "KX-1", 4500, *(None,) * 9, AT_NS // 1000, AT_NS)
ANNOUNCED = LifecycleRow(7, 4, 1, "KX-1", "KX", "settled", "{}", AT_NS)
PRICE = ReferenceRow(7, 5, 1, "pyth_value", "Metal.XAU/USD", *(None,) * 7, AT_NS // 1000, AT_NS)
PAGE = Path(__file__).parents[1] / "docs" / "replay.md"


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 6
    table = table_of(some_rows(2000), step_ns=1_000_000)
    write(tmp_path / "data/parquet/orderbook/date=2026-11-18/part-110640_000000.parquet", table)
    stored: dict[str, list[Any]] = {
        "trades": [TRADE],
        "tickers": [TICKER],
        "market_lifecycle": [ANNOUNCED],
        "reference_prices": [PRICE],
    }
    for table, rows in stored.items():
        write_rows(
            tmp_path / "data/parquet" / table / "date=2026-11-18/part-110641_000000.parquet", table, rows
        )
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    row = names["row"]
    assert row == TRADE
    strategy = names["strategy"]
    assert getattr(strategy, "widest", None)


def test_what_cython_users_may_write_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from setuptools import Distribution, Extension

    (block,) = re.findall(r"^```cython\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    (tmp_path / "mine.pyx").write_text(block)
    monkeypatch.chdir(tmp_path)
    extensions = cythonize(  # type: ignore[no-untyped-call]
        [Extension("mine", ["mine.pyx"], extra_compile_args=["-O0", "-w"])],
        include_path=[str(Path(kalshi_fast.__file__).parents[1])],
        compiler_directives={"language_level": 3, "freethreading_compatible": False},
        quiet=True,
    )
    command = Distribution({"ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib = command.build_temp = str(tmp_path)
    command.ensure_finalized()
    command.run()
    monkeypatch.syspath_prepend(str(tmp_path))
    mine = importlib.import_module("mine")

    path = write(tmp_path / "part.parquet", table_of(some_rows(2000)))
    recording = kalshi_fast.replay(path)
    expected = sum(e.book.best_bid(0) or 0 for e in recording.events() if e.known)
    with recording.open() as source:
        table = BookTable()
        assert sum(mine.best_bids(table, rows) for rows in whole_frames(source.chunks())) == expected > 0
