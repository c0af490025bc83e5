"""What each setting of docs/tuning.md is worth: latency from send to end of read, at a steady rate.

``python -m benchmarks.tuning [VARIANT…] [--rounds 7] [--rate 50000] [--seconds 2] [--tls] [--stores]
[--undisturbed]``

A sender of its own, on a core of its own, writes one frame every so many nanoseconds, each by itself, and
notes when. A fresh process receives them, decodes, keeps books and fills columns, and notes when each read
had been dealt with. The variants take turns, round by round. With ``--stores`` the receiver is ``kalshi-fast
run`` with both stores, and the end is the receive time that it has stored (the beginning of the read).
Frames that are due and could not be sent yet keep their place in time: no omission is coordinated away.

``--undisturbed`` (as root) gives sender and receiver a real-time priority for half a second, in every
variant: it stands for a machine that has nothing else to do, where there is none.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import picows
import pyarrow.dataset as ds
import uvloop

from kalshi_fast._clock import receive_ns
from kalshi_fast._listener import FrameListener
from kalshi_fast.bench.workload import N_MARKETS, SUBSCRIBED, made_frames, on_the_wire
from kalshi_fast.books import Books
from kalshi_fast.config import load
from kalshi_fast.link import Link
from kalshi_fast.pool import BatchPool
from kalshi_fast.receiver import Receiver
from kalshi_fast.recorder import Recorder
from kalshi_fast.ring import Ring
from kalshi_fast.session import Session
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.tls import make_key, make_tls
from kalshi_fast.tuning import capture
from kalshi_fast.tuning.collector import QuietCollector
from kalshi_fast.tuning.priority import set_fifo
from kalshi_fast.tuning.spin import Spinner

if TYPE_CHECKING:
    from numpy.typing import NDArray

SENDER_CPU, CAPTURE_CPU = 0, 1
WARM_UP = 0.25  # of the frames: not counted
WINDOW_S = 0.02
PERCENTILES = (50, 90, 99, 99.9, 100)

PINNED = {"CAPTURE_CPU": str(CAPTURE_CPU)}
SPINNING = PINNED | {"BUSY_POLL": "on"}
VARIANTS: dict[str, dict[str, str]] = {
    "nothing": {},
    "pinned": PINNED,
    "spinning": SPINNING,
    "nice": {"CAPTURE_NICE": "-20"},
    "fifo": {"CAPTURE_FIFO": "50"},
    "pinned+nice": PINNED | {"CAPTURE_NICE": "-20"},
    "pinned+fifo": PINNED | {"CAPTURE_FIFO": "50"},
    "spinning+nice": SPINNING | {"CAPTURE_NICE": "-20"},
    "locked": {"LOCK_MEMORY": "on"},
    # Not settings: what was tried and is not built.
    "spinning+fifo": SPINNING | {"X_FIFO": "50"},
    "collector-on": {"X_COLLECTOR": "on"},
    "rcvbuf": {"X_RCVBUF": "4194304"},
    "quickack": {"X_QUICKACK": "on"},
    "so-busy-poll": {"X_BUSY_POLL_US": "50"},
}
SO_BUSY_POLL = 46


# --- the sender -----------------------------------------------------------------------------------------


def send(directory: Path, frames: int, rate: int, *, tls: bool, undisturbed: bool) -> None:
    """A server: each client gets the whole play; when each delta was due and was sent is left in a file."""
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {SENDER_CPU})
        os.setpriority(os.PRIO_PROCESS, 0, -15)
    wires = [on_the_wire(frame) for frame in made_frames(frames)]
    context = make_tls(directory)[0] if tls else None
    server = socket.create_server(("127.0.0.1", 0))
    sys.stdout.write(f"{server.getsockname()[1]}\n")
    sys.stdout.flush()
    while True:
        client, _ = server.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            if context is not None:
                client = context.wrap_socket(client, server_side=True)
            _play(client, directory, wires, rate, undisturbed=undisturbed)
        except OSError as error:
            sys.stderr.write(f"sender: {error}\n")
        finally:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
            client.close()


def _play(
    client: socket.socket, directory: Path, wires: list[bytes], rate: int, *, undisturbed: bool
) -> None:
    _upgrade(client)
    client.recv(65_536)  # the command to subscribe
    client.sendall(on_the_wire(SUBSCRIBED) + b"".join(wires[:N_MARKETS]))
    time.sleep(0.3)
    deltas = wires[N_MARKETS:]
    sent_ns = np.zeros(len(deltas), np.int64)
    period_ns = 1_000_000_000 / rate
    now_ns, sendall = time.time_ns, client.sendall
    if undisturbed:
        set_fifo(40)
    began_ns = now_ns() + 1_000_000
    for at, frame in enumerate(deltas):
        due_ns = began_ns + int(at * period_ns)
        while (now := now_ns()) < due_ns:
            pass
        sent_ns[at] = now
        sendall(frame)
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    due = began_ns + (np.arange(len(deltas)) * period_ns).astype(np.int64)
    np.save(directory / "times.part.npy", np.stack([due, sent_ns]))
    (directory / "times.part.npy").rename(directory / "times.npy")
    client.settimeout(5)
    with contextlib.suppress(OSError):
        while client.recv(65_536):
            pass


def _upgrade(client: socket.socket) -> None:
    import base64
    import hashlib

    from kalshi_fast.bench.sender import GUID

    request = b""
    while b"\r\n\r\n" not in request:
        more = client.recv(65_536)
        if not more:
            raise OSError("no handshake came")
        request += more
    lines = (line.partition(b":") for line in request.split(b"\r\n"))
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


# --- the receiver ---------------------------------------------------------------------------------------


def handing_over() -> tuple[Recorder, BatchPool]:
    """A recorder as the capture process has it, whose batches are given back as soon as they are sealed."""
    books = Books()
    ring = Ring.create(2000, 64, uuid.uuid4())
    ring.populate(64)
    pool = BatchPool(ring, books.tickers, books.ids, ring.release)
    return Recorder(books, pool, pool.deliver, seal_rows=2000), pool


def receive(url: str, cafile: str, frames: int, told: dict[str, str], *, undisturbed: bool) -> dict[str, Any]:
    """Receives one play; for each read how many frames there were after it, and when."""
    tried = {name: value for name, value in told.items() if name.startswith("X_")}
    settings = load(
        {name: value for name, value in told.items() if name not in tried},
        environ={},
        env_file=None,
        toml_file=Path(os.devnull),
    ).settings
    settings = capture.prepare(settings)
    capture.apply(settings)
    if "X_FIFO" in tried or undisturbed:
        set_fifo(50)

    async def once() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        recorder, pool = handing_over()
        session = Session(
            list(SyntheticMarkets(N_MARKETS, 1).books),
            clock=time.monotonic_ns,
            rng=random.Random(1),
            use_yes_price=True,
        )
        link = Link(recorder, session)
        link.path.every_read = True
        seqs: list[int] = []
        ends_ns: list[int] = []
        last = N_MARKETS + frames

        class Noting(Receiver):
            sock: socket.socket | None = None

            def on_end_of_read(self) -> None:
                super().on_end_of_read()
                subscription = session.subscriptions.get(1)
                if subscription is None:
                    return
                seqs.append(subscription.next_seq - 1)
                ends_ns.append(receive_ns())
                if self.sock is not None:
                    self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                if seqs[-1] == last and not done.done():
                    done.set_result(None)

        receiver = Noting(link, pool)
        context = ssl.create_default_context(cafile=cafile) if cafile else None
        port = int(url.rpartition(":")[2].strip("/"))

        async def dial(_: object) -> socket.socket:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if "X_RCVBUF" in tried:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, int(tried["X_RCVBUF"]))
            if "X_BUSY_POLL_US" in tried:
                sock.setsockopt(socket.SOL_SOCKET, SO_BUSY_POLL, int(tried["X_BUSY_POLL_US"]))
            await loop.sock_connect(sock, ("127.0.0.1", port))
            if "X_QUICKACK" in tried:
                receiver.sock = sock
            return sock

        transport, _ = await picows.ws_connect(
            lambda: FrameListener(link.path, receiver),
            url,
            ssl_context=context,
            socket_factory=dial,
        )
        spinner = Spinner(loop)
        if settings.busy_poll:
            spinner.start()
        quiet = contextlib.nullcontext() if "X_COLLECTOR" in tried else QuietCollector(lambda: 0)
        with quiet:
            while not done.done():
                await asyncio.wait([done], timeout=0.01)
                recorder.seal()
        spinner.stop()
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()
        return {"seqs": seqs, "ends_ns": ends_ns}

    found: dict[str, Any] = uvloop.run(once())
    return found


def latencies_us(directory: Path, seqs: NDArray[np.int64], ends_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each delta, in order, from the time it was due."""
    due_ns, sent_ns = np.load(directory / "times.npy")
    wanted = np.arange(N_MARKETS + 1, N_MARKETS + 1 + len(sent_ns))
    ends = ends_ns[np.searchsorted(seqs, wanted)]
    begin = int(WARM_UP * len(sent_ns))
    return np.stack([(ends - due_ns)[begin:], (ends - sent_ns)[begin:]]) / 1000


