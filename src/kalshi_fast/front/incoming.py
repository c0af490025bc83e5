"""Reads requests off a connection with a bound on everything: time, head, body, chunks.

Not here: what a request means (``http``).
"""

from __future__ import annotations

import io
import time
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import socket
    from email.message import Message

MAX_HEAD_BYTES: Final = 128 * 1024
MAX_BODY_BYTES: Final = 1024 * 1024
IDLE_S: Final = 60.0  # between requests
REQUEST_S: Final = 15.0  # for one request to arrive


class RequestError(Exception):
    """A request that cannot be read; what follows it on the connection cannot either."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Incoming(io.RawIOBase):
    """What a connection brings, with a time limit on each request and a size limit on its head."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.next_request()

    def next_request(self) -> None:
        self._deadline: float | None = None
        self._head_left: int | None = MAX_HEAD_BYTES

    def head_is_read(self) -> None:
        self._head_left = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401
        now = time.monotonic()
        left = IDLE_S if self._deadline is None else self._deadline - now
        if left <= 0:
            raise TimeoutError("the request takes too long to arrive")
        self._connection.settimeout(left)
        size = self._connection.recv_into(buffer)
        if self._deadline is None:
            self._deadline = time.monotonic() + REQUEST_S
        if self._head_left is not None:
            self._head_left -= size
            if self._head_left < 0:
                raise RequestError(431, f"the head is larger than {MAX_HEAD_BYTES} bytes")
        return size


class IncomingHandler(BaseHTTPRequestHandler):
    """Reads its requests within these bounds; what is answered is its heir's."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self._incoming = Incoming(self.connection)
        self.rfile = io.BufferedReader(self._incoming)

    def version_string(self) -> str:
        return "kalshi-fast"

    def handle_one_request(self) -> None:
        self._incoming.next_request()
        super().handle_one_request()

    def parse_request(self) -> bool:
        try:
            return super().parse_request()
        except RequestError as error:
            self.send_error(error.status, str(error))
            return False


def read_body(stream: io.BufferedIOBase, headers: Message, limit: int) -> bytes:
    """The body that the headers announce. Raises RequestError."""
    lengths = headers.get_all("Content-Length", [])
    encoding = headers.get("Transfer-Encoding")
    if encoding is not None:
        if encoding.strip().lower() != "chunked" or lengths:
            raise RequestError(400, "expected Transfer-Encoding: chunked, and no Content-Length with it")
        return _read_chunks(stream, limit)
    if not lengths:
        return b""
    if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit() and len(lengths[0]) < 19):
        raise RequestError(400, "expected one Content-Length, a number")
    length = int(lengths[0])
    if length > limit:
        raise RequestError(413, f"the body is larger than {limit} bytes")
    body = stream.read(length)
    if len(body) < length:
        raise RequestError(400, "the body ends before its length")
    return body


def _read_chunks(stream: io.BufferedIOBase, limit: int) -> bytes:
    body = bytearray()
    while True:
        line = stream.readline(64)
        size = line.split(b";")[0].strip()
        if not line.endswith(b"\n") or not size or len(size) > 8 or size.strip(b"0123456789abcdefABCDEF"):
            raise RequestError(400, "a chunk has no size")
        count = int(size, 16)
        if len(body) + count > limit:
            raise RequestError(413, f"the body is larger than {limit} bytes")
        if not count:
            break
        body += stream.read(count)
        if stream.readline(3) not in (b"\r\n", b"\n"):
            raise RequestError(400, "a chunk is longer or shorter than its size")
    for _ in range(8):  # trailers
        if stream.readline(1024) in (b"\r\n", b"\n"):
            return bytes(body)
    raise RequestError(400, "the body has too many trailers")
