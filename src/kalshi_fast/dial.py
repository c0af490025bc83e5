"""One signed WebSocket handshake with the exchange: name, address, TCP, TLS, upgrade; each with a time limit.

The addresses of a name are tried side by side, each a short delay after the one before (RFC 8305). The
signature is made when the request is sent, so that a slow dial does not make it stale. ``connect`` can be
cancelled at any moment and leaves no socket open. Not here: when to connect again (``feed``), what is done
with the frames (``receiver``).
"""

from __future__ import annotations

import asyncio
import email.utils
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

import aiohappyeyeballs
import picows

from kalshi_fast.errors import ConnectError, RefusedError
from kalshi_fast.receiver import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from kalshi_fast.auth import Signer

# So short that a dial into a hole is over before TCP's third SYN: the next one finds the link that is back.
RESOLVE_S: Final = 2.5
TCP_S: Final = 2.5  # all addresses of a name together
NEXT_ADDRESS_S: Final = 0.25  # RFC 8305, section 5
TLS_S: Final = 4.0
HANDSHAKE_S: Final = 5.0
IDLE_S: Final = 10.0  # the exchange pings every 10 s
HANG_UP_S: Final = 2.0
CLOCK_SKEW_S: Final = 3  # less than that, rounding of the Date and the way can explain

_Address: TypeAlias = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


def tls_context(cafile: Path | None) -> ssl.SSLContext:
    """Verifies the exchange against the system's authorities, or against those of a file."""
    return ssl.create_default_context(cafile=str(cafile) if cafile is not None else None)


def exchange_tls(url: str, cafile: Path | None) -> ssl.SSLContext | None:
    """For an address of the exchange: None when it has no TLS."""
    return tls_context(cafile) if urlsplit(url).scheme == "wss" else None


async def connect(
    factory: Callable[[], picows.WSListener],
    url: str,
    signer: Signer,
    *,
    ssl_context: ssl.SSLContext | None,
    hostname: str | None = None,
    idle_s: float = IDLE_S,
) -> picows.WSTransport:
    """One signed handshake. Raises ConnectError or RefusedError with what is wrong.

    ``hostname`` replaces the host of the URL in the Host header and as the name that the certificate must
    have. ``idle_s``: so long without a frame, and a ping is sent; as long again, and the link is dead.
    """
    target = urlsplit(url)
    host = target.hostname or url
    port = target.port or (443 if target.scheme == "wss" else 80)
    tls: dict[str, Any] = {} if ssl_context is None else {"ssl_handshake_timeout": TLS_S}
    stage = ""
    sock: socket.socket | None = None
    try:
        stage = f"the name server does not answer for {host} within {RESOLVE_S:g} s"
        addresses = await asyncio.wait_for(_resolve(host, port), RESOLVE_S)
        stage = f"{host} does not answer within {TCP_S:g} s"
        sock = await asyncio.wait_for(_tcp(addresses), TCP_S)
        stage = f"{host} does not answer within {HANDSHAKE_S:g} s"
        transport, _ = await picows.ws_connect(
            factory,
            target._replace(netloc=f"{hostname or host}:{port}").geturl(),
            socket_factory=lambda _: sock,
            ssl_context=ssl_context,
            disconnect_on_exception=True,
            websocket_handshake_timeout=HANDSHAKE_S,
            enable_auto_ping=True,
            enable_auto_pong=False,  # the listener answers: it has to see every end of a read
            auto_ping_idle_timeout=idle_s,
            auto_ping_reply_timeout=idle_s,
            max_frame_size=MAX_FRAME_BYTES,
            max_redirects=0,
            extra_headers=_SignedHeaders(signer),
            **tls,
        )
    except picows.WSHandshakeError as error:
        raise _refusal(host, error) from error
    except ssl.SSLCertVerificationError as error:
        raise ConnectError(
            f"WS_URL: the certificate of {host} is not valid: {error.verify_message}"
        ) from error
    except ssl.SSLError as error:
        raise ConnectError(f"WS_URL: no TLS with {host}: {error.reason or error}") from error
    except socket.gaierror as error:
        raise _unanswered(f"the host {host} cannot be resolved: {error.strerror}") from error
    except TimeoutError as error:
        raise _unanswered(stage) from error
    except ConnectionAbortedError as error:  # what the TLS transport raises when its time is up
        raise _unanswered(f"no TLS with {host}: {error}") from error
    except OSError as error:
        raise _unanswered(f"{host} cannot be reached: {error.strerror or error}") from error
    except BaseException:
        if sock is not None:
            _cut(sock)
        raise
    return transport


