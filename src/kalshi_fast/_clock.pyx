"""Receive times: the system's clock, which never goes back here.

Rows are in the order of their receive times, so of two readings the later is greater, whatever the system's clock
does: set back, it is followed again when it has caught up; until then each reading is one nanosecond more.
"""

from libc.stdint cimport int64_t
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

cdef int64_t last_ns = 0


cdef int64_t now_ns() noexcept nogil:
    global last_ns
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    cdef int64_t ns = <int64_t>now.tv_sec * 1_000_000_000 + now.tv_nsec
    last_ns = ns if ns > last_ns else last_ns + 1
    return last_ns


def receive_ns():
    """Nanoseconds since 1970, greater than at any call before."""
    return now_ns()


def not_before(int64_t ns):
    """All readings from now on are at least this."""
    global last_ns
    last_ns = max(last_ns, ns - 1)
