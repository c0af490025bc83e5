from typing import Any, Final

from numpy.typing import NDArray
from typing_extensions import Buffer

SNAPSHOT: Final = 0
DELTA: Final = 1
CLEAR: Final = 2
GAP: Final = 3

def event_bytes(capacity: int) -> int: ...
def level_bytes(capacity: int) -> int: ...
def event_arrays(memory: Buffer, capacity: int) -> dict[str, NDArray[Any]]: ...
def level_arrays(memory: Buffer, capacity: int) -> dict[str, NDArray[Any]]: ...

class EventColumns:
    capacity: Final[int]
    n: Final[int]
    arrays: Final[dict[str, NDArray[Any]]]
    def __init__(self, capacity: int, memory: Buffer | None = None) -> None: ...
    def add(
        self,
        type: int,  # noqa: A002
        conn_id: int,
        sid: int,
        seq: int,
        market_ix: int,
        id_ix: int,
        side: int,
        price_e4: int,
        qty_e2: int,
        ts_us: int,
        ingest_ns: int,
    ) -> bool: ...
    def begin(self) -> None: ...
    def __len__(self) -> int: ...

def last_states(arrays: dict[str, NDArray[Any]], n: int) -> dict[str, NDArray[Any]]: ...

class LevelColumns:
    capacity: Final[int]
    n: Final[int]
    version: Final[int]
    arrays: Final[dict[str, NDArray[Any]]]
    def __init__(self, capacity: int, memory: Buffer | None = None) -> None: ...
    def set(
        self,
        market_ix: int,
        id_ix: int,
        side: int,
        price_e4: int,
        size_e2: int,
        ts_us: int,
        ingest_ns: int,
    ) -> bool: ...
    def begin(self, version: int = 0) -> None: ...
    def __len__(self) -> int: ...
