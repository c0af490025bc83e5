"""The exchange's time of a message, which may be said twice: in milliseconds, and as a text with
microseconds.

``ts_ms`` is the text cut off to milliseconds, as recordings of 2026 show, and either may be missing.
Microseconds are kept where both agree; the milliseconds win where they do not. Not here: parsing
(``_decode``).
"""

from __future__ import annotations

from kalshi_fast._decode import rfc3339_us
from kalshi_fast.errors import FrameError


def exchange_us(text: str | None, ts_ms: int | None, field: str = "ts") -> int | None:
    """Microseconds since 1970: of ``text`` where it is alone or agrees with ``ts_ms``, else of that; None
    when neither is there. Raises FrameError for a text that is alone and no time.
    """
    if not text:
        return None if ts_ms is None else ts_ms * 1000
    if ts_ms is None:
        return rfc3339_us(text, field)
    try:
        us = rfc3339_us(text, field)
    except FrameError:
        return ts_ms * 1000
    return us if us // 1000 == ts_ms else ts_ms * 1000
