"""The simulator as a process under the control of its parent: one JSON object per line, both ways.

It says ``ready`` (where, with which key), later ``finished``; it is asked ``report`` and told ``stop``. The
end of its standard input is ``stop`` too, so that it never outlives its parent. A start that fails is one
``error`` line and exit code 2.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvloop

from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.launch import KEY_ID, launch
from kalshi_fast.simulator.life import metadata
from kalshi_fast.simulator.options import add_options, port

if TYPE_CHECKING:
    from kalshi_fast.simulator.exchange import Exchange


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m kalshi_fast.simulator", description=__doc__)
    arguments.add_argument("--dir", type=Path, required=True, help="where the throw-away credentials go")
    arguments.add_argument("--port", type=port, default=0)
    add_options(arguments)
    return arguments


def say(event: str, **fields: Any) -> None:  # noqa: ANN401
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def serve(options: argparse.Namespace) -> None:
    launched = await launch(options)
    exchange = launched.exchange
    say(
        "ready",
        url=exchange.url,
        rest_url=exchange.rest_url,
        key_id=KEY_ID,
        key_file=str(launched.key_file),
        ca_file=None if launched.ca_file is None else str(launched.ca_file),
        tickers=launched.tickers,
        frames=launched.frames,
    )
    finished = asyncio.ensure_future(_tell_when_finished(exchange))
    try:
        await _obey(exchange)
    finally:
        finished.cancel()
        await exchange.stop()


async def _tell_when_finished(exchange: Exchange) -> None:
    await exchange.finished.wait()
    say("finished", frames_sent=exchange.stats.frames_sent)


async def _obey(exchange: Exchange) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while (line := (await reader.readline()).strip()) not in (b"", b"stop"):
        if line == b"report":
            say(
                "report",
                **dataclasses.asdict(exchange.stats),
                played=exchange.played,
                books=exchange.books(),
                traded=exchange.tape.counts(),
                created={ticker: exchange.changes[ticker] for ticker in exchange.life.created},
                heard_us=[exchange.life.markets[t].heard_ns // 1000 for t in exchange.life.created],
                known={
                    market.ticker: [
                        market.status,
                        market.result,
                        exchange.source.structures[market.ticker],
                        metadata(market)["yes_sub_title"],
                    ]
                    for market in exchange.life.markets.values()
                    if not market.legs
                },
                living=[
                    market.ticker
                    for market in exchange.life.markets.values()
                    if not market.legs and market.status not in ("finalized", "closed", "determined")
                ],
            )
        else:
            say("error", message=f"expected report or stop, got {line!r}")


def main() -> int:
    options = parser().parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's affair
    try:
        uvloop.run(serve(options))
    except SimulatorError as error:
        say("error", message=str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
