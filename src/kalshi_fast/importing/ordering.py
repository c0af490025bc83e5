"""The rows of several files in one order of time, as a stream.

Each file is read twice: once to prove that all of it can be read and to learn its order, once for its rows.
Files that are in order and follow one another are streamed. Files that are not, or that overlap in time, are
sorted in memory, up to SORT_ROWS rows. A receive time that falls while the numbers go on may be no disorder
but a clock that was set back: the order in which the numbers break less often is the right one. Not here:
what the rows mean (``rebuild``).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np

from kalshi_fast._columns import SNAPSHOT
from kalshi_fast.errors import ForeignFileError
from kalshi_fast.importing.findings import Findings
from kalshi_fast.importing.seedfile import REASONS, Rows, Texts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kalshi_fast.importing.seedfile import SeedFile
    from kalshi_fast.importing.values import Ints

SORT_ROWS: Final = 2_000_000
FRAME_NS: Final = 1_000_000_000  # rows of one snapshot are written within so long
_NO_TIME: Final = REASONS.index("no_time")


@dataclass(slots=True)
class Scan:
    """What the first reading of a file has shown. Places are (sid, seq).

    ``falls``: a receive time is before the one before it; ``disordered``: not even the numbers go on there.
    """

    file: SeedFile
    falls: bool = False
    disordered: bool = False
    first_ns: int = 0
    last_ns: int = 0
    least_ns: int = 0
    most_ns: int = 0
    first: tuple[int, int] | None = None
    last: tuple[int, int] | None = None

    def add(self, rows: Rows) -> None:
        ingest, seq, sid = rows.ingest_ns, rows.seq, rows.sid
        if not len(rows):
            return
        if self.last is None:
            # Rows without a time have that of the row before; before the first there is none.
            self.first_ns = self.least_ns = self.last_ns = int(ingest[0])
        filled = with_times(rows, self.last_ns).ingest_ns
        if self.last is None:
            self.first_ns = self.least_ns = int(filled[0])
            self.first = (int(sid[0]), int(seq[0]))
        before_ns = np.concatenate(([self.last_ns if self.last else filled[0]], filled[:-1]))
        before_sid, before_seq = self.last or (int(sid[0]), int(seq[0]))
        same = sid == np.concatenate(([before_sid], sid[:-1]))
        step = seq - np.concatenate(([before_seq], seq[:-1]))
        falls = filled < before_ns
        self.falls = self.falls or bool(falls.any())
        self.disordered = self.disordered or bool((falls & ~(same & (step == 1))).any())
        self.least_ns = min(self.least_ns, int(filled.min()))
        self.most_ns = max(self.most_ns, int(filled.max()))
        self.last_ns = int(filled[-1])
        self.last = (int(sid[-1]), int(seq[-1]))

    def goes_on_with(self, other: Scan) -> bool:
        """Whether the other file begins with the number after this one's last."""
        if self.last is None or other.first is None:
            return False
        return self.last[0] == other.first[0] and other.first[1] - self.last[1] == 1


def with_times(rows: Rows, before_ns: int) -> Rows:
    """Rows without a time get that of the row before them."""
    lost = rows.wrong == _NO_TIME
    if not lost.any():
        return rows
    places = np.where(lost, 0, np.arange(1, len(rows) + 1))
    known: Ints = np.concatenate(([before_ns], rows.ingest_ns))
    filled = known[np.maximum.accumulate(places)]
    rows.ingest_ns = filled
    rows.ts_ns = np.where(lost, filled, rows.ts_ns)
    return rows


class MarketIds:
    """Which id each ticker has, by their numbers: the first one that a row names, for rows that name none.

    ``orphans``: tickers that have neither an id nor a snapshot, where others have a snapshot.
    """

    def __init__(self) -> None:
        self.first: dict[int, int] = {}
        self.others: set[tuple[int, int]] = set()
        self._seen: set[int] = set()
        self._with_snapshot: set[int] = set()

    @property
    def orphans(self) -> frozenset[int]:
        if not self._with_snapshot:
            return frozenset()
        return frozenset(self._seen - self._with_snapshot - self.first.keys())

    def add(self, rows: Rows) -> None:
        self._seen.update(np.unique(rows.ticker[rows.ticker >= 0]).tolist())
        self._with_snapshot.update(
            np.unique(rows.ticker[(rows.kind == SNAPSHOT) & (rows.ticker >= 0)]).tolist()
        )
        named = (rows.market_id >= 0) & (rows.ticker >= 0)
        pairs = np.unique(np.stack((rows.ticker[named], rows.market_id[named]), axis=1), axis=0)
        for ticker, market_id in pairs.tolist():
            if self.first.setdefault(ticker, market_id) != market_id:
                self.others.add((ticker, market_id))


