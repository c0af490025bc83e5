"""Frames that could not be used, kept as they came: ``DIR/rejected/YYYY-MM-DD.ndjson``, bounded a day."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import SinkError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kalshi_fast.batch import Batch, RejectedFrame

MAX_BYTES_PER_DAY: Final = 64 * 1024 * 1024


class RejectSink:
    """Appends one JSON object per frame; the payload as text where it is UTF-8, else in base64."""

    name = "rejected frames"

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES_PER_DAY) -> None:
        self.rows = 0
        self.dropped = 0
        self._directory = directory / "rejected"
        self._max_bytes = max_bytes

    def write(self, batches: Sequence[Batch]) -> None:
        for batch in batches:
            for frame in batch.rejected:
                try:
                    self._append(frame)
                except OSError as error:
                    raise SinkError(f"rejected frames cannot be kept: {error.strerror or error}") from error

    def _append(self, frame: RejectedFrame) -> None:
        day = datetime.fromtimestamp(frame.ingest_ns // 1_000_000_000, UTC)
        self._directory.mkdir(parents=True, exist_ok=True)
        line = json.dumps(
            {
                "ingest_ns": frame.ingest_ns,
                "conn_id": frame.conn_id,
                "reason": frame.reason,
                **_payload(frame.payload),
            }
        )
        with (self._directory / f"{day:%Y-%m-%d}.ndjson").open("a", encoding="utf-8") as file:
            if file.tell() + len(line) > self._max_bytes:
                self.dropped += 1
                return
            file.write(line + "\n")
        self.rows += 1

    def tick(self) -> None:
        """Nothing is due by time here."""

    def close(self) -> None:
        """Every line is already in its file."""


def _payload(payload: bytes) -> dict[str, str]:
    try:
        return {"payload": payload.decode("utf-8")}
    except UnicodeDecodeError:
        return {"payload_base64": base64.b64encode(payload).decode("ascii")}
