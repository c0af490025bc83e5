"""What is measured in process, as pytest-benchmark runs it: for comparing two commits with its own tools.

The contenders are those of ``kalshi-fast bench``, which runs them side by side with those over sockets.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import pytest

from kalshi_fast.bench import inprocess
from kalshi_fast.bench.rounds import Timed
from kalshi_fast.bench.workload import WARM_DELTAS, made_frames

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

    from kalshi_fast.bench.rounds import Contender

N_DELTAS = 20_000
ROUNDS = 5


@lru_cache(1)
def contenders() -> list[Contender]:
    return [*inprocess.pipelines(made_frames(WARM_DELTAS + N_DELTAS)), *inprocess.stages()]


@pytest.mark.parametrize("number", range(len(contenders())), ids=lambda number: contenders()[number].name)
def test_contender(benchmark: BenchmarkFixture, number: int) -> None:
    contender = contenders()[number]
    if contender.once is None:
        pytest.skip(contender.why_not)
    once = contender.once
    assert isinstance(once, Timed)
    benchmark.group = contender.group
    benchmark.extra_info["frames"] = once.frames
    checks = []

    def setup() -> tuple[tuple[object, ...], dict[str, object]]:
        work, check = once.prepare()
        checks.append(check)
        return (work,), {}

    benchmark.pedantic(  # type: ignore[no-untyped-call]
        lambda work: work(), setup=setup, rounds=ROUNDS, warmup_rounds=1
    )
    for check in checks:
        check()
