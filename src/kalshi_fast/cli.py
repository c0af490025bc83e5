"""The command line: flags in, one sentence out when something is wrong. No logic of its own.

Exit codes: 0 done; 1 the work failed; 2 the configuration is wrong; 130 interrupted before it began.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalshi_fast import __version__
from kalshi_fast.config import MARKET_STATUSES, SELECTORS, SETTINGS, Loaded, describe, load
from kalshi_fast.errors import ConfigError, KalshiFastError, SimulatorError
from kalshi_fast.simulator import options as simulator_options
from kalshi_fast.simulator.options import natural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.config import Settings
    from kalshi_fast.recording import Recording
    from kalshi_fast.simulator.process import Simulator

log = logging.getLogger("kalshi_fast")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="kalshi-fast", description="Records Kalshi's order books, exactly.")
    top.add_argument("--version", action="version", version=f"kalshi-fast {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser(
        "run",
        help="record live",
        description="Records until SIGINT or SIGTERM. SIGHUP: reads anew which markets are to be recorded.",
    )
    _add_settings(run)
    run.add_argument("--seconds", type=_positive, help="stop after so many seconds")
    _add_output(run)

    demo = commands.add_parser(
        "demo",
        help="the whole system against an exchange simulator",
        description="Records from a simulated exchange, counts everything, fails if any number disagrees.",
    )
    demo.add_argument("--seconds", type=_positive, default=8, help="length of the synthetic play (8)")
    demo.add_argument("--markets", type=_positive, default=100, help="synthetic markets (100)")
    demo.add_argument("--rate", type=natural, help="frames per second, 0: no limit (20000; recordings: 0)")
    demo.add_argument("--seed", type=int, default=1, help="of the synthetic markets (1)")
    demo.add_argument("--recording", type=Path, help="play the recordings in this directory instead")
    demo.add_argument(
        "--form", choices=("current", "legacy"), default="current", help="wire form of a recording"
    )
    demo.add_argument(
        "--chaos", action="store_true", help="faults of every kind, and what was stored checked against them"
    )
    demo.add_argument("--hot-standby", action="store_true", help="record over two connections at once")
    demo.add_argument("--dir", type=Path, default=Path("demo-data"), help="where everything goes (demo-data)")
    demo.add_argument("--port", type=natural, default=0, help="port of the simulator (any free one)")
    demo.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="encrypt, as live")
    _add_output(demo)

    simulate = commands.add_parser(
        "simulate",
        help="an exchange of your own, which can misbehave",
        description="Serves the exchange's protocol until SIGINT or SIGTERM, or until the play is over.",
    )
    simulate.add_argument(
        "--dir", type=Path, default=Path("simulator-data"), help="for key and CA file (simulator-data)"
    )
    simulate.add_argument("--port", type=simulator_options.port, default=8765, help="to listen on (8765)")
    simulator_options.add_options(simulate)
    simulate.add_argument("--quiet", action="store_true", help="no progress")

    markets = commands.add_parser(
        "markets",
        help="list and search the exchange's markets",
        description="Lists markets by REST, sorted by volume: all that are open, or those that the flags and"
        " the words name. What selects markets is read from flags only.",
    )
    markets.add_argument("words", nargs="*", metavar="WORD", help="to be found in name or title, in any case")
    markets.add_argument("--status", choices=(*MARKET_STATUSES, "any"), default="open", help="(open)")
    markets.add_argument("--format", choices=("table", "tickers"), default="table", help="(table)")
    markets.add_argument("--json", action="store_true", help="everything as one list of JSON objects")
    markets.add_argument("--limit", type=_positive, help="rows at most (50 in a table, else all)")
    markets.add_argument("--quiet", action="store_true", help="no progress")
    _add_settings(markets, (*SELECTORS, "PROD_KEYID", "PROD_KEYFILE", "REST_URL", "WS_CAFILE"))

    query = commands.add_parser("query", help="ask ClickHouse", description="Runs one SQL statement.")
    query.add_argument("sql", help="the statement")
    query.add_argument("--dir", type=Path, help="ask the recording of `demo --dir`")
    query.add_argument("--format", default="PrettyCompactMonoBlock", help="any output format of ClickHouse")
    _add_settings(query)

    compact = commands.add_parser(
        "compact",
        help="merge small Parquet files",
        description="Merges the small Parquet files of every date before today (UTC) into few large ones, and"
        " checks that not a row changed. May be killed at any time; the next run finishes what it finds.",
    )
    compact.add_argument("dates", nargs="*", metavar="DATE", help="these dates only, YYYY-MM-DD; also today")
    compact.add_argument("--all", action="store_true", help="today's complete files too")
    compact.add_argument(
        "--max-bytes", type=_positive, help="size of a merged file (1073741824); a larger one stays as it is"
    )
    compact.add_argument("--dry-run", action="store_true", help="say what would be merged, change nothing")
    _add_output(compact)
    _add_settings(compact)

    sql = commands.add_parser(
        "sql",
        help="print or apply the schema of the tables",
        description="Prints the statements of the schema, in order; nothing is changed without --apply.",
    )
    what = sql.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="bring the configured ClickHouse up to date")
    what.add_argument("--status", action="store_true", help="what the configured ClickHouse has had")
    _add_settings(sql)
    sql.add_argument("--cluster", dest="CLICKHOUSE_CLUSTER", metavar="NAME", help="as --clickhouse-cluster")

    config = commands.add_parser("config", help="show every setting and where it comes from")
    config.add_argument("--json", action="store_true", help="as one JSON object")
    _add_settings(config)
    return top


def _positive(text: str) -> int:
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return number


def _add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="the figures as one JSON object on the last line"
    )
    command.add_argument("--quiet", action="store_true", help="no progress")


def _add_settings(command: argparse.ArgumentParser, only: Sequence[str] = ()) -> None:
    group = command.add_argument_group("settings (also from the environment, .env and kalshi-fast.toml)")
    for setting in SETTINGS:
        # A password on the command line is seen by every process of the machine.
        if setting.secret and setting.name != "PROD_KEYID":
            continue
        if not only or setting.name in only:
            names = [name for name in (setting.short, setting.flag) if name]
            if setting.name == "MARKET_ALL_OPEN":
                group.add_argument(
                    names.pop(0), dest=setting.name, action="store_const", const="on", help=setting.help
                )
            group.add_argument(
                *names,
                dest=setting.name,
                action=_Joined if setting.many else "store",
                metavar="VALUE",
                help=setting.help,
            )
    group.add_argument("--env-file", type=Path, default=Path(".env"), help="instead of .env")
    group.add_argument("--toml", type=Path, help="instead of kalshi-fast.toml")


class _Joined(argparse.Action):
    """A flag that is given several times: all of its values, with commas between."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def _load(options: argparse.Namespace, flags_only: Sequence[str] = ()) -> Loaded:
    flags = {setting.name: getattr(options, setting.name, None) for setting in SETTINGS}
    return load(
        flags,
        environ=os.environ,
        env_file=options.env_file,
        toml_file=options.toml,
        flags_only=flags_only,
    )


