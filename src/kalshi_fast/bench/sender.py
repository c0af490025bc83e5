"""A sender that is never the bottleneck: a process that writes frames made beforehand with blocking calls.

``python -m kalshi_fast.bench.sender DIRECTORY FRAMES [--tls] [--core N]`` prints its port, then one line of
JSON after every play. The path of the upgrade request says what to play (``Play``). After ``warm`` frames it
waits for the client's "go". A paced play is open loop: each frame has its instant, which is also its ``ts``;
how late the sender itself was with each, in ns, it writes to a file. Not here: what is in the frames
(``workload``).
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from array import array
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

import numpy as np

from kalshi_fast._bench import overslept_ns, pace
from kalshi_fast.bench.cpus import pin
from kalshi_fast.bench.workload import SUBSCRIBED, on_the_wire, stream, time_of, untimed_wire
from kalshi_fast.errors import SimulatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GO: Final = b"go"
CHUNK_BYTES: Final = 256 * 1024
_LEAD_US: Final = 20_000  # before the first instant of a paced play


def upgrade_response(request: bytes, more: bytes = b"") -> bytes:
    """The answer to a WebSocket handshake; ``more``: further header lines."""
    lines = (line.partition(b":") for line in request.split(b"\r\n"))
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n" + more + b"\r\n"
    )


@dataclass(frozen=True)
class Play:
    """``/?warm=W&frames=N&rate=R``: after the answer to one subscribe command W frames at once, "go", N
    frames.

    ``rate`` 0: as fast as the socket takes them. ``group``: so many share an instant. ``go`` 0: nobody is
    waited for. ``sleeps`` 1: between two instants the sender sleeps, for those who share its core.
    """

    warm: int
    frames: int
    rate: int = 0
    go: int = 1
    group: int = 1
    sleeps: int = 0

    @classmethod
    def of(cls, request: bytes) -> Play:
        target = request.split(b" ", 2)[1].decode()
        return cls(**{name: int(value) for name, value in parse_qsl(urlsplit(target).query)})

    @property
    def path(self) -> str:
        return "/?" + urlencode(asdict(self))


class Plain:
    """A connection: ``encoded`` bytes go out with ``sendall``."""

    def __init__(self, sock: socket.socket) -> None:
        self.sendall = sock.sendall
        self.fd = sock.fileno()
        self._sock = sock

    def recv(self) -> bytes:
        """What has come, nothing at its end."""
        return self._sock.recv(65_536)

    def encoded(self, content: memoryview | bytes) -> memoryview:
        """As it goes over the wire; in this order."""
        return memoryview(content)


class Encrypted(Plain):
    """The same with TLS, which is apart from the socket: bytes are encrypted before it is time to send."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        super().__init__(sock)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._until_done(self._tls.do_handshake)

    def recv(self) -> bytes:
        content: bytes = self._until_done(lambda: self._tls.read(65_536))
        return content

    def _until_done(self, work: Callable[[], Any]) -> Any:  # noqa: ANN401
        while True:
            try:
                done = work()
            except ssl.SSLWantReadError:
                self.sendall(self._outgoing.read())
                more = self._sock.recv(65_536)
                if not more:
                    raise ConnectionResetError("the client has gone") from None
                self._incoming.write(more)
            else:
                self.sendall(self._outgoing.read())
                return done

    def encoded(self, content: memoryview | bytes) -> memoryview:
        left = memoryview(content)
        while left:
            left = left[self._tls.write(left) :]
        return memoryview(self._outgoing.read())


class Messages:
    """What the client says: lines of HTTP, then whole messages, masked as they are."""

    def __init__(self, wire: Plain) -> None:
        self._wire = wire
        self._buffer = b""

    def _fill(self) -> None:
        more = self._wire.recv()
        if not more:
            raise ConnectionResetError("the client has gone")
        self._buffer += more

    def _take(self, n: int) -> bytes:
        while len(self._buffer) < n:
            self._fill()
        taken, self._buffer = self._buffer[:n], self._buffer[n:]
        return taken

    def until(self, end: bytes) -> bytes:
        """Everything up to these bytes, which are taken too."""
        while end not in self._buffer:
            self._fill()
        return self._take(self._buffer.index(end) + len(end))

    def next(self) -> bytes:
        length = self._take(2)[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        mask = self._take(4)
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._take(length)))


