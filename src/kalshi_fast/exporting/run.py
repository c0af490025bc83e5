"""One export from a source to its files and figures. Not here: the forms (see the package)."""

from __future__ import annotations

import difflib
import gzip
import re
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from kalshi_fast.errors import ConfigError, ExportError
from kalshi_fast.exporting import hft, nautilus, table
from kalshi_fast.exporting.days import MAX_ROWS, Totals, market_days
from kalshi_fast.exporting.files import new_file
from kalshi_fast.exporting.trades import Trades
from kalshi_fast.progress import ProgressLine, bar
from kalshi_fast.replaying.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kalshi_fast.exporting.days import MarketDay
    from kalshi_fast.exporting.trades import TradeRows
    from kalshi_fast.replaying.source import Source
    from kalshi_fast.replaying.times import Moment

FORMS: Final = ("hftbacktest", "csv", "nautilus")
_FILE_NAME: Final = re.compile(r"[A-Z0-9.-]{1,128}")
_LISTED: Final = 10_000  # markets that are looked at for one of a similar name


@dataclass(slots=True)
class ExportedFile:
    """A file of an export. ``market`` is empty where a file has several; ``tick_size`` is dollars."""

    path: str
    market: str
    date: str
    rows: int
    trades: int = 0
    tick_size: float = 0.0
    raised: int = 0
    early: int = 0
    early_max_ms: float = 0.0


@dataclass(slots=True)
class ExportReport:
    """``crossed``: events after which a book was crossed or locked, which other programs cannot show;
    ``unknown``: events of a book that is unknown, left out; ``faults``: events that cannot be true;
    ``lone_trades``: of markets that had no book on their date, left out."""

    form: str
    files: list[ExportedFile] = field(default_factory=list)
    rows: int = 0
    events: int = 0
    crossed: int = 0
    unknown: int = 0
    faults: int = 0
    lone_trades: int = 0

    def figures(self) -> dict[str, Any]:
        return asdict(self)


def export(
    form: str,
    source: str | Path,
    out: Path,
    *,
    markets: Sequence[str] | None = None,
    start: Moment | None = None,
    end: Moment | None = None,
    bbo: bool = False,
    overwrite: bool = False,
    max_rows: int = MAX_ROWS,
    quiet: bool = False,
    **options: Any,  # noqa: ANN401 - of open_source
) -> ExportReport:
    """Writes the recorded books of ``markets`` (None: all) in one of FORMS into the directory ``out``.

    hftbacktest and nautilus: a file for each market and date (in parts when a date has more than ``max_rows``
    updates), with the trades in it or, nautilus, beside it. csv: a file for each date, of events, and one of
    trades where there are any, or with ``bbo`` of the best bid and ask.
    """
    if form not in FORMS:
        raise ConfigError(f"FORM: expected one of {', '.join(FORMS)}, got {form!r}")
    if bbo and form != "csv":
        raise ConfigError("--bbo: only csv has it")
    replay = Replay(source, markets=markets, start=start, end=end, **options)
    report = ExportReport(form)
    line = ProgressLine(quiet=quiet)
    try:
        if form == "csv":
            missing = set(markets or ()) - _csv(replay, out, report, line, bbo=bbo, overwrite=overwrite)
        else:
            trades = Trades(replay)
            with replay.open() as opened:
                totals = Totals()
                for day in market_days(
                    opened, totals, max_rows=max_rows, progress=lambda: _show(line, opened, totals.events)
                ):
                    for exported in _market_files(form, day, trades.of(day), out, overwrite=overwrite):
                        report.files.append(exported)
                        report.rows += exported.rows
                missing = set(markets or ()) - set(opened.tickers)
            report.events, report.crossed = totals.events, totals.crossed
            report.unknown, report.faults = totals.unknown, totals.faults
            trades.finish()
            report.lone_trades = trades.lone
    finally:
        line.end()
    if missing:
        raise unknown_market(min(missing), source, **options)
    return report


def _show(line: ProgressLine, source: Source, events: int) -> None:
    share = bar(source.read / source.rows) + "  " if source.rows else ""
    line.show(f"{share}{events:,} events")


def _market_files(
    form: str, day: MarketDay, traded: TradeRows | None, out: Path, *, overwrite: bool
) -> Iterator[ExportedFile]:
    """The files of a part of a date, each behind its being there."""
    if _FILE_NAME.fullmatch(day.ticker) is None:
        raise ExportError(f"market_ticker: expected A-Z, 0-9, '.' and '-', got {day.ticker!r}")
    part = f".{day.part + 1}" if day.part else ""
    name = f"{day.ticker}_{table.file_date(day.date)}{part}"
    trades = 0 if traded is None else len(traded)
    exported = ExportedFile(
        path=str(out / f"{name}.{'npz' if form == 'hftbacktest' else 'parquet'}"),
        market=day.ticker,
        date=day.date,
        rows=len(day),
        tick_size=hft.tick_size(day.updates["price_e4"]),
        raised=day.raised,
        early=day.early,
        early_max_ms=day.early_max_ns / 1e6,
    )
    if form == "hftbacktest":
        exported.trades = trades
        exported.rows += trades
        if exported.rows:
            with new_file(Path(exported.path), overwrite=overwrite) as file:
                hft.write_npz(file, hft.event_array(day, traded))
            yield exported
        return
    if exported.rows:
        with new_file(Path(exported.path), overwrite=overwrite) as file:
            pq.write_table(nautilus.delta_table(day), file, compression="zstd")
        yield exported
    if traded is not None and trades:
        path = out / f"{name}.trades.parquet"
        with new_file(path, overwrite=overwrite) as file:
            pq.write_table(nautilus.trade_table(traded), file, compression="zstd")
        yield ExportedFile(str(path), day.ticker, day.date, trades, trades)


