"""The usual delta in one step: bytes → fields → sequence → book → columns, with no Python object made.

The scanner bets on the order of keys in which the exchange writes an orderbook_delta and on JSON without
spaces, and verifies every byte of that bet. ``take`` either does all of it or nothing at all: whatever is not
plain (another layout, a gap, a market that is not known, legacy fields, a price off the grid, a full buffer,
a value that is wrong) it leaves untouched to the link's own path, which decodes with msgspec, knows what to
do and what to say. Values are parsed by the same functions on both ways (``_decode``).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from kalshi_fast._book cimport OrderBook
from kalshi_fast._columns cimport EventColumns, LevelColumns
from kalshi_fast._decode cimport BAD, PRICE_MAX_E4, QTY_LIMIT_E2, parse_price_e4, parse_qty_e2, parse_rfc3339_us
from kalshi_fast._state cimport ID_CHARS, BookState, Sequence

from kalshi_fast._columns import DELTA as _DELTA

cdef int DELTA = _DELTA

cdef int64_t _MAX_TS_MS = 9_223_372_036_854  # as in wire.UnixMs: what int64 nanoseconds hold
cdef int _MAX_TEXT = 64
cdef int _MAX_TICKER = 128


# FNV-1a, computed while the ticker is read.
cdef uint64_t _HASH_SEED = 14695981039346656037ULL
cdef uint64_t _HASH_PRIME = 1099511628211ULL


cdef uint64_t _hash(const char* name, Py_ssize_t length) noexcept nogil:
    cdef uint64_t hash = _HASH_SEED
    cdef Py_ssize_t i
    for i in range(length):
        hash = (hash ^ <unsigned char>name[i]) * _HASH_PRIME
    return hash


cdef inline const char* _expect(
    const char* at, const char* end, const char* literal, Py_ssize_t length
) noexcept nogil:
    """Behind the literal, NULL when it does not stand here."""
    if at == NULL or end - at < length or memcmp(at, literal, length) != 0:
        return NULL
    return at + length


cdef inline const char* _number(const char* at, const char* end, uint64_t* value) noexcept nogil:
    """Behind a JSON integer of 1 to 18 digits without sign, NULL when there is none."""
    cdef const char* start = at
    cdef uint64_t found = 0
    if at == NULL:
        return NULL
    while at < end and b"0" <= at[0] <= b"9":
        found = found * 10 + <uint64_t>(at[0] - c'0')
        at += 1
        if at - start > 18:
            return NULL
    if at == start or (start[0] == b"0" and at - start > 1):
        return NULL
    value[0] = found
    return at


cdef inline const char* _quote(const char* at, const char* end, Py_ssize_t most) noexcept nogil:
    """The quote that ends a text of plain ASCII without escapes, NULL when it is another or a long one."""
    cdef const char* start = at
    if at == NULL:
        return NULL
    while at < end and at - start <= most:
        if at[0] == c'"':
            return at
        if at[0] < 32 or at[0] > 126 or at[0] == c'\\':
            return NULL
        at += 1
    return NULL


cdef class DeltaPath:
    """``DeltaPath(subscriptions)``: the live dict of a session, by sid. Books come with ``add``.

    ``no_on_yes_scale``: prices of the no side come as yes prices (``use_yes_price``). ``taken`` counts frames
    and ``written`` rows since the owner last set them to 0: of a standby's book no rows are written.
    """

    def __cinit__(self, dict subscriptions not None, bint no_on_yes_scale=False):
        self.subscriptions = subscriptions
        self.no_on_yes_scale = no_on_yes_scale
        self.names = []
        self.states = []
        self.mask = 1023
        self.table = <Entry*>calloc(self.mask + 1, sizeof(Entry))
        if self.table == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)

    def add(self, str ticker not None, BookState state not None):
        """Frames of this market are for this book, from now on."""
        self._enter(ticker.encode(), state)

    def forget(self, set tickers not None):
        """Frames of these markets are for nobody any more."""
        cdef list names = self.names, states = self.states
        cdef Entry* table = <Entry*>calloc(1024, sizeof(Entry))
        if table == NULL:
            raise MemoryError
        free(self.table)
        self.table, self.mask, self.used = table, 1023, 0
        self.names, self.states = [], []
        for name, state in zip(names, states):
            if (<bytes>name).decode() not in tickers:
                self._enter(<bytes>name, <BookState>state)

    cdef _enter(self, bytes name, BookState state):
        cdef Entry entry
        cdef Entry* old = self.table
        cdef uint64_t slot, size = self.mask + 1
        if 2 * <uint64_t>self.used >= size:
            self.table = <Entry*>calloc(2 * size, sizeof(Entry))
            if self.table == NULL:
                self.table = old
                raise MemoryError
            self.mask = 2 * size - 1
            for slot in range(size):
                if old[slot].state != NULL:
                    self._insert(old[slot])
            free(old)
        self.names.append(name)
        self.states.append(state)
        entry.name = name
        entry.length = len(name)
        entry.hash = _hash(entry.name, entry.length)
        entry.state = <void*>state
        self._insert(entry)
        self.used += 1

    cdef void _insert(self, Entry entry) noexcept nogil:
        cdef uint64_t slot = entry.hash & self.mask
        while self.table[slot].state != NULL:
            slot = (slot + 1) & self.mask
        self.table[slot] = entry

    cdef void* _find(self, uint64_t hash, const char* name, Py_ssize_t length) noexcept nogil:
        cdef uint64_t slot = hash & self.mask
        cdef Entry* entry
        while True:
            entry = &self.table[slot]
            if entry.state == NULL:
                return NULL
            if entry.hash == hash and entry.length == length and memcmp(entry.name, name, length) == 0:
                return entry.state
            slot = (slot + 1) & self.mask

    def aim(
        self, uint64_t conn_id, EventColumns events not None, LevelColumns levels not None, Py_ssize_t seal_rows
    ):
        """Where the rows go from now on, of which connection they are, and with how many it is time to seal."""
        self.conn_id = conn_id
        self.events = events
        self.levels = levels
        self.seal_rows = seal_rows
        self.last = None

    def take(self, bytes payload not None, int64_t ingest_ns):
        """One frame. 0: not taken. 1: dealt with. 2: dealt with, and it is time to seal."""
        return self.scan(payload, len(payload), ingest_ns)

    cdef Taken scan(self, const char* text, Py_ssize_t length, int64_t ingest_ns):
        cdef const char* at
        cdef const char* start
        cdef const char* end = text + length
        cdef uint64_t sid, seq, hash, ts_ms = 0
        cdef int64_t price, change, after, ts_us
        cdef int side, slot
        cdef Sequence subscription
        cdef BookState state
        cdef void* found
        cdef OrderBook book

        at = _expect(text, end, b'{"type":"orderbook_delta","sid":', 32)
        at = _number(at, end, &sid)
        at = _expect(at, end, b',"seq":', 7)
        at = _number(at, end, &seq)
        at = _expect(at, end, b',"msg":{"market_ticker":"', 25)
        if at == NULL or sid > 0xFFFFFFFF:
            return NOT_TAKEN
        subscription = self.last
        if subscription is None or self.last_sid != sid:
            subscription = self.subscriptions.get(sid)
            if subscription is None:
                return NOT_TAKEN
            self.last = subscription
            self.last_sid = <uint32_t>sid
        if subscription.ended or seq != subscription.next_seq:
            return NOT_TAKEN

        start = at
        hash = _HASH_SEED
        while at < end and at[0] != c'"':
            hash = (hash ^ <unsigned char>at[0]) * _HASH_PRIME
            at += 1
            if at - start > _MAX_TICKER:
                return NOT_TAKEN
        found = self._find(hash, start, at - start)
        if found == NULL:
            return NOT_TAKEN
        state = <BookState>found
        book = state.book
        if state.subscription is not subscription or book.stale or not state.id_known:
            return NOT_TAKEN
        at = _expect(at, end, b'","market_id":"', 15)
        at = _expect(at, end, state.market_id, ID_CHARS)
        start = _expect(at, end, b'","price_dollars":"', 19)
        at = _quote(start, end, _MAX_TEXT)
        if at == NULL:
            return NOT_TAKEN
        price = parse_price_e4(start, at - start)
        start = _expect(at, end, b'","delta_fp":"', 14)
        at = _quote(start, end, _MAX_TEXT)
        if at == NULL or price == BAD:
            return NOT_TAKEN
        change = parse_qty_e2(start, at - start)
        at = _expect(at, end, b'","side":"', 10)
        if at == NULL or change == BAD:
            return NOT_TAKEN
        if end - at > 4 and memcmp(at, b'yes"', 4) == 0:
            side = 0
            at += 4
        elif end - at > 3 and memcmp(at, b'no"', 3) == 0:
            side = 1
            at += 3
        else:
            return NOT_TAKEN
        ts_us = ingest_ns // 1000
        start = _expect(at, end, b',"ts":"', 7)
        if start != NULL:
            at = _quote(start, end, _MAX_TEXT)
            if at == NULL:
                return NOT_TAKEN
            ts_us = BAD  # read only if no ts_ms follows
        else:
            at -= 1  # the two cases go on alike: behind a text
        if _expect(at, end, b'","ts_ms":', 10) != NULL:
            at = _number(at + 10, end, &ts_ms)
            if at == NULL or ts_ms > <uint64_t>_MAX_TS_MS:
                return NOT_TAKEN
            ts_us = <int64_t>ts_ms * 1000
        else:
            if start != NULL:
                ts_us = parse_rfc3339_us(start, at - start)
                if ts_us == BAD:
                    return NOT_TAKEN
            at += 1
        if end - at != 2 or at[0] != c'}' or at[1] != c'}':
            return NOT_TAKEN

        if side == 1 and self.no_on_yes_scale:
            price = PRICE_MAX_E4 - price
        slot = book.grid.slot_of[price]
        if slot < 0:
            return NOT_TAKEN
        after = book.qty[side][slot] + change
        if after < 0 or after > QTY_LIMIT_E2:
            return NOT_TAKEN
        if self.events.n >= self.events.capacity or self.levels.n >= self.levels.capacity:
            return NOT_TAKEN

        subscription.next_seq = seq + 1
        self.last_frame_ns = ingest_ns
        book.put(side, slot, after)
        self.taken += 1
        if not state.active:
            return TAKEN
        self.events.append(
            DELTA, self.conn_id, <uint32_t>sid, seq, state.ix, state.id_ix, side, price, change, ts_us, ingest_ns
        )
        self.levels.append(state.ix, state.id_ix, side, price, after, ts_us, ingest_ns)
        self.written += 1
        return TAKEN_AND_FULL if self.events.n >= self.seal_rows else TAKEN
