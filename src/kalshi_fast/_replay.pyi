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
