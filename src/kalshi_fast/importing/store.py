"""Imports into a database: what an import has written to files goes into ClickHouse too, once.

The database itself knows what it has: ``feed_health`` gets a row ``importing`` for each source, by its
digest, before the first row; a row ``import`` behind every stretch of rows (``seq``: how many stretches are
there, ``detail``: the import, and how many rows they have); and a row ``imported`` for each source when all
are. So it does not matter from which directory an import comes again, or where one was interrupted, and what
one import has begun no other one stores. Of the one stretch whose outcome nobody knows the table itself says
which rows it has. An imported book is unknown at its end, so the latest levels are left as they are. Not
here: reading the sources (``run``), the files (``publish``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.compact import event_files
from kalshi_fast.compact.digest import row_hashes
from kalshi_fast.errors import ConfigError, KalshiFastError, SinkError, reason
from kalshi_fast.importing.publish import IMPORT_KEY, Manifest, Place
from kalshi_fast.progress import ProgressLine, bar
from kalshi_fast.sinks.clickhouse import HEALTH_COLUMNS, INSERT_SETTINGS, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clickhouse_connect.driver.client import Client
    from numpy.typing import NDArray

_DONE: Final = (
    "SELECT seq, splitByChar(' ', detail)[2] FROM feed_health WHERE event = 'import'"
    " AND splitByChar(' ', detail)[1] = {id:String} ORDER BY seq DESC LIMIT 1"
)
# The import that has stored a source, or else the one that has begun to.
_KNOWN: Final = (
    "SELECT detail, countIf(event = 'imported') > 0 AS done,"
    " if(done, anyIf(market_ticker, event = 'imported'), argMin(market_ticker, ts)) FROM feed_health"
    " WHERE event IN ('importing', 'imported') AND detail IN {digests:Array(String)} GROUP BY detail"
)
_TOLD_MARKETS: Final = 500
_KEY: Final = tuple(name for name in EVENT_SCHEMA.names if name != "market_id")
# The table is sorted by market_id, and its partitions are by ts.
_THERE: Final = (
    "SELECT toString(type) AS type, conn_id, sid, seq, toString(market_ticker) AS market_ticker,"
    " toString(side) AS side, price_e4, qty_e2, toUnixTimestamp64Micro(orderbook_events.ts) AS ts,"
    " toUnixTimestamp64Nano(orderbook_events.ingest_ts) AS ingest_ts FROM orderbook_events"
    " WHERE (market_id IN {ids:Array(UUID)} OR empty({ids:Array(UUID)}))"
    " AND orderbook_events.ts >= fromUnixTimestamp64Micro({first_us:Int64})"
    " AND orderbook_events.ts <= fromUnixTimestamp64Micro({last_us:Int64})"
    " AND orderbook_events.ingest_ts >= fromUnixTimestamp64Nano({first_ns:Int64})"
    " AND orderbook_events.ingest_ts <= fromUnixTimestamp64Nano({last_ns:Int64})"
)


@dataclass(slots=True)
class StoreReport:
    """``imports``: stored now; ``already``: of those in the directory, stored before."""

    imports: int = 0
    already: int = 0
    rows: int = 0
    inserts: int = 0


def store_imports(client: Client, out: Path, *, quiet: bool = False) -> StoreReport:
    """All imports below ``out`` that the database does not have. Raises ConfigError or SinkError."""
    report = StoreReport()
    place, line = Place(out), ProgressLine(quiet=quiet)
    try:
        with place.alone():
            place.recover()
            for manifest in place.manifests():
                if _is_there(client, manifest):
                    report.already += 1
                else:
                    _store(client, place, manifest, report, line)
                    report.imports += 1
    except KalshiFastError:
        raise
    except Exception as error:
        raise SinkError(f"ClickHouse takes no import: {first_line(error)}") from error
    finally:
        line.end()
    return report


def _is_there(client: Client, manifest: Manifest) -> bool:
    """Has this import been stored? Raises ConfigError when another one has, or has begun, a part of it."""
    digests = {source.digest: source.name for source in manifest.sources}
    found = client.query(_KNOWN, parameters={"digests": sorted(digests)}).result_rows
    for digest, done, other in found:
        if not done and other != manifest.id:
            raise ConfigError(
                f"{digests[digest]} belongs to import {other}, which was interrupted on its way into the"
                f" database: finish that one first (the same command with its --out, or with the same sources"
                f" and another --out), before import {manifest.id}"
            )
    stored = [(digest, other) for digest, done, other in found if done]
    others = [(digest, other) for digest, other in stored if other != manifest.id]
    if others and len(others) < len(digests):
        raise ConfigError(
            f"{digests[others[0][0]]} is in the database already, by import {others[0][1]}, and import"
            f" {manifest.id} has it together with others: import those alone, into another --out"
        )
    return len(stored) == len(digests)


def _store(client: Client, place: Place, manifest: Manifest, report: StoreReport, line: ProgressLine) -> None:
    total = sum(output.rows for output in manifest.outputs)
    files = _files(place, manifest, total)
    for source in manifest.sources:
        _say(client, "importing", 0, manifest.id, source.digest)
    _is_there(client, manifest)  # another process may have been faster
    done, done_rows = _done(client, manifest)
    rows = number = 0
    for number, group in enumerate(_groups(files), 1):
        rows += group.num_rows
        if number <= done:
            _compare(manifest, done, done_rows, number, rows)
            continue
        missing = _missing(client, group) if number == done + 1 else group
        if missing.num_rows:
            settings = {**INSERT_SETTINGS, "insert_deduplication_token": f"import:{manifest.id}:{number}"}
            client.insert_arrow("orderbook_events", missing, settings=settings)
            report.rows += missing.num_rows
            report.inserts += 1
        _say(client, "import", number, "", f"{manifest.id} {rows}")
        line.show(f"{bar(rows / max(1, total))}  storing {total:,} rows of import {manifest.id}")
    _compare(manifest, done, done_rows, max(number, done), rows)
    for source in manifest.sources:
        _say(client, "imported", 0, manifest.id, source.digest)


def _done(client: Client, manifest: Manifest) -> tuple[int, int]:
    """How many stretches are there, and their rows (0: not known, from a version that did not say)."""
    found = client.query(_DONE, parameters={"id": manifest.id}).result_rows
    return (int(found[0][0]), int(found[0][1] or 0)) if found else (0, 0)


def _compare(manifest: Manifest, done: int, done_rows: int, number: int, rows: int) -> None:
    """Are the stretches that the database has the first ones here? Raises ConfigError."""
    if done and number == done and done_rows not in (0, rows):
        raise ConfigError(
            f"import {manifest.id}: the {done} stretches that the database has are {done_rows:,} rows, and"
            f" here {rows:,}: finish it from the files that it was begun with"
        )


def _missing(client: Client, group: pa.Table) -> pa.Table:
    """The rows of a stretch that the table lacks. The token of an insert is not enough: after some thousand
    other inserts the database has forgotten it."""
    ours = pa.table(
        {
            name: group.column(name).cast(pa.int64()) if name in ("ts", "ingest_ts") else group.column(name)
            for name in _KEY
        }
    )
    ids = pc.unique(group.column("market_id")).to_pylist()
    bounds = {name: pc.min_max(ours.column(name)).as_py() for name in ("ts", "ingest_ts")}
    theirs = client.query_arrow(
        _THERE,
        parameters={
            "ids": ids if len(ids) <= _TOLD_MARKETS else [],  # a parameter is a part of an address
            "first_us": bounds["ts"]["min"],
            "last_us": bounds["ts"]["max"],
            "first_ns": bounds["ingest_ts"]["min"],
            "last_ns": bounds["ingest_ts"]["max"],
        },
        use_strings=True,
    )
    if not theirs.num_rows:
        return group
    there = np.isin(_hashes(ours), _hashes(theirs.select(_KEY)))
    return group.filter(pa.array(~there))


def _hashes(rows: pa.Table) -> NDArray[np.uint64]:
    return np.concatenate([row_hashes(batch) for batch in rows.to_batches()])


def _say(client: Client, event: str, seq: int, market: str, detail: str) -> None:
    row: list[Any] = [datetime.fromtimestamp(time.time(), UTC), 0, event, 0, seq, market, detail]
    token = f"import:{detail}:{event}:{seq}"
    settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
    client.insert("feed_health", [row], HEALTH_COLUMNS, settings=settings)


def _files(place: Place, manifest: Manifest, total: int) -> list[Path]:
    """The import's own files in the order in which they were written. Raises ConfigError."""
    found: list[tuple[int, Path]] = []
    rows = 0
    for date in sorted({output.date for output in manifest.outputs}):
        for path in event_files(place.orderbook / date):
            try:
                metadata = pq.read_metadata(path)
            except (pa.ArrowException, OSError) as error:
                raise ConfigError(f"--out: {path} cannot be read: {reason(error)}") from error
            if (metadata.metadata or {}).get(IMPORT_KEY.encode()) == manifest.id.encode():
                times = pq.ParquetFile(path).read_row_group(0, ["ingest_ts"]).column(0).cast(pa.int64())
                found.append((times[0].as_py(), path))
                rows += metadata.num_rows
    if rows != total:
        raise ConfigError(
            f"--out: of import {manifest.id} there are {rows:,} of {total:,} rows in files of its own (the"
            " others have been removed, or compacted with rows of others): import its sources into another"
            " --out"
        )
    return [path for _, path in sorted(found)]


def _groups(paths: list[Path]) -> Iterator[pa.Table]:
    for path in paths:
        with pq.ParquetFile(path, pre_buffer=False, page_checksum_verification=True) as file:
            for index in range(file.num_row_groups):
                yield file.read_row_group(index)


def describe_stored(report: StoreReport, where: str) -> str:
    """For a terminal."""
    already = f"; {report.already} were there before" if report.already else ""
    return f"{where}: {report.imports} imports with {report.rows:,} rows stored{already}"
