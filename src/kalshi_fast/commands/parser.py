"""Every command with its flags and help text. Not here: what they do."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from kalshi_fast import __version__
from kalshi_fast.bench import options as bench_options
from kalshi_fast.commands.flags import add_output, add_settings, add_source, add_stretch, positive, rate
from kalshi_fast.config import SELECTORS, SETTINGS
from kalshi_fast.simulator import options as simulator_options
from kalshi_fast.simulator.beside import DEMO_DIR, RATE, SIMULATED_DIR
from kalshi_fast.simulator.options import natural
from kalshi_fast.statuses import FILTERS


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
    add_settings(run)
    run.add_argument("--seconds", type=positive, help="stop after so many seconds")
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
    add_output(run)

    demo = commands.add_parser(
        "demo",
        help="the whole system against an exchange simulator",
        description="Records from a simulated exchange, counts everything, fails if any number disagrees.",
    )
    demo.add_argument("--seconds", type=positive, default=8, help="length of the synthetic play (8)")
    demo.add_argument("--markets", type=positive, default=100, help="synthetic markets (100)")
    demo.add_argument("--rate", type=natural, help="frames per second, 0: no limit (20000; recordings: 0)")
    demo.add_argument("--seed", type=int, default=1, help="of the synthetic markets (1)")
    demo.add_argument(
        "--recording",
        type=Path,
        metavar="DIR|FILE",
        help="play the Parquet recordings in this directory, or the frames of this capture (.jsonl), instead",
    )
    demo.add_argument(
        "--use-yes-price",
        action=argparse.BooleanOptionalAction,
        help="of a capture: its no side is on the yes scale (else its snapshots say it)",
    )
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
    add_output(demo)

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
    add_output(replay)

    markets = commands.add_parser(
        "markets",
        help="list and search the exchange's markets",
        description="Lists markets by REST, sorted by volume: all that are open, or those that the flags and"
        " the words name. What selects markets is read from flags only.",
    )
    markets.add_argument("words", nargs="*", metavar="WORD", help="to be found in name or title, in any case")
    markets.add_argument("--status", choices=(*FILTERS, "any"), default="open", help="(open)")
    markets.add_argument("--format", choices=("table", "tickers"), default="table", help="(table)")
    markets.add_argument("--json", action="store_true", help="everything as one list of JSON objects")
    markets.add_argument("--limit", type=positive, help="rows at most (50 in a table, else all)")
    markets.add_argument("--quiet", action="store_true", help="no progress")
    add_settings(
        markets, (*SELECTORS, "MARKET_COMBOS", "PROD_KEYID", "PROD_KEYFILE", "REST_URL", "WS_CAFILE")
    )

    query = commands.add_parser(
        "query",
        help="ask ClickHouse",
        description="Runs one SQL statement, while a recording runs or afterwards. Without a statement: what"
        " has been recorded, by market.",
    )
    query.add_argument("sql", nargs="?", metavar="SQL", help="the statement")
    query.add_argument("--dir", type=Path, help="ask what `demo --dir` or `run --simulated` has recorded")
    query.add_argument("--format", default="PrettyCompactMonoBlock", help="any output format of ClickHouse")
    add_settings(query)

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
        "--max-bytes", type=positive, help="size of a merged file (1073741824); a larger one stays as it is"
    )
    compact.add_argument("--dry-run", action="store_true", help="say what would be merged, change nothing")
    add_output(compact)
    add_settings(compact)

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
    add_output(importing)
    add_settings(
        importing, only=[setting.name for setting in SETTINGS if setting.name.startswith("CLICKHOUSE_")]
    )

    rereading = commands.add_parser(
        "reread",
        help="read rejected frames again, after an upgrade",
        description="Reads the frames that could not be used and were kept in PARQUET_DIR/rejected again, and"
        " stores what they say now: trades, tickers and announcements, each once, in every store that is set."
        " Frames of order books have no place after the fact; it says so. Not while a recording runs.",
    )
    rereading.add_argument("--dry-run", action="store_true", help="only report, store nothing")
    add_output(rereading)
    add_settings(rereading)

    export = commands.add_parser(
        "export",
        help="recorded books for hftbacktest, NautilusTrader, or as CSV",
        description="Writes recorded books in the form of another program: a file for each market and date.",
    )
    export.add_argument(
        "form", choices=("hftbacktest", "csv", "nautilus"), metavar="FORM", help="%(choices)s"
    )
    add_source(export, "markets; all when there is none")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the files go")
    export.add_argument("--bbo", action="store_true", help="csv: best bid and ask instead of the events")
    export.add_argument("--overwrite", action="store_true", help="replace files that are there")
    add_output(export)

    plot = commands.add_parser(
        "plot",
        help="a picture of a recorded market",
        description="Draws best prices, spread and depth of one market; time in which its book was unknown is"
        " hatched grey. Needs the extra `plot`.",
    )
    plot.add_argument("market", metavar="MARKET", help="its ticker")
    plot.add_argument("--dir", type=Path, help="from what `demo --dir` or `run --simulated` has recorded")
    add_stretch(plot, "CLICKHOUSE_URL, or PARQUET_DIR when that is off")
    plot.add_argument("--out", type=Path, required=True, metavar="FILE", help=".png, .svg, .pdf or .html")
    plot.add_argument("--columns", type=positive, default=800, help="columns of time (800)")
    add_output(plot)

    sql = commands.add_parser(
        "sql",
        help="print or apply the schema of the tables",
        description="Prints the statements of the schema, in order; nothing is changed without --apply.",
    )
    what = sql.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="bring the configured ClickHouse up to date")
    what.add_argument("--status", action="store_true", help="what the configured ClickHouse has had")
    add_settings(sql)
    sql.add_argument("--cluster", dest="CLICKHOUSE_CLUSTER", metavar="NAME", help="as --clickhouse-cluster")

    check = commands.add_parser(
        "check",
        help="whether a recording would work here, and what could be better",
        description="Key, exchange, clock, stores, disk and host, one line each: ok, warning or failure, and"
        " the remedy. Writes and changes nothing. Ends with 1 when there is a failure.",
    )
    check.add_argument("--limit", type=positive, default=10, help="seconds that a check may take (10)")
    check.add_argument("--json", action="store_true", help="as one JSON object")
    check.add_argument("--quiet", action="store_true", help="no progress")
    add_settings(check)
    bench = commands.add_parser(
        "bench",
        help="measure everything, beside other libraries",
        description="Runs the whole benchmark suite in one process tree and prints a table.",
    )
    bench_options.add_options(bench)
    add_output(bench)

    config = commands.add_parser("config", help="show every setting and where it comes from")
    form = config.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="as one JSON object")
    form.add_argument("--template", action="store_true", help="an environment file with every default")
    add_settings(config)
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
    watch.add_argument("--rate", type=rate, default=4.0, metavar="HZ", help="at most so often a second (4)")
    watch.add_argument("--levels", type=positive, default=10, help="of each side, with --json (10)")
    watch.add_argument("--log", type=Path, metavar="FILE", help="append every event as NDJSON")
    watch.add_argument("--seconds", type=positive, help="stop after so many seconds")
    watch.add_argument("--once", action="store_true", help="stop when the book has been shown once")
    add_settings(watch)

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
    top.add_argument("--interval", type=rate, default=1.0, metavar="SECONDS", help="between two looks (1)")
    top.add_argument("--match", default="*", metavar="PATTERN", help="only markets like this: 'KXBTC*'")
    top.add_argument("--limit", type=positive, help="so many markets")
    add_settings(top, ("HTTP_LISTEN",))
