from typing import Final

import numpy as np
from numpy.typing import NDArray

class DeltaFrames:
    n: Final[int]
    def __init__(
        self,
        heads: list[bytes],
        market_ix: NDArray[np.int32],
        side: NDArray[np.int8],
        price_e4: NDArray[np.uint16],
        delta_e2: NDArray[np.int64],
        times: bytes,
        ends: NDArray[np.int64],
        *,
        newline: bool = True,
    ) -> None: ...
    def write(
        self,
        first: int,
        stop: int,
        slot_of_market: NDArray[np.int32],
        sids: NDArray[np.int64],
        seqs: NDArray[np.int64],
        yes_scale: NDArray[np.int8],
    ) -> tuple[bytes, int]: ...
