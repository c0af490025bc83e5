/* Eight or sixteen bytes of a frame at a time: numbers and texts as the exchange usually writes them.
 *
 * A function that returns NULL (or 0) says "not in the usual form"; it never says "wrong": whoever called it
 * goes the long way, which decides that. None reads at or behind `end`; those without it say how far they read. Not here: which field is where (_path).
 */
#ifndef KALSHI_FAST_SCAN_H
#define KALSHI_FAST_SCAN_H

#include <Python.h>
#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static inline uint64_t scan_load8(const char *at) {
    uint64_t word;
    memcpy(&word, at, 8);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

static inline uint32_t scan_load4(const char *at) {
    uint32_t word;
    memcpy(&word, at, 4);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap32(word);
#endif
    return word;
}

/* The high bit of each byte that is no digit. */
static inline uint64_t scan_other_than_digits(uint64_t word) {
    const uint64_t value = word ^ 0x3030303030303030ULL;
    return (((value & 0x7F7F7F7F7F7F7F7FULL) + 0x7676767676767676ULL) | value) & 0x8080808080808080ULL;
}

/* Eight digits to their number; the first byte in memory is the first digit. */
static inline uint64_t scan_eight_digits(uint64_t word) {
    word = (word & 0x0F0F0F0F0F0F0F0FULL) * 2561 >> 8;
    word = (word & 0x00FF00FF00FF00FFULL) * 6553601 >> 16;
    return (word & 0x0000FFFF0000FFFFULL) * 42949672960001ULL >> 32;
}

/* The number of the first `digits` (1 to 8) of a word of digits and what follows them. */
static inline uint64_t scan_first_digits(uint64_t word, int digits) {
    return scan_eight_digits(word << (64 - 8 * digits));  /* a byte 0 counts as the digit 0 */
}

#if defined(__SSE2__)
static inline __m128i scan_same16(const char *one, const char *other) {
    return _mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)one), _mm_loadu_si128((const __m128i *)other));
}
#endif

/* Whether 16 or more bytes are the same. */
static inline int scan_same(const char *one, const char *other, Py_ssize_t length) {
    Py_ssize_t i;
#if defined(__SSE2__)
    __m128i same = scan_same16(one + length - 16, other + length - 16);
    for (i = 0; i < length - 32; i += 32)
        same = _mm_and_si128(
            same, _mm_and_si128(scan_same16(one + i, other + i), scan_same16(one + i + 16, other + i + 16)));
    /* What is left is at most one block of 16 before the last; that one is looked at twice rather than not. */
    if (i < length - 16)
        same = _mm_and_si128(same, scan_same16(one + i, other + i));
    return _mm_movemask_epi8(same) == 0xFFFF;
#else
    uint64_t difference = scan_load8(one + length - 8) ^ scan_load8(other + length - 8);
    for (i = 0; i < length - 8; i += 8)
        difference |= scan_load8(one + i) ^ scan_load8(other + i);
    return difference == 0;
#endif
}

/* Thirteen digits and "}}" up to the very end: how a frame with ts_ms ends. */
static inline int scan_last_ms(const char *at, const char *end, uint64_t *value) {
    uint64_t first, second;
    if (end - at != 15 || at[13] != '}' || at[14] != '}' || at[0] == '0')
        return 0;
    first = scan_load8(at);
    second = (scan_load8(at + 7) >> 8) << 24;  /* the last five digits, behind three bytes 0 */
    if (scan_other_than_digits(first) != 0 || scan_other_than_digits(second | 0x303030) != 0)
        return 0;
    *value = scan_eight_digits(first) * 100000 + scan_eight_digits(second);
    return 1;
}

/* How the times of a frame are written, and what they have in common with those of other frames of the same second.
 *
 * The exchange's usual form is `,"ts":"2026-08-07T06:46:44.403936Z","ts_ms":1786085204403}}`, where the fraction has
 * lost its trailing zeros, so that its length differs from frame to frame; older frames have no ts_ms. */
enum { SCAN_NO_TIMES, SCAN_FRACTION, SCAN_THREE_DIGITS };
enum { SCAN_SECOND = 27, SCAN_MOST_TIMES = 96 };  /* `,"ts":"2026-08-07T06:46:44.` */

struct scan_times {
    int form;
    int behind_fraction;  /* SCAN_FRACTION: so many bytes, 26 or 4 */
    uint32_t ms;          /* SCAN_FRACTION: 0xFFFFFF when ts_ms is there and its last digits are those of the fraction */
    int to_letter;        /* from a frame's end back to the last letter of its side, if its fraction has six digits */
    int64_t second_us;
    Py_ssize_t length;  /* SCAN_THREE_DIGITS: of the text that is the same, up to the last three digits of ts_ms */
    char text[SCAN_MOST_TIMES];  /* what is the same; SCAN_FRACTION: its first 27 bytes */
    char last[32];               /* SCAN_FRACTION: the frame's last bytes, and 0xFF where they may differ */
    char free[32];
};

