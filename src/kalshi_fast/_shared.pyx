"""Numbers that two processes share: 64-bit cells at the beginning of a block of memory, read and written whole.

``set`` makes everything that was written before it visible to whoever sees the new number (release), ``get``
sees everything that was written before the number it reads (acquire). Not here: what the cells mean (``ring``).
"""

from libc.stdint cimport int64_t

from kalshi_fast.errors import FieldError

cdef extern from *:
    """
    #define kf_load(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define kf_store(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    int64_t kf_load(int64_t* cell) nogil
    void kf_store(int64_t* cell, int64_t value) nogil


cdef class Cells:
    """``Cells(memory, count)``: so many cells at the start of a writable, 8-byte aligned block."""

    cdef int64_t[::1] memory
    cdef readonly Py_ssize_t count

    def __cinit__(self, memory, Py_ssize_t count):
        view = memoryview(memory)
        if not 0 < count <= view.nbytes // 8:
            raise FieldError("count", count, f"1 to {view.nbytes // 8} cells")
        self.memory = view.cast("B")[: count * 8].cast("q")
        self.count = count

    cdef int64_t* _cell(self, Py_ssize_t at) except NULL:
        if not 0 <= at < self.count:
            raise FieldError("cell", at, f"0 to {self.count - 1}")
        return &self.memory[0] + at

    def get(self, Py_ssize_t at):
        """The number in cell ``at``."""
        return kf_load(self._cell(at))

    def set(self, Py_ssize_t at, int64_t value):
        """Writes cell ``at``."""
        kf_store(self._cell(at), value)
