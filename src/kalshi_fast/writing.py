"""The writer process: shared memory → journal → stores. ``python -m kalshi_fast.writing RING_FD SOCKET_FD
[STATUS_FD]``.

It is told its settings in the first line that comes through the socket, answers one line when all is open
(or what is wrong), then says now and then how far it is. When the capture process dies or says that it is
closing, it writes down what is left, delivers as much as the stores take within CLOSE_WAIT_S, and ends. Not
here: who starts it and starts it again (``writer``), what the stores do (``delivery``, sinks).
"""

from __future__ import annotations

import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

import msgspec

from kalshi_fast import logs
from kalshi_fast.delivery import Delivery
from kalshi_fast.errors import ConfigError, JournalError, JournalFullError, KalshiFastError, UnreachableError
from kalshi_fast.front import QueryFront
from kalshi_fast.front.endpoint import remove_endpoint, write_endpoint
from kalshi_fast.journal import Journal
from kalshi_fast.report import Report, decode_settings
from kalshi_fast.ring import Ring
from kalshi_fast.sinks.clickhouse import ClickHouseSink, embedded_directory, let_faults_end_us, prepared
from kalshi_fast.sinks.parquet import ParquetSink
from kalshi_fast.status import figures
from kalshi_fast.status.seen import Seen, histogram
from kalshi_fast.stores import sinks_of

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.config import Settings
    from kalshi_fast.ring import SealedSlot

log = logging.getLogger("kalshi_fast.writing")

REPORT_S: Final = 0.2
STATUS_S: Final = 0.5
CLOSE_WAIT_S: Final = 10.0
FULL_WAIT_S: Final = 0.1
LOCK_WAIT_S: Final = 30.0


