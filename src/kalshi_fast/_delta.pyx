"""The common case of a delta in one step: message → sequence → book → columns, without Python calls.

``take`` either does all of it or nothing at all: whatever is not plain (a gap, an unknown market, legacy
fields, a price off the grid, a full buffer, a value that is wrong) it leaves untouched to the recorder's
own path, which knows what to do and what to say.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from kalshi_fast._book cimport OrderBook
from kalshi_fast._columns cimport EventColumns, LevelColumns
from kalshi_fast._decode cimport BAD, PRICE_MAX_E4, QTY_LIMIT_E2, parse_price_e4, parse_qty_e2, parse_rfc3339_us

from kalshi_fast._columns import DELTA as _DELTA

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* length) except NULL

cdef int DELTA = _DELTA


cdef class DeltaPath:
    """``DeltaPath(subscriptions, replicas)``: the live dicts of one connection, by sid and by ticker.

    ``no_on_yes_scale``: prices of the no side come as yes prices (``use_yes_price``).
    """

    cdef dict subscriptions
    cdef dict replicas
    cdef bint no_on_yes_scale
    cdef EventColumns events
    cdef LevelColumns levels
    cdef uint64_t conn_id
    cdef public int64_t taken  # deltas since the owner last set it to 0

    def __cinit__(self, dict subscriptions not None, dict replicas not None, bint no_on_yes_scale=False):
        self.subscriptions = subscriptions
        self.replicas = replicas
        self.no_on_yes_scale = no_on_yes_scale

    def aim(self, uint64_t conn_id, EventColumns events not None, LevelColumns levels not None):
        """Where the rows go from now on, and of which connection they are."""
        self.conn_id = conn_id
        self.events = events
        self.levels = levels

    def take(self, message, int64_t ingest_ns):
        """One decoded orderbook_delta. True when it has been dealt with: applied, and written if it is to be."""
        cdef object body = message.msg
        cdef object subscription = self.subscriptions.get(message.sid)
        cdef object replica = self.replicas.get(body.market_ticker)
        cdef object market, text
        cdef const char* chars
        cdef Py_ssize_t length
        cdef uint64_t seq
        cdef uint32_t sid
        cdef int64_t price, change, after, ts_us
        cdef int side, slot
        cdef OrderBook book
        if subscription is None or replica is None or replica.subscription is not subscription:
            return False
        market = replica.market
        seq = message.seq
        if seq != <uint64_t>subscription.next_seq:
            return False
        text = body.market_id
        if text is not market.market_id and text != market.market_id and text != "":
            return False
        book = replica.book
        if book.stale or self.events.n >= self.events.capacity or self.levels.n >= self.levels.capacity:
            return False

        text = body.price_dollars
        if text is None:
            return False
        chars = PyUnicode_AsUTF8AndSize(text, &length)
        price = parse_price_e4(chars, length)
        text = body.delta_fp
        if text is None or price == BAD:
            return False
        chars = PyUnicode_AsUTF8AndSize(text, &length)
        change = parse_qty_e2(chars, length)
        if change == BAD:
            return False
        text = body.ts_ms
        if text is not None:
            ts_us = <int64_t>text * 1000
        else:
            text = body.ts
            if text is None:
                ts_us = ingest_ns // 1000
            else:
                chars = PyUnicode_AsUTF8AndSize(text, &length)
                ts_us = parse_rfc3339_us(chars, length)
                if ts_us == BAD:
                    return False
        side = 0 if body.side == "yes" else 1
        if side == 1 and self.no_on_yes_scale:
            price = PRICE_MAX_E4 - price
        slot = book.grid.slot_of[price]
        if slot < 0:
            return False
        after = book.qty[side][slot] + change
        if after < 0 or after > QTY_LIMIT_E2:
            return False

        sid = message.sid
        subscription.next_seq = seq + 1
        book.put(side, slot, after)
        if not replica.active:
            return True
        self.events.append(
            DELTA, self.conn_id, sid, seq, market.ix, market.id_ix, side, price, change, ts_us, ingest_ns
        )
        self.levels.append(market.ix, market.id_ix, side, price, after, ts_us, ingest_ns)
        self.taken += 1
        return True
