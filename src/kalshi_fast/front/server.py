"""The front itself: listens, admits connections, begins and ends.

A thread of its own accepts, one thread per connection serves (``http``).
Not here: the statements (``engine``), the file that says where it listens (``endpoint``).
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kalshi_fast.config import is_loopback
from kalshi_fast.errors import ConfigError, reason
from kalshi_fast.front.bounded import BoundedServer
from kalshi_fast.front.engine import Engine, Limits
from kalshi_fast.front.errors import refusal
from kalshi_fast.front.http import Handler
from kalshi_fast.front.incoming import MAX_BODY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.front.engine import Answer, OpenEngine
    from kalshi_fast.front.http import Request

log = logging.getLogger("kalshi_fast.front")


class QueryFront:
    """Serves from ``start()`` to ``close()``, after which no statement runs and no handle is open.

    Listens on loopback only, unless ``allow_remote``, which takes a password. Raises ConfigError.
    """

    max_body_bytes = MAX_BODY_BYTES
    handler_class: type[Handler] = Handler
    engine_class: type[Engine] = Engine

    def __init__(
        self,
        open_engine: OpenEngine,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        user: str = "default",
        password: str = "",
        database: str = "default",
        limits: Limits | None = None,
        allow_remote: bool = False,
    ) -> None:
        if not is_loopback(host) and not (allow_remote and password):
            raise ConfigError(
                "QUERY_LISTEN: expected an address of this machine only, or a CLICKHOUSE_PASSWORD,"
                f" got {host!r}"
            )
        self._user = user.encode()
        self._password = password.encode()
        self._address = (host, port)
        self._server: Server | None = None
        self._servers: list[Server] = []  # one for each start
        self._thread: threading.Thread | None = None
        self.engine = self.engine_class(open_engine, database=database, limits=limits or Limits())
        self.url = ""

    def start(self) -> str:
        """Begins to serve; the address. Raises ConfigError when it cannot be listened on."""
        host, port = self._address
        try:
            self._server = Server(self, host, port)
        except (OSError, OverflowError) as error:
            self.engine.close()
            raise ConfigError(f"QUERY_LISTEN: {host}:{port} cannot be listened on: {reason(error)}") from None
        self._servers.append(self._server)
        # A restart, and the tests' outages, come back at the same port.
        self._address = (host, self._server.server_port)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="query-front", daemon=True
        )
        self._thread.start()
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{self._server.server_port}"
        return self.url

    def stop_listening(self) -> None:
        """Nobody is heard any more, and who is connected is cut off."""
        server, thread = self._server, self._thread
        self._server = self._thread = None
        if server is None or thread is None:
            return
        server.shutdown()
        thread.join()
        server.server_close()
        server.cut_all()

    def close(self) -> None:
        """Ends what is running, and waits for it. May be called again."""
        self.stop_listening()
        deadline = time.monotonic() + self.engine.limits.seconds
        while threads := [thread for server in self._servers for thread in server.threads()]:
            self.engine.cancel()  # again: a statement may have been about to begin
            threads[0].join(0.1)
            if time.monotonic() > deadline:
                log.warning("a query does not end and is left behind")
                break
        self.engine.close()

    def may_enter(self, request: Request) -> bool:
        """Whether the request has the user and password: Basic, ClickHouse's headers, or the URL."""
        user, password = b"default", b""
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if given:
            try:
                user, _, password = base64.b64decode(given, validate=True).partition(b":")
            except (binascii.Error, ValueError):
                return False
            if scheme.lower() != "basic":
                return False
        elif "X-ClickHouse-User" in request.headers or "X-ClickHouse-Key" in request.headers:
            user = request.headers.get("X-ClickHouse-User", "default").encode(errors="replace")
            password = request.headers.get("X-ClickHouse-Key", "").encode(errors="replace")
        elif "user" in request.fields or "password" in request.fields:
            user = request.fields.get("user", "default").encode(errors="replace")
            password = request.fields.get("password", "").encode(errors="replace")
        # Both always compared: the time says nothing of which was wrong.
        same_user = hmac.compare_digest(user, self._user)
        return hmac.compare_digest(password, self._password) and same_user

    @contextmanager
    def respond(self, request: Request) -> Iterator[Answer]:
        """The answer to a request whose sender may ask."""
        encoding = request.headers.get("Content-Encoding", "identity")
        if encoding != "identity":
            raise refusal("NOT_IMPLEMENTED", f"Content-Encoding {encoding[:40]!r} is not accepted")
        if request.headers.get("Content-Type", "").startswith("multipart/"):
            raise refusal("NOT_IMPLEMENTED", "External data and forms are not accepted")
        try:
            parts = (request.fields.get("query", ""), request.body.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise refusal("SYNTAX_ERROR", f"The statement is not UTF-8 at byte {error.start}") from None
        with self.engine.run(request.query("\n".join(part for part in parts if part))) as answer:
            yield answer


class Server(BoundedServer):
    """The listening half of a front."""

    def __init__(self, front: QueryFront, host: str, port: int) -> None:
        self.front = front
        super().__init__((host, port), front.handler_class)
