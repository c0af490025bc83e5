"""A long recording at a steady rate, measured from outside: memory, parts, journal, time until queryable.

``python -m benchmarks.endurance --rate 100000 --seconds 900`` sends prepared deltas of 500 markets from
this process to `kalshi-fast run` (embedded engine and Parquet), looks every few seconds, and at the end
counts both stores and compares. It prints one line a look and a summary in JSON. Not part of CI.
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
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pyarrow.dataset as ds

from kalshi_fast.bench.sender import upgrade_response
from kalshi_fast.bench.workload import SUBSCRIBED, on_the_wire
from kalshi_fast.simulator.tls import make_key

MARKETS = 500
LEVELS = 20
CYCLE = 100_000
TICK_S = 0.01
PARTS = (
    "SELECT max(parts) FROM (SELECT count() AS parts FROM system.parts WHERE active AND database = 'kalshi'"
    " GROUP BY table, partition_id) FORMAT TSV"
)


def tickers() -> list[str]:
    return [f"KXLONG-26DEC31-T{n:04d}" for n in range(MARKETS)]


def snapshots() -> list[bytes]:
    levels = ",".join(f'["0.{price:02d}00","100.00"]' for price in range(10, 10 + LEVELS))
    template = (
        '{{"type":"orderbook_snapshot","sid":1,"seq":{seq},"msg":{{"market_ticker":"{ticker}","market_id":'
        '"{id}","yes_dollars_fp":[{levels}],"no_dollars_fp":[{levels}]}}}}'
    )
    return [
        template.format(seq=seq, ticker=ticker, id=market_id(seq), levels=levels).encode()
        for seq, ticker in enumerate(tickers(), 1)
    ]


def market_id(n: int) -> str:
    return f"9b0f6b43-5b68-4f9f-9f02-{n:012d}"


def deltas() -> list[bytes]:
    """Templates (seq, ts_ms): what the first half adds, the second takes away, so that they fit for ever."""
    rng, names = random.Random(1), tickers()
    places = [
        (rng.randrange(MARKETS), rng.randrange(LEVELS), rng.choice(("yes", "no"))) for _ in range(CYCLE)
    ]
    return [
        b'{"type":"orderbook_delta","sid":1,"seq":%%d,"msg":{"market_ticker":"%b","market_id":"%b",'
        b'"price_dollars":"0.%d00","delta_fp":"%b3.00","side":"%b","ts":"2026-11-25T12:00:00Z","ts_ms":%%d}}'
        % (names[n].encode(), market_id(n + 1).encode(), 10 + level, sign, side.encode())
        for sign in (b"", b"-")
        for n, level, side in places
    ]


class Sender:
    """The exchange, as far as it goes: one answer, snapshots, then deltas at a steady rate."""

    def __init__(self, rate: int, seconds: float) -> None:
        self.sent = 0
        self.late_s = 0.0
        self._rate, self._seconds = rate, seconds
        self._templates = deltas()
        self.done = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(upgrade_response(await reader.readuntil(b"\r\n\r\n")))
        for frame in (SUBSCRIBED, *snapshots()):
            writer.write(on_the_wire(frame))
            await writer.drain()
        self.sent = MARKETS
        started, total = time.monotonic(), 0
        while (now := time.monotonic() - started) < self._seconds:
            wanted = int(now * self._rate)
            ts_ms = time.time_ns() // 1_000_000
            templates, cycle, seq = self._templates, len(self._templates), MARKETS + 1
            writer.write(
                b"".join(on_the_wire(templates[n % cycle] % (seq + n, ts_ms)) for n in range(total, wanted))
            )
            total = wanted
            await writer.drain()
            self.sent = MARKETS + total
            spare = TICK_S - (time.monotonic() - started - now)
            self.late_s = max(self.late_s, -spare)
            await asyncio.sleep(max(spare, 0))
        self.done.set()
        await reader.read()
        writer.close()


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
    started = time.monotonic()
    while not sender.done.is_set() and recorder.poll() is None:
        try:
            await asyncio.wait_for(sender.done.wait(), options.every)
        except TimeoutError:
            look = {
                "s": round(time.monotonic() - started),
                "sent": sender.sent,
                **memory_mb(recorder.pid),
                "parts": int(await asyncio.to_thread(ask, directory, PARTS) or 0),
                "journal_mb": sum(p.stat().st_size for p in (directory / "journal").glob("*.journal")) >> 20,
            }
            looks.append(look)
            sys.stdout.write(json.dumps(look) + "\n")
            sys.stdout.flush()
    await asyncio.sleep(1)
    recorder.terminate()
    output, _ = await asyncio.to_thread(recorder.communicate)
    figures = json.loads(output.splitlines()[-1])
    parquet = ds.dataset(directory / "parquet" / "orderbook", format="parquet").count_rows()
    summary = {
        "sent": sender.sent,
        "sender_latest_s": round(sender.late_s, 3),
        "events": figures["events"],
        "clickhouse_rows": figures["clickhouse_rows"],
        "parquet_rows": parquet,
        "gaps": figures["gaps"],
        "queryable_p50_us": figures["queryable_p50_us"],
        "queryable_p99_us": figures["queryable_p99_us"],
        "max_parts": max((look["parts"] for look in looks), default=0),
    }
    summary["agrees"] = (
        figures["frames_received"] == sender.sent + 1  # the answer to the subscription
        and figures["events"] == figures["clickhouse_rows"] == parquet
        and figures["gaps"] == 0
    )
    sys.stdout.write(json.dumps(summary) + "\n")
    return 0 if summary["agrees"] else 1


if __name__ == "__main__":
    import uvloop

    sys.exit(uvloop.run(main()))
