"""A sender that is never the bottleneck: frames made beforehand, written as fast as the socket takes them.

``python -m benchmarks.sender DIRECTORY FRAMES [--tls]`` prints its port. Each client that upgrades gets the
whole play once: the answer to one subscribe command, snapshots of 500 markets, then deltas.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import struct
import sys
from pathlib import Path

from benchmarks.conftest import made_frames
from kalshi_fast.simulator.tls import make_tls

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
SUBSCRIBED = b'{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":1}}'
CHUNK_BYTES = 256 * 1024


def on_the_wire(payload: bytes) -> bytes:
    """One unmasked text frame."""
    length = struct.pack(">BB", 0x81, len(payload)) if len(payload) < 126 else b""
    return (length or struct.pack(">BBH", 0x81, 126, len(payload))) + payload


async def upgrade(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers a WebSocket handshake."""
    request = await reader.readuntil(b"\r\n\r\n")
    lines = (line.partition(b":") for line in request.split(b"\r\n"))
    key = next(value.strip() for name, _, value in lines if name.lower() == b"sec-websocket-key")
    accept = base64.b64encode(hashlib.sha1(key + GUID, usedforsecurity=False).digest())
    writer.write(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("frames", type=int)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    frames = [SUBSCRIBED, *made_frames(options.frames)]
    play = b"".join(on_the_wire(frame) for frame in frames if len(frame) < 65_536)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await upgrade(reader, writer)
        try:
            for start in range(0, len(play), CHUNK_BYTES):
                writer.write(play[start : start + CHUNK_BYTES])
                await writer.drain()
            await reader.read()
        except ConnectionError:
            return  # the client has had enough
        finally:
            writer.close()

    context = make_tls(options.directory)[0] if options.tls else None
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    async with server:
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    import uvloop

    uvloop.run(main())
