"""The channels of reference prices: their messages, and what is asked for on each.

``cfbenchmarks_value`` has the CF Benchmarks indices about once a second, with the averages that 15-minute and
hourly crypto markets settle on; ``cfbenchmarks_value_5hz`` has a few of them five times as often, without
averages; ``pyth_value`` has Pyth's prices. Source: Kalshi's AsyncAPI document 2.0.0 and, for the first two
channels, frames of production recorded on 2026-09-25. All three are sequenced. A subscription names indices
or underlyings in place of markets. Fields that a row can do without are kept as JSON text, so that a bad one
costs nothing else (``reference_rows``). Not here: rows, which of two connections is heard
(``reference_stream``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from kalshi_fast.config import CF, CF_5HZ, EVERYTHING, PYTH
from kalshi_fast.scalars import CommandId, Seq, Sid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# What the 5 Hz channel has (the document, September 2026). Others are not asked for there by name; with
# ``all`` it sends whatever it has.
FIVE_HZ: Final = ("BRTI", "ETHUSD_RTI", "SOLUSD_RTI", "XRPUSD_RTI", "DOGEUSD_RTI")
# Errors that say: without indices (24) or underlyings (28) there is no such subscription.
NAMES_REQUIRED: Final = (24, 28)

ABSENT: Final = msgspec.Raw(b"")


class CfBody(Struct, omit_defaults=True):
    """``data`` is the frame of CF Benchmarks as text: a JSON object with time, id and value."""

    index_id: str
    received_at: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT
    avg_60s_data: msgspec.Raw = ABSENT
    last_60s_windowed_average_15min: msgspec.Raw = ABSENT


class Cf5HzBody(Struct, omit_defaults=True):
    index_id: str
    value_usd: msgspec.Raw = ABSENT
    source_ts_ms: msgspec.Raw = ABSENT
    received_at: msgspec.Raw = ABSENT
    data: msgspec.Raw = ABSENT


class PythBody(Struct, omit_defaults=True):
    underlying_ticker: str
    value_usd: msgspec.Raw = ABSENT
    source_ts_ms: msgspec.Raw = ABSENT
    received_at: msgspec.Raw = ABSENT


class CfValue(Struct, tag="cfbenchmarks_value"):
    sid: Sid
    seq: Seq
    msg: CfBody


class Cf5HzValue(Struct, tag="cfbenchmarks_value_5hz"):
    sid: Sid
    seq: Seq
    msg: Cf5HzBody


class PythValue(Struct, tag="pyth_value"):
    sid: Sid
    seq: Seq
    msg: PythBody


class IndexIds(Struct):
    index_ids: list[str] | None = None


class Underlyings(Struct):
    underlying_tickers: list[str] | None = None


class CfIndexList(Struct, tag="cfbenchmarks_value_indexlist", omit_defaults=True):
    """Which indices there are; its ``seq`` counts in the sid's sequence, as that of the next two."""

    sid: Sid
    msg: IndexIds
    seq: Seq | None = None
    id: CommandId = 0


class Cf5HzIndexList(Struct, tag="cfbenchmarks_value_5hz_indexlist", omit_defaults=True):
    """Which indices the 5 Hz channel has had lately."""

    sid: Sid
    msg: IndexIds
    seq: Seq | None = None
    id: CommandId = 0


class PythUnderlyingList(Struct, tag="pyth_value_underlying_list", omit_defaults=True):
    """Which underlyings had a price in the last two hours."""

    sid: Sid
    msg: Underlyings
    seq: Seq | None = None
    id: CommandId = 0


Value: TypeAlias = CfValue | Cf5HzValue | PythValue
Listing: TypeAlias = CfIndexList | Cf5HzIndexList | PythUnderlyingList
VALUES: Final = (CfValue, Cf5HzValue, PythValue)
LISTINGS: Final = (CfIndexList, Cf5HzIndexList, PythUnderlyingList)


def listed(message: Listing) -> list[str]:
    """The names that a listing has; a list that is null is empty."""
    body = message.msg
    return (body.underlying_tickers if isinstance(body, Underlyings) else body.index_ids) or []


# --- what is asked for --------------------------------------------------------------------------------


def is_underlying(name: str) -> bool:
    """A Pyth underlying (``Metal.XAU/USD``) has a class of assets before a dot, an index id has no dot."""
    return "." in name


def by_channel(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Which names are asked for on which channel; a channel without any is not among them."""
    wanted = tuple(names)
    if wanted == (EVERYTHING,):
        return dict.fromkeys((CF, CF_5HZ, PYTH), wanted)
    indices = tuple(name for name in wanted if not is_underlying(name))
    found = {
        CF: indices,
        CF_5HZ: tuple(name for name in indices if name in FIVE_HZ),
        PYTH: tuple(name for name in wanted if is_underlying(name)),
    }
    return {channel: asked for channel, asked in found.items() if asked}


def seeds(channel: str, wanted: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """What a subscribe to this channel says beside its name; nothing for another channel."""
    names = wanted.get(channel)
    if names is None:
        return {}
    return {"underlying_tickers" if channel == PYTH else "index_ids": list(names)}


def listing_action(channel: str, wanted: Mapping[str, Sequence[str]]) -> str | None:
    """How the exchange is asked which names the channel has, where some are asked for by name: a
    subscription to one that there is not is no error, and brings nothing."""
    names = wanted.get(channel)
    if names is None or tuple(names) == (EVERYTHING,):
        return None
    return "underlying_list" if channel == PYTH else "indexlist"
