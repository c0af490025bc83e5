"""The status process: ``python -m kalshi_fast.status.process LISTENING_FD CHANNEL_FD LOG_FORMAT``.

It ends when its stdin does, that is with the capture process, however that ends. It runs at a lower priority:
whoever looks at a recording must not slow it down. Not here: who starts it (``publish``).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading

import msgspec

from kalshi_fast import logs
from kalshi_fast.status.figures import MAX_DATAGRAM_BYTES, decode, say
from kalshi_fast.status.http import StatusServer
from kalshi_fast.status.state import State

NICE = 10

log = logging.getLogger("kalshi_fast.status")


def _hear(channel: socket.socket, state: State) -> None:
    while True:
        try:
            state.hear(decode(channel.recv(MAX_DATAGRAM_BYTES)))
        except msgspec.DecodeError as error:
            log.error("a process of the recorder has said what is not understood: %s", error)


def main(arguments: list[str]) -> int:
    """The process. Returns its exit code."""
    listening_fd, channel_fd, log_format = arguments
    logs.begin(log_format)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(NICE)
    channel = socket.socket(fileno=int(channel_fd))
    state = State(lambda message: say(channel, message))
    server = StatusServer(socket.socket(fileno=int(listening_fd)), state)
    threading.Thread(target=_hear, args=(channel, state), daemon=True).start()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.5}, daemon=True).start()
    while os.read(0, 65_536):
        continue
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
