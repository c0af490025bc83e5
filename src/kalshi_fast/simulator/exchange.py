"""The server: upgrades, who carries which market, and the play.

The ``Exchange`` takes one change after the other from its source and gives it to every subscription that
carries the market. A slow client is waited for: while its socket is full nothing new is played. Not here:
commands and numbers (``client``), faults (``inject``), how fast (``pace``).
"""

from __future__ import annotations

import asyncio
import errno
import json
import time
from collections import Counter, defaultdict
from email.utils import formatdate
from random import Random
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import picows

from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator import rest
from kalshi_fast.simulator.agenda import Agenda
from kalshi_fast.simulator.checkpoints import Checkpoints
from kalshi_fast.simulator.client import Client
from kalshi_fast.simulator.dialect import Dialect
from kalshi_fast.simulator.express import Express
from kalshi_fast.simulator.handshake import PATH, refusal
from kalshi_fast.simulator.inject import Injector
from kalshi_fast.simulator.life import Life
from kalshi_fast.simulator.pace import MAX_BURST, Pace
from kalshi_fast.simulator.playback import CapturedMarkets, Playback
from kalshi_fast.simulator.recorded import RecordedMarkets
from kalshi_fast.simulator.reference import Reference
from kalshi_fast.simulator.source import Change, Source, on_yes_scale
from kalshi_fast.simulator.state import Conditions, Stats
from kalshi_fast.simulator.subscription import BOOKS, Subscription, key
from kalshi_fast.simulator.tape import Tape

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from kalshi_fast.simulator.announcements import Announcement
    from kalshi_fast.simulator.faults import Fault
    from kalshi_fast.simulator.handshake import PublicKey
    from kalshi_fast.simulator.subscription import ScaleRule

PACE_S: Final = 0.002
PATIENCE_S: Final = 0.05  # between two looks at the clock while a client is waited for
GOODBYE_S: Final = 2.0  # for what is still on its way when the exchange stops


