"""Which market a frame is for, and the frames of a read that have not been dealt with yet: what they will need is on
its way into the cache before their turn comes. Of 500 markets hardly anything is in the fastest cache when it is
needed, and a frame is done in less time than memory takes to answer.

All of it is a guess, of which nothing is believed: a frame's bytes are looked at when it is dealt with.
"""

from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from kalshi_fast._book cimport CACHE_LINE, Levels
from kalshi_fast._decode cimport PRICE_MAX_E4
from kalshi_fast._state cimport Hot

cdef extern from "_scan.h" nogil:
    uint64_t scan_hash(const char* text, const char* end_of_text) noexcept
    bint scan_same(const char* one, const char* other, Py_ssize_t length) noexcept
    uint64_t scan_load8(const char* at) noexcept
    int scan_price(uint64_t word) noexcept
    const char* scan_quote(const char* at, const char* end) noexcept
    unsigned scan_tagged(const uint32_t* entries, uint32_t tag, int bits) noexcept
    struct scan_times:
        int form
        int to_letter
        int64_t second_us
        Py_ssize_t length
        char* text
    int scan_side_ahead(const scan_times* times, const char* end) noexcept

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
    int lowest_bit "__builtin_ctz" (unsigned) noexcept nogil

cdef enum:
    MAX_HEAD = 96  # room for all that stands before a ticker, number included
    FROM_PRICE = 32  # read of price and size in the usual form, and of what stands between them
    NUMBER_BITS = 20  # of a market on one connection
    ROW = 4
    AHEAD = 8  # how many frames are looked at in advance, a power of two
    _FOR_MARKET = 2  # frames, while memory answers
    _FOR_BOOK = 2
    # How a delta begins: see _path.
    TO_SID = 32
    SID_DIGITS = 10
    _TO_SEQ = 7  # from behind the sid
    SEQ_DIGITS = 16  # a longer number is not known
    TO_NAMES = 25  # from behind the number
    _NUMBER = (1 << NUMBER_BITS) - 1
    _AHEAD_BYTES = 4 + MAX_HEAD + 16  # of a frame, to look at its market: all before it, and some

cdef struct Table:
    # Of each market its number in ``books`` and from one on, and in the upper bits what else there is of its hash: 0 is
    # an empty place. As small as can be: every frame reads it somewhere else. In rows of ROW, each filled from its
    # beginning and looked at as a whole: where in its row a market stands nobody can predict.
    uint32_t* entries
    uint64_t mask
    Hot** books

cdef struct Coming:
    # 32 bytes: a frame's place in the ring is a shift.
    Hot* state  # of the book that the frame seems to be for, NULL: of none
    const char* names  # where its ticker begins, if it is a delta
    int32_t length  # from there to the frame's end
    int price  # what the text of the price means
    uint64_t price_text  # the eight bytes that seem to be its price; 0: not known

cdef struct Ahead:
    # They are numbered, and stand at their number modulo AHEAD. The next one is ``first``, those before ``found`` are
    # known, of those before ``booked`` the book is being fetched, of those before ``levelled`` the level.
    Coming frames[AHEAD]
    unsigned first
    unsigned found
    unsigned booked
    unsigned levelled
    const char* end  # of the last one that is known


cdef inline uint32_t tag_of(uint64_t hash) noexcept nogil:
    """What an entry has of a hash beside its place: never 0, which an empty entry has."""
    return <uint32_t>(hash >> 52) | 1


cdef inline Hot* find(const Table* table, const char* start, const char* end, bint sure) noexcept nogil:
    """The book of the market whose names begin here, NULL when there is none; unless ``sure``, that of which it
    only seems so."""
    cdef const char* at = scan_quote(start, end)
    cdef uint64_t hash, slot
    cdef unsigned found
    cdef Hot* state
    cdef int length
    if at == NULL:
        return NULL
    hash = scan_hash(start, at)
    slot = hash & table.mask
    while True:
        found = scan_tagged(&table.entries[slot], tag_of(hash), NUMBER_BITS)
        while found != 0:
            state = table.books[(table.entries[slot + lowest_bit(found)] & _NUMBER) - 1]
            if not sure:
                return state
            length = state.key_length
            if 0 < length <= end - start - FROM_PRICE and scan_same(start, state.key, length):
                return state
            found &= found - 1
        if table.entries[slot + ROW - 1] == 0:
            return NULL
        slot = (slot + ROW) & table.mask


