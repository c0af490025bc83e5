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
from kalshi_fast.simulator.exchange import Exchange
from kalshi_fast.simulator.frames import FORMS
from kalshi_fast.simulator.recorded import RecordedMarkets
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.tls import make_key, make_tls

if TYPE_CHECKING:
    from kalshi_fast.simulator.source import Source


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(prog="python -m kalshi_fast.simulator", description=__doc__)
    arguments.add_argument("--dir", type=Path, required=True, help="where the throw-away credentials go")
    arguments.add_argument("--markets", type=int, default=100, help="how many synthetic markets")
    arguments.add_argument("--seed", type=int, default=1, help="of the synthetic markets")
    arguments.add_argument("--recording", type=Path, help="play this recording instead")
    arguments.add_argument("--form", choices=FORMS, default="current", help="wire form of a recording")
    arguments.add_argument(
        "--rate", type=int, default=0, help="frames per second, 0 as fast as they are taken"
    )
    arguments.add_argument("--seconds", type=float, help="end of a synthetic play")
    arguments.add_argument("--port", type=int, default=0)
    arguments.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True)
    arguments.add_argument("--drop-every", type=int, default=0, help="leave out each n-th frame")
    return arguments


def say(event: str, **fields: Any) -> None:  # noqa: ANN401
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def serve(options: argparse.Namespace) -> None:
    source: Source
    if options.recording is not None:
        source = RecordedMarkets(options.recording, options.form)
    else:
        source = SyntheticMarkets(options.markets, options.seed)
    try:
        options.dir.mkdir(parents=True, exist_ok=True)
        key_file = options.dir / "client.pem"
        keys = {"simulated-key": make_key(key_file)}
        context, ca_file = make_tls(options.dir) if options.tls else (None, None)
    except OSError as error:
        raise SimulatorError(f"--dir: {options.dir} cannot be written: {error.strerror or error}") from error
    exchange = Exchange(
        source,
        keys,
        port=options.port,
        ssl_context=context,
        rate=options.rate,
        seconds=options.seconds,
        drop_every=options.drop_every,
    )
    await exchange.start()
    say(
        "ready",
        url=exchange.url,
        key_id="simulated-key",
        key_file=str(key_file),
        ca_file=None if ca_file is None else str(ca_file),
        tickers=list(source.books),
        frames=len(source) if isinstance(source, RecordedMarkets) else None,
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
            say("report", **dataclasses.asdict(exchange.stats), books=exchange.books())
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
