"""``kalshi-fast plot``: a picture of one recorded market. ``collect`` has the numbers, ``draw`` the picture."""

from __future__ import annotations

from kalshi_fast.plotting.collect import Picture, collect
from kalshi_fast.plotting.draw import FORMATS, save

__all__ = ["FORMATS", "Picture", "collect", "save"]