# --- the command with both stores -----------------------------------------------------------------------


def record(directory: Path, url: str, frames: int, told: dict[str, str]) -> tuple[Any, Any]:
    """``kalshi-fast run`` for one play; the sequence numbers and receive times that it has stored."""
    with tempfile.TemporaryDirectory(dir=directory) as place:
        key = Path(place) / "key.pem"
        make_key(key)
        settings = {
            "PROD_KEYID": "benchmark",
            "PROD_KEYFILE": str(key),
            "MARKET_TICKERS": ",".join(SyntheticMarkets(N_MARKETS, 1).books),
            "WS_URL": url,
            "WS_CAFILE": str(directory / "ca.pem") if url.startswith("wss") else "",
            **{name: value for name, value in told.items() if not name.startswith("X_")},
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "kalshi_fast", "run", "--quiet", "--env-file", os.devnull],
            cwd=place,
            env=os.environ | settings,
            stdout=subprocess.DEVNULL,
        )
        times = directory / "times.npy"
        while not times.exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        rows = ds.dataset(Path(place) / "data" / "orderbook", format="parquet").to_table(
            columns=["type", "seq", "ingest_ts"]
        )
        seqs = rows.column("seq").to_numpy().astype(np.int64)
        times_ns = rows.column("ingest_ts").to_numpy().astype(np.int64)
        deltas = np.array(rows.column("type").cast("string").to_pylist()) == "delta"
        assert deltas.sum() == frames, (deltas.sum(), frames)
        return seqs[deltas], times_ns[deltas]


