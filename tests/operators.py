"""An exchange and a recorder that run while a test looks at them: real processes, real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NoReturn
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TOOLS: Final = "KALSHI_FAST_TOOLS"
WAIT_S = 60.0  # for what has to come, on a machine that is busy


def eventually(what: str, look: Callable[[], Any]) -> Any:  # noqa: ANN401 - as ``look``
    """What ``look`` gives, as soon as it is true."""
    deadline = time.monotonic() + WAIT_S
    while not (found := look()):
        assert time.monotonic() < deadline, f"in {WAIT_S:.0f} s: {what}"
        time.sleep(0.1)
    return found


def tool(name: str, *or_else: str) -> str:
    """The path of a program that a test needs. Without it the test is skipped, or fails where
    KALSHI_FAST_TOOLS=required says that all of them are here (CI)."""
    found = filter(None, map(shutil.which, (name, *or_else)))
    return next(found, "") or missing(f"there is no {name} here")


def missing(what: str) -> NoReturn:
    """Skips a test that cannot be run for want of something, or fails it: see ``tool``."""
    wanted = os.environ.get(TOOLS, "")
    if wanted not in ("", "required"):
        pytest.fail(f"{TOOLS}: expected required or nothing, got {wanted!r}")
    if wanted:
        pytest.fail(f"{what}, and {TOOLS}=required")
    pytest.skip(what)


class Exchange:
    """The simulator, spoken to by lines of JSON."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "kalshi_fast.simulator", "--dir", str(directory), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        ready = self._message()
        self.tickers: list[str] = ready["tickers"]
        self.environment = {
            "PROD_KEYID": ready["key_id"],
            "PROD_KEYFILE": ready["key_file"],
            "WS_URL": ready["url"],
            "WS_CAFILE": ready["ca_file"] or "",
            "REST_URL": ready["rest_url"],
            "WS_BACKOFF_SECS": "0.1",
        }

    def _message(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        message: dict[str, Any] = json.loads(self._process.stdout.readline())
        return message

    def books(self) -> dict[str, dict[str, list[list[int]]]]:
        """What the books really are: ticker → side → [[price_e4, qty_e2], …]."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"report\n")
        self._process.stdin.flush()
        books: dict[str, dict[str, list[list[int]]]] = self._message()["books"]
        return books

    def stop(self) -> None:
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(OSError):
                stream.close()
        self._process.wait(WAIT_S)


@dataclass
class Recorder:
    """``kalshi-fast run --http``. ``said``: the file of its stderr."""

    process: subprocess.Popen[bytes]
    url: str
    said: Path

    def get(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        """Status and body."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=WAIT_S)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def json(self, path: str) -> Any:  # noqa: ANN401 - JSON
        status, body = self.get(path)
        assert status == 200, (path, status, body)
        return json.loads(body)

    def health(self) -> tuple[int, set[str]]:
        """The status of /healthz, and the reasons in one word each."""
        status, body = self.get("/healthz")
        return status, {reason["what"] for reason in json.loads(body)["reasons"]}

    def stop(self) -> dict[str, Any]:
        """Its figures."""
        self.process.terminate()
        out, _ = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, self.said.read_text()
        figures: dict[str, Any] = json.loads(out.splitlines()[-1])
        return figures


@contextlib.contextmanager
def recording(directory: Path, exchange: Exchange, **settings: str) -> Iterator[Recorder]:
    """A recorder that has found its feet; killed at the end, if it still runs."""
    directory.mkdir(exist_ok=True)
    said = directory / "stderr"
    with said.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "kalshi_fast", "run", "--json", "--quiet", "--env-file", os.devnull),
                *("--http", "127.0.0.1:0"),
            ],
            env={
                **os.environ,
                "MARKET_TICKERS": ",".join(exchange.tickers),
                **exchange.environment,
                **settings,
            },
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )

    def url() -> str:
        assert process.poll() is None, said.read_text()
        _, found, rest = said.read_text().partition("a page are at ")
        return rest.split("/ ")[0] if found and "/ " in rest else ""

    try:
        recorder = Recorder(process, eventually("it says where its page is", url), said)
        eventually("it is well", lambda: recorder.get("/healthz")[0] == 200)
        yield recorder
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def tmux(command: list[str], *, columns: int = 100, rows: int = 30) -> Iterator[Callable[[], str]]:
    """A command in a terminal of its own; what is on its screen."""
    program = tool("tmux")
    socket = f"kalshi-fast-{os.getpid()}-{time.monotonic_ns()}"

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [program, "-u", "-L", socket, "-f", os.devnull, *arguments], capture_output=True, check=False
        )
        return done.stdout.decode()

    line = " ".join(f"'{part}'" for part in command)
    run("new-session", "-d", "-x", str(columns), "-y", str(rows), f"{line}; echo ended $?; sleep 60")
    try:
        yield lambda: run("capture-pane", "-p")
    finally:
        run("kill-server")
