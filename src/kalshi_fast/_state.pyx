"""State in C fields that the hot path reads and writes without Python: see ``session`` and ``books``.

``Sequence`` is the base of a subscription: the number that its next frame must have, and whether it is over.
``BookState`` is the base of a market's book on one connection. Not here: any rule about either.
"""

from libc.string cimport memcpy


cdef class Sequence:
    """``next_seq``: number of the next frame. ``ended``: no frame of this sid is to be used any more."""

    def __cinit__(self, *args, **kwargs):
        self.next_seq = 1
        self.ended = False


cdef class BookState:
    """``active``: rows are written of this book. ``subscription``: whose snapshot made it exact (None: not yet).

    ``ix`` and ``id_ix`` are the market's numbers in the rows.
    """

    def __cinit__(self, *args, **kwargs):
        self.book = OrderBook(stale=True)

    def name(self, int32_t ix, int32_t id_ix, str market_id not None):
        """The market's numbers, and its id as the exchange writes it (anything but 36 characters: not known)."""
        cdef bytes text = market_id.encode()
        self.ix = ix
        self.id_ix = id_ix
        self.id_known = len(text) == ID_CHARS
        if self.id_known:
            memcpy(self.market_id, <const char*>text, ID_CHARS)
