"""Files of a table on disk: which there are, what their footers say, and what is wrong with them.

Nothing of the rows is read here. Files of the date directories behind ``end`` are not opened. Not here: the
rows (``parquet``).
"""

from __future__ import annotations

import glob
import gzip
import re
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION
from kalshi_fast.books import HANDOVER_NS
from kalshi_fast.compact.swap import event_files
from kalshi_fast.errors import CompactError, ReplayError, excerpt, reason
from kalshi_fast.replaying.decoding import wrong_columns
from kalshi_fast.replaying.times import DAY_NS
from kalshi_fast.sinks.layout import RANGES_KEY, SCHEMA_VERSION_KEY, ranges_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

_DATE: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})")
_PART: Final = re.compile(r"part-(\d{2})(\d{2})(\d{2})_(\d{6})\.parquet")
_MIN_NS: Final = -(2**63)
_MAX_NS: Final = 2**63 - 1


class ReplayWarning(UserWarning):
    """Something was wrong with a recording and has been put right, or left out and said in the events."""


@dataclass(frozen=True, slots=True)
class Group:
    """One row group, as far as its statistics tell (without them: anything is possible)."""

    index: int
    rows: int
    first_ns: int
    last_ns: int
    may_clear: bool
    tickers: tuple[str, str] | None

    def may_hold(self, wanted: Iterable[str] | None) -> bool:
        """Are rows of these markets possible?"""
        if wanted is None or self.tickers is None:
            return True
        least, most = self.tickers
        return any(least <= ticker <= most for ticker in wanted)


@dataclass(slots=True)
class EventFile:
    """A file whose footer is good; or one that is not, with the reason in ``damage``."""

    path: Path
    groups: list[Group] = field(default_factory=list)
    ranges: list[list[Any]] = field(default_factory=list)
    damage: str | None = None

    @property
    def rows(self) -> int:
        return sum(group.rows for group in self.groups)

    @property
    def first_ns(self) -> int:
        """Receive time of the earliest row; of a file that cannot be read as its name has it."""
        if self.damage is not None:
            return _named_ns(self.path)
        return min((group.first_ns for group in self.groups), default=_MAX_NS)

    @property
    def last_ns(self) -> int:
        return max((group.last_ns for group in self.groups), default=_MIN_NS)

    @property
    def ordered(self) -> bool:
        """Does no row group begin before the one before it ends?"""
        return all(a.last_ns <= b.first_ns + HANDOVER_NS for a, b in pairwise(self.groups))


def find_files(source: str | Path, end_ns: int | None = None, table: str = "orderbook") -> list[Path]:
    """Files of a table that a path or a pattern names, those of later dates than the end left out.

    Raises ReplayError when a directory cannot be read.
    """
    path = Path(source)
    if not path.exists() and glob.has_magic(str(source)):
        found = [Path(name) for name in glob.glob(str(source), recursive=True)]  # noqa: PTH207 - a pattern may be absolute
    else:
        # Beside the events lie the tables of other channels.
        found = sorted(one for one in path.rglob(table) if one.is_dir()) or [path]
    files: set[Path] = set()
    try:
        for one in found:
            files.update(_below(one))
    except (CompactError, OSError) as error:
        raise ReplayError(f"it cannot be read: {reason(error)}", source) from error
    return sorted(file for file in files if end_ns is None or _date_ns(file) < end_ns)


