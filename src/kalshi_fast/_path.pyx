"""The usual delta in one step: bytes → fields → sequence → book → columns, with no Python object made.

The scanner bets on the order of keys in which the exchange writes an orderbook_delta, on JSON without spaces, and
on what the frame before had (its subscription, the number after its own, its second), and verifies every byte
of that bet. A market's names are compared as one text. ``take`` either does all of it or nothing at all: whatever is not
plain (another layout, a gap, a market that is not known, legacy fields, a price off the grid, a full buffer,
a value that is wrong) it leaves untouched to the link's own path, which decodes with msgspec, knows what to
do and what to say. Values in their usual form are read by ``_scan.h``, others as on the long way (``_decode``).
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from kalshi_fast._ahead cimport (
    FROM_PRICE, NUMBER_BITS, ROW, SEQ_DIGITS, TO_NAMES, TO_SID, Coming, Table, find, forget_ahead, guessed, look_ahead,
    scan_times, tag_of,
)
from kalshi_fast._book cimport Levels, put
from kalshi_fast._columns cimport EventColumns, LevelColumns, MOST_STAGED, StagedRows, append_staged
from kalshi_fast._decode cimport (
    BAD, PRICE_MAX_E4, QTY_LIMIT_E2, joined_us, parse_price_e4, parse_qty_e2, parse_rfc3339_us,
)
from kalshi_fast._state cimport BookState, Hot, Sequence

from kalshi_fast._columns import DELTA as _DELTA
from kalshi_fast.errors import FieldError

cdef extern from "_scan.h" nogil:
    uint64_t scan_hash(const char* text, const char* end_of_text) noexcept
    bint scan_same(const char* one, const char* other, Py_ssize_t length) noexcept
    uint64_t scan_load8(const char* at) noexcept
    int scan_price(uint64_t word) noexcept
    const char* scan_size(const char* at, int64_t* qty_e2) noexcept
    bint scan_side(const char* at, int* side) noexcept
    const char* scan_plain_text(const char* at, const char* end) noexcept
    int scan_last_three(const char* end) noexcept
    bint scan_last_ms(const char* at, const char* end, uint64_t* value) noexcept
    enum:
        SCAN_NO_TIMES, SCAN_FRACTION, SCAN_THREE_DIGITS, SCAN_SECOND, SCAN_MOST_TIMES
    int64_t scan_fraction(const scan_times* times, const char* at, const char* end) noexcept
    void scan_times_last(scan_times* times, const char* end, int behind_fraction) noexcept

cdef int DELTA = _DELTA

cdef uint64_t _MAX_SID = 0xFFFFFFFF
cdef uint64_t _MAX_TS_MS = 9_223_372_036_854  # as in wire.UnixMs: what int64 nanoseconds hold

# A frame begins so; its sid follows, a comma and its number, and what stands between that and the ticker.
cdef const char* _HEAD = b'{"type":"orderbook_delta","sid":'
cdef const char* _TO_TICKER = b',"msg":{"market_ticker":"'
cdef enum:
    _SHORTEST = 128  # more than is read before the length of the market's key is known
    _FROM_QUOTE = 26  # as FROM_PRICE, from the quote behind the price on
    _TO_SIDE = 13
    # Behind the fraction of a second: `Z"}}`, or `Z","ts_ms":1786085204403}}`.
    _BEHIND_TS = 4
    _BEHIND_TS_WITH_MS = 26
    _DIGITS = 6  # of a fraction, as a rule
    _TO_LETTER = 2  # from the times back to the last letter of the side


cdef void expect_seq(Head* head, uint64_t seq) noexcept nogil:
    """The next frame of the sequence has this number. One that is too long is not known."""
    cdef uint64_t rest = seq
    cdef int digits = 1, digit
    while rest >= 10:
        rest //= 10
        digits += 1
    head.seq = seq
    head.length = 0
    if digits > SEQ_DIGITS:
        return
    head.last_digit = head.text + head.to_seq + digits - 1
    rest = seq
    for digit in range(digits):
        head.last_digit[-digit] = <char>(c'0' + <int>(rest % 10))
        rest //= 10
    memcpy(head.last_digit + 1, _TO_TICKER, TO_NAMES)
    head.length = head.to_seq + digits + TO_NAMES


cdef inline void count_on(Head* head) noexcept nogil:
    """The next number."""
    cdef char* digit = head.last_digit
    while digit[0] == c'9':
        digit[0] = c'0'
        digit -= 1
    if digit[0] == c':':  # one digit more
        expect_seq(head, head.seq + 1)
    else:
        digit[0] += 1
        head.seq += 1


cdef inline const char* _expect(
    const char* at, const char* end, const char* literal, Py_ssize_t length
) noexcept nogil:
    """Behind the literal, NULL when it does not stand here."""
    if at == NULL or end - at < length or memcmp(at, literal, length) != 0:
        return NULL
    return at + length


cdef inline int64_t _times_as_before(const scan_times* times, const char* at, const char* end) noexcept nogil:
    """The time of a frame whose end begins here; negative when it is of another second than that of the frame before, or
    written in another way."""
    cdef int ms
    if times.form == SCAN_FRACTION:
        return scan_fraction(times, at, end)
    if times.form == SCAN_NO_TIMES or end - at != times.length + 5 or not scan_same(at, times.text, times.length):
        return -1
    ms = scan_last_three(end)
    return -1 if ms < 0 else times.second_us + 1000 * ms


cdef class DeltaPath:
    """``DeltaPath(subscriptions)``: the live dict of a session, by sid. Books come with ``add``.

    ``no_on_yes_scale``: prices of the no side come as yes prices (``use_yes_price``). ``taken`` counts frames
    and ``written`` rows since the owner last set them to 0: of a standby's book no rows are written.
    """

    def __cinit__(self, dict subscriptions not None, bint no_on_yes_scale=False):
        self.subscriptions = subscriptions
        self.no_on_yes_scale = no_on_yes_scale
        self.head = &self.heads[0]
        self.times.to_letter = _TO_LETTER
        self._forget_heads()
        self.names = []
        self.states = []
        self.table.entries = <uint32_t*>calloc(1024, sizeof(uint32_t))
        self.table.books = <Hot**>malloc(1024 // 4 * sizeof(Hot*))
        self.table.mask = 1024 - ROW
        if self.table.entries == NULL or self.table.books == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.table.entries)
        free(self.table.books)

    def follow(self, dict subscriptions not None):
        """From now on takes the frames of these subscriptions; of an empty dict: none."""
        self.subscriptions = subscriptions
        self._forget_heads()

    def add(self, str ticker not None, BookState state not None):
        """Frames of this market are for this book, from now on."""
        self._enter(ticker.encode(), state)

    def forget(self, set tickers not None):
        """Frames of these markets are for nobody any more."""
        cdef list names = self.names, states = self.states
        memset(self.table.entries, 0, (self.table.mask + ROW) * sizeof(uint32_t))
        forget_ahead(&self.ahead)
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
        if 4 * <uint64_t>used >= self.table.mask + ROW:
            self._widen()
        self.names.append(name)
        self.states.append(state)
        self.table.books[used] = state.hot
        self._insert(<uint32_t>used)

    cdef _widen(self):
        """Room for twice as many: a quarter of the table is used at most."""
        cdef Table* table = &self.table
        cdef uint64_t size = 2 * (table.mask + ROW)
        cdef uint32_t* entries = <uint32_t*>calloc(size, sizeof(uint32_t))
        cdef Hot** books = <Hot**>realloc(table.books, size // 4 * sizeof(Hot*))
        cdef uint32_t number
        if books != NULL:
            table.books = books
        if entries == NULL or books == NULL:
            free(entries)
            raise MemoryError
        free(table.entries)
        table.entries, table.mask = entries, size - ROW
        for number in range(len(self.states)):
            self._insert(number)

    cdef _insert(self, uint32_t number):
        """The market with this number of ``names`` and ``states``, into the table."""
        # The hash looks at what stands around the ticker too.
        cdef Py_ssize_t length = len(<bytes>self.names[number])
        cdef bytes text = _TO_TICKER[:TO_NAMES] + (<BookState>self.states[number]).hot.key[: length + 8]
        cdef const char* name = <const char*>text + TO_NAMES
        cdef uint64_t hash = scan_hash(name, name + length)
        cdef uint32_t* entries = self.table.entries
        cdef uint64_t slot = hash & self.table.mask
        while entries[slot + ROW - 1] != 0:
            slot = (slot + ROW) & self.table.mask
        while entries[slot] != 0:
            slot += 1
        entries[slot] = tag_of(hash) << NUMBER_BITS | (number + 1)

    def aim(
        self, uint64_t conn_id, EventColumns events not None, LevelColumns levels not None, Py_ssize_t seal_rows
    ):
        """Where the rows go from now on, of which connection they are, and with how many it is time to seal."""
        self.turns += 1
        self.staged.type, self.staged.conn_id = DELTA, conn_id
        self.event_columns, self.events = events, &events.rows
        self.level_columns, self.levels = levels, &levels.rows
        self.seal_rows = seal_rows
        self._forget_heads()
        self.staged.most = 0

    def take(
        self, bytes read not None, int64_t ingest_ns, Py_ssize_t start=0, Py_ssize_t end=-1, bint last=True
    ):
        """The frame that lies there in what has been read. 0: not taken. 1: dealt with. 2: dealt with, and it is
        time to seal.

        Its row may not be in the columns before the ``last`` frame of the read has been taken, or one has not been.
        """
        cdef Py_ssize_t size = len(read)
        cdef Taken taken
        if end < 0:
            end = size
        if not 0 <= start <= end <= size:
            raise FieldError("start and end", (start, end), f"a frame within the {size} bytes of a read")
        if self.read is not read:
            forget_ahead(&self.ahead)
            self.read = read
        taken = self.scan(<const char*>read + start, end - start, size - end, ingest_ns)
        if last or taken != TAKEN:
            self.flush()
            self.read = None
        return taken

    cdef void flush(self) noexcept nogil:
        """What is staged, to the columns. To be called before anybody looks at those: at the end of a read, when a
        frame is not taken, and when the connection is over."""
        forget_ahead(&self.ahead)
        if self.staged.n > 0:
            self._write_rows()

    cdef void _write_rows(self) noexcept nogil:
        self.written += self.staged.n
        append_staged(self.events, self.levels, &self.staged)

    cdef bint _begin_block(self, int64_t ingest_ns) noexcept nogil:
        """Room for rows of this receive time; False when the columns are full."""
        cdef Py_ssize_t room
        if self.staged.n > 0:
            self._write_rows()
        if self.events == NULL:
            return False
        room = min(self.events.capacity - self.events.n, self.levels.capacity - self.levels.n)
        self.staged.ingest_ns = ingest_ns
        self.staged.most = min(room, MOST_STAGED, max(self.seal_rows - self.events.n, 1))
        return room > 0

    cdef _forget_heads(self):
        cdef int i
        for i in range(HEADS):
            self.heads[i].length = 0
        self.subscriptions_of_heads = [None] * HEADS

    cdef Head* _head_of(self, const char* text, const char* end) noexcept:
        """The head of a frame that is not the next one of the subscription before. NULL when it is none of ours, not the
        next one of its own either, or written in another way."""
        cdef const char* at = text + TO_SID
        cdef uint64_t sid = 0
        cdef Head* head
        if not scan_same(text, _HEAD, TO_SID):
            return NULL
        while at < end and c'0' <= at[0] <= c'9' and sid <= _MAX_SID:
            sid = sid * 10 + <uint64_t>(at[0] - c'0')
            at += 1
        if sid > _MAX_SID:
            return NULL
        head = &self.heads[sid % HEADS]
        if head.length == 0 or head.sid != sid or (<Sequence>head.subscription).ended:
            if not self._learn(head, <uint32_t>sid):
                return NULL
        self.head = head
        if head.seq != (<Sequence>head.subscription).next_seq:
            expect_seq(head, (<Sequence>head.subscription).next_seq)
        return head if head.length > 0 and scan_same(text, head.text, head.length) else NULL

    cdef bint _learn(self, Head* head, uint32_t sid) noexcept:
        """The subscription with this sid has this head from now on; False when there is none."""
        cdef Sequence subscription
        try:
            subscription = self.subscriptions.get(sid)
            text = b'{"type":"orderbook_delta","sid":%d,"seq":' % sid
        except MemoryError:
            return False  # the long way has more to say about that
        if subscription is None:
            return False
        self.subscriptions_of_heads[sid % HEADS] = subscription
        memcpy(head.text, <const char*>text, len(text))
        head.to_seq = len(text)
        head.sid = sid
        head.subscription = <void*>subscription
        expect_seq(head, subscription.next_seq)
        return True

    cdef void _keep_times(
        self, const char* at, const char* end, const char* behind, int64_t ts_us, int64_t ts_ms
    ) noexcept nogil:
        """The next frame may well be of the same second, and written alike. ``ts_us`` and ``ts_ms``: what its fields
        say, BAD: nothing. ``behind``: the end of the frame, not of its JSON."""
        cdef scan_times* times = &self.times
        cdef const char* fraction = at + SCAN_SECOND
        cdef Py_ssize_t digits = end - fraction - (_BEHIND_TS if ts_ms == BAD else _BEHIND_TS_WITH_MS)
        cdef Py_ssize_t length = end - at - 5
        times.form = SCAN_NO_TIMES
        times.to_letter = <int>(behind - at) + _TO_LETTER
        if ts_us != BAD and 1 <= digits <= 6 and fraction[-1] == c'.' and fraction[digits] == c'Z':
            if ts_ms != BAD and ts_ms // 1000 != ts_us // 1_000_000:
                return
            times.to_letter += <int>(_DIGITS - digits)
            times.second_us = ts_us // 1_000_000 * 1_000_000
            memcpy(times.text, at, SCAN_SECOND)
            scan_times_last(times, end, _BEHIND_TS if ts_ms == BAD else _BEHIND_TS_WITH_MS)
        elif (
            ts_ms != BAD and (ts_us == BAD or ts_us % 1000 == 0)  # so ts never says more than ts_ms
            and 16 <= length <= SCAN_MOST_TIMES
            and ts_ms < <int64_t>_MAX_TS_MS - 1000  # all of its second is within the bound
        ):
            times.form = SCAN_THREE_DIGITS
            times.second_us = ts_ms // 1000 * 1_000_000
            times.length = length
            memcpy(times.text, at, length)

    cdef Taken scan(self, const char* text, Py_ssize_t length, Py_ssize_t tail, int64_t ingest_ns) noexcept:
        """One frame, behind which there are ``tail`` more bytes of the same read. Its row may not be in the columns
        until ``flush`` is called, which is for the caller to do, also when the frame is not taken."""
        cdef Head* head = self.head
        cdef const char* at
        cdef const char* start
        cdef const char* behind = text + length
        cdef const char* end  # of the JSON: the exchange writes a newline behind it
        cdef int64_t price, change, after, ts_us, flip
        cdef int side, tick
        cdef int64_t row_ns
        cdef Py_ssize_t row
        cdef const Coming* coming
        cdef Hot* state = NULL
        cdef Levels* book
        cdef StagedRows* staged = &self.staged
        cdef uint64_t price_text = 0, word
        cdef int price_found = 0

        # A bound for all that is read up to the side: what stands between the fields is longer than any field.
        if length < _SHORTEST:
            return NOT_TAKEN
        end = behind - (behind[-1] == c'\n')
        if head.length > 0 and (<Sequence>head.subscription).next_seq != head.seq:
            expect_seq(head, (<Sequence>head.subscription).next_seq)
        if head.length == 0 or not scan_same(text, head.text, head.length):
            head = self._head_of(text, end)
            if head == NULL:
                return NOT_TAKEN
        if (<Sequence>head.subscription).ended:
            return NOT_TAKEN

        start = text + head.length
        coming = guessed(&self.ahead, start)
        if coming != NULL:  # what comes next takes its place
            state, price_text, price_found = coming.state, coming.price_text, coming.price
        look_ahead(&self.ahead, &self.table, head.length, self.no_on_yes_scale, &self.times, behind, behind + tail)
        if state != NULL:
            length = state.key_length
            if not 0 < length <= end - start - FROM_PRICE or not scan_same(start, state.key, length):
                state = NULL
        if state == NULL:
            state = find(&self.table, start, end, True)
            if state == NULL:
                return NOT_TAKEN
        length = state.key_length
        book = state.levels
        if state.subscription != head.subscription or book.stale:
            return NOT_TAKEN

        start += length
        word = scan_load8(start)
        if word != price_text:
            price_found = scan_price(word)
        price, at = price_found, start + 8
        if price < 0:
            at = scan_plain_text(start, end)
            if at == NULL or end - at < _FROM_QUOTE:
                return NOT_TAKEN
            price = parse_price_e4(start, at - start)
            if price == BAD or memcmp(at, b'",', 2) != 0:
                return NOT_TAKEN
            at += 2
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
        if end - at < _TO_SIDE or not scan_side(at, &side):
            return NOT_TAKEN
        at += 13 - side

        ts_us = _times_as_before(&self.times, at, end)
        if ts_us < 0:
            ts_us = self._times(at, end, behind)
            if ts_us == BAD:
                return NOT_TAKEN

        flip = -<int64_t>(self.no_on_yes_scale & side)  # no branch: nobody can predict which side
        price = (price ^ flip) + (flip & (PRICE_MAX_E4 + 1))
        tick = book.slot_of[price]
        if tick < 0:
            return NOT_TAKEN
        after = book.qty[side][tick] + change
        if after < 0 or after > QTY_LIMIT_E2:
            return NOT_TAKEN
        if state.active:
            row_ns = max(ingest_ns, self.not_before_ns)
            if (staged.n == 0 or staged.ingest_ns != row_ns) and not self._begin_block(row_ns):
                return NOT_TAKEN

        self.last_frame_ns = ingest_ns
        put(book, side, tick, after)
        self.taken += 1
        row = staged.n
        if state.active:
            staged.sid[row], staged.seq[row] = head.sid, head.seq
            staged.market_ix[row], staged.id_ix[row] = state.ix, state.id_ix
            staged.side[row], staged.price_e4[row] = side, price
            staged.qty_e2[row], staged.size_e2[row] = change, after
            staged.ts_us[row] = ts_us
            staged.n = row + 1
        count_on(head)
        (<Sequence>head.subscription).next_seq = head.seq
        if not state.active or row + 1 < staged.most:
            return TAKEN
        self._write_rows()
        return TAKEN_AND_FULL if self.events.n >= self.seal_rows else TAKEN

    cdef int64_t _times(self, const char* at, const char* end, const char* behind) noexcept nogil:
        """The time of a frame whose end begins here, in whatever way it is written; BAD when that is none of the usual
        ones."""
        cdef const char* before = at
        cdef const char* start = _expect(at, end, b',"ts":"', 7)
        cdef int64_t ts_us = BAD, ts_ms = BAD
        cdef uint64_t found = 0
        if start != NULL:
            at = scan_plain_text(start, end)
            if at == NULL:
                return BAD
            ts_us = parse_rfc3339_us(start, at - start)
            at += 1
        if _expect(at, end, b',"ts_ms":', 9) != NULL:
            if not scan_last_ms(at + 9, end, &found) or found > _MAX_TS_MS:
                return BAD
            ts_ms = <int64_t>found
        elif end - at != 2 or at[0] != c'}' or at[1] != c'}':
            return BAD
        elif ts_us == BAD:  # no time at all: the long way counts that
            return BAD
        self._keep_times(before, end, behind, ts_us, ts_ms)
        return joined_us(ts_us, ts_ms)
