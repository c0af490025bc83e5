"""A recording against itself: every book rebuilt, what must be true checked, the findings by market.

Violations: a row that cannot be true (a level below zero, a price that there is not); a number that does
not rise; a delta of another subscription than the book's snapshot; a snapshot that differs from the known
book that it replaces; rows of the journal that are in no file. Only told: crossed books (the exchange may
have them), numbers without rows (replies take numbers too), deltas of unknown books. Not here: the checks of
events (``_verify``).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast._replay import BookTable
from kalshi_fast._verify import COUNTS, Verifier
from kalshi_fast.replaying.chunks import BOOK_COLUMNS
from kalshi_fast.replaying.parquet import ParquetSource
from kalshi_fast.replaying.replay import whole_frames
from kalshi_fast.replaying.times import iso

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kalshi_fast.replaying.replay import Replay
    from kalshi_fast.replaying.source import Source

SHOWN: Final = 20
_TABLES: Final = {
    "trades": "trades",
    "tickers": "tickers",
    "market_lifecycle": "announcements",
    "reference_prices": "reference prices",
}
_WRONG: Final = ("impossible", "numbers", "foreign", "differing")
_TEXTS: Final = {
    "impossible": "cannot be true",
    "numbers": "a number that does not rise",
    "foreign": "a delta of another subscription",
    "differing": "a snapshot that differs from the book it replaces",
}


@dataclass(slots=True)
class MarketReport:
    """One market; the counts of ``_verify.COUNTS``, and how it ended."""

    market: str
    known: bool = False
    events: int = 0
    snapshots: int = 0
    deltas: int = 0
    gaps: int = 0
    skipped: int = 0
    crossed: int = 0
    impossible: int = 0
    numbers: int = 0
    foreign: int = 0
    differing: int = 0

    @property
    def violations(self) -> int:
        return sum(getattr(self, name) for name in _WRONG)


@dataclass(slots=True)
class Report:
    """The findings; ``first_ns``, ``last_ns``: receive times of the first and last event (0: no events);
    ``beside``: rows of the other tables that are recorded there."""

    rows: int = 0
    first_ns: int = 0
    last_ns: int = 0
    unwritten: int = 0
    verified: bool = False
    markets: list[MarketReport] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    holes: list[str] = field(default_factory=list)
    beside: dict[str, int] = field(default_factory=dict)

    @property
    def violations(self) -> int:
        return sum(market.violations for market in self.markets) + len(self.holes)

    def figures(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        return {**asdict(self), "violations": self.violations}


def verify(replay: Replay, progress: Callable[[Source], None] = lambda source: None) -> Report:
    """Reads everything and checks it. ``progress`` is called behind every chunk."""
    report = Report(verified=True)
    with replay.open() as source:
        if isinstance(source, ParquetSource) and source.start_ns is None and source.end_ns is None:
            report.holes = holes(source)
        verifier = Verifier(BookTable(), SHOWN)
        for rows in whole_frames(_counted(source, report)):
            verifier.take(rows)
            progress(source)
        found = verifier.found().tolist()
        for ticker, book, counts in zip(source.tickers, verifier.table.books, found, strict=False):
            report.markets.append(
                MarketReport(ticker, not book.stale, **dict(zip(COUNTS, counts, strict=True)))
            )
        report.examples = [
            f"{iso(ns)} {source.tickers[market]}: {_TEXTS[what]}: {detail}"
            for market, ns, what, detail in verifier.violations
        ]
        if source.wanted is None:  # else other markets have the numbers between
            report.unwritten = verifier.unwritten
    report.beside = _beside(replay)
    return report


def _beside(replay: Replay) -> dict[str, int]:
    """Rows of the other tables; each trade counts once."""
    read = {
        "trades": replay.trades,
        "tickers": replay.tickers,
        "market_lifecycle": replay.lifecycle,
        "reference_prices": replay.reference,
    }
    there = replay.tables()
    return {table: sum(rows.num_rows for rows in read[table]()) for table in read if table in there}


def _counted(source: Source, report: Report) -> Any:  # noqa: ANN401
    for chunk in source.chunks():
        report.first_ns = report.first_ns or int(chunk.ingest_ns[0])
        report.last_ns = int(chunk.ingest_ns[-1])
        report.rows += len(chunk)
        yield chunk


def summarise(replay: Replay, progress: Callable[[Source], None] = lambda source: None) -> Report:
    """Reads everything and counts it, without the checks."""
    report = Report()
    table = BookTable()
    counts: NDArray[np.int64] = np.zeros((0, 4), np.int64)
    with replay.open() as source:
        for chunk in source.chunks(BOOK_COLUMNS):
            table.apply(chunk.type, chunk.market_ix, chunk.side, chunk.price_e4, chunk.qty_e2)
            if len(table) > len(counts):
                counts = np.concatenate([counts, np.zeros((2 * len(table) - len(counts), 4), np.int64)])
            keys = chunk.market_ix.astype(np.int64) * 4 + chunk.type
            counts += np.bincount(keys, minlength=4 * len(counts)).reshape(-1, 4)
            report.first_ns = report.first_ns or int(chunk.ingest_ns[0])
            report.last_ns = int(chunk.ingest_ns[-1])
            report.rows += len(chunk)
            progress(source)
        for ticker, book, (_, deltas, clears, gaps) in zip(
            source.tickers, table.books, counts.tolist(), strict=False
        ):
            report.markets.append(
                MarketReport(
                    ticker,
                    not book.stale,
                    events=deltas + clears + gaps,
                    snapshots=clears,
                    deltas=deltas,
                    gaps=gaps,
                )
            )
    report.beside = _beside(replay)
    return report


def holes(source: ParquetSource) -> list[str]:
    """Stretches of a journal between two that the files hold, and that none holds."""
    found = []
    stretches: dict[str, list[tuple[tuple[int, int], tuple[int, int]]]] = {}
    for file in source.files:
        for journal, seq, row, end_seq, end_row in file.ranges:
            stretches.setdefault(journal, []).append(((seq, row), (end_seq, end_row)))
    for journal, parts in stretches.items():
        parts.sort()
        for (_, end), (begin, _) in pairwise(parts):
            if begin > end:
                found.append(f"batches {end[0]} to {begin[0]} of journal {journal} are in no file")
    return found


def describe(report: Report) -> str:
    """The report for a terminal."""
    total = MarketReport("all markets", known=all(market.known for market in report.markets))
    for market in report.markets:
        for name in COUNTS:
            setattr(total, name, getattr(total, name) + getattr(market, name))
    span = f"{iso(report.first_ns)} to {iso(report.last_ns)}" if report.rows else "no events"
    beside = ", ".join(f"{count:,} {_TABLES[table]}" for table, count in report.beside.items())
    shown = COUNTS if report.verified else COUNTS[:4]
    width = max([len(market.market) for market in [*report.markets, total]])
    lines = [
        f"{report.rows:,} rows of {len(report.markets):,} markets, {span}",
        *([beside] if beside else []),
        "",
        f"{'market':<{width}}  {'book':<8}" + "".join(f"{name:>12}" for name in shown),
    ]
    lines += [
        f"{market.market:<{width}}  {'known' if market.known else 'unknown':<8}"
        + "".join(f"{getattr(market, name):>12,}" for name in shown)
        for market in [*sorted(report.markets, key=lambda market: -market.violations), total]
    ]
    if report.verified:
        lines += ["", *report.holes, *report.examples]
        if report.unwritten:
            lines.append(
                f"{report.unwritten:,} numbers have no rows and no gap: replies to commands, or a standby"
            )
        verdict = "everything holds" if not report.violations else f"FAILED: {report.violations:,} violations"
        lines.append(verdict)
    return "\n".join(lines)
