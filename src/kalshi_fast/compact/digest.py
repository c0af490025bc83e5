"""Digests that tell whether two streams of rows hold the same rows, and in the same order.

Every row becomes one 64-bit hash over all of its columns. ``rows`` adds hashes up, in two independent
ways, so that the order does not count; ``order`` weighs each with its place. Vectorised: the cost is a few
nanoseconds per value. Not here: cryptography; this finds faults, not forgers.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from numpy.typing import NDArray

    _Hashes: TypeAlias = NDArray[np.uint64]

_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)
_OTHER: Final = np.uint64(0xC2B2AE3D27D4EB4F)
_MASK: Final = (1 << 64) - 1


def _mixed(values: _Hashes) -> _Hashes:
    """The finalizer of splitmix64: every bit of the input changes half of the output's."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _words(column: pa.Array) -> _Hashes:
    """A 64-bit word per value: the number itself, a hash of a string or a decimal, or one word for all nulls.

    A value's word is its own, whatever else is in the batch: the digest may not depend on the cuts.
    """
    if pa.types.is_string(column.type):
        column = column.dictionary_encode()
    if pa.types.is_dictionary(column.type):
        # The strings are hashed once each, not once per row.
        words = np.array([_string(value) for value in column.dictionary.to_pylist()] or [0], np.uint64)
        found: _Hashes = words[column.indices.fill_null(0).to_numpy(zero_copy_only=False)]
    elif pa.types.is_decimal128(column.type):
        halves: _Hashes = np.frombuffer(column.buffers()[1], np.uint64)
        halves = halves[2 * column.offset : 2 * (column.offset + len(column))]
        found = _mixed(halves[::2]) + halves[1::2] * _GOLDEN
    else:
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        elif pa.types.is_boolean(column.type):
            column = column.cast(pa.uint8())
        numbers: NDArray[Any] = column.fill_null(0).to_numpy(zero_copy_only=False)
        found = numbers.astype(np.uint64)
    if column.null_count:
        found = np.where(column.is_null().to_numpy(zero_copy_only=False), _OTHER, found)
    return found


def _string(text: str | None) -> int:
    if text is None:
        return int(_OTHER)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def row_hashes(batch: pa.RecordBatch) -> _Hashes:
    """One hash per row over all columns, in their order."""
    hashes = np.zeros(batch.num_rows, np.uint64)
    for column in batch.columns:
        hashes = _mixed(hashes * _OTHER + _words(column) + _GOLDEN)
    return hashes


@dataclass(slots=True)
class Digest:
    """What a stream of batches amounts to, however it is cut: ``rows`` without its order."""

    count: int = 0
    sum: int = 0
    other_sum: int = 0
    order: int = 0

    def add(self, batch: pa.RecordBatch) -> None:
        hashes = row_hashes(batch)
        places = np.arange(self.count, self.count + len(hashes), dtype=np.uint64)
        self.count += len(hashes)
        self.sum = (self.sum + int(hashes.sum())) & _MASK
        self.other_sum = (self.other_sum + int(_mixed(hashes ^ _OTHER).sum())) & _MASK
        self.order = (self.order + int(_mixed(hashes + places * _GOLDEN).sum())) & _MASK

    @property
    def rows(self) -> tuple[int, int, int]:
        """Equal for the same rows in any order."""
        return self.count, self.sum, self.other_sum
