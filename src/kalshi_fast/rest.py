"""The exchange's REST interface, as far as a recorder needs it: signed, paginated, paced, tried again.

Blocking, for a thread of its own: never on the path of the feed. Source: Kalshi's API documentation (signed
like the WebSocket handshake, with the path of the request; an empty cursor ends a list; 200 tokens a second
on the basic tier, 10 for a usual request) and recordings (429 comes without Retry-After: then requests come
further apart for a while). Not here: what is asked for, and when (``channels.backfill``), what answers are
(``rest_bodies``).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode, urlsplit

import msgspec
import urllib3

from kalshi_fast.backoff import NS, Scale
from kalshi_fast.errors import RestError, reason
from kalshi_fast.rest_bodies import (
    PAGES,
    EventPage,
    MarketPage,
    SeriesPage,
    TradePage,
    Unread,
    error_text,
    read_page,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from kalshi_fast.auth import Signer

log = logging.getLogger("kalshi_fast.rest")

TIMEOUT_S: Final = 10.0
PAGE: Final = 1000
ATTEMPTS: Final = 5
INTERVAL_S: Final = 0.1  # between two requests; two of these clients stay within the basic tier
SLOWEST_S: Final = 2.0  # the same, when the exchange has said that it is too much
BUSY_S: Final = 1.0  # least wait after it has: tokens come back by the second
_SPEED_UP: Final = 0.9  # after each answer, back to the usual interval
MAX_ANSWER_BYTES: Final = 64 * 1024 * 1024
RETRY: Final = Scale(NS // 4, 20 * NS)
_TOO_MANY: Final = 429
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
        self.unread = Unread()
        self._said: list[str] = []
        self._url = url.rstrip("/")
        self._path = urlsplit(self._url).path
        self._signer = signer
        self._usual_s = self._interval_s = interval_s
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

    def tell_unread(self) -> None:
        """What could not be used of the answers since the last time is logged, and kept for ``said``."""
        sentence = self.unread.sentence()
        self.unread.clear()
        if sentence:
            log.warning("REST: %s", sentence)
            self._said.append(sentence)

    def said(self) -> list[str]:
        """The sentences of ``tell_unread`` since the last time, for feed_health."""
        found, self._said = self._said, []
        return found

    def trades(self, *, min_ts: int, max_ts: int, ticker: str = "", cursor: str = "") -> TradePage:
        """One page of the trades from ``min_ts`` to ``max_ts`` (Unix seconds), of one market or of all."""
        asked: dict[str, str | int] = {"min_ts": min_ts, "max_ts": max_ts, "ticker": ticker}
        asked |= {"cursor": cursor, "limit": PAGE}
        return self.get("/markets/trades", asked, TradePage)

    def markets(self, *, cursor: str = "", **filters: str | int) -> MarketPage:
        """One page of the markets that these filters let through (``tickers``, ``status``, …)."""
        return self.get("/markets", {"limit": PAGE, **filters, "cursor": cursor}, MarketPage)

    def events(self, *, cursor: str = "", **filters: str | int) -> EventPage:
        """One page of events."""
        return self.get("/events", {**filters, "cursor": cursor}, EventPage)

    def series(self) -> SeriesPage:
        """All series."""
        return self.get("/series", {}, SeriesPage)

    def get(
        self, path: str, query: Mapping[str, str | int], answer: type[Answer], *, attempts: int | None = None
    ) -> Answer:
        """What stands at a path, below that of the URL. Empty values of the query are left out."""
        asked = urlencode({name: value for name, value in query.items() if value not in ("", None)})
        failures = 0
        while True:
            failures += 1
            self._wait(self._due - time.monotonic())
            self._due = time.monotonic() + self._interval_s
            wait_s = RETRY.delay_ns(failures, self._rng) / NS
            try:
                found = self._once(path, asked, answer)
            except _PassingError as error:
                if failures >= (attempts or ATTEMPTS):
                    times = f" (asked {failures} times)" if failures > 1 else ""
                    raise RestError(f"REST_URL: {self._url}{path}: {error}{times}") from error
                self._wait(max(wait_s, error.wait_s))
            else:
                self._interval_s = max(self._usual_s, self._interval_s * _SPEED_UP)
                return found

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
        if response.status != 200:
            said = error_text(body)
            told = f"HTTP {response.status}{f' ({said})' if said else ''}"
            if response.status in _PASSING:
                busy = _PassingError(told, response.headers.get("Retry-After"))
                if response.status == _TOO_MANY:
                    self._interval_s = min(max(2 * self._interval_s, self._usual_s), SLOWEST_S)
                    busy.wait_s = max(busy.wait_s, BUSY_S)
                raise busy
            refusal = RestError(f"REST_URL: {self._url}{path}: {told}")
            refusal.status = response.status
            raise refusal
        if len(body) > MAX_ANSWER_BYTES:
            raise RestError(f"REST_URL: {self._url}{path}: more than {MAX_ANSWER_BYTES} bytes")
        try:
            if answer in PAGES:
                return read_page(body, answer, self.unread)
            return msgspec.json.decode(body, type=answer)
        except RestError as error:
            raise RestError(f"REST_URL: {self._url}{path}: {error}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RestError(f"REST_URL: {self._url}{path}: {reason(error)}") from error


class _PassingError(Exception):
    """It may go better next time, in ``wait_s`` at the earliest."""

    def __init__(self, what: str, retry_after: Any = None) -> None:  # noqa: ANN401
        super().__init__(what)
        text = str(retry_after or "")
        self.wait_s: float = min(int(text), 60) if text.isascii() and text.isdigit() and len(text) < 6 else 0