# --- all of it ------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=f"of {', '.join(VARIANTS)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--rate", type=int, default=50_000)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--stores", action="store_true")
    parser.add_argument("--undisturbed", action="store_true")
    parser.add_argument("--role", choices=("send", "receive"), help=argparse.SUPPRESS)
    parser.add_argument("--told", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    # A real-time program that does not sleep is stopped after 950 ms.
    options.seconds = min(options.seconds, 0.5) if options.undisturbed else options.seconds
    frames = int(options.rate * options.seconds)
    if options.role == "send":
        send(options.directory, frames, options.rate, tls=options.tls, undisturbed=options.undisturbed)
    elif options.role == "receive":
        cafile = str(options.directory / "ca.pem") if options.tls else ""
        told = json.loads(options.told)
        found = receive(options.url, cafile, frames, told, undisturbed=options.undisturbed)
        np.save(options.directory / "reads.npy", np.array([found["seqs"], found["ends_ns"]]))
    else:
        with tempfile.TemporaryDirectory() as directory:
            compare(options, Path(directory), frames)


def compare(options: argparse.Namespace, directory: Path, frames: int) -> None:
    names = options.variants or list(VARIANTS)
    usual = [sys.executable, "-m", "benchmarks.tuning", "--directory", str(directory)]
    usual += [
        "--rate",
        str(options.rate),
        "--seconds",
        str(options.seconds),
        *(["--tls"] if options.tls else []),
        *(["--undisturbed"] if options.undisturbed else []),
    ]
    sender = subprocess.Popen([*usual, "--role", "send"], stdout=subprocess.PIPE, text=True)
    assert sender.stdout is not None
    url = f"{'wss' if options.tls else 'ws'}://127.0.0.1:{int(sender.stdout.readline())}/"
    results: dict[str, list[NDArray[np.float64]]] = {name: [] for name in names}
    try:
        for number in range(options.rounds):
            for name in names:
                (directory / "times.npy").unlink(missing_ok=True)
                results[name].append(one(options, directory, usual, url, frames, VARIANTS[name]))
            sys.stderr.write(f"\rround {number + 1} of {options.rounds}")
            sys.stderr.flush()
    finally:
        sender.terminate()
        sender.wait()
    sys.stderr.write("\n")
    show(results)


def one(
    options: argparse.Namespace,
    directory: Path,
    usual: list[str],
    url: str,
    frames: int,
    told: dict[str, str],
) -> NDArray[np.float64]:
    if options.stores:
        seqs, ends_ns = record(directory, url, frames, told)
    else:
        subprocess.run([*usual, "--role", "receive", "--url", url, "--told", json.dumps(told)], check=True)
        while not (directory / "times.npy").exists():
            time.sleep(0.02)
        seqs, ends_ns = np.load(directory / "reads.npy")
    due_us, sent_us = latencies_us(directory, seqs, ends_ns)
    quiet_us = quietest(sent_us, options.rate)
    return np.array([np.percentile(part, PERCENTILES) for part in (due_us, sent_us, quiet_us)])


def quietest(latencies: NDArray[np.float64], rate: int) -> NDArray[np.float64]:
    """The quarter of the stretches of WINDOW_S that had the smallest 99th percentiles: on a shared machine
    the others hold somebody else's work."""
    length = int(rate * WINDOW_S)
    windows = latencies[: len(latencies) // length * length].reshape(-1, length)
    order = np.argsort(np.percentile(windows, 99, axis=1))
    return windows[order[: max(1, len(windows) // 4)]].ravel()


def show(results: dict[str, list[NDArray[np.float64]]]) -> None:
    """Medians over the rounds, and their spread (lowest to highest)."""
    titles = (
        "from the time it was due to the end of its read",
        "from the time it was sent to the end of its read",
        f"the same, in the quarter of the stretches of {WINDOW_S * 1000:g} ms that nobody disturbed",
    )
    for part, title in enumerate(titles):
        sys.stdout.write(f"\nmicroseconds {title}\n{'':<16}")
        sys.stdout.write("".join(f"{f'p{percent:g}':>26}" for percent in PERCENTILES) + "\n")
        for name, rounds in results.items():
            columns = list(zip(*(one_round[part] for one_round in rounds), strict=True))
            cells = [f"{statistics.median(c):.1f} ({min(c):.1f}-{max(c):.1f})" for c in columns]
            sys.stdout.write(f"{name:<16}" + "".join(f"{cell:>26}" for cell in cells) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
