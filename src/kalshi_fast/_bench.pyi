from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import picows
from numpy.typing import NDArray

from kalshi_fast._book import OrderBook
from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast._path import DeltaPath
from kalshi_fast.receiver import Receiver

class FloorListener(picows.WSListener):
    frames: Final[int]
    def __init__(
        self,
        warm: int,
        total: int,
        on_warm: Callable[[picows.WSTransport], None],
        on_done: Callable[[], None],
    ) -> None: ...

class LagFloor(FloorListener):
    def lags_ns(self) -> NDArray[np.int64]: ...

class Frames:
    count: Final[int]
    def __init__(self, payloads: list[bytes]) -> None: ...
    def __len__(self) -> int: ...

COMPILER: Final[str]
CYTHON: Final[str]
CAN_COUNT: Final[bool]

def drive_counted(path: DeltaPath, rest: Receiver, frames: Frames, frames_per_read: int) -> None: ...
def drive(
    path: DeltaPath, rest: Receiver, frames: Frames, frames_per_read: int, *, copy: bool = True
) -> int: ...

class Changes:
    count: Final[int]
    def __init__(
        self,
        markets: Sequence[int] | NDArray[Any],
        sides: Sequence[int] | NDArray[Any],
        prices_e4: Sequence[int] | NDArray[Any],
        deltas_e2: Sequence[int] | NDArray[Any],
    ) -> None: ...

def to_books(books: list[OrderBook], changes: Changes) -> int: ...
def to_columns(events: EventColumns, levels: LevelColumns, changes: Changes) -> None: ...
def overslept_ns() -> int: ...
def pace(
    fd: int,
    heads: list[bytes],
    start_us: int,
    rate: int,
    group: int,
    late_ns: NDArray[np.int64],
    margin_ns: int,
) -> None: ...

class LagProbe:
    rows: Final[int]
    def __init__(self, capacity: int) -> None: ...
    def follow(self, events: EventColumns) -> None: ...
    def end_of_read(self) -> None: ...
    def lags_ns(self) -> NDArray[np.int64]: ...
