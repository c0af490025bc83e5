"""Imports into a database: what an import has written to files goes into ClickHouse too, once.

The database itself knows what it has: ``feed_health`` gets a row ``import`` behind every stretch of rows
(``seq``: how many stretches are there, ``detail``: the import), and a row ``imported`` for each source, by
its digest, when all are. So it does not matter from which directory an import comes again, or where one was
interrupted; the one stretch whose outcome nobody knows is repeated with the same token. An imported book is
unknown at its end, so the latest levels are left as they are. Not here: reading the sources (``run``), the
files (``publish``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.compact import event_files
from kalshi_fast.errors import ConfigError, KalshiFastError, SinkError, reason
from kalshi_fast.importing.publish import IMPORT_KEY, Manifest, Place
from kalshi_fast.progress import ProgressLine, bar
from kalshi_fast.sinks.clickhouse import HEALTH_COLUMNS, INSERT_SETTINGS, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

_DONE: Final = "SELECT max(seq) FROM feed_health WHERE event = 'import' AND detail = {id:String}"
_KNOWN: Final = (
    "SELECT detail, any(market_ticker) FROM feed_health WHERE event = 'imported'"
    " AND detail IN {digests:Array(String)} GROUP BY detail"
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
    digests = {source.digest: source.name for source in manifest.sources}
    found = client.query(_KNOWN, parameters={"digests": sorted(digests)}).result_rows
    others = [(digest, other) for digest, other in found if other != manifest.id]
    if others and len(others) < len(digests):
        raise ConfigError(
            f"{digests[others[0][0]]} is in the database already, by import {others[0][1]}, and import"
            f" {manifest.id} has it together with others: import those alone, into another --out"
        )
    return len(found) == len(digests)


def _store(client: Client, place: Place, manifest: Manifest, report: StoreReport, line: ProgressLine) -> None:
    total = sum(output.rows for output in manifest.outputs)
    files = _files(place, manifest, total)
    done = int(client.query(_DONE, parameters={"id": manifest.id}).result_rows[0][0])
    rows = 0
    for number, group in enumerate(_groups(files), 1):
        rows += group.num_rows
        if number <= done:
            continue
        settings = {**INSERT_SETTINGS, "insert_deduplication_token": f"import:{manifest.id}:{number}"}
        client.insert_arrow("orderbook_events", group, settings=settings)
        _say(client, "import", number, "", manifest.id)
        report.rows += group.num_rows
        report.inserts += 1
        line.show(f"{bar(rows / max(1, total))}  storing {total:,} rows of import {manifest.id}")
    for source in manifest.sources:
        _say(client, "imported", 0, manifest.id, source.digest)


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
