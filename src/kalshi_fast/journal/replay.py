"""Reading the journal in order: records in, entries for the stores out, damage included.

``ReadState`` is what a reader has to carry from record to record. What cannot be read is never passed over in
silence: it becomes an entry of its own, with a gap for every book that was known. Not here: files
(``cursor``).
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa

from kalshi_fast.arrow import STORED_EVENTS, STORED_LEVELS, Names, stored, unpack
from kalshi_fast.batch import Extra, HealthEvent, unpack_extra
from kalshi_fast.journal.lately import LateTrades
from kalshi_fast.journal.marks import Marks
from kalshi_fast.journal.records import (
    HEADER_BYTES,
    NAMES,
    STATE,
    Header,
    NamesPayload,
    StatePayload,
    candidates,
    decode_header,
    intact,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_NAMES_DECODER = msgspec.msgpack.Decoder(NamesPayload)
_STATE_DECODER = msgspec.msgpack.Decoder(StatePayload)
NOBODY = uuid.UUID(int=0)


class DamagedError(Exception):
    """A record whose checksum is right and whose content cannot be used: names it refers to are missing."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One batch of the journal as a store gets it; ``end``: the seq of the next one.

    ``events``, ``levels``: columns of STORED_EVENTS, STORED_LEVELS, None when there are no such rows.
    """

    seq: int
    end: int
    recorder: uuid.UUID
    number: int
    names: Names
    events: pa.RecordBatch | None
    levels: pa.RecordBatch | None
    extra: Extra

    @property
    def rows(self) -> int:
        """How many events."""
        return 0 if self.events is None else int(self.events.num_rows)


class ReadState:
    """What a reader knows: whose batches follow, their names, what is known of the books."""

    def __init__(self) -> None:
        self.journal = ""
        self.recorder = NOBODY
        self.names = Names()
        self.marks = Marks()
        self.last_number = 0
        self.late_trades = LateTrades()

    def apply(self, header: Header, payload: bytes | memoryview) -> Entry | None:
        """Takes a record into account; the entry when it is a batch. Raises DamagedError, changing
        nothing."""
        try:
            if header.kind == STATE:
                self._load(header, _STATE_DECODER.decode(payload))
                return None
            if header.kind == NAMES:
                self._name(header, _NAMES_DECODER.decode(payload))
                return None
            return self._batch(header, payload)
        except (msgspec.DecodeError, KeyError, ValueError, OSError, pa.ArrowException) as error:
            raise DamagedError(str(error)) from error

    def _load(self, header: Header, state: StatePayload) -> None:
        # Its marks, not our own: so a reader that begins here finds the same gaps as one that comes from
        # further back. After damage they may name a book that is unknown already; said twice does no harm.
        marks = Marks.unpack(state.marks)
        marks.ingest_ns = max(marks.ingest_ns, self.marks.ingest_ns)
        marks.version = max(marks.version, self.marks.version)
        self.marks = marks
        self.journal = state.journal
        self.recorder = header.recorder
        self.names = Names(state.tickers, state.ids)
        self.last_number = state.last_number
        self.late_trades = LateTrades.unpack(state.late_trades)

    def _name(self, header: Header, found: NamesPayload) -> None:
        if header.recorder != self.recorder:
            self.begin(header.recorder)
        names = self.names
        if (found.first_ticker, found.first_id) != (len(names.tickers), len(names.ids)):
            raise DamagedError("the names before these are missing")
        names.tickers += found.tickers
        names.ids += found.ids

    def begin(self, recorder: uuid.UUID) -> None:
        """Batches of another recorder follow, with names of their own."""
        self.recorder = recorder
        self.names = Names()
        self.marks.begin_recorder()
        self.last_number = 0

    def _batch(self, header: Header, payload: bytes | memoryview) -> Entry:
        if header.recorder != self.recorder:
            raise DamagedError("the names of this recorder are missing")
        view = memoryview(payload)
        split = header.events_bytes + header.levels_bytes
        events = unpack(STORED_EVENTS, view[: header.events_bytes]) if header.events_bytes else None
        levels = unpack(STORED_LEVELS, view[header.events_bytes : split]) if header.levels_bytes else None
        extra = unpack_extra(bytes(view[split:]))
        for columns in (events, levels):
            if columns is not None:
                self._check(columns)
        self.marks.apply(arrays(events), arrays(levels))
        self.marks.received(extra)
        self.late_trades.add(extra.channels.trades)
        self.last_number = max(self.last_number, header.number)
        return Entry(
            header.seq, header.seq + 1, header.recorder, header.number, self.names, events, levels, extra
        )

    def _check(self, columns: pa.RecordBatch) -> None:
        """Codes index lists: one beyond its list must never get as far as Arrow."""
        for name, names in (
            ("market_ix", len(self.names.tickers)),
            ("id_ix", len(self.names.ids)),
            ("type", 4),
            ("side", 2),
        ):
            if name in columns.schema.names and columns.num_rows:
                codes = columns.column(name).to_numpy()
                if not 0 <= codes.min() <= codes.max() < names:
                    raise DamagedError(f"{name}: a code beyond the {names} names")

    def lost(self, seq: int, end: int, what: str) -> Entry:
        """The entry that stands for batches that cannot be read."""
        gap = self.marks.gap_rows()
        events = None
        if gap is not None:
            events = stored(STORED_EVENTS, gap.arrays, gap.n)
            self.marks.apply(arrays(events), None)
        health = HealthEvent(self.marks.ingest_ns, 0, "damage", detail=what)
        return Entry(seq, end, self.recorder, 0, self.names, events, None, Extra([health], []))


def arrays(columns: pa.RecordBatch | None) -> dict[str, NDArray[Any]] | None:
    """Columns as numpy arrays over the same memory."""
    if columns is None:
        return None
    return {name: columns.column(name).to_numpy() for name in columns.schema.names}


def scan(data: memoryview, start: int = 0) -> Iterator[tuple[int, Header, memoryview]]:
    """Every intact record of a segment, with its offset; what lies between two of them is damage."""
    at = start
    while at < len(data):
        found = record_at(data, at)
        if found is None:
            at = next((c for c in candidates(data, at + 8) if record_at(data, c) is not None), len(data))
            continue
        yield at, *found
        at += found[0].record_bytes


def beginning(path: Path) -> tuple[Header, bytes] | None:
    """The STATE record that a segment begins with, None when it cannot be read."""
    try:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
            decoded = decode_header(head)
            if decoded is None or decoded[0].kind != STATE:
                return None
            header, checksum = decoded
            payload = file.read(header.payload_bytes)
    except OSError:
        return None
    return (header, payload) if intact(header, checksum, head, payload) else None


def record_at(data: memoryview, at: int) -> tuple[Header, memoryview] | None:
    """The record at an offset, None when there is no intact one."""
    head = data[at : at + HEADER_BYTES]
    decoded = decode_header(head)
    if decoded is None:
        return None
    header, checksum = decoded
    payload = data[at + HEADER_BYTES : at + HEADER_BYTES + header.payload_bytes]
    if len(payload) != header.payload_bytes or not intact(header, checksum, head, payload):
        return None
    return header, payload
