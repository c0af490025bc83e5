"""ClickHouse: whether it answers, its version, what the user may do there, and the schema; only by asking.

The embedded engine is never opened on its directory, which would write there: while a recording runs, that
one is asked; otherwise only the installation and the directory are looked at.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.check.disk import LEAST_BYTES, free_bytes, gib, holder, unwritable
from kalshi_fast.check.finding import Check, Finding, failure, ok, warning
from kalshi_fast.errors import SchemaError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clickhouse_connect.driver.client import Client

    from kalshi_fast.config import Settings

OLDEST_TRIED: Final = (24, 3)
_NEEDED: Final = ("SELECT", "INSERT")
_NEEDED_TO_MAKE: Final = ("CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "ALTER TABLE")


def checks(settings: Settings) -> list[Check]:
    url = settings.clickhouse_url
    if url is None and settings.parquet_dir is None:
        said = "CLICKHOUSE_URL and PARQUET_DIR are both off: nothing would be recorded"
        return [Check("stores", lambda: [failure("stores", said, "give one of them")])]
    if url is None:
        return []
    look = _embedded if url.startswith("chdb://") else _server
    return [Check("clickhouse", lambda: look(settings, url))]


def _embedded(settings: Settings, url: str) -> Iterator[Finding]:
    from kalshi_fast.sinks import clickhouse

    clickhouse.refuse_embedded_cluster(url, settings.clickhouse_cluster)
    if importlib.util.find_spec("chdb") is None:
        yield failure(
            "clickhouse",
            "CLICKHOUSE_URL: the embedded engine is not installed",
            "pip install 'kalshi-fast[embedded]', or give the http(s):// address of a server",
        )
        return
    directory = clickhouse.embedded_directory(url)
    broken = unwritable("clickhouse", "CLICKHOUSE_URL", directory)
    if broken is not None:
        yield broken
        return
    if directory.is_dir() and clickhouse.is_in_use(directory):
        yield from _asked(
            settings,
            clickhouse.open_reader(url, user=settings.clickhouse_user, password=settings.clickhouse_password),
            "the recording that runs here",
            rights=False,
        )
        return
    free = free_bytes(directory)
    version = importlib.metadata.version("chdb")
    said = f"embedded engine (chdb {version}) in {directory}, {gib(free)} free at {holder(directory)}"
    if free < LEAST_BYTES:
        yield failure("clickhouse", said, "make room, or give another CLICKHOUSE_URL")
    else:
        made = (
            "its schema is looked at when a recording begins"
            if directory.is_dir()
            else "made when first used"
        )
        yield ok("clickhouse", f"{said}; {made}")


def _server(settings: Settings, url: str) -> Iterator[Finding]:
    from kalshi_fast.sinks import clickhouse

    client = clickhouse.open_client(url, user=settings.clickhouse_user, password=settings.clickhouse_password)
    yield from _asked(settings, client, url, rights=True)


def _asked(settings: Settings, client: Client, where: str, *, rights: bool) -> Iterator[Finding]:
    try:
        yield _version(client, where)
        missing, schema = _schema(settings, client)
        if rights:
            yield _rights(settings, client, make=missing)
        yield schema
    finally:
        client.close()


def _version(client: Client, where: str) -> Finding:
    version = str(_value(client, "SELECT version()"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if len(numbers) == 2 and numbers < OLDEST_TRIED:
        oldest = ".".join(map(str, OLDEST_TRIED))
        return warning("clickhouse", f"{where} is ClickHouse {version}", f"take {oldest} or later")
    return ok("clickhouse", f"{where} is ClickHouse {version}")


def _value(client: Client, sql: str) -> Any:  # noqa: ANN401 - whatever the first column holds
    return client.query(sql).result_rows[0][0]


def _schema(settings: Settings, client: Client) -> tuple[bool, Finding]:
    """Whether something has to be made, and the line."""
    from kalshi_fast import migrations
    from kalshi_fast.sinks.clickhouse import first_line

    database = settings.clickhouse_database
    try:
        lacking = migrations.check(client, database, settings.clickhouse_cluster)
    except SchemaError as error:
        return False, failure("schema", str(error))
    except Exception as error:  # the right to read system.tables may be missing
        return False, warning(
            "schema",
            f"the tables of {database!r} cannot be looked at: {first_line(error)}",
            "grant SELECT on system.tables and system.columns",
        )
    if not lacking:
        return False, ok("schema", f"the database {database!r} is up to date")
    files = ", ".join(migration.file for migration in lacking)
    return True, ok("schema", f"the database {database!r} lacks {files}: a recording will apply it")


def _rights(settings: Settings, client: Client, *, make: bool) -> Finding:
    from kalshi_fast.cluster import quote
    from kalshi_fast.sinks.clickhouse import first_line

    wanted = [*_NEEDED, *(_NEEDED_TO_MAKE if make else ())]
    target = f"{quote(settings.clickhouse_database)}.*"
    try:
        refused = [right for right in wanted if not int(_value(client, f"CHECK GRANT {right} ON {target}"))]
    except Exception as error:  # before 24.11 there is no such question
        return warning(
            "rights",
            f"they cannot be asked: {first_line(error)}",
            f"see to it: GRANT {', '.join(wanted)} ON {target}",
        )
    user = settings.clickhouse_user
    if refused:
        return failure(
            "rights",
            f"{user!r} lacks {', '.join(refused)} on {target}",
            f"GRANT {', '.join(refused)} ON {target}",
        )
    return ok("rights", f"{user!r} may {', '.join(wanted)} on {target}")
