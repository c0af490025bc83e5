"""A live connection to the exchange: picows on an asyncio loop, one connection after the other.

Connects, hands every text frame with its receive time to the link, sends what the session has in its
outbox, and connects again after a loss (``backoff``, a fresh signature each time). Not here: what is done
with the frames of a connection (``receiver``), what they mean (``link``).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import picows

from kalshi_fast._clock import receive_ns
from kalshi_fast._listener import FrameListener
from kalshi_fast.backoff import NS, Backoff
from kalshi_fast.dial import IDLE_S, connect, hang_up
from kalshi_fast.errors import ConnectError
from kalshi_fast.receiver import Receiver

if TYPE_CHECKING:
    import ssl

    from kalshi_fast.auth import Signer
    from kalshi_fast.channels.link import ChannelLink
    from kalshi_fast.link import Link
    from kalshi_fast.pool import Pool

log = logging.getLogger("kalshi_fast.feed")

L = TypeVar("L", bound="Link | ChannelLink")

TICK_S: Final = 0.02
PRESSED_POLL_S: Final = 0.05
PATIENT_S: Final = 1.0  # a patient feed that was never connected waits so long before it says why
_TCP_CLOSE: Final = 7  # tcpi_state in linux/tcp.h


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
            refused = unanswered = False
            try:
                reason = await self._one_connection()
                refused = session.closing is not None and not session.again_soon
            except ConnectError as error:
                if self.connections == 0 and not self._patient:
                    raise
                refused, unanswered = error.lasting, error.unanswered
                reason = str(error)
            if session.fatal is not None:
                raise session.fatal
            if self._stop.is_set():
                return
            lasted_ns = time.monotonic_ns() - started
            delay_s = self._backoff.next_ns(lasted_ns, refused=refused, unanswered=unanswered) / NS
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
        transport = await self._connect(receiver)
        if transport is None:
            return "stopped"
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

    async def _connect(self, receiver: Receiver) -> picows.WSTransport | None:
        """A connection; None when ``stop`` is called before it is there. Raises ConnectError."""
        dialling = asyncio.ensure_future(
            connect(
                lambda: FrameListener(self.link.path, receiver),
                self._url,
                self._signer,
                ssl_context=self._ssl_context,
                hostname=self._hostname,
                idle_s=self._idle_s,
            )
        )
        stopped = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({dialling, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if dialling.done():
                return dialling.result()
            return None
        finally:
            for task in (dialling, stopped):
                task.cancel()
            await asyncio.gather(dialling, stopped, return_exceptions=True)

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


def _is_reset(transport: picows.WSTransport) -> bool:
    """The socket has no peer any more (where the system tells: Linux)."""
    sock = transport.underlying_transport.get_extra_info("socket")
    if sock is None or not hasattr(socket, "TCP_INFO"):
        return False
    try:
        return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE)
    except OSError:
        return False  # closed already, which others see to


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return
