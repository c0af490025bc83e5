"""The exchange's REST interface answers whatever it is asked, signed or not, in JSON, and goes on."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.simulator.rest import ROOT, STATUSES
from kalshi_fast.simulator.tape import Traded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.simulator.exchange import Exchange

STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) ")


class Asked:
    """An exchange in a thread of its own, without TLS, and a signer that it knows."""

    def __init__(self, running: Exchange, signer: Signer) -> None:
        self.running = running
        self.signer = signer

    def raw(self, request: bytes) -> bytes:
        """What comes back on a connection that says this and no more."""
        answer = b""
        address = ("127.0.0.1", self.running.port)
        with socket.create_connection(address, timeout=20) as connection, suppress(ConnectionError):
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65_536):
                answer += part
        return answer

    def get(self, target: str, **more: str) -> bytes:
        """Signed as it must be, but for the headers in ``more``."""
        headers = self.signer.headers(time.time_ns() // 1_000_000, path=target.partition("?")[0])
        lines = [f"{name}: {value}" for name, value in {"Host": "x", **headers, **more}.items()]
        return self.raw("\r\n".join([f"GET {target} HTTP/1.1", *lines, "", ""]).encode("latin-1"))


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    directory = tmp_path_factory.mktemp("exchange")
    opened, loops = threading.Event(), []
    held: list[Exchange] = []
    ended = asyncio.Event()

    async def serve() -> None:
        async with exchange(directory, tls=False, rate=500) as running:
            held.append(running)
            loops.append(asyncio.get_running_loop())
            opened.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert opened.wait(30)
    yield Asked(held[0], Signer.from_file(KEY_ID, directory / "client.pem"))
    loops[0].call_soon_threadsafe(ended.set)
    thread.join()


def check(answer: bytes, *statuses: int) -> None:
    status = STATUS.match(answer)
    assert status is not None, answer
    assert int(status[1]) in statuses, answer
    json.loads(answer.partition(b"\r\n\r\n")[2])


PATHS = [f"{ROOT}{path}" for path in (
    *("/markets", "/markets/trades", "/markets/KXSIM-26DEC31-T0000", "/events", "/events/KXSIM-26DEC31"),
    *("/series", "/series/KXSIM", "/exchange/status", "/", "/nothing", "/markets/", "//markets"),
)]  # fmt: skip
NAMES = ["limit", "cursor", "status", "tickers", "ticker", "series_ticker", "event_ticker"]
NAMES += ["min_ts", "max_ts", "min_close_ts", "max_close_ts", "x"]
VALUES = st.one_of(
    st.text(max_size=30),
    st.integers(-(10**20), 10**20).map(str),
    st.sampled_from(["", "0", "1", "999999999999999", "\uff11", "²", "-0", "1e9", "KXSIM", *STATUSES]),
)
QUERIES = st.lists(st.tuples(st.sampled_from(NAMES), VALUES), max_size=5)


@settings(max_examples=200, deadline=None)
@given(path=st.sampled_from(PATHS), query=QUERIES, escaped=st.booleans())
def test_whatever_a_signed_request_asks_it_is_answered(
    asked: Asked, path: str, query: list[tuple[str, str]], escaped: bool
) -> None:
    safe = "" if escaped else "&=;%+[]{}?/#"
    text = "&".join(f"{name}={quote(value, safe=safe)}" for name, value in query)
    check(asked.get(f"{path}?{text}" if query else path), 200, 400, 404)


@settings(max_examples=50, deadline=None)
@given(
    name=st.sampled_from(["KALSHI-ACCESS-KEY", "KALSHI-ACCESS-TIMESTAMP", "KALSHI-ACCESS-SIGNATURE"]),
    value=st.text(st.characters(codec="latin-1").filter(str.isprintable), max_size=60),
)
def test_a_header_that_is_wrong_is_refused(asked: Asked, name: str, value: str) -> None:
    check(asked.get(f"{ROOT}/markets", **{name: value}), 401)


LINES = st.builds(
    "{} {}?{} {}\r\n{}: {}\r\n\r\n".format,
    st.sampled_from(["GET", "HEAD", "POST", "get", ""]),
    st.sampled_from(PATHS),
    st.text(st.characters(codec="latin-1"), max_size=40),
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2", ""]),
    st.sampled_from(["Host", "Content-Length", "Transfer-Encoding", "Upgrade", "X"]),
    st.text(st.characters(codec="latin-1"), max_size=40),
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(LINES.map(lambda text: text.encode("latin-1")), st.binary(max_size=200)))
def test_whatever_comes_it_goes_on(
    asked: Asked, caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    answer = asked.raw(request_bytes)
    status = STATUS.match(answer)
    assert status is None or int(status[1]) in {400, 401, 404, 500}
    assert b"Traceback" not in answer
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_after_all_of_it_the_exchange_answers(asked: Asked) -> None:
    answer = asked.get(f"{ROOT}/markets?limit=2")
    check(answer, 200)
    assert len(json.loads(answer.partition(b"\r\n\r\n")[2])["markets"]) == 2


def test_pages_of_no_trades_come_to_an_end(asked: Asked) -> None:
    trades = [Traded(f"id {n}", "KXSIM-26DEC31-T0000", "yes", 5000, 100, 1000 + n) for n in range(3)]
    asked.running.tape.trades[:] = trades
    seen: list[str] = []
    cursor = ""
    while len(seen) < 10:
        answer = asked.get(f"{ROOT}/markets/trades?limit=0" + (f"&cursor={cursor}" if cursor else ""))
        page = json.loads(answer.partition(b"\r\n\r\n")[2])
        seen += [trade["trade_id"] for trade in page["trades"]] or ["none"]
        cursor = page["cursor"]
        if not cursor:
            break
    asked.running.tape.trades.clear()
    assert seen == ["id 2", "id 1", "id 0"]
