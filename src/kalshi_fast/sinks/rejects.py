"""Frames that could not be used, kept as they came: ``DIR/rejected/YYYY-MM-DD.ndjson``, bounded a day."""

from __future__ import annotations

import base64
import json
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import JournalError, SinkError
from kalshi_fast.journal import Point

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.batch import RejectedFrame
    from kalshi_fast.journal import Entry, Journal, Position

MAX_BYTES_PER_DAY: Final = 64 * 1024 * 1024


class RejectSink:
    """Appends one JSON object per frame; the payload as text where it is UTF-8, else in base64.

    The position knows how long the file was: what a crash left behind it is cut off and written again.
    """

    def __init__(
        self, directory: Path, journal: Journal, position: Position, *, max_bytes: int = MAX_BYTES_PER_DAY
    ) -> None:
        self.rows = 0
        self.dropped = 0
        self._directory = directory / "rejected"
        self._journal = journal
        self._position = position
        self._max_bytes = max_bytes
        point = position.point
        self._seq = point.seq if point is not None and point.journal == journal.id else journal.first_seq
        if point is not None and point.detail:
            name, _, size = point.detail.partition(":")
            path = self._directory / name
            if path.exists() and path.stat().st_size > int(size):
                with path.open("r+b") as file:
                    file.truncate(int(size))

    def write(self, entry: Entry) -> None:
        """Keeps the frames of an entry, unless they have been kept already. Raises SinkError."""
        if entry.seq < self._seq or not entry.extra.rejected:
            return
        before: dict[Path, int] = {}
        try:
            for frame in entry.extra.rejected:
                path = self._file_of(frame)
                before.setdefault(path, path.stat().st_size if path.exists() else 0)
                self._append(frame, path)
            size = path.stat().st_size if path.exists() else 0
            self._position.write(Point(self._journal.id, entry.end, detail=f"{path.name}:{size}"))
        except (OSError, JournalError) as error:
            for path, size in before.items():
                if path.exists():
                    os.truncate(path, size)  # the entry comes again
            raise SinkError(
                f"rejected frames cannot be kept: {getattr(error, 'strerror', None) or error}"
            ) from error
        self._seq = entry.end

    def _file_of(self, frame: RejectedFrame) -> Path:
        day = datetime.fromtimestamp(frame.ingest_ns // 1_000_000_000, UTC)
        return self._directory / f"{day:%Y-%m-%d}.ndjson"

    def _append(self, frame: RejectedFrame, path: Path) -> None:
        self._directory.mkdir(parents=True, exist_ok=True)
        line = json.dumps(
            {
                "ingest_ns": frame.ingest_ns,
                "conn_id": frame.conn_id,
                "reason": frame.reason,
                **_payload(frame.payload),
            }
        )
        with path.open("a", encoding="utf-8") as file:
            if file.tell() + len(line) > self._max_bytes:
                self.dropped += 1
                return
            file.write(line + "\n")
        self.rows += 1

    def close(self) -> None:
        self._position.close()


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode("utf-8")}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode("ascii")}
