"""`watch`, `top`, `markets`, `check`, `config` and `bench`: they show something and record nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from kalshi_fast import logs
from kalshi_fast.commands.flags import loaded
from kalshi_fast.commands.loop import on_uvloop
from kalshi_fast.config import SELECTORS, describe, template
from kalshi_fast.errors import ConfigError

if TYPE_CHECKING:
    import argparse

    from kalshi_fast.config import Settings
    from kalshi_fast.watch import WatchOptions


def watch(options: argparse.Namespace) -> int:
    from kalshi_fast.watch import WatchOptions

    given = [ticker for ticker in (options.TICKER, options.ticker) if ticker]
    if len(given) != 1:
        raise ConfigError("TICKER: expected one market, as in: kalshi-fast watch FEDFUNDS-DEC25")
    options.MARKET_TICKERS = given[0]
    settings = loaded(options).settings
    logs.configure(settings)
    watch = WatchOptions(
        compact=options.compact,
        as_json=options.json,
        rate_per_s=options.rate,
        levels=options.levels,
        log=options.log,
        seconds=options.seconds,
        once=options.once,
    )
    on_uvloop(_watching(settings, watch))
    return 0


async def _watching(settings: Settings, options: WatchOptions) -> None:
    from kalshi_fast.watch import Watch

    await Watch(settings, options).run()


def top(options: argparse.Namespace) -> int:
    from kalshi_fast.top import DEFAULT_ADDRESS, TopOptions, top

    listen = loaded(options).settings.http_listen
    top(
        TopOptions(
            address=listen if listen is not None and listen[1] else DEFAULT_ADDRESS,
            once=options.once,
            as_json=options.json,
            interval_s=options.interval,
            match=options.match,
            limit=options.limit,
        )
    )
    return 0


def markets(options: argparse.Namespace) -> int:
    from kalshi_fast.discovery.command import markets

    # The markets that are configured to be recorded are not all that may be looked for.
    settings = loaded(options, flags_only=(*SELECTORS, "MARKET_COMBOS")).settings
    sys.stdout.write(
        markets(
            settings,
            options.words,
            status=options.status,
            form="json" if options.json else options.format,
            limit=options.limit,
            quiet=options.quiet,
        )
    )
    return 0


def check(options: argparse.Namespace) -> int:
    from kalshi_fast.check.run import all_checks, exit_code, figures, run_checks
    from kalshi_fast.progress import ProgressLine

    settings = loaded(options).settings
    line = ProgressLine(quiet=options.quiet)
    findings = run_checks(
        all_checks(settings), options.limit, lambda names: line.show(f"asking: {', '.join(names)} …")
    )
    line.end()
    if options.json:
        sys.stdout.write(json.dumps(figures(findings)) + "\n")
    else:
        width = max(len(finding.name) for finding in findings)
        sys.stdout.write("".join(finding.line(width) + "\n" for finding in findings))
    return exit_code(findings)


def config(options: argparse.Namespace) -> int:
    if options.template:
        sys.stdout.write(template())
        return 0
    rows = describe(loaded(options))
    if options.json:
        sys.stdout.write(json.dumps({name: {"value": v, "source": s} for name, v, s, _ in rows}) + "\n")
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, value, source, text in rows:
        sys.stdout.write(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source:<{widths[2]}}  {text}\n")
    return 0


def bench(options: argparse.Namespace) -> int:
    from kalshi_fast.bench.command import bench

    return bench(options)
