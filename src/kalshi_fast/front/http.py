"""ClickHouse's HTTP interface, as far as clients need it to ask: clickhouse-connect, curl, our own command.

Answers are never compressed, for they do not leave the machine; sessions are accepted and mean nothing, for
there is nothing to keep in one. Not here: what may be asked (``statement``), connections (``server``),
reading of requests (``incoming``).
"""

from __future__ import annotations

import json
import secrets
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

from kalshi_fast.front.bounded import is_addressed
from kalshi_fast.front.engine import Query
from kalshi_fast.front.errors import QueryError, refusal
from kalshi_fast.front.incoming import IncomingHandler, RequestError, read_body

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from kalshi_fast.front.server import Server

TAKE_S: Final = 30.0  # for the client to take one part of the answer
_MAX_FIELDS: Final = 1000
WRONG_CREDENTIALS: Final = "Authentication failed: password is incorrect, or there is no user with such name."
# What the interface itself uses of the URL; all else are settings.
_TRANSPORT: Final = frozenset(
    {
        "buffer_size",
        "client_protocol_version",
        "compress",
        "database",
        "decompress",
        "default_format",
        "enable_http_compression",
        "http_headers_progress_interval_ms",
        "password",
        "query",
        "query_id",
        "quota_key",
        "role",
        "send_progress_in_http_headers",
        "session_check",
        "session_id",
        "session_timeout",
        "user",
        "wait_end_of_query",
    }
)
_TAB: Final = "text/tab-separated-values"
_CONTENT_TYPES: Final = {"CSV": "text/csv", "TSV": _TAB, "TabSeparated": _TAB}
_BINARY: Final = ("Native", "RowBinary", "Parquet", "Arrow", "ORC", "Avro", "MsgPack", "BSON", "Npy", "Raw")


@dataclass(frozen=True, slots=True)
class Request:
    """One request, complete. ``fields`` are the URL's."""

    method: str
    path: str
    fields: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    def query(self, text: str) -> Query:
        """A statement with everything that the URL says of it."""
        fields = self.fields
        return Query(
            text,
            parameters={name[6:]: value for name, value in fields.items() if name.startswith("param_")},
            settings={
                name: value
                for name, value in fields.items()
                if name not in _TRANSPORT and not name.startswith("param_")
            },
            database=fields.get("database") or self.headers.get("X-ClickHouse-Database"),
            default_format=fields.get("default_format")
            or self.headers.get("X-ClickHouse-Format")
            or "TabSeparated",
        )


class Handler(IncomingHandler):
    server: Server

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of HTTP itself: as text, and the connection ends."""
        self.close_connection = True
        text = f"{message or self.responses.get(code, ('Error',))[0]}\n"
        self._send(code, text.encode(errors="replace"), {"Connection": "close"})

    def do_GET(self) -> None:  # noqa: N802 - the name that http.server calls
        self._incoming.head_is_read()
        try:
            body = read_body(self.rfile, self.headers, self.server.front.max_body_bytes)
        except RequestError as error:
            self.close_connection = True
            if error.status == 413:
                self.send_refusal(refusal("QUERY_IS_TOO_LARGE", str(error)))
            else:
                self.send_error(error.status, str(error))
            return
        try:
            parts = urlsplit(self.path)
            pairs = parse_qsl(parts.query, keep_blank_values=True, max_num_fields=_MAX_FIELDS)
        except ValueError:
            self.send_error(400, f"expected a URL with at most {_MAX_FIELDS} fields")
            return
        request = Request(self.command, parts.path, dict(pairs), self.headers, body)  # type: ignore[arg-type]
        if not is_addressed(self.server, self.headers):
            self.send_error(403, "the Host header names another machine")
        elif request.path in ("/ping", "/replicas_status"):
            self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        elif not self.server.front.may_enter(request):
            self.send_refusal(refusal("AUTHENTICATION_FAILED", WRONG_CREDENTIALS))
        elif request.path != "/":
            self._send(404, b"There is no handle for this path. Use / or /ping.\n", {})
        elif not body and "query" not in request.fields and self.command != "POST":
            self._send(200, b"Ok.\n", {"Content-Type": "text/html; charset=UTF-8"})
        else:
            self.answer(request)

    do_POST = do_HEAD = do_GET  # noqa: N815

    def answer(self, request: Request) -> None:
        self._began = False
        headers = {"X-ClickHouse-Query-Id": request.fields.get("query_id", "") or str(uuid.uuid4())}
        tag = secrets.token_hex(8)
        try:
            with self.server.front.respond(request) as answer:
                headers |= {
                    "X-ClickHouse-Server-Display-Name": "kalshi-fast",
                    "X-ClickHouse-Format": answer.output_format,
                    "X-ClickHouse-Timezone": answer.timezone,
                    "X-ClickHouse-Summary": json.dumps(answer.summary),
                    "Content-Type": _content_type(answer.output_format),
                }
                if answer.whole or self.request_version == "HTTP/1.0":
                    self._send(200, b"".join(answer.parts), headers)
                else:
                    self._stream(answer.parts, headers | {"X-ClickHouse-Exception-Tag": tag})
        except QueryError as error:
            if not self._began:
                self.send_refusal(error, headers)
                return
            # The status is gone: as the server does, the error at the end, and the end itself missing.
            self.close_connection = True
            text = f"{error}\n".encode()
            marked = b"\r\n__exception__\r\n%b\r\n%b%d %b\r\n__exception__\r\n" % (
                tag.encode(),
                text,
                len(text),
                tag.encode(),
            )
            self._write(b"%x\r\n%b\r\n" % (len(marked), marked))

    def _stream(self, parts: Iterator[bytes], headers: dict[str, str]) -> None:
        self._began = True
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name, _header(value))
        self.send_header("Transfer-Encoding", "chunked")
        self._end_headers()
        if self.command == "HEAD":
            return
        for part in parts:
            if part:
                self._write(b"%x\r\n" % len(part) + part + b"\r\n")
        self._write(b"0\r\n\r\n")

    def send_refusal(self, error: QueryError, headers: Mapping[str, str] | None = None) -> None:
        code = {"X-ClickHouse-Exception-Code": str(error.code)}
        self._send(error.status, f"{error}\n".encode(), dict(headers or {}) | code)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in ({"Content-Type": "text/plain; charset=UTF-8"} | dict(headers)).items():
            self.send_header(name, _header(value))
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection and "Connection" not in headers:
            self.send_header("Connection", "close")
        self._end_headers()
        if self.command != "HEAD":
            self._write(body)

    def _end_headers(self) -> None:
        self.connection.settimeout(TAKE_S)
        self.end_headers()

    def _write(self, data: bytes) -> None:
        self.connection.settimeout(TAKE_S)  # for all of it
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing: the URL may have a password in it."""


def _header(text: str) -> str:
    """A value that cannot end its line and begin another."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:1024])


def _content_type(output_format: str) -> str:
    for prefix, content_type in _CONTENT_TYPES.items():
        if output_format.startswith(prefix):
            return f"{content_type}; charset=UTF-8"
    if output_format.startswith("JSON"):
        each_row = "EachRow" in output_format
        return "application/x-ndjson; charset=UTF-8" if each_row else "application/json; charset=UTF-8"
    return "application/octet-stream" if output_format.startswith(_BINARY) else "text/plain; charset=UTF-8"
