"""What the benchmarks cannot do in Python without measuring Python: loops over prepared input, the listener that
does nothing (the floor), and the lags of rows at the end of a read. Not here: what is measured when (``bench``).
"""

from libc.errno cimport EINTR, errno
from libc.stdint cimport int64_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport (
    CLOCK_MONOTONIC, CLOCK_REALTIME, TIMER_ABSTIME, clock_gettime, clock_nanosleep, timespec,
)

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from kalshi_fast._book cimport OrderBook
from kalshi_fast._clock cimport now_ns
from kalshi_fast._columns cimport EventColumns, EventRows, LevelColumns, append_event, append_level
from kalshi_fast._decode cimport parse_rfc3339_us
from kalshi_fast._path cimport NOT_TAKEN, TAKEN, TAKEN_AND_FULL, DeltaPath, Taken

import os

import numpy as np

from kalshi_fast._columns import DELTA as _DELTA

# Valgrind's header makes requests to it out of a few instructions that do nothing elsewhere.
cdef extern from *:
    """
    #if defined(__has_include)
    #if __has_include(<valgrind/callgrind.h>)
    #include <valgrind/callgrind.h>
    #define KF_CALLGRIND 1
    #endif
    #endif
    #ifndef KF_CALLGRIND
    #define KF_CALLGRIND 0
    #define CALLGRIND_START_INSTRUMENTATION
    #define CALLGRIND_STOP_INSTRUMENTATION
    #endif
    #if defined(__clang__)
    #define KF_COMPILER "clang " __clang_version__
    #else
    #define KF_COMPILER "gcc " __VERSION__
    #endif
    static void kf_start_counting(void) { CALLGRIND_START_INSTRUMENTATION; }
    static void kf_stop_counting(void) { CALLGRIND_STOP_INSTRUMENTATION; }
    """
    const bint KF_CALLGRIND
    const char* KF_COMPILER
    const long CYTHON_HEX_VERSION
    void kf_start_counting()
    void kf_stop_counting()

cdef int DELTA = _DELTA

cdef enum:
    TIME_FROM_END = 53  # 2026-11-25T12:00:00.123456Z","ts_ms":1795608000123}} and a newline: how a paced delta ends
    TIME_LENGTH = 27


cdef class FloorListener(WSListener):
    """Counts text frames. ``on_warm(transport)`` is called at frame ``warm``, ``on_done()`` at frame ``total``."""

    cdef readonly long frames
    cdef long next
    cdef long total
    cdef object on_warm
    cdef object on_done

    def __init__(self, long warm, long total, on_warm not None, on_done not None):
        self.next = warm
        self.total = total
        self.on_warm = on_warm
        self.on_done = on_done

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.TEXT:
            self.frames += 1
            if self.frames == self.next:
                self._reached(transport)

    cdef _reached(self, WSTransport transport):
        if self.frames == self.total:
            self.on_done()
        else:
            self.next = self.total
            self.on_warm(transport)


cdef class Frames:
    """``Frames(payloads)``: one behind the other in one block, with room for a header before each, as a read
    buffer has them."""

    cdef bytes block
    cdef const char** starts
    cdef Py_ssize_t* lengths
    cdef readonly Py_ssize_t count

    def __cinit__(self, list payloads not None):
        cdef Py_ssize_t at = 0, i
        cdef const char* start
        self.count = len(payloads)
        self.block = b"".join([b"\x81\x7e" + len(payload).to_bytes(2, "big") + payload for payload in payloads])
        self.starts = <const char**>malloc(max(1, self.count) * sizeof(char*))
        self.lengths = <Py_ssize_t*>malloc(max(1, self.count) * sizeof(Py_ssize_t))
        if self.starts == NULL or self.lengths == NULL:
            raise MemoryError
        start = self.block
        for i in range(self.count):
            self.lengths[i] = len(<bytes?>payloads[i])
            self.starts[i] = start + at + 4
            at += 4 + self.lengths[i]

    def __dealloc__(self):
        free(self.starts)
        free(self.lengths)

    def __len__(self):
        return self.count


