"""The reference prices that ``REFERENCE`` asks for: whether the exchange has their channels, and their names.

Subscribes as a recording does, on a connection of its own, and asks for the lists; nothing is stored. Not
here: the handshake itself (``exchange``).
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Final

import picows

from kalshi_fast import wire
from kalshi_fast.channels.reference import LISTINGS, by_channel, listed, listing_action
from kalshi_fast.channels.session import ChannelSession
from kalshi_fast.check.finding import Check, Finding, ok, warning
from kalshi_fast.check.key import signer
from kalshi_fast.check.markets import some_of
from kalshi_fast.dial import connect, exchange_tls, hang_up
from kalshi_fast.errors import ConfigError, ConnectError, FrameError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings

NAME: Final = "reference"
ANSWER_S: Final = 5.0


def checks(settings: Settings) -> list[Check]:
    return [Check(NAME, lambda: look(settings))] if settings.reference else []


class _Asker(picows.WSListener):
    """Speaks as the recorder's session does. ``refused`` and ``missing`` are by channel."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.wanted = by_channel(names)
        self.refused: dict[str, str] = {}
        self.missing: dict[str, list[str]] = {}
        self.done = asyncio.Event()
        self._lists = {name for name in self.wanted if listing_action(name, self.wanted)}
        rng = random.Random()  # noqa: S311 - spreads retries
        self.session = ChannelSession(
            self.wanted, (), clock=time.monotonic_ns, rng=rng, reference=self.wanted
        )

    @property
    def unanswered(self) -> list[str]:
        return [
            name
            for name in self.wanted
            if name not in self.refused and (name in self._lists or not self.session.carries(name))
        ]

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.session.opened()
        self._send(transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.done.set()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type != picows.WSMsgType.TEXT:
            return
        try:
            message = wire.decode(frame.get_payload_as_bytes())
        except FrameError:
            return  # a recording would count it; here it is no answer
        if isinstance(message, wire.Subscribed):
            self.session.on_subscribed(message)
        elif isinstance(message, wire.Error):
            before = list(self.wanted)
            self.session.on_error(message)
            for name in before:
                if name in self.session.unknown and name not in self.refused:
                    self.refused[name] = f"error {message.msg.code}: {message.msg.msg}"
        elif isinstance(message, LISTINGS):
            channel = self.session.channel_of(message.sid)
            if channel in self._lists:
                self._lists.discard(channel)
                there = set(listed(message))
                self.missing[channel] = [name for name in self.wanted[channel] if name not in there]
        self._send(transport)
        if not self.unanswered:
            self.done.set()

    def _send(self, transport: picows.WSTransport) -> None:
        for command in self.session.outbox:
            transport.send(picows.WSMsgType.TEXT, command)
        self.session.outbox.clear()


def look(settings: Settings) -> Iterator[Finding]:
    try:
        made = signer(settings)
    except ConfigError:
        made = None
    if made is None:
        yield warning(NAME, "not asked for: there is no key to sign with", "see the line about the key")
        return

    async def ask() -> _Asker:
        asker = _Asker(settings.reference)
        context = exchange_tls(settings.ws_url, settings.ws_cafile)
        transport = await connect(
            lambda: asker, settings.ws_url, made, ssl_context=context, hostname=settings.ws_hostname
        )
        try:
            await asyncio.wait_for(asker.done.wait(), ANSWER_S)
        except TimeoutError:
            pass  # who has not answered is in ``unanswered``
        finally:
            await hang_up(transport)
        return asker

    try:
        asker = asyncio.run(ask())
    except ConnectError as error:
        yield warning(NAME, f"not asked for: {error}", "see the line about websocket")
        return
    for channel, why in asker.refused.items():
        yield warning(NAME, f"the exchange refuses {channel}: {why}", "nothing of it would be recorded")
    for channel in asker.unanswered:
        yield warning(NAME, f"{channel}: no answer within {ANSWER_S:g} s", "try again later")
    for channel, names in asker.missing.items():
        if names:
            said = f"{channel}: the exchange has no {some_of(names)} at present"
            yield warning(NAME, said, "see whether the names are right")
    had = [name for name in asker.wanted if name not in asker.refused and name not in asker.unanswered]
    if had:
        yield ok(NAME, f"the exchange has the channels {', '.join(had)}")
