"""`query`, `replay`, `plot`, `export`, `import`, `reread`, `compact`, `sql`: what was recorded, wherever it
is."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalshi_fast.commands.flags import flags_of, loaded, told_only
from kalshi_fast.config import load
from kalshi_fast.errors import ConfigError
from kalshi_fast.simulator.beside import DEMO_DIR, SIMULATED_DIR, stores

if TYPE_CHECKING:
    import argparse

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.config import Settings


def query(options: argparse.Namespace) -> int:
    from kalshi_fast.sinks import clickhouse

    if options.dir is None:
        settings = loaded(options).settings
    else:
        settings = told_only({**flags_of(options), **stores(options.dir)})
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


def _client(settings: Settings, url: str | None, *, make: bool = False) -> Client:
    from kalshi_fast.sinks import clickhouse

    if url is None:
        raise ConfigError("CLICKHOUSE_URL is off: there is nothing to ask")
    clickhouse.refuse_embedded_cluster(url, settings.clickhouse_cluster)
    if not make:
        _require_recorded(url)
    opened = clickhouse.open_client if make else clickhouse.open_reader
    return opened(url, user=settings.clickhouse_user, password=settings.clickhouse_password)


def sql(options: argparse.Namespace) -> int:
    from kalshi_fast import migrations

    settings = loaded(options).settings
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


def replay(options: argparse.Namespace) -> int:
    from kalshi_fast.replaying.command import replay

    return replay(options, _source_options(options, options.path))


def plot(options: argparse.Namespace) -> int:
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
            **_source_options(options, options.source),
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


def export(options: argparse.Namespace) -> int:
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
        **_source_options(options, options.source),
    )
    sys.stdout.write(describe(report) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(report.figures()) + "\n")
    return 0


def _configured() -> Settings:
    """Of commands without flags for settings."""
    return load({}, environ=os.environ, env_file=Path(".env"), toml_file=None).settings


def _source_options(options: argparse.Namespace, source: str) -> dict[str, Any]:
    """How a source is opened; a database with the configured user."""
    more: dict[str, Any] = {"repair": options.repair}
    if source.startswith(("chdb://", "http://", "https://")):
        settings = _configured() if getattr(options, "dir", None) is None else told_only({})
        more["user"] = settings.clickhouse_user
        more["password"] = settings.clickhouse_password
        more["database"] = options.database or settings.clickhouse_database
    return more


def _configured_source(options: argparse.Namespace) -> str:
    """Where a recording is, when nothing says it: the database has the last seconds of one that runs, too."""
    if options.dir is not None:
        url = stores(options.dir)["CLICKHOUSE_URL"]
        _require_recorded(url)
        return url
    settings = _configured()
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


def compact(options: argparse.Namespace) -> int:
    from kalshi_fast.compact import MAX_BYTES, all_dates, compact, describe

    if options.dates and options.all:
        raise ConfigError("--all: every date is meant; leave one of --all and DATE out")
    root = loaded(options).settings.parquet_dir
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


def reread(options: argparse.Namespace) -> int:
    from kalshi_fast.rereading import describe, reread

    report = reread(loaded(options).settings, dry_run=options.dry_run, quiet=options.quiet)
    sys.stdout.write(describe(report, dry_run=options.dry_run) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(report.figures()) + "\n")
    return 0


def import_files(options: argparse.Namespace) -> int:
    from kalshi_fast.importing import describe, import_recordings

    settings = loaded(options).settings if options.to == "clickhouse" else None
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