cdef inline void _fetch_level(
    Coming* coming, bint no_on_yes_scale, const scan_times* times, const char* limit
) noexcept nogil:
    """The level that the frame seems to change."""
    cdef const Hot* state = coming.state
    cdef const Levels* book
    cdef Py_ssize_t to_price
    cdef const char* end = coming.names + coming.length
    cdef int slot, side, flip
    if state == NULL:
        return
    book, to_price = state.levels, state.key_length
    if end > limit or coming.length - to_price < FROM_PRICE + times.to_letter:
        return
    coming.price_text = scan_load8(coming.names + to_price)
    coming.price = scan_price(coming.price_text)
    if coming.price < 0:
        coming.price_text = 0
        return
    side = scan_side_ahead(times, end)
    flip = -(no_on_yes_scale & side)
    slot = book.slot_of[(coming.price ^ flip) + (flip & (PRICE_MAX_E4 + 1))]
    fetch_to_write(&book.qty[side][slot])
    fetch_to_write(&book.bits[side][slot >> 6])


cdef inline const char* _names_of(const char* frame) noexcept nogil:
    """Where a market's names begin in a frame whose sid or number is longer or shorter than that of the one before."""
    cdef const char* at = frame + TO_SID
    while c'0' <= at[0] <= c'9' and at < frame + TO_SID + SID_DIGITS:
        at += 1
    at += _TO_SEQ
    frame = at
    while c'0' <= at[0] <= c'9' and at < frame + SEQ_DIGITS:
        at += 1
    return at + TO_NAMES


cdef inline void _find_next(Ahead* ahead, const Table* table, Py_ssize_t to_names, const char* limit) noexcept nogil:
    """One frame more is known: the one that begins where the last one of those ends."""
    cdef Coming* coming = &ahead.frames[ahead.found % AHEAD]
    cdef const char* frame = ahead.end
    cdef const char* names = frame + 4 + to_names
    if (names - 1)[0] != c'"' or (names - 2)[0] != c':':
        names = _names_of(frame + 4)
    frame += 4 + (<unsigned char>frame[2] << 8 | <unsigned char>frame[3])
    ahead.end = frame
    ahead.found += 1
    coming.names = names
    coming.length = <int32_t>(frame - names)
    coming.price_text = 0
    coming.state = find(table, names, limit, False)
    if coming.state != NULL:
        prefetch(coming.state)
        prefetch(&coming.state.key[CACHE_LINE])


cdef inline void _fetch_book(const Coming* coming) noexcept nogil:
    if coming.state != NULL:
        fetch_to_write(coming.state.levels)
        fetch_to_write(&coming.state.levels.sum[0])


cdef inline void look_ahead(
    Ahead* ahead, const Table* table, Py_ssize_t to_names, bint no_on_yes_scale, const scan_times* times,
    const char* end, const char* limit,
) noexcept nogil:
    """What the frames up to ``limit`` need that follow the one which ends here is fetched: first what is known of their
    market, a few frames later the book, and again some later the level.

    ``to_names`` is how much stands before a market's names in the frame before, ``times`` how its times are written.
    """
    cdef unsigned found = ahead.found, behind = found - ahead.first
    cdef unsigned up_to_book, up_to_level
    if behind == AHEAD - 1 and ahead.booked == found - _FOR_MARKET and limit - ahead.end >= _AHEAD_BYTES:
        # In the middle of a read: one more of each.
        _find_next(ahead, table, to_names, limit)
        _fetch_book(&ahead.frames[(found - _FOR_MARKET) % AHEAD])
        _fetch_level(&ahead.frames[(found - _FOR_MARKET - _FOR_BOOK) % AHEAD], no_on_yes_scale, times, limit)
        ahead.booked = found + 1 - _FOR_MARKET
        ahead.levelled = found + 1 - _FOR_MARKET - _FOR_BOOK
        return
    if behind == 0:
        ahead.end = end
    while behind < AHEAD and limit - ahead.end >= _AHEAD_BYTES:
        _find_next(ahead, table, to_names, limit)
        behind += 1
    up_to_book = up_to_level = ahead.found
    if behind == AHEAD:  # else nothing more comes with this read
        up_to_book -= _FOR_MARKET
        up_to_level -= _FOR_MARKET + _FOR_BOOK
    while ahead.booked != up_to_book:
        _fetch_book(&ahead.frames[ahead.booked % AHEAD])
        ahead.booked += 1
    while ahead.levelled != up_to_level:
        _fetch_level(&ahead.frames[ahead.levelled % AHEAD], no_on_yes_scale, times, limit)
        ahead.levelled += 1


cdef inline void forget_ahead(Ahead* ahead) noexcept nogil:
    """What has been found is not what comes."""
    ahead.first = ahead.booked = ahead.levelled = ahead.found


cdef inline const Coming* guessed(Ahead* ahead, const char* names) noexcept nogil:
    """What was found of the next frame, whose market's names begin here; NULL: no idea."""
    cdef const Coming* coming = &ahead.frames[ahead.first % AHEAD]
    if ahead.found == ahead.first:
        return NULL
    if coming.names != names:  # something else than a frame of this kind came between
        forget_ahead(ahead)
        return NULL
    ahead.first += 1
    return coming
