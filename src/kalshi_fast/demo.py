"""``kalshi-fast demo``: the whole system against the exchange simulator, and a count of everything.

The simulator runs as a process of its own and is spoken to through a real, TLS-verified WebSocket; what
was recorded is then counted in both stores and compared with what the simulator knows it sent. Any number
that disagrees makes the demo fail. Not here: what recording means (``recording``), the exchange
(``simulator``).
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.dataset as ds

from kalshi_fast import demo_capture
from kalshi_fast._book import FINEST, OrderBook
from kalshi_fast.channels.rows import SCHEMAS
from kalshi_fast.checkpoints import compare
from kalshi_fast.config import CHANNELS, EVERYTHING, writable_directory
from kalshi_fast.errors import ConfigError, SimulatorError
from kalshi_fast.progress import ProgressLine, bar
from kalshi_fast.receiver import first_conn_id
from kalshi_fast.recording import Recording
from kalshi_fast.simulator.beside import FIRST_MARKET, invitation, stores
from kalshi_fast.simulator.captured import is_capture
from kalshi_fast.simulator.events import SERIES as MULTIVARIATE_SERIES
from kalshi_fast.simulator.process import Simulator
from kalshi_fast.simulator.subscription import FILL, MULTIVARIATE
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.parquet import HISTORIES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kalshi_fast.config import Settings

_DRAIN_TIMEOUT_S: Final = 60.0
_QUIET_S: Final = 0.3
CHECKPOINT_S: Final = 0.5
CHAOS_IDLE_S: Final = 0.5
_SHOWN_MARKETS: Final = 5
# The announcements that are no turn of the life of one market, and what the lines call them.
ANNOUNCEMENTS: Final = {
    "metadata_updated": "titles and strikes changed",
    "event_lifecycle": "events announced",
    "event_fee_update": "fees of events changed",
    MULTIVARIATE: "of multivariate markets",
}


@dataclass(frozen=True, slots=True)
class DemoOptions:
    """What the demo plays: a synthetic market, or a recording in one of the two wire forms."""

    directory: Path
    seconds: int = 8
    markets: int = 100
    rate: int = 20_000
    seed: int = 1
    recording: Path | None = None
    form: str = "current"
    use_yes_price: bool | None = None  # of a capture
    port: int = 0
    tls: bool = True
    chaos: bool = False
    hot_standby: bool = False
    life_s: float = 1.0
    quiet: bool = False

    def simulator_arguments(self) -> list[str]:
        """The command line of the simulator process."""
        arguments = ["--dir", str(self.directory / "simulator"), "--rate", str(self.rate)]
        arguments += ["--port", str(self.port), "--tls" if self.tls else "--no-tls"]
        if self.recording is not None:
            arguments += ["--recording", str(self.recording), "--form", self.form]
            if self.use_yes_price is not None:
                arguments.append("--use-yes-price" if self.use_yes_price else "--no-use-yes-price")
            return arguments
        if self.chaos:
            arguments += ["--chaos", "--checkpoints", str(CHECKPOINT_S), "--unique-sids"]
            arguments += ["--heartbeat", str(CHAOS_IDLE_S)]
        if self.life_s:
            arguments += ["--life", str(self.life_s)]
        return [
            *arguments,
            *("--markets", str(self.markets), "--seed", str(self.seed), "--seconds", str(self.seconds)),
        ]

    @property
    def checkpoints(self) -> Path:
        """Where the simulator writes what the books really were."""
        return self.directory / "simulator" / "checkpoints.jsonl"

    def expected(self) -> demo_capture.Expected | None:
        """What has to come of a capture; None: something else is played."""
        if self.recording is None or not is_capture(self.recording):
            return None
        if self.hot_standby:
            raise ConfigError("--hot-standby: a capture is of one connection at a time; leave it out")
        try:
            return demo_capture.Expected.of(self.recording, self.use_yes_price)
        except SimulatorError as error:
            raise ConfigError(str(error)) from error

    def settings(self, simulator: Simulator) -> dict[str, str | None]:
        """What the recorder is to be told, by the names of its settings."""
        told: dict[str, str | None] = {
            "PROD_KEYID": simulator.key_id,
            "PROD_KEYFILE": simulator.key_file,
            # Of invented markets every one is wanted, those that come during the play too.
            "MARKET_TICKERS": ",".join(simulator.tickers) if self.recording is not None else None,
            "MARKET_ALL_OPEN": "on" if self.recording is None else None,
            "WS_URL": simulator.url,
            "WS_CAFILE": simulator.ca_file,
            "REST_URL": simulator.rest_url,
            "CHANNELS": ",".join(CHANNELS),
            "RAW": FILL,
            "REFERENCE": EVERYTHING,
            **stores(self.directory),
            "HOT_STANDBY": "on" if self.hot_standby else None,
        }
        if self.chaos:
            # Failures by the second: with the waits of real life most of the play would be missed.
            told |= {
                "SUBSCRIPTION_MARKETS": "100",
                "WS_IDLE_SECS": str(CHAOS_IDLE_S),
                "WS_BACKOFF_SECS": "0.1",
                "WS_BACKOFF_MAX_SECS": "0.5",
                "WS_REFUSED_SECS": "0.2",
            }
        expected = self.expected()
        return told if expected is None else told | expected.settings()


async def run_demo(options: DemoOptions, settings_for: Callable[[Simulator], Settings]) -> dict[str, Any]:
    """Records the whole play and returns every figure; ``result["agrees"]`` says whether they match."""
    writable_directory("--dir", options.directory)
    expected = options.expected()
    line = ProgressLine(quiet=options.quiet)
    line.show("starting the exchange simulator and the embedded ClickHouse engine …")
    simulator = await Simulator.start(options.simulator_arguments())
    try:
        # That of a capture is told, or was read off its snapshots; else nothing in it could prove it.
        recording = Recording(settings_for(simulator), scale_is_known=expected is not None)
        recording.open()
        report = await _record(recording, simulator, options, line, expected)
    finally:
        await simulator.stop()
        line.end()
    if expected is not None:
        report["raw_stored"] = _raw_since(_parquet(recording.settings) / "raw", report["since_ns"])
        report["rejected"] = recording.recorder.counts.rejected
        return demo_capture.figures(expected, recording.settings, report)
    return _figures(recording, report, options)


async def _record(
    recording: Recording,
    simulator: Simulator,
    options: DemoOptions,
    line: ProgressLine,
    expected: demo_capture.Expected | None,
) -> dict[str, Any]:
    """Runs the recording until every frame sent has arrived; the simulator's report, with our books."""

    def progress(recording: Recording) -> None:
        counts = recording.recorder.counts
        elapsed = time.monotonic() - recording.started
        done = elapsed / options.seconds if simulator.frames is None else counts.frames / simulator.frames
        line.show(
            f"{bar(done)} {elapsed:4.1f} s  {counts.frames:>9,} frames  {counts.events:>9,} events"
            f"  {recording.writer.report.rows.get('ClickHouse', 0):>9,} rows in ClickHouse"
        )

    since_ns = time.time_ns()
    since = first_conn_id(since_ns)
    running = asyncio.ensure_future(recording.run(progress))
    arrived = _until_all_arrived(recording, simulator, chaos=options.chaos, expected=expected)
    watching = asyncio.ensure_future(arrived)
    try:
        await asyncio.wait({running, watching}, return_when=asyncio.FIRST_COMPLETED)
        if running.done() and not watching.done():
            watching.cancel()
            await running
            raise SimulatorError("the recording was stopped before the simulator had finished")
        report = await watching
        report["first_conn_id"], report["since_ns"] = since, since_ns
    finally:
        recording.stop()
        await asyncio.gather(running, return_exceptions=True)
        line.show("delivering what is buffered …")
        await asyncio.to_thread(recording.close)
    await running
    return report


