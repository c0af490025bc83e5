"""Recorded books for other programs: hftbacktest, NautilusTrader, anything that reads CSV.

A file for each market and date. ``days`` makes the columns that all of them are made of, ``hft``, ``table``
and ``nautilus`` the forms, ``files`` puts files in place. Not here: reading recordings (``replaying``).
"""

from __future__ import annotations

from kalshi_fast.exporting.run import FORMS, ExportReport, describe, export

__all__ = ["FORMS", "ExportReport", "describe", "export"]
