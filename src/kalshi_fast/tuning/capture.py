"""The settings of docs/tuning.md, applied to the process that reads from the exchange.

``prepare`` finds out before anything is opened whether the host allows them all, ``apply`` makes the calling
thread the one that reads, ``aside`` is for every other thread and process. Linux's cores and priorities
belong to threads, which makes a trial free: a thread tries, and ends.
"""

from __future__ import annotations

import dataclasses
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kalshi_fast.errors import TuningError
from kalshi_fast.tuning.cpus import allowed, others, pin
from kalshi_fast.tuning.memory import lock_memory
from kalshi_fast.tuning.priority import set_fifo, set_nice

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings


def prepare(settings: Settings) -> Settings:
    """Tries all out, and locks the memory if asked to. The settings, with the writer's cores decided. Raises
    TuningError."""
    settings = try_out(settings)
    if settings.lock_memory:
        lock_memory()
    return settings


def try_out(settings: Settings) -> Settings:
    """``prepare`` without anything that stays."""
    if settings.capture_cpu is not None and not settings.writer_cpus:
        settings = dataclasses.replace(settings, writer_cpus=others(settings.capture_cpu))
    refusals: list[TuningError] = []
    trial = threading.Thread(target=_try, args=(settings, refusals), name="kalshi-fast trial")
    trial.start()
    trial.join()
    if refusals:
        raise refusals[0]
    return settings


def apply(settings: Settings) -> None:
    """The calling thread is the one that reads from the exchange. Raises TuningError."""
    if settings.capture_cpu is not None:
        pin("CAPTURE_CPU", {settings.capture_cpu})
    if settings.capture_nice is not None:
        set_nice(settings.capture_nice)
    if settings.capture_fifo is not None:
        set_fifo(settings.capture_fifo)


@contextmanager
def aside(settings: Settings) -> Iterator[None]:
    """What is started here, threads and processes, keeps to the writer's cores. Raises TuningError."""
    if not settings.writer_cpus:
        yield
        return
    before = allowed("WRITER_CPUS")
    pin("WRITER_CPUS", settings.writer_cpus)
    try:
        yield
    finally:
        pin("WRITER_CPUS", before)


def _try(settings: Settings, refusals: list[TuningError]) -> None:
    try:
        with aside(settings):
            pass
        apply(settings)
    except TuningError as error:
        refusals.append(error)