# --- commands ---------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    from kalshi_fast.progress import ProgressLine
    from kalshi_fast.recording import Recording

    recording = Recording(_load(options).settings)
    line = ProgressLine(quiet=options.quiet)
    line.show("opening the stores …")
    recording.open(line.show)
    if recording.writer.query_url:
        line.end()
        sys.stderr.write(f"queries are answered at {recording.writer.query_url} (see kalshi-fast query)\n")

    def progress(recording: Recording) -> None:
        figures = recording.summary()
        line.show(
            f"{figures['frames_received']:,} frames  {figures['events']:,} events  {figures['gaps']:,} gaps"
            f"  {figures['clickhouse_rows']:,} rows in ClickHouse"
        )

    try:
        _on_uvloop(_record(recording, options, progress))
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
    return 0


async def _record(recording: Recording, options: argparse.Namespace, progress: Any) -> None:  # noqa: ANN401
    def reread() -> None:
        try:
            recording.follow(_load(options).settings)
        except KalshiFastError as error:
            log.error("SIGHUP: the markets stay as they are: %s", error)

    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, reread)
    if options.seconds is not None:
        loop.call_later(options.seconds, recording.stop)
    await recording.run(progress)


def _demo(options: argparse.Namespace) -> int:
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
        port=options.port,
        tls=options.tls,
        chaos=options.chaos,
        hot_standby=options.hot_standby,
        quiet=options.quiet,
    )

    def settings_for(simulator: Simulator) -> Any:  # noqa: ANN401
        # Whatever is configured for live recording does not concern the demo.
        told = demo.settings(simulator)
        return load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings

    figures = _on_uvloop(run_demo(demo, settings_for))
    sys.stdout.write(describe(figures, options.dir) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(figures) + "\n")
    return 0 if figures["agrees"] else 1


