"""Recorded deltas as WebSocket frames, many at once: what the simulator sends when nothing is wrong.

Byte for byte what ``simulator.frames.delta_body`` and a client's ``send`` make of them, one by one. Not here:
who gets which (``simulator.express``).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int8_t, int32_t, int64_t, uint16_t, uint64_t
from libc.string cimport memcpy

from kalshi_fast.errors import FieldError

cdef enum:
    MOST_BYTES = 400  # of a frame, without its market's and its times' text
    LONG_FRAME = 65_535

cdef const char* _BEGIN = b'{"type":"orderbook_delta","sid":'
cdef const char* _SEQ = b',"seq":'
cdef const char* _MSG = b',"msg":'
cdef const char* _PRICE = b',"price_dollars":"'
cdef const char* _DELTA = b'","delta_fp":"'
cdef const char* _SIDE = b'","side":"'


cdef inline char* _text(char* at, const char* text, Py_ssize_t length) noexcept nogil:
    memcpy(at, text, length)
    return at + length


cdef inline char* _number(char* at, uint64_t value) noexcept nogil:
    cdef char digits[20]
    cdef int n = 0
    while True:
        digits[n] = <char>(c'0' + value % 10)
        value //= 10
        n += 1
        if value == 0:
            break
    while n > 0:
        n -= 1
        at[0] = digits[n]
        at += 1
    return at


cdef class DeltaFrames:
    """``DeltaFrames(heads, market_ix, side, price_e4, delta_e2, times, ends, newline=True)``: deltas in the order of
    the play.

    ``heads``: by market the beginning of a message's JSON, up to its market's names. ``times``: the JSON of all
    times one behind the other, with leading commas; ``ends``: where the one of each delta ends. ``newline``: each frame
    has one behind its last brace.
    """

    cdef list heads
    cdef const int32_t[::1] market_ix
    cdef const int8_t[::1] side
    cdef const uint16_t[::1] price_e4
    cdef const int64_t[::1] delta_e2
    cdef const int64_t[::1] ends
    cdef bytes times
    cdef bint newline
    cdef Py_ssize_t longest  # head and times together
    cdef readonly Py_ssize_t n

    def __init__(
        self,
        list heads not None,
        const int32_t[::1] market_ix not None,
        const int8_t[::1] side not None,
        const uint16_t[::1] price_e4 not None,
        const int64_t[::1] delta_e2 not None,
        bytes times not None,
        const int64_t[::1] ends not None,
        *,
        bint newline=True,
    ):
        cdef Py_ssize_t i, length
        cdef int64_t last = 0
        self.n = market_ix.shape[0]
        if not self.n == side.shape[0] == price_e4.shape[0] == delta_e2.shape[0] == ends.shape[0]:
            raise FieldError("columns", self.n, "columns of one length")
        self.heads = heads
        cdef Py_ssize_t longest_head = max(map(len, heads), default=0)
        cdef Py_ssize_t longest_times = 0
        for i in range(self.n):
            if not 0 <= market_ix[i] < len(heads):
                raise FieldError("market_ix", market_ix[i], f"a number below {len(heads)}")
            if side[i] & ~1 or price_e4[i] > 10_000 or not last <= ends[i] <= len(times):
                raise FieldError("columns", i, "sides, prices and ends of times that can be")
            longest_times = max(longest_times, ends[i] - last)
            last = ends[i]
        self.longest = longest_head + longest_times
        if self.longest + MOST_BYTES > LONG_FRAME:
            raise FieldError("times", self.longest, f"frames of less than {LONG_FRAME} bytes")
        self.market_ix, self.side, self.price_e4, self.delta_e2 = market_ix, side, price_e4, delta_e2
        self.times, self.ends, self.newline = times, ends, newline

    def write(
        self,
        Py_ssize_t first,
        Py_ssize_t stop,
        const int32_t[::1] slot_of_market not None,
        const int64_t[::1] sids not None,
        int64_t[::1] seqs not None,
        const int8_t[::1] yes_scale not None,
    ):
        """The frames of deltas ``first`` to ``stop`` for one connection, as they go out on the wire, and how many.

        ``slot_of_market``: which of its subscriptions carries a market, -1 none. ``sids``, ``seqs`` (the last
        number used, moved on here) and ``yes_scale`` are those of its subscriptions.
        """
        cdef Py_ssize_t subscriptions = sids.shape[0]
        cdef Py_ssize_t i
        if not 0 <= first <= stop <= self.n:
            raise FieldError("deltas", (first, stop), f"numbers from 0 to {self.n}")
        if not subscriptions == seqs.shape[0] == yes_scale.shape[0] or slot_of_market.shape[0] != len(self.heads):
            raise FieldError("slots", subscriptions, "as many sids, numbers and scales, and a slot for each market")
        for i in range(slot_of_market.shape[0]):
            if slot_of_market[i] >= subscriptions:
                raise FieldError("slots", slot_of_market[i], f"a number below {subscriptions}")
        cdef bytes out = PyBytes_FromStringAndSize(NULL, (stop - first) * (self.longest + MOST_BYTES))
        cdef char* begin = PyBytes_AS_STRING(out)
        cdef char* at = begin
        cdef const char* times = self.times
        cdef Py_ssize_t frames = 0
        cdef int32_t slot
        cdef bytes head
        for i in range(first, stop):
            slot = slot_of_market[self.market_ix[i]]
            if slot < 0:
                continue
            seqs[slot] += 1
            head = <bytes>self.heads[self.market_ix[i]]
            at = self._frame(
                at, i, head, len(head), times, sids[slot], seqs[slot], yes_scale[slot] != 0
            )
            frames += 1
        return out[: at - begin], frames

    cdef char* _frame(
        self, char* at, Py_ssize_t i, const char* head, Py_ssize_t head_bytes, const char* times, int64_t sid,
        int64_t seq, bint yes_scale,
    ) noexcept:
        cdef char* start = at
        cdef char* payload = at + 4
        cdef int price = self.price_e4[i]
        cdef int64_t delta = self.delta_e2[i]
        cdef int64_t times_begin = self.ends[i - 1] if i > 0 else 0
        cdef uint64_t size
        cdef Py_ssize_t length
        if yes_scale and self.side[i] == 1:
            price = 10_000 - price
        at = _text(payload, _BEGIN, 32)
        at = _number(at, <uint64_t>sid)
        at = _text(at, _SEQ, 7)
        at = _number(at, <uint64_t>seq)
        at = _text(at, _MSG, 7)
        at = _text(at, head, head_bytes)
        at = _text(at, _PRICE, 18)
        at[0] = <char>(c'0' + price // 10_000)
        at[1] = c'.'
        at[2] = <char>(c'0' + price // 1000 % 10)
        at[3] = <char>(c'0' + price // 100 % 10)
        at[4] = <char>(c'0' + price // 10 % 10)
        at[5] = <char>(c'0' + price % 10)
        at = _text(at + 6, _DELTA, 14)
        size = <uint64_t>delta
        if delta < 0:
            at[0] = c'-'
            at += 1
            size = 0 - size
        at = _number(at, size // 100)
        at[0] = c'.'
        at[1] = <char>(c'0' + size // 10 % 10)
        at[2] = <char>(c'0' + size % 10)
        at = _text(at + 3, _SIDE, 10)
        at = _text(at, b"yes" if self.side[i] == 0 else b"no", 3 - self.side[i])
        at[0] = c'"'
        at = _text(at + 1, times + times_begin, self.ends[i] - times_begin)
        at[0] = c'}'
        at[1] = c'}'
        at[2] = c'\n'
        at += 2 + self.newline
        length = at - payload
        start[0] = <char>0x81  # a whole text message
        if length < 126:
            start[1] = <char>length
            # The usual frame is longer: room was left for its header.
            for i in range(length):
                start[2 + i] = payload[i]
            return start + 2 + length
        start[1] = 126
        start[2] = <char>(length >> 8)
        start[3] = <char>(length & 0xFF)
        return at
