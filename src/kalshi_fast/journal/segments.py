"""The files of the journal: ``DIR/<first seq>.journal``, each beginning with a STATE record.

Not here: what is in them (``records``), which may go (``journal``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"([0-9]{20})\.journal")


@dataclass(slots=True)
class Segment:
    """One file: the seq of its first batch, and how many bytes of it count."""

    first_seq: int
    path: Path
    size_bytes: int
    damaged: bool = False


def path_of(directory: Path, first_seq: int) -> Path:
    return directory / f"{first_seq:020d}.journal"


def find(directory: Path) -> list[Segment]:
    """The segments of a directory in order. Raises OSError."""
    found = [
        Segment(int(match[1]), path, path.stat().st_size)
        for path in directory.iterdir()
        if (match := _NAME.fullmatch(path.name))
    ]
    return sorted(found, key=lambda segment: segment.first_seq)