def _simulate(options: argparse.Namespace) -> int:
    from kalshi_fast.simulator.command import simulate

    try:
        _on_uvloop(simulate(options))
    except SimulatorError as error:
        raise ConfigError(str(error)) from error
    return 0


def _markets(options: argparse.Namespace) -> int:
    from kalshi_fast.discovery.command import markets

    # The markets that are configured to be recorded are not all that may be looked for.
    settings = _load(options, flags_only=SELECTORS).settings
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


def _query(options: argparse.Namespace) -> int:
    from kalshi_fast.demo import demo_database
    from kalshi_fast.sinks import clickhouse

    settings = _load(options).settings
    url = settings.clickhouse_url if options.dir is None else demo_database(options.dir)
    client = _client(settings, url)
    try:
        answer = clickhouse.ask(client, options.sql, options.format)
    finally:
        client.close()
    sys.stdout.flush()
    sys.stdout.buffer.write(answer)
    return 0


def _compact(options: argparse.Namespace) -> int:
    from kalshi_fast.compact import MAX_BYTES, compact, dates, describe

    if options.dates and options.all:
        raise ConfigError("--all: every date is meant; leave one of --all and DATE out")
    root = _load(options).settings.parquet_dir
    if root is None:
        raise ConfigError("PARQUET_DIR is off: there is nothing to compact")
    today = datetime.now(UTC).date()
    reports = compact(
        dates(root / "orderbook", options.dates, everything=options.all, today=today),
        max_bytes=options.max_bytes or MAX_BYTES,
        dry_run=options.dry_run,
        quiet=options.quiet,
    )
    for report in reports:
        sys.stdout.write(describe(report, dry_run=options.dry_run) + "\n")
        if report.error is not None:
            sys.stderr.write(f"kalshi-fast: {report.error}\n")
    if options.json:
        sys.stdout.write(json.dumps({"dates": [report.figures() for report in reports]}) + "\n")
    return 0 if all(report.error is None for report in reports) else 1


def _client(settings: Settings, url: str | None, *, make: bool = False) -> Client:
    from kalshi_fast.sinks import clickhouse

    if url is None:
        raise ConfigError("CLICKHOUSE_URL is off: there is nothing to ask")
    clickhouse.refuse_embedded_cluster(url, settings.clickhouse_cluster)
    if not make and url.startswith("chdb://") and not clickhouse.embedded_directory(url).is_dir():
        raise ConfigError(f"CLICKHOUSE_URL: nothing has been recorded at {url}")
    opened = clickhouse.open_client if make else clickhouse.open_reader
    return opened(url, user=settings.clickhouse_user, password=settings.clickhouse_password)


def _sql(options: argparse.Namespace) -> int:
    from kalshi_fast import migrations

    settings = _load(options).settings
    database, cluster = settings.clickhouse_database, settings.clickhouse_cluster
    if not options.apply and not options.status:
        for migration in migrations.migrations():
            statements = migrations.rendered(migration, database, cluster)
            sys.stdout.write(f"-- {migration.file}\n\n" + "".join(f"{part};\n\n" for part in statements))
        return 0
    client = _client(settings, settings.clickhouse_url, make=options.apply)
    try:
        lines = (migrations.bring_up if options.apply else migrations.describe)(client, database, cluster)
    finally:
        client.close()
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def _config(options: argparse.Namespace) -> int:
    rows = describe(_load(options))
    if options.json:
        sys.stdout.write(json.dumps({name: {"value": v, "source": s} for name, v, s, _ in rows}) + "\n")
        return 0
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for name, value, source, text in rows:
        sys.stdout.write(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source:<{widths[2]}}  {text}\n")
    return 0


def _on_uvloop(work: Any) -> Any:  # noqa: ANN401
    import uvloop

    return uvloop.run(work)


_COMMANDS = {
    "run": _run,
    "demo": _demo,
    "simulate": _simulate,
    "markets": _markets,
    "query": _query,
    "compact": _compact,
    "sql": _sql,
    "config": _config,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except KalshiFastError as error:
        sys.stderr.write(f"kalshi-fast: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has read enough; the interpreter must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