/* The last 32 bytes of a frame in this form; `behind_fraction` of them are looked at, but for the digits of ts_ms
 * that are in the fraction too. */
static inline void scan_times_last(struct scan_times *times, const char *end, int behind_fraction) {
    times->form = SCAN_FRACTION;
    times->behind_fraction = behind_fraction;
    times->ms = behind_fraction > 4 ? 0xFFFFFF : 0;
    memcpy(times->last, end - 32, 32);
    memset(times->free, 0, 32);
    memset(times->free, 0xFF, 32 - behind_fraction);
    if (behind_fraction > 4)
        memset(times->free + 27, 0xFF, 3);
}

static inline int scan_same_second(const struct scan_times *times, const char *at, const char *end) {
#if defined(__SSE2__)
    const char *text = times->text, *last = times->last;
    const __m128i *free = (const __m128i *)times->free;
    const __m128i first = _mm_and_si128(
        scan_same16(at, text), scan_same16(at + SCAN_SECOND - 16, text + SCAN_SECOND - 16));
    const __m128i rest = _mm_and_si128(
        _mm_or_si128(scan_same16(end - 32, last), _mm_loadu_si128(free)),
        _mm_or_si128(scan_same16(end - 16, last + 16), _mm_loadu_si128(free + 1)));
    return _mm_movemask_epi8(_mm_and_si128(first, rest)) == 0xFFFF;
#else
    uint64_t differ = scan_load8(at + SCAN_SECOND - 8) ^ scan_load8(times->text + SCAN_SECOND - 8);
    int i;
    for (i = 0; i < 24; i += 8)
        differ |= scan_load8(at + i) ^ scan_load8(times->text + i);
    for (i = 0; i < 32; i += 8)
        differ |= (scan_load8(end - 32 + i) ^ scan_load8(times->last + i)) & ~scan_load8(times->free + i);
    return differ == 0;
#endif
}

/* The time in microseconds of a frame whose times begin at `at`, when they are written as before, are of the same
 * second, and say the same to the millisecond; -1 otherwise. The fraction has 1 to 6 digits, and how many nobody can
 * predict: no branch. */
static inline int64_t scan_fraction(const struct scan_times *times, const char *at, const char *end) {
    const char *behind = end - times->behind_fraction;
    const unsigned bits = 8 * (unsigned)(behind - at - SCAN_SECOND);
    uint64_t word, wrong;
    if (bits - 8 > 40)
        return -1;
    word = scan_load8(behind - 8) >> (64 - bits) | 0x3030303030303030ULL << bits;
    wrong = scan_other_than_digits(word) | (((scan_load8(end - 8) >> 24) ^ word) & times->ms);
    if (wrong != 0 || !scan_same_second(times, at, end))
        return -1;
    return times->second_us + (int64_t)scan_eight_digits(word << 16);  /* a byte 0 counts as the digit 0 */
}

/* Whether the side of a frame that ends here seems to be no, if its times are written as before. `no"` or `yes"` stands
 * before them: its last letter with a fraction of six digits, the one before that with five. */
static inline int scan_side_ahead(const struct scan_times *times, const char *end) {
    return (end[-times->to_letter] & 0xFE) == 'n';
}

/* Whether the bytes of a word that the mask leaves the upper half of are digits: 0x30 to 0x3F, and still so with 6 more.
 * After the first test nothing is carried from one byte to the next. */
static inline int scan_are_digits(uint32_t word, uint32_t mask) {
    return ((word ^ 0x30303030) & mask) == 0 && (((word + 0x06060606) ^ 0x30303030) & mask) == 0;
}

/* The number of `ddd}}`, the last five bytes of a frame; -1 when they are others. Reads the last 8 bytes. */
static inline int scan_last_three(const char *end) {
    const uint64_t word = scan_load8(end - 8) >> 24;
    const uint32_t digits = (uint32_t)word;
    if (word >> 24 != 0x7D7D || !scan_are_digits(digits, 0xF0F0F0))
        return -1;
    return (int)((digits & 0x0F) * 100 + (digits >> 8 & 0x0F) * 10 + (digits >> 16 & 0x0F));
}

/* The price in 1/10,000 dollar of the eight bytes `0.dddd",`; -1 when they are others. */
static inline int scan_price(uint64_t word) {
    const uint64_t value = word ^ 0x2C22303030302E30ULL;  /* the digits, and 0 for what else has to be there */
    uint32_t digits = (uint32_t)(value >> 16);
    /* What is no digit has upper bits, or gets one with 6 more. */
    if (((value | (value + 0x0000060606060000ULL)) & 0xFFFFF0F0F0F0FFFFULL) != 0)
        return -1;
    digits = digits * 2561 >> 8;
    return (int)((digits & 0x00FF00FF) * 6553601 >> 16);
}