class _SignedHeaders:
    """Headers that are signed when they are read, which is when the request is sent."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._signer.headers(time.time_ns() // 1_000_000).items())


# --- the address ----------------------------------------------------------------------------------------


class _Lookup:
    """One question to the name server. It runs in a daemon thread: the system's resolver cannot be
    interrupted, and the end of the program does not wait for it."""

    def __init__(self, host: str, port: int) -> None:
        self.waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Future[list[_Address]]]] = set()
        self.over = False
        self.lock = threading.Lock()
        self._host, self._port = host, port
        threading.Thread(target=self._ask, name="resolve", daemon=True).start()

    def _ask(self) -> None:
        found: list[_Address] | OSError
        try:
            # The address' shape depends on the family; every use hands it back to the system as it is.
            found = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)  # type: ignore[assignment]
        except OSError as error:
            found = error
        with self.lock:
            self.over = True
        for loop, future in self.waiting:
            try:
                loop.call_soon_threadsafe(_settle, future, found)
            except RuntimeError:  # that loop has been closed: nobody waits there any more
                continue


_lookups: dict[tuple[str, int], _Lookup] = {}
_known: dict[tuple[str, int], list[_Address]] = {}  # what the last good answer was


def _settle(future: asyncio.Future[list[_Address]], found: list[_Address] | OSError) -> None:
    if future.done():
        return
    if isinstance(found, OSError):
        future.set_exception(found)
    else:
        future.set_result(found)


async def _resolve(host: str, port: int) -> list[_Address]:
    """The addresses of a host; those of the last answer while the name server gives none.

    There is one question at a time for each name. Raises OSError.
    """
    key = (host, port)
    loop = asyncio.get_running_loop()
    future: asyncio.Future[list[_Address]] = loop.create_future()
    while True:
        lookup = _lookups.get(key)
        if lookup is None or lookup.over:
            lookup = _lookups[key] = _Lookup(host, port)
        with lookup.lock:
            if not lookup.over:
                lookup.waiting.add((loop, future))
                break
    known = _known.get(key)
    try:
        found = await (asyncio.wait_for(future, RESOLVE_S / 2) if known else future)
    except TimeoutError:
        found = known or []
    except socket.gaierror as error:
        if known is None or error.errno != socket.EAI_AGAIN:
            raise
        found = known
    if not found:
        raise OSError(f"{host} has no address")
    _known[key] = found
    return found


async def _tcp(addresses: list[_Address]) -> socket.socket:
    """A connection to the first address that answers."""
    sock = await aiohappyeyeballs.start_connection(
        addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, interleave=1
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def _cut(sock: socket.socket) -> None:
    """Ends a connection whose transport nobody holds: the transport sees the end and closes itself."""
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        sock.close()  # it was never connected, or its transport has closed it: then this does nothing


# --- what goes wrong ------------------------------------------------------------------------------------


def _unanswered(text: str) -> ConnectError:
    error = ConnectError(f"WS_URL: {text}")
    error.unanswered = True
    return error


def _refusal(host: str, error: picows.WSHandshakeError) -> ConnectError:
    status = int(error.response.status) if error.response is not None else 0
    said = (error.raw_body or b"")[:200].decode("utf-8", "replace").strip()
    said = f" ({said})" if said else ""
    if status in (401, 403):
        skew = _clock_skew(error)
        return RefusedError(
            f"{host} refused the key, the signature or the clock: HTTP {status}{said};"
            f" check PROD_KEYID, PROD_KEYFILE and the time of this machine{skew}",
            # A clock is set soon after the machine has started; 403 is what a wall before the exchange says.
            may_pass=status == 403 or bool(skew),
        )
    if status:
        error_of_status = ConnectError(f"WS_URL: {host} refused the WebSocket: HTTP {status}{said}")
        error_of_status.lasting = 400 <= status < 500  # 429 Too Many Requests is one of them
        return error_of_status
    return ConnectError(f"WS_URL: {host} does not speak WebSocket: {error}")


def _clock_skew(error: picows.WSHandshakeError) -> str:
    """What the Date of a refusal says about our clock; nothing when it has none or agrees with us."""
    date = error.response.headers.get("Date") if error.response is not None else None
    try:
        theirs = email.utils.parsedate_to_datetime(date or "").timestamp()
    except (ValueError, OverflowError):
        return ""
    behind_s = round(theirs - time.time())
    if abs(behind_s) < CLOCK_SKEW_S:
        return ""
    return f" ({abs(behind_s)} s {'behind' if behind_s > 0 else 'ahead of'} the exchange's)"


async def hang_up(transport: picows.WSTransport) -> None:
    """Ends a connection; one whose other end does not take part is cut off."""
    transport.disconnect()
    try:
        await asyncio.wait_for(transport.wait_disconnected(), HANG_UP_S)
    except TimeoutError:
        transport.disconnect(graceful=False)
        await asyncio.wait_for(
            asyncio.gather(transport.wait_disconnected(), return_exceptions=True), HANG_UP_S
        )
    except picows.WSError:
        return  # it has ended, which is what was wanted