def _csv(
    replay: Replay, out: Path, report: ExportReport, line: ProgressLine, *, bbo: bool, overwrite: bool
) -> set[str]:
    """Returns the markets that there are."""
    found: set[str] = set()

    def tables() -> Iterator[tuple[str, pa.Table]]:
        if bbo:
            for date, rows in table.bbo_tables(replay):
                found.update(rows.column("market").unique().to_pylist())
                yield date, rows
            return
        with replay.open() as source:
            for date, rows in table.event_tables(source):
                yield date, rows
                report.events += rows.num_rows
                _show(line, source, report.events)
            found.update(source.tickers)

    _csv_files("bbo" if bbo else "events", tables(), out, report, overwrite=overwrite)
    if not bbo and "trades" in replay.tables():
        _csv_files("trades", table.trade_tables(replay), out, report, overwrite=overwrite)
    return found


def _csv_files(
    what: str,
    tables: Iterable[tuple[str, pa.Table]],
    out: Path,
    report: ExportReport,
    *,
    overwrite: bool,
) -> None:
    with ExitStack() as stack:
        writer, now = None, ""
        for date, rows in tables:
            if writer is None or date != now:
                stack.close()
                now = date
                path = out / f"{what}_{table.file_date(date)}.csv.gz"
                file = stack.enter_context(new_file(path, overwrite=overwrite))
                packed = stack.enter_context(gzip.GzipFile("", "wb", 3, file, mtime=0))
                writer = stack.enter_context(
                    pyarrow.csv.CSVWriter(packed, rows.schema, write_options=table.OPTIONS)
                )
                report.files.append(ExportedFile(str(path), "", date, 0))
            writer.write_table(rows)
            report.files[-1].rows += rows.num_rows
            report.rows += rows.num_rows
            if what == "trades":
                report.files[-1].trades += rows.num_rows


def unknown_market(ticker: str, source: str | Path, **options: Any) -> ExportError:  # noqa: ANN401
    """That nothing is recorded of a market, with those of a similar name that something is recorded of."""
    known = known_markets(source, **options)
    within = [name for name in known if name.startswith(ticker.upper())]
    close = list(dict.fromkeys(within + difflib.get_close_matches(ticker.upper(), known, 5, 0.5)))[:5]
    told = f"; close to it: {', '.join(close)}" if close else ""
    if not close and known:
        told = f"; recorded: {', '.join(known[:5])}{' …' if len(known) > 5 else ''}"
    return ExportError(f"MARKET: nothing is recorded of {ticker} in {source}{told}")


def known_markets(source: str | Path, **options: Any) -> list[str]:  # noqa: ANN401
    """The markets of a source, in order of appearance; at most so many that a message can be made of them."""
    with Replay(source, **options).open() as opened:
        for _ in opened.chunks(()):
            if len(opened.tickers) >= _LISTED:
                break
        return [ticker for ticker in opened.tickers if ticker]  # a database's dictionary begins with none


def describe(report: ExportReport, *, shown: int = 10) -> str:
    """The figures for a terminal."""
    lines = [_line(file) for file in report.files[:shown]]
    if len(report.files) > shown:
        lines.append(f"… and {len(report.files) - shown:,} more files")
    of = f" of {report.events:,} events" if report.events else ""
    lines.append(f"{report.rows:,} rows{of} in {len(report.files):,} files")
    notes = {
        "of a book that is unknown, left out": report.unknown,
        "after which a book was crossed or locked": report.crossed,
        "that cannot be true: the book is unknown from there": report.faults,
        "dated by the exchange after their receipt: dated as received": sum(f.early for f in report.files),
        "dated before the event before them: dated as that one": sum(f.raised for f in report.files),
    }
    lines += [f"{count:,} events {text}" for text, count in notes.items() if count]
    if report.lone_trades:
        lines.append(f"{report.lone_trades:,} trades of markets without a book on their date, left out")
    return "\n".join(lines)


def _line(file: ExportedFile) -> str:
    tick = f"  tick_size={file.tick_size:g}" if file.tick_size else ""
    traded = f"  {file.trades:,} trades" if file.trades else ""
    return f"{file.path}  {file.rows:,} rows{tick}{traded}"
