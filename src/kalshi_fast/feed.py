"""A live connection to the exchange: picows on an asyncio loop, one connection after the other.

Connects, hands every text frame with its receive time to the link, sends what the session has in its
outbox, and connects again after a loss (``backoff``, a fresh signature each time). The receive time is
taken once per read from the socket. Reading pauses while the recorder's buffers are pressed. What frames
mean is not known here.
"""

from __future__ import annotations

import asyncio
import email.utils
import logging
import secrets
import socket
import ssl
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import picows

from kalshi_fast.backoff import NS, Backoff
from kalshi_fast.errors import ConnectError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kalshi_fast.auth import Signer
    from kalshi_fast.batch import BatchPool
    from kalshi_fast.link import Link

log = logging.getLogger("kalshi_fast.feed")

MAX_FRAME_BYTES: Final = 16 * 1024 * 1024
HANDSHAKE_TIMEOUT_S: Final = 10.0
IDLE_S: Final = 10.0  # the exchange pings every 10 s
TICK_S: Final = 0.02
HANG_UP_S: Final = 2.0
CLOCK_SKEW_S: Final = 3  # less than that, rounding of the Date and the way can explain
RESUME_POLL_S: Final = 0.005


def first_conn_id(now_ns: int) -> int:
    """The smallest id of a connection made from this time on."""
    return now_ns // 1_000_000 << 20


def new_conn_id() -> int:
    """Unique for ever, in time order: Unix milliseconds, then 20 random bits."""
    return first_conn_id(time.time_ns()) | secrets.randbits(20)


def tls_context(cafile: Path | None) -> ssl.SSLContext:
    """Verifies the exchange against the system's authorities, or against those of a file."""
    return ssl.create_default_context(cafile=str(cafile) if cafile is not None else None)