async def _until_all_arrived(
    recording: Recording, simulator: Simulator, *, chaos: bool, expected: demo_capture.Expected | None
) -> dict[str, Any]:
    started = time.monotonic()
    sent = await simulator.finished()
    elapsed = time.monotonic() - started
    deadline = time.monotonic() + _DRAIN_TIMEOUT_S
    # Markets may still come and go, with frames of their own: until nothing comes and nothing is doubtful.
    # Under chaos not all that was sent need arrive.
    before, quiet_since = -1, time.monotonic()
    report = await simulator.report()
    while time.monotonic() < deadline:
        frames = recording.recorder.counts.frames
        if frames != before:
            before, quiet_since = frames, time.monotonic()
        elif (chaos or frames >= sent) and time.monotonic() - quiet_since > _QUIET_S:
            report = await simulator.report()
            complete = chaos or recording.recorder.counts.frames == report["frames_sent"]
            if complete and (expected is not None or _all_exact(recording, report["living"])):
                break
        await asyncio.sleep(0.01)
    report["frames_received"] = recording.recorder.counts.frames
    report["frames_per_s"] = round(recording.recorder.counts.frames / max(elapsed, 1e-9))
    # Copies, made while the connection still stands: closing it makes every book unknown.
    if expected is not None:
        report["our_books"] = demo_capture.our_books(recording.books)
    else:
        books = recording.books.by_ticker
        report["our_books"] = {ticker: market.book.copy() for ticker, market in books.items()}
    return report


