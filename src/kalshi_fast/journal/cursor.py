"""One store's reading of the journal: the entries from a position on, as they come.

Not here: waiting for more (``Journal.wait``), what a store does with an entry.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from kalshi_fast.errors import JournalError
from kalshi_fast.journal.records import ALIGN, BATCH, HEADER_BYTES, Header, decode_header, intact
from kalshi_fast.journal.replay import NOBODY, DamagedError, Entry, ReadState, beginning, scan
from kalshi_fast.journal.segments import read

if TYPE_CHECKING:
    from kalshi_fast.journal.log import Journal
    from kalshi_fast.journal.segments import Segment

log = logging.getLogger("kalshi_fast.journal")


class Cursor:
    """``Cursor(journal, seq)``: reads from batch ``seq`` on, or from the oldest one if that is gone."""

    def __init__(self, journal: Journal, seq: int) -> None:
        self.seq = max(seq, journal.first_seq)  # of the next entry
        self._journal = journal
        self._state = ReadState()
        self._segment: Segment | None = None
        self._fd = -1
        self._at = 0
        self._copies = 0
        self._kept: Entry | None = None  # read already

    def take(self, max_rows: int, until: int | None = None) -> list[Entry]:
        """The next entries: at least one if there is one, no more than come to about ``max_rows`` rows.

        ``until``: all entries before this batch, and none behind.
        """
        entries: list[Entry] = []
        rows = 0
        end = self._journal.end if until is None else min(until, self._journal.end)
        while self.seq < end and (until is not None or rows < max_rows):
            entry = self._next()
            self.seq = entry.end
            entries.append(entry)
            rows += entry.rows + entry.extra.rows
        return entries

    def close(self) -> None:
        """Gives the open file back."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _next(self) -> Entry:
        """The entry of ``seq``, which is in the journal."""
        if self._segment is None:
            self._begin()
        if self._kept is not None:
            kept, self._kept = self._kept, None
            return kept
        while True:
            segment = self._segment
            assert segment is not None  # noqa: S101 - entered above
            self._follow_copy(segment)
            following = self._following(segment)
            if following is not None and (self._fd < 0 or self._at >= segment.size_bytes):
                if following.first_seq > self.seq:
                    return self._lost(segment, following.first_seq)
                self._enter(following)
                continue
            found = self._record()
            if found is None:
                end = self._skip_damage(segment)
                if end > self.seq:
                    return self._lost(segment, end)
                continue  # it was no batch: if one needs it, that will show
            header, payload = found
            if header.kind == BATCH and header.seq > self.seq:
                return self._lost(segment, header.seq)
            self._at += header.record_bytes
            try:
                entry = self._state.apply(header, payload)
            except DamagedError as error:
                log.error("%s: batch %d cannot be used: %s", segment.path, header.seq, error)
                if header.kind == BATCH and header.seq == self.seq:
                    return self._lost(segment, header.seq + 1)
                continue
            if entry is not None and entry.seq == self.seq:
                return entry

    def _begin(self) -> None:
        """From the nearest segment whose beginning can be read: what is damaged since then is found in the
        same way, and with the same gaps, wherever a reader begins."""
        wanted = self.seq
        there = self._journal.segments
        start = there[0]
        for segment in there:
            if segment.first_seq <= wanted and beginning(segment.path) is not None:
                start = segment
        self._enter(start)
        self.seq = min(wanted, start.first_seq)
        while self.seq < wanted:
            entry = self._next()
            self.seq = entry.end
            if self.seq > wanted:  # it stands for more than is asked for
                self._kept = replace(entry, seq=wanted)
        self.seq = wanted

    def _following(self, segment: Segment) -> Segment | None:
        return next((s for s in self._journal.segments if s.first_seq > segment.first_seq), None)

    def _enter(self, segment: Segment) -> None:
        self.close()
        self._segment, self._at, self._copies = segment, 0, segment.copies
        try:
            self._fd = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if self._following(segment) is None:
                raise JournalError(f"{segment.path}: {error.strerror or error}") from error
            log.error("%s: %s", segment.path, error.strerror or error)

    def _follow_copy(self, segment: Segment) -> None:
        """What is written from now on goes into the copy."""
        if segment.copies != self._copies:
            at = self._at
            self._enter(segment)
            self._at = at

    def _record(self) -> tuple[Header, bytes] | None:
        """The record at the current place, None when it is damaged."""
        head = read(self._fd, self._at, HEADER_BYTES)
        decoded = decode_header(head)
        if decoded is None:
            return None
        header, checksum = decoded
        payload = read(self._fd, self._at + HEADER_BYTES, header.payload_bytes)
        if len(payload) != header.payload_bytes or not intact(header, checksum, head, payload):
            return None
        return header, payload

    def _skip_damage(self, segment: Segment) -> int:
        """To the next record that is whole; the seq of the first batch from there on."""
        segment.damaged = True
        # In this order: what is written meanwhile must not be passed over with it.
        following = self._following(segment)
        end = self._journal.end if following is None else following.first_seq
        size = segment.size_bytes
        data = read(self._fd, self._at, size - self._at)
        log.error("%s: damaged at byte %d", segment.path, self._at)
        for at, header, _ in scan(memoryview(data), ALIGN):
            self._at += at
            return header.seq
        self._at = size
        return end

    def _lost(self, segment: Segment, end: int) -> Entry:
        segment.damaged = True
        state = self._state
        if state.recorder == NOBODY:  # nothing is known of what is lost: what is known behind it has to do
            for later in self._journal.segments:
                if later.first_seq > self.seq and (found := beginning(later.path)) is not None:
                    state = ReadState()
                    state.apply(*found)
                    state.marks.suspect()
                    end = later.first_seq
                    self._enter(later)
                    break
        what = f"{end - self.seq} batches from {self.seq} on cannot be read from {segment.path.name}"
        log.error("%s: %s", segment.path, what)
        return state.lost(self.seq, end, what)
