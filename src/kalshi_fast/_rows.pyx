"""A whole book into the columns at once: the rows of a snapshot, and the states of all its levels.

Not here: what such rows mean, and what to do when they do not fit (``recorder``).
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from kalshi_fast._book cimport Levels, OrderBook, slot_below
from kalshi_fast._columns cimport EventColumns, EventRows, LevelColumns, LevelRows, append_event, append_level

from kalshi_fast._columns import SNAPSHOT as _SNAPSHOT

cdef int SNAPSHOT = _SNAPSHOT


def write_book(
    OrderBook book not None, before, EventColumns events not None, LevelColumns levels not None,
    uint64_t conn_id, uint32_t sid, uint64_t seq, int32_t ix, int32_t id_ix, int64_t ts_us, int64_t ingest_ns,
):
    """Every level of the book, best first, and size 0 for the levels of ``before`` that are gone.

    ``before``: both sides as ``OrderBook.ladders`` has them. Returns how many events were written, or -1 when
    the buffers have no room for all of it: then nothing is written.
    """
    cdef const Levels* resting = book.levels
    cdef Py_ssize_t depth = resting.depth[0] + resting.depth[1]
    cdef Py_ssize_t changes = depth + len(before[0]) + len(before[1])
    cdef EventRows* event_rows = &events.rows
    cdef LevelRows* level_rows = &levels.rows
    cdef int side, slot, price
    cdef int64_t size
    if event_rows.capacity - event_rows.n < depth or level_rows.capacity - level_rows.n < changes:
        return -1
    for side in range(2):
        for price, _ in before[side]:
            slot = resting.slot_of[price]
            if slot < 0 or resting.qty[side][slot] == 0:
                append_level(level_rows, ix, id_ix, side, price, 0, ts_us, ingest_ns)
        slot = resting.best[side]
        while slot >= 0:
            price, size = book.grid.price_of[slot], resting.qty[side][slot]
            append_event(
                event_rows, SNAPSHOT, conn_id, sid, seq, ix, id_ix, side, price, size, ts_us, ingest_ns
            )
            append_level(level_rows, ix, id_ix, side, price, size, ts_us, ingest_ns)
            slot = slot_below(resting, side, slot)
    return depth
