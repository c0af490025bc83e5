"""``kalshi-fast simulate``: an exchange for your own experiments, until it is told to stop or has no more."""

from __future__ import annotations

import asyncio
import shlex
import signal
import sys
from typing import TYPE_CHECKING, Final

from kalshi_fast.progress import ProgressLine
from kalshi_fast.simulator.beside import command
from kalshi_fast.simulator.launch import KEY_ID, launch

if TYPE_CHECKING:
    import argparse

    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.launch import Launched

_REDRAW_S: Final = 0.2
_SHOWN_TICKERS: Final = 3


async def simulate(options: argparse.Namespace) -> None:
    """Serves until SIGINT, SIGTERM or the end of the play, then says what happened. Raises SimulatorError."""
    launched = await launch(options)
    exchange = launched.exchange
    sys.stdout.write(_invitation(launched))
    sys.stdout.flush()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stopped.set)
    line = ProgressLine(quiet=options.quiet)
    waits = [asyncio.ensure_future(event.wait()) for event in (stopped, exchange.finished)]
    try:
        while not any(wait.done() for wait in waits):
            await asyncio.wait(waits, timeout=_REDRAW_S, return_when=asyncio.FIRST_COMPLETED)
            line.show(f"{exchange.stats.frames_sent:>12,} frames sent  {len(exchange.clients):>4} clients")
    finally:
        for wait in waits:
            wait.cancel()
        line.end()
        await exchange.stop()
    sys.stdout.write(_summary(exchange))


def _invitation(launched: Launched) -> str:
    """Where to connect and how, ready to be copied."""
    tickers = launched.tickers
    shown = tickers[:_SHOWN_TICKERS]
    flags = {
        "--prod-keyid": KEY_ID,
        "--prod-keyfile": str(launched.key_file.absolute()),
        "--ws-url": launched.exchange.url,
        "--ws-cafile": None if launched.ca_file is None else str(launched.ca_file.absolute()),
        "--rest-url": launched.exchange.rest_url,
    }
    example = " ".join(f"{flag} {shlex.quote(value)}" for flag, value in flags.items() if value is not None)
    lines = [
        f"the exchange listens at  {launched.exchange.url}",
        f"key id                   {KEY_ID}",
        f"key file                 {launched.key_file}",
        f"CA file                  {launched.ca_file or '(no TLS)'}",
        f"markets                  {len(tickers):,}: {', '.join(shown)}{' …' if len(tickers) > 3 else ''}",
        "",
        "Record it from another terminal, into ./data (or, with --tickers for --all-open, some of it):",
        f"  {command(anywhere=True)} run {example} --all-open",
        "",
    ]
    return "\n".join(lines) + "\n"


def _summary(exchange: Exchange) -> str:
    stats = exchange.stats
    faults = ", ".join(f"{kind} {times}" for kind, times in sorted(stats.faults.items()))
    rows = {
        "frames sent": f"{stats.frames_sent:,}",
        "snapshots": f"{stats.snapshots_sent:,}",
        "deltas": f"{stats.deltas_sent:,}",
        "reference prices": f"{stats.reference_sent:,}",
        "connections": f"{stats.connections:,}",
        "handshakes refused": f"{stats.handshakes_refused:,}",
        "checkpoints": f"{stats.checkpoints:,}",
        "faults": f"{sum(stats.faults.values()):,}{f' ({faults})' if faults else ''}",
    }
    return "".join(f"{name:<20}{value}\n" for name, value in rows.items())
