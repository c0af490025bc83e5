from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.books import Replica
from kalshi_fast.session import Subscription
from kalshi_fast.wire import OrderbookDelta

class DeltaPath:
    taken: int
    def __init__(
        self,
        subscriptions: dict[int, Subscription],
        replicas: dict[str, Replica],
        no_on_yes_scale: bool = False,
    ) -> None: ...
    def aim(self, conn_id: int, events: EventColumns, levels: LevelColumns) -> None: ...
    def take(self, message: OrderbookDelta, ingest_ns: int) -> bool: ...