def drive(
    DeltaPath path not None, rest not None, Frames frames not None, Py_ssize_t frames_per_read, *, bint copy=True
):
    """Does with every frame what ``FrameListener.on_ws_frame`` does with it, the clock and the end of a read once
    in ``frames_per_read`` frames.

    The frames of a read lie in one buffer, as the kernel leaves them. Returns how many ns were spent copying them
    there: that is the kernel's work and not to be counted. Without ``copy`` they are read where they are.
    """
    cdef Py_ssize_t first, last, i, size, most = 0
    cdef int64_t read_ns, started_ns, aside_ns = 0
    cdef uint64_t turns = path.turns
    cdef const char* start
    cdef const char* read
    cdef char* buffer
    cdef Taken taken
    for first in range(0, frames.count, frames_per_read):
        last = min(first + frames_per_read, frames.count) - 1
        most = max(most, frames.starts[last] + frames.lengths[last] - frames.starts[first])
    buffer = <char*>malloc(most)
    if buffer == NULL:
        raise MemoryError
    try:
        for first in range(0, frames.count, frames_per_read):
            last = min(first + frames_per_read, frames.count) - 1
            size = frames.starts[last] + frames.lengths[last] - frames.starts[first]
            started_ns = monotonic_ns()
            read = <const char*>buffer
            if copy:
                memcpy(buffer, frames.starts[first], size)
            else:
                read = frames.starts[first]
            aside_ns += monotonic_ns() - started_ns
            read_ns = now_ns()
            for i in range(first, last + 1):
                start = read + (frames.starts[i] - frames.starts[first])
                taken = path.scan(start, frames.lengths[i], read + size - start - frames.lengths[i], read_ns)
                if taken != TAKEN:
                    path.flush()
                if taken == NOT_TAKEN:
                    rest.on_text(start[: frames.lengths[i]], read_ns)
                elif taken == TAKEN_AND_FULL:
                    rest.on_full()
            path.flush()
            if path.turns != turns:
                turns = path.turns
                rest.on_end_of_read()
    finally:
        free(buffer)
    return aside_ns


cdef int64_t monotonic_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_MONOTONIC, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


# What these modules were compiled with.
COMPILER = KF_COMPILER.decode()
CYTHON = f"{CYTHON_HEX_VERSION >> 24}.{CYTHON_HEX_VERSION >> 16 & 255}.{CYTHON_HEX_VERSION >> 8 & 255}"
CAN_COUNT = bool(KF_CALLGRIND)  # valgrind's header


def drive_counted(DeltaPath path not None, rest not None, Frames frames not None, Py_ssize_t frames_per_read):
    """``drive``, and callgrind counts its instructions and no others (with --instr-atstart=no)."""
    kf_start_counting()
    try:
        drive(path, rest, frames, frames_per_read, copy=False)
    finally:
        kf_stop_counting()


cdef class Changes:
    """``Changes(markets, sides, prices_e4, deltas_e2)``: input of the stages; four sequences of one length."""

    cdef int64_t[::1] market
    cdef int64_t[::1] side
    cdef int64_t[::1] price_e4
    cdef int64_t[::1] delta_e2
    cdef readonly Py_ssize_t count

    def __init__(self, markets, sides, prices_e4, deltas_e2):
        self.market, self.side, self.price_e4, self.delta_e2 = (
            np.ascontiguousarray(values, np.int64) for values in (markets, sides, prices_e4, deltas_e2)
        )
        self.count = min(map(len, (markets, sides, prices_e4, deltas_e2)))


def to_books(list books not None, Changes changes not None):
    """Applies every change to the book of its market; how many were applied."""
    cdef Py_ssize_t i, applied = 0
    cdef int64_t after = 0
    cdef OrderBook book
    for i in range(changes.count):
        book = <OrderBook?>books[changes.market[i]]
        applied += book.add(changes.side[i], changes.price_e4[i], changes.delta_e2[i], &after) == 0
    return applied


