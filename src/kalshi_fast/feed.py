"""A live connection to the exchange: picows on an asyncio loop, one connection after the other.

Connects, hands every text frame with its receive time to the link, sends what the session has in its
outbox, and connects again after a loss (``backoff``, a fresh signature each time). Not here: what is done
with the frames of a connection (``receiver``), what they mean (``link``).
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar
from urllib.parse import urlsplit

import picows

from kalshi_fast._clock import receive_ns
from kalshi_fast._listener import FrameListener
from kalshi_fast.backoff import NS, Backoff
from kalshi_fast.errors import ConnectError, RefusedError
from kalshi_fast.receiver import MAX_FRAME_BYTES, Receiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kalshi_fast.auth import Signer
    from kalshi_fast.channels.link import ChannelLink
    from kalshi_fast.link import Link
    from kalshi_fast.pool import Pool

log = logging.getLogger("kalshi_fast.feed")

L = TypeVar("L", bound="Link | ChannelLink")

HANDSHAKE_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 10.0  # the exchange pings every 10 s
TICK_S: Final = 0.02
HANG_UP_S: Final = 2.0
PRESSED_POLL_S: Final = 0.05
PATIENT_S: Final = 1.0  # a patient feed that was never connected waits so long before it says why
_TCP_CLOSE: Final = 7  # tcpi_state in linux/tcp.h
CLOCK_SKEW_S: Final = 3  # less than that, rounding of the Date and the way can explain


def tls_context(cafile: Path | None) -> ssl.SSLContext:
    """Verifies the exchange against the system's authorities, or against those of a file."""
    return ssl.create_default_context(cafile=str(cafile) if cafile is not None else None)


def exchange_tls(url: str, cafile: Path | None) -> ssl.SSLContext | None:
    """For an address of the exchange: None when it has no TLS."""
    return tls_context(cafile) if urlsplit(url).scheme == "wss" else None


