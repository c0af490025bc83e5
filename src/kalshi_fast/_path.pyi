from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast._state import BookState
from kalshi_fast.subscription import Subscription

class DeltaPath:
    every_read: bool
    not_before_ns: int
    taken: int
    written: int
    last_frame_ns: int
    def __init__(self, subscriptions: dict[int, Subscription], no_on_yes_scale: bool = False) -> None: ...
    def add(self, ticker: str, state: BookState) -> None: ...
    def forget(self, tickers: set[str]) -> None: ...
    def aim(self, conn_id: int, events: EventColumns, levels: LevelColumns, seal_rows: int) -> None: ...
    def take(
        self, read: bytes, ingest_ns: int, start: int = 0, end: int = -1, last: bool = True
    ) -> int: ...
