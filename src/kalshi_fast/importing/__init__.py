"""``kalshi-fast import``: the seed's Parquet recordings become ours, with a report of what was wrong in them.

``seedfile`` reads one file (``values``: its columns), ``ordering`` brings the rows of all into one order of
time, ``rebuild`` decides what each row is worth (``labels``: whose it is), ``findings`` is the report,
``publish`` puts the result in place: all or nothing; ``store`` puts it into a database too.
Not here: the layout of the result (``sinks.layout``), replaying it.
"""

from __future__ import annotations

from kalshi_fast.importing.run import ImportReport, describe, import_recordings

__all__ = ["ImportReport", "describe", "import_recordings"]
