"""Rejected frames as ``sinks.ndjson`` keeps them, and a note of those that have been taken since.

``DIR/rejected/YYYY-MM-DD.ndjson`` has a frame a line; lines are only ever added.
``DIR/rejected/reread.json`` names the lines that need not be looked at again, as stretches of line numbers.
It only saves work: whether a row is stored already is asked of the stores (``stored``). Not here: what the
frames say (``taking``).
"""

from __future__ import annotations

import base64
import os
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from kalshi_fast.errors import ConfigError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOTE: Final = "reread.json"


class _Line(msgspec.Struct):
    ingest_ns: int
    conn_id: int
    reason: str = ""
    payload: str | None = None
    payload_base64: str | None = None


class Kept(NamedTuple):
    """A kept frame, and where it stands."""

    file: str
    line: int
    ingest_ns: int
    conn_id: int
    payload: bytes


_line = msgspec.json.Decoder(_Line)
_note = msgspec.json.Decoder(dict[str, list[tuple[int, int]]])


class KeptFrames:
    """``KeptFrames(DIR)``. Raises ConfigError when there is no such directory or its note cannot be read."""

    def __init__(self, directory: Path) -> None:
        self.unreadable = 0  # lines that are none of ours, or half a line of a crash
        self.done = 0  # frames that were taken by an earlier run
        self._directory = directory / "rejected"
        self._taken: dict[str, set[int]] = {}
        path = self._directory / NOTE
        if path.exists():
            try:
                note = _note.decode(path.read_bytes())
            except (OSError, msgspec.DecodeError) as error:
                raise ConfigError(f"{path} cannot be read: {reason(error)}") from error
            for file, stretches in note.items():
                self._taken[file] = {line for first, last in stretches for line in range(first, last + 1)}

    def __iter__(self) -> Iterator[Kept]:
        """Those that have not been taken, file by file."""
        for path in self.files():
            taken = self._taken.get(path.name, set())
            with path.open("rb") as lines:
                for number, text in enumerate(lines, 1):
                    if number in taken:
                        self.done += 1
                        continue
                    frame = _read(text)
                    if frame is None:
                        self.unreadable += 1
                    else:
                        yield Kept(path.name, number, *frame)

    def files(self) -> list[Path]:
        return sorted(self._directory.glob("*.ndjson"))

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files())

    def note(self, taken: list[Kept]) -> None:
        """These need not be looked at again."""
        if not taken:
            return
        for frame in taken:
            self._taken.setdefault(frame.file, set()).add(frame.line)
        path = self._directory / NOTE
        making = path.with_name(f"{NOTE}.tmp")
        with making.open("wb") as file:
            file.write(msgspec.json.encode({name: _stretches(lines) for name, lines in self._taken.items()}))
            file.flush()
            os.fsync(file.fileno())
        making.rename(path)


def _read(text: bytes) -> tuple[int, int, bytes] | None:
    try:
        line = _line.decode(text)
        if line.payload is not None:
            return line.ingest_ns, line.conn_id, line.payload.encode()
        if line.payload_base64 is not None:
            return line.ingest_ns, line.conn_id, base64.b64decode(line.payload_base64, validate=True)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return None


def _stretches(lines: set[int]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for line in sorted(lines):
        if found and found[-1][1] == line - 1:
            found[-1] = (found[-1][0], line)
        else:
            found.append((line, line))
    return found
