"""``kalshi-fast compact``: the many small files of a past date become few large ones, not a row changed.

``days`` chooses the files, ``source`` reads one, ``merge`` writes and proves the result, ``digest`` is the
proof, ``swap`` puts it in place. Not here: recording; a recorder may run meanwhile (it only adds files).
"""

from __future__ import annotations

from kalshi_fast.compact.days import MAX_BYTES, Report, all_dates, compact, dates, describe
from kalshi_fast.compact.swap import event_files

__all__ = ["MAX_BYTES", "Report", "all_dates", "compact", "dates", "describe", "event_files"]