class _Listener(picows.WSListener):
    """Hands the frames of one connection to its link."""

    def __init__(self, link: Link, pool: BatchPool) -> None:
        self.closed_here: str | None = None  # why, when it is we who end the connection
        self.reason = "not connected"  # why it has ended
        self.upgraded = False
        self._close_frame: str | None = None
        self._link = link
        self._pool = pool
        self._transport: picows.WSTransport | None = None
        self._now_ns = 0
        self._parts: list[bytes] = []
        self._parts_bytes = 0
        self._paused = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._transport = transport
        self.upgraded = True
        self._link.on_connected(new_conn_id(), time.time_ns())
        self.flush()

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if self._now_ns == 0:
            self._now_ns = time.time_ns()
        if frame.msg_type == picows.WSMsgType.TEXT and frame.fin:
            self._link.on_frame(frame.get_payload_as_bytes(), self._now_ns)
        elif frame.msg_type in (
            picows.WSMsgType.TEXT,
            picows.WSMsgType.BINARY,
            picows.WSMsgType.CONTINUATION,
        ):
            self._on_part(frame)
        elif frame.msg_type == picows.WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif frame.msg_type == picows.WSMsgType.CLOSE:
            code: object = frame.get_close_code()
            said = frame.get_close_message()
            self._close_frame = f"the exchange closed the connection ({code:d}, {bytes(said or b'')[:100]!r})"
            transport.send_close(frame.get_close_code())
            transport.disconnect()
        if frame.last_in_buffer:
            self._end_of_read(transport)

    def is_user_specific_pong(self, frame: picows.WSFrame) -> bool:
        """picows keeps the pongs to itself; one that ends a read must end it here too."""
        if frame.msg_type != picows.WSMsgType.PONG:
            return False
        if frame.last_in_buffer and self._transport is not None:
            self._end_of_read(self._transport)
        return True

    def _end_of_read(self, transport: picows.WSTransport) -> None:
        self._now_ns = 0
        self.flush()
        if self._pool.pressed and not self._paused:
            self._paused = True
            transport.underlying_transport.pause_reading()
            self._resume_when_relieved(transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if self.closed_here is not None:
            self.reason = self.closed_here
        elif self._close_frame is not None:
            self.reason = self._close_frame
        elif transport.is_close_frame_sent:
            self.reason = "the link was dead: no answer to a ping, or what came was no WebSocket frame"
        else:
            self.reason = "the connection was lost without a close frame"
        if self.upgraded:
            self._link.on_disconnected(time.time_ns(), self.reason)
        self._transport = None

    def _on_part(self, frame: picows.WSFrame) -> None:
        """A message in several frames (or a binary one, which the recorder then reports)."""
        self._parts.append(frame.get_payload_as_bytes())
        self._parts_bytes += frame.payload_size
        if self._parts_bytes > MAX_FRAME_BYTES or frame.fin:
            self._link.on_frame(b"".join(self._parts), self._now_ns)
            self._parts.clear()
            self._parts_bytes = 0

    def flush(self) -> None:
        """Sends what the session wants to say."""
        outbox = self._link.session.outbox
        if outbox and self._transport is not None:
            for command in outbox:
                self._transport.send(picows.WSMsgType.TEXT, command)
            outbox.clear()

    def _resume_when_relieved(self, transport: picows.WSTransport) -> None:
        if transport.is_disconnected:
            return
        if self._pool.pressed:
            asyncio.get_running_loop().call_later(RESUME_POLL_S, self._resume_when_relieved, transport)
        else:
            self._paused = False
            transport.underlying_transport.resume_reading()


class Feed:
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
        link: Link,
        pool: BatchPool,
        *,
        ssl_context: ssl.SSLContext | None,
        backoff: Backoff,
        hostname: str | None = None,
        idle_s: float = IDLE_S,
        patient: bool = False,
    ) -> None:
        self.connected = False
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

    async def run(self) -> None:
        session = self.link.session
        while not self._stop.is_set():
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
            log.warning("%s; connecting again in %.1f s", reason, delay_s)
            await _wait(self._stop, delay_s)

    async def _one_connection(self) -> str:
        """Runs one connection to its end and says why it ended."""
        listener = _Listener(self.link, self._pool)
        transport = await self._connect(lambda: listener)
        if not listener.upgraded:
            transport.disconnect()
            raise ConnectError(f"WS_URL: {self._url} ended the connection before it became a WebSocket")
        self.connections += 1
        self.connected = True
        try:
            await self._until_over(transport, listener)
            if self._stop.is_set():
                listener.closed_here = "stopped"
                transport.send_close(picows.WSCloseCode.OK)
            elif self.link.session.closing is not None:
                listener.closed_here = self.link.session.closing
        finally:
            await _hang_up(transport)
            self.connected = False
        return listener.reason

    async def _until_over(self, transport: picows.WSTransport, listener: _Listener) -> None:
        """Until the connection is lost, ``stop`` is called or the session gives up."""
        link, session = self.link, self.link.session
        lost = asyncio.ensure_future(transport.wait_disconnected())
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            while not (lost.done() or stopped.done() or session.fatal or session.closing):
                if session.wake_ns <= time.monotonic_ns():
                    link.on_tick(time.time_ns())
                listener.flush()
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

    async def _connect(self, factory: Callable[[], picows.WSListener]) -> picows.WSTransport:
        target = urlsplit(self._url)
        host = target.hostname or self._url
        port = target.port or (443 if target.scheme == "wss" else 80)
        try:
            transport, _ = await picows.ws_connect(
                factory,
                target._replace(netloc=f"{self._hostname or host}:{port}").geturl(),
                socket_factory=lambda _: _dial(host, port),
                ssl_context=self._ssl_context,
                disconnect_on_exception=True,
                websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
                enable_auto_ping=True,
                enable_auto_pong=False,  # the listener answers: it has to see every end of a read
                auto_ping_idle_timeout=self._idle_s,
                auto_ping_reply_timeout=self._idle_s,
                max_frame_size=MAX_FRAME_BYTES,
                max_redirects=0,
                extra_headers=self._signer.headers(time.time_ns() // 1_000_000),
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
            raise ConnectError(
                f"WS_URL: {host} does not answer within {HANDSHAKE_TIMEOUT_S:.0f} s"
            ) from error
        except OSError as error:
            raise ConnectError(f"WS_URL: {host} cannot be reached: {error.strerror or error}") from error
        return transport


def _refusal(host: str, error: picows.WSHandshakeError) -> ConnectError:
    status = int(error.response.status) if error.response is not None else 0
    said = (error.raw_body or b"")[:200].decode("utf-8", "replace").strip()
    said = f" ({said})" if said else ""
    if status in (401, 403):
        return RefusedError(
            f"{host} refused the key, the signature or the clock: HTTP {status}{said};"
            f" check PROD_KEYID, PROD_KEYFILE and the time of this machine{_clock_skew(error)}"
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


async def _hang_up(transport: picows.WSTransport) -> None:
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
