"""``kalshi-fast plot``: a recorded market as a picture. ``collect`` has the numbers, ``draw`` draws."""

from __future__ import annotations

from kalshi_fast.plotting.collect import Picture, collect
from kalshi_fast.plotting.draw import FORMATS, save

__all__ = ["FORMATS", "Picture", "collect", "save"]