def _all_exact(recording: Recording, tickers: list[str]) -> bool:
    markets = recording.books.by_ticker
    return (
        recording.channels.idle
        and recording.follower.idle
        and all(ticker in markets and not markets[ticker].book.stale for ticker in tickers)
    )


def _figures(recording: Recording, report: dict[str, Any], options: DemoOptions) -> dict[str, Any]:
    figures: dict[str, Any] = {"frames_sent": report["frames_sent"], **recording.summary()}
    figures["frames_received"] = report["frames_received"]
    ours = report["our_books"]
    # Those that are settled may have been let go already, or since the report.
    kept = recording.books.by_ticker.keys() | set(report["living"])
    carried = [ticker for ticker in report["books"] if ticker in kept]
    truth = {ticker: _book(report["books"][ticker]) for ticker in carried}
    figures["markets_let_go"] = len(report["books"]) - len(carried)
    figures["books_compared"] = len(truth)
    figures["books_equal"] = sum(ours.get(ticker) == book for ticker, book in truth.items())
    figures["frames_per_s"] = report["frames_per_s"]
    settings = recording.settings
    assert settings.clickhouse_url is not None  # noqa: S101 - the demo's settings name both stores
    assert settings.parquet_dir is not None  # noqa: S101
    client = clickhouse.connect(
        settings.clickhouse_url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password,
        database=settings.clickhouse_database,
    )
    try:
        # Counted in the stores themselves, this recording's rows only: the directory may hold others.
        figures["clickhouse_rows"] = client.query(
            "SELECT count() FROM orderbook_events WHERE conn_id >= {first:UInt64}",
            parameters={"first": report["first_conn_id"]},
        ).result_rows[0][0]
        figures["created"] = len(report["created"])
        figures["heard_us"] = sorted(report["heard_us"])
        figures["created_complete"] = _complete(client, report["created"], report["first_conn_id"])
        figures["markets_known"] = _known(client, report["known"])
        figures["markets_exchange"] = len(report["known"])
        stored = _stored_books(client, list(truth))
        figures["sql_books_equal"] = sum(stored[ticker] == book for ticker, book in truth.items())
        figures["best_bid_ask"] = [
            dict(zip(("market", "yes_bid", "bid_size", "yes_ask", "ask_size"), map(_text, row), strict=True))
            for row in client.query(
                "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size FROM best_bid_ask"
                " WHERE market_ticker IN {tickers:Array(String)} ORDER BY market_ticker LIMIT {shown:UInt8}",
                parameters={"tickers": list(truth), "shown": _SHOWN_MARKETS},
            ).result_rows
        ]
        figures["channels"] = {
            table: {
                "clickhouse": client.query(
                    f"SELECT count() FROM {table}"  # noqa: S608 - our own names
                    " WHERE ingest_ts >= fromUnixTimestamp64Nano({since:Int64})",
                    parameters={"since": report["since_ns"]},
                ).result_rows[0][0],
                "parquet": _rows_since(settings.parquet_dir / table, report["since_ns"]),
            }
            for table in HISTORIES
        }
        in_clickhouse = _kinds(
            (event_type, ticker, many)
            for event_type, ticker, many in client.query(
                "SELECT event_type, market_ticker, count() FROM market_lifecycle"
                " WHERE ingest_ts >= fromUnixTimestamp64Nano({since:Int64})"
                " GROUP BY event_type, market_ticker",
                parameters={"since": report["since_ns"]},
            ).result_rows
        )
    finally:
        client.close()
    in_parquet = _kinds(_announced_since(settings.parquet_dir / "market_lifecycle", report["since_ns"]))
    figures["announcements"] = {
        kind: {
            "exchange": report["announcements"].get(kind, 0),
            "clickhouse": in_clickhouse[kind],
            "parquet": in_parquet[kind],
        }
        for kind in sorted(report["announcements"].keys() | in_clickhouse.keys() | ANNOUNCEMENTS.keys())
    }
    figures["exchange_raw"] = report["fills_sent"]
    figures["raw_stored"] = _raw_since(settings.parquet_dir / "raw", report["since_ns"])
    figures["market"] = FIRST_MARKET if options.recording is None else next(iter(sorted(truth)), "MARKET")
    figures["exchange_trades"] = sum(report["traded"].values())
    figures["exchange_tickers"] = report["tickers_sent"]
    figures["exchange_lifecycle"] = report["announcements_sent"]
    figures["exchange_reference_prices"] = report["reference_sent"]
    files = ds.dataset(_parquet(settings) / "orderbook", format="parquet")
    figures["parquet_rows"] = files.count_rows(filter=ds.field("conn_id") >= report["first_conn_id"])
    if options.chaos:
        figures |= _checkpoints(options, report["first_conn_id"])
        figures["faults"] = report["faults"]
    complete = figures["frames_sent"] == figures["frames_received"] and figures["frames_rejected"] == 0
    figures["agrees"] = (
        (complete or options.chaos)
        and figures.get("checkpoints_wrong", 0) == 0
        and figures["events"] == figures["clickhouse_rows"] == figures["parquet_rows"]
        and figures["books_compared"] == figures["books_equal"] == figures["sql_books_equal"]
        and (options.chaos or figures["created_complete"] == figures["created"])
        and (options.recording is not None or figures["markets_known"] == figures["markets_exchange"])
        and all(_channel_agrees(figures, options, table) for table in HISTORIES)
        and all(_announced(found, options) for found in figures["announcements"].values())
        and (options.chaos or options.hot_standby or figures["raw_stored"] == figures["exchange_raw"])
    )
    return figures


