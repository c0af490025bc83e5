"""Runs one statement on the embedded engine, read-only and within limits, on a handle of its own.

Each statement gets a fresh connection handle (0.15 ms): what a handle has of settings and database dies with
it, and a handle on which a statement failed gives remains of it to the next one. ``readonly = 1`` is set on
it last, after the limits and after what a client may choose, so that nothing in the statement lifts them.
Not here: HTTP (``http``), what may be asked (``statement``).
"""

from __future__ import annotations

import itertools
import os
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.front import statement
from kalshi_fast.front.errors import QueryError, engine_error, refusal
from kalshi_fast.front.settings import assignments, at_most, is_free, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    OpenEngine = Callable[[], Any]  # a chdb Connection, which has no types

# Each block of the engine is whole in these formats; in all others the answer has to be made at once.
_STREAMED: Final = frozenset(
    {
        "CSV",
        "JSONCompactEachRow",
        "JSONEachRow",
        "JSONLines",
        "NDJSON",
        "Native",
        "RowBinary",
        "TSV",
        "TSVRaw",
        "TabSeparated",
        "TabSeparatedRaw",
    }
)
_IN_SCOPE = re.compile(r":? In scope SELECT formatQuery.*\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of every statement. A client may ask for less, not for more."""

    result_bytes: int = 128 * 1024 * 1024
    seconds: int = 30
    memory_bytes: int = 1024 * 1024 * 1024
    threads: int = 2
    # The recorder's own threads come first: beside four heavy queries on two cores 73 to 131 inserts a second
    # instead of 9 to 43. The engine takes it only with CAP_SYS_NICE (root has it), otherwise ignores it.
    nice: int = 10
    concurrent: int = 4
    wait_s: float = 1.0  # for a place among the concurrent


@dataclass(frozen=True, slots=True)
class Query:
    """A statement as a client sends it."""

    text: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    database: str | None = None
    default_format: str = "TabSeparated"


@dataclass(frozen=True, slots=True)
class Answer:
    """Its result: one part with all of it when ``whole``, otherwise parts as the engine makes them."""

    output_format: str
    timezone: str
    parts: Iterator[bytes]
    whole: bool
    summary: dict[str, str]


class Engine:
    """The embedded engine as the front uses it. ``open_engine`` gives a new handle of it at each call."""

    def __init__(self, open_engine: OpenEngine, *, database: str, limits: Limits) -> None:
        self.limits = limits
        self.open = open_engine
        self._database = database
        self._places = threading.BoundedSemaphore(limits.concurrent)
        self._closed = False
        # Statements of this front are known by it in the list of processes.
        self._tag = f"front-{os.getpid()}-{id(self):x}"
        # Kept: with its last handle the engine ends, and would begin anew with each statement.
        self._kept: Any = open_engine()
        self._timezone = _text(self._kept, "SELECT timezone()").strip()
        # The functions that ask an AI provider open sockets, and take the address as an argument.
        names = _text(
            self._kept,
            "SELECT lower(name) FROM system.table_functions"
            " UNION ALL SELECT lower(name) FROM system.functions WHERE startsWith(lower(name), 'ai')",
        )
        self._refused = frozenset(names.split()) - statement.ALLOWED_TABLE_FUNCTIONS

    @contextmanager
    def run(self, query: Query) -> Iterator[Answer]:
        """The answer, to be used inside. Raises QueryError, also while the parts are taken."""
        if not self._places.acquire(timeout=self.limits.wait_s):
            raise refusal(
                "TOO_MANY_SIMULTANEOUS_QUERIES",
                f"Too many simultaneous queries. Maximum: {self.limits.concurrent}.",
            )
        try:
            if self._closed:
                raise refusal("ABORTED", "The recorder is ending.")
            handle = self.open()
            try:
                with self.answer(handle, query) as answer:
                    yield answer
            finally:
                handle.close()
        finally:
            self._places.release()

    @contextmanager
    def answer(self, handle: Any, query: Query) -> Iterator[Answer]:  # noqa: ANN401
        """The answer on a handle that is used for nothing else."""
        try:
            allowed = self._check(handle, query)  # first: settings such as offset would change its answer
            self._prepare(handle, query)
            output_format = allowed.output_format or query.default_format
            parameters = dict(query.parameters)
            timezone = query.settings.get("session_timezone") or self._timezone
            if allowed.kind in ("SELECT", "WITH") and not allowed.has_totals and output_format in _STREAMED:
                stream = handle.send_query(query.text, output_format, params=parameters)
                try:
                    first = next(stream, None)
                    second = next(stream, None) if first is not None else None
                    summary = _summary(first)
                    ready = [part for part in (first, second) if part is not None]
                    parts = self._bounded(itertools.chain(ready, stream))
                    yield Answer(output_format, timezone, parts, second is None, summary)
                finally:
                    stream.close()
            else:
                result = handle.query(query.text, output_format, params=parameters)
                parts = self._bounded([result])
                yield Answer(output_format, timezone, parts, True, _summary(result))
        except RuntimeError as error:  # chdb's own error is one too
            raise engine_error(error) from None

    def cancel(self) -> None:
        """Ends what is running. No statement starts any more."""
        self._closed = True
        if self._kept is not None:
            self._kept.query(f"KILL QUERY WHERE Settings['log_comment'] = '{self._tag}' ASYNC FORMAT Null")

    def close(self) -> None:
        """Gives back the engine, when nothing runs any more. May be called again."""
        self._closed = True
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def _prepare(self, handle: Any, query: Query) -> None:  # noqa: ANN401
        """Database, settings, limits, and at last readonly."""
        settings = dict(query.settings)
        chosen = {name: settings.pop(name) for name in list(settings) if is_free(name)}
        limits = self.limits
        for name, ours in (
            ("max_execution_time", limits.seconds),
            ("max_result_bytes", limits.result_bytes),
            ("max_memory_usage", limits.memory_bytes),
            ("max_threads", limits.threads),
        ):
            chosen[name] = at_most(name, settings.pop(name, str(ours)), ours)
        chosen["result_overflow_mode"] = "throw"
        chosen["timeout_overflow_mode"] = "throw"
        chosen["os_threads_nice_value_query"] = str(limits.nice)
        chosen["log_comment"] = self._tag
        handle.query(f"USE {quoted(query.database or self._database, '`')}")
        handle.query(f"SET {assignments(chosen)}")
        handle.query("SET readonly = 1")
        if settings:  # the engine itself says which of them is unknown, unchanged or refused
            handle.query(f"SET {assignments(settings)}")

    def _check(self, handle: Any, query: Query) -> statement.Statement:  # noqa: ANN401
        if "\0" in query.text:
            raise refusal("SYNTAX_ERROR", "Syntax error: the statement has a zero byte in it")
        text = query.text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
        try:
            canonical = _text(handle, "SELECT formatQuerySingleLine({text:String})", {"text": text})
        except RuntimeError as error:
            found = engine_error(error)
            raise QueryError(_IN_SCOPE.sub(" (SYNTAX_ERROR)", str(found)), found.code) from None
        return statement.check(canonical.rstrip("\n"), query.parameters, self._refused)

    def _bounded(self, results: Any) -> Iterator[bytes]:  # noqa: ANN401
        """Their bytes. The engine counts columns in memory; a text format makes more of them."""
        total = 0
        try:
            for result in results:
                part = result.bytes() or b""
                total += len(part)
                if total > self.limits.result_bytes:
                    raise refusal(
                        "TOO_MANY_ROWS_OR_BYTES",
                        f"Limit for result exceeded, max bytes: {self.limits.result_bytes}.",
                    )
                yield part
        except RuntimeError as error:
            raise engine_error(error) from None


def _text(handle: Any, sql: str, parameters: dict[str, str] | None = None) -> str:  # noqa: ANN401
    answer: bytes = handle.query(sql, "TabSeparatedRaw", params=parameters or {}).bytes()
    return answer.decode(errors="replace")


def _summary(result: Any) -> dict[str, str]:  # noqa: ANN401
    if result is None:
        return {}
    return {
        "read_rows": str(result.storage_rows_read()),
        "read_bytes": str(result.storage_bytes_read()),
        "result_rows": str(result.rows_read()),
        "elapsed_ns": str(int(result.elapsed() * 1_000_000_000)),
    }
