from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kalshi_fast._book import OrderBook

OUTCOMES: Final[tuple[str, ...]]

class BookTable:
    books: Final[list[OrderBook]]
    applied: Final[int]
    skipped: Final[int]
    faults: Final[int]
    fault: Final[int]
    fault_row: Final[int]
    def __init__(self, markets: int = 0) -> None: ...
    def grow(self, markets: int) -> None: ...
    def __len__(self) -> int: ...
    def apply(
        self,
        type: NDArray[np.int8],  # noqa: A002
        market_ix: NDArray[np.int32],
        side: NDArray[np.int8],
        price_e4: NDArray[np.uint16],
        qty_e2: NDArray[np.int64],
        first: int = 0,
        stop: int = -1,
    ) -> None: ...
    def snapshot_columns(self) -> dict[str, NDArray[Any]]: ...

def open_frame(type: NDArray[np.int8], market_ix: NDArray[np.int32]) -> int: ...  # noqa: A002

class Rows:
    n: Final[int]
    def __init__(
        self,
        type: NDArray[np.int8],  # noqa: A002
        market_ix: NDArray[np.int32],
        side: NDArray[np.int8],
        price_e4: NDArray[np.uint16],
        qty_e2: NDArray[np.int64],
        ingest_ns: NDArray[np.int64],
        ts_us: NDArray[np.int64] | None = None,
        conn_id: NDArray[np.uint64] | None = None,
        sid: NDArray[np.uint32] | None = None,
        seq: NDArray[np.uint64] | None = None,
    ) -> None: ...
    def __len__(self) -> int: ...
    def place(self, at_ns: int, behind: bool) -> int: ...
    def part(self, first: int, stop: int) -> Rows: ...

class Event:
    kind: Final[int]
    market_ix: Final[int]
    ticker: Final[str]
    side: Final[int]
    price_e4: Final[int]
    qty_e2: Final[int]
    ts_us: Final[int]
    ingest_ns: Final[int]
    conn_id: Final[int]
    sid: Final[int]
    seq: Final[int]
    book: Final[OrderBook]
    @property
    def known(self) -> bool: ...
    def copy(self) -> Event: ...

class EventReader:
    table: Final[BookTable]
    event: Final[Event]
    def __init__(self, table: BookTable, tickers: list[str], chunks: Iterable[Rows]) -> None: ...
    def __iter__(self) -> Iterator[Event]: ...
    def __next__(self) -> Event: ...
    def drive(
        self,
        on_snapshot: Callable[[Event], None] | None,
        on_delta: Callable[[Event], None] | None,
        on_gap: Callable[[Event], None] | None,
        on_book: Callable[[Event], None] | None,
    ) -> int: ...

def advance(table: BookTable, rows: Rows, at: int, frames: int, until_ns: int) -> tuple[int, int]: ...
