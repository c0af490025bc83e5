from kalshi_fast._book import OrderBook
from kalshi_fast._columns import EventColumns, LevelColumns

def write_book(
    book: OrderBook,
    before: tuple[list[tuple[int, int]], list[tuple[int, int]]],
    events: EventColumns,
    levels: LevelColumns,
    conn_id: int,
    sid: int,
    seq: int,
    ix: int,
    id_ix: int,
    ts_us: int,
    ingest_ns: int,
) -> int: ...
