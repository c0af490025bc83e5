"""Puts a merged file in the place of its inputs so that a crash at any instant loses and doubles nothing.

The merged file is complete and on the disk under a temporary name; an intent file is written that names it
and its inputs; it takes its own name; the inputs go; the intent goes. From the intent on the swap is decided:
``recover`` finishes what it finds. A directory cannot be changed in several places at once, so between the
new name and the last removal a plain ``*.parquet`` sees rows twice, for the time of some system calls, or
until ``recover`` if the process was killed there. ``event_files`` is the list without that fault.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import msgspec
import pyarrow.parquet as pq

from kalshi_fast.compact.source import readable
from kalshi_fast.errors import CompactError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PREFIX: Final = ".compact-"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file as it was when the intent was written."""

    name: str
    bytes: int


class Intent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That ``output``, now under its temporary name, takes the place of ``inputs``."""

    output: Part
    rows: int
    inputs: list[Part]

    @property
    def temporary(self) -> str:
        return temporary_name(self.output.name)

    @property
    def file_name(self) -> str:
        return f"{_PREFIX}{self.output.name}.json"


def temporary_name(output: str) -> str:
    """Where a merged file is made. A sink's temporary files have other names."""
    return f"{_PREFIX}{output}.tmp"


def swap(directory: Path, intent: Intent) -> Iterator[str]:
    """Does it, a step at a time: iterate to the end. Each step is named after it has been done.

    The temporary file must be there and flushed.
    """
    _sync(directory)  # the temporary name, before anything refers to it
    path = directory / intent.file_name
    making = path.with_name(f"{path.name}.tmp")
    with making.open("wb") as file:
        file.write(msgspec.json.encode(intent))
        file.flush()
        os.fsync(file.fileno())
    yield "intent written"
    making.rename(path)
    _sync(directory)
    yield "intent in place"
    yield from _finish(directory, intent)


def _finish(directory: Path, intent: Intent) -> Iterator[str]:
    output = directory / intent.output.name
    temporary = directory / intent.temporary
    if temporary.exists():
        if output.exists():
            raise CompactError(
                f"{output} is in the way of the merged file {temporary}: move one of them away"
            )
        _check(temporary, intent)
        temporary.rename(output)
        _sync(directory)
        yield "output in place"
    else:
        _check(output, intent)
    for part in intent.inputs:
        path = directory / part.name
        if not path.exists():
            continue
        if path.stat().st_size != part.bytes:
            raise CompactError(
                f"{path} has changed since it was merged into {output}: expected {part.bytes} bytes,"
                f" got {path.stat().st_size}"
            )
        path.unlink()
        yield f"{part.name} removed"
    _sync(directory)
    (directory / intent.file_name).unlink()
    _sync(directory)
    yield "intent removed"


def _check(path: Path, intent: Intent) -> None:
    """That the merged file is the one meant, before an input goes: its size and its footer."""
    with readable(path):
        size = path.stat().st_size
        rows = pq.read_metadata(path).num_rows
    if (size, rows) != (intent.output.bytes, intent.rows):
        raise CompactError(
            f"{path} is not the merged file of {intent.file_name}: expected {intent.output.bytes} bytes and"
            f" {intent.rows} rows, got {size} and {rows}"
        )


def recover(directory: Path) -> int:
    """Finishes the swaps that were decided, removes what was not; returns how many were finished.

    Only while no other process swaps in this directory. Raises CompactError when neither is safe.
    """
    intents = _intents(directory)
    for intent in intents:
        if not (directory / intent.temporary).exists() and not (directory / intent.output.name).exists():
            _take_back(directory, intent)
            continue
        for _ in _finish(directory, intent):
            pass
    for name in names(directory):
        if name.startswith(_PREFIX) and name.endswith(".tmp"):
            (directory / name).unlink()
    return len(intents)


def _take_back(directory: Path, intent: Intent) -> None:
    """The merged file has been lost by other hands. Nothing is wrong as long as every input is there."""
    missing = [part.name for part in intent.inputs if not (directory / part.name).exists()]
    if missing:
        raise CompactError(
            f"{directory / intent.file_name}: the merged file {intent.output.name} has gone, and of"
            f" its inputs {', '.join(missing)}: restore them, or remove the intent file to give up these rows"
        )
    (directory / intent.file_name).unlink()


def event_files(directory: Path) -> list[Path]:
    """The complete files of one date, by name, each row once even in the middle of a swap."""
    seen: tuple[list[Intent], set[str]] | None = None
    while True:
        listed = names(directory)
        now = _intents(directory), {name for name in listed if is_event_file(name)}
        if now == seen:
            break
        seen = now  # a listing is not taken in one instant: two alike are
    intents, found = now
    for intent in intents:
        if intent.output.name in found:
            found -= {part.name for part in intent.inputs}
    return [directory / name for name in sorted(found)]


def is_event_file(name: str) -> bool:
    """A complete file by its name; temporary and hidden ones begin with a dot."""
    return name.endswith(".parquet") and not name.startswith(".")


def names(directory: Path) -> list[str]:
    """What is in a directory. Raises CompactError (Path.glob would show an unreadable one as empty)."""
    try:
        return sorted(path.name for path in directory.iterdir())
    except OSError as error:
        raise CompactError(f"{directory} cannot be read: {error.strerror or error}") from error


def pending(directory: Path) -> int:
    """How many decided swaps wait for ``recover``."""
    return len(_intents(directory))


def _intents(directory: Path) -> list[Intent]:
    found = []
    for name in names(directory):
        if not (name.startswith(_PREFIX) and name.endswith(".json")):
            continue
        path = directory / name
        try:
            intent = msgspec.json.decode(path.read_bytes(), type=Intent)
        except FileNotFoundError:
            continue  # finished in this moment
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise CompactError(f"{path} is no intent of a compaction: {reason(error)}") from error
        except OSError as error:
            raise CompactError(f"{path} cannot be read: {error.strerror or error}") from error
        # These are files that will be removed: never outside of this directory, nor the result itself.
        parts = {part.name for part in intent.inputs}
        if (
            name != intent.file_name
            or intent.output.name in parts
            or not all(is_event_file(part) and "/" not in part for part in (intent.output.name, *parts))
        ):
            raise CompactError(f"{path} is no intent of a compaction: its file names cannot be")
        found.append(intent)
    return found


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
