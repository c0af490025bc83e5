"""The exchange's number formats to exact integers: prices, sizes, times. No floats, no state.

A price is a fixed-point dollar string with up to 4 decimals (``price_e4``: 0…10000), a size one with 2
decimals (``qty_e2``, signed, at most ``MAX_QTY_E2`` either way), a time RFC 3339. Legacy frames carry
integer cents and whole contracts. Source: Kalshi's AsyncAPI document 2.0.0. Every function raises
FrameError naming the field when the text is anything else.
"""

from libc.stdint cimport INT64_MIN, int64_t

from kalshi_fast.errors import FrameError

cdef extern from "Python.h":
    const char* PyUnicode_AsUTF8AndSize(object text, Py_ssize_t* length) except NULL

cdef int64_t BAD = INT64_MIN
# 10^12 contracts. A book's side sums at most 10,001 levels of it, which still fits 64 bits.
cdef int64_t QTY_LIMIT_E2 = 100_000_000_000_000

MAX_QTY_E2 = QTY_LIMIT_E2
MAX_PRICE_E4 = PRICE_MAX_E4


cdef inline int64_t _fixed(
    const char* text, Py_ssize_t length, int decimals, int64_t limit
) noexcept nogil:
    """``12.5`` with 2 decimals is 1250; digits after the last decimal may only be zeros."""
    cdef int64_t value = 0
    cdef Py_ssize_t i = 0
    cdef int seen = 0
    while i < length and b"0" <= text[i] <= b"9":
        value = value * 10 + (text[i] - c'0')
        if value > limit:
            return BAD
        i += 1
    if i == 0:
        return BAD
    if i < length:
        if text[i] != b"." or i + 1 == length:
            return BAD
        i += 1
        while i < length:
            if not b"0" <= text[i] <= b"9":
                return BAD
            if seen < decimals:
                value = value * 10 + (text[i] - c'0')
                seen += 1
            elif text[i] != b"0":
                return BAD
            i += 1
    while seen < decimals:
        value *= 10
        seen += 1
    return value if value <= limit else BAD


cdef int64_t parse_price_e4(const char* text, Py_ssize_t length) noexcept nogil:
    return _fixed(text, length, 4, PRICE_MAX_E4)


cdef int64_t parse_qty_e2(const char* text, Py_ssize_t length) noexcept nogil:
    cdef int64_t value
    if length > 0 and text[0] == b"-":
        value = _fixed(text + 1, length - 1, 2, QTY_LIMIT_E2)
        return value if value == BAD else -value
    return _fixed(text, length, 2, QTY_LIMIT_E2)


cdef inline int64_t _digits(const char* text, int count) noexcept nogil:
    cdef int64_t value = 0
    cdef int i
    for i in range(count):
        if not b"0" <= text[i] <= b"9":
            return BAD
        value = value * 10 + (text[i] - c'0')
    return value


cdef inline int64_t _days_in_month(int64_t year, int64_t month) noexcept nogil:
    if month == 2:
        return 29 if (year % 4 == 0 and year % 100 != 0) or year % 400 == 0 else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef inline int64_t _days_from_civil(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days since 1970-01-01 of a Gregorian date (years from 0 on): the usual era arithmetic."""
    cdef int64_t era, year_of_era, day_of_year
    if month <= 2:
        year -= 1
    era = year // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719468


cdef int64_t parse_rfc3339_us(const char* text, Py_ssize_t length) noexcept nogil:
    """Microseconds since 1970; fractions beyond the microsecond are cut off. Years 1970 to 2261."""
    cdef int64_t year, month, day, hour, minute, second, offset_hour, offset_minute
    cdef int64_t micros = 0, scale = 100_000, offset_s = 0
    cdef Py_ssize_t i = 19
    if length < 20:
        return BAD
    if text[4] != b"-" or text[7] != b"-" or text[13] != b":" or text[16] != b":":
        return BAD
    if text[10] != b"T" and text[10] != b"t" and text[10] != b" ":
        return BAD
    year, month, day = _digits(text, 4), _digits(text + 5, 2), _digits(text + 8, 2)
    hour, minute, second = _digits(text + 11, 2), _digits(text + 14, 2), _digits(text + 17, 2)
    if not (1970 <= year <= 2261 and 1 <= month <= 12 and 1 <= day <= _days_in_month(year, month)):
        return BAD
    if not (0 <= hour <= 23 and 0 <= minute <= 59 and 0 <= second <= 59):
        return BAD
    if text[i] == b".":
        i += 1
        if i == length or not b"0" <= text[i] <= b"9":
            return BAD
        while i < length and b"0" <= text[i] <= b"9":
            micros += (text[i] - c'0') * scale
            scale //= 10
            i += 1
    if i == length:
        return BAD
    if text[i] == b"Z" or text[i] == b"z":
        if i + 1 != length:
            return BAD
    else:
        if (text[i] != b"+" and text[i] != b"-") or length - i != 6 or text[i + 3] != b":":
            return BAD
        offset_hour, offset_minute = _digits(text + i + 1, 2), _digits(text + i + 4, 2)
        if not (0 <= offset_hour <= 23 and 0 <= offset_minute <= 59):
            return BAD
        offset_s = offset_hour * 3600 + offset_minute * 60
        if text[i] == b"-":
            offset_s = -offset_s
    second += _days_from_civil(year, month, day) * 86400 + hour * 3600 + minute * 60 - offset_s
    return second * 1_000_000 + micros if second >= 0 else BAD


def price_e4(str text not None, str field="price_dollars"):
    """``"0.0800"`` → 800. Raises FrameError."""
    cdef Py_ssize_t length
    cdef const char* chars = PyUnicode_AsUTF8AndSize(text, &length)
    cdef int64_t value = parse_price_e4(chars, length)
    if value == BAD:
        raise FrameError(field, text, "a price from 0 to 1 dollar with up to 4 decimals")
    return value


def qty_e2(str text not None, str field="delta_fp"):
    """``"-54.00"`` → -5400. Raises FrameError."""
    cdef Py_ssize_t length
    cdef const char* chars = PyUnicode_AsUTF8AndSize(text, &length)
    cdef int64_t value = parse_qty_e2(chars, length)
    if value == BAD:
        raise FrameError(field, text, "a size with up to 2 decimals, at most 10^12 contracts")
    return value


def rfc3339_us(str text not None, str field="ts"):
    """``"2022-11-22T20:44:01Z"`` → microseconds since 1970. Raises FrameError."""
    cdef Py_ssize_t length
    cdef const char* chars = PyUnicode_AsUTF8AndSize(text, &length)
    cdef int64_t value = parse_rfc3339_us(chars, length)
    if value == BAD:
        raise FrameError(field, text, "an RFC 3339 time from 1970 to 2261")
    return value


def cents_e4(cents, str field="price"):
    """Legacy integer cents: 96 → 9600. Raises FrameError."""
    if not 0 <= cents <= 100:
        raise FrameError(field, cents, "a price from 0 to 100 cents")
    return cents * 100


def contracts_e2(contracts, str field="delta"):
    """Legacy whole contracts: -54 → -5400. Raises FrameError."""
    if not -QTY_LIMIT_E2 // 100 <= contracts <= QTY_LIMIT_E2 // 100:
        raise FrameError(field, contracts, "a whole number of contracts, at most 10^12")
    return contracts * 100
