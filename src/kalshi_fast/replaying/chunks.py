"""A stretch of recorded events as plain numpy columns of one length, in time order.

Not here: where they come from (``source``), what they do to a book (``_replay``).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast._columns import GAP
from kalshi_fast.books import HANDOVER_NS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

DTYPES: Final[dict[str, np.dtype[Any]]] = {
    "type": np.dtype(np.int8),
    "market_ix": np.dtype(np.int32),
    "side": np.dtype(np.int8),
    "price_e4": np.dtype(np.uint16),
    "qty_e2": np.dtype(np.int64),
    "ts_us": np.dtype(np.int64),
    "ingest_ns": np.dtype(np.int64),
    "conn_id": np.dtype(np.uint64),
    "sid": np.dtype(np.uint32),
    "seq": np.dtype(np.uint64),
}
# What it takes to have the books, and nothing more.
BOOK_COLUMNS: Final = ("type", "market_ix", "side", "price_e4", "qty_e2", "ingest_ns")
ALL_COLUMNS: Final = tuple(DTYPES)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events in the order of ``ingest_ns`` (equal ones in the order in which they were recorded).

    ``type`` and ``side`` are the codes of ``_columns`` and ``_book``; ``market_ix`` indexes the source's
    ``tickers``. A column that was not asked for is there and all zero (one value, repeated without memory).
    """

    type: NDArray[np.int8]
    market_ix: NDArray[np.int32]
    side: NDArray[np.int8]
    price_e4: NDArray[np.uint16]
    qty_e2: NDArray[np.int64]
    ts_us: NDArray[np.int64]
    ingest_ns: NDArray[np.int64]
    conn_id: NDArray[np.uint64]
    sid: NDArray[np.uint32]
    seq: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.type)

    def columns(self) -> dict[str, NDArray[Any]]:
        """The columns by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def slice(self, first: int, stop: int) -> Chunk:
        """Rows ``first`` to ``stop``, over the same memory."""
        if first == 0 and stop == len(self):
            return self
        return Chunk(**{name: column[first:stop] for name, column in self.columns().items()})

    def take(self, rows: NDArray[Any]) -> Chunk:
        """The rows that a mask or a list of row numbers names, as a copy."""
        length = int(np.count_nonzero(rows)) if rows.dtype == np.bool_ else len(rows)
        return Chunk(
            **{
                name: absent(name, length) if is_absent(column) else column[rows]
                for name, column in self.columns().items()
            }
        )


def absent(name: str, length: int) -> NDArray[Any]:
    """A column that nobody asked for: zeros that take no memory."""
    return np.broadcast_to(np.zeros(1, DTYPES[name]), (length,))


def is_absent(column: NDArray[Any]) -> bool:
    """Was it made by ``absent``?"""
    return column.strides == (0,) and not column.flags.writeable


def make_chunk(columns: Mapping[str, NDArray[Any]]) -> Chunk:
    """A chunk of these columns; the missing ones are absent. Converts what has another dtype."""
    length = len(next(iter(columns.values())))
    return Chunk(
        **{
            name: np.ascontiguousarray(columns[name], dtype) if name in columns else absent(name, length)
            for name, dtype in DTYPES.items()
        }
    )


def first_fall(chunk: Chunk, last_ns: int) -> int | None:
    """The first row that is earlier than one before it (``last_ns``: before the first) by more than a
    handover explains. A gap may be: its time is that of the last good frame, whenever the loss was
    noticed."""
    latest = np.maximum.accumulate(np.maximum(chunk.ingest_ns, last_ns))
    falls = (chunk.ingest_ns < latest - HANDOVER_NS) & (chunk.type != GAP)
    return int(falls.argmax()) if falls.any() else None


def in_order(chunk: Chunk, last_ns: int) -> Chunk:
    """The rows in time order, equal times as they are. What is before ``last_ns`` by no more than a handover
    explains is moved there: what remains before it is gaps."""
    early = (chunk.ingest_ns < last_ns) & (chunk.ingest_ns >= last_ns - HANDOVER_NS)
    if early.any():
        chunk = replace(chunk, ingest_ns=np.where(early, last_ns, chunk.ingest_ns))
    if (chunk.ingest_ns[1:] < chunk.ingest_ns[:-1]).any():
        chunk = chunk.take(np.argsort(chunk.ingest_ns, kind="stable"))
    return chunk


def join(chunks: list[Chunk]) -> Chunk:
    """The rows of several chunks, one after the other."""
    if len(chunks) == 1:
        return chunks[0]
    parts = [chunk.columns() for chunk in chunks]
    length = sum(map(len, chunks))
    return Chunk(
        **{
            name: absent(name, length)
            if all(is_absent(part[name]) for part in parts)
            else np.concatenate([part[name] for part in parts])
            for name in DTYPES
        }
    )