class Sender:
    """``Sender(frames, directory)``: has so many frames in the wire's form; ``serve`` plays to one client."""

    def __init__(self, n_frames: int, directory: Path) -> None:
        self._late_file = directory / "late.int64"
        source = stream()
        parts = [on_the_wire(SUBSCRIBED), *(on_the_wire(next(source)) for _ in range(n_frames))]
        self._ends = array("q", np.cumsum([len(part) for part in parts]).tolist())
        self._all = memoryview(b"".join(parts))

    def serve(self, wire: Plain) -> None:
        """One play; says how it went when the last byte is in the socket, then waits for the client to go."""
        messages = Messages(wire)
        request = messages.until(b"\r\n\r\n")
        play = Play.of(request)
        if play.warm + play.frames >= len(self._ends):
            raise SimulatorError(f"asked for {play.warm + play.frames} frames, has {len(self._ends) - 1}")
        warm, end = self._ends[play.warm], self._ends[play.warm + play.frames]
        sizes = b"X-Warm-Bytes: %d\r\nX-Bytes: %d\r\n" % (warm, end - warm)
        wire.sendall(wire.encoded(upgrade_response(request, sizes)))
        before = wire.encoded(self._all[:warm])
        measured = None if play.rate else wire.encoded(self._all[warm:end])
        wire.sendall(before)  # not earlier: at "go" all has to be ready
        while play.go and messages.next() != GO:
            pass
        said = self._paced(wire, play) if measured is None else _at_once(wire, measured)
        _say({"frames": play.frames, **said})
        with suppress(OSError):
            while True:
                messages.next()

    def _paced(self, wire: Plain, play: Play) -> dict[str, Any]:
        first = play.warm + 1
        # All but the time is made beforehand; the next frame gets its own while its instant has not come.
        heads = [
            untimed_wire(bytes(self._all[self._ends[n - 1] : self._ends[n]]))
            for n in range(first, first + play.frames)
        ]
        late_ns = np.zeros(play.frames, np.int64)
        with _undisturbed(realtime=bool(play.sleeps)) as realtime:
            margin_ns = overslept_ns() if play.sleeps else -1
            cpu, start_us = time.process_time(), time.time_ns() // 1000 + _LEAD_US
            if isinstance(wire, Encrypted):
                _paced_encrypted(wire, heads, start_us, play.rate, late_ns)
            else:
                pace(wire.fd, heads, start_us, play.rate, play.group, late_ns, margin_ns)
            cpu = time.process_time() - cpu
        self._late_file.write_bytes(late_ns.tobytes())
        return {"realtime": realtime, "cpu_s": cpu, "late_file": str(self._late_file)}


def _paced_encrypted(
    wire: Encrypted, heads: list[bytes], start_us: int, rate: int, late_ns: NDArray[np.int64]
) -> None:
    """As ``pace``; each frame is encrypted while its instant has not come. It never sleeps."""
    clock, send, encoded = time.time_ns, wire.sendall, wire.encoded
    for i, head in enumerate(heads):
        due_us = start_us + i * 1_000_000 // rate
        frame, due = encoded(head + time_of(due_us)), due_us * 1000
        now = clock()
        while now < due:
            now = clock()
        send(frame)
        late_ns[i] = now - due


@contextmanager
def _undisturbed(*, realtime: bool) -> Iterator[bool]:
    """No garbage collector; real-time priority, if that is asked for. Gives whether it was granted.

    The sender is the clock of the measurement: on a core that it shares it must run when it is time.
    """
    granted = False
    if realtime:
        with suppress(AttributeError, OSError):
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            granted = True
    gc.collect()
    gc.disable()
    try:
        yield granted
    finally:
        gc.enable()
        if granted:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _at_once(wire: Plain, content: memoryview) -> dict[str, Any]:
    started, cpu = time.perf_counter(), time.process_time()
    for at in range(0, len(content), CHUNK_BYTES):
        wire.sendall(content[at : at + CHUNK_BYTES])
    return {"seconds": time.perf_counter() - started, "cpu_s": time.process_time() - cpu}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("frames", type=int)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    pin(options.core)
    sender = Sender(options.frames, options.directory)
    context = None
    if options.tls:
        from kalshi_fast.simulator.tls import make_tls

        context = make_tls(options.directory)[0]
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with socket.create_server(("127.0.0.1", 0)) as server:
        _say(server.getsockname()[1])
        while True:
            sock = server.accept()[0]
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                sender.serve(Encrypted(sock, context) if context is not None else Plain(sock))
            except (OSError, SimulatorError) as error:  # ssl.SSLError is an OSError
                _say({"ended": str(error)})
            finally:
                sock.close()


def _end_with_parent() -> None:
    sys.stdin.read()  # its end is the end of whoever started us
    os._exit(0)


def _say(what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
