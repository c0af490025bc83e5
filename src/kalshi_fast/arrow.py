"""What events and level states look like in Arrow: on disk in the journal, and in the stores.

In the journal a row has codes where the stores have text: a market is a number that the recorder has given
it. ``Names`` are those numbers' texts; with them ``events`` and ``levels`` dress a journal's columns for a
store without copying a value. Not here: the columns' meaning (sql/), the journal's files (``journal``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa

from kalshi_fast._columns import event_arrays, event_bytes, level_arrays, level_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

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


def _stored_schema(
    arrays: Callable[[bytearray, int], dict[str, NDArray[Any]]], size: Callable[[int], int]
) -> pa.Schema:
    return pa.schema(
        [(name, pa.array(column).type) for name, column in arrays(bytearray(size(1)), 1).items()]
    )


STORED_EVENTS: Final = _stored_schema(event_arrays, event_bytes)
STORED_LEVELS: Final = _stored_schema(level_arrays, level_bytes)
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_END_BYTES = 8  # of an Arrow stream


def _schema_bytes(schema: pa.Schema) -> int:
    sink = pa.BufferOutputStream()
    pa.ipc.new_stream(sink, schema, options=_OPTIONS).close()
    return len(sink.getvalue()) - _END_BYTES


_SCHEMA_BYTES = {id(schema): _schema_bytes(schema) for schema in (STORED_EVENTS, STORED_LEVELS)}


def stored(schema: pa.Schema, arrays: Mapping[str, NDArray[Any]], rows: int) -> pa.RecordBatch:
    """The first ``rows`` of columns as a record batch over the same memory."""
    return pa.RecordBatch.from_arrays([pa.array(arrays[name][:rows]) for name in schema.names], schema=schema)


def pack(schema: pa.Schema, arrays: Mapping[str, NDArray[Any]], rows: int) -> bytes:
    """The first ``rows`` of columns as one Arrow IPC message (LZ4), without the schema."""
    batch = stored(schema, arrays, rows)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=_OPTIONS) as stream:
        stream.write_batch(batch)
    whole = sink.getvalue()
    start = _SCHEMA_BYTES[id(schema)]
    return bytes(memoryview(whole)[start : len(whole) - _END_BYTES])


def unpack(schema: pa.Schema, message: bytes | memoryview) -> pa.RecordBatch:
    """The columns that ``pack`` has packed. Raises pa.ArrowInvalid or OSError when it is none."""
    batch = pa.ipc.read_record_batch(pa.py_buffer(message), schema)
    batch.validate(full=True)
    return batch


class Names:
    """The tickers and market ids of one recorder, by number; they only grow."""

    def __init__(self, tickers: list[str] | None = None, ids: list[str] | None = None) -> None:
        self.tickers = tickers if tickers is not None else []
        self.ids = ids if ids is not None else []
        self._tickers_array = pa.array([], pa.string())
        self._ids_array = pa.array([], pa.string())

    def events(self, stored: pa.RecordBatch) -> pa.RecordBatch:
        """Stored events as a record batch of EVENT_SCHEMA over the same memory."""
        return self._dress(EVENT_SCHEMA, stored)

    def levels(self, stored: pa.RecordBatch) -> pa.RecordBatch:
        """Stored level states as a record batch of LEVEL_SCHEMA over the same memory."""
        return self._dress(LEVEL_SCHEMA, stored)

    def _dress(self, schema: pa.Schema, stored: pa.RecordBatch) -> pa.RecordBatch:
        if len(self._tickers_array) < len(self.tickers):
            self._tickers_array = pa.array(self.tickers, pa.string())
        if len(self._ids_array) < len(self.ids):
            self._ids_array = pa.array(self.ids, pa.string())
        dictionaries = {
            "type": _TYPES,
            "side": _SIDES,
            "market_ticker": self._tickers_array,
            "market_id": self._ids_array,
        }
        columns = []
        for field in schema:
            column = stored.column(_BUFFER_NAMES.get(field.name, field.name))
            if field.name in dictionaries:
                column = pa.DictionaryArray.from_arrays(column, dictionaries[field.name], safe=False)
            columns.append(column.view(field.type) if column.type != field.type else column)
        return pa.RecordBatch.from_arrays(columns, schema=schema)