class Exchange:
    """``start``, then clients connect; the play begins with the first subscription and ends by itself.

    ``rate`` is frames per second; ``speed`` plays a recording in its own time, so many times as fast; with
    neither, frames are played as fast as the clients take them. ``seconds`` ends a play that has no end.
    ``drop_every`` leaves out each n-th frame while its number is used up. With ``checkpoint_every_s`` the
    truth goes to a file in ``directory``. ``market_limit``: of one subscription. ``out_of_order``: of
    answers. ``refuse_unknown`` and ``old_sids``: see ``commands``; ``old_frames``: see ``frames``. Moments of
    faults and checkpoints are told in seconds of the play; with a rate these are frames, so that a play is
    the same each time. Raises SimulatorError.
    """

    def __init__(
        self,
        source: Source,
        keys: Mapping[str, PublicKey],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        rate: int = 0,
        speed: float = 0,
        seconds: float | None = None,
        heartbeat_s: float = 10.0,
        drop_every: int = 0,
        seed: int = 1,
        faults: Sequence[Fault] = (),
        checkpoint_every_s: float | None = None,
        directory: Path | None = None,
        max_subscriptions: int | None = None,
        market_limit: int | None = None,
        out_of_order: bool = False,
        refuse_unknown: bool = False,
        old_sids: bool = False,
        unique_sids: bool = False,
        scale: ScaleRule = "asked",
        life_every_s: float | None = None,
        life_lead_s: float | None = None,
        old_frames: bool = False,
    ) -> None:
        self.source = source
        self.frame_end: Final = b"" if old_frames or source.form == "legacy" else b"\n"  # of every text frame
        self.seed = seed
        self.stats = Stats()
        self.conditions = Conditions()
        self.dialect = Dialect(Random(f"{seed} dialect"))  # noqa: S311 - a simulation
        self.max_subscriptions = max_subscriptions
        self.market_limit = market_limit
        self.refuse_unknown = refuse_unknown
        self.old_sids = old_sids
        self.conditions.out_of_order = self.out_of_order = out_of_order
        self.clients: set[Client] = set()
        self.paused: set[Client] = set()
        self.subscribed = asyncio.Event()
        self.finished = asyncio.Event()
        self.wake = asyncio.Event()
        self.host = host
        self.port = port
        self.played = 0
        self.carried = 0  # grows whenever who carries what changes
        self.changes: Counter[str] = Counter()  # of the book of each market, whoever has heard of them
        self._keys = keys
        self._ssl_context = ssl_context
        self._pace = Pace(rate, speed, seconds)
        self._heartbeat_s = heartbeat_s
        self._drop_every = drop_every
        self._unique_sids = unique_sids
        self.scale = scale
        self._last_sid = 0
        self._connections = 0
        self._agenda = Agenda()
        self._injector = Injector(self, faults, self._agenda)
        self.tape = Tape(self)
        self.life = Life(self, self._agenda)
        self.reference = Reference(self, self._agenda)
        if life_every_s is not None:
            self.life.plan(life_every_s, life_lead_s)
        self._checkpoints: Checkpoints | None = None
        if checkpoint_every_s is not None:
            if directory is None:
                raise SimulatorError("checkpoints need a directory")
            self._checkpoints = Checkpoints(directory)
            self._plan_checkpoint(checkpoint_every_s)
        self._carriers: defaultdict[str, list[tuple[Client, Subscription]]] = defaultdict(list)
        self._express: Express | None = None
        disturbed = faults or drop_every or checkpoint_every_s is not None or not self._pace.waits
        if isinstance(source, RecordedMarkets) and source.form == "current" and not disturbed:
            self._express = Express(self, source)
        self.playback = Playback(self, source) if isinstance(source, CapturedMarkets) else None
        self._server: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def rest_url(self) -> str:
        """Of the REST interface: on the same port."""
        return f"http{urlsplit(self.url)._replace(path=rest.ROOT).geturl().removeprefix('ws')}"

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104 - as given
        host = f"[{host}]" if ":" in host else host
        return f"{'ws' if self._ssl_context is None else 'wss'}://{host}:{self.port}{PATH}"

    async def start(self) -> None:
        try:
            self._server = await picows.ws_create_server(
                self._upgrade,
                self.host,
                self.port,
                ssl=self._ssl_context,
                websocket_handshake_timeout=5,
                enable_auto_pong=False,  # a hung connection must not answer
            )
        except OSError as error:
            reason = error.strerror or error
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise SimulatorError(f"--port: {self.port} cannot be opened: {reason}") from error
            raise SimulatorError(f"--host: nobody can listen on {self.host}: {reason}") from error
        self.port = self._server.sockets[0].getsockname()[1]
        self._tasks = [asyncio.ensure_future(self._play()), asyncio.ensure_future(self._heartbeats())]

    def end_play(self) -> None:
        """Nothing more is played; commands are answered as before."""
        self._tasks[0].cancel()
        self._finish()

    async def stop(self) -> None:
        """Closes everything. An error that ended the play is raised now."""
        for task in self._tasks:
            task.cancel()
        ended = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._server is not None:
            self._server.close()
        leaving = [client.transport for client in self.clients if client.transport is not None]
        for client in list(self.clients):
            client.close()
        if leaving:
            waits = [asyncio.ensure_future(transport.wait_disconnected()) for transport in leaving]
            await asyncio.wait(waits, timeout=GOODBYE_S)
            for transport in leaving:
                transport.disconnect(graceful=False)
            await asyncio.gather(*waits, return_exceptions=True)
        if self._checkpoints is not None:
            self._checkpoints.close()
        for error in ended:
            if isinstance(error, Exception):
                raise error

    def _upgrade(
        self, request: picows.WSUpgradeRequest
    ) -> Client | picows.WSUpgradeResponseWithListener | None:
        path = request.path.decode("ascii", "replace")
        if request.method == b"GET" and path.startswith(f"{rest.ROOT}/"):
            answer = rest.answer(self, path, request.headers, self._keys)
            more = {} if answer.retry_after_s is None else {"Retry-After": str(answer.retry_after_s)}
            if answer.cut:
                more["Content-Length"] = str(2 * len(answer.body))
            return _response(answer.status, answer.body, more)
        if path.partition("?")[0] != PATH:
            return None
        if self.conditions.refusal is not None:
            status, code, message = self.conditions.refusal
        elif (refused := refusal(request.headers, self._keys, time.time_ns() // 1_000_000)) is not None:
            status, (code, message) = 401, refused
        else:
            self._connections += 1
            return Client(self, self._connections)
        self.stats.handshakes_refused += 1
        return _response(status, json.dumps({"error": {"code": code, "message": message}}).encode())

    # --- who gets what ----------------------------------------------------------------------------

    def welcome(self, client: Client) -> None:
        self.clients.add(client)
        self.stats.connections += 1
        if self.dialect.active:
            client.faulty()

    def on_yes_scale(self, *, asked: bool) -> bool:
        """Of a subscription to books: with ``use_yes_price``, or whatever the exchange does instead."""
        return asked if self.scale == "asked" else self.scale == "yes"

    def next_sid(self, last_of_connection: int) -> int:
        self._last_sid += 1
        return self._last_sid if self._unique_sids else last_of_connection + 1

    def carry(self, client: Client, subscription: Subscription, keys: Iterable[str]) -> None:
        self.carried += 1
        for name in keys:
            self._carriers[name].append((client, subscription))
            if subscription.channel == BOOKS:
                self.life.heard(name)

    def drop(self, client: Client, subscription: Subscription, keys: Iterable[str]) -> None:
        self.carried += 1
        for name in keys:
            self._carriers[name] = [
                (other, carried)
                for other, carried in self._carriers[name]
                if other is not client or carried is not subscription
            ]

    def carriers(self, name: str) -> list[tuple[Client, Subscription]]:
        """Of a market; or of the events of a channel without markets, by its name."""
        return self._carriers.get(name, [])

    def forget(self, client: Client) -> None:
        self.carried += 1
        self.clients.discard(client)
        self.paused.discard(client)
        for subscription in client.subscriptions.values():
            self.drop(client, subscription, subscription.keys)
        client.subscriptions.clear()
        self.wake.set()

    def heard_by(self, channel: str, ticker: str) -> list[tuple[Client, Subscription]]:
        """Those who have this market of a channel, or all of them."""
        return [*self.carriers(channel), *self.carriers(key(channel, ticker))]

    def publish(self, change: Change, *, drop: bool = False) -> None:
        """A change that the books have already made goes to all who carry its market."""
        self.changes[change.ticker] += 1
        told_in_yes: Change | None = None
        for client, subscription in self.carriers(change.ticker):
            if not subscription.yes_scale:
                client.book_frame(subscription, change, drop=drop)
                continue
            if told_in_yes is None:
                told_in_yes = on_yes_scale(change, self.source.books[change.ticker], self.source.form)
            client.book_frame(subscription, told_in_yes, drop=drop)

    def announce(self, channel: str, announcement: Announcement) -> None:
        """What is said of markets and events goes to all who listen to this channel."""
        for client, subscription in self.carriers(channel):
            client.announcement(subscription, announcement)

    # --- the play ---------------------------------------------------------------------------------

    async def _play(self) -> None:
        if self.playback is not None:
            try:
                await self.playback.run()
            finally:
                self._finish()
            return
        await self.subscribed.wait()
        started = time.monotonic()
        try:
            while True:
                elapsed_s = time.monotonic() - started
                if not self._pace.counts_frames:
                    self._agenda.run(elapsed_s)
                if self._pace.over(elapsed_s, self.played):
                    break
                if self._waits_for_a_client():
                    self.wake.clear()
                    await _wait(self.wake, PATIENCE_S)
                    continue
                due = self._pace.due(elapsed_s, self.played)
                if self._pace.waits and not any(client.subscriptions for client in self.clients):
                    due = 0  # as fast as it is taken: nothing is taken by nobody
                if not self._burst(min(due, MAX_BURST), elapsed_s):
                    break
                await asyncio.sleep(PACE_S if due < MAX_BURST else 0)
        finally:
            self._finish()

    def _waits_for_a_client(self) -> bool:
        if self.paused:
            return True
        # A market with a pace of its own does not wait for a stalled connection.
        return self._pace.waits and any(
            client.link is not None and client.link.stalled for client in self.clients
        )

    def _burst(self, frames: int, elapsed_s: float) -> bool:
        """Plays up to so many changes; False when the source has no more."""
        now_ns = time.time_ns()
        until_s = self._pace.recorded_until_s(elapsed_s)
        planned = self._pace.frames_until(self._agenda.next_s)
        end = self.played + frames
        while self.played < end:
            if self.paused or self.source.next_at_s > until_s:
                return True
            if self._express is not None and (many := self._express.play(end - self.played)):
                self.played += many
                continue
            if self.played >= planned:
                self._agenda.run(self._pace.moment_s(self.played))
                planned = self._pace.frames_until(self._agenda.next_s)
            change = self.source.step(now_ns)
            if change is None:
                return False
            self.played += 1
            self.publish(change, drop=self._drop_every > 0 and self.played % self._drop_every == 0)
            self.tape.observe(change, now_ns)
        return True

    def _finish(self) -> None:
        for client in list(self.clients):
            if client.link is not None:
                client.link.relieve()
        self._checkpoint()
        self.finished.set()

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            for client in list(self.clients):
                client.ping()

    # --- the truth --------------------------------------------------------------------------------

    def books(self) -> dict[str, dict[str, list[tuple[int, int]]]]:
        """The true books now, without those of combinations: ticker → side → [(price_e4, qty_e2), …]."""
        return {
            ticker: book.as_lists()
            for ticker, book in self.source.books.items()
            if not self.life.is_combination(ticker)  # nothing ever happens in one
        }

    def _plan_checkpoint(self, every_s: float) -> None:
        def take() -> None:
            self._checkpoint()
            self._agenda.after(every_s, take)

        self._agenda.after(every_s, take)

    def _checkpoint(self) -> None:
        if self._checkpoints is None:
            return
        subscriptions = [
            subscription
            for client in self.clients
            for subscription in client.subscriptions.values()
            if subscription.channel == BOOKS
        ]
        self._checkpoints.write(subscriptions, self.source.books)
        self.stats.checkpoints += 1


def _response(
    status: int, body: bytes, more: Mapping[str, str] | None = None
) -> picows.WSUpgradeResponseWithListener:
    """A JSON answer that ends the connection."""
    headers = {"Content-Type": "application/json", "Date": formatdate(usegmt=True), "Connection": "close"}
    headers |= more or {}
    if status < 400:
        response = picows.WSUpgradeResponse.create_ok_response(body, headers)
    else:
        response = picows.WSUpgradeResponse.create_error_response(status, body, headers)
    return picows.WSUpgradeResponseWithListener(response, None)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
