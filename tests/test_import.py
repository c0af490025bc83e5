"""What ``import kalshi_fast`` costs: each asked of an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

import kalshi_fast

HEAVY = ("numpy", "pyarrow", "clickhouse_connect", "chdb", "pandas", "msgspec", "picows", "uvloop", "asyncio")


def said_by(code: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import kalshi_fast",
        "from kalshi_fast import OrderBook; OrderBook().apply_snapshot([(4500, 1)], [])",
        "from kalshi_fast import BookError, GRIDS, LINEAR_CENT, NO, YES, Grid, KalshiFastError",
    ],
)
def test_nothing_heavy_is_imported(statement: str) -> None:
    loaded = said_by(f"import sys; {statement}; print(*sys.modules)")
    assert "kalshi_fast" in loaded
    assert not {name.partition(".")[0] for name in loaded} & {*HEAVY}
    assert "importlib.metadata" not in loaded


def test_numpy_is_imported_where_arrays_are_made() -> None:
    code = "import sys; from kalshi_fast import OrderBook, YES; book = OrderBook()"
    after = "print('numpy' in sys.modules)"
    assert said_by(f"{code}; book.ladder(YES); {after}") == ["True"]
    assert said_by(f"{code}; book.grid.prices; {after}") == ["True"]
    assert said_by(f"{code}; book.copy().best_bid(YES); {after}") == ["False"]


def test_what_it_costs_is_shown() -> None:
    """Not judged: a shared machine would lie. ``pytest -rP`` shows the milliseconds."""
    code = (
        "import time; began = time.perf_counter_ns(); from kalshi_fast import OrderBook; OrderBook();"
        "print(time.perf_counter_ns() - began)"
    )
    costs_ns = sorted(int(said_by(code)[0]) for _ in range(5))
    sys.stdout.write(f"from kalshi_fast import OrderBook: {costs_ns[2] / 1e6:.1f} ms, the median of 5\n")
    assert costs_ns[0] > 0


def test_every_public_name_is_there_and_no_other() -> None:
    names = said_by("import kalshi_fast; print(*dir(kalshi_fast))")
    assert {*kalshi_fast.__all__} <= {*names}
    for name in kalshi_fast.__all__:
        assert getattr(kalshi_fast, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'OrderBooks'"):
        _ = kalshi_fast.OrderBooks  # type: ignore[attr-defined]
    assert kalshi_fast.OrderBook is kalshi_fast.OrderBook, "asked for twice, the same"
