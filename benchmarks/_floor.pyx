"""The floor: a compiled picows listener that counts text frames and does nothing with them."""

from picows.picows cimport WSFrame, WSListener, WSMsgType, WSTransport


cdef class FloorListener(WSListener):
    cdef public long frames
    cdef long wanted
    cdef object done

    def __init__(self, long wanted, done):
        self.wanted = wanted
        self.done = done

    cpdef on_ws_frame(self, WSTransport transport, WSFrame frame):
        if frame.msg_type == WSMsgType.TEXT:
            self.frames += 1
            if self.frames == self.wanted:
                self.done()
