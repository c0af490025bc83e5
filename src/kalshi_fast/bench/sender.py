"""A sender that is never the bottleneck: a process that writes frames made beforehand with blocking calls.

``python -m kalshi_fast.bench.sender DIRECTORY FRAMES [--tls] [--core N]`` prints its port, then one line of JSON
after every play. The path of the upgrade request says what to play (``Play``). After ``warm`` frames it waits for
the client's "go". A paced play is open loop: each frame has its instant, which is also its ``ts``; how late the
sender itself was is in its line. Not here: what is in the frames (``workload``).
"""

from __future__ import annotations

import argparse
import base64
import gc
import hashlib
import json
import os
import socket
import struct
import sys
import threading
import time
from array import array
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import numpy as np

from kalshi_fast.bench.cpus import pin
from kalshi_fast.bench.workload import SUBSCRIBED, on_the_wire, stream, timed_frame

GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
GO: Final = b"go"
CHUNK_BYTES: Final = 256 * 1024
_PREPARE_US_PER_FRAME: Final = 8
_PREPARE_US: Final = 300_000


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
    """``/?warm=W&frames=N&rate=R``: after the answer to one subscribe command W frames at once, "go", N frames.

    ``rate`` 0: as fast as the socket takes them. ``go`` 0: nobody is waited for. ``sleeps`` 1: between two frames
    the sender sleeps, for those who share its core.
    """

    warm: int
    frames: int
    rate: int = 0
    go: int = 1
    sleeps: int = 0

    @classmethod
    def of(cls, request: bytes) -> Play:
        target = request.split(b" ", 2)[1].decode()
        return cls(**{name: int(value) for name, value in parse_qsl(urlsplit(target).query)})

    @property
    def path(self) -> str:
        return (
            f"/?warm={self.warm}&frames={self.frames}&rate={self.rate}&go={self.go}&sleeps={self.sleeps}"
        )


class Messages:
    """What the client says: whole text messages of a WebSocket client, masked as they are."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = b""

    def _fill(self) -> None:
        more = self._sock.recv(65_536)
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

    def rest(self) -> bytes:
        """What has come and was not taken."""
        taken, self._buffer = self._buffer, b""
        return taken

    def next(self) -> bytes:
        length = self._take(2)[1] & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._take(2))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._take(8))
        mask = self._take(4)
        return bytes(byte ^ mask[at % 4] for at, byte in enumerate(self._take(length)))


class Sender:
    """``Sender(frames)``: has so many frames on the wire's form; ``serve`` plays to one client."""

    def __init__(self, n_frames: int) -> None:
        source = stream()
        parts = [on_the_wire(SUBSCRIBED), *(on_the_wire(next(source)) for _ in range(n_frames))]
        self._ends = array("q", np.cumsum([len(part) for part in parts]).tolist())
        self._all = memoryview(b"".join(parts))

    def serve(self, sock: socket.socket) -> None:
        """One play; says how it went when the last byte is in the socket, then waits for the client to go."""
        messages = Messages(sock)
        request = messages.until(b"\r\n\r\n")
        play = Play.of(request)
        warm, end = self._ends[play.warm], self._ends[play.warm + play.frames]
        sizes = b"X-Warm-Bytes: %d\r\nX-Bytes: %d\r\n" % (warm, end - warm)
        sock.sendall(upgrade_response(request, sizes))
        self._send(sock, 0, warm)
        while play.go and messages.next() != GO:
            pass
        if play.rate:
            said = self._paced(sock, play)
        else:
            started = time.perf_counter_ns()
            self._send(sock, warm, end)
            said = {"seconds": (time.perf_counter_ns() - started) / 1e9}
        _say({"frames": play.frames, **said})
        with suppress(OSError):  # ssl.SSLError is one of them
            while True:
                messages.next()

    def _send(self, sock: socket.socket, start: int, end: int) -> None:
        for at in range(start, end, CHUNK_BYTES):
            sock.sendall(self._all[at : min(at + CHUNK_BYTES, end)])

    def _frame(self, n: int) -> bytes:
        return bytes(self._all[self._ends[n - 1] : self._ends[n]])

    def _paced(self, sock: socket.socket, play: Play) -> dict[str, Any]:
        first = play.warm + 1
        start_us = time.time_ns() // 1000 + _PREPARE_US + _PREPARE_US_PER_FRAME * play.frames
        due_us = [start_us + i * 1_000_000 // play.rate for i in range(play.frames)]
        wires = [on_the_wire(timed_frame(self._frame(first + i)[4:], due)) for i, due in enumerate(due_us)]
        late_ns = array("q", bytes(8 * play.frames))
        clock, send, sleep = time.time_ns, sock.sendall, time.sleep
        gc.collect()
        gc.disable()
        unready = clock() > start_us * 1000
        for i, wire in enumerate(wires):
            due = due_us[i] * 1000
            now = clock()
            if play.sleeps and now < due:
                sleep((due - now) / 1e9)
                now = clock()
            while now < due:
                now = clock()
            send(wire)
            late_ns[i] = now - due
        gc.enable()
        late = np.percentile(np.frombuffer(late_ns, np.int64) / 1000, [50, 99, 99.9, 100])
        names = ("late_p50_us", "late_p99_us", "late_p999_us", "late_max_us")
        return {
            "unready": unready,
            **{name: round(float(us), 1) for name, us in zip(names, late, strict=True)},
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("frames", type=int)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    pin(options.core)
    sender = Sender(options.frames)
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
                if context is not None:
                    sock = context.wrap_socket(sock, server_side=True)
                sender.serve(sock)
            except OSError as error:  # the client has had enough; ssl.SSLError is one of them
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
