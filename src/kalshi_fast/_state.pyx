"""State in C fields that the hot path reads and writes without Python: see ``session`` and ``books``.

``Sequence`` is the base of a subscription: the number that its next frame must have, and whether it is over.
``BookState`` is the base of a market's book on one connection. Not here: any rule about either.
"""

from libc.stdlib cimport free
from libc.string cimport memcpy

from kalshi_fast._book cimport zeroed_lines

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
        self.hot = <Hot*>zeroed_lines(sizeof(Hot))
        if self.hot == NULL:
            raise MemoryError
        self.book = OrderBook(stale=True)
        self.subscription = None

    def __dealloc__(self):
        free(self.hot)

    @property
    def book(self):
        """The market's book as one connection has it."""
        return self._book

    @book.setter
    def book(self, OrderBook book not None):
        self._book = book
        self.hot.levels = book.levels

    @property
    def subscription(self):
        return self._subscription

    @subscription.setter
    def subscription(self, Sequence subscription):
        self._subscription = subscription
        self.hot.subscription = <void*>subscription

    @property
    def active(self):
        return bool(self.hot.active)

    @active.setter
    def active(self, bint active):
        self.hot.active = active

    @property
    def ix(self):
        return self.hot.ix

    @property
    def id_ix(self):
        return self.hot.id_ix

    def name(self, int32_t ix, int32_t id_ix, str ticker not None, str market_id not None):
        """The market's numbers, and its names as the exchange writes them (an empty id: not known yet)."""
        cdef bytes key = ticker.encode() + _BETWEEN + market_id.encode() + _BEHIND
        # An id that JSON would have to write in another way is never found as it stands.
        plain = market_id.isascii() and market_id.isprintable()
        self.hot.ix = ix
        self.hot.id_ix = id_ix
        self.hot.key_length = <int>len(key) if market_id and plain and len(key) <= MAX_KEY else 0
        memcpy(self.hot.key, <const char*>key, min(len(key), MAX_KEY))
