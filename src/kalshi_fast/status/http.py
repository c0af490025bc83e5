"""What is answered to whom asks for what. GET only, small answers, no state.

Not here: metrics as text (``metrics``), what is healthy (``health``), connections (``front.bounded``).
"""

from __future__ import annotations

import dataclasses
import json
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from kalshi_fast.front.bounded import BoundedServer, is_addressed
from kalshi_fast.front.incoming import IncomingHandler, RequestError, read_body
from kalshi_fast.status import metrics
from kalshi_fast.status.health import reasons

if TYPE_CHECKING:
    from collections.abc import Callable

    from kalshi_fast.status.state import State

TAKE_S: Final = 10.0  # for the client to take the answer
MAX_BODY_BYTES: Final = 1024  # nobody needs one
MAX_MARKETS: Final = 1_000_000
_MAX_FIELDS: Final = 10
_TICKER = re.compile(r"[A-Z0-9.-]{1,128}\Z")
_JSON: Final = "application/json"
# Nothing but what is in the page itself, and it asks nobody but us.
_POLICY: Final = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self';"
    " img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


class _BadRequestError(Exception):
    """The text says what was expected."""


class StatusServer(BoundedServer):
    """``StatusServer(socket, state)`` on a socket that listens already."""

    what = "the status page"

    def __init__(self, listening: Any, state: State) -> None:  # noqa: ANN401 - a socket
        self.state = state
        self.page = (files("kalshi_fast.status") / "page.html").read_bytes()
        super().__init__(listening, _Handler)


class _Handler(IncomingHandler):
    server: StatusServer

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of HTTP itself: as text, and the connection ends."""
        self.close_connection = True
        text = f"{message or self.responses.get(code, ('Error',))[0]}\n"
        self._send(code, text.encode(errors="replace"), "text/plain; charset=utf-8")

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self._incoming.head_is_read()
        try:
            read_body(self.rfile, self.headers, MAX_BODY_BYTES)
            parts = urlsplit(self.path)
            fields = dict(parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_MAX_FIELDS))
        except RequestError as error:
            self.send_error(error.status, str(error))
            return
        except ValueError:
            self.send_error(400, f"expected a URL with at most {_MAX_FIELDS} fields")
            return
        if not is_addressed(self.server, self.headers):
            self.send_error(403, "the Host header names another machine")
            return
        answer = _ANSWERS.get(parts.path)
        if answer is None:
            self._send(404, f"There is {', '.join(_ANSWERS)}.\n".encode(), "text/plain; charset=utf-8")
            return
        try:
            status, body, content_type = answer(self.server, fields)
        except _BadRequestError as error:
            self._send(400, f"{error}\n".encode(), "text/plain; charset=utf-8")
            return
        self._send(status, body, content_type)

    do_HEAD = do_GET  # noqa: N815

    def _send(self, status: int, body: bytes, content_type: str) -> None:
        self.connection.settimeout(TAKE_S)
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing: a page that updates itself would fill the log."""


def _page(server: StatusServer, fields: dict[str, str]) -> tuple[int, bytes, str]:
    return 200, server.page, "text/html; charset=utf-8"


def _metrics(server: StatusServer, fields: dict[str, str]) -> tuple[int, bytes, str]:
    return 200, metrics.exposition(server.state).encode(), metrics.CONTENT_TYPE


def health(state: State) -> dict[str, Any]:
    """The body of /healthz."""
    found = reasons(state)
    return {
        "status": "failing" if found else "ok",
        "reasons": [reason._asdict() for reason in found],
    }


def _healthz(server: StatusServer, fields: dict[str, str]) -> tuple[int, bytes, str]:
    body = health(server.state)
    return 503 if body["reasons"] else 200, _json(body), _JSON


def _status(server: StatusServer, fields: dict[str, str]) -> tuple[int, bytes, str]:
    since_ns = _number(fields, "since", 0, 20)
    state = server.state
    body = health(state)
    with state.lock:
        body |= {
            "capture": msgspec.to_builtins(state.capture),
            "writing": msgspec.to_builtins(state.writing),
            "history": [
                # The time as text too: a page's numbers end at 2**53.
                dataclasses.asdict(point) | {"at_ns_text": str(point.at_ns)}
                for point in state.history
                if point.at_ns > since_ns
            ],
            "processes": {name: one._asdict() for name, one in state.processes().items()},
        }
    return 200, _json(body), _JSON


def _markets(server: StatusServer, fields: dict[str, str]) -> tuple[int, bytes, str]:
    limit = _number(fields, "limit", MAX_MARKETS, 7)
    found = server.state.markets()
    return 200, _json({"count": len(found), "markets": found[:limit]}), _JSON


def _ladder(server: StatusServer, fields: dict[str, str]) -> tuple[int, bytes, str]:
    ticker = fields.get("market", "")
    if not _TICKER.match(ticker):
        raise _BadRequestError("market: expected a ticker of A-Z, 0-9, '.' and '-'")
    found = server.state.ladder(ticker)
    if found is None:
        return 503, _json({"error": "the recorder does not answer, or has been asked enough"}), _JSON
    if not found.recorded:
        return 404, _json({"error": f"{ticker} is not recorded"}), _JSON
    return 200, _json(msgspec.to_builtins(found)), _JSON


def _number(fields: dict[str, str], name: str, default: int, digits: int) -> int:
    text = fields.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) <= digits):
        raise _BadRequestError(f"{name}: expected a whole number of at most {digits} digits")
    return int(text)


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()


_ANSWERS: Final[dict[str, Callable[[StatusServer, dict[str, str]], tuple[int, bytes, str]]]] = {
    "/": _page,
    "/metrics": _metrics,
    "/healthz": _healthz,
    "/api/status": _status,
    "/api/markets": _markets,
    "/api/ladder": _ladder,
}
