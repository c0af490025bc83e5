"""Frames kept as they came, one JSON object a line, in a file a day (UTC): those that could not be used, and
those of channels that nobody models.

The position knows how long the last file was: what a crash left behind it is cut off and written again. A
file that is full is followed by another or, for what should be rare, by nothing until the next day. Not here:
what has columns (``series``).
"""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.errors import JournalError, SinkError
from kalshi_fast.journal import Point

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from kalshi_fast.batch import RawFrame, RejectedFrame
    from kalshi_fast.journal import Entry, Journal, Position

MAX_BYTES: Final = 64 * 1024 * 1024
_DATE_CHARS: Final = len("YYYY-MM-DD")


class NdjsonSink:
    """``RejectSink`` or ``RawSink``. The payload of a frame is text where it is UTF-8, else base64."""

    name = ""
    what = "frames"
    goes_on = False  # in another file when one is full

    def __init__(
        self, directory: Path, journal: Journal, position: Position, *, max_bytes: int = MAX_BYTES
    ) -> None:
        self.rows = 0
        self.dropped = 0
        self._file = ("", 0)  # date and number of the last one that was written to
        self._directory = directory / self.name
        self._journal = journal
        self._position = position
        self._max_bytes = max_bytes
        point = position.point
        self._seq = point.seq if point is not None and point.journal == journal.id else journal.first_seq
        name, _, size = point.detail.rpartition(":") if point is not None else ("", "", "")
        path = self._directory / name
        if name and path.exists() and path.stat().st_size > int(size):
            with path.open("r+b") as file:
                file.truncate(int(size))
        if self.goes_on and point is not None and point.journal == journal.id and name:
            self._file = name[:_DATE_CHARS], int(name.removesuffix(".ndjson").rpartition("-")[2])
        if self.goes_on and self._directory.is_dir():
            for later in self._directory.glob(f"*-{journal.id[:8]}-*.ndjson"):
                if later.name > name:
                    later.unlink()  # begun after the position was written

    def _frames(self, entry: Entry) -> Sequence[RejectedFrame | RawFrame]:
        raise NotImplementedError

    def _told(self, frame: Any) -> dict[str, Any]:  # noqa: ANN401 - one of its own
        """What is said of a frame beside when it came."""
        raise NotImplementedError

    def write(self, entry: Entry) -> None:
        """Keeps the frames of an entry, unless they have been kept already. Raises SinkError."""
        frames = self._frames(entry)
        if entry.seq < self._seq or not frames:
            return
        before: dict[Path, int] = {}
        file = self._file
        try:
            for frame in frames:
                line = json.dumps(
                    {
                        "ingest_ns": frame.ingest_ns,
                        "conn_id": frame.conn_id,
                        **self._told(frame),
                        **_payload(frame.payload),
                    }
                ).encode()
                path = self._file_of(frame.ingest_ns, len(line))
                before.setdefault(path, _size(path))
                self._append(line, path)
            if self._journal.fsync == "always":  # then the position is on the disk at once too
                self._sync(before)
            self._position.write(Point(self._journal.id, entry.end, detail=f"{path.name}:{_size(path)}"))
        except (OSError, JournalError) as error:
            for path, size in before.items():
                if path.exists():
                    os.truncate(path, size)  # the entry comes again
            self._file = file
            raise SinkError(
                f"{self.what} cannot be kept: {getattr(error, 'strerror', None) or error}"
            ) from error
        self._seq = entry.end

    def _file_of(self, ingest_ns: int, more_bytes: int) -> Path:
        day = f"{datetime.fromtimestamp(ingest_ns // 1_000_000_000, UTC):%Y-%m-%d}"
        if not self.goes_on:
            return self._directory / f"{day}.ndjson"
        # What is behind the file that the position names counts as never written: there is no way back to a
        # lower one, whatever room it has.
        date, number = max(self._file, (day, 0))
        while True:
            path = self._directory / f"{date}-{self._journal.id[:8]}-{number:04d}.ndjson"
            if (there := _size(path)) == 0 or there + more_bytes < self._max_bytes:
                self._file = date, number
                return path
            number += 1

    def _append(self, line: bytes, path: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            if not self.goes_on and file.tell() + len(line) > self._max_bytes:
                self.dropped += 1
                return
            file.write(line + b"\n")
        self.rows += 1

    def _sync(self, paths: Mapping[Path, int]) -> None:
        """What was added to these files, and their names where they are new, is on the disk from now on."""
        for path in paths:
            if path.exists():
                _fsync(path)
        if 0 in paths.values():
            _fsync(self._directory)
            _fsync(self._directory.parent)

    def close(self) -> None:
        self._position.close()


class RejectSink(NdjsonSink):
    """Frames that could not be used, with the reason: ``DIR/rejected/YYYY-MM-DD.ndjson``, bounded a day."""

    name = "rejected"
    what = "rejected frames"

    def _frames(self, entry: Entry) -> Sequence[RejectedFrame]:
        return entry.extra.rejected

    def _told(self, frame: RejectedFrame) -> dict[str, Any]:
        return {"reason": frame.reason}


class RawSink(NdjsonSink):
    """Frames of channels that are kept as they come: ``DIR/raw/YYYY-MM-DD-JOURNAL-NNNN.ndjson``."""

    name = "raw"
    what = "raw frames"
    goes_on = True

    def _frames(self, entry: Entry) -> Sequence[RawFrame]:
        return entry.extra.raw

    def _told(self, frame: RawFrame) -> dict[str, Any]:
        return {"channel": frame.channel}


def _fsync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode("utf-8")}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode("ascii")}