class WriterProcess:
    """All of it; ``run`` returns when it is over."""

    def __init__(
        self, ring: Ring, channel: socket.socket, settings: Settings, status: socket.socket | None = None
    ) -> None:
        self._status = status
        self._seen = Seen() if status is not None else None
        self._status_said = 0.0
        self._ring = ring
        self._channel = channel
        self._settings = settings
        self._orphan = False
        self._journal_error = ""
        self._full_said = 0.0
        self._refused_since = 0.0  # 0: the journal takes what comes

    def run(self) -> None:
        """Raises KalshiFastError when it cannot begin."""
        settings = self._settings
        self._journal = Journal(
            settings.journal_dir,
            fsync=settings.journal_fsync,
            max_bytes=settings.journal_max_bytes,
            lock_wait_s=LOCK_WAIT_S,
            say=lambda text: log.warning("%s", text),
        )
        self._deliveries = [Delivery(sink, self._journal) for sink in sinks_of(settings, self._journal)]
        # A writer started again takes up what waits at once; its deliveries see to the stores.
        again = self._journal.recorder == self._ring.recorder
        warning = "" if again else self._try_stores()
        self._begin()
        front = self._open_front()
        self._say(
            Report(
                ready=True,
                warning=warning,
                floor_ns=self._journal.floor_ns,
                query_url=front.url if front is not None else "",
                late_trades=self._journal.late_trades.trades(),
                trades_forgotten_us=self._journal.late_trades.forgotten_us,
            )
        )
        for delivery in self._deliveries:
            delivery.start()
        threading.Thread(target=self._sync_now_and_then, daemon=True).start()
        self._take_all()
        if front is not None:
            remove_endpoint(self._embedded, front.url)
            front.close()
        self._finish()

    # --- opening ----------------------------------------------------------------------------------

    @property
    def _embedded(self) -> Path:
        assert self._settings.clickhouse_url is not None  # noqa: S101 - asked only when there is a front
        return embedded_directory(self._settings.clickhouse_url)

    def _open_front(self) -> QueryFront | None:
        """The embedded engine is this process's alone: others ask here."""
        settings = self._settings
        url = settings.clickhouse_url
        if url is None or not url.startswith("chdb://") or settings.query_listen is None:
            return None
        import chdb

        host, port = settings.query_listen
        prepared(url)  # a writer started again comes here before its deliveries open the engine
        front = QueryFront(
            lambda: chdb.connect(str(self._embedded.resolve())),  # type: ignore[no-untyped-call]
            host=host,
            port=port,
            user=settings.clickhouse_user,
            password=settings.clickhouse_password,
            database=settings.clickhouse_database,
            allow_remote=bool(settings.clickhouse_password),
        )
        let_faults_end_us()
        write_endpoint(self._embedded, front.start())
        return front

    def _try_stores(self) -> str:
        """A store that refuses us is a mistake that somebody has to mend; one that is away may come back."""
        for delivery in self._deliveries:
            if isinstance(delivery.sink, ClickHouseSink):
                try:
                    delivery.sink.open()
                except UnreachableError as error:
                    delivery.error = str(error)
                    return f"{error}; the journal keeps the rows until it comes back"
        return ""

    def _begin(self) -> None:
        """The journal belongs to this recorder from here on."""
        while True:
            try:
                self._journal.begin(self._ring.recorder)
                self._journal.commit()
            except JournalFullError:
                self._make_room()
                for delivery in self._deliveries:
                    delivery.start()
                    if delivery.broken is not None:
                        raise delivery.broken from None
                time.sleep(FULL_WAIT_S)
            else:
                return

    # --- taking -----------------------------------------------------------------------------------

    def _take_all(self) -> None:
        """Until nothing will come any more and nothing waits."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        reported, said = 0.0, False
        while True:
            closing = self._ring.closing or self._orphan  # before the look: nothing can come after it
            if closing and not said:
                self._journal.say_finishing()
                said = True
            took = self._take_waiting()
            now = time.monotonic()
            if now - reported >= REPORT_S:
                reported = now
                self._look_after()
            if took:
                continue
            if closing and (self._ring.waiting == 0 or self._hopeless(now)):
                return
            if poll.poll(REPORT_S * 1000):
                self._hear()

    def _take_waiting(self) -> bool:
        """What waits in the shared memory goes into the journal; its slots are free when it is safe there."""
        ring, journal = self._ring, self._journal
        taken = 0
        try:
            if journal.fsync == "always":
                taken = self._take_group()
            elif (batch := ring.peek()) is not None:
                journal.append(batch, ring.tickers, ring.ids)
                journal.commit()
                self._saw(batch)
                ring.release()
                taken = 1
        except JournalError as error:
            self._refused(error)
            return False
        self._journal_error, self._refused_since = "", 0.0
        return taken > 0

    def _hopeless(self, now: float) -> bool:
        """The journal has no room, and at the end nobody waits for ever: what is in memory is lost, and this
        is said."""
        return self._refused_since > 0 and now - self._refused_since > CLOSE_WAIT_S

    def _take_group(self) -> int:
        """One fsync for all that waits."""
        waiting = self._ring.waiting
        appended: list[SealedSlot] = []
        try:
            for ahead in range(waiting):
                batch = self._ring.peek(ahead)
                assert batch is not None  # noqa: S101 - so many wait
                self._journal.append(batch, self._ring.tickers, self._ring.ids)
                appended.append(batch)
        finally:  # what was written counts, also when there was no room for all of it
            self._journal.commit()
            for batch in appended:
                self._saw(batch)
                self._ring.release()
        return waiting

    def _saw(self, batch: SealedSlot) -> None:
        if self._seen is not None:
            self._seen.add(batch, time.time_ns())

    def _refused(self, error: JournalError) -> None:
        """The disk is full or the bound is reached: nothing is lost by waiting, until the shared memory is
        full
        and the feed stops reading."""
        now = time.monotonic()
        self._journal_error = str(error)
        self._refused_since = self._refused_since or now
        if now - self._full_said > 10:
            self._full_said = now
            log.error(
                "%s: waiting for room; when the buffers are full, reading from the exchange pauses", error
            )
        self._make_room()
        time.sleep(FULL_WAIT_S)

    def _make_room(self) -> None:
        try:
            self._journal.commit()  # after a failed sync the stores wait for this, also when nothing comes
        except JournalError as error:
            log.error("%s", error)
        if self._deliveries:
            done = min(delivery.sink.done_seq for delivery in self._deliveries)
            if self._journal.trimmable(done) and self._positions_are_durable():
                self._journal.trim(done)
        if self._journal.used_bytes > self._journal.max_bytes // 2:
            hindmost = min((delivery.sink for delivery in self._deliveries), key=lambda sink: sink.done_seq)
            if isinstance(hindmost, ParquetSink) and self._journal.trimmable(self._journal.end):
                hindmost.hurry = True

    def _positions_are_durable(self) -> bool:
        """What is removed from the journal must not be asked for by a position from before a power cut."""
        if self._settings.journal_fsync == "off":
            return True
        try:
            for position in self._journal.positions:
                position.sync()
        except JournalError as error:
            log.error("%s", error)
            return False
        return True

    def _look_after(self) -> None:
        self._make_room()
        for delivery in self._deliveries:
            if delivery.broken is not None and not self._orphan:  # else nobody would start us again
                raise delivery.broken
        report = self._report()
        self._say(report)
        self._say_status(report)

    def _say_status(self, report: Report) -> None:
        """To the status process, which may miss it."""
        now = time.monotonic()
        if self._status is None or self._seen is None or now - self._status_said < STATUS_S:
            return
        self._status_said = now
        pid, at_ns = os.getpid(), time.time_ns()
        histograms = {"exchange_to_wire": self._seen.to_wire, "wire_to_row": self._seen.to_row}
        inserts = {}
        for delivery in self._deliveries:
            if isinstance(delivery.sink, ClickHouseSink):
                histograms["wire_to_queryable"] = delivery.sink.lags
                inserts[delivery.sink.name] = histogram(delivery.sink.insert_times)
        figures.say(
            self._status,
            figures.Writing(
                pid=pid,
                at_ns=at_ns,
                journal_bytes=report.journal_bytes,
                journal_max_bytes=self._journal.max_bytes,
                journal_batches=report.journal_batches,
                journal_error=report.journal_error,
                rows=report.rows,
                errors=report.errors,
                histograms={name: histogram(lags) for name, lags in histograms.items()},
                inserts=inserts,
            ),
        )
        while rows := self._seen.changed(self._ring.tickers, figures.MARKETS_PER_DATAGRAM):
            if not figures.say(self._status, figures.Markets(pid, at_ns, rows)):
                self._seen.put_back()
                return

    def _report(self) -> Report:
        journal = self._journal
        done = min((delivery.sink.done_seq for delivery in self._deliveries), default=journal.end)
        queryable = {
            str(percent): lag
            for delivery in self._deliveries
            if isinstance(delivery.sink, ClickHouseSink)
            for percent in (50, 99)
            if (lag := delivery.sink.lags.percentile_us(percent)) is not None
        }
        return Report(
            journal_bytes=journal.used_bytes,
            journal_batches=journal.end - done,
            rows={delivery.sink.name: delivery.sink.rows for delivery in self._deliveries},
            errors={d.sink.name: d.error for d in self._deliveries if d.error is not None},
            queryable_us=queryable,
            journal_error=self._journal_error,
        )

    def _hear(self) -> None:
        """Wakes, nothing else, come this way; the end of them is the end of the capture process."""
        if self._orphan:
            return
        try:
            gone = not self._channel.recv(65_536)
        except OSError:  # it died with a report of ours unread
            gone = True
        if gone:
            self._orphan = True
            if not self._ring.closing:
                log.error("the capture process is gone; what it has handed over is being delivered")

    def _say(self, report: Report) -> None:
        try:
            self._channel.sendall(msgspec.json.encode(report) + b"\n")
        except OSError:
            self._orphan = True

    def _sync_now_and_then(self) -> None:
        if self._settings.journal_fsync != "interval":
            return
        while True:
            time.sleep(self._settings.journal_fsync_ns / 1e9)
            try:
                self._journal.sync()
            except JournalError as error:
                log.error("%s", error)

    # --- the end ----------------------------------------------------------------------------------

    def _finish(self) -> None:
        self._end_recorder()
        for delivery in self._deliveries:
            delivery.finish()
        deadline = time.monotonic() + CLOSE_WAIT_S
        while any(d.alive for d in self._deliveries) and self._worth_waiting(deadline):
            time.sleep(0.02)
            self._make_room()
            self._say(self._report())
        for delivery in self._deliveries:
            delivery.give_up()
            delivery.join(CLOSE_WAIT_S)
        if all(delivery.complete for delivery in self._deliveries):
            self._journal.renew()
        self._make_room()
        report = self._report()
        report.undelivered = sum(not d.complete for d in self._deliveries) and report.journal_batches
        self._journal.close()
        self._say(report)

    def _end_recorder(self) -> None:
        """Its books are unknown from here on, as soon as there is room to say so."""
        deadline = time.monotonic() + CLOSE_WAIT_S
        while True:
            try:
                self._journal.end_recorder()
            except JournalError as error:
                self._refused(error)
                if time.monotonic() > deadline:  # the next recording will say it
                    return
            else:
                return

    def _worth_waiting(self, deadline: float) -> bool:
        """A store that takes rows is given all the time it needs, one that refuses them is not."""
        failing = any(d.error is not None and d.alive for d in self._deliveries)
        return not failing or time.monotonic() < deadline


def _first_line(channel: socket.socket) -> bytes:
    """The settings. Wakes may have come behind them already; the first look at the ring is for those."""
    received = b""
    while b"\n" not in received:
        more = channel.recv(65_536)
        if not more:
            raise ConfigError("the capture process has ended before it said what to do")
        received += more
    return received.partition(b"\n")[0]


def main(arguments: list[str]) -> int:
    """The process. Returns its exit code."""
    for library in ("urllib3", "clickhouse_connect"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # what they have to say is in our own messages
    ring_fd, channel_fd, *status_fd = (int(argument) for argument in arguments)
    # Ctrl-C and a service manager's SIGTERM reach the whole group: the capture process decides what follows.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    channel = socket.socket(fileno=channel_fd)
    settings = decode_settings(_first_line(channel))
    logs.configure(settings)
    logs.catch_all()
    status = socket.socket(fileno=status_fd[0]) if status_fd else None
    process = WriterProcess(Ring.attach(ring_fd), channel, settings, status)
    try:
        process.run()
    except KalshiFastError as error:
        channel.sendall(msgspec.json.encode(Report(failed=str(error), exit_code=error.exit_code)) + b"\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(code)  # the embedded engine's threads may hold up an orderly end for seconds