/* Behind `-ddd.dd"` with 1 to 7 digits before the point and an optional sign: a size in 1/100 contract.
 * Reads 12 bytes. */
static inline const char *scan_size(const char *at, int64_t *qty_e2) {
    uint64_t word, others;
    int64_t value;
    int digits, negative;
    uint32_t rest;
    negative = at[0] == '-';
    at += negative;
    word = scan_load8(at);
    others = scan_other_than_digits(word);
    if (others == 0)
        return NULL;
    digits = __builtin_ctzll(others) >> 3;
    at += digits;
    rest = scan_load4(at) ^ 0x2230302E;  /* `.00"` */
    if (digits == 0 || ((rest | (rest + 0x00060600)) & 0xFFF0F0FF) != 0)
        return NULL;
    rest = (rest >> 8) * 2561 >> 8 & 0xFF;
    value = (int64_t)scan_first_digits(word, digits) * 100 + rest;
    *qty_e2 = (value ^ -(int64_t)negative) + negative;  /* no branch */
    return at + 4;
}

/* Whether `,"side":"no"` or `,"side":"yes"` stands here, and which: 1 for no. Reads 13 bytes. No branch but one: which
 * side it is nobody can predict. */
static inline int scan_side(const char *at, int *side) {
    const uint32_t word = scan_load4(at + 9);
    const int no = word << 8 == 0x226F6E00, yes = word == 0x22736579;
    *side = no;
    return (no | yes) & (scan_load8(at) == 0x3A2265646973222CULL) & (at[8] == '"');
}

/* At the quote that ends a text of at most 64 plain ASCII characters without escapes. */
static inline const char *scan_plain_text(const char *at, const char *end) {
    const char *start = at;
#if defined(__SSE2__)
    while (end - at >= 16 && at - start <= 48) {
        const __m128i bytes = _mm_loadu_si128((const __m128i *)at);
        const unsigned quotes = (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('"')));
        /* signed: what has the high bit set is less than a space too */
        const unsigned others = (unsigned)_mm_movemask_epi8(_mm_or_si128(
            _mm_cmplt_epi8(bytes, _mm_set1_epi8(' ')),
            _mm_or_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('\\')), _mm_cmpeq_epi8(bytes, _mm_set1_epi8(127)))));
        if (quotes != 0)
            return (others & (quotes ^ (quotes - 1))) != 0 ? NULL : at + __builtin_ctz(quotes);
        if (others != 0)
            return NULL;
        at += 16;
    }
#endif
    for (; at < end && at - start <= 64; at++) {
        if (*at == '"')
            return at;
        if (*at < ' ' || *at > '~' || *at == '\\')
            return NULL;
    }
    return NULL;
}

#if defined(__SSE2__)
static inline unsigned scan_quotes16(const char *at, __m128i quote) {
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(_mm_loadu_si128((const __m128i *)at), quote));
}
#endif

/* At the first quote, NULL when there is none among the first 129 bytes. */
static inline const char *scan_quote(const char *at, const char *end) {
    const char *start = at;
#if defined(__SSE2__)
    const __m128i quote = _mm_set1_epi8('"');
    while (end - at >= 32 && at - start <= 96) {  /* 32 at once: how long a ticker is nobody can predict */
        const unsigned quotes = scan_quotes16(at, quote) | scan_quotes16(at + 16, quote) << 16;
        if (quotes != 0)
            return at + __builtin_ctz(quotes);
        at += 32;
    }
#endif
    for (; at < end && at - start <= 128; at++) {
        if (*at == '"')
            return at;
    }
    return NULL;
}

/* Which of four entries have this tag above their lowest `bits` bits: a bit for each. */
static inline unsigned scan_tagged(const uint32_t *entries, uint32_t tag, int bits) {
#if defined(__SSE2__)
    const __m128i tags = _mm_srl_epi32(_mm_loadu_si128((const __m128i *)entries), _mm_cvtsi32_si128(bits));
    return (unsigned)_mm_movemask_ps(_mm_castsi128_ps(_mm_cmpeq_epi32(tags, _mm_set1_epi32((int)tag))));
#else
    unsigned found = 0;
    for (int i = 0; i < 4; i++)
        found |= (unsigned)(entries[i] >> bits == tag) << i;
    return found;
#endif
}

/* A hash of the text before `end_of_text` that looks at its first 8 and its last 16 bytes. 16 bytes before and
 * 8 behind the text must be readable, and be the same wherever the same text is to give the same hash. */
static inline uint64_t scan_hash(const char *text, const char *end_of_text) {
    const uint64_t first = scan_load8(text);
    const unsigned __int128 product =
        /* turned, so that the two do not cancel out where they are the same bytes */
        (unsigned __int128)((first << 29 | first >> 35) ^ scan_load8(end_of_text - 16) ^ 0x9E3779B97F4A7C15ULL)
        * (scan_load8(end_of_text - 8) ^ 0xC2B2AE3D27D4EB4FULL);
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

#endif
