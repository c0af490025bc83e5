"""What the connections bring of the reference channels becomes rows here, each value once.

A value is known by its channel, its index, the time its source gave it and what it says, so that with a hot
standby whichever connection is first counts, and nothing is missed while one of them hangs. What the source
gave no time follows one connection. Nothing can be asked for again: what was missed is said in feed_health.
Not here: messages (``reference``), their numbers and times (``reference_rows``), sequences (``link``).
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from kalshi_fast.backoff import NS
from kalshi_fast.batch import packed_bytes
from kalshi_fast.channels.reference import listed
from kalshi_fast.channels.reference_rows import reference_row
from kalshi_fast.config import REFERENCE_CHANNELS
from kalshi_fast.errors import FrameError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from decimal import Decimal

    from kalshi_fast.channels.link import ChannelLink
    from kalshi_fast.channels.reference import Listing, Value
    from kalshi_fast.recorder import Recorder

MOST_KNOWN: Final = 20_000  # values: some minutes of all indices

log = logging.getLogger("kalshi_fast.channels")


class References:
    """``References(recorder, leads)``: ``leads(link, channel)`` says whether rows follow this connection."""

    def __init__(self, recorder: Recorder, leads: Callable[[ChannelLink, str], bool]) -> None:
        self._recorder = recorder
        self._leads = leads
        self._known: OrderedDict[tuple[str, str, int, Decimal | None], None] = OrderedDict()
        self._seen_ns: dict[str, int] = {}  # receive time of the last value of a channel
        self._missed_ns: dict[str, int] = {}  # since when no connection has had a channel
        self._carried: dict[str, set[ChannelLink]] = {name: set() for name in REFERENCE_CHANNELS}
        self._warned: set[tuple[str, str]] = set()

    def value(self, link: ChannelLink, message: Value, ingest_ns: int) -> None:
        """Raises FrameError for one that cannot be."""
        try:
            row, lost, odd = reference_row(message, link.conn_id, ingest_ns)
        except FrameError as error:
            error.sid, error.seq, error.counted = message.sid, message.seq, True
            raise
        counts, channel = self._recorder.counters, row.channel
        self._seen_ns[channel] = ingest_ns
        if row.source_ts_ms is None:
            if not self._leads(link, channel):
                return
        else:
            key = (channel, row.index_id, row.source_ts_ms, row.value)
            if key in self._known:
                counts.reference_repeated += 1
                return
            self._known[key] = None
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
        for field in lost:
            counts.losses.field(channel, field)
        if odd:
            counts.add_unknown_keys(f"{channel}.msg.{key}" for key in odd)
        counts.reference_prices += 1
        self._recorder.keep("reference_prices", row, packed_bytes(row))

    def listing(self, link: ChannelLink, channel: str, message: Listing, ingest_ns: int) -> None:
        """Which names there are: those that are wanted and not among them are said, once each."""
        there = set(listed(message))
        missing = [name for name in link.session.reference.get(channel, ()) if name not in there]
        for name in missing:
            if (channel, name) not in self._warned:
                self._warned.add((channel, name))
                log.warning("%s: the exchange has no %s at present: nothing comes of it", channel, name)
        if missing:
            detail = f"{channel}: not among what the exchange has at present: {', '.join(missing)}"
            self._recorder.health(ingest_ns, link, "reference_unknown", sid=message.sid, detail=detail)

    # --- interruptions ----------------------------------------------------------------------------

    def interrupted(self, link: ChannelLink, channels: Collection[str], now_ns: int) -> None:
        """Something of these channels was missed on a connection, or they are not carried any more."""
        for name in REFERENCE_CHANNELS:
            if name in channels:
                self._carried[name].discard(link)
                if not self._carried[name]:
                    self._missed_ns.setdefault(name, self._seen_ns.get(name, now_ns))

    def granted(self, link: ChannelLink, channels: Collection[str], now_ns: int) -> None:
        """These channels are carried, or go on."""
        for name in REFERENCE_CHANNELS:
            if name in channels:
                self._carried[name].add(link)
                since_ns = self._missed_ns.pop(name, None)
                if since_ns is not None:
                    self._say(link, name, since_ns, now_ns)

    def _say(self, link: ChannelLink, channel: str, since_ns: int, until_ns: int) -> None:
        detail = (
            f"{channel}: values from {_moment(since_ns)} to {_moment(until_ns)} are missing,"
            " and cannot be asked for again"
        )
        self._recorder.health(until_ns, link, "reference_missed", detail=detail)


def _moment(ns: int) -> str:
    second, rest = divmod(ns, NS)
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(second))}.{rest // 1_000_000:03d}"
