"""JSON as nobody expects it: keys in any order, unknown keys, unknown types, fields that have drifted."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import random

_BOOK_TYPES: Final = ("orderbook_snapshot", "orderbook_delta")
_UNKNOWN_EVERY: Final = 8  # about every so many book frames an unknown one is mixed in
# Unknown values with everything in them that could lead a reader astray, known names above all.
_EXTRAS: Final[tuple[tuple[str, Any], ...]] = (
    ("trace", {"sid": 0, "seq": 1, "type": "orderbook_delta", "msg": {"market_ticker": "NOT-THIS"}}),
    ("note", 'quoted "price_dollars":"0.0100", {braces} [brackets] \\ and \u00e9\u4e2d\U0001f600'),
    ("flags", [[], {}, [[1, [2, {"delta_fp": "1.00"}]]], None, True, False]),
    ("weight", -1.5e-9),
    ("big", 2**70),
    ("", {"": ""}),
    ("yes_no", "}],\n\t"),
)
_LEVELS: Final = ("yes_dollars_fp", "no_dollars_fp", "yes", "no")
# Fields that a row can do without, by the type of the message.
_NOT_NEEDED: Final[dict[str, tuple[str, ...]]] = {
    "orderbook_delta": ("market_id", "ts", "ts_ms"),
    "trade": (
        "no_price_dollars",
        "taker_side",
        "taker_outcome_side",
        "taker_book_side",
        "is_block_trade",
        "ts",
        "ts_ms",
    ),
    "ticker": (
        "market_id",
        "price_dollars",
        "yes_bid_dollars",
        "yes_ask_dollars",
        "volume_fp",
        "open_interest_fp",
        "dollar_volume",
        "dollar_open_interest",
        "yes_bid_size_fp",
        "yes_ask_size_fp",
        "last_trade_size_fp",
        "ts",
        "ts_ms",
        "time",
    ),
}
_GONE: Final = object()
_DRIFTED: Final[tuple[Any, ...]] = (_GONE, None, "", "?", -1, 1.5, 2**70, True, [], {"": 0})


class Dialect:
    """Which deviations are on; ``rewrite`` applies them to a frame. Deterministic from the seed."""

    def __init__(self, rng: random.Random) -> None:
        self.shuffle = False
        self.extra = False
        self.drift = False
        self.unknown = False
        self._rng = rng

    @property
    def active(self) -> bool:
        return self.shuffle or self.extra or self.drift or self.unknown

    def rewrite(self, payload: bytes) -> bytes:
        if not (self.shuffle or self.extra or self.drift):
            return payload
        frame = json.loads(payload)
        if self.drift:
            self._drift(frame)
        shuffled = self.shuffle and frame["type"] in _BOOK_TYPES
        body = frame.get("msg")
        if isinstance(body, dict):
            found = self._object(body, shuffled=shuffled)
            if frame["type"] == "orderbook_snapshot" and not any(name in body for name in _LEVELS):
                found.pop("flags", None)  # a list in a book without levels could be its levels, renamed
            frame["msg"] = found
        return json.dumps(self._object(frame, shuffled=shuffled), separators=(",", ":")).encode()

    def _object(self, found: dict[str, Any], *, shuffled: bool) -> dict[str, Any]:
        items = list(found.items())
        if self.extra:
            for extra in self._rng.sample(_EXTRAS, self._rng.randint(1, 3)):
                items.insert(self._rng.randint(0, len(items)), extra)
        if shuffled:
            self._rng.shuffle(items)
        return dict(items)

    def _drift(self, frame: dict[str, Any]) -> None:
        """Spoils one field, if there is one that no row needs."""
        names = [name for name in _NOT_NEEDED.get(frame["type"], ()) if name in frame["msg"]]
        if not names:
            return
        name, value = self._rng.choice(names), self._rng.choice(_DRIFTED)
        if value is _GONE:
            del frame["msg"][name]
        else:
            frame["msg"][name] = value

    def wants_unknown(self) -> bool:
        """Whether a frame of an unknown type is to follow now."""
        return self.unknown and self._rng.randrange(_UNKNOWN_EVERY) == 0

    def is_numbered(self) -> bool:
        """Whether that frame belongs to the subscription, and takes one of its numbers."""
        return self._rng.random() < 0.5

    def unknown_frame(self, sid: int | None = None, seq: int | None = None) -> bytes:
        scope = {} if sid is None else {"sid": sid, "seq": seq}
        body = dict(self._rng.sample(_EXTRAS, 3))
        return json.dumps({"type": "market_mood", **scope, "msg": body}, separators=(",", ":")).encode()
