"""Which dates of which tables are compacted, and which of their files become one.

A running recorder adds complete files by rename and never touches them again, so that every date may be
compacted at any time. Today is left alone unless it is asked for, because its files become more anyway. Of
any date the files of the last minute stay: a recorder that has just been restarted may be reading them, and
what it had not yet written may be of yesterday. Raw frames are no table: their files go on over the restarts
of a recorder, up to 64 MiB each, so none are small.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.channels.rows import SCHEMAS
from kalshi_fast.compact.merge import in_time_order, write_merged
from kalshi_fast.compact.source import Source
from kalshi_fast.compact.swap import (
    Intent,
    Part,
    event_files,
    names,
    pending,
    recover,
    swap,
    temporary_name,
)
from kalshi_fast.errors import CompactError, ConfigError, excerpt
from kalshi_fast.progress import ProgressLine, bar
from kalshi_fast.sinks.layout import part_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

MAX_BYTES: Final = 1 << 30
SETTLED_S: Final = 60.0
BOOKS: Final = "orderbook"
TABLES: Final = {
    BOOKS: EVENT_SCHEMA,
    **{table: SCHEMAS[table] for table in ("trades", "tickers", "market_lifecycle", "reference_prices")},
}


@dataclass(slots=True)
class Report:
    """What became of one date of a table. ``error`` says why not more; the files it speaks of are as they
    were."""

    date: str
    table: str = BOOKS
    files_before: int = 0
    files_after: int = 0
    rows: int = 0  # of the merged files
    bytes_before: int = 0
    bytes_after: int = 0
    finished_swaps: int = 0  # left by a run that was killed
    new_files: int = 0  # of the last minute, left alone
    error: str | None = None

    def figures(self) -> dict[str, Any]:
        return asdict(self)


def describe(report: Report, *, dry_run: bool) -> str:
    """One line for a terminal."""
    if report.rows == 0:
        text = f"{report.files_before:,} files, nothing to merge"
    else:
        text = f"{report.files_before:,} files -> {report.files_after:,}, {report.rows:,} rows"
        sizes = f", {report.bytes_before:,} -> {report.bytes_after:,} bytes"
        text += " would be merged" if dry_run else sizes
    if report.finished_swaps:
        text += f"; {report.finished_swaps} from an interrupted run {'to be ' if dry_run else ''}finished"
    if report.new_files > 1 or (report.new_files and report.files_before > 1):
        text += f"; {report.new_files:,} of the last minute stay as they are"
    return f"{_title(report)}  {text}"


def _title(report: Report) -> str:
    return report.date if report.table == BOOKS else f"{report.date}  {report.table}"


def all_dates(root: Path, named: Sequence[str], *, everything: bool, today: date) -> dict[str, list[Path]]:
    """The directories to compact of every table below PARQUET_DIR. Raises ConfigError, for a date that no
    table has too."""
    there = [table for table in TABLES if (root / table).is_dir()] or [BOOKS]
    chosen: dict[str, list[Path]] = {}
    missing = set(named)
    for table in there:
        here = [text for text in named if _is_date(text) and (root / table / f"date={text}").is_dir()]
        if here or not named:
            chosen[table] = dates(root / table, here, everything=everything, today=today)
            missing.difference_update(here)
    if missing:  # says what is wrong with them
        dates(root / there[0], sorted(missing), everything=everything, today=today)
    return chosen


def dates(root: Path, named: Sequence[str], *, everything: bool, today: date) -> list[Path]:
    """The directories to compact: those named, or all before today, or all. Raises ConfigError."""
    wrong = [text for text in named if not _is_date(text)]
    if wrong:
        raise ConfigError(f"DATE: expected YYYY-MM-DD, got {excerpt(wrong[0])}")
    if not root.is_dir():
        raise ConfigError(f"PARQUET_DIR: nothing has been recorded in {root}")
    found = {
        name.removeprefix("date="): root / name
        for name in names(root)
        if name.startswith("date=") and _is_date(name.removeprefix("date="))
    }
    if not named:
        return [path for text, path in sorted(found.items()) if everything or text < today.isoformat()]
    missing = [text for text in named if text not in found]
    if missing:
        raise ConfigError(f"DATE: nothing has been recorded in {root} on {', '.join(missing)}")
    return [found[text] for text in sorted(set(named))]


def _is_date(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def compact(
    directories: Sequence[Path],
    *,
    table: str = BOOKS,
    max_bytes: int = MAX_BYTES,
    dry_run: bool = False,
    quiet: bool = False,
) -> list[Report]:
    """Compacts one date of a table after the other; an error ends its date and not the others."""
    line = ProgressLine(quiet=quiet)
    reports = []
    try:
        for directory in directories:
            report = Report(directory.name.removeprefix("date="), table)
            reports.append(report)
            try:
                _compact_date(directory, report, max_bytes, line, dry_run=dry_run)
            except CompactError as error:
                report.error = str(error)
            except OSError as error:
                report.error = f"{error.filename or directory}: {error.strerror or error}"
    finally:
        line.end()
    return reports


def _compact_date(
    directory: Path, report: Report, max_bytes: int, line: ProgressLine, *, dry_run: bool
) -> None:
    with _alone(directory):
        report.finished_swaps = pending(directory) if dry_run else recover(directory)
        files = event_files(directory)
        report.files_before = report.files_after = len(files)
        line.show(f"{_title(report)}  looking at {len(files):,} files …")
        sources = [Source(path, TABLES[report.table]) for path in files]
        settled = [source for source in sources if time.time() - source.modified_s >= SETTLED_S]
        report.new_files = len(sources) - len(settled)
        for group in groups(settled, max_bytes):
            before = sum(source.bytes for source in group)
            after = before if dry_run else _merge(directory, group, _progress(line, _title(report), group))
            report.rows += sum(source.rows for source in group)
            report.bytes_before += before
            report.bytes_after += after
            report.files_after -= len(group) - 1


def groups(sources: Sequence[Source], max_bytes: int) -> list[list[Source]]:
    """Neighbours in time that fit into one file, where there are at least two.

    What would not fit with its neighbours is of full size and stays as it is; a second run finds nothing.
    """
    found: list[list[Source]] = []
    room = 0
    for source in in_time_order(sources):
        if not found or source.bytes > room:
            found.append([])
            room = max_bytes
        found[-1].append(source)
        room -= source.bytes
    return [group for group in found if len(group) > 1]


def _merge(directory: Path, group: list[Source], progress: Callable[[int], None]) -> int:
    """One swap; returns the size of the new file."""
    output = _free_name(directory, min(source.first_ns for source in group) // 1000)
    temporary = directory / temporary_name(output)
    rows = write_merged(group, temporary, progress)
    size = temporary.stat().st_size
    inputs = [Part(source.path.name, source.bytes) for source in group]
    for _ in swap(directory, Intent(Part(output, size), rows, inputs)):
        pass
    return size


def _free_name(directory: Path, first_us: int) -> str:
    """As a recorder names its files; the first input has the name itself, and the next is as good."""
    while (directory / part_name(first_us)).exists():
        first_us += 1
    return part_name(first_us)


def _progress(line: ProgressLine, title: str, group: list[Source]) -> Callable[[int], None]:
    rows = sum(source.rows for source in group)

    def show(done: int) -> None:
        doing = "merging" if done <= rows else "verifying"
        line.show(f"{title}  {bar(done / (2 * rows))}  {doing} {rows:,} rows of {len(group):,} files")

    return show


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Two compactions never meet in one date. The lock goes with the process, however it ends."""
    try:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise CompactError(f"{directory} cannot be opened: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CompactError(f"{directory} is being compacted by another process") from None
        yield
    finally:
        os.close(handle)
