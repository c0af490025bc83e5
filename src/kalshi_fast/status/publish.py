"""The capture process's side: keeps the status process running, and says twice a second how far it is.

What that costs is counted (``publish_us``): some tens of microseconds, one system call, no waiting. A book is
looked at only when the status process asks for it, which it does while somebody watches. Not here: what the
figures mean (``state``), who serves them (``process``).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

import msgspec

from kalshi_fast import __version__
from kalshi_fast._book import NO, YES
from kalshi_fast._clock import receive_ns
from kalshi_fast.config import BOOKS, CHANNELS, REFERENCE_CHANNELS, is_loopback
from kalshi_fast.errors import ConfigError, TuningError, reason
from kalshi_fast.status.figures import (
    BUFFER_BYTES,
    MAX_DATAGRAM_BYTES,
    AskLadder,
    Capture,
    Connection,
    Ladder,
    decode,
    say,
)
from kalshi_fast.tuning import capture

if TYPE_CHECKING:
    from kalshi_fast.channels.link import ChannelLink
    from kalshi_fast.config import Settings
    from kalshi_fast.feed import Feed
    from kalshi_fast.link import Link
    from kalshi_fast.recording import Recording

PUBLISH_S: Final = 0.5
LADDER_LEVELS: Final = 20
ABSENT_NAMED: Final = 20
ASKS_PER_READ: Final = 4
RESTART_WAIT_S: Final = 2.0
_BACKLOG: Final = 32

log = logging.getLogger("kalshi_fast.status")


class Publisher:
    """``Publisher(settings)`` listens at once (ConfigError when that cannot be), ``start`` within the loop
    begins to publish, ``say_closing`` ends that, ``close`` ends the status process. ``writer_fd`` is for the
    writer process."""

    def __init__(self, settings: Settings) -> None:
        assert settings.http_listen is not None  # noqa: S101 - made only when it is asked for
        host, port = settings.http_listen
        self._listening = _listen(host, port)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (self._ours, self._theirs):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                end.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
        self._ours.setblocking(False)
        bound = self._listening.getsockname()[1]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{bound}"
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._started_ns = time.time_ns()
        self._publish_us = 0
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def writer_fd(self) -> int:
        """The end of the channel that what is said goes into."""
        return self._ours.fileno()

    def start(self, recording: Recording) -> None:
        """From now on, until ``close``."""
        self._spawn()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._ours, self._on_ask, recording)
        self._publish(recording)

    def say_closing(self, recording: Recording) -> None:
        """Still within the loop: from now on only what is buffered is delivered."""
        if self._timer is not None:
            self._timer.cancel()
        if self._loop is not None:
            self._loop.remove_reader(self._ours)
        figures = self._figures(recording)
        figures.closing = True
        say(self._ours, figures)

    def close(self) -> None:
        """The endpoint is gone."""
        process, self._process = self._process, None
        if process is not None:
            assert process.stdin is not None  # noqa: S101 - asked for at its start
            with contextlib.suppress(OSError):
                process.stdin.close()  # which is its sign to end
            try:
                process.wait(RESTART_WAIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for end in (self._ours, self._theirs, self._listening):
            end.close()

    def _spawn(self) -> None:
        fds = (self._listening.fileno(), self._theirs.fileno())
        self._started = time.monotonic()
        command = [sys.executable, "-m", "kalshi_fast.status.process", *map(str, fds)]
        try:
            with capture.aside(self._settings):
                self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                    [*command, self._settings.log_format],
                    pass_fds=fds,
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
        except (OSError, TuningError) as error:  # no memory, no descriptors: perhaps later
            log.error("the status process cannot be started: %s", error)

    # --- within the loop --------------------------------------------------------------------------

    def _publish(self, recording: Recording) -> None:
        assert self._loop is not None  # noqa: S101 - see start
        self._timer = self._loop.call_later(PUBLISH_S, self._publish, recording)
        began = time.perf_counter_ns()
        say(self._ours, self._figures(recording))
        gone = self._process is None or self._process.poll() is not None
        if gone and time.monotonic() - self._started > RESTART_WAIT_S:
            log.error("the status process has ended; starting it again")
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            self._spawn()
        self._publish_us = (time.perf_counter_ns() - began) // 1000

    def _figures(self, recording: Recording) -> Capture:
        counts, pool, writer = recording.recorder.counts, recording.pool, recording.writer
        fleet, channels = recording.fleet, recording.channels
        refused, raw = channels.refused, self._settings.raw
        with_books = BOOKS in self._settings.channels
        return Capture(
            pid=os.getpid(),
            at_ns=time.time_ns(),
            started_ns=self._started_ns,
            version=__version__,
            writer_pid=writer.pid,
            writer_restarts=writer.restarts,
            query_url=writer.query_url,
            frames=counts.frames,
            events=counts.events,
            snapshots=counts.snapshots,
            deltas=counts.deltas,
            gaps=counts.gaps,
            gap_events=counts.gap_events,
            resyncs=counts.resyncs,
            repeated=counts.repeated,
            foreign=counts.foreign,
            rejected=dict(counts.rejected_fields),
            channel_frames=dict(counts.losses.frames),
            rejected_frames=dict(counts.losses.rejected),
            lossy_frames=dict(counts.losses.lossy),
            lost_fields=counts.losses.by_type(),
            unknown_types=counts.unknown_types.total(),
            unknown_keys=counts.unknown_keys.total(),
            handovers=counts.handovers,
            blackout_us=counts.blackout_us,
            trades=counts.trades,
            trades_repeated=counts.trades_repeated,
            trades_filled=counts.trades_filled,
            tickers=counts.tickers,
            lifecycle=counts.lifecycle,
            reference_prices=counts.reference_prices,
            reference_repeated=counts.reference_repeated,
            raw=counts.raw,
            connects=fleet.connections + channels.connections,
            reconnects=fleet.reconnects + channels.reconnects,
            connections=[
                *(_connection(feed, "books") for feed in fleet.feeds if with_books),
                *(_connection(feed, "channels") for feed in channels.feeds),
            ],
            markets_wanted=fleet.wanted if with_books else 0,
            markets_known=counts.known,
            markets_refused=len(fleet.unknown_tickers),
            markets_absent=len(recording.recorder.absent),
            absent=recording.recorder.absent.described(ABSENT_NAMED),
            scale_contradictions=counts.scale_contradictions,
            scale_doubts=recording.recorder.scale_doubts(receive_ns()),
            channels_refused=[name for name in refused if name in CHANNELS],
            raw_refused=[name for name in refused if name in raw],
            reference_refused=[name for name in refused if name in REFERENCE_CHANNELS],
            batches=counts.batches,
            queue_batches=pool.waiting,
            queue_slots=pool.slots,
            unsent_batches=pool.unsent,
            paused=pool.pressed,
            publish_us=self._publish_us,
        )

    def _on_ask(self, recording: Recording) -> None:
        for _ in range(ASKS_PER_READ):  # the loop has more to do
            try:
                asked = decode(self._ours.recv(MAX_DATAGRAM_BYTES))
            except BlockingIOError:
                return
            except (OSError, msgspec.DecodeError) as error:
                log.debug("the status process asked for nothing that there is: %s", error)
                return
            if isinstance(asked, AskLadder):
                say(self._ours, ladder(recording, asked.ticker))


def _connection(feed: Feed[Link] | Feed[ChannelLink], carries: str) -> Connection:
    link = feed.link
    return Connection(link.up, len(link.session.tickers), link.path.last_frame_ns, carries)


def ladder(recording: Recording, ticker: str) -> Ladder:
    """The best levels of a market, as the rows have it now."""
    market = recording.books.by_ticker.get(ticker)
    if market is None or not market.replicas:
        return Ladder(ticker, time.time_ns(), recorded=False)
    book = market.book
    sides = []
    for side in (YES, NO):
        prices, sizes = book.ladder(side, LADDER_LEVELS)
        sides.append(list(zip(prices.tolist(), sizes.tolist(), strict=True)))
    return Ladder(
        ticker,
        time.time_ns(),
        recorded=True,
        known=not book.stale,
        yes=sides[0],
        no=sides[1],
        updates=book.updates,
    )


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listening.close()
        raise ConfigError(f"HTTP_LISTEN: {host}:{port} cannot be listened on: {reason(error)}") from None
    if not is_loopback(host):
        log.warning(
            "HTTP_LISTEN: whoever can reach %s sees the figures and the books, without a password", host
        )
    return listening
