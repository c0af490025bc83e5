"""`run`, `demo` and `simulate`: what records, and what it may record from."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalshi_fast import logs
from kalshi_fast.commands.flags import flags_of, loaded, told_only
from kalshi_fast.commands.loop import on_uvloop
from kalshi_fast.config import SETTINGS
from kalshi_fast.errors import ConfigError, KalshiFastError, SimulatorError
from kalshi_fast.simulator.beside import LIVE_ONLY, invitation_to, simulated

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from kalshi_fast.config import Settings
    from kalshi_fast.recording import Recording

log = logging.getLogger("kalshi_fast")


def run(options: argparse.Namespace) -> int:
    if options.simulated is None:
        _record(options, lambda: loaded(options).settings)
        return 0
    _refuse_live(options)
    with simulated(options.simulated, flags_of(options)) as told:
        recording = _record(options, lambda: told_only(told))
    text = invitation_to(options.simulated, recording.settings, recording.books.tickers)
    if text and not options.json:
        sys.stdout.write(f"\n{text}\n")
    return 0


def _refuse_live(options: argparse.Namespace) -> None:
    """A flag without effect is a mistake: who gives one means another exchange than the simulator."""
    given = [
        setting.flag for setting in SETTINGS if setting.name in LIVE_ONLY and getattr(options, setting.name)
    ]
    if options.env_file != Path(".env"):
        given.append("--env-file")
    if options.toml is not None:
        given.append("--toml")
    if given:
        raise ConfigError(
            f"--simulated: leave {', '.join(given)} out: the exchange and the key are the simulator's, and"
            " settings come from flags only"
        )


def _record(options: argparse.Namespace, settings_now: Callable[[], Settings]) -> Recording:
    from kalshi_fast.progress import ProgressLine
    from kalshi_fast.recording import Recording

    settings = settings_now()
    logs.configure(settings)
    recording = Recording(settings)
    line = ProgressLine(quiet=options.quiet)
    line.show("opening the stores …")
    recording.open(line.show)
    line.end()
    logs.tell(settings, recording.described())
    if recording.writer.query_url:
        logs.tell(settings, f"queries are answered at {recording.writer.query_url} (see kalshi-fast query)")
    if recording.status is not None:
        logs.tell(
            settings, f"metrics, health and a page are at {recording.status.url}/ (see kalshi-fast top)"
        )

    def progress(recording: Recording) -> None:
        figures = recording.summary()
        line.show(
            f"{figures['frames_received']:,} frames  {figures['events']:,} events  {figures['gaps']:,} gaps"
            f"  {figures['clickhouse_rows']:,} rows in ClickHouse"
        )

    try:
        on_uvloop(_recording(recording, options.seconds, settings_now, progress))
    finally:
        line.show("delivering what is buffered …")
        recording.close()
        line.end()
    unknown = recording.fleet.unknown_tickers
    if unknown:
        sys.stderr.write(f"kalshi-fast: MARKET_TICKERS: not known to the exchange: {', '.join(unknown)}\n")
    figures = recording.summary()
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    else:
        sys.stdout.write(
            "".join(f"{name.replace('_', ' '):<20}{value:>14,}\n" for name, value in figures.items())
        )
    return recording


async def _recording(
    recording: Recording,
    seconds: int | None,
    settings_now: Callable[[], Settings],
    progress: Any,  # noqa: ANN401
) -> None:
    def reread() -> None:
        try:
            recording.follow(settings_now())
        except KalshiFastError as error:
            log.error("SIGHUP: the markets stay as they are: %s", error)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reread)
    if seconds is not None:
        loop.call_later(seconds, recording.stop)
    await recording.run(progress)


def demo(options: argparse.Namespace) -> int:
    from kalshi_fast.demo import DemoOptions, describe, run_demo

    rate = options.rate
    if rate is None:
        rate = 0 if options.recording is not None else 5_000 if options.chaos else 20_000
    if options.chaos and options.recording is not None:
        raise ConfigError("--chaos: a recording is played as it is; leave one of --chaos and --recording out")
    demo = DemoOptions(
        directory=options.dir,
        seconds=options.seconds,
        markets=options.markets,
        rate=rate,
        seed=options.seed,
        recording=options.recording,
        form=options.form,
        use_yes_price=options.use_yes_price,
        port=options.port,
        tls=options.tls,
        chaos=options.chaos,
        hot_standby=options.hot_standby,
        quiet=options.quiet,
    )

    figures = on_uvloop(run_demo(demo, lambda simulator: told_only(demo.settings(simulator))))
    sys.stdout.write(describe(figures, options.dir) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["agrees"] else 1


def simulate(options: argparse.Namespace) -> int:
    from kalshi_fast.simulator.command import simulate

    try:
        on_uvloop(simulate(options))
    except SimulatorError as error:
        raise ConfigError(str(error)) from error
    return 0
