"""A capture served to a recorder: its frames go out as they were recorded, each with its newline.

Only ``subscribed`` is ours: it answers the recorder's own commands, with the sid that the channel has in
the capture. Every other frame is as recorded, replies to the commands of the recorded client included;
they answer nothing of ours. A connection is played once the recorder has subscribed to all that it has,
and is closed behind its last frame when another one follows. What a capture cannot answer
(``get_snapshot``) is not answered. Not here: reading (``captured``).
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec

from kalshi_fast import wire
from kalshi_fast.errors import FrameError
from kalshi_fast.simulator import grids
from kalshi_fast.simulator.capture_truth import scale, truth
from kalshi_fast.simulator.captured import Capture
from kalshi_fast.simulator.frames import Form, TrueBook
from kalshi_fast.simulator.subscription import BOOKS

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.simulator.captured import Connection, Frame
    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.source import Change

PATIENCE_S: Final = 3.0  # for channels that nobody subscribes to
_BURST: Final = 200  # frames between two looks at the event loop
_LOOK_S: Final = 0.005


class CapturedMarkets:
    """The markets of a capture as REST and reports tell them: with the books that it ends with."""

    def __init__(self, path: Path, *, use_yes_price: bool | None = None) -> None:
        self.form: Form = "current"
        self.capture = Capture(path)
        said = truth(self.capture, on_yes_scale=scale(self.capture, use_yes_price)[0])
        self.books = {ticker: TrueBook(ticker, "") for ticker in self.capture.tickers()}
        for frame in self.capture.all_frames():
            body = frame.message.get("msg")
            if (
                isinstance(body, dict)
                and (book := self.books.get(str(body.get("market_ticker")))) is not None
            ):
                book.market_id = book.market_id or str(body.get("market_id", ""))
        used: dict[str, set[int]] = {ticker: set() for ticker in self.books}
        for _, ticker, _, _, _, price, _, _ in said.book_rows:
            used[ticker].add(price)
        self.structures = {ticker: grids.coarsest(prices) for ticker, prices in used.items()}
        for ticker, sides in said.books.items():
            self.books[ticker].replace(sides)

    def __len__(self) -> int:
        """How many frames the play has."""
        return sum(1 for _ in self.capture.all_frames())

    @property
    def next_at_s(self) -> float:
        return 0.0

    def step(self, now_ns: int) -> Change | None:
        """Nothing is played change by change: see ``Playback``."""
        return None

    def restructure(self, ticker: str, structure: str) -> None:
        self.structures[ticker] = structure


@dataclass(slots=True)
class _Lane:
    """``clients``: who carries each channel of the connection that is due."""

    connections: list[Connection]
    at: int = 0
    clients: dict[str, Client] = field(default_factory=dict)
    named: set[str] = field(default_factory=set)  # markets of books

    @property
    def due(self) -> Connection | None:
        return self.connections[self.at] if self.at < len(self.connections) else None


class Playback:
    """``run`` until the last frame of every lane is out."""

    def __init__(self, exchange: Exchange, source: CapturedMarkets) -> None:
        self._exchange = exchange
        capture = source.capture
        self._books, self._beside = _Lane(capture.books), _Lane(capture.beside)
        self._tickers = {
            frame.message["msg"]["market_ticker"]
            for frame in capture.all_frames()
            if frame.channel == BOOKS
            and isinstance(frame.message.get("msg"), dict)
            and isinstance(frame.message["msg"].get("market_ticker"), str)
        }
        self._spare_sid = 1_000_000

    def commands(self, client: Client) -> CaptureCommands:
        return CaptureCommands(self, client)

    async def run(self) -> None:
        await asyncio.gather(self._play(self._books), self._play(self._beside))

    # --- who listens ------------------------------------------------------------------------------

    def subscribe(self, client: Client, channel: str, tickers: list[str]) -> int:
        """Which sid the channel has here."""
        lane = self._books if channel == BOOKS else self._beside
        lane.clients[channel] = client
        if channel == BOOKS:
            lane.named = set(tickers)
        sid = None if lane.due is None else lane.due.sids.get(channel)
        if sid is None:
            self._spare_sid += 1
            sid = self._spare_sid
        return sid

    def add(self, client: Client, tickers: list[str]) -> None:
        if self._books.clients.get(BOOKS) is client:
            self._books.named.update(tickers)

    def _ready(self, lane: _Lane, connection: Connection, waited_s: float) -> bool:
        here = {channel for channel, client in lane.clients.items() if client.transport is not None}
        if lane is self._books:
            return BOOKS in here and (self._tickers <= lane.named or waited_s > PATIENCE_S)
        return bool(here) and (connection.sids.keys() <= here or waited_s > PATIENCE_S)

    # --- the play ---------------------------------------------------------------------------------

    async def _play(self, lane: _Lane) -> None:
        while (connection := lane.due) is not None:
            since: float | None = None
            while not self._ready(lane, connection, 0.0 if since is None else time.monotonic() - since):
                if lane.clients and since is None:
                    since = time.monotonic()
                await asyncio.sleep(_LOOK_S)
            if not await self._send(lane, connection):
                lane.clients.clear()  # who listened has gone: from the beginning, for the next one
                continue
            lane.at += 1
            if lane.due is not None:
                clients = {id(client): client for client in lane.clients.values()}
                lane.clients.clear()
                lane.named.clear()
                for client in clients.values():
                    client.close()

    async def _send(self, lane: _Lane, connection: Connection) -> bool:
        anybody = next(iter(lane.clients.values()))
        for number, frame in enumerate(connection.frames, 1):
            client = anybody if frame.channel is None else lane.clients.get(frame.channel)
            if client is None:
                continue  # nobody wants this channel
            if client.transport is None:
                return False
            self._count(frame)
            client.send(frame.payload)
            if number % _BURST == 0:
                await asyncio.sleep(0)
                while client in self._exchange.paused:
                    await asyncio.sleep(_LOOK_S)
        return True

    def _count(self, frame: Frame) -> None:
        stats = self._exchange.stats
        if frame.message["type"] == "orderbook_snapshot":
            stats.snapshots_sent += 1
        elif frame.message["type"] == "orderbook_delta":
            stats.deltas_sent += 1
        self._exchange.played += 1


class CaptureCommands:
    """The commands of one connection."""

    def __init__(self, playback: Playback, client: Client) -> None:
        self._playback = playback
        self._client = client

    def obey(self, payload: bytes) -> None:
        try:
            command = wire.decode_command(payload)
        except FrameError:
            return
        params = command.params or wire.Params()
        named = [*(params.market_tickers or ()), *filter(None, [params.market_ticker])]
        if command.cmd == "subscribe":
            for channel in params.channels or ():
                sid = self._playback.subscribe(self._client, channel, named)
                self._say({"type": "subscribed", "id": command.id, "msg": {"channel": channel, "sid": sid}})
        elif command.cmd == "update_subscription" and params.action in ("add_markets", "delete_markets"):
            if params.action == "add_markets":
                self._playback.add(self._client, named)
            # Without a number: those of the sid are the capture's.
            self._say({"type": "ok", "id": command.id, "sid": params.sid or (params.sids or [0])[0]})

    def _say(self, reply: dict[str, Any]) -> None:
        self._client.send(msgspec.json.encode(reply))
