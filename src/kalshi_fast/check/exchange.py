"""The exchange: its REST interface, its clock beside ours, and a signed WebSocket handshake.

The handshake is the recorder's own (``dial.connect``); it is closed again without a word. Not here: the key
(``key``).
"""

from __future__ import annotations

import asyncio
import email.utils
import http.client
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import picows

from kalshi_fast.check.finding import Check, Finding, failure, ok, warning
from kalshi_fast.check.key import signer
from kalshi_fast.dial import connect, exchange_tls, hang_up, tls_context
from kalshi_fast.discovery.selection import selected
from kalshi_fast.errors import ConfigError, ConnectError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings

MARKETS: Final = "/markets"  # below REST_URL
REST_TIMEOUT_S: Final = 5.0
GOOD_SKEW_S: Final = 1.0
BAD_SKEW_S: Final = 4.0  # the exchange refuses signatures whose time is some seconds off
_MAX_BODY_BYTES: Final = 64 * 1024


def checks(settings: Settings) -> list[Check]:
    return [
        Check("rest", lambda: _rest(settings)),
        Check("clock", lambda: _clock(settings)),
        Check("websocket", lambda: _websocket(settings)),
    ]


@dataclass(frozen=True, slots=True)
class _Address:
    """Where one can be asked over HTTP, and below which path."""

    secure: bool
    host: str
    port: int
    path: str

    @classmethod
    def of(cls, url: str) -> _Address:
        target = urlsplit(url)
        secure = target.scheme in ("https", "wss")
        port = target.port or (443 if secure else 80)
        return cls(secure, target.hostname or "", port, target.path.rstrip("/"))


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    date_s: float | None  # the server's clock, in whole seconds
    asked_s: float  # ours, before and after
    answered_s: float


def _ask(settings: Settings, address: _Address, path: str, headers: dict[str, str]) -> _Answer:
    """One GET. Raises ConnectError."""
    host, port = address.host, address.port
    where = f"{'https' if address.secure else 'http'}://{host}:{port}{path}"
    connection: http.client.HTTPConnection
    if address.secure:
        context = tls_context(settings.ws_cafile)
        connection = http.client.HTTPSConnection(host, port, timeout=REST_TIMEOUT_S, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=REST_TIMEOUT_S)
    try:
        connection.connect()
        asked_s = time.time()
        connection.request("GET", path, headers={"Accept": "application/json", **headers})
        response = connection.getresponse()
        answered_s = time.time()
        response.read(_MAX_BODY_BYTES)
        return _Answer(response.status, _date_s(response.headers.get("Date")), asked_s, answered_s)
    except ssl.SSLCertVerificationError as error:
        raise ConnectError(f"the certificate of {host} is not valid: {error.verify_message}") from error
    except socket.gaierror as error:
        raise ConnectError(f"the host {host} cannot be resolved: {error.strerror}") from error
    except TimeoutError as error:
        raise ConnectError(f"{where} does not answer within {REST_TIMEOUT_S:g} s") from error
    except (OSError, http.client.HTTPException) as error:
        said = getattr(error, "strerror", None) or reason(error) or type(error).__name__
        raise ConnectError(f"{where} cannot be reached: {said}") from error
    finally:
        connection.close()


def _date_s(text: str | None) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text or "").timestamp()
    except (ValueError, OverflowError):
        return None


# --- rest -----------------------------------------------------------------------------------------------


def _rest(settings: Settings) -> Iterator[Finding]:
    if settings.rest_url is None:
        yield ok("rest", "REST_URL is off: it is not asked")
        return
    address = _Address.of(settings.rest_url)
    path = address.path + MARKETS
    headers: dict[str, str] = {}
    try:
        made = signer(settings)
        if made is not None:
            headers = made.headers(time.time_ns() // 1_000_000, "GET", path)
    except ConfigError:
        made = None  # the check of the key says so; a public address answers without
    try:
        answer = _ask(settings, address, f"{path}?limit=1", headers)
    except ConnectError as error:
        yield failure("rest", str(error), "see whether a firewall or a proxy is in the way; check REST_URL")
        return
    took_ms = (answer.answered_s - answer.asked_s) * 1000
    host = address.host
    if answer.status == 200:
        yield ok("rest", f"{host} answers in {took_ms:.0f} ms")
    elif answer.status in (401, 403):
        yield warning(
            "rest",
            f"{host} answers, and refuses {'the signature' if made else 'what is not signed'}"
            f" (HTTP {answer.status})",
            "check PROD_KEYID and PROD_KEYFILE, and the line about the clock",
        )
    else:
        say = failure if selected(settings).discovers else warning
        yield say(
            "rest",
            f"{host} answers GET {path} with HTTP {answer.status}",
            "without it no markets are found and no missed trades; see whether REST_URL is right",
        )


# --- clock ----------------------------------------------------------------------------------------------


def _clock(settings: Settings) -> Iterator[Finding]:
    dated: _Answer | None = None
    asked = [] if settings.rest_url is None else [(_Address.of(settings.rest_url), MARKETS)]
    for address, path in (*asked, (_Address.of(settings.ws_url), "")):  # a refusal has a date too
        try:
            answer = _ask(settings, address, address.path + path, {})
        except ConnectError:
            continue
        if answer.date_s is not None:
            dated = answer
            break
    if dated is None or dated.date_s is None:
        yield warning("clock", "the exchange has not told its time", "see the line about rest")
        return
    # Its second began somewhere between our two readings, and its Date drops the fraction.
    least_s = dated.asked_s - (dated.date_s + 1)
    most_s = dated.answered_s - dated.date_s
    ahead_s = least_s if least_s > 0 else min(most_s, 0.0)  # 0 when the clocks may well agree
    if abs(ahead_s) <= GOOD_SKEW_S:
        yield ok(
            "clock", f"ours and the exchange's agree, as far as its whole seconds tell ({ahead_s:+.1f} s)"
        )
        return
    said = f"ours is at least {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the exchange's"
    remedy = "let a time service keep it (chrony, systemd-timesyncd)"
    if abs(ahead_s) < BAD_SKEW_S:
        yield warning("clock", said, remedy)
    else:
        yield failure("clock", f"{said}, which refuses signatures that are seconds off", remedy)


# --- websocket ------------------------------------------------------------------------------------------


class _Silent(picows.WSListener):
    """Takes no notice of anything."""

    upgraded = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.upgraded = True


def _websocket(settings: Settings) -> Iterator[Finding]:
    try:
        made = signer(settings)
    except ConfigError:
        made = None
    if made is None:
        yield warning("websocket", "not tried: there is no key to sign with", "see the line about the key")
        return
    target = urlsplit(settings.ws_url)
    context = exchange_tls(settings.ws_url, settings.ws_cafile)

    async def once() -> float:
        listener = _Silent()
        began = time.monotonic()
        transport = await connect(
            lambda: listener, settings.ws_url, made, ssl_context=context, hostname=settings.ws_hostname
        )
        took_s = time.monotonic() - began
        await hang_up(transport)
        if not listener.upgraded:
            raise ConnectError(f"WS_URL: {settings.ws_url} ended the connection before it became a WebSocket")
        return took_s

    try:
        took_s = asyncio.run(once())
    except ConnectError as error:
        yield failure("websocket", str(error))
    else:
        kind = "signed, over TLS" if context is not None else "signed, without TLS"
        yield ok("websocket", f"{target.hostname} takes the handshake ({kind}) in {took_s * 1000:.0f} ms")
