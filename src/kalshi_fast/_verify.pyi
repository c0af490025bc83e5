from typing import Final

import numpy as np
from numpy.typing import NDArray

from kalshi_fast._replay import BookTable, Rows

COUNTS: Final[tuple[str, ...]]

class Verifier:
    table: Final[BookTable]
    sequences: Final[dict[tuple[int, int], list[int]]]
    unwritten: Final[int]
    violations: Final[list[tuple[int, int, str, str]]]
    def __init__(self, table: BookTable, keep: int = 100) -> None: ...
    def found(self) -> NDArray[np.int64]: ...
    def take(self, rows: Rows) -> None: ...