def _parquet(settings: Settings) -> Path:
    assert settings.parquet_dir is not None  # noqa: S101 - the demo's settings name both stores
    return settings.parquet_dir


def _channel_agrees(figures: dict[str, Any], options: DemoOptions, table: str) -> bool:
    """Trades are complete whatever happened: what was missed came by REST. The others come only once, and
    with a hot standby they are sent twice and stored once."""
    stored, name = figures["channels"][table], table.removeprefix("market_")
    ours = bool(stored["clickhouse"] == stored["parquet"] == figures[name])
    if table == "trades" or not (options.chaos or options.hot_standby):
        return ours and bool(figures[name] == figures[f"exchange_{name}"])
    return ours


def _announced(found: dict[str, int], options: DemoOptions) -> bool:
    """As ``_channel_agrees`` of each kind of announcement."""
    same = found["clickhouse"] == found["parquet"]
    return same and (options.chaos or options.hot_standby or found["parquet"] == found["exchange"])


def _kinds(rows: Iterable[tuple[str, str, int]]) -> Counter[str]:
    """How many announcements there are of each kind, from (event_type, market_ticker, how many)."""
    found: Counter[str] = Counter()
    for event_type, ticker, many in rows:
        found[MULTIVARIATE if ticker.startswith(MULTIVARIATE_SERIES) else event_type] += many
    return found