def _below(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    directories = {path, *(child for child in path.rglob("*") if child.is_dir())}
    return [file for directory in directories for file in event_files(directory)]


def _date_ns(path: Path) -> int:
    """When the date of a file's directory begins; the beginning of time when it has none."""
    found = _DATE.fullmatch(path.parent.name)
    try:
        day = datetime.strptime(found[1], "%Y-%m-%d").replace(tzinfo=UTC) if found else None
    except ValueError:
        return _MIN_NS
    return _MIN_NS if day is None else int(day.timestamp()) // 86_400 * DAY_NS


def _named_ns(path: Path) -> int:
    day_ns, found = _date_ns(path), _PART.fullmatch(path.name)
    if found is None or day_ns == _MIN_NS:
        return day_ns
    hours, minutes, seconds, us = map(int, found.groups())
    return day_ns + ((hours * 60 + minutes) * 60 + seconds) * 1_000_000_000 + us * 1000


def opened(path: Path) -> BinaryIO:
    """A file of lines, packed with gzip or not."""
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def open_footer(path: Path) -> pq.ParquetFile:
    """The file, with its footer read. Raises ReplayError."""
    try:
        # pre_buffer would hold the whole file in memory; a damaged page must not become other rows.
        return pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise ReplayError(f"no readable Parquet file: {reason(error)}", path) from error


def look(path: Path, schema: pa.Schema = EVENT_SCHEMA) -> EventFile:
    """What the footer of a file of this schema says. Raises ReplayError for what is none, or of the
    future."""
    with open_footer(path) as file:
        metadata = file.metadata
        keys = metadata.metadata or {}
        told = keys.get(SCHEMA_VERSION_KEY.encode(), b"").decode("utf-8", "replace")
        if not (told.isascii() and told.isdigit()):
            raise ReplayError(_not_ours(file.schema_arrow), path)
        if int(told) > SCHEMA_VERSION:
            raise ReplayError(
                f"schema version {told}, and this kalshi-fast knows {SCHEMA_VERSION} at most: use the version"
                " that wrote it",
                path,
            )
        odd = wrong_columns(file.schema_arrow, schema)
        if odd:
            what = "events" if schema is EVENT_SCHEMA else "this table"
            raise ReplayError(f"not the columns of {what}: {'; '.join(odd)}", path)
        names = {metadata.schema.column(i).name: i for i in range(metadata.num_columns)}
        groups = [_group(metadata, index, names) for index in range(metadata.num_row_groups)]
        try:
            ranges = ranges_of(keys.get(RANGES_KEY.encode(), b"[]"))
        except ValueError:
            told = excerpt(keys[RANGES_KEY.encode()])
            raise ReplayError(f"{RANGES_KEY}: expected a list of ranges, got {told}", path) from None
    return EventFile(path, [group for group in groups if group.rows], ranges)


def _not_ours(schema: pa.Schema) -> str:
    if {"price", "qty", "market_ticker"} <= set(schema.names):
        return "not an event file of kalshi-fast but one of whole cents: kalshi-fast import makes it one"
    return f"not an event file of kalshi-fast: its metadata has no {SCHEMA_VERSION_KEY}"


def _group(metadata: Any, index: int, names: dict[str, int]) -> Group:  # noqa: ANN401
    group = metadata.row_group(index)

    def statistics(name: str) -> Any:  # noqa: ANN401
        if name not in names:
            return None
        found = group.column(names[name]).statistics
        return found if found is not None and found.has_min_max else None

    times, kinds, tickers = statistics("ingest_ts"), statistics("type"), statistics("market_ticker")
    return Group(
        index,
        group.num_rows,
        _MIN_NS if times is None else times.min_raw,
        _MAX_NS if times is None else times.max_raw,
        kinds is None or kinds.min <= "clear" <= kinds.max,
        None if tickers is None else (tickers.min, tickers.max),
    )


UNKNOWN: Final = ", and every book is unknown from there on"


def look_at_all(paths: Iterable[Path], *, repair: bool, schema: pa.Schema = EVENT_SCHEMA) -> list[EventFile]:
    """The footers of all files, in the order of their first rows.

    What is wrong is a ReplayError; with ``repair`` a file that cannot be read stays in the list, with its
    ``damage``, and one that only repeats what another holds is left out.
    """
    files = []
    for path in paths:
        try:
            files.append(look(path, schema))
        except ReplayError as error:
            if not repair:
                raise
            warn(f"{error}; left out{UNKNOWN if schema is EVENT_SCHEMA else ''}")
            files.append(EventFile(path, damage=str(error)))
    files = [file for file in files if file.groups or file.damage]
    files.sort(key=lambda file: (file.first_ns, str(file.path)))
    return _without_repetition(files, repair=repair)


def _without_repetition(files: list[EventFile], *, repair: bool) -> list[EventFile]:
    kept: list[EventFile] = []
    held: dict[str, list[tuple[tuple[int, int], tuple[int, int], EventFile]]] = {}
    shapes: dict[tuple[Any, ...], EventFile] = {}
    for file in files:
        twin: EventFile | None = None
        inside = bool(file.ranges)
        for journal, seq, row, end_seq, end_row in file.ranges:
            begin, end = (seq, row), (end_seq, end_row)
            overlapping = [o for o in held.get(journal, []) if begin < o[1] and o[0] < end]
            twin = overlapping[0][2] if overlapping else twin
            inside = inside and any(o[0] <= begin and end <= o[1] for o in overlapping)
        if not file.ranges and not file.damage:
            shape = tuple((group.rows, group.first_ns, group.last_ns, group.tickers) for group in file.groups)
            twin = shapes.setdefault(shape, file)
            inside = twin is not file
            twin = twin if inside else None
        if twin is not None:
            what = f"it holds rows that {twin.path} holds too"
            if not (repair and inside):
                raise ReplayError(what, file.path)
            warn(f"{file.path}: {what}; left out")
            continue
        for journal, seq, row, end_seq, end_row in file.ranges:
            held.setdefault(journal, []).append(((seq, row), (end_seq, end_row), file))
        kept.append(file)
    return kept


def warn(text: str) -> None:
    """Says what was put right."""
    warnings.warn(text, ReplayWarning, stacklevel=2)
