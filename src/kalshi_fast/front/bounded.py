"""An HTTP server with a bound on its connections, a thread for each; who is too much is hung up on.

Not here: what is answered (``front.http``, ``status.http``).
"""

from __future__ import annotations

import logging
import socket
import socketserver
import sys
import threading
from contextlib import suppress
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from kalshi_fast.config import is_loopback

if TYPE_CHECKING:
    from email.message import Message
    from http.server import BaseHTTPRequestHandler

MAX_CONNECTIONS: Final = 32

log = logging.getLogger("kalshi_fast.front")


class BoundedServer(ThreadingHTTPServer):
    """``BoundedServer(address or listening socket, handler)``; ``what`` names it in the log."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = MAX_CONNECTIONS
    what = "the query front"

    def __init__(self, at: tuple[str, int] | socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        self._lock = threading.Lock()
        self._open: dict[socket.socket, threading.Thread] = {}
        if isinstance(at, socket.socket):
            super().__init__(at.getsockname()[:2], handler, bind_and_activate=False)
            self.socket.close()
            self.socket = at
            self._name()
            return
        if ":" in at[0]:
            self.address_family = socket.AF_INET6
        super().__init__(at, handler)

    def server_bind(self) -> None:
        """As usual, without asking a name server for the name of this machine."""
        socketserver.TCPServer.server_bind(self)
        self._name()

    def _name(self) -> None:
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name=f"{self.what}: client",
            daemon=True,
        )
        with self._lock:
            admitted = len(self._open) < MAX_CONNECTIONS
            if admitted:
                self._open[request] = thread
        if admitted:
            thread.start()
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        super().shutdown_request(request)
        with self._lock:
            self._open.pop(request, None)

    def cut_all(self) -> None:
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def threads(self) -> list[threading.Thread]:
        with self._lock:
            return list(self._open.values())

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        if not isinstance(sys.exception(), OSError):  # which is a client that went away
            log.exception("%s could not answer", self.what)


def is_addressed(server: BoundedServer, headers: Message) -> bool:
    """False when the Host header names another machine: a web page can make its own name mean this one, and
    then the browser's Host is that name."""
    if not is_loopback(str(server.server_address[0])):
        return True
    try:
        name = urlsplit(f"//{headers.get('Host', '127.0.0.1')}").hostname or ""
    except ValueError:
        return False
    return is_loopback(name)
