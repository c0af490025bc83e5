"""The exchange's REST interface, as far as a recorder needs it: signed, paginated, paced, tried again.

Blocking, for a thread of its own: never on the path of the feed. Source: Kalshi's API documentation (signed
like the WebSocket handshake, with the path of the request; an empty cursor ends a list; 429 asks for
patience). Not here: what is asked for, and when (``channels.backfill``).
"""

from __future__ import annotations

import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3

from kalshi_fast.backoff import NS, Scale
from kalshi_fast.channels.messages import MarketPage, TradePage
from kalshi_fast.errors import RestError, reason

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kalshi_fast.auth import Signer

TIMEOUT_S: Final = 10.0
PAGE: Final = 1000
ATTEMPTS: Final = 5
INTERVAL_S: Final = 0.1  # between two requests
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
RETRY: Final = Scale(NS // 4, 20 * NS)
_PASSING: Final = (408, 425, 429, 500, 502, 503, 504)
Answer = TypeVar("Answer")


class Rest:
    """``Rest(url, signer)``: ``url`` with the path that all requests begin with. One thread at a time.

    Raises RestError when an answer does not come, or is none; also when ``close`` is called meanwhile.
    """

    def __init__(
        self, url: str, signer: Signer, *, cafile: Path | None = None, interval_s: float = INTERVAL_S
    ) -> None:
        self.requests = 0
        self._url = url.rstrip("/")
        self._path = urlsplit(self._url).path
        self._signer = signer
        self._interval_s = interval_s
        self._due = 0.0
        self._closed = threading.Event()
        self._rng = random.Random()  # noqa: S311 - spreads attempts, guards nothing
        self._pool = urllib3.PoolManager(
            num_pools=1, maxsize=1, retries=False, ca_certs=None if cafile is None else str(cafile)
        )

    @property
    def closed(self) -> bool:
        """Nothing more is asked."""
        return self._closed.is_set()

    def close(self) -> None:
        """Ends every wait, also of another thread."""
        self._closed.set()
        self._pool.clear()

    def trades(self, *, min_ts: int, max_ts: int, ticker: str = "", cursor: str = "") -> TradePage:
        """One page of the trades from ``min_ts`` to ``max_ts`` (Unix seconds), of one market or of all."""
        asked: dict[str, str | int] = {"min_ts": min_ts, "max_ts": max_ts, "ticker": ticker}
        asked |= {"cursor": cursor, "limit": PAGE}
        return self.get("/markets/trades", asked, TradePage)

    def markets(self, *, cursor: str = "", **filters: str | int) -> MarketPage:
        """One page of the markets that these filters let through (``tickers``, ``status``, …)."""
        return self.get("/markets", {"limit": PAGE, **filters, "cursor": cursor}, MarketPage)

    def get(self, path: str, query: Mapping[str, str | int], answer: type[Answer]) -> Answer:
        """What stands at a path, below that of the URL. Empty values of the query are left out."""
        asked = urlencode({name: value for name, value in query.items() if value not in ("", None)})
        failures = 0
        while True:
            failures += 1
            self._wait(self._due - time.monotonic())
            self._due = time.monotonic() + self._interval_s
            wait_s = RETRY.delay_ns(failures, self._rng) / NS
            try:
                return self._once(path, asked, answer)
            except _PassingError as error:
                if failures >= ATTEMPTS:
                    raise RestError(
                        f"REST_URL: {self._url}{path}: {error} (asked {failures} times)"
                    ) from error
                self._wait(max(wait_s, error.wait_s))

    def _wait(self, seconds: float) -> None:
        if self._closed.wait(max(seconds, 0.0)):
            raise RestError(f"REST_URL: {self._url}: no answer is waited for any more")

    def _once(self, path: str, asked: str, answer: type[Answer]) -> Answer:
        self.requests += 1
        headers = self._signer.headers(time.time_ns() // 1_000_000, "GET", self._path + path)
        try:
            response = self._pool.request(
                "GET",
                f"{self._url}{path}?{asked}",
                headers=headers,
                timeout=TIMEOUT_S,
                redirect=False,
                preload_content=False,
            )
            with response:
                body = response.read(MAX_ANSWER_BYTES + 1)
        except urllib3.exceptions.HTTPError as error:
            raise _PassingError(reason(error)) from error
        if response.status in _PASSING:
            raise _PassingError(f"HTTP {response.status}", response.headers.get("Retry-After"))
        if response.status != 200:
            said = body[:200].decode("utf-8", "replace").strip()
            refusal = RestError(f"REST_URL: {self._url}{path}: HTTP {response.status} ({said})")
            refusal.status = response.status
            raise refusal
        if len(body) > MAX_ANSWER_BYTES:
            raise RestError(f"REST_URL: {self._url}{path}: more than {MAX_ANSWER_BYTES} bytes")
        try:
            return msgspec.json.decode(body, type=answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RestError(f"REST_URL: {self._url}{path}: {reason(error)}") from error


class _PassingError(Exception):
    """It may go better next time, in ``wait_s`` at the earliest."""

    def __init__(self, what: str, retry_after: Any = None) -> None:  # noqa: ANN401
        super().__init__(what)
        text = str(retry_after or "")
        self.wait_s = min(int(text), 60) if text.isascii() and text.isdigit() and len(text) < 6 else 0
