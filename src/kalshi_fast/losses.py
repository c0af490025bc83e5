"""What frames lose: fields that cannot be used, by message type and field, and frames, by channel.

A value that is missing, null or "" where the exchange need not have one is no loss; one that is there and
cannot be used is. Only names of our own are kept, so their number is bounded. Not here: which fields a
message cannot do without (the structs of ``wire`` and ``channels.messages``), how values are read
(``tolerant``).
"""

from __future__ import annotations

from collections import Counter
from typing import Final

BOOKS_CHANNEL: Final = "orderbook_delta"
REPLIES: Final = "replies"
OTHER: Final = "other"  # frames of types that this version does not model
UNREADABLE: Final = "unreadable"  # frames of no type that can be read
_CHANNELS: Final = {
    "orderbook_snapshot": BOOKS_CHANNEL,
    "event_lifecycle": "market_lifecycle_v2",
    "event_fee_update": "market_lifecycle_v2",
    "cfbenchmarks_value_indexlist": REPLIES,
    "cfbenchmarks_value_5hz_indexlist": REPLIES,
    "pyth_value_underlying_list": REPLIES,
    "subscribed": REPLIES,
    "unsubscribed": REPLIES,
    "ok": REPLIES,
    "error": REPLIES,
}
# What messages of these types have in every recording, in one field or another: without it they have lost
# something. Other fields that are missing, null or "" are left out where there is nothing to say.
USUAL: Final = {
    "orderbook_delta": ("ts_ms",),
    "trade": ("ts_ms", "taker_outcome_side"),
    "ticker": ("ts_ms", "yes_bid_dollars", "yes_ask_dollars", "volume_fp", "open_interest_fp"),
}


def channel_of(kind: str | None) -> str:
    """The channel that messages of this type come on; ``kind``: one of the types that ``wire`` knows."""
    return UNREADABLE if kind is None else _CHANNELS.get(kind, kind)


class Losses:
    """``field`` while a frame is read; ``end`` when it is done. Frames of the fast path lose nothing: whoever
    counts those adds them to ``frames``."""

    __slots__ = ("_lossy", "fields", "frames", "lossy", "rejected")

    def __init__(self) -> None:
        self.fields: Counter[tuple[str, str]] = Counter()  # (message type, field)
        self.frames: Counter[str] = Counter()  # by channel, all of them
        self.lossy: Counter[str] = Counter()  # by channel: used, with a field lost
        self.rejected: Counter[str] = Counter()  # by channel: not used at all
        self._lossy = False

    def field(self, kind: str, name: str) -> None:
        """The present frame has lost this field."""
        self.fields[kind, name] += 1
        self._lossy = True

    def end(self, kind: str | None, *, rejected: bool = False) -> None:
        """The present frame is done; ``kind``: its type, None when that could not be read."""
        channel = channel_of(kind)
        self.frames[channel] += 1
        if rejected:
            self.rejected[channel] += 1
        elif self._lossy:
            self.lossy[channel] += 1
        self._lossy = False

    def by_type(self) -> dict[str, dict[str, int]]:
        """The fields that were lost: by message type, by field. Those that every recorded message has are
        there from the start, with 0: the first loss is then a rise."""
        found = {kind: dict.fromkeys(names, 0) for kind, names in USUAL.items()}
        for (kind, name), count in self.fields.items():
            found.setdefault(kind, {})[name] = count
        return found
