"""`kalshi-fast reread`: rejected frames are read again by a newer version, and what they say is stored.

The parts: kept frames and which of them have been taken (``kept``), the rows that they come to
(``taking``), what the stores have already (``stored``), the whole of it (``run``).
"""

from kalshi_fast.rereading.run import Report, describe, reread

__all__ = ["Report", "describe", "reread"]
