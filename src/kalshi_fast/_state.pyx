"""State in C fields that the hot path reads and writes without Python: see ``session`` and ``books``.

``Sequence`` is the base of a subscription: the number that its next frame must have, and whether it is over.
``BookState`` is the base of a market's book on one connection. Not here: any rule about either.
"""

from libc.string cimport memcpy

cdef bytes _BEFORE = b'"market_ticker":"'
cdef bytes _BETWEEN = b'","market_id":"'
cdef bytes _BEHIND = b'","price_dollars":"'


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
        self.key = self.text + len(_BEFORE)

    @property
    def book(self):
        """The market's book as one connection has it."""
        return self._book

    @book.setter
    def book(self, OrderBook book not None):
        self._book = book
        self.levels = &book.levels

    def name(self, int32_t ix, int32_t id_ix, str ticker not None, str market_id not None):
        """The market's numbers, and its names as the exchange writes them (an empty id: not known yet)."""
        cdef bytes key = ticker.encode() + _BETWEEN + market_id.encode() + _BEHIND
        cdef bytes text = _BEFORE + key
        self.ix = ix
        self.id_ix = id_ix
        # An id that JSON would have to write in another way is never found as it stands.
        plain = market_id.isascii() and market_id.isprintable()
        self.key_length = <int>len(key) if market_id and plain and len(text) <= MAX_KEY else 0
        memcpy(self.text, <const char*>text, min(len(text), MAX_KEY))
