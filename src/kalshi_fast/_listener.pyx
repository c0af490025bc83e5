"""What picows calls for every WebSocket frame, compiled: a text frame goes to the fast path where it lies in the
read buffer, and no Python object is made for it when it is a usual delta.

The receive time is taken once per read from the socket. Everything else (frames that the fast path leaves
alone, control frames, what is due at the end of a read) goes to ``rest``, a ``receiver.Receiver``. At the end of
a read something can be due only when there is something to send or a batch has been sealed (or somebody wants to
know of ``every_read``).
"""

from libc.stdint cimport int64_t, uint64_t

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport

from kalshi_fast._clock cimport now_ns
from kalshi_fast._path cimport NOT_TAKEN, TAKEN, TAKEN_AND_FULL, DeltaPath, Taken


cdef class FrameListener(WSListener):
    """``FrameListener(path, rest)``: of one connection."""

    cdef DeltaPath path
    cdef object rest
    cdef list outbox
    cdef int64_t read_ns  # of the read that is being handled, 0 between two reads
    cdef uint64_t turns  # of the path, when the end of a read was last told
    cdef bint apart  # a message has come in part, or the connection has failed: no frame is a whole message

    def __init__(self, DeltaPath path not None, rest not None):
        self.path = path
        self.rest = rest
        self.outbox = rest.outbox

    cpdef on_ws_connected(self, WSTransport transport):
        self.rest.on_connected(transport)

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        cdef Taken taken = NOT_TAKEN
        # Reserved bits belong to extensions, of which we ask for none.
        cdef bint text = (
            frame.msg_type == WSMsgType.TEXT and frame.fin and not (frame.rsv1 | frame.rsv2 | frame.rsv3) and not self.apart
        )
        if self.read_ns == 0:
            self.read_ns = now_ns()
        if text:
            taken = self.path.scan(frame.payload_ptr, frame.payload_size, frame.tail_size, self.read_ns)
        if taken != TAKEN:
            self._not_only_taken(transport, frame, text, taken)
        if frame.last_in_buffer:
            self._end_of_read()

    cdef _not_only_taken(self, WSTransport transport, WSFrame frame, bint text, Taken taken):
        self.path.flush()
        try:
            if taken == TAKEN_AND_FULL:
                self.rest.on_full()
            elif text:
                self.rest.on_text(frame.get_payload_as_bytes(), self.read_ns)
            else:
                self.apart = self.rest.on_other(transport, frame, self.read_ns)
        except BaseException:
            # picows ends the connection, but not at once: what still comes has its own time.
            self.read_ns = 0
            raise

    cdef _end_of_read(self):
        self.read_ns = 0
        self.path.flush()
        if self.path.every_read or self.path.turns != self.turns or len(self.outbox) > 0:
            self.turns = self.path.turns
            self.rest.on_end_of_read()

    cpdef is_user_specific_pong(self, WSFrame frame):
        """picows keeps the pongs to itself; one that ends a read must end it here too."""
        if frame.msg_type != WSMsgType.PONG:
            return False
        if frame.rsv1 | frame.rsv2 | frame.rsv3:
            return False  # as any other frame, which it may not be
        if frame.last_in_buffer:
            self._end_of_read()
        return True

    cpdef on_ws_disconnected(self, WSTransport transport):
        self.path.flush()
        self.rest.on_disconnected(transport)