class Feed(Generic[L]):
    """``await run()`` keeps a link connected until ``stop`` is called.

    A first connection that fails ends it with ConnectError (or RefusedError): most likely the configuration
    is wrong; ``patient`` retries that one too. Later failures are retried for ever. ``hostname`` replaces
    the host of the URL in the Host header and as the name that the certificate must have. ``idle_s``: so
    long without any frame, and we ask; as long again without an answer, and the link is dead.
    """

    def __init__(
        self,
        url: str,
        signer: Signer,
        link: L,
        pool: Pool,
        *,
        ssl_context: ssl.SSLContext | None,
        backoff: Backoff,
        hostname: str | None = None,
        idle_s: float = IDLE_S,
        patient: bool = False,
    ) -> None:
        self.connections = 0
        self.link = link
        self._url = url
        self._signer = signer
        self._pool = pool
        self._ssl_context = ssl_context
        self._backoff = backoff
        self._hostname = hostname
        self._idle_s = idle_s
        self._patient = patient
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Closes the connection; ``run`` returns."""
        self._stop.set()

    @property
    def ending(self) -> bool:
        """It will not carry anything new."""
        return self._stop.is_set() or self.link.session.fatal is not None

    async def run(self) -> None:
        session = self.link.session
        while not self._stop.is_set():
            while self._pool.pressed and not self._stop.is_set():
                await _wait(self._stop, PRESSED_POLL_S)  # what it brings would find no room
            started = time.monotonic_ns()
            refused = False
            try:
                reason = await self._one_connection()
                refused = session.closing is not None
            except ConnectError as error:
                if self.connections == 0 and not self._patient:
                    raise
                refused = error.lasting
                reason = str(error)
            if session.fatal is not None:
                raise session.fatal
            if self._stop.is_set():
                return
            delay_s = self._backoff.next_ns(time.monotonic_ns() - started, refused=refused) / NS
            if self.connections == 0:
                # Whoever is not patient may be about to end all of us for the same reason, and says it.
                await _wait(self._stop, PATIENT_S)
                if self._stop.is_set():
                    return
            log.warning("%s; connecting again in %.1f s", reason, delay_s)
            await _wait(self._stop, delay_s)

    async def _one_connection(self) -> str:
        """Runs one connection to its end and says why it ended."""
        receiver = Receiver(self.link, self._pool)
        transport = await connect(
            lambda: FrameListener(self.link.path, receiver),
            self._url,
            self._signer,
            ssl_context=self._ssl_context,
            hostname=self._hostname,
            idle_s=self._idle_s,
        )
        if not receiver.upgraded:
            transport.disconnect()
            raise ConnectError(f"WS_URL: {self._url} ended the connection before it became a WebSocket")
        self.connections += 1
        try:
            await self._until_over(transport, receiver)
            if self._stop.is_set():
                receiver.closed_here = "stopped"
                transport.send_close(picows.WSCloseCode.OK)
            elif self.link.session.closing is not None:
                receiver.closed_here = self.link.session.closing
        finally:
            await hang_up(transport)
        return receiver.reason

    async def _until_over(self, transport: picows.WSTransport, receiver: Receiver) -> None:
        """Until the connection is lost, ``stop`` is called or the session gives up."""
        link, session = self.link, self.link.session
        lost = asyncio.ensure_future(transport.wait_disconnected())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            while not (lost.done() or stopped.done() or session.fatal or session.closing):
                if session.wake_ns <= time.monotonic_ns():
                    link.on_tick(receive_ns())
                receiver.flush()
                if _is_reset(transport):
                    # Some transports do not notice a reset that comes together with unread data.
                    transport.disconnect(graceful=False)
                await asyncio.wait({lost, stopped}, timeout=TICK_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopped.cancel()
            await asyncio.gather(stopped, return_exceptions=True)
            if not lost.done():
                lost.cancel()
                await asyncio.gather(lost, return_exceptions=True)
            elif isinstance(error := lost.exception(), picows.WSError):
                log.warning("the exchange broke the WebSocket protocol: %s", error)
            elif error is not None:
                raise error  # of our own making


async def connect(
    factory: Callable[[], picows.WSListener],
    url: str,
    signer: Signer,
    *,
    ssl_context: ssl.SSLContext | None,
    hostname: str | None = None,
    idle_s: float = IDLE_S,
) -> picows.WSTransport:
    """One signed handshake. Raises ConnectError or RefusedError with what is wrong."""
    target = urlsplit(url)
    host = target.hostname or url
    port = target.port or (443 if target.scheme == "wss" else 80)
    try:
        transport, _ = await picows.ws_connect(
            factory,
            target._replace(netloc=f"{hostname or host}:{port}").geturl(),
            socket_factory=lambda _: _dial(host, port),
            ssl_context=ssl_context,
            disconnect_on_exception=True,
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            enable_auto_ping=True,
            enable_auto_pong=False,  # the listener answers: it has to see every end of a read
            auto_ping_idle_timeout=idle_s,
            auto_ping_reply_timeout=idle_s,
            max_frame_size=MAX_FRAME_BYTES,
            max_redirects=0,
            extra_headers=signer.headers(time.time_ns() // 1_000_000),
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
        raise ConnectError(f"WS_URL: the host {host} cannot be resolved: {error.strerror}") from error
    except TimeoutError as error:
        raise ConnectError(f"WS_URL: {host} does not answer within {HANDSHAKE_TIMEOUT_S:.0f} s") from error
    except OSError as error:
        raise ConnectError(f"WS_URL: {host} cannot be reached: {error.strerror or error}") from error
    return transport


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
    except ValueError:
        return ""
    behind_s = round(theirs - time.time())
    if abs(behind_s) < CLOCK_SKEW_S:
        return ""
    return f" ({abs(behind_s)} s {'behind' if behind_s > 0 else 'ahead of'} the exchange's)"


def _is_reset(transport: picows.WSTransport) -> bool:
    """The socket has no peer any more (where the system tells: Linux)."""
    sock = transport.underlying_transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)
    except OSError:
        return False  # closed already, which others see to


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
    except picows.WSError as error:
        log.debug("at the end of a connection: %s", error)


async def _dial(host: str, port: int) -> socket.socket:
    """A TCP connection to the host of the URL, whatever name the WebSocket then uses."""
    loop = asyncio.get_running_loop()
    failure: OSError | None = None
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
