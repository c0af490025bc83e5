"""The usual delta in one step: bytes → fields → sequence → book → columns, with no Python object made.

The scanner bets on the order of keys in which the exchange writes an orderbook_delta, on JSON without spaces, and
on what the frame before had (its subscription, the number after its own, its second), and verifies every byte
of that bet. A market's names are compared as one text. ``take`` either does all of it or nothing at all: whatever is not
plain (another layout, a gap, a market that is not known, legacy fields, a price off the grid, a full buffer,
a value that is wrong) it leaves untouched to the link's own path, which decodes with msgspec, knows what to
do and what to say. Values in their usual form are read by ``_scan.h``, others as on the long way (``_decode``).
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from kalshi_fast._book cimport Levels, put
from kalshi_fast._columns cimport EventColumns, LevelColumns, MOST_STAGED, StagedRows, append_staged
from kalshi_fast._decode cimport BAD, PRICE_MAX_E4, QTY_LIMIT_E2, parse_price_e4, parse_qty_e2, parse_rfc3339_us
from kalshi_fast._state cimport BookState, Sequence

from kalshi_fast._columns import DELTA as _DELTA
from kalshi_fast.errors import FieldError

cdef extern from "_scan.h" nogil:
    uint64_t scan_hash(const char* text, const char* end_of_text) noexcept
    bint scan_same(const char* one, const char* other, Py_ssize_t length) noexcept
    bint scan_masked(const char* at, const char* expected, const char* mask) noexcept
    const char* scan_price(const char* at, int64_t* price_e4) noexcept
    const char* scan_size(const char* at, int64_t* qty_e2) noexcept
    int scan_side(const char* at) noexcept
    const char* scan_plain_text(const char* at, const char* end) noexcept
    const char* scan_quote(const char* at, const char* end) noexcept
    int scan_last_three(const char* end) noexcept
    bint scan_last_ms(const char* at, const char* end, uint64_t* value) noexcept

cdef extern from *:
    """
    /* A line of memory that is about to be written, on its way into the cache as this core's own. */
    static inline void kf_fetch_to_write(const void *at) {
    #if defined(__x86_64__)
        __asm__ volatile("prefetchw %0" : : "m"(*(const char *)at));
    #else
        __builtin_prefetch(at, 1);
    #endif
    }
    """
    void fetch_to_write "kf_fetch_to_write" (const void*) noexcept nogil
    void prefetch "__builtin_prefetch" (const void*) noexcept nogil

cdef int DELTA = _DELTA

cdef uint64_t _MAX_SID = 0xFFFFFFFF
cdef uint64_t _MAX_TS_MS = 9_223_372_036_854  # as in wire.UnixMs: what int64 nanoseconds hold


# A frame begins so; its sid follows.
cdef const char* _HEAD = b'{"type":"orderbook_delta","sid":'
cdef enum:
    _HEAD_LENGTH = 32
    _SHORTEST = 128  # more than is read before the length of the market's key is known
    _FROM_PRICE = 32  # read of price and size in the usual form, and of what stands between them
    _FROM_QUOTE = 26  # the same from the quote behind a price
    _TO_SIDE = 13
    _NUMBER = (1 << NUMBER_BITS) - 1
    _AHEAD = 4 + MAX_HEAD + SEQ_DIGITS + 25 + 16  # of the next frame, to look at its market: all before it, and some


cdef inline void expect_seq(Head* head, uint64_t seq) noexcept nogil:
    """The next frame of the sequence has this number."""
    cdef uint64_t rest = seq
    cdef int digits = 1
    while rest >= 10:
        rest //= 10
        digits += 1
    head.seq = seq
    head.digits = digits
    memset(head.seq_mask, 0, SEQ_DIGITS)
    memset(head.seq_text, 0, SEQ_DIGITS)
    if digits > SEQ_DIGITS:  # no frame fits
        head.seq_mask[0] = -1
        head.digits = 0
        return
    while digits > 0:
        digits -= 1
        head.seq_text[digits] = <char>(c'0' + <int>(seq % 10))
        head.seq_mask[digits] = -1
        seq //= 10


cdef inline void count_on(Head* head) noexcept nogil:
    """The next number."""
    cdef char* last = &head.seq_text[head.digits - 1]
    if last[0] == c'9':
        expect_seq(head, head.seq + 1)
    else:
        last[0] += 1
        head.seq += 1


cdef inline const char* _expect(
    const char* at, const char* end, const char* literal, Py_ssize_t length
) noexcept nogil:
    """Behind the literal, NULL when it does not stand here."""
    if at == NULL or end - at < length or memcmp(at, literal, length) != 0:
        return NULL
    return at + length


cdef inline void* _find(
    const uint32_t* table, uint64_t mask, void** books, const char* start, const char* end, bint sure
) noexcept nogil:
    """The BookState of the market whose names begin here, NULL when there is none; unless ``sure``, that of which it
    only seems so."""
    cdef const char* at = scan_quote(start, end)
    cdef uint64_t hash, slot
    cdef uint32_t place
    cdef void* state
    cdef int length
    if at == NULL:
        return NULL
    hash = scan_hash(start, at)
    slot = hash & mask
    while True:
        place = table[slot]
        if place == 0:
            return NULL
        if place >> NUMBER_BITS == hash >> 52:
            state = books[(place & _NUMBER) - 1]
            if not sure:
                return state
            length = (<BookState>state).key_length
            if 0 < length <= end - start - _FROM_PRICE and scan_same(start, (<BookState>state).key, length):
                return state
        slot = (slot + 1) & mask


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
        self.table = <uint32_t*>calloc(self.mask + 1, sizeof(uint32_t))
        self.books = <void**>malloc((self.mask + 1) // 4 * sizeof(void*))
        if self.table == NULL or self.books == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table)
        free(self.books)

    def add(self, str ticker not None, BookState state not None):
        """Frames of this market are for this book, from now on."""
        self._enter(ticker.encode(), state)

    def forget(self, set tickers not None):
        """Frames of these markets are for nobody any more."""
        cdef list names = self.names, states = self.states
        memset(self.table, 0, (self.mask + 1) * sizeof(uint32_t))
        self.guess = NULL
        self.names, self.states = [], []
        for name, state in zip(names, states):
            if (<bytes>name).decode() not in tickers:
                self._enter(<bytes>name, <BookState>state)

    cdef _enter(self, bytes name, BookState state):
        cdef Py_ssize_t used = len(self.states)
        if not 0 < len(name) <= 128:
            raise FieldError("market_ticker", name, "1 to 128 characters")
        if used + 1 >= 1 << NUMBER_BITS:  # numbers count from one
            raise FieldError("markets of a connection", used + 1, f"less than {1 << NUMBER_BITS}")
        if 4 * <uint64_t>used >= self.mask + 1:
            self._widen()
        self.names.append(name)
        self.states.append(state)
        self.books[used] = <void*>state
        self._insert(<uint32_t>used)

    cdef _widen(self):
        """Room for twice as many: a quarter of the table is used at most."""
        cdef uint64_t size = 2 * (self.mask + 1)
        cdef uint32_t* table = <uint32_t*>calloc(size, sizeof(uint32_t))
        cdef void** books = <void**>realloc(self.books, size // 4 * sizeof(void*))
        cdef uint32_t number
        if books != NULL:
            self.books = books
        if table == NULL or books == NULL:
            free(table)
            raise MemoryError
        free(self.table)
        self.table, self.mask = table, size - 1
        for number in range(len(self.states)):
            self._insert(number)

    cdef _insert(self, uint32_t number):
        """The market with this number of ``names`` and ``states``, into the table."""
        cdef const char* name = (<BookState>self.states[number]).key
        cdef uint64_t hash = scan_hash(name, name + len(<bytes>self.names[number]))
        cdef uint64_t slot = hash & self.mask
        while self.table[slot] != 0:
            slot = (slot + 1) & self.mask
        self.table[slot] = <uint32_t>(hash >> 52 << NUMBER_BITS) | (number + 1)

    def aim(
        self, uint64_t conn_id, EventColumns events not None, LevelColumns levels not None, Py_ssize_t seal_rows
    ):
        """Where the rows go from now on, of which connection they are, and with how many it is time to seal."""
        self.turns += 1
        self.staged.type, self.staged.conn_id = DELTA, conn_id
        self.event_columns, self.events = events, &events.rows
        self.level_columns, self.levels = levels, &levels.rows
        self.seal_rows = seal_rows
        self.last = None
        self.head.length = 0

    def take(self, bytes payload not None, int64_t ingest_ns, bytes behind not None=b"", bint last=True):
        """One frame. 0: not taken. 1: dealt with. 2: dealt with, and it is time to seal.

        ``behind``: what the same read has after it. Its row may not be in the columns before the ``last`` frame of the
        read has been taken, or one has not been.
        """
        cdef bytes read = payload + behind
        cdef Taken taken = self.scan(read, len(payload), len(behind), ingest_ns)
        if last:
            self.flush()
        return taken

    cdef void flush(self) noexcept nogil:
        """What is staged, to the columns. To be called before anybody looks at those: at the end of a read, and
        when the connection is over."""
        if self.staged.n > 0:
            append_staged(self.events, self.levels, &self.staged)

    cdef bint _turn_to(self, const char* text, const char* end):
        """Another subscription than that of the frame before: its head from now on. False when it is none of
        ours, or written in another way."""
        cdef const char* at = text + _HEAD_LENGTH
        cdef uint64_t sid = 0
        self.last = None
        self.head.length = 0
        self.flush()
        while at < end and c'0' <= at[0] <= c'9' and sid <= _MAX_SID:
            sid = sid * 10 + <uint64_t>(at[0] - c'0')
            at += 1
        text += _HEAD_LENGTH
        if at == text or sid > _MAX_SID or (text[0] == c'0' and at - text > 1):
            return False
        self.last = self.subscriptions.get(sid)
        if self.last is None:
            return False
        head = b'{"type":"orderbook_delta","sid":%d,"seq":' % sid
        memcpy(self.head.text, <const char*>head, len(head))
        self.head.length = len(head)
        self.staged.sid = <uint32_t>sid
        expect_seq(&self.head, self.last.next_seq)
        return True

    cdef void _keep_times(self, const char* times, Py_ssize_t length, int64_t ts_us) noexcept nogil:
        """The next frame may well have the same second."""
        self.second_us = ts_us // 1_000_000 * 1_000_000
        self.times_length = length if 16 <= length <= MAX_TIMES else 0
        memcpy(self.times, times, self.times_length)

    cdef Taken scan(
        self, const char* text, Py_ssize_t length, Py_ssize_t tail, int64_t ingest_ns
    ) except? NOT_TAKEN:
        """One frame, behind which there are ``tail`` more bytes of the same read. Until ``flush`` is called or
        something else than TAKEN returned, its rows may not be in the columns yet."""
        cdef Taken taken = self._scan(text, length, tail, ingest_ns)
        if taken != TAKEN:
            self.flush()
        return taken

    cdef void _fetch(self, void* state, const char* names, const char* end, const char* end_of_frame) noexcept nogil:
        """The level that a frame seems to change, of which this seems to be the market."""
        cdef Levels* book = (<BookState>state).levels
        cdef const char* at = names + (<BookState>state).key_length
        cdef const char* side = end_of_frame - self.times_length - 7
        cdef int64_t price
        cdef int slot
        if end - at < _FROM_PRICE or side < at or side >= end or scan_price(at, &price) == NULL:
            return
        slot = book.slot_of[price]
        fetch_to_write(&book.qty[side[0] == c'o'][slot])
        fetch_to_write(&book.bits[side[0] == c'o'][slot >> 6])

    cdef Taken _scan(
        self, const char* text, Py_ssize_t length, Py_ssize_t tail, int64_t ingest_ns
    ) except? NOT_TAKEN:
        cdef Head* head = &self.head
        cdef const char* at
        cdef const char* start
        cdef const char* end = text + length
        cdef int64_t price, change, after, ts_us
        cdef int side, tick, ms
        cdef Py_ssize_t row
        cdef void* state
        cdef void* next = NULL
        cdef const char* names = NULL
        cdef Levels* book
        cdef StagedRows* staged = &self.staged

        # A bound for all that is read up to the side: what stands between the fields is longer than any field.
        if length < _SHORTEST:
            return NOT_TAKEN
        if head.length == 0 or not scan_same(text, head.text, head.length):
            if not scan_same(text, _HEAD, _HEAD_LENGTH) or not self._turn_to(text, end):
                return NOT_TAKEN
            if not scan_same(text, head.text, head.length):
                return NOT_TAKEN
        if self.last.ended:
            return NOT_TAKEN
        if self.last.next_seq != head.seq:
            expect_seq(head, self.last.next_seq)
        at = text + head.length
        if not scan_masked(at, head.seq_text, head.seq_mask):
            return NOT_TAKEN
        start = at + head.digits
        if memcmp(start, b',"msg":{"market_ticker":"', 25) != 0:
            return NOT_TAKEN

        start += 25
        state = self.guess
        self.guess = NULL
        if state != NULL:
            length = (<BookState>state).key_length
            if not 0 < length <= end - start - _FROM_PRICE or not scan_same(start, (<BookState>state).key, length):
                state = NULL
        if state == NULL:
            state = _find(self.table, self.mask, self.books, start, end, True)
            if state == NULL:
                return NOT_TAKEN
        # What the next frame will need is fetched in three steps while this one is dealt with.
        if tail >= _AHEAD:
            names = end + 4 + head.length + head.digits + 25
            next = _find(self.table, self.mask, self.books, names, end + tail, False)
            if next != NULL:
                prefetch(next)
                prefetch(&(<BookState>next).text[16])
                prefetch(&(<BookState>next).text[80])
        length = (<BookState>state).key_length
        book = (<BookState>state).levels
        if <void*>(<BookState>state).subscription != <void*>self.last or book.stale:
            return NOT_TAKEN

        start += length
        at = scan_price(start, &price)
        if at == NULL:
            at = scan_plain_text(start, end)
            if at == NULL or end - at < _FROM_QUOTE:
                return NOT_TAKEN
            price = parse_price_e4(start, at - start)
            if price == BAD or memcmp(at, b'",', 2) != 0:
                return NOT_TAKEN
            at += 2
        if next != NULL:
            fetch_to_write((<BookState>next).levels)
            fetch_to_write(&(<BookState>next).levels.sum[1])
        if memcmp(at, b'"delta_fp":"', 12) != 0:
            return NOT_TAKEN
        start = at + 12
        at = scan_size(start, &change)
        if at == NULL:
            at = scan_plain_text(start, end)
            if at == NULL:
                return NOT_TAKEN
            change = parse_qty_e2(start, at - start)
            if change == BAD:
                return NOT_TAKEN
            at += 1
        if end - at < _TO_SIDE or memcmp(at, b',"side":"', 9) != 0:
            return NOT_TAKEN
        side = scan_side(at + 9)
        if side > 1:
            return NOT_TAKEN
        at += 13 - side

        length = self.times_length
        if (
            length == 0 or end - at != length + 5 or not scan_same(at, self.times, length)
            or (ms := scan_last_three(end)) < 0
        ):
            ts_us = self._times(at, end, ingest_ns)
            if ts_us == BAD:
                return NOT_TAKEN
        else:
            ts_us = self.second_us + 1000 * ms

        if self.no_on_yes_scale and side == 1:
            price = PRICE_MAX_E4 - price
        tick = book.slot_of[price]
        if tick < 0:
            return NOT_TAKEN
        after = book.qty[side][tick] + change
        if after < 0 or after > QTY_LIMIT_E2:
            return NOT_TAKEN
        if (
            self.events == NULL or self.events.n + staged.n >= self.events.capacity
            or self.levels.n + staged.n >= self.levels.capacity
        ):
            return NOT_TAKEN

        if next != NULL:
            self.guess = next
            self._fetch(next, names, end + tail, end + 4 + (<unsigned char>end[2] << 8 | <unsigned char>end[3]))
        self.last.next_seq = head.seq + 1
        self.last_frame_ns = ingest_ns
        put(book, side, tick, after)
        self.taken += 1
        if not (<BookState>state).active:
            count_on(head)
            return TAKEN
        if ingest_ns < self.not_before_ns:
            ingest_ns = self.not_before_ns
        if staged.n == MOST_STAGED or staged.ingest_ns != ingest_ns:
            self.flush()
            staged.ingest_ns = ingest_ns
        row = staged.n
        staged.seq[row] = head.seq
        staged.market_ix[row], staged.id_ix[row] = (<BookState>state).ix, (<BookState>state).id_ix
        staged.side[row], staged.price_e4[row] = side, price
        staged.qty_e2[row], staged.size_e2[row] = change, after
        staged.ts_us[row] = ts_us
        staged.n = row + 1
        self.written += 1
        count_on(head)
        return TAKEN_AND_FULL if self.events.n + staged.n >= self.seal_rows else TAKEN

    cdef int64_t _times(self, const char* at, const char* end, int64_t ingest_ns) noexcept nogil:
        """The exchange's time of a frame whose end begins here, in microseconds; BAD when the end is not in one of
        the usual forms."""
        cdef const char* before = at
        cdef const char* start = _expect(at, end, b',"ts":"', 7)
        cdef int64_t ts_us
        cdef uint64_t ts_ms = 0
        if start != NULL:
            at = scan_plain_text(start, end)
            if at == NULL:
                return BAD
            at += 1
        if _expect(at, end, b',"ts_ms":', 9) != NULL:
            at += 9
            if not scan_last_ms(at, end, &ts_ms) or ts_ms > _MAX_TS_MS:
                return BAD
            if ts_ms < _MAX_TS_MS - 1000:  # all of its second is within the bound
                self._keep_times(before, at + 10 - before, <int64_t>ts_ms * 1000)
            return <int64_t>ts_ms * 1000
        if end - at != 2 or at[0] != c'}' or at[1] != c'}':
            return BAD
        return ingest_ns // 1000 if start == NULL else parse_rfc3339_us(start, at - 1 - start)
