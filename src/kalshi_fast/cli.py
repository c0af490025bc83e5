"""The command line: flags in, one sentence out when something is wrong. No logic of its own.

Exit codes: 0 done; 1 the work failed; 2 the configuration is wrong; 130 interrupted before it began.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import resource
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalshi_fast import __version__, logs
from kalshi_fast.bench import options as bench_options
from kalshi_fast.blotting import blotted
from kalshi_fast.config import MARKET_STATUSES, SELECTORS, SETTINGS, Loaded, describe, load, template
from kalshi_fast.errors import ConfigError, KalshiFastError, SimulatorError
from kalshi_fast.simulator import options as simulator_options
from kalshi_fast.simulator.beside import (
    DEMO_DIR,
    LIVE_ONLY,
    RATE,
    SIMULATED_DIR,
    invitation_to,
    simulated,
    stores,
)
from kalshi_fast.simulator.options import natural

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.config import Settings
    from kalshi_fast.recording import Recording
    from kalshi_fast.watch import WatchOptions

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
    run.add_argument(
        "--simulated",
        type=Path,
        nargs="?",
        const=SIMULATED_DIR,
        metavar="DIR",
        help="from an exchange simulator that runs meanwhile, with everything in DIR (simulated-data) and"
        " settings from flags only",
    )
    run.add_argument("--http", dest="HTTP_LISTEN", metavar="HOST:PORT", help="as --http-listen")
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
    demo.add_argument("--dir", type=Path, default=DEMO_DIR, help="where everything goes (demo-data)")
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
    simulator_options.add_options(simulate, RATE)
    simulate.add_argument("--quiet", action="store_true", help="no progress")

    _add_views(commands)

    replay = commands.add_parser(
        "replay",
        help="what a recording holds, and whether it is right",
        description="Reads recorded events and says what there is of each market. With --verify every book is"
        " rebuilt and every invariant checked; the exit code is 1 when one does not hold.",
    )
    replay.add_argument(
        "path", help="Parquet directory, file or pattern, ClickHouse URL, journal, or capture"
    )
    replay.add_argument("--verify", action="store_true", help="rebuild every book and check it")
    replay.add_argument("--markets", help="these tickers only, comma-separated")
    replay.add_argument("--start", help="from this moment on (ISO, UTC)")
    replay.add_argument("--end", help="up to this moment, it excluded")
    replay.add_argument("--repair", action="store_true", help="leave out what is damaged, and say so")
    replay.add_argument("--database", help="of a ClickHouse URL (as configured)")
    _add_output(replay)

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

    query = commands.add_parser(
        "query",
        help="ask ClickHouse",
        description="Runs one SQL statement, while a recording runs or afterwards. Without a statement: what"
        " has been recorded, by market.",
    )
    query.add_argument("sql", nargs="?", metavar="SQL", help="the statement")
    query.add_argument("--dir", type=Path, help="ask what `demo --dir` or `run --simulated` has recorded")
    query.add_argument("--format", default="PrettyCompactMonoBlock", help="any output format of ClickHouse")
    _add_settings(query)

    compact = commands.add_parser(
        "compact",
        help="merge small Parquet files",
        description="Merges the small Parquet files of every table and date before today (UTC) into few large"
        " ones, and checks that not a row changed. May be killed at any time; the next run finishes what it"
        " finds.",
    )
    compact.add_argument("dates", nargs="*", metavar="DATE", help="these dates only, YYYY-MM-DD; also today")
    compact.add_argument("--all", action="store_true", help="today's complete files too")
    compact.add_argument(
        "--max-bytes", type=_positive, help="size of a merged file (1073741824); a larger one stays as it is"
    )
    compact.add_argument("--dry-run", action="store_true", help="say what would be merged, change nothing")
    _add_output(compact)
    _add_settings(compact)

    importing = commands.add_parser(
        "import",
        help="take over an earlier recorder's Parquet files, of text times and whole cents",
        description="Turns Parquet files with text timestamps and prices in cents into ours, whole files or"
        " none, and reports what was wrong in them. Books are known only where the rows prove it. A file that"
        " has been imported before is left out.",
    )
    importing.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="files or directories")
    importing.add_argument(
        "--out", type=Path, required=True, help="goes to OUT/orderbook; like PARQUET_DIR of a recorder"
    )
    importing.add_argument("--dry-run", action="store_true", help="only report, write nothing")
    importing.add_argument(
        "--skip-damaged", action="store_true", help="leave out files that cannot be read, instead of failing"
    )
    importing.add_argument(
        "--keep-labels",
        action="store_true",
        help="never take changes under a doubtful name for those of the market whose book they fit",
    )
    importing.add_argument(
        "--to",
        choices=("files", "clickhouse"),
        default="files",
        help="clickhouse: into the database too, each import once, whatever OUT it comes from",
    )
    _add_output(importing)
    _add_settings(
        importing, only=[setting.name for setting in SETTINGS if setting.name.startswith("CLICKHOUSE_")]
    )

    export = commands.add_parser(
        "export",
        help="recorded books for hftbacktest, NautilusTrader, or as CSV",
        description="Writes recorded books in the form of another program: a file for each market and date.",
    )
    export.add_argument(
        "form", choices=("hftbacktest", "csv", "nautilus"), metavar="FORM", help="%(choices)s"
    )
    _add_source(export, "markets; all when there is none")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    export.add_argument("--bbo", action="store_true", help="csv: best bid and ask instead of the events")
    export.add_argument("--overwrite", action="store_true", help="replace files that are there")
    _add_output(export)

    plot = commands.add_parser(
        "plot",
        help="a picture of a recorded market",
        description="Draws best prices, spread and depth of one market; time in which its book was unknown is"
        " hatched grey. Needs the extra `plot`.",
    )
    plot.add_argument("market", metavar="MARKET", help="its ticker")
    plot.add_argument("--dir", type=Path, help="from what `demo --dir` or `run --simulated` has recorded")
    _add_stretch(plot, "CLICKHOUSE_URL, or PARQUET_DIR when that is off")
    plot.add_argument("--out", type=Path, required=True, metavar="FILE", help=".png, .svg, .pdf or .html")
    plot.add_argument("--columns", type=_positive, default=800, help="columns of time (800)")
    _add_output(plot)

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

    check = commands.add_parser(
        "check",
        help="whether a recording would work here, and what could be better",
        description="Key, exchange, clock, stores, disk and host, one line each: ok, warning or failure, and"
        " the remedy. Writes and changes nothing. Ends with 1 when there is a failure.",
    )
    check.add_argument("--limit", type=_positive, default=10, help="seconds that a check may take (10)")
    check.add_argument("--json", action="store_true", help="as one JSON object")
    check.add_argument("--quiet", action="store_true", help="no progress")
    _add_settings(check)
    bench = commands.add_parser(
        "bench",
        help="measure everything, beside other libraries",
        description="Runs the whole benchmark suite in one process tree and prints a table.",
    )
    bench_options.add_options(bench)
    _add_output(bench)

    config = commands.add_parser("config", help="show every setting and where it comes from")
    form = config.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object")
    form.add_argument("--template", action="store_true", help="an environment file with every default")
    _add_settings(config)
    return top


def _add_views(commands: Any) -> None:  # noqa: ANN401 - argparse has no public name for it
    watch = commands.add_parser(
        "watch",
        help="one market, live",
        description="Shows one market's book as it changes, on a connection of its own; nothing is stored.",
    )
    watch.add_argument("TICKER", nargs="?", help="the market")
    watch.add_argument("--ticker", dest="ticker", metavar="TICKER", help="the same")
    watch.add_argument("--compact", action="store_true", help="a line for each change; --json: on one line")
    watch.add_argument("--json", action="store_true", help="a JSON object for each change")
    watch.add_argument("--rate", type=_rate, default=4.0, metavar="HZ", help="at most so often a second (4)")
    watch.add_argument("--levels", type=_positive, default=10, help="of each side, with --json (10)")
    watch.add_argument("--log", type=Path, metavar="FILE", help="append every event as NDJSON")
    watch.add_argument("--seconds", type=_positive, help="stop after so many seconds")
    watch.add_argument("--once", action="store_true", help="stop when the book has been shown once")
    _add_settings(watch)

    top = commands.add_parser(
        "top",
        help="all markets of a running recording",
        description="Shows rates, lags, gaps, queue and journal of a recording that runs with --http.",
    )
    top.add_argument(
        "--http",
        dest="HTTP_LISTEN",
        metavar="HOST:PORT",
        help="where it serves (HTTP_LISTEN or 127.0.0.1:9187)",
    )
    top.add_argument("--once", action="store_true", help="show it once and end")
    top.add_argument("--json", action="store_true", help="a JSON object for each look")
    top.add_argument("--interval", type=_rate, default=1.0, metavar="SECONDS", help="between two looks (1)")
    top.add_argument("--match", default="*", metavar="PATTERN", help="only markets like this: 'KXBTC*'")
    top.add_argument("--limit", type=_positive, help="so many markets")
    _add_settings(top, ("HTTP_LISTEN",))


def _rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 0.01 to 100, got {text!r}")
    return number


def _positive(text: str) -> int:
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return number


def _add_source(command: argparse.ArgumentParser, markets: str) -> None:
    command.add_argument("markets", nargs="*", metavar="MARKET", help=markets)
    _add_stretch(command)


def _add_stretch(command: argparse.ArgumentParser, default: str = "") -> None:
    command.add_argument(
        "--from",
        dest="source",
        required=not default,
        metavar="SOURCE",
        help="PARQUET_DIR, a file or pattern, chdb://DIR, http(s)://HOST:PORT, a journal, a capture"
        + (f" ({default})" if default else ""),
    )
    command.add_argument("--start", metavar="TIME", help="from this time on, such as 2026-01-31T12:00:00Z")
    command.add_argument("--end", metavar="TIME", help="before this time")
    command.add_argument("--repair", action="store_true", help="leave out what is damaged, and say so")
    command.add_argument("--database", help="of a ClickHouse URL (as configured)")


def _configured_source(options: argparse.Namespace) -> str:
    """Where a recording is, when nothing says it: the database has the last seconds of one that runs, too."""
    if options.dir is not None:
        url = stores(options.dir)["CLICKHOUSE_URL"]
        _require_recorded(url)
        return url
    settings = load({}, environ=os.environ, env_file=Path(".env"), toml_file=None).settings
    source = settings.clickhouse_url or settings.parquet_dir
    if source is None:
        raise ConfigError("--from: CLICKHOUSE_URL and PARQUET_DIR are both off: expected where to read from")
    _require_recorded(str(source))
    return str(source)


def _require_recorded(url: str) -> None:
    """An embedded engine must be there: asking must not make one."""
    from kalshi_fast.sinks import clickhouse

    if url.startswith("chdb://") and not clickhouse.embedded_directory(url).is_dir():
        others = [path for path in (SIMULATED_DIR, DEMO_DIR) if (path / "clickhouse").is_dir()]
        hint = f" (did you mean --dir {others[0]}?)" if others else ""
        raise ConfigError(f"CLICKHOUSE_URL: nothing has been recorded at {url}{hint}")


def _source_options(options: argparse.Namespace) -> dict[str, Any]:
    """How a source is opened; a database with the configured user."""
    more: dict[str, Any] = {"repair": options.repair}
    if options.source.startswith(("chdb://", "http://", "https://")):
        if getattr(options, "dir", None) is not None:
            settings = _told({})
        else:
            settings = load({}, environ=os.environ, env_file=Path(".env"), toml_file=None).settings
        more["user"] = settings.clickhouse_user
        more["password"] = settings.clickhouse_password
        more["database"] = options.database or settings.clickhouse_database
    return more


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
            names = [name for name in (setting.alias, setting.flag) if name]
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


def _told(settings: dict[str, str | None]) -> Settings:
    """These and no others: whatever is configured for live recording does not concern a simulation."""
    return load(settings, environ={}, env_file=None, toml_file=Path(os.devnull)).settings


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


def _flags(options: argparse.Namespace) -> dict[str, str | None]:
    return {setting.name: getattr(options, setting.name, None) for setting in SETTINGS}


def _load(options: argparse.Namespace, flags_only: Sequence[str] = ()) -> Loaded:
    return load(
        _flags(options),
        environ=os.environ,
        env_file=options.env_file,
        toml_file=options.toml,
        flags_only=flags_only,
    )


# --- commands ---------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    if options.simulated is None:
        _record(options, lambda: _load(options).settings)
        return 0
    _refuse_live(options)
    with simulated(options.simulated, _flags(options)) as told:
        recording = _record(options, lambda: _told(told))
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
        _on_uvloop(_recording(recording, options.seconds, settings_now, progress))
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

    figures = _on_uvloop(run_demo(demo, lambda simulator: _told(demo.settings(simulator))))
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


def _watch(options: argparse.Namespace) -> int:
    from kalshi_fast.watch import WatchOptions

    given = [ticker for ticker in (options.TICKER, options.ticker) if ticker]
    if len(given) != 1:
        raise ConfigError("TICKER: expected one market, as in: kalshi-fast watch FEDFUNDS-DEC25")
    options.MARKET_TICKERS = given[0]
    settings = _load(options).settings
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
    _on_uvloop(_watching(settings, watch))
    return 0


async def _watching(settings: Settings, options: WatchOptions) -> None:
    from kalshi_fast.watch import Watch

    await Watch(settings, options).run()


def _top(options: argparse.Namespace) -> int:
    from kalshi_fast.top import DEFAULT_ADDRESS, TopOptions, top

    listen = _load(options).settings.http_listen
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


def _replay(options: argparse.Namespace) -> int:
    from kalshi_fast.replaying.command import replay

    def credentials() -> Settings:
        return load({}, environ=os.environ, env_file=Path(".env"), toml_file=None).settings

    return replay(options, credentials)


def _query(options: argparse.Namespace) -> int:
    from kalshi_fast.sinks import clickhouse

    if options.dir is None:
        settings = _load(options).settings
    else:
        settings = _told({**_flags(options), **stores(options.dir)})
    client = _client(settings, settings.clickhouse_url)
    try:
        if options.sql is None:
            answer = clickhouse.overview(client, settings.clickhouse_database, options.format)
        else:
            answer = clickhouse.ask(client, options.sql, options.format)
    finally:
        client.close()
    sys.stdout.flush()
    sys.stdout.buffer.write(answer)
    return 0


def _compact(options: argparse.Namespace) -> int:
    from kalshi_fast.compact import MAX_BYTES, all_dates, compact, describe

    if options.dates and options.all:
        raise ConfigError("--all: every date is meant; leave one of --all and DATE out")
    root = _load(options).settings.parquet_dir
    if root is None:
        raise ConfigError("PARQUET_DIR is off: there is nothing to compact")
    today = datetime.now(UTC).date()
    reports = [
        report
        for table, directories in all_dates(root, options.dates, everything=options.all, today=today).items()
        for report in compact(
            directories,
            table=table,
            max_bytes=options.max_bytes or MAX_BYTES,
            dry_run=options.dry_run,
            quiet=options.quiet,
        )
    ]
    for report in reports:
        sys.stdout.write(describe(report, dry_run=options.dry_run) + "\n")
        if report.error is not None:
            sys.stderr.write(f"kalshi-fast: {report.error}\n")
    if options.json:
        sys.stdout.write(json.dumps({"dates": [report.figures() for report in reports]}) + "\n")
    return 0 if all(report.error is None for report in reports) else 1


def _import(options: argparse.Namespace) -> int:
    from kalshi_fast.importing import describe, import_recordings

    settings = _load(options).settings if options.to == "clickhouse" else None
    if settings is not None and settings.clickhouse_url is None:
        raise ConfigError("CLICKHOUSE_URL is off: --to clickhouse needs one")
    report = import_recordings(
        options.paths,
        options.out,
        skip_damaged=options.skip_damaged,
        keep_labels=options.keep_labels,
        dry_run=options.dry_run,
        quiet=options.quiet,
    )
    sys.stdout.write(describe(report, dry_run=options.dry_run) + "\n")
    if settings is not None and not options.dry_run:
        _store_imports(options, settings)
    if options.json:
        sys.stdout.write(json.dumps(report.figures()) + "\n")
    return 0


def _store_imports(options: argparse.Namespace, settings: Settings) -> None:
    from kalshi_fast.importing.store import describe_stored, store_imports
    from kalshi_fast.sinks import clickhouse

    url = settings.clickhouse_url
    assert url is not None  # noqa: S101 - looked at before
    client = clickhouse.connect(
        url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password,
        database=settings.clickhouse_database,
        cluster=settings.clickhouse_cluster,
    )
    try:
        stored = store_imports(client, options.out, quiet=options.quiet)
    finally:
        client.close()
    sys.stdout.write(describe_stored(stored, url) + "\n")


def _export(options: argparse.Namespace) -> int:
    from kalshi_fast.exporting import describe, export

    report = export(
        options.form,
        options.source,
        options.out,
        markets=options.markets or None,
        start=options.start,
        end=options.end,
        bbo=options.bbo,
        overwrite=options.overwrite,
        quiet=options.quiet,
        **_source_options(options),
    )
    sys.stdout.write(describe(report) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(report.figures()) + "\n")
    return 0


def _plot(options: argparse.Namespace) -> int:
    from kalshi_fast.plotting import collect, save
    from kalshi_fast.plotting.draw import check_format
    from kalshi_fast.progress import ProgressLine

    check_format(options.out)
    if options.dir is not None and options.source is not None:
        raise ConfigError("--dir: leave one of --dir and --from out")
    options.source = options.source or _configured_source(options)
    line = ProgressLine(quiet=options.quiet)
    try:
        picture = collect(
            options.market,
            options.source,
            start=options.start,
            end=options.end,
            columns=options.columns,
            progress=line.show,
            **_source_options(options),
        )
        line.show("drawing …")
        save(picture, options.out)
    finally:
        line.end()
    known = picture.known_share
    sys.stdout.write(f"{options.out}  {picture.events:,} events, book known {known:.1%} of the time\n")
    if options.json:
        figures = {"path": str(options.out), "events": picture.events, "known_share": known}
        sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def _client(settings: Settings, url: str | None, *, make: bool = False) -> Client:
    from kalshi_fast.sinks import clickhouse

    if url is None:
        raise ConfigError("CLICKHOUSE_URL is off: there is nothing to ask")
    clickhouse.refuse_embedded_cluster(url, settings.clickhouse_cluster)
    if not make:
        _require_recorded(url)
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


def _check(options: argparse.Namespace) -> int:
    from kalshi_fast.check.run import all_checks, exit_code, figures, run_checks
    from kalshi_fast.progress import ProgressLine

    settings = _load(options).settings
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


def _bench(options: argparse.Namespace) -> int:
    from kalshi_fast.bench.command import bench

    return bench(options)


def _config(options: argparse.Namespace) -> int:
    if options.template:
        sys.stdout.write(template())
        return 0
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
    "watch": _watch,
    "top": _top,
    "markets": _markets,
    "query": _query,
    "replay": _replay,
    "compact": _compact,
    "import": _import,
    "export": _export,
    "plot": _plot,
    "sql": _sql,
    "check": _check,
    "bench": _bench,
    "config": _config,
}


def process() -> int:
    """The command as a process of its own."""
    logs.catch_all()
    _no_core_dumps()
    return main()


def _no_core_dumps() -> None:
    """A core dump would hold the private key. What we start inherits it.

    One byte, not none: Linux asks a program that takes core dumps (a core_pattern with '|', such as
    systemd-coredump) whatever the limit is, but not when it is 1; a file is not begun below a page.
    """
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if sys.platform == "linux" and most != 0 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (limit, most))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    logs.begin()
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except KalshiFastError as error:
        sys.stderr.write(f"kalshi-fast: {blotted(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has read enough; the interpreter must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
