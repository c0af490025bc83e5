"""Arrow columns of an event table become a chunk; codes come from the dictionaries, no text per row.

Not here: where the columns are read (``parquet``, ``database``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.errors import ReplayError, excerpt
from kalshi_fast.replaying.chunks import DTYPES, Chunk, make_chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from numpy.typing import NDArray

_TYPES: Final = {"snapshot": 0, "delta": 1, "clear": 2, "gap": 3}
_SIDES: Final = {"yes": 0, "no": 1}
_TEXTS: Final = {"type": _TYPES, "side": _SIDES}
_NOT_A_CODE: Final = 127
# Columns whose name in the tables is not their name in a chunk.
TABLE_NAMES: Final = {"market_ix": "market_ticker", "ts_us": "ts", "ingest_ns": "ingest_ts"}


def table_columns(columns: Collection[str]) -> list[str]:
    """The names of these columns in a table of events."""
    return [TABLE_NAMES.get(name, name) for name in DTYPES if name in columns]


def wrong_columns(schema: pa.Schema, wanted: pa.Schema = EVENT_SCHEMA) -> list[str]:
    """What is odd about a table's columns, each with what was expected; empty: they can be read."""
    odd = []
    for name in table_columns(DTYPES) if wanted is EVENT_SCHEMA else wanted.names:
        expected = wanted.field(name).type
        found = schema.field(name).type if schema.names.count(name) == 1 else None
        same = found == expected or (pa.types.is_dictionary(expected) and _is_text(found))
        if not same:
            odd.append(f"{name} is {found or 'missing'} instead of {expected}")
    return odd


def _is_text(kind: pa.DataType | None) -> bool:
    if kind is not None and pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind is not None and (pa.types.is_string(kind) or pa.types.is_large_string(kind))


def chunks_of(table: pa.Table, columns: Collection[str], number: Callable[[str], int]) -> Iterator[Chunk]:
    """The rows of a table, without those of markets whose ``number`` is negative. Raises ReplayError."""
    for batch in table.to_batches():
        if batch.num_rows:
            found = {name: _column(batch, name, number) for name in columns}
            chunk = make_chunk(found)
            unwanted = chunk.market_ix < 0
            if unwanted.any():
                chunk = chunk.take(~unwanted)
            if len(chunk):
                yield chunk


def _column(batch: pa.RecordBatch, name: str, number: Callable[[str], int]) -> NDArray[Any]:
    in_table = TABLE_NAMES.get(name, name)
    column = batch.column(in_table)
    if column.null_count:
        raise ReplayError(f"{in_table} is empty in {column.null_count} rows")
    if name == "market_ix":
        return _coded(column, number, np.dtype(np.int32))
    if name in _TEXTS and not pa.types.is_integer(column.type):  # a database gives the codes themselves
        codes = _TEXTS[name]
        found = _coded(column, lambda text: codes.get(text, _NOT_A_CODE), np.dtype(np.int8))
        if len(found) and found.max() == _NOT_A_CODE:
            row = int(found.argmax())
            raise ReplayError(f"{name} is {excerpt(column[row].as_py())}, expected one of {', '.join(codes)}")
        return found
    if pa.types.is_timestamp(column.type):
        column = column.view(pa.int64())
    numbers: NDArray[Any] = column.to_numpy()
    if name == "price_e4" and len(numbers) and numbers.max() > 10_000:
        raise ReplayError(f"price_e4 is {numbers.max()}, expected 0 to 10000")
    return numbers


def _coded(column: pa.Array, code: Callable[[str], int], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Texts as numbers: one look-up for each text in the dictionary."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    indices: NDArray[Any] = column.indices.to_numpy()
    used = column.dictionary.to_pylist()
    if len(used) > 2 * len(indices):  # a slice of something larger: names that no row has are not ours
        unique = np.unique(indices)
        numbers = np.full(len(used), -1, dtype)
        numbers[unique] = [code(used[i]) for i in unique]
    else:
        numbers = np.fromiter(map(code, used), dtype, len(used))
    if indices.dtype == dtype and np.array_equal(numbers, np.arange(len(numbers))):
        return indices
    found: NDArray[Any] = numbers[indices]
    return found
