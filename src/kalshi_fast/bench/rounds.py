"""Interleaved rounds: every contender once, then every contender again; medians, the least and the most.

Not here: what a contender does.
"""

from __future__ import annotations

import gc
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Prepared: TypeAlias = tuple[Callable[[], int | None], Callable[[], None]]


@dataclass(frozen=True)
class Figure:
    """Of one contender or of a ratio: the median of the rounds, the least and the most of them."""

    median: float
    low: float
    high: float
    rounds: int

    @classmethod
    def of(cls, samples: list[float]) -> Figure:
        return cls(statistics.median(samples), min(samples), max(samples), len(samples))


class Sample(NamedTuple):
    """One round, ns per frame: by the clock on the wall, and of the processor's time in its thread.

    ``sender_cpu_ns``: of the process that sent the frames, where there was one.
    """

    ns: float
    cpu_ns: float
    sender_cpu_ns: float = 0.0


@dataclass(frozen=True)
class Contender:
    """``once()`` runs one round. ``why_not``: why there is nothing to run."""

    group: str
    name: str
    once: Callable[[], Sample] | None
    why_not: str = ""


class Stopwatch:
    """Runs from its making to ``stop``, in one thread."""

    def __init__(self) -> None:
        self._cpu_ns = time.thread_time_ns()
        self._ns = time.perf_counter_ns()

    def stop(self, frames: int, aside_ns: int = 0) -> Sample:
        ns = time.perf_counter_ns() - self._ns - aside_ns
        return Sample(ns / frames, (time.thread_time_ns() - self._cpu_ns - aside_ns) / frames)


@dataclass(frozen=True)
class Timed:
    """A round of ``prepare() -> (work, check)``: only ``work()`` counts, less the ns it returns, if any."""

    frames: int
    prepare: Callable[[], Prepared]

    def __call__(self) -> Sample:
        work, check = self.prepare()
        gc.collect()
        watch = Stopwatch()
        aside_ns = work()
        sample = watch.stop(self.frames, aside_ns or 0)
        check()
        return sample


@contextmanager
def no_collections() -> Iterator[None]:
    """The garbage collector is out of the way, as in a tuned host; rounds collect between themselves."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@dataclass
class Samples:
    """Every round, by contender."""

    by_name: dict[str, list[Sample]] = field(default_factory=dict)

    def figure(self, name: str, field: str = "ns") -> Figure | None:
        samples = self.by_name.get(name)
        return Figure.of([getattr(sample, field) for sample in samples]) if samples else None

    def ratio(self, slow: str, fast: str, field: str = "ns") -> Figure | None:
        """How many times the one is slower than the other: of each round, then the median."""
        pairs = zip(self.by_name.get(slow, []), self.by_name.get(fast, []), strict=False)
        ratios = [getattr(of_slow, field) / getattr(of_fast, field) for of_slow, of_fast in pairs]
        return Figure.of(ratios) if ratios else None


def interleaved(contenders: list[Contender], rounds: int, say: Callable[[str], None]) -> Samples:
    """Runs them all; those that cannot run have no samples. One round before the first warms up."""
    samples = Samples()
    able = [contender for contender in contenders if contender.once is not None]
    with no_collections():
        for number in range(rounds + 1):
            for contender in able:
                assert contender.once is not None  # noqa: S101 - see above
                say(f"round {number} of {rounds}: {contender.name}")
                gc.collect()
                sample = contender.once()
                if number:
                    samples.by_name.setdefault(contender.name, []).append(sample)
    return samples