def _announced_since(directory: Path, since_ns: int) -> Iterable[tuple[str, str, int]]:
    files = ds.dataset(directory, format="parquet", schema=SCHEMAS[directory.name])
    since = pa.scalar(since_ns, pa.timestamp("ns", "UTC"))
    found = files.to_table(
        columns=["event_type", "market_ticker"], filter=ds.field("ingest_ts") >= since
    ).to_pylist()
    return [(row["event_type"], row["market_ticker"], 1) for row in found]


def _raw_since(directory: Path, since_ns: int) -> int:
    """Raw frames that came from this moment on."""
    found = 0
    for path in directory.glob("*.ndjson"):
        with path.open("rb") as lines:
            found += sum(msgspec.json.decode(line)["ingest_ns"] >= since_ns for line in lines)
    return found


def _rows_since(directory: Path, since_ns: int) -> int:
    """Rows in the Parquet files of a table that came from this moment on."""
    files = ds.dataset(directory, format="parquet", schema=SCHEMAS[directory.name])
    since = pa.scalar(since_ns, pa.timestamp("ns", "UTC"))
    return int(files.count_rows(filter=ds.field("ingest_ts") >= since))


def _checkpoints(options: DemoOptions, first_conn_id: int) -> dict[str, Any]:
    """The stored events, and nothing else, against every checkpoint that the simulator took."""
    files = ds.dataset(options.directory / "parquet" / "orderbook", format="parquet")
    names = ("market_ticker", "sid", "seq", "type", "side", "price_e4", "qty_e2")
    table = files.to_table(columns=list(names), filter=ds.field("conn_id") >= first_conn_id)
    columns = [table.column(name).to_pylist() for name in names]
    result = compare(options.checkpoints, zip(*columns, strict=True))
    figures = dataclasses.asdict(result)
    return {f"checkpoints_{name}": value for name, value in figures.items()}


def _book(sides: dict[str, list[tuple[int, int]]]) -> OrderBook:
    book = OrderBook(FINEST)
    book.apply_snapshot(sides["yes"], sides["no"])
    return book


def _stored_books(client: Any, tickers: list[str]) -> dict[str, OrderBook]:  # noqa: ANN401
    """The books as latest_levels has them."""
    sides: dict[str, dict[str, list[tuple[int, int]]]] = {ticker: {"yes": [], "no": []} for ticker in tickers}
    rows = client.query(
        "SELECT market_ticker, side, price_e4, size_e2 FROM latest_levels"
        " WHERE market_ticker IN {tickers:Array(String)}",
        parameters={"tickers": tickers},
    ).result_rows
    for ticker, side, price, size in rows:
        sides[ticker][side].append((price, size))
    return {ticker: _book(found) for ticker, found in sides.items()}


def _complete(client: Any, created: dict[str, int], first_conn_id: int) -> int:  # noqa: ANN401
    """Of how many markets that came during the play every change is stored, behind a first snapshot."""
    rows = client.query(
        "SELECT market_ticker, countIf(type = 'delta'), argMin(type, (ingest_ts, seq, type))"
        " FROM orderbook_events WHERE market_ticker IN {tickers:Array(String)} AND conn_id >= {first:UInt64}"
        " GROUP BY market_ticker",
        parameters={"tickers": list(created), "first": first_conn_id},
    ).result_rows
    return sum(first == "clear" and deltas == created[ticker] for ticker, deltas, first in rows)


def _known(client: Any, truth: dict[str, list[str]]) -> int:  # noqa: ANN401
    """Of how many markets it is stored what the exchange says of them: status, result, price structure,
    subtitle."""
    rows = client.query(
        "SELECT market_ticker, status, result, price_level_structure, subtitle FROM markets_now"
        " WHERE market_ticker IN {tickers:Array(String)}",
        parameters={"tickers": list(truth)},
    ).result_rows
    return sum(truth[ticker] == list(said) for ticker, *said in rows)


