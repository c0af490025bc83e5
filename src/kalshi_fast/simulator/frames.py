"""The true book of a market and the JSON bodies of its frames, in the current and the legacy form.

Frames are as production sends them (recordings of 2026): a newline behind the last brace, and the time of a
delta in ``ts`` to the microsecond and in ``ts_ms``. ``old_frames`` anywhere in the simulator means those of
earlier versions, for clients that know only these: no newline, and whole seconds in ``ts`` beside ``ts_ms``.
"""

from __future__ import annotations

import json
import time
from functools import lru_cache
from typing import Final, Literal, TypeAlias

Form: TypeAlias = Literal["current", "legacy"]
FORMS: Final[tuple[Form, ...]] = ("current", "legacy")
SIDES: Final = ("yes", "no")
_SIDES_JSON: Final = (b"yes", b"no")

Levels: TypeAlias = dict[int, int]  # price_e4 → qty_e2, no level of size 0


class TrueBook:
    """What the exchange itself knows of one market: two dicts."""

    __slots__ = ("altered", "market_id", "sides", "ticker")

    def __init__(self, ticker: str, market_id: str) -> None:
        self.ticker = ticker
        self.altered = False  # a fault has changed it: what a recording tells of it may not fit any more
        self.market_id = market_id
        self.sides: tuple[Levels, Levels] = ({}, {})

    def change(self, side: int, price_e4: int, delta_e2: int) -> None:
        levels = self.sides[side]
        size = levels.get(price_e4, 0) + delta_e2
        if size < 0:
            raise ValueError(f"{self.ticker}: {SIDES[side]} {price_e4} would fall to {size}")
        if size:
            levels[price_e4] = size
        else:
            levels.pop(price_e4, None)

    def replace(self, sides: tuple[Levels, Levels]) -> None:
        self.sides = sides

    def as_lists(self) -> dict[str, list[tuple[int, int]]]:
        """Both sides by name, ascending in price."""
        return {name: sorted(levels.items()) for name, levels in zip(SIDES, self.sides, strict=True)}


def times(ts_us: int) -> bytes:
    """The JSON of a delta's times, with a leading comma: the fraction without its trailing zeros, ``ts_ms``
    cut off."""
    second, us = divmod(ts_us, 1_000_000)
    fraction = b"." + (b"%06d" % us).rstrip(b"0") if us else b""
    return b',"ts":"%b%bZ","ts_ms":%d' % (_second(second), fraction, ts_us // 1000)


def old_times(ts_us: int) -> bytes:
    """The same as earlier versions sent it."""
    return b',"ts":"%bZ","ts_ms":%d' % (_second(ts_us // 1_000_000), ts_us // 1000)


@lru_cache(64)
def _second(second: int) -> bytes:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)).encode()


def _head(book: TrueBook) -> bytes:
    market_id = b',"market_id":"%b"' % book.market_id.encode() if book.market_id else b""
    return b'{"market_ticker":"%b"%b' % (book.ticker.encode(), market_id)


def nobodys_body(ticker: str) -> bytes:
    """The ``msg`` of the snapshot of a ticker that the exchange does not know (as on the demo exchange)."""
    return b'{"market_ticker":%b,"market_id":""}' % json.dumps(ticker).encode()


def delta_head(book: TrueBook) -> bytes:
    """How the ``msg`` of an orderbook_delta begins."""
    return _head(book)


def snapshot_body(book: TrueBook, form: Form = "current", *, yes_scale: bool = False) -> bytes:
    """The ``msg`` of an orderbook_snapshot; a side without levels has no key.

    ``yes_scale``: prices of the no side are told as yes prices.
    """
    parts = [_head(book)]
    for side, (name, levels) in enumerate(zip(_SIDES_JSON, book.sides, strict=True)):
        if not levels:
            continue
        if yes_scale and side == 1:
            levels = {10_000 - price_e4: size for price_e4, size in levels.items()}
        if form == "current":
            pairs = [
                b'["%d.%04d","%d.%02d"]' % (*divmod(p, 10_000), *divmod(q, 100))
                for p, q in sorted(levels.items())
            ]
            parts.append(b',"%b_dollars_fp":[%b]' % (name, b",".join(pairs)))
        else:
            pairs = [b"[%d,%d]" % (p // 100, q // 100) for p, q in sorted(levels.items())]
            parts.append(b',"%b":[%b]' % (name, b",".join(pairs)))
    return b"".join([*parts, b"}"])


def delta_body(
    book: TrueBook, side: int, price_e4: int, delta_e2: int, times: bytes, form: Form = "current"
) -> bytes:
    """The ``msg`` of an orderbook_delta; ``times`` is the JSON of its ts fields, with a leading comma."""
    if form == "legacy":
        return b'%b,"price":%d,"delta":%d,"side":"%b"%b}' % (
            _head(book),
            price_e4 // 100,
            int(delta_e2 / 100),
            _SIDES_JSON[side],
            times,
        )
    sign = b"-" if delta_e2 < 0 else b""
    whole, hundredths = divmod(abs(delta_e2), 100)
    return b'%b,"price_dollars":"%d.%04d","delta_fp":"%b%d.%02d","side":"%b"%b}' % (
        _head(book),
        price_e4 // 10_000,
        price_e4 % 10_000,
        sign,
        whole,
        hundredths,
        _SIDES_JSON[side],
        times,
    )
