"""A real recorder whose batches go through shared memory into a real journal, as they do live."""

from __future__ import annotations

import subprocess
import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import links
from kalshi_fast.books import Books
from kalshi_fast.journal import Journal, Position
from kalshi_fast.pool import BatchPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.ring import Ring
from kalshi_fast.sinks.clickhouse import ClickHouseSink

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kalshi_fast.sinks import Sink

DAY_NS = 86_400_000_000_000
NOON_NS = 20_000 * DAY_NS + DAY_NS // 2  # 2024-10-04 12:00 UTC


class Source:
    """``feed`` frames, and their rows are in ``journal``; a second one on the same journal is a later
    recorder."""

    def __init__(
        self,
        directory: Path,
        rows: int = 100,
        tickers: Iterable[str] = ("A", "B"),
        journal: Journal | None = None,
    ) -> None:
        self.directory = directory
        self.journal = journal or Journal(directory / "journal")
        self.ring = Ring.create(rows, 1000, uuid.uuid4())
        self.books = Books()
        pool = BatchPool(self.ring, self.books.tickers, self.books.ids, version=self.journal.floor_ns)
        self.recorder = Recorder(self.books, pool, pool.deliver, seal_rows=rows)
        self.now = NOON_NS
        self.journal.begin(self.ring.recorder)
        self.link = links.link(self.recorder, tickers, lambda: self.now)
        links.grant(self.link, 77, self.now)

    def feed(self, *payloads: bytes, every_ns: int = 1000) -> None:
        for payload in payloads:
            self.now += every_ns
            self.link.feed(payload, self.now)
        self.recorder.seal()
        while (batch := self.ring.peek()) is not None:
            self.journal.append(batch, self.ring.tickers, self.ring.ids)
            self.ring.release()
        self.journal.commit()

    def position(self, name: str) -> Position:
        return Position(self.journal.directory / f"{name}.position", fsync=False)


def deliver(sink: Sink) -> None:
    """All that the journal has for it."""
    while sink.step():
        pass
    if isinstance(sink, ClickHouseSink):
        sink.flush()


@contextmanager
def mounted(where: Path, *options: str) -> Iterator[Path]:
    """A small file system of its own."""
    where.mkdir()
    try:
        command = ["mount", "-t", "tmpfs", *options, "tmpfs", str(where)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if result.returncode:
        pytest.skip(f"mounting is not allowed: {result.stderr.strip()}")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)
