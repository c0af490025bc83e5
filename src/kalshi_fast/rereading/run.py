"""`kalshi-fast reread` from beginning to end: what is kept is read, what is new goes through the journal.

The journal is the way of every row into every store, once each; while a recording has it, there is nothing
for us to do. First what an earlier process has left there is delivered, so that the stores say all they
have; then the new rows are appended and delivered like any others. Cut off at any point, a run that follows
adds what is missing and nothing twice. Not here: reading (``kept``, ``taking``), comparing (``stored``).
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.batch import HealthEvent, pack_extra
from kalshi_fast.channels.rows import ChannelRows
from kalshi_fast.config import SELECTORS
from kalshi_fast.delivery import Delivery
from kalshi_fast.errors import ConfigError, SinkError
from kalshi_fast.journal import Journal
from kalshi_fast.losses import Losses
from kalshi_fast.progress import ProgressLine
from kalshi_fast.rereading.kept import KeptFrames
from kalshi_fast.rereading.stored import Stored, in_database, in_files
from kalshi_fast.rereading.taking import Row, taken
from kalshi_fast.ring import SealedSlot
from kalshi_fast.stores import client_of, sinks_of

if TYPE_CHECKING:
    from kalshi_fast.config import Settings
    from kalshi_fast.rereading.kept import Kept

ROWS_PER_BATCH: Final = 1000
FRAMES_AT_ONCE: Final = 50_000
STORE_WAIT_S: Final = 30.0  # for a store that takes nothing
_LOOK_S: Final = 0.1
_SHOWN_REASONS: Final = 20


@dataclass
class Report:
    """What became of the frames."""

    frames: int = 0
    done: int = 0  # taken by an earlier run
    unreadable: int = 0  # lines that hold no frame
    stored: Counter[str] = field(default_factory=Counter)  # rows by table
    there: Counter[str] = field(default_factory=Counter)  # rows that the stores had, by table
    left: Counter[str] = field(default_factory=Counter)  # frames without a row, by why
    lost_fields: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, Any]:
        return {
            "frames": self.frames,
            "taken_before": self.done,
            "unreadable_lines": self.unreadable,
            "stored": dict(self.stored),
            "already_stored": dict(self.there),
            "left": dict(self.left),
            "lost_fields": dict(self.lost_fields),
        }


def describe(report: Report, *, dry_run: bool) -> str:
    """For a terminal."""
    lines = [f"{report.frames:,} kept frames were read again"]
    if report.done:
        lines[0] += f"; {report.done:,} had been taken before"
    verb = "would be stored" if dry_run else "stored"
    for table in ("trades", "tickers", "market_lifecycle"):
        new, old = report.stored[table], report.there[table]
        if new or old:
            lines.append(f"  {table:<18} {new:>9,} {verb}, {old:,} were there already")
    lines += [f"  {count:>9,} {why}" for why, count in report.left.most_common(_SHOWN_REASONS)]
    others = len(report.left) - _SHOWN_REASONS
    if others > 0:
        lines.append(f"  … and {others} more reasons (--json names all)")
    if report.unreadable:
        lines.append(f"  {report.unreadable:>9,} lines that hold no frame")
    if report.lost_fields:
        names = ", ".join(f"{name} {count:,}" for name, count in report.lost_fields.most_common(5))
        lines.append(f"  fields that are left out of the rows: {names}")
    return "\n".join(lines)


def reread(settings: Settings, *, dry_run: bool = False, quiet: bool = False) -> Report:
    """Raises ConfigError while a recording runs, SinkError when a store does not take the rows."""
    if settings.parquet_dir is None:
        raise ConfigError("PARQUET_DIR is off: rejected frames are kept there, so there are none")
    kept = KeptFrames(settings.parquet_dir)
    report = Report()
    line = ProgressLine(quiet=quiet)
    try:
        journal = Journal(
            settings.journal_dir, fsync=settings.journal_fsync, max_bytes=settings.journal_max_bytes
        )
    except ConfigError as error:
        raise ConfigError(
            f"{error}. Rejected frames wait: end the recording, read them again, and start it anew"
        ) from error
    with closing(journal):
        try:
            _deliver(settings, journal, line, "what the last recording has left")
            rows, frames = _read(settings, kept, report, line)
            new = _new(settings, rows, report, line)
            report.stored.update(row.table for row in new)
            if not dry_run:
                _append(journal, new)
                _deliver(settings, journal, line, f"{len(new):,} rows")
                kept.note(frames)
        finally:
            line.end()
    return report


def _read(
    settings: Settings, kept: KeptFrames, report: Report, line: ProgressLine
) -> tuple[list[Row], list[Kept]]:
    """Rows, and the frames that they come from or that will never be rows."""
    selected = [name for name in SELECTORS if name != "MARKET_TICKERS"]
    others = any(getattr(settings, name.lower()) for name in selected)
    wanted = frozenset(() if others else settings.market_tickers)
    losses, rows, frames = Losses(), [], []
    began = time.monotonic()
    for frame in kept:
        report.frames += 1
        found = taken(frame, wanted, losses)
        if isinstance(found, str):
            report.left[found] += 1
        else:
            rows.append(found)
            frames.append(frame)
        if report.frames % 1000 == 0 and time.monotonic() - began > 1:
            line.show(f"{report.frames:,} frames read, {len(rows):,} of them can be used …")
    report.done, report.unreadable = kept.done, kept.unreadable
    report.lost_fields.update({f"{kind}.{name}": count for (kind, name), count in losses.fields.items()})
    return rows, frames


def _new(settings: Settings, rows: list[Row], report: Report, line: ProgressLine) -> list[Row]:
    """The rows that no store has, in the order of their receive times."""
    if not rows:
        return []
    line.show(f"comparing {len(rows):,} rows with what is stored …")
    rows.sort(key=lambda row: row.ingest_ns)
    stored = Stored()
    assert settings.parquet_dir is not None  # noqa: S101 - looked at before
    looks = [in_files(settings.parquet_dir)]
    client = None if settings.clickhouse_url is None else client_of(settings)
    try:
        if client is not None:
            looks.append(in_database(client, settings.clickhouse_database))
        for at in range(0, len(rows), FRAMES_AT_ONCE):
            stored.look(rows[at : at + FRAMES_AT_ONCE], looks)
    finally:
        if client is not None:
            client.close()
    new = []
    for row in rows:
        if stored.is_new(row):
            new.append(row)
        else:
            report.there[row.table] += 1
    return new


def _append(journal: Journal, rows: list[Row]) -> None:
    """As batches of a recorder that has only these. Raises JournalError."""
    if not rows:
        return
    events, levels = EventColumns(1).arrays, LevelColumns(1).arrays
    journal.begin(uuid.uuid4())
    for number, at in enumerate(range(0, len(rows), ROWS_PER_BATCH), 1):
        some = rows[at : at + ROWS_PER_BATCH]
        channels = ChannelRows()
        for row in some:
            getattr(channels, row.table).append(row)
        said = HealthEvent(
            time.time_ns(), 0, "reread", detail=f"{len(some)} rows of rejected frames, read again"
        )
        none = {name: column[:0] for name, column in events.items()}
        empty = {name: column[:0] for name, column in levels.items()}
        batch = SealedSlot(number, 0, 0, (0, 0), none, empty, pack_extra([said], [], channels))
        journal.append(batch, _no_names, _no_names)
    journal.commit()


def _no_names(first: int, last: int) -> list[str]:
    return []


def _deliver(settings: Settings, journal: Journal, line: ProgressLine, what: str) -> None:
    """All that is in the journal, to every store. Raises SinkError when one does not take it."""
    deliveries = [Delivery(sink, journal) for sink in sinks_of(settings, journal)]
    for delivery in deliveries:
        delivery.start()
        delivery.finish()
    began = moved = time.monotonic()
    before = -1
    while any(delivery.alive for delivery in deliveries):
        time.sleep(_LOOK_S)
        now, done = time.monotonic(), sum(delivery.sink.done_seq for delivery in deliveries)
        if done != before:
            before, moved = done, now
        if now - began > 1:
            line.show(f"delivering {what} …")
        if now - moved > STORE_WAIT_S and any(delivery.error for delivery in deliveries):
            break
    for delivery in deliveries:
        delivery.give_up()
        delivery.join(STORE_WAIT_S)
        if delivery.broken is not None:
            raise delivery.broken
    failed = [delivery for delivery in deliveries if not delivery.complete]
    if failed:
        told = "; ".join(f"{one.sink.name}: {one.error or 'it takes too long'}" for one in failed)
        raise SinkError(f"{told}. The journal keeps {what}; run it again when the store is there")
    journal.renew()
    if deliveries:
        journal.trim(min(delivery.sink.done_seq for delivery in deliveries))
