"""The capture process's hold on the writer process: starts it, hears from it, starts it again when it dies.

What was sealed and not yet written down lies in the shared memory and is not lost with it. A thread of its
own listens, and sleeps nearly always; ``wake`` is one system call and never waits. Not here: what the writer
does (``writing``), the shared memory (``ring``).
"""

from __future__ import annotations

import contextlib
import logging
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

from kalshi_fast.errors import ConfigError, SinkError
from kalshi_fast.report import Report, encode_settings

if TYPE_CHECKING:
    from kalshi_fast.config import Settings
    from kalshi_fast.ring import Ring

log = logging.getLogger("kalshi_fast.writer")

FIRST_WAIT_S: Final = 0.05
MAX_WAIT_S: Final = 5.0
STEADY_S: Final = 10.0
DEATHS_WHILE_CLOSING: Final = 5


class Writer:
    """``Writer(ring, settings)``, then ``start``, ``wake`` after every batch, at last ``close``.

    ``report``: the last one that came; ``floor_ns``, ``late_trades``: as of the first; ``query_url``: where
    the embedded engine answers queries.
    """

    def __init__(self, ring: Ring, settings: Settings) -> None:
        self.report = Report()
        self.warning = ""
        self.floor_ns = 0
        self.query_url = ""
        self.late_trades: list[tuple[int, str]] = []
        self.trades_forgotten_us = 0
        self.restarts = 0
        self._ring = ring
        self._settings = encode_settings(settings)
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None
        self._closing = False
        self._failure: Report | None = None
        self._thread = threading.Thread(target=self._listen, name="kalshi-fast writer", daemon=True)
        self._lines: _Lines

    def start(self) -> None:
        """Returns when the stores are open. Raises ConfigError or SinkError when they cannot be."""
        self._spawn()
        first = self._lines.next()
        if first is None or first.failed:
            self._end_process()
            raise _error(first)
        self.report, self.warning = first, first.warning
        self.late_trades, self.trades_forgotten_us = first.late_trades, first.trades_forgotten_us
        self.floor_ns, self.query_url = first.floor_ns, first.query_url
        self._thread.start()

    def wake(self) -> None:
        """There is something to take."""
        channel = self._channel
        if channel is not None:
            # A full pipe is full of wakes; a broken one the listening thread is about to mend.
            with contextlib.suppress(OSError):
                channel.send(b".", socket.MSG_DONTWAIT)

    def close(self, unsent: int = 0) -> None:
        """Returns when all that was sealed is in the stores. Raises SinkError with what is not: the journal
        keeps it for the next time. ``unsent``: batches that never found room in the shared memory."""
        self._closing = True
        self._ring.say_closing()
        self.wake()
        if self._thread.ident is not None:
            self._thread.join()
        self._end_process()
        if self._failure is not None:
            raise _error(self._failure)
        lost = self._ring.waiting + unsent
        if self.report.undelivered or lost:
            said = (
                "; ".join(self.report.errors.values()) or self.report.journal_error or "the writer has ended"
            )
            raise SinkError(
                f"{said} ({self.report.undelivered} batches are in the journal and will be delivered by the"
                f" next recording; {lost} are lost)"
            )

    # --- the process ------------------------------------------------------------------------------

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
                [sys.executable, "-m", "kalshi_fast.writing", str(self._ring.fd), str(theirs.fileno())],
                pass_fds=(self._ring.fd, theirs.fileno()),
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._lines = _Lines(ours)
        try:
            ours.sendall(self._settings)
        except OSError as error:  # gone already: its end will be noticed
            log.debug("the writer process is gone at once: %s", error)
        self._channel = ours

    def _spawned(self) -> bool:
        try:
            self._spawn()
        except OSError as error:  # no memory, no descriptors: perhaps later
            log.error("the writer process cannot be started: %s", error.strerror or error)
            return False
        return True

    def _listen(self) -> None:
        """Hears reports until the writer has ended for good."""
        deaths, wait_s = 0, FIRST_WAIT_S
        while True:
            started = time.monotonic()
            while (report := self._lines.next()) is not None:
                if report.failed:
                    log.error("the writer process cannot work: %s", report.failed)
                    self._failure = report
                elif report.ready:
                    self.query_url = report.query_url
                else:
                    self.report, self._failure = report, None
            code = self._end_process()
            if self._closing and code == 0:
                return
            deaths += self._closing
            if deaths > DEATHS_WHILE_CLOSING:
                return
            if time.monotonic() - started > STEADY_S:
                wait_s = FIRST_WAIT_S
            log.error("the writer process has ended (%s); starting it again in %.2f s", _how(code), wait_s)
            time.sleep(wait_s)
            wait_s = min(MAX_WAIT_S, 2 * wait_s)
            self.restarts += 1
            while not self._spawned():
                time.sleep(MAX_WAIT_S)

    def _end_process(self) -> int:
        if self._channel is not None:
            channel, self._channel = self._channel, None
            channel.close()
        assert self._process is not None  # noqa: S101 - spawned before
        return self._process.wait()


class _Lines:
    """Reports as they come through a socket; None at its end."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._buffer = b""

    def next(self) -> Report | None:
        while b"\n" not in self._buffer:
            try:
                more = self._channel.recv(65_536)
            except OSError:
                return None
            if not more:
                return None
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return msgspec.json.decode(line, type=Report)


def _error(report: Report | None) -> ConfigError | SinkError:
    if report is None:
        return SinkError("the writer process has ended without a word")
    return (
        ConfigError(report.failed) if report.exit_code == ConfigError.exit_code else SinkError(report.failed)
    )


def _how(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}"
