from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kalshi_fast._replay import BookTable

SET: Final = 0
LEVEL: Final = 1
CLEARED: Final = 2
UPDATE: Final[np.dtype[Any]]

class DepthUpdates:
    table: Final[BookTable]
    crossed: Final[int]
    unknown: Final[int]
    def __init__(self) -> None: ...
    @property
    def faults(self) -> int: ...
    def want(self, market_ix: int) -> None: ...
    def apply(
        self,
        type: NDArray[np.int8],  # noqa: A002
        market_ix: NDArray[np.int32],
        side: NDArray[np.int8],
        price_e4: NDArray[np.uint16],
        qty_e2: NDArray[np.int64],
    ) -> NDArray[Any]: ...
    def levels(self, market_ix: int, row: int = -1) -> NDArray[Any]: ...
