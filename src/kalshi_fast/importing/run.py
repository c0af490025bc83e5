"""One import from its paths to its report: finding files, reading them twice, writing, putting in place.

A file that has been imported before, under whatever name, is left out: an import may be repeated, and a
directory that has grown be imported again. Each import stands alone: its books are unknown before its first
snapshot and after its last row, so that files of one connection are best imported together. Not here: the
parts (see the package).
"""

from __future__ import annotations

import gzip
import hashlib
import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast.errors import ConfigError, ForeignFileError
from kalshi_fast.importing.findings import ASIDE, KINDS, Findings
from kalshi_fast.importing.labels import Labels
from kalshi_fast.importing.ordering import MarketIds, in_order, scan
from kalshi_fast.importing.publish import EventFiles, Manifest, Place, SourceEntry, writing
from kalshi_fast.importing.rebuild import Rebuilder
from kalshi_fast.importing.seedfile import SeedFile, Texts
from kalshi_fast.importing.values import strings
from kalshi_fast.progress import ProgressLine, bar

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kalshi_fast.importing.ordering import Scan
    from kalshi_fast.importing.state import Aside

MAX_BYTES: Final = 100 << 20


@dataclass(slots=True)
class ImportReport:
    """What has been imported, and what was wrong in it. ``refused``: files that were left out, and why."""

    id: str = ""
    files: int = 0
    already: list[str] = field(default_factory=list)  # imported before
    copies: list[str] = field(default_factory=list)  # the same bytes as another file
    refused: dict[str, str] = field(default_factory=dict)
    rows_read: int = 0
    rows_written: int = 0  # of those read
    rows_aside: int = 0
    clears: int = 0
    gaps: int = 0
    markets: int = 0
    connections: int = 0
    first_at: str = ""
    last_at: str = ""
    outputs: list[str] = field(default_factory=list)
    aside_file: str = ""
    findings: dict[str, dict[str, Any]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        return asdict(self)


def import_recordings(
    paths: Sequence[Path],
    out: Path,
    *,
    skip_damaged: bool = False,
    keep_labels: bool = False,
    dry_run: bool = False,
    max_bytes: int = MAX_BYTES,
    quiet: bool = False,
) -> ImportReport:
    """Imports files and directories into ``out`` as one: all files, or, when it fails, none.

    Raises ForeignFileError for a file that cannot be imported, unless ``skip_damaged`` leaves it out.
    ``keep_labels``: where the name of a market is doubtful (see ``labels``) no other is looked for, and the
    books are unknown. ``dry_run`` only reports.
    """
    place = Place(out)
    line = ProgressLine(quiet=quiet)
    try:
        with writing(place), nullcontext() if dry_run else place.alone():
            if not dry_run:
                place.recover()
            work = _Import(place, line, skip_damaged=skip_damaged, keep_labels=keep_labels, dry_run=dry_run)
            return work.run(paths, max_bytes)
    finally:
        line.end()


class _Import:
    def __init__(
        self, place: Place, line: ProgressLine, *, skip_damaged: bool, keep_labels: bool, dry_run: bool
    ) -> None:
        self._keep_labels = keep_labels
        self._place = place
        self._line = line
        self._skip_damaged = skip_damaged
        self._dry_run = dry_run
        self.report = ImportReport()
        self._texts = Texts()
        self._ids = MarketIds()
        self._findings = Findings()
        self._total = self._done = 0

    def run(self, paths: Sequence[Path], max_bytes: int) -> ImportReport:
        report = self.report
        files = self._open(_parquet_files(paths, self._place.orderbook))
        self._total = sum(file.rows for file in files)
        scans = self._scan(files)
        report.files = len(scans)
        if not scans:
            return report
        digests = sorted(one.file.digest for one in scans)
        report.id = hashlib.blake2b("".join(digests).encode(), digest_size=8).hexdigest()
        target = None if self._dry_run else self._place
        output = EventFiles(target, report.id, self._texts, max_bytes=max_bytes)
        try:
            rebuilder = Rebuilder(
                files, self._texts, self._ids, self._findings, output, self._labels(scans, files)
            )
            for rows in in_order(scans, self._texts, self._findings):
                if report.rows_read == 0:
                    report.first_at = _told(int(rows.ingest_ns[0]))
                rebuilder.take(rows)
                report.rows_read += len(rows)
                report.last_at = _told(int(rows.ingest_ns[-1]))
                self._progress("importing", len(rows))
            rebuilder.finish()
            output.finish()
            self._fill(rebuilder)
            if not self._dry_run:
                self._keep(rebuilder.aside, files)
        except BaseException:
            output.abandon()
            raise
        if not self._dry_run:
            manifest = self._manifest(scans, output)
            report.outputs = [str(path) for path in self._place.commit(manifest)]
        return report

    def _open(self, found: list[tuple[Path, str]]) -> list[SeedFile]:
        imported = {s.digest for manifest in self._place.manifests() for s in manifest.sources}
        files: list[SeedFile] = []
        seen: dict[str, str] = {}
        for path, name in found:
            self._line.show(f"looking at {name} …")
            try:
                file = SeedFile(path, name, len(files))
            except ForeignFileError as error:
                self._refuse(name, error)
                continue
            if file.digest in imported:
                self.report.already.append(name)
            elif file.digest in seen:
                self.report.copies.append(f"{name} is {seen[file.digest]}")
            else:
                seen[file.digest] = name
                files.append(file)
        return files

    def _scan(self, files: list[SeedFile]) -> list[Scan]:
        scans = []
        for file in files:
            before = self._done
            try:
                one = scan(file, self._texts, self._ids, lambda n: self._progress("checking", n))
            except ForeignFileError as error:
                self._refuse(file.name, error)
                self._total -= file.rows
                self._done = before
            else:
                scans.append(one)
        return scans

    def _refuse(self, name: str, error: ForeignFileError) -> None:
        if not self._skip_damaged:
            raise ForeignFileError(f"{error}; nothing was imported (--skip-damaged leaves such files out)")
        self.report.refused[name] = str(error)

    def _progress(self, doing: str, rows: int) -> None:
        self._done += rows
        share = self._done / max(1, 2 * self._total)
        self._line.show(f"{bar(share)}  {doing} {self._total:,} rows")

    def _labels(self, scans: list[Scan], files: list[SeedFile]) -> Labels:
        """Where labels are doubtful, all rows are looked at once more before they are taken."""
        orphans = self._ids.orphans
        judge = Labels(orphans)
        if not orphans or self._keep_labels:
            return Labels(orphans, judge, trusting=False)
        self._total += self._total // 2
        unheard, nowhere = Findings(), EventFiles(None, "", self._texts, max_bytes=0)
        rebuilder = Rebuilder(files, self._texts, self._ids, unheard, nowhere, judge)
        for rows in in_order(scans, self._texts, unheard):
            rebuilder.take(rows)
            self._progress("looking for the markets of", len(rows))
        rebuilder.finish()
        return Labels(orphans, judge)

    def _fill(self, rebuilder: Rebuilder) -> None:
        report = self.report
        report.rows_written = rebuilder.written
        report.rows_aside = len(rebuilder.aside)
        report.clears, report.gaps = rebuilder.clears, rebuilder.gaps
        report.markets, report.connections = rebuilder.markets, rebuilder.connections
        report.findings = self._findings.figures()

    def _keep(self, aside: Aside, files: list[SeedFile]) -> None:
        """The rows kept aside, as they were, with the reason: one JSON object a line, compressed."""
        if not len(aside):
            return
        path = self._place.imports / f"{self.report.id}.aside.ndjson.gz"
        self.report.aside_file = str(path)
        numbers = np.frombuffer(aside.file, np.int32)
        places = np.frombuffer(aside.row, np.int64)
        reasons = np.frombuffer(aside.reason, np.int8)
        with gzip.open(path, "wt", encoding="utf-8", compresslevel=3) as output:
            for file in files:
                of_file = np.flatnonzero(numbers == file.number)
                order = of_file[np.argsort(places[of_file], kind="stable")]
                _write_aside(output, file, places[order], [aside.reasons[code] for code in reasons[order]])

    def _manifest(self, scans: list[Scan], output: EventFiles) -> Manifest:
        sources = [SourceEntry(s.file.name, s.file.bytes, s.file.digest, s.file.rows) for s in scans]
        return Manifest(
            id=self.report.id,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            version=version("kalshi-fast"),
            sources=sources,
            outputs=output.outputs,
            report=self.report.figures(),
        )


def _write_aside(output: Any, file: SeedFile, places: Any, reasons: list[str]) -> None:  # noqa: ANN401
    if not len(places):
        return
    at = first = 0
    for batch in file.batches():
        while at < len(places) and places[at] < first + batch.num_rows:
            row = {
                name: strings(batch.column(name).slice(int(places[at]) - first, 1))[0]
                for name in batch.schema.names
            }
            told = {"file": file.name, "row": int(places[at]), "reason": reasons[at], "values": row}
            output.write(json.dumps(told, default=str) + "\n")
            at += 1
        first += batch.num_rows


def _parquet_files(paths: Sequence[Path], own: Path) -> list[tuple[Path, str]]:
    """Files and the names that reports give them. What an earlier import has written is none of them."""
    found: dict[Path, str] = {}
    for path in paths:
        if path.is_dir():
            inside = [
                file
                for file in sorted(path.rglob("*.parquet"))
                if not file.name.startswith(".") and file.is_file() and not file.is_relative_to(own)
            ]
            if not inside:
                raise ConfigError(f"PATH: no Parquet files in {path}")
            for file in inside:
                found.setdefault(file, str(file.relative_to(path)))
        elif path.exists():
            found.setdefault(path, path.name)
        else:
            raise ConfigError(f"PATH: {path} does not exist")
    return list(found.items())


def _told(ns: int) -> str:
    return datetime.fromtimestamp(ns // 1_000_000_000, UTC).isoformat()


def describe(report: ImportReport, *, dry_run: bool) -> str:
    """The report for a terminal."""
    lines = []
    for why, names in (("imported before", report.already), ("copy", report.copies)):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            lines.append(f"{why}, left out: {', '.join(names[:3])}{more}")
    lines += [f"refused: {why}" for why in report.refused.values()]
    if not report.files:
        return "\n".join([*lines, "nothing to import"])
    told = "would be written" if dry_run else "written"
    lines += [
        f"{'files':<22}{report.files:>14,}  {report.first_at} to {report.last_at}",
        f"{'rows read':<22}{report.rows_read:>14,}  {report.markets:,} markets, {report.connections:,}"
        " connections",
        f"{'rows ' + told:<22}{report.rows_written:>14,}  and {report.clears:,} clear, {report.gaps:,} gap",
        f"{'rows kept aside':<22}{report.rows_aside:>14,}  {report.aside_file}",
        f"{'files ' + told:<22}{len(report.outputs):>14,}" if not dry_run else "",
        "",
        f"{'what was wrong':<14}{'count':>12}",
    ]
    for kind, found in report.findings.items():
        lines.append(f"{found['done']:<14}{found['count']:>12,}  {KINDS[kind].text}")
        lines.append(f"{'':<28}{found['examples'][0]}")
    if not any(found["done"] == ASIDE for found in report.findings.values()):
        lines.append("every row was kept")
    return "\n".join(line for line in lines if line is not None)
