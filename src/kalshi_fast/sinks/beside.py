"""The tables beside the order book in ClickHouse: what came of them within half a second is one insert a
table.

With a position of their own, so that the events, of which there are many more, need not wait for them: an
insert takes its time however few its rows are. As for the events, of batches before ``_doubt_end`` the
outcome is not known, and the tables get what they do not show. Not here: when to try again (``delivery``),
the journal's reading and the inserts (``clickhouse``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from kalshi_fast.channels.rows import TABLES, arrow
from kalshi_fast.journal import Point

if TYPE_CHECKING:
    from collections.abc import Callable

    import pyarrow as pa

    from kalshi_fast.journal import Entry, Journal, Position

HOLD_S: Final = 0.5
MOST_ROWS: Final = 100_000


class Insert(Protocol):
    """Rows into a table; ``doubtful``: those of them that it does not show."""

    def __call__(self, table: str, parts: list[pa.RecordBatch], token: str, *, doubtful: bool) -> None: ...


class TablesBeside:
    """``take`` every entry of the journal in order, ``flush`` now and then.

    ``insert(table, rows, token, doubtful=…)`` may raise anything; then ``flush`` is to be called again.
    """

    def __init__(
        self,
        journal: Journal,
        position: Position,
        insert: Insert,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._position = position
        self._insert = insert
        self._clock = clock
        self._flushed = 0.0
        if position.point is None or position.point.journal != journal.id:
            position.write(Point(journal.id, journal.first_seq))
        self._doubt_end = journal.end
        # As for every store: after a failure of the machine, its position may be the one that is furthest.
        journal.at_least(max(self._point.seq, self._point.until))
        self.restart()

    @property
    def _point(self) -> Point:
        assert self._position.point is not None  # noqa: S101 - written by __init__
        return self._position.point

    @property
    def done_seq(self) -> int:
        """Batches before it are stored."""
        return self._point.seq

    def restart(self) -> None:
        """Entries come again from ``done_seq`` on."""
        self._at = self._point.seq  # behind the last entry taken
        self._held: list[Entry] = []
        self._rows = 0

    def take(self, entry: Entry) -> None:
        """Takes an entry, unless it has been taken already."""
        if entry.end <= self._at:
            return
        self._at = entry.end
        if len(entry.extra.channels):
            self._held.append(entry)
            self._rows += len(entry.extra.channels)

    def flush(self, *, force: bool = False) -> None:
        """Inserts what is held, when it is time."""
        now, point = self._clock(), self._point
        if point.until > self._at or point.seq == self._at:
            return  # of an insert that was begun before a crash not all is there yet; or nothing has come
        if not force and now - self._flushed < HOLD_S and self._rows < MOST_ROWS:
            return
        end = point.until if point.until > point.seq else self._at
        rows = [entry for entry in self._held if entry.end <= end]
        if rows:
            if point.until != end:
                token = f"{self._journal.id}:{point.seq}-{end}:{self._journal.opening}"
                self._position.write(msgspec.structs.replace(point, until=end, token=token))
            if self._journal.fsync == "interval":
                self._journal.sync()  # a table never knows of what the journal may yet lose
            try:
                self.store(rows, self._point.token, doubtful=rows[0].seq < self._doubt_end)
            except BaseException:
                self._doubt_end = max(self._doubt_end, end)
                raise
        self._position.write(Point(self._journal.id, end))
        self._held = self._held[len(rows) :]
        self._rows = sum(len(entry.extra.channels) for entry in self._held)
        self._flushed = now
        if force and self._held:
            self.flush(force=True)

    def store(self, entries: list[Entry], token: str, *, doubtful: bool) -> None:
        """The rows of these entries into their tables."""
        for table in TABLES:
            parts = [rows for entry in entries if (rows := getattr(entry.extra.channels, table))]
            if parts:
                columns = arrow(table, [row for rows in parts for row in rows])
                self._insert(table, [columns], token, doubtful=doubtful)

    def close(self) -> None:
        self._position.close()