def to_columns(EventColumns events not None, LevelColumns levels not None, Changes changes not None):
    """One event row and one level state for every change; the buffers begin anew when they are full."""
    cdef Py_ssize_t i
    cdef int market
    for i in range(changes.count):
        market = <int>changes.market[i]
        if events.rows.n == events.rows.capacity:
            events.begin()
            levels.begin()
        append_event(
            &events.rows, DELTA, 1, 1, i, market, market, changes.side[i], changes.price_e4[i],
            changes.delta_e2[i], i, i,
        )
        append_level(
            &levels.rows, market, market, changes.side[i], changes.price_e4[i], changes.delta_e2[i], i, i
        )


cdef class Lags:
    """Points in time, each of which becomes how long ago it was when ``stamp`` was called next, in ns; those beyond the
    capacity are left out."""

    cdef int64_t[::1] ns
    cdef Py_ssize_t stamped
    cdef Py_ssize_t taken

    def __init__(self, Py_ssize_t capacity):
        self.ns = np.zeros(capacity, np.int64)

    cdef void since(self, int64_t ts_us) noexcept:
        if self.taken < self.ns.shape[0]:
            self.ns[self.taken] = ts_us * 1000
            self.taken += 1

    cdef void stamp(self) noexcept:
        cdef int64_t now
        if self.stamped < self.taken:
            now = now_ns()
            while self.stamped < self.taken:
                self.ns[self.stamped] = now - self.ns[self.stamped]
                self.stamped += 1

    cdef array(self):
        return np.array(self.ns[: self.stamped])


cdef class LagProbe:
    """Of every delta row: from its ``ts`` to the end of the read that brought it, in ns.

    ``follow(events)``: rows are written there from now on. ``end_of_read()``: what has been written is in
    place now. ``lags_ns()``: all so far, in order; at most ``capacity``, later ones are only counted in ``rows``.
    """

    cdef EventColumns events
    cdef Py_ssize_t seen
    cdef Lags lags
    cdef readonly Py_ssize_t rows

    def __init__(self, Py_ssize_t capacity):
        self.lags = Lags(capacity)

    cdef void _take(self) noexcept:
        cdef EventRows* events
        if self.events is None:
            return
        events = &self.events.rows
        while self.seen < events.n:
            if events.type[self.seen] == DELTA:
                self.rows += 1
                self.lags.since(events.ts_us[self.seen])
            self.seen += 1

    def follow(self, EventColumns events not None):
        self._take()
        self.events = events
        self.seen = events.rows.n

    def end_of_read(self):
        self._take()
        self.lags.stamp()

    def lags_ns(self):
        return self.lags.array()


cdef class LagFloor(FloorListener):
    """The floor of the lags: reads the time at the end of each delta and nothing else. ``lags_ns()``: as of a
    ``LagProbe``, of the frames from ``warm`` on."""

    cdef Lags lags
    cdef long warm

    def __init__(self, long warm, long total, on_warm not None, on_done not None):
        FloorListener.__init__(self, warm, total, on_warm, on_done)
        self.warm = warm
        self.lags = Lags(total - warm)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef const char* end = frame.payload_ptr + frame.payload_size
        if self.frames >= self.warm and frame.msg_type == WSMsgType.TEXT and frame.payload_size > TIME_FROM_END:
            self.lags.since(parse_rfc3339_us(end - TIME_FROM_END, TIME_LENGTH))
            if frame.last_in_buffer:
                self.lags.stamp()
        FloorListener.on_ws_frame(self, transport, frame)

    def lags_ns(self):
        return self.lags.array()


# --- sending ----------------------------------------------------------------------------------------

cdef extern from "sys/socket.h" nogil:
    ssize_t send(int fd, const void* content, size_t length, int flags)

cdef enum:
    SECOND_CHARS = 26  # ,"ts":"2026-11-25T12:00:00
    TIME_CHARS = 60  # the same and .123456Z","ts_ms":1795608000123}} and a newline
    LAST_MS_DIGIT = 56
    MAX_HEAD = 1000
    MAX_GROUP = 64
    SHORTEST_SLEEP_NS = 2000


