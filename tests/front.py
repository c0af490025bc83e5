"""A loopback HTTP front over the embedded engine: what a ClickHouse server looks like to a client.

The statement comes in the URL or the body, the rows of an INSERT in the body; settings, database and
parameters come in the URL. Only what clickhouse-connect uses is here.
"""

from __future__ import annotations

import base64
import gzip
import re
import tempfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "recorder", "p4ss w0rd"
_TRANSPORT = {"query", "database", "session_id", "query_id", "compress", "enable_http_compression", "role"}


class Front(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    engine: ClassVar[Any]
    lock = threading.Lock()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected:
            self._answer(403, b"Code: 516. DB::Exception: Authentication failed. (AUTHENTICATION_FAILED)")
            return
        try:
            with self.lock:
                self._answer(200, self._run(parameters, body))
        except RuntimeError as error:
            self._answer(500, str(error).encode())

    do_GET = do_POST  # noqa: N815

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().strip(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _run(self, parameters: dict[str, str], body: bytes) -> bytes:
        encoding = self.headers.get("Content-Encoding")
        if encoding == "gzip":
            body = gzip.decompress(body)
        elif encoding == "lz4":
            body = lz4.frame.decompress(body)
        elif encoding is not None:
            raise RuntimeError(f"the front does not know the encoding {encoding}")
        if "database" in parameters:
            name = parameters["database"].replace("\\", "\\\\").replace("`", "\\`")
            self.engine.query(f"USE `{name}`")
        sql = parameters.get("query", "")
        values = {name[6:]: value for name, value in parameters.items() if name.startswith("param_")}
        settings = {
            name: value
            for name, value in parameters.items()
            if name not in _TRANSPORT and not name.startswith("param_") and name != "client_protocol_version"
        }
        clause = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
        if not sql:
            together = re.match(rb"(INSERT .*?FORMAT\s+\w+)\s*\n(.*)", body, re.DOTALL | re.IGNORECASE)
            sql, body = (together[1].decode(), together[2]) if together else (body.decode(), b"")
        if body and re.match(r"\s*INSERT", sql, re.IGNORECASE):
            with tempfile.NamedTemporaryFile(suffix=".raw") as file:
                file.write(body)
                file.flush()
                head, output = re.split(r"\sFORMAT\s", sql)
                clause = f"SETTINGS {clause}" if clause else ""
                self.engine.query(f"{head} FROM INFILE '{file.name}' {clause} FORMAT {output}")
                return b""
        output = (re.findall(r"FORMAT\s+(\w+)\s*$", sql) or ["TabSeparated"])[0]
        sql = re.sub(r"FORMAT\s+\w+\s*$", "", sql)
        return bytes(self.engine.query(sql, output, params=values).bytes())

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("X-ClickHouse-Exception-Code", "516" if status == 403 else "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
        """Nothing on stderr."""


@contextmanager
def server(engine_url: str) -> Iterator[str]:
    """The address of a front over the engine of ``engine_url``."""
    Front.engine = chdb.connect(engine_url.removeprefix("chdb://"))  # type: ignore[no-untyped-call]
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Front)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{httpd.server_port}"
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
        Front.engine.close()
