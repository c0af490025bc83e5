"""The capture process of the latency benchmark: from the instant that a frame was due to its row in the
columns.

``python -m kalshi_fast.bench.capture JSON`` (see ``Task``) prints one line of JSON. It is what records live,
of the same parts: link, recorder, shared memory, and with ``directory`` the writer process with both stores;
only each row's ``ts`` is compared with the clock at the end of the read that brought it. Not here: who sends.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import picows
import uvloop

from kalshi_fast import _clock
from kalshi_fast._bench import LagFloor, LagProbe
from kalshi_fast._listener import FrameListener
from kalshi_fast.bench.cpus import pin
from kalshi_fast.bench.rig import BATCH_ROWS, WrongResultError
from kalshi_fast.bench.rounds import no_collections
from kalshi_fast.bench.sender import GO
from kalshi_fast.bench.workload import tickers
from kalshi_fast.books import Books
from kalshi_fast.dial import tls_context
from kalshi_fast.errors import TuningError
from kalshi_fast.link import Link
from kalshi_fast.pool import BatchPool
from kalshi_fast.receiver import Receiver
from kalshi_fast.recorder import Recorder
from kalshi_fast.recording import READY_SLOTS
from kalshi_fast.ring import Ring
from kalshi_fast.session import Session
from kalshi_fast.tuning.priority import set_fifo
from kalshi_fast.tuning.spin import Spinner

if TYPE_CHECKING:
    from kalshi_fast.batch import Batch
    from kalshi_fast.writer import Writer

SLOTS: Final = 1000
FLUSH_S: Final = 0.01
FIFO: Final = 50  # as docs/tuning.md has it
_MARGIN_S: Final = 60


@dataclass(frozen=True)
class Task:
    """``lags_file``: gets the ns of every frame after the warm ones. ``core``: of this process;
    ``writer_core``: of the other. ``busy``: never sleeps in the event loop. ``fifo``: with real-time
    priority, where it may be had. ``directory``: of the stores, if
    there are any. ``floor``: nothing is recorded, only the time of each frame is read."""

    url: str
    warm: int
    frames: int
    seconds: float
    lags_file: str
    ca_file: str | None = None
    core: int | None = None
    writer_core: int | None = None
    busy: bool = False
    fifo: bool = False
    directory: str | None = None
    floor: bool = False


class ProbedPool(BatchPool):
    """Tells the probe where rows are written."""

    probe: LagProbe | None = None

    def acquire(self, version: int) -> Batch:
        batch = super().acquire(version)
        if self.probe is not None:
            self.probe.follow(batch.events)
        return batch


class Probed(Receiver):
    """``done`` is set when the last frame is in its columns."""

    def __init__(self, link: Link, pool: ProbedPool, probe: LagProbe, task: Task) -> None:
        super().__init__(link, pool)
        self.done = asyncio.Event()
        self._probe, self._task, self._going = probe, task, False
        self._subscriptions = link.session.subscriptions

    def on_end_of_read(self) -> None:
        self._probe.end_of_read()
        super().on_end_of_read()
        subscription = self._subscriptions.get(1)
        if subscription is None:
            return
        if not self._going and subscription.next_seq > self._task.warm:
            self._going = True
            assert self._transport is not None  # noqa: S101 - it has just brought us a frame
            self._transport.send(picows.WSMsgType.TEXT, GO)
        elif subscription.next_seq > self._task.warm + self._task.frames:
            self.done.set()


async def receive(task: Task, recorder: Recorder, pool: ProbedPool, probe: LagProbe) -> None:
    """Until the last frame; batches are sealed on time, as in a recording."""
    rng = random.Random(1)  # noqa: S311
    session = Session(tickers(), clock=time.monotonic_ns, rng=rng, use_yes_price=True)
    link = Link(recorder, session)
    link.path.every_read = True
    receiver = Probed(link, pool, probe, task)

    async def seal_on_time() -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            pool.pump()
            if not pool.pressed:
                recorder.seal()

    sealing = asyncio.ensure_future(seal_on_time())
    try:
        await connected(task, FrameListener(link.path, receiver), receiver.done)
    finally:
        sealing.cancel()
    recorder.seal()


async def connected(task: Task, listener: picows.WSListener, done: asyncio.Event) -> None:
    """The listener gets frames until it is done."""
    transport, _ = await picows.ws_connect(
        lambda: listener,
        task.url,
        ssl_context=tls_context(Path(task.ca_file)) if task.ca_file is not None else None,
        enable_auto_ping=True,
        enable_auto_pong=False,
    )
    spinner = Spinner(asyncio.get_running_loop())
    if task.busy:
        spinner.start()
    try:
        await asyncio.wait_for(done.wait(), task.seconds + _MARGIN_S)
    finally:
        spinner.stop()
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()


def floor(task: Task) -> dict[str, Any]:
    """What is there without us."""
    done, warm = asyncio.Event(), 1 + task.warm
    listener = LagFloor(
        warm, warm + task.frames, lambda transport: transport.send(picows.WSMsgType.TEXT, GO), done.set
    )
    realtime = placed(task)
    with no_collections():
        uvloop.run(connected(task, listener, done))
    Path(task.lags_file).write_bytes(listener.lags_ns().tobytes())
    return {"frames": listener.frames, "realtime": realtime}


def placed(task: Task) -> bool:
    """On its core, with its priority. Whether that is a real-time one."""
    pin(task.core)
    if task.fifo:
        with suppress(TuningError):
            set_fifo(FIFO)
            return True
    return False


def recorded(task: Task) -> dict[str, Any]:
    """Everything as in a recording."""
    books, probe = Books(), LagProbe(task.warm + task.frames)
    ring = Ring.create(BATCH_ROWS, SLOTS, uuid.uuid4())
    with suppress(TuningError):  # as a recording: where it can be done
        ring.populate(READY_SLOTS)
    writer = None
    if task.directory is None:
        pool = ProbedPool(ring, books.tickers, books.ids, ring.release)
    else:
        pin(task.writer_core)  # the writer inherits it
        writer = started_writer(ring, Path(task.directory))
        _clock.not_before(writer.floor_ns + 1)
        pool = ProbedPool(ring, books.tickers, books.ids, writer.wake, writer.floor_ns)
    realtime = placed(task)
    pool.probe = probe
    recorder = Recorder(books, pool, pool.deliver, seal_rows=BATCH_ROWS)
    with no_collections():
        uvloop.run(receive(task, recorder, pool, probe))
    counts = recorder.counts
    if counts.gaps or counts.rejected or counts.frames != 1 + task.warm + task.frames:
        raise WrongResultError(f"expected {1 + task.warm + task.frames} usable frames, got {counts}")
    Path(task.lags_file).write_bytes(probe.lags_ns()[-task.frames :].tobytes())
    figures: dict[str, Any] = {"events": counts.events, "realtime": realtime}
    if writer is not None:
        while not pool.pump():
            time.sleep(0.005)
        writer.close(pool.unsent)
        rows = writer.report.rows
        figures["stored"] = rows
        if any(rows.get(store) != counts.events for store in ("ClickHouse", "Parquet")):
            raise WrongResultError(f"expected {counts.events} rows in both stores, got {rows}")
    return figures


def started_writer(ring: Ring, directory: Path) -> Writer:
    """The writer process with both stores in this directory."""
    from kalshi_fast.config import load
    from kalshi_fast.writer import Writer

    told = {
        "CLICKHOUSE_URL": f"chdb://{directory}/clickhouse",
        "PARQUET_DIR": str(directory / "parquet"),
        "JOURNAL_DIR": str(directory / "journal"),
    }
    settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
    writer = Writer(ring, settings)
    writer.start()
    return writer


def run(task: Task) -> dict[str, Any]:
    """The figures."""
    return floor(task) if task.floor else recorded(task)


def encoded(task: Task) -> str:
    return json.dumps(asdict(task))


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(Task(**json.loads(sys.argv[1])))) + "\n")
