"""A long recording at a steady rate, measured from outside: memory, parts, journal, time until queryable.

``python -m benchmarks.endurance --rate 100000 --seconds 900`` sends prepared deltas of 500 markets from
this process to `kalshi-fast run` (embedded engine and Parquet), looks every few seconds, and at the end
counts both stores and compares. It prints one line a look and a summary in JSON, and ends with 1 when they
do not agree. The connection of the other channels gets its answers and nothing else. CI runs it for seconds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from urllib.request import urlopen

import pyarrow.dataset as ds

from kalshi_fast.bench.sender import upgrade_response
from kalshi_fast.bench.workload import on_the_wire
from kalshi_fast.session import CHANNEL
from kalshi_fast.simulator.frames import times
from kalshi_fast.simulator.tls import make_key

MARKETS = 500
LEVELS = 20
CYCLE = 100_000
TICK_S = 0.01
_TEXT, _CLOSE = 1, 8
START_S = 120  # until a recording has its stores and subscribes
PARTS = (
    "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active AND database = 'kalshi'"
    " GROUP BY table, partition_id) FORMAT TSV"
)


def tickers() -> list[str]:
    return [f"KXLONG-26DEC31-T{n:04d}" for n in range(MARKETS)]


def snapshots() -> list[bytes]:
    """On the yes scale, as the recorder asks."""
    sides = [
        f'"{side}_dollars_fp":['
        + ",".join(sorted(f'["0.{cents(side, level)}00","100.00"]' for level in range(LEVELS)))
        + "]"
        for side in ("yes", "no")
    ]
    return [
        f'{{"type":"orderbook_snapshot","sid":1,"seq":{seq},"msg":{{"market_ticker":"{ticker}","market_id":'
        f'"{market_id(seq)}",{",".join(sides)}}}}}\n'.encode()
        for seq, ticker in enumerate(tickers(), 1)
    ]


def cents(side: str, level: int) -> int:
    """10 to 29 on the yes side, 71 to 90 on the other."""
    return 10 + level if side == "yes" else 90 - level


def market_id(n: int) -> str:
    return f"9b0f6b43-5b68-4f9f-9f02-{n:012d}"


def deltas() -> list[bytes]:
    """Templates (seq, times): what the first half adds, the second takes away, so that they fit for ever."""
    rng, names = random.Random(1), tickers()
    places = [
        (rng.randrange(MARKETS), rng.randrange(LEVELS), rng.choice(("yes", "no"))) for _ in range(CYCLE)
    ]
    return [
        b'{"type":"orderbook_delta","sid":1,"seq":%%d,"msg":{"market_ticker":"%b","market_id":"%b",'
        b'"price_dollars":"0.%d00","delta_fp":"%b3.00","side":"%b"%%b}}\n'
        % (names[n].encode(), market_id(n + 1).encode(), cents(side, level), sign, side.encode())
        for sign in (b"", b"-")
        for n, level, side in places
    ]


class Sender:
    """The exchange, as far as it goes: answers, and for who subscribes to the books snapshots, then deltas
    at a steady rate."""

    def __init__(self, rate: int, seconds: float) -> None:
        self.sent = 0
        self.sids = 0
        self.late_s = 0.0
        self._rate, self._seconds = rate, seconds
        self._templates = deltas()
        self.begun = asyncio.Event()
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if b"upgrade: websocket" not in request.lower():
            writer.write(rest_answer(request.split(b" ", 2)[1].decode()))
            writer.close()
            return
        writer.write(upgrade_response(request))
        playing: asyncio.Task[None] | None = None
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while (kind_and_text := await message(reader))[0] != _CLOSE:
                if kind_and_text[0] == _TEXT and self._answered(kind_and_text[1], writer):
                    playing = asyncio.ensure_future(self._play(writer))
        if playing is not None:
            playing.cancel()
        writer.close()

    def _answered(self, command_text: bytes, writer: asyncio.StreamWriter) -> bool:
        """Every channel is granted; whether it was the books."""
        command = json.loads(command_text)
        channels = command["params"]["channels"]
        for channel in channels:
            self.sids += 1
            body = {"channel": channel, "sid": 1 if channel == CHANNEL else self.sids}
            answer = {"type": "subscribed", "id": command["id"], "msg": body}
            writer.write(on_the_wire(json.dumps(answer).encode() + b"\n"))
        return CHANNEL in channels

    async def _play(self, writer: asyncio.StreamWriter) -> None:
        for frame in snapshots():
            writer.write(on_the_wire(frame))
            await writer.drain()
        self.sent = MARKETS
        self.begun.set()
        started, total = time.monotonic(), 0
        while (now := time.monotonic() - started) < self._seconds:
            wanted = int(now * self._rate)
            told = times(time.time_ns() // 1000)
            templates, cycle, seq = self._templates, len(self._templates), MARKETS + 1
            writer.write(
                b"".join(on_the_wire(templates[n % cycle] % (seq + n, told)) for n in range(total, wanted))
            )
            total = wanted
            await writer.drain()
            self.sent = MARKETS + total
            spare = TICK_S - (time.monotonic() - started - now)
            self.late_s = max(self.late_s, -spare)
            await asyncio.sleep(max(spare, 0))
        self.done.set()


def rest_answer(target: str) -> bytes:
    """What REST says of the markets that it is asked for: that they are there."""
    asked = parse_qs(urlsplit(target).query).get("tickers", [""])[0].split(",")
    markets = [{"ticker": ticker, "event_ticker": "KXLONG-26DEC31", "status": "active"} for ticker in asked]
    body = json.dumps({"markets": markets, "trades": [], "cursor": ""}).encode()
    lines = (b"HTTP/1.1 200 OK", b"Content-Type: application/json", b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"Connection: close", b"", body])


async def message(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of a client, and its kind: masked, whole."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length > 125:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8))
    mask = await reader.readexactly(4)
    return first & 0xF, bytes(byte ^ mask[at % 4] for at, byte in enumerate(await reader.readexactly(length)))


def memory_mb(pid: int) -> dict[str, int]:
    """Resident memory of the capture process and of its writer; shared pages count in both."""
    found = {"capture": pid}
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found["writer"] = int(child)
    kinds = {}
    for name, one in found.items():
        for line in Path(f"/proc/{one}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                kinds[name] = int(line.split()[1]) // 1024
    return kinds


def ask(directory: Path, sql: str) -> str:
    endpoint = json.loads((directory / "clickhouse" / "query-endpoint.json").read_text())
    with urlopen(endpoint["url"], data=sql.encode(), timeout=30) as answer:
        return str(answer.read().decode().strip())


async def watched(
    sender: Sender,
    recorder: subprocess.Popen[bytes],
    directory: Path,
    every_s: float,
    looks: list[dict[str, Any]],
) -> None:
    """Looks every so often, until all has been sent or the recording has ended."""
    started = time.monotonic()
    while not sender.done.is_set() and recorder.poll() is None:
        try:
            await asyncio.wait_for(sender.done.wait(), every_s)
        except TimeoutError:
            journal = (directory / "journal").glob("*.journal")
            look = {
                "s": round(time.monotonic() - started),
                "sent": sender.sent,
                **memory_mb(recorder.pid),
                "parts": int(await asyncio.to_thread(ask, directory, PARTS) or 0),
                "journal_mb": sum(path.stat().st_size for path in journal) >> 20,
            }
            looks.append(look)
            sys.stdout.write(json.dumps(look) + "\n")
            sys.stdout.flush()


async def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, default=100_000)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--every", type=float, default=15)
    parser.add_argument("--dir", type=Path, required=True)
    options = parser.parse_args()
    directory: Path = options.dir.absolute()
    directory.mkdir(parents=True)
    make_key(directory / "key.pem")
    sender = Sender(options.rate, options.seconds)
    server = await asyncio.start_server(sender.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    told = {
        "PROD_KEYID": "long",
        "PROD_KEYFILE": str(directory / "key.pem"),
        "MARKET_TICKERS": ",".join(tickers()),
        "WS_URL": f"ws://127.0.0.1:{port}/",
        "REST_URL": f"http://127.0.0.1:{port}/trade-api/v2",
        "CLICKHOUSE_URL": f"chdb://{directory}/clickhouse",
        "PARQUET_DIR": str(directory / "parquet"),
        "JOURNAL_DIR": str(directory / "journal"),
    }
    recorder = subprocess.Popen(
        [sys.executable, "-m", "kalshi_fast", "run", "--json", "--quiet", "--env-file", os.devnull],
        env={**os.environ, **told},
        cwd=directory,
        stdout=subprocess.PIPE,
    )
    looks: list[dict[str, Any]] = []
    try:
        async with asyncio.timeout(START_S):
            await sender.begun.wait()
        await watched(sender, recorder, directory, options.every, looks)
        await asyncio.sleep(1)
        recorder.terminate()
        output, _ = await asyncio.to_thread(recorder.communicate)
    finally:
        if recorder.poll() is None:
            recorder.kill()
            recorder.wait()
    figures = json.loads(output.splitlines()[-1])
    parquet = ds.dataset(directory / "parquet" / "orderbook", format="parquet").count_rows()
    summary = {
        "sent": sender.sent,
        "answers": sender.sids,
        "sender_latest_s": round(sender.late_s, 3),
        "frames_received": figures["frames_received"],
        "events": figures["events"],
        "clickhouse_rows": figures["clickhouse_rows"],
        "parquet_rows": parquet,
        "gaps": figures["gaps"],
        "queryable_p50_us": figures["queryable_p50_us"],
        "queryable_p99_us": figures["queryable_p99_us"],
        "max_parts": max((look["parts"] for look in looks), default=0),
    }
    summary["agrees"] = (
        figures["frames_received"] == sender.sent + sender.sids  # the answers to subscriptions
        and figures["events"] == figures["clickhouse_rows"] == parquet
        and figures["gaps"] == 0
    )
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if summary["agrees"] else 1


if __name__ == "__main__":
    import uvloop

    sys.exit(uvloop.run(main()))
