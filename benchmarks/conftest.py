"""The summary of a run of pytest-benchmark. The frames and what is measured on them:
``kalshi_fast.bench``."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """ns per frame and the ratio to the first of each group."""
    session = getattr(config, "_benchmarksession", None)
    if session is None or not session.benchmarks:
        return
    terminalreporter.section("ns per frame (median of the rounds, their spread, ratio within the group)")
    group = ""
    first: dict[str | None, float] = {}
    for bench in sorted(session.benchmarks, key=lambda bench: bench.group or ""):
        frames = bench.extra_info.get("frames")
        if not frames or not bench.stats:
            continue
        if bench.group != group:
            group = bench.group
            terminalreporter.write_line(group)
        low, ns, high = (
            second / frames * 1e9 for second in (bench.stats.min, bench.stats.median, bench.stats.max)
        )
        base = first.setdefault(bench.group, ns)
        terminalreporter.write_line(f"  {bench.name:<70}{ns:>9.1f}  ({low:.0f}-{high:.0f})  x{ns / base:.1f}")