def scan(file: SeedFile, texts: Texts, ids: MarketIds, progress: Callable[[int], None]) -> Scan:
    """Reads all of a file. Raises ForeignFileError for one that cannot be read to its end."""
    found = Scan(file)
    unheard = Findings()
    for rows in file.read(texts, unheard):
        ids.add(rows)
        found.add(rows)
        progress(len(rows))
    return found


def groups(scans: Sequence[Scan]) -> list[list[Scan]]:
    """In the order of time; files that overlap are in one group."""
    found: list[list[Scan]] = []
    most_ns = 0
    for one in sorted(scans, key=lambda one: (one.first_ns, one.file.name)):
        if found and one.least_ns < most_ns:
            found[-1].append(one)
        else:
            found.append([one])
        most_ns = max(most_ns, one.most_ns)
    return found


def in_order(scans: Sequence[Scan], texts: Texts, findings: Findings) -> Iterator[Rows]:
    """The rows of all files."""
    last_ns = 0
    for group in groups(scans):
        if len(group) == 1 and not group[0].falls:
            parts: Iterator[Rows] = group[0].file.read(texts, findings)
        elif sum(one.file.rows for one in group) <= SORT_ROWS:
            parts = iter([_sorted(group, texts, findings)])
        elif _numbers_go_on(group):
            parts = (rows for one in group for rows in one.file.read(texts, findings))
        else:
            raise _too_many(group)
        for rows in parts:
            if len(rows):
                filled = with_times(rows, last_ns)
                last_ns = int(filled.ingest_ns[-1])
                yield filled


def _numbers_go_on(group: list[Scan]) -> bool:
    """Whether nothing but a clock that was set back can be wrong with the order of these files."""
    whole = not any(one.disordered for one in group)
    return whole and all(before.goes_on_with(one) for before, one in pairwise(group))


def _too_many(group: list[Scan]) -> ForeignFileError:
    names = ", ".join(one.file.name for one in group)
    total = sum(one.file.rows for one in group)
    return ForeignFileError(
        f"{names[:400]}: {total:,} rows are not in the order of time (or the files overlap), and at most"
        f" {SORT_ROWS:,} can be sorted: import fewer files at once, or sort them by ingest_ts first"
    )


def _sorted(group: list[Scan], texts: Texts, findings: Findings) -> Rows:
    """The rows in the order of time, unless their own order has fewer breaks in the numbers."""
    parts = []
    for one in group:
        before_ns = one.first_ns
        for part in one.file.read(texts, findings):
            if len(part):
                parts.append(with_times(part, before_ns))
                before_ns = int(part.ingest_ns[-1])
    rows = Rows.joined(parts)
    order = np.lexsort((rows.seq, rows.ingest_ns)).astype(np.int64)
    in_time = rows.take(order)
    if _breaks(rows) < _breaks(in_time):
        return rows
    moved = int((order != np.arange(len(order))).sum())
    names = ", ".join(one.file.name for one in group)
    findings.count(
        "unsorted", moved, [f"{names[:200]}: {moved:,} of {len(rows):,} rows changed their places"]
    )
    return in_time


def _breaks(rows: Rows) -> int:
    """How often a row is neither of the frame before nor of the next one; each subscription by itself."""
    by_sid = rows.take(np.argsort(rows.sid, kind="stable"))
    same, step = np.diff(by_sid.sid) == 0, np.diff(by_sid.seq)
    one_frame = (step == 0) & (np.abs(np.diff(by_sid.ingest_ns)) < FRAME_NS)
    return int(np.count_nonzero(same & ~one_frame & (step != 1)))
