"""What a replay finds, as Arrow record batches that come one by one, or all at once for Arrow, pandas and
polars.

Prices and sizes stay the integers that they are; ``dollars`` and ``contracts`` make exact decimals of them.
Not here: what is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from kalshi_fast.errors import ConfigError, FieldError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import pandas as pd
    import polars as pl
    from numpy.typing import NDArray

# Name endings of exact integers and how many of their digits stand behind the point.
_SCALES: Final = {"_half_e4": 4, "_e2": 2, "_e4": 4, "_e8": 8}
_TIME: Final = pa.timestamp("ns", "UTC")


class Tables:
    """``for batch in tables``: record batches of ``schema``, made while the recording is read. Each iteration
    reads it anew; ``arrow``, ``pandas`` and ``polars`` hold all of it in memory."""

    def __init__(self, schema: pa.Schema, read: Callable[[], Iterator[pa.RecordBatch]]) -> None:
        self.schema = schema
        self._read = read

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        return self._read()

    def reader(self) -> pa.RecordBatchReader:
        """For those who take Arrow streams: DuckDB, polars, ADBC, a Parquet writer."""
        return pa.RecordBatchReader.from_batches(self.schema, self._read())

    def arrow(self) -> pa.Table:
        """All of it as an Arrow table."""
        return pa.Table.from_batches(list(self), self.schema).unify_dictionaries()

    def pandas(self) -> pd.DataFrame:
        """All of it as a pandas frame; sizes and prices are integers, times are UTC."""
        try:
            import pandas  # noqa: F401 - to say what is missing before anything is read
        except ImportError as error:
            raise ConfigError("pandas is not installed: pip install 'kalshi-fast[pandas]'") from error
        return self.arrow().to_pandas()

    def polars(self) -> pl.DataFrame:
        """All of it as a polars frame."""
        try:
            import polars
        except ImportError as error:
            raise ConfigError("polars is not installed: pip install 'kalshi-fast[polars]'") from error
        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame)  # noqa: S101 - of a table it makes a frame
        return frame


def record_batch(
    schema: pa.Schema, columns: Mapping[str, NDArray[Any]], tickers: list[str]
) -> pa.RecordBatch:
    """Columns as a batch of the schema: ``market`` from ``market_ix``, times from ``…_ns``; nulls from -1."""
    arrays = []
    for field in schema:
        if field.name == "market":
            codes = pa.array(columns["market_ix"])
            arrays.append(pa.DictionaryArray.from_arrays(codes, pa.array(tickers, pa.string()), safe=False))
            continue
        column = columns[f"{field.name}_ns" if field.type == _TIME else field.name]
        if field.type == _TIME:
            arrays.append(pa.array(column).view(_TIME))
        elif pa.types.is_fixed_size_list(field.type):
            values = pa.array(np.ascontiguousarray(column).reshape(-1), field.type.value_type)
            arrays.append(pa.FixedSizeListArray.from_arrays(values, type=field.type))
        elif field.nullable:
            none = column < 0 if not field.name.startswith("spread") else column == _NO_SPREAD
            arrays.append(pa.array(column.astype(field.type.to_pandas_dtype(), copy=False), mask=none))
        else:
            arrays.append(pa.array(column, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


_NO_SPREAD: Final = -(2**31)


def decimals(column: pa.Array | pa.ChunkedArray, scale: int) -> pa.Array | pa.ChunkedArray:
    """Integers as exact decimals: 123456 with a scale of 4 is 12.3456."""
    if isinstance(column, pa.ChunkedArray):
        kind = pa.decimal128(19, scale)
        return pa.chunked_array([decimals(chunk, scale) for chunk in column.chunks], kind)
    whole = column.cast(pa.int64()).cast(pa.decimal128(19, 0))
    return pa.Array.from_buffers(
        pa.decimal128(19, scale), len(whole), whole.buffers(), whole.null_count, whole.offset
    )


def exact(table: pa.Table) -> pa.Table:
    """The table with every ``…_e4``, ``…_e2``, ``…_e8`` column as an exact decimal, without the ending:
    prices in dollars, sizes in contracts. ``mid_half_e4`` becomes ``mid`` (with five digits)."""
    names, columns = [], []
    for name, column in zip(table.column_names, table.columns, strict=True):
        ending = next((ending for ending in _SCALES if name.endswith(ending)), None)
        if ending is None or not pa.types.is_integer(column.type):
            names.append(name)
            columns.append(column)
            continue
        names.append(name.removesuffix(ending))
        if ending == "_half_e4":  # a half of 1e-4 is five of 1e-5
            column = pa.compute.multiply(column.cast(pa.int64()), pa.scalar(5, pa.int64()))
            columns.append(decimals(column, 5))
        else:
            columns.append(decimals(column, _SCALES[ending]))
    return pa.table(columns, names)


def dollars(price_e4: int) -> str:
    """A price as text: 4567 is ``0.4567``."""
    if not isinstance(price_e4, int | np.integer):
        raise FieldError("price_e4", price_e4, "an integer")
    sign, price = "-" if price_e4 < 0 else "", abs(int(price_e4))
    return f"{sign}{price // 10_000}.{price % 10_000:04d}"


def contracts(qty_e2: int) -> str:
    """A size as text: 12050 is ``120.50``."""
    if not isinstance(qty_e2, int | np.integer):
        raise FieldError("qty_e2", qty_e2, "an integer")
    sign, qty = "-" if qty_e2 < 0 else "", abs(int(qty_e2))
    return f"{sign}{qty // 100}.{qty % 100:02d}"