def _short(table: str) -> str:
    return table.removeprefix("market_").removesuffix("_prices")


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _waits(heard_us: list[int]) -> str:
    half, most = heard_us[len(heard_us) // 2] / 1000, heard_us[-1] / 1000
    return f"(subscribed {half:.0f} ms after they were announced, {most:.0f} at most)"


def _told(figures: dict[str, Any], table: str) -> str:
    name, stored = table.removeprefix("market_"), figures["channels"][table]
    if stored["clickhouse"] != stored["parquet"]:
        return f"{stored['clickhouse']:>12,}  DIFFERENT: {stored['parquet']:,} in Parquet"
    return f"{stored['clickhouse']:>12,}  ({figures[f'exchange_{name}']:,} at the exchange)"


def _beside(figures: dict[str, Any]) -> Iterable[str]:
    """The kinds of announcements, and what was kept as it came."""
    for kind, what in ANNOUNCEMENTS.items():
        found = figures["announcements"][kind]
        more = f"({found['exchange']:,} at the exchange)"
        if found["clickhouse"] != found["parquet"]:
            more = f"DIFFERENT: {found['parquet']:,} in Parquet"
        yield f"  {what:<28}{found['clickhouse']:>12,}  {more}"
    more = f"({figures['exchange_raw']:,} at the exchange)"
    yield f"{f'{FILL} kept as it came':<30}{figures['raw_stored']:>12,}  {more}"


def describe(figures: dict[str, Any], directory: Path) -> str:
    """The figures as the demo prints them."""
    if "capture" in figures:
        return demo_capture.describe(figures, directory)

    def line(what: str, key: str, more: str = "", same_as: str = "") -> str:
        verdict = "" if not same_as else "ok" if figures[key] == figures[same_as] else "DIFFERENT"
        return f"{what:<30}{figures[key]:>12,}  {more}{verdict}".rstrip()

    kinds = f"{figures['snapshots']:,} snapshots, {figures['deltas']:,} deltas, {figures['gaps']:,} gaps"
    of_books = f"of {figures['books_compared']:,}  "
    chaos = []
    if "faults" in figures:
        kinds_of_faults = ", ".join(f"{count} {kind}" for kind, count in sorted(figures["faults"].items()))
        chaos = [
            line("books at the checkpoints", "checkpoints_compared", "market by market, from the rows alone"),
            line("  equal to the exchange's", "checkpoints_exact"),
            line("  known to be unknown", "checkpoints_unknown"),
            line("  wrong", "checkpoints_wrong", "; ".join(figures["checkpoints_examples"])),
            f"faults: {kinds_of_faults}",
        ]
    lines = [
        line("frames sent by the exchange", "frames_sent"),
        line("frames received", "frames_received", same_as="" if chaos else "frames_sent"),
        line("frames per second", "frames_per_s"),
        line("events", "events", f"({kinds})"),
        line("rows in ClickHouse", "clickhouse_rows", same_as="events"),
        line("rows in Parquet", "parquet_rows", same_as="events"),
        line("books equal to the exchange's", "books_equal", of_books, "books_compared"),
        line("  the same asked of ClickHouse", "sql_books_equal", of_books, "books_compared"),
        *(f"{f'{_short(table)} in both stores':<30}{_told(figures, table)}" for table in HISTORIES),
        *(_beside(figures) if figures["created"] else []),
        *(
            [
                line("markets created meanwhile", "created", _waits(figures["heard_us"])),
                line("  all of it recorded", "created_complete", same_as="" if chaos else "created"),
                line("markets settled and let go", "markets_let_go"),
                line("markets as the exchange has them", "markets_known", same_as="markets_exchange"),
            ]
            if figures["created"]
            else []
        ),
        *chaos,
        "",
        "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size FROM kalshi.best_bid_ask",
        *(
            f"  {row['market']:<28}" + "".join(f"{row[key] or '-':>14}" for key in list(row)[1:])
            for row in figures["best_bid_ask"]
        ),
        "",
        invitation(directory, figures["market"]),
    ]
    if not figures["agrees"]:
        lines += ["", "FAILED: the numbers do not agree."]
    return "\n".join(lines)
