"""Sealed batches: filled column buffers on their way to the stores, and what they look like in Arrow.

A batch has an identity (``recorder_id``, ``number``) and is immutable until it is released to its pool.
The Arrow views share the memory of the buffers: no value is copied, and a view must not outlive the
release. Not here: filling buffers (``recorder``), storing them (``sinks``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from kalshi_fast._columns import EventColumns, LevelColumns

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

SCHEMA_VERSION: Final = 1

_TYPES = pa.array(["snapshot", "delta", "clear", "gap"])
_SIDES = pa.array(["yes", "no"])
_CODE = pa.dictionary(pa.int8(), pa.string())
_MARKET = pa.dictionary(pa.int32(), pa.string())

EVENT_SCHEMA: Final = pa.schema(
    [
        ("type", _CODE),
        ("conn_id", pa.uint64()),
        ("sid", pa.uint32()),
        ("seq", pa.uint64()),
        ("market_id", _MARKET),
        ("market_ticker", _MARKET),
        ("side", _CODE),
        ("price_e4", pa.uint16()),
        ("qty_e2", pa.int64()),
        ("ts", pa.timestamp("us", "UTC")),
        ("ingest_ts", pa.timestamp("ns", "UTC")),
    ]
)
LEVEL_SCHEMA: Final = pa.schema(
    [
        ("market_id", _MARKET),
        ("market_ticker", _MARKET),
        ("side", _CODE),
        ("price_e4", pa.uint16()),
        ("size_e2", pa.int64()),
        ("ts", pa.timestamp("us", "UTC")),
        ("ingest_ts", pa.timestamp("ns", "UTC")),
        ("version", pa.uint64()),
    ]
)
# Columns whose name in the buffers is not their name in the tables.
_BUFFER_NAMES = {
    "ts": "ts_us",
    "ingest_ts": "ingest_ns",
    "market_id": "id_ix",
    "market_ticker": "market_ix",
}


@dataclass(slots=True, frozen=True)
class HealthEvent:
    """One row of feed_health."""

    ts_ns: int
    conn_id: int
    event: str
    sid: int = 0
    seq: int = 0
    market_ticker: str = ""
    detail: str = ""


@dataclass(slots=True, frozen=True)
class RejectedFrame:
    """A frame that could not be used, as it came, and why."""

    ingest_ns: int
    conn_id: int
    reason: str
    payload: bytes


@dataclass(slots=True)
class Batch:
    """Buffers with rows, and the rarer records of the same stretch of time.

    ``names``: how many tickers and ids the rows may refer to.
    """

    events: EventColumns
    levels: LevelColumns
    number: int = 0
    names: tuple[int, int] = (0, 0)
    health: list[HealthEvent] = field(default_factory=list)
    rejected: list[RejectedFrame] = field(default_factory=list)

    @property
    def empty(self) -> bool:
        return not (self.events.n or self.levels.n or self.health or self.rejected)


class BatchPool:
    """Buffers in circulation: made when needed, used again, never more than ``max_batches`` at ease.

    ``pressed`` says that the limit is reached: the feed stops reading until a store has caught up, and
    what the exchange then drops shows as a sequence gap. ``release`` may be called from another thread.
    """

    def __init__(self, rows: int, max_batches: int) -> None:
        self.rows = rows
        self.max_batches = max_batches
        self.made = 0
        self._free: deque[Batch] = deque()

    @property
    def pressed(self) -> bool:
        return self.made >= self.max_batches and not self._free

    def acquire(self, version: int) -> Batch:
        """An empty batch; the versions of its levels go on after ``version``."""
        try:
            batch = self._free.popleft()
        except IndexError:
            self.made += 1
            batch = Batch(EventColumns(self.rows), LevelColumns(self.rows))
        batch.levels.begin(version)
        return batch

    def release(self, batch: Batch) -> None:
        """The batch is delivered; its memory is free for the next rows."""
        batch.events.begin()
        batch.health = []
        batch.rejected = []
        self._free.append(batch)


class ArrowViews:
    """Wraps buffers as Arrow record batches. ``tickers`` and ``ids`` are the growing lists of ``Books``."""

    def __init__(self, tickers: Sequence[str], ids: Sequence[str]) -> None:
        self._tickers = tickers
        self._ids = ids
        self._dictionaries = {
            "type": _TYPES,
            "side": _SIDES,
            "market_ticker": pa.array([], pa.string()),
            "market_id": pa.array([], pa.string()),
        }

    def events(self, columns: EventColumns, names: tuple[int, int]) -> pa.RecordBatch:
        """The valid rows as a record batch of EVENT_SCHEMA over the same memory."""
        return self._view(EVENT_SCHEMA, columns.arrays, columns.n, names)

    def levels(self, columns: LevelColumns, names: tuple[int, int]) -> pa.RecordBatch:
        """The valid rows as a record batch of LEVEL_SCHEMA over the same memory."""
        return self._view(LEVEL_SCHEMA, columns.arrays, columns.n, names)

    def _view(
        self, schema: pa.Schema, arrays: dict[str, NDArray[Any]], rows: int, names: tuple[int, int]
    ) -> pa.RecordBatch:
        for column, growing, known in zip(
            ("market_ticker", "market_id"), (self._tickers, self._ids), names, strict=True
        ):
            if len(self._dictionaries[column]) < known:
                self._dictionaries[column] = pa.array(growing[:known], pa.string())
        return pa.RecordBatch.from_arrays(
            [
                self._column(column, arrays[_BUFFER_NAMES.get(column.name, column.name)], rows)
                for column in schema
            ],
            schema=schema,
        )

    def _column(self, column: pa.Field, values: NDArray[np.generic], rows: int) -> pa.Array:
        buffers = [None, pa.py_buffer(values)]
        if not pa.types.is_dictionary(column.type):
            return pa.Array.from_buffers(column.type, rows, buffers)
        codes = pa.Array.from_buffers(column.type.index_type, rows, buffers)
        return pa.DictionaryArray.from_arrays(codes, self._dictionaries[column.name], safe=False)
