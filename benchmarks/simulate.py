"""``kalshi-fast simulate --recording`` at full speed, to a picows client: messages a second.

``python -m benchmarks.simulate`` makes a synthetic recording, serves it from a process of its own, and counts
what a client receives: with a listener in Python and a compiled one, which both do nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import ssl
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import picows
import uvloop

from benchmarks.events import synthetic_events
from benchmarks.replay import write_recording
from kalshi_fast._bench import FloorListener
from kalshi_fast.auth import Signer
from kalshi_fast.simulator.process import Simulator

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 3


class Counting(picows.WSListener):
    """Counts messages and does nothing else."""

    def __init__(self) -> None:
        self.frames = 0

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        self.frames += 1


@dataclass(frozen=True, slots=True)
class Played:
    """One play: messages, and from the subscription to the last of them the seconds on the wall and the
    processor's time of both processes."""

    messages: int
    wall_s: float
    sender_s: float
    receiver_s: float


async def play(recording: Path, listener: Callable[[], Any], *, tls: bool) -> Played:
    """The whole recording to one client that subscribes to all of it."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = ["--dir", directory, "--port", "0", "--tls" if tls else "--no-tls"]
        simulator = await Simulator.start([*arguments, "--recording", str(recording)])
        try:
            signer = Signer.from_file(simulator.key_id, Path(simulator.key_file))
            context = ssl.create_default_context(cafile=simulator.ca_file) if tls else None
            client = listener()
            transport, _ = await picows.ws_connect(
                lambda: client,
                simulator.url,
                ssl_context=context,
                extra_headers=signer.headers(time.time_ns() // 1_000_000),
            )
            params = {"channels": ["orderbook_delta"], "market_tickers": simulator.tickers}
            started, cpu_s, sender_s = time.perf_counter(), time.process_time(), processor_s(simulator.pid)
            transport.send(
                picows.WSMsgType.TEXT, json.dumps({"id": 1, "cmd": "subscribe", "params": params}).encode()
            )
            sent = await simulator.finished()
            while client.frames < sent:
                await asyncio.sleep(0.001)
            played = Played(
                sent,
                time.perf_counter() - started,
                processor_s(simulator.pid) - sender_s,
                time.process_time() - cpu_s,
            )
            transport.disconnect()
            if client.frames != sent:
                raise SystemExit(f"the simulator sent {sent} messages, the client counted {client.frames}")
            return played
        finally:
            await simulator.stop()


def counting() -> FloorListener:
    """Compiled, and never at an end."""
    return FloorListener(-1, -1, lambda _: None, lambda: None)


def processor_s(pid: int) -> float:
    """The processor's time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast the simulator serves a recording.")
    parser.add_argument("--events", type=int, default=500_000, help="of the recording (500000)")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each of the four ({ROUNDS})")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        recording = Path(directory)
        write_recording(recording, synthetic_events(options.events), 1)
        listeners = (("compiled", counting), ("Python", Counting))
        for tls in (False, True):
            for name, listener in listeners:
                plays = [uvloop.run(play(recording, listener, tls=tls)) for _ in range(options.rounds)]
                rates = sorted(p.messages / p.wall_s / 1e6 for p in plays)
                sender, receiver = (
                    statistics.median(getattr(p, who) / p.messages * 1e9 for p in plays)
                    for who in ("sender_s", "receiver_s")
                )
                sys.stdout.write(
                    f"{'wss' if tls else 'ws':<4}{name:<9}{rates[len(rates) // 2]:.2f} M messages/s"
                    f" ({rates[0]:.2f}-{rates[-1]:.2f}); processor's time per message:"
                    f" simulator {sender:.0f} ns, client {receiver:.0f} ns\n"
                )
                sys.stdout.flush()


if __name__ == "__main__":
    main()
