"""The durable log of sealed batches: everything goes through it, and each store reads it at its own pace.

A batch is in the journal when ``commit`` has returned, and leaves it when every store has it (``trim``). One
process at a time has the directory. At ``max_bytes`` it takes nothing more (JournalFullError) until a store
has come on: then what waits before it fills up, the feed stops reading, and the exchange's next frames show
the gap. After a crash the torn end of the last segment is cut off; damage elsewhere is left to the readers,
who report it as an entry with gaps. Not here: what a store does with it (``cursor``, ``position``, the
sinks).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import threading
import time
import uuid
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from kalshi_fast._columns import last_states
from kalshi_fast.arrow import STORED_EVENTS, STORED_LEVELS, pack
from kalshi_fast.batch import HealthEvent, pack_extra, unpack_extra
from kalshi_fast.errors import ConfigError, JournalError, JournalFullError
from kalshi_fast.journal import segments
from kalshi_fast.journal.records import (
    BATCH,
    NAMES,
    STATE,
    Header,
    NamesPayload,
    StatePayload,
    encode,
)
from kalshi_fast.journal.replay import DamagedError, ReadState, beginning, scan
from kalshi_fast.journal.segments import Segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kalshi_fast.journal.lately import LateTrades
    from kalshi_fast.journal.position import Position
    from kalshi_fast.ring import SealedSlot

log = logging.getLogger("kalshi_fast.journal")

NamesFrom: TypeAlias = "Callable[[int, int], list[str]]"
SEGMENT_BYTES: Final = 64 * 1024 * 1024
MIN_BYTES: Final = 1024 * 1024
FSYNC: Final = ("interval", "always", "off")
GRACE_S: Final = 3.0  # in which a process that has lost its recorder says that it is finishing
_LOCK_WAIT_S: Final = 0.1
_FINISHING: Final = "finishing"


class Journal:
    """``Journal(directory, fsync=…, max_bytes=…)`` opens, or makes, the journal of a directory.

    One thread writes; ``wait``, ``end`` and the cursors may be used from others. Raises ConfigError when the
    directory cannot be used, JournalError when the disk refuses.
    """

    def __init__(
        self,
        directory: Path,
        *,
        fsync: str = "interval",
        max_bytes: int = 4 << 30,
        segment_bytes: int = SEGMENT_BYTES,
        lock_wait_s: float = 0.0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.directory = directory
        self.fsync = fsync
        self.max_bytes = max_bytes
        self.segment_bytes = min(segment_bytes, max(max_bytes // 8, MIN_BYTES // 8))
        self.segments: list[Segment] = []
        self.positions: list[Position] = []  # of the stores, to be on the disk before anything is removed
        self.opening = uuid.uuid4().hex[:8]  # of this opening: numbers that a failure took may come again
        self._lock = _locked(directory, lock_wait_s, say)
        self._changed = threading.Condition()
        self._file_lock = threading.Lock()  # the current file may not be closed while it is synced
        self._state = ReadState()
        self._fd = -1
        self._opened_bytes = 0  # of the current segment when it was new
        self._distrusted = False  # a sync has failed: what is in the file may not get to the disk any more
        self._introduced = True  # a record that names the recorder is there: its names, even if they are none
        self._next = 0
        try:
            self._recover()
        except BaseException as error:
            self._unlock()
            if self._fd >= 0:
                os.close(self._fd)
            if isinstance(error, OSError):
                raise JournalError(f"JOURNAL_DIR: {directory}: {error.strerror or error}") from error
            raise
        self.end = self._next  # seq of the next batch, as readers may know it

    # --- opening ----------------------------------------------------------------------------------

    def _recover(self) -> None:
        for left in self.directory.glob("*.anew"):
            left.unlink()
        found = segments.find(self.directory)
        states = [index for index, segment in enumerate(found) if beginning(segment.path) is not None]
        if not states:
            self._set_aside(found)
            self._state.journal = uuid.uuid4().hex
            self._open_segment(self._packed_state())
            return
        self.segments = found[: states[-1]]
        for segment in found[states[-1] :]:
            self._scan(segment)
        last = self.segments[-1]
        self._fd = os.open(last.path, os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._fd, last.size_bytes)
        self._opened_bytes = 0

    def _scan(self, segment: Segment) -> None:
        """Takes up what is in a segment behind the newest STATE, up to its last intact record."""
        with segment.path.open("rb") as file:
            data = memoryview(segments.read(file.fileno(), 0, os.fstat(file.fileno()).st_size))
        good = 0
        whole = True
        for at, header, payload in scan(data):
            if at != good:
                whole = False
                log.error("%s: %d damaged bytes at %d", segment.path, at - good, good)
            try:
                self._state.apply(header, payload)
            except DamagedError as error:
                whole = False
                log.error("%s: the record at %d cannot be used: %s", segment.path, at, error)
            good = at + header.record_bytes
            self._next = header.seq + (header.kind == BATCH)
        if good < len(data):
            log.warning(
                "%s: its last %d bytes were being written when the recorder died, and are cut off",
                segment.path,
                len(data) - good,
            )
        if good == 0 and self.segments:  # nothing in it counts, not even its beginning
            self._set_aside([segment])
            return
        if not whole:
            segment.damaged = True
            self._state.marks.suspect()
        segment.size_bytes = good
        self.segments.append(segment)

    def _set_aside(self, found: list[Segment]) -> None:
        """Files without any beginning that can be read: kept, and no longer ours."""
        for segment in found:
            if segment.size_bytes == 0:
                segment.path.unlink()
                continue
            aside = segment.path.with_suffix(f".damaged-{uuid.uuid4().hex[:8]}")
            segment.path.rename(aside)
            log.error("%s: nothing in it can be read; it is kept as %s", segment.path, aside.name)

    # --- writing ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Of this journal, for ever: with the seq of a batch its identity in every store."""
        return self._state.journal

    @property
    def recorder(self) -> uuid.UUID:
        """Whose batches come last."""
        return self._state.recorder

    @property
    def last_number(self) -> int:
        """The recorder's own number of its last batch here."""
        return self._state.last_number

    @property
    def floor_ns(self) -> int:
        """Receive times and versions of a recorder that comes now have to be greater."""
        return max(self._state.marks.ingest_ns, self._state.marks.version)

    @property
    def late_trades(self) -> LateTrades:
        """The latest trades that have gone through here."""
        return self._state.late_trades

    @property
    def used_bytes(self) -> int:
        """Of the disk."""
        return sum(segment.size_bytes for segment in self.segments)

    def begin(self, recorder: uuid.UUID) -> None:
        """Batches of this recorder follow. If another one's came before, it is over: see ``end_recorder``."""
        if recorder != self._state.recorder:
            self.end_recorder()
            self._state.begin(recorder)
            self._introduced = False

    def end_recorder(self) -> None:
        """The recorder says nothing more: a gap for each book that it has left known."""
        self._say_lost("the recorder has ended without a farewell")

    def _say_lost(self, what: str) -> None:
        gap = self._state.marks.gap_rows()
        if gap is None:
            self.commit()  # it may have been written already, and not got so far
            return
        detail = f"{what}: {gap.n} books are unknown"
        health = HealthEvent(self._state.marks.ingest_ns, 0, "lost", detail=detail)
        self._write_batch(0, pack(STORED_EVENTS, gap.arrays, gap.n), b"", pack_extra([health], []), gap.n)
        self._state.marks.apply({name: column[: gap.n] for name, column in gap.arrays.items()}, None)
        self.commit()

    def at_least(self, seq: int) -> None:
        """The next batch has at least this number. A store that is further than the journal has had batches
        which a failure of the machine took from the journal: their numbers must not be given again."""
        if seq > self._next:
            log.error("%s: %d batches that a store has had are gone", self.directory, seq - self._next)
            self._next = seq
            self._open_segment(self._packed_state())
            self.end = seq

    def append(self, batch: SealedSlot, tickers: NamesFrom, ids: NamesFrom) -> None:
        """Writes a batch of the current recorder; one that is there already is left alone.

        ``tickers(start, stop)`` and ``ids(start, stop)`` give the names that the batch may refer to. Raises
        JournalFullError and JournalError; nothing is written then, and the same batch may be offered again.
        """
        if batch.number <= self._state.last_number:
            return
        if batch.number > self._state.last_number + 1:  # those between were cut off with a damaged end
            self._say_lost(
                f"batches {self._state.last_number + 1} to {batch.number - 1} are not there any more"
            )
        names = self._state.names
        there = (len(names.tickers), len(names.ids))
        if batch.names != there or not self._introduced:
            new = NamesPayload(*there, tickers(there[0], batch.names[0]), ids(there[1], batch.names[1]))
            self._write(NAMES, msgspec.msgpack.encode(new))
            names.tickers += new.tickers
            names.ids += new.ids
            self._introduced = True
        events = pack(STORED_EVENTS, batch.event_arrays, batch.events) if batch.events else b""
        states = last_states(batch.level_arrays, batch.levels)
        levels = pack(STORED_LEVELS, states, len(states["version"])) if batch.levels else b""
        self._write_batch(batch.number, events, levels, batch.extra, batch.events)
        self._state.last_number = batch.number
        if batch.extra:
            extra = unpack_extra(batch.extra)
            self._state.late_trades.add(extra.channels.trades)
            self._state.marks.received(extra)
        self._state.marks.apply(
            {name: column[: batch.events] for name, column in batch.event_arrays.items()},
            states,
        )

    def commit(self) -> None:
        """What was appended is the journal's from now on, and on the disk under fsync ``always``."""
        if self._distrusted:
            self._mend()
        if self.end == self._next:
            return
        if self.fsync == "always":
            self.sync()
        with self._changed:
            self.end = self._next
            self._changed.notify_all()

    def sync(self) -> None:
        """Everything written is on the disk when this returns. May be called from another thread.

        After a failure nothing is, until the thread that writes has written it anew: the kernel forgets what
        it could not write, and says so only once."""
        try:
            with self._file_lock:
                if self._distrusted:
                    raise OSError(errno.EIO, "an earlier sync has failed")
                if self._fd >= 0:  # else it is closed, and was synced then
                    os.fdatasync(self._fd)
        except OSError as error:
            self._distrusted = True
            raise JournalError(f"JOURNAL_DIR: {self.directory}: {error.strerror or error}") from error

    def _mend(self) -> None:
        """After a failed sync: all of the current segment into a file of its own, in its place."""
        segment = self.segments[-1]
        making = segment.path.with_suffix(".anew")
        try:
            data = segments.read(self._fd, 0, segment.size_bytes)
            fd = os.open(making, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                self._put(fd, data, 0)
                os.fsync(fd)
                making.rename(segment.path)
                self._sync_directory()
            except BaseException:
                os.close(fd)
                raise
        except OSError as error:
            raise JournalError(f"JOURNAL_DIR: {self.directory}: {error.strerror or error}") from error
        with self._file_lock:
            old, self._fd = self._fd, fd
            os.close(old)
            segment.copies += 1
            self._distrusted = False
        log.warning("%s: could not be synced, and has been written anew", segment.path)

    def _write_batch(self, number: int, events: bytes, levels: bytes, extra: bytes, rows: int) -> None:
        payload = b"".join((events, levels, extra))
        self._write(BATCH, payload, number, (len(events), len(levels), len(extra)), rows)
        self._next += 1

    def _write(
        self,
        kind: int,
        payload: bytes,
        number: int = 0,
        parts: tuple[int, int, int] = (0, 0, 0),
        rows: int = 0,
    ) -> None:
        header = Header(kind, len(payload), self._next, self._state.recorder, number, *parts, rows)
        current = self.segments[-1]
        # A segment without a batch would have the name of the next one.
        turn = (
            current.size_bytes - self._opened_bytes >= self.segment_bytes and self._next > current.first_seq
        )
        state = self._packed_state() if turn else b""
        if self.used_bytes + header.record_bytes + len(state) > self.max_bytes:
            raise JournalFullError(
                f"JOURNAL_DIR: {self.directory}: JOURNAL_MAX_BYTES ({self.max_bytes}) is reached"
            )
        if turn:
            self._open_segment(state)
            current = self.segments[-1]
        self._put(self._fd, encode(header, payload), current.size_bytes)
        current.size_bytes += header.record_bytes

    def _put(self, fd: int, data: bytes, at: int) -> None:
        view = memoryview(data)
        try:
            while view:
                written = os.pwrite(fd, view, at)
                view, at = view[written:], at + written
        except OSError as error:
            raise JournalError(f"JOURNAL_DIR: {self.directory}: {error.strerror or error}") from error

    def _packed_state(self) -> bytes:
        """The record that a segment begins with now: all that a reader has to know."""
        state = self._state
        payload = msgspec.msgpack.encode(
            StatePayload(
                state.journal,
                state.names.tickers,
                state.names.ids,
                state.marks.pack(),
                state.last_number,
                state.late_trades.pack(),
            )
        )
        return encode(Header(STATE, len(payload), self._next, state.recorder), payload)

    def _open_segment(self, state: bytes) -> None:
        """A new file that begins with this state."""
        path = segments.path_of(self.directory, self._next)
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
            try:
                self._put(fd, state, 0)
                if self.fsync != "off":
                    os.fdatasync(fd)
                    self._sync_directory()
                    if self._fd >= 0:
                        os.fdatasync(self._fd)
            except BaseException:
                os.close(fd)
                path.unlink()
                raise
        except OSError as error:
            raise JournalError(f"JOURNAL_DIR: {self.directory}: {error.strerror or error}") from error
        with self._file_lock:
            old, self._fd = self._fd, fd
            if old >= 0:
                os.close(old)
        self._opened_bytes = len(state)
        self.segments = [*self.segments, Segment(self._next, path, len(state))]

    def _sync_directory(self) -> None:
        directory = os.open(self.directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    # --- reading ----------------------------------------------------------------------------------

    @property
    def first_seq(self) -> int:
        """The oldest batch that is still here (or comes next)."""
        return self.segments[0].first_seq

    def wait(self, seq: int, timeout_s: float) -> bool:
        """Until batch ``seq`` is there; False when the time is over."""
        with self._changed:
            return self._changed.wait_for(lambda: self.end > seq, timeout_s)

    def wake(self) -> None:
        """Whoever waits looks again."""
        with self._changed:
            self._changed.notify_all()

    def trimmable(self, seq: int) -> bool:
        """Would ``trim(seq)`` free anything?"""
        return len(self.segments) > 1 and self.segments[1].first_seq <= seq

    def renew(self) -> None:
        """Everything is delivered: an empty segment takes the place of the others at the next ``trim``."""
        if self.segments[-1].first_seq < self._next:
            self._open_segment(self._packed_state())

    def trim(self, seq: int) -> None:
        """Nobody needs the batches before this one any more."""
        while self.trimmable(seq):
            gone = self.segments[0]
            try:
                if gone.damaged:
                    gone.path.rename(gone.path.with_suffix(".damaged"))
                else:
                    gone.path.unlink(missing_ok=True)
            except OSError as error:
                log.error("%s: cannot be removed: %s", gone.path, error.strerror or error)
                return
            self.segments = self.segments[1:]

    def say_finishing(self) -> None:
        """Who waits for the directory may go on waiting: nothing is recorded any more, only delivered."""
        os.pwrite(self._lock, f"{os.getpid()} {_FINISHING}".encode(), 0)

    def close(self) -> None:
        """Ends with everything on the disk, unless fsync is off."""
        if self._fd >= 0:
            if self.fsync != "off":
                if self._distrusted:
                    self._mend()
                self.sync()
            os.close(self._fd)
            self._fd = -1
        self._unlock()

    def _unlock(self) -> None:
        os.close(self._lock)


def _locked(directory: Path, wait_s: float, say: Callable[[str], None]) -> int:
    """The lock of a directory, which is made if need be."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise ConfigError(
            f"JOURNAL_DIR: {directory} cannot be written to: {error.strerror or error}"
        ) from error
    started, told = time.monotonic(), False
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner, _, what = os.pread(fd, 64, 0).decode("ascii", "replace").partition(" ")
            waited_s = time.monotonic() - started
            if waited_s >= (wait_s if what == _FINISHING else min(wait_s, GRACE_S)):
                os.close(fd)
                raise ConfigError(
                    f"JOURNAL_DIR: {directory} is in use by process {owner or '?'}: each recording needs a"
                    " journal of its own"
                ) from None
            if not told:
                say(f"waiting for process {owner or '?'} to finish with the journal {directory} …")
                told = True
            time.sleep(_LOCK_WAIT_S)
        else:
            try:
                os.ftruncate(fd, 0)
                os.pwrite(fd, str(os.getpid()).encode(), 0)
            except OSError as error:
                os.close(fd)
                raise JournalError(f"JOURNAL_DIR: {directory}: {error.strerror or error}") from error
            return fd
