"""A link whose subscription has been granted: what a recorder needs before frames can come."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from kalshi_fast import wire
from kalshi_fast.link import Link
from kalshi_fast.session import CHANNEL, Session
from kalshi_fast.subscription import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from kalshi_fast._columns import EventColumns, LevelColumns
    from kalshi_fast.recorder import Recorder

LIMITS = Limits()


def rows(columns: EventColumns | LevelColumns, *names: str) -> Iterator[tuple[Any, ...]]:
    """The valid rows of a buffer, as far as these columns go (none named: all)."""
    arrays = [columns.arrays[name][: columns.n].tolist() for name in names or columns.arrays]
    return zip(*arrays, strict=True)


def link(
    recorder: Recorder,
    tickers: Iterable[str],
    clock: Callable[[], int],
    *,
    use_yes_price: bool = False,
    limits: Limits = LIMITS,
    hold: bool = False,
) -> Link:
    """Not connected yet: see ``grant``."""
    rng = random.Random(1)
    session = Session(tickers, clock=clock, rng=rng, use_yes_price=use_yes_price, limits=limits)
    return Link(recorder, session, hold=hold)


def grant(link: Link, conn_id: int, now_ns: int, sid: int = 1) -> None:
    """A new connection, on which all markets are carried by one subscription."""
    link.on_connected(conn_id, now_ns)
    link.session.on_subscribed(wire.Subscribed(1, wire.ChannelSid(CHANNEL, sid)))
    link.session.outbox.clear()
