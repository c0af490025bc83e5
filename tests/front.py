"""A ClickHouse server for the tests: the read-only front, but with writes, and with faults by a script.

``server(engine_url)`` is the address of one, ``running(engine_url)`` the Front itself:
``front.fail_next("cut_after", times=2)`` spoils the next two inserts, ``away()`` and ``back()`` stop and
resume listening on the same port, ``inserts`` are those that reached the engine.
"""

from __future__ import annotations

import gzip
import re
import tempfile
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import chdb
import lz4.frame

from kalshi_fast.front import Answer, Engine, Limits, Query, QueryFront, Request
from kalshi_fast.front.errors import QueryError, refusal
from kalshi_fast.front.http import WRONG_CREDENTIALS, Handler
from kalshi_fast.front.settings import assignments

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "recorder", "p4ss w0rd"

Kind = Literal[
    "refuse",  # the connection ends without a byte, nothing has happened
    "stall",  # so many seconds of silence, then as usual
    "500_before",  # an error, nothing has happened
    "500_after",  # an error, though the insert has happened
    "cut_before",  # half a response, nothing has happened
    "cut_after",  # half a response, the insert has happened
    "garbage_before",  # bytes that are no HTTP, nothing has happened
    "garbage_after",  # bytes that are no HTTP, the insert has happened
    "wrong_credentials",  # 403, as after a change of the password
]
_INSERT = re.compile(rb"\s*INSERT\b", re.IGNORECASE)
_TOGETHER = re.compile(rb"(INSERT .*?FORMAT\s+\w+)\s*\n(.*)", re.DOTALL | re.IGNORECASE)
_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\s*;?\s*\Z", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Fault:
    kind: Kind
    on: Literal["insert", "any"]
    seconds: float


@dataclass(frozen=True, slots=True)
class Insert:
    """The head of one that reached the engine, with its settings."""

    head: str
    settings: dict[str, str] = field(default_factory=dict)


class WritingEngine(Engine):
    """All statements, as a server's own user."""

    @contextmanager
    def answer(self, handle: Any, query: Query) -> Iterator[Answer]:  # noqa: ANN401
        output = _FORMAT.search(query.text)
        output_format = output[1] if output else query.default_format
        try:
            if query.database:
                handle.query(
                    f"USE `{query.database.replace(chr(92), chr(92) * 2).replace('`', chr(92) + '`')}`"
                )
            if query.settings:
                handle.query(f"SET {assignments(query.settings)}")
            result = handle.query(query.text, output_format, params=dict(query.parameters))
        except RuntimeError as error:
            raise QueryError(str(error), _code(error)) from None
        written = {"written_rows": str(result.rows_written() or result.rows_read())}
        yield Answer(output_format, "UTC", iter([result.bytes() or b""]), whole=True, summary=written)


class Front(QueryFront):
    """A server over the engine. One script of faults for all connections."""

    max_body_bytes = 1024 * 1024 * 1024
    engine_class = WritingEngine

    def __init__(self, engine_url: str, *, user: str = USER, password: str = PASSWORD) -> None:
        path = engine_url.removeprefix("chdb://")
        super().__init__(
            lambda: chdb.connect(path),  # type: ignore[no-untyped-call]
            user=user,
            password=password,
            limits=Limits(concurrent=16),
        )
        self.inserts: list[Insert] = []
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._ending = threading.Event()

    def fail_next(
        self, kind: Kind, times: int = 1, *, on: Literal["insert", "any"] = "insert", seconds: float = 1.0
    ) -> None:
        """The next ``times`` inserts (or requests of any kind) end so; after the faults scripted before."""
        with self._lock:
            self._faults += [Fault(kind, on, seconds)] * times

    @property
    def faults_left(self) -> int:
        with self._lock:
            return len(self._faults)

    def away(self) -> None:
        """Connections are refused from now on, and those that are open cut."""
        self.stop_listening()

    def back(self) -> None:
        self.start()

    def close(self) -> None:
        self._ending.set()
        super().close()

    def wait(self, seconds: float) -> None:
        self._ending.wait(seconds)

    def take_fault(self, request: Request) -> Fault | None:
        with self._lock:
            if self._faults and (self._faults[0].on == "any" or is_insert(request)):
                return self._faults.pop(0)
            return None

    @contextmanager
    def respond(self, request: Request) -> Iterator[Answer]:
        body, statement = request.body, request.fields.get("query", "")
        if not is_insert(request):
            text = "\n".join(part for part in (statement, body.decode()) if part)
            with self.engine.run(request.query(text)) as answer:
                yield answer
            return
        if not statement:
            together = _TOGETHER.fullmatch(body)
            statement, body = (together[1].decode(), together[2]) if together else (body.decode(), b"")
        query = request.query(statement)
        with self._lock:
            self.inserts.append(Insert(statement, dict(query.settings)))
        if not body:
            with self.engine.run(query) as answer:
                yield answer
            return
        with tempfile.NamedTemporaryFile(suffix=".raw") as file:
            file.write(body)
            file.flush()
            head, _, output = statement.rpartition("FORMAT ")
            clause = f"SETTINGS {assignments(query.settings)}" if query.settings else ""
            query = Query(
                f"{head} FROM INFILE '{file.name}' {clause} FORMAT {output}", database=query.database
            )
            with self.engine.run(query) as answer:
                yield answer


class _FaultyHandler(Handler):
    def answer(self, request: Request) -> None:
        front = self.server.front
        assert isinstance(front, Front)
        request = replace(request, body=_decoded(request))
        fault = front.take_fault(request)
        kind = fault.kind if fault else None
        if fault is not None and kind == "stall":
            front.wait(fault.seconds)
        if kind in (None, "stall"):
            super().answer(request)
            return
        self.close_connection = True
        if kind in ("500_after", "cut_after", "garbage_after"):
            with front.respond(request) as answer:
                b"".join(answer.parts)
        if kind in ("500_before", "500_after"):
            self.send_refusal(QueryError("Code: 999. DB::Exception: Scripted. (KEEPER_EXCEPTION)", 999))
        elif kind in ("cut_before", "cut_after"):
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-ClickHouse-Summary: {}\r\nContent-Length: 100\r\n\r\n12")
        elif kind in ("garbage_before", "garbage_after"):
            self.wfile.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 no HTTP \xff\r\n\r\n")
        elif kind == "wrong_credentials":
            self.send_refusal(refusal("AUTHENTICATION_FAILED", WRONG_CREDENTIALS))


Front.handler_class = _FaultyHandler  # which has to know the Front


def is_insert(request: Request) -> bool:
    statement = request.fields.get("query", "").encode() or request.body
    return _INSERT.match(statement) is not None


def _decoded(request: Request) -> bytes:
    encoding = request.headers.get("Content-Encoding")
    if encoding == "gzip":
        return gzip.decompress(request.body)
    if encoding == "lz4":
        decompressed: bytes = lz4.frame.decompress(request.body)
        return decompressed
    if encoding is not None:
        raise NotImplementedError(f"the encoding {encoding}")
    return request.body


def _code(error: Exception) -> int:
    found = re.search(r"Code: (\d+)", str(error))
    return int(found[1]) if found else 1


@contextmanager
def running(engine_url: str) -> Iterator[Front]:
    """A front over the engine of ``engine_url``, listening."""
    front = Front(engine_url)
    front.start()
    try:
        yield front
    finally:
        front.close()


@contextmanager
def server(engine_url: str) -> Iterator[str]:
    """The address of a front over the engine of ``engine_url``."""
    with running(engine_url) as front:
        yield front.url