cdef int64_t _wall_ns() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec


cdef void _sleep_until(int64_t ns) noexcept nogil:
    cdef timespec until
    until.tv_sec = ns // 1_000_000_000
    until.tv_nsec = ns % 1_000_000_000
    clock_nanosleep(CLOCK_REALTIME, TIMER_ABSTIME, &until, NULL)


cdef class Second:
    """The text of a point in time, made anew only when the second is another one."""

    cdef int64_t second
    cdef char text[32]

    def __cinit__(self):
        self.second = -1

    cdef void write(self, char* at, int64_t ts_us) noexcept nogil:
        cdef int64_t second = ts_us // 1_000_000
        cdef time_t seconds = second
        cdef tm parts
        cdef int64_t micros = ts_us % 1_000_000, millis = ts_us // 1000
        cdef int place = SECOND_CHARS + 6
        if second != self.second:
            gmtime_r(&seconds, &parts)
            strftime(self.text, sizeof(self.text), b',"ts":"%Y-%m-%dT%H:%M:%S', &parts)
            self.second = second
        memcpy(at, self.text, SECOND_CHARS)
        memcpy(at + SECOND_CHARS, b'.000000Z","ts_ms":0000000000000}}\n', TIME_CHARS - SECOND_CHARS)
        while micros > 0:
            at[place] = <char>(c'0' + micros % 10)
            micros //= 10
            place -= 1
        place = LAST_MS_DIGIT
        while millis > 0:
            at[place] = <char>(c'0' + millis % 10)
            millis //= 10
            place -= 1


def overslept_ns():
    """By how much a short sleep is too long here, as a rule."""
    cdef list found = []
    cdef int64_t until
    for _ in range(200):
        until = _wall_ns() + 20_000
        _sleep_until(until)
        found.append(_wall_ns() - until)
    return sorted(found)[100]


def pace(
    int fd, list heads not None, int64_t start_us, int64_t rate, Py_ssize_t group, int64_t[::1] late_ns,
    int64_t margin_ns,
):
    """Sends every head with its instant as its ``ts``, at that instant, to a blocking socket; how late each was
    goes to ``late_ns``.

    ``group``: so many share an instant and one call of the system. ``margin_ns``: a sleep is asked to end so long
    before the instant, and this is learned from then on. Unless it is late it sleeps before every instant, since
    others want the core; negative: it only looks at the clock.
    """
    cdef Py_ssize_t first, i, length, head_length, sent, n = len(heads)
    cdef int64_t due_us, due, now, until
    cdef ssize_t done = 0
    cdef char frames[MAX_GROUP * (MAX_HEAD + TIME_CHARS)]
    cdef Second second = Second()
    cdef bytes head
    if not 1 <= group <= MAX_GROUP or max(map(len, heads)) > MAX_HEAD:
        raise ValueError(f"expected groups of at most {MAX_GROUP} frames of at most {MAX_HEAD} bytes")
    for first in range(0, n, group):
        due_us = start_us + first * 1_000_000 // rate
        length = 0
        for i in range(first, min(first + group, n)):
            head = heads[i]
            head_length = len(head)
            memcpy(frames + length, <const char*>head, head_length)
            second.write(frames + length + head_length, due_us)
            length += head_length + TIME_CHARS
        due = due_us * 1000
        with nogil:
            now = _wall_ns()
            if margin_ns >= 0 and now < due - SHORTEST_SLEEP_NS:
                until = max(due - margin_ns, now + 1)
                _sleep_until(until)
                now = _wall_ns()
                margin_ns += (now - until - margin_ns) // 16  # on a busy core a sleep ends sooner
            while now < due:
                now = _wall_ns()
            sent = 0
            while sent < length:
                done = send(fd, frames + sent, length - sent, 0)
                if done >= 0:
                    sent += done
                elif errno != EINTR:
                    break
        if done < 0:
            raise OSError(errno, os.strerror(errno))
        for i in range(first, min(first + group, n)):
            late_ns[i] = now - due
