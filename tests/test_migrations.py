"""A database is brought up to date from whatever state it is in, or refused before anything in it changes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kalshi_fast import __version__, migrations
from kalshi_fast.cluster import for_cluster, quote
from kalshi_fast.errors import ConfigError, SchemaError
from kalshi_fast.migrations import check, migrate, rendered, split, statements
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.readback import is_durable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clickhouse_connect.driver.client import Client

ALL = [migration.number for migration in migrations.migrations()]
ROW = (
    "INSERT INTO {0}.orderbook_events (type, seq, market_ticker, side, price_e4, qty_e2, ts, ingest_ts)"
    " VALUES ('delta', 7, 'A', 'yes', 800, 5, '2026-01-31 12:00:00', '2026-01-31 12:00:00')"
)


@pytest.fixture
def client(open_database: Callable[[], Client]) -> Client:
    """With a database that has the whole schema."""
    return open_database()


@pytest.fixture
def name(client: Client) -> Iterator[str]:
    """A database that is not there yet."""
    name = f"{client.database} kalshi.x"
    yield name
    client.command(f"DROP DATABASE IF EXISTS {quote(name)}")


def numbers(client: Client, database: str) -> list[int]:
    return [row.number for row in migrations.applied(client, database)]


def contents(client: Client, database: str) -> list[tuple[str, str]]:
    found = client.query(
        "SELECT name, create_table_query FROM system.tables WHERE database = {database:String} ORDER BY name",
        parameters={"database": database},
    ).result_rows
    return [(row[0], row[1]) for row in found]


def by_hand(client: Client, database: str, count: int | None = None) -> None:
    for statement in statements(database)[:count]:
        client.command(statement)


def test_a_fresh_database_gets_every_file_once(client: Client, name: str) -> None:
    assert [migration.number for migration in migrate(client, name)] == ALL
    assert migrate(client, name) == []
    rows = migrations.applied(client, name)
    assert [row.number for row in rows] == ALL
    assert {row.applied_by for row in rows} == {__version__}
    assert [row.checksum for row in rows] == [migration.checksum for migration in migrations.migrations()]
    assert all(row.applied_at > "2026" for row in rows)


def test_an_older_database_gets_what_it_lacks_and_keeps_its_rows(client: Client, name: str) -> None:
    migrate(client, name)
    before = contents(client, name)
    client.command(f"DROP DATABASE {quote(name)}")
    for migration in migrations.migrations()[:4]:
        for statement in rendered(migration, name):
            client.command(statement)
        client.command(
            f"INSERT INTO {quote(name)}.schema_version"
            " SELECT {n:UInt16}, {f:String}, {c:String}, '0.1', now()",
            parameters={"n": migration.number, "f": migration.file, "c": migration.checksum},
        )
    client.command(ROW.format(quote(name)))
    assert [migration.number for migration in migrate(client, name)] == ALL[4:]
    assert contents(client, name) == before
    assert client.query(f"SELECT seq FROM {quote(name)}.orderbook_events").result_rows == [(7,)]
    assert [row.applied_by for row in migrations.applied(client, name)[3:5]] == ["0.1", __version__]


@pytest.mark.parametrize("first", ["0000", "0001"])
def test_a_database_made_by_hand_is_adopted(client: Client, name: str, first: str) -> None:
    client.command(f"CREATE DATABASE {quote(name)}")
    for migration in migrations.migrations()[:5]:  # with 0001: what version 0.1 made
        if migration.file >= first:
            for statement in rendered(migration, name):
                client.command(statement)
    client.command(ROW.format(quote(name)))
    assert [migration.number for migration in migrate(client, name)] == ALL
    assert numbers(client, name) == ALL
    assert client.query(f"SELECT seq FROM {quote(name)}.orderbook_events").result_rows == [(7,)]


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_a_crash_between_two_statements_is_made_good(client: Client, name: str) -> None:
    migrate(client, name)
    whole = contents(client, name)
    for count in range(0, len(statements(name)), 4):
        client.command(f"DROP DATABASE {quote(name)}")
        by_hand(client, name, count)
        migrate(client, name)
        assert contents(client, name) == whole


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_every_statement_may_run_again_on_the_finished_schema(client: Client, name: str) -> None:
    migrate(client, name)
    whole = contents(client, name)
    # Not the views of 0002: they have been replaced, and are left alone because they exist.
    by_hand(client, name)
    assert contents(client, name) == whole
    assert migrate(client, name) == []


def test_recorders_may_start_at_once(open_database: Callable[[], Client], name: str) -> None:
    clients = [open_database() for _ in range(4)]
    barrier, failures = threading.Barrier(len(clients)), []

    def start(client: Client) -> None:
        barrier.wait()
        try:
            migrate(client, name)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert numbers(clients[0], name) == ALL
    assert check(clients[0], name) == []


@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_a_start_that_fails_is_tried_again(client: Client, name: str) -> None:
    client.set_client_setting("max_ast_elements", 10)
    waits: list[float] = []
    with pytest.raises(Exception, match="AST is too big"):
        migrate(client, name, sleep=waits.append)
    assert len(waits) == migrations.TRIES - 1
    migrate(client, name, sleep=lambda _: client.set_client_setting("max_ast_elements", 50_000))
    assert numbers(client, name) == ALL


def test_a_newer_schema_is_refused_with_what_to_do(client: Client) -> None:
    assert client.database is not None
    client.command(
        "INSERT INTO schema_version VALUES (900, '0900_x.sql', 'c', '7.1.0', '2027-01-02 03:04:05')"
    )
    before = contents(client, client.database)
    with pytest.raises(SchemaError) as caught:
        migrate(client, client.database)
    assert str(caught.value) == (
        f"the database {client.database!r} has schema 900 (0900_x.sql, applied by kalshi-fast 7.1.0 at"
        f" 2027-01-02 03:04:05.000 UTC), and this is kalshi-fast {__version__}, which knows the schemas up to"
        f" {ALL[-1]}: run kalshi-fast 7.1.0 or later, or set CLICKHOUSE_DATABASE to another name"
    )
    assert contents(client, client.database) == before
    assert caught.value.exit_code == 2


def test_a_file_with_other_contents_is_refused(client: Client) -> None:
    assert client.database is not None
    client.command("INSERT INTO schema_version VALUES (3, '0003_feed_health.sql', 'abcdef', '0.1.9', now())")
    with pytest.raises(SchemaError, match=r"had another 0003_feed_health.sql \(checksum abcdef.* 0\.1\.9 at"):
        migrate(client, client.database)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            "ALTER TABLE {0}.trades DROP COLUMN qty",
            r"'trades'.*column 'qty': expected Decimal\(18, 2\), got no",
        ),
        (
            "ALTER TABLE {0}.level_states MODIFY COLUMN size_e2 Int32",
            "column 'size_e2': expected Int64, got Int32",
        ),
        (
            "ALTER TABLE {0}.orderbook_events ADD COLUMN x UInt8",
            "column 'x': expected no such column, got UInt8",
        ),
        (
            "DROP TABLE {0}.markets; CREATE TABLE {0}.markets (a String) ENGINE = Memory",
            "engine Memory, expected R",
        ),
        (
            "DROP VIEW {0}.gaps; CREATE TABLE {0}.gaps (a String) ENGINE = Memory",
            r"has a table 'gaps' \(engine Mem",
        ),
        (
            "DROP TABLE {0}.schema_version; CREATE TABLE {0}.schema_version (version Int32) ENGINE = Log",
            "'schema_version'.*engine Log, expected ReplacingMergeTree",
        ),
        (
            "DROP TABLE {0}.feed_health; CREATE TABLE {0}.feed_health (ts Date) ENGINE MergeTree ORDER BY ts",
            r"'feed_health'.*column 'ts': expected DateTime64\(9, 'UTC'\), got Date",
        ),
    ],
)
@pytest.mark.parametrize("versioned", [True, False])
@pytest.mark.parametrize("open_database", ["embedded"], indirect=True)
def test_what_is_not_ours_is_refused_by_name(
    client: Client, name: str, change: str, told: str, versioned: bool
) -> None:
    (migrate if versioned else by_hand)(client, name)
    if "schema_version" not in change and not versioned:
        client.command(f"DROP TABLE {quote(name)}.schema_version")
    for statement in change.format(quote(name)).split("; "):
        client.command(statement)
    before = contents(client, name)
    with pytest.raises(SchemaError, match=told) as caught:
        migrate(client, name)
    assert contents(client, name) == before, "refused before anything was changed"
    assert "CLICKHOUSE_DATABASE" in str(caught.value)


def test_connecting_tells_which_server_it_was(open_database: Callable[[], Client]) -> None:
    open_database().command("INSERT INTO schema_version VALUES (900, 'x', 'c', '7', now())")
    with pytest.raises(
        SchemaError, match=r"CLICKHOUSE_URL: (http|chdb)://\S+: the database .* has schema 900"
    ):
        open_database()


def test_a_database_that_was_never_made_has_had_nothing(client: Client, name: str) -> None:
    assert migrations.applied(client, name) == []
    assert [migration.number for migration in check(client, name)] == ALL
    assert migrations.describe(client, name)[0] == "missing  0000_schema_version.sql"
    assert migrations.bring_up(client, name)[-1] == f"applied  {migrations.migrations()[-1].file}"
    assert migrations.bring_up(client, name) == ["nothing to do: the schema is up to date"]
    assert f"by kalshi-fast {__version__}" in migrations.describe(client, name)[0]


def test_the_files_are_numbered_without_a_hole() -> None:
    assert list(range(len(ALL))) == ALL


def test_every_table_says_done_only_when_it_is_durable(client: Client) -> None:
    """A new table needs the settings of 0011 in its CREATE TABLE."""
    lacking = client.query(
        "SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'"
        " AND NOT (engine_full LIKE '%fsync_after_insert = 1%fsync_part_directory = 1%"
        "min_rows_to_fsync_after_merge = 1%min_compressed_bytes_to_fsync_after_merge = 1%"
        "old_parts_lifetime = 60%')"
    ).result_rows
    assert lacking == []
    assert is_durable(client)
    client.command("ALTER TABLE trades MODIFY SETTING fsync_after_insert = 0")
    assert not is_durable(client)


def test_released_files_do_not_change() -> None:
    """A database that had them would be refused; a change is a new file. Comments may change."""
    released = [migration.checksum[:12] for migration in migrations.migrations()[1:5]]
    assert released == ["154317c9925b", "7a4def86b08a", "765ae5b72022", "f963bf786eed"]


@pytest.mark.parametrize(
    ("script", "parts"),
    [
        ("a; b ;", ["a", "b"]),
        ("-- nothing; at all\n\na -- x\n  b", ["a\n  b"]),
        ("a 'it;s -- \\' not' b; c `;`", ["a 'it;s -- \\' not' b", "c `;`"]),
        ("", []),
        (" ;; ", []),
    ],
)
def test_scripts_are_split_as_a_client_would(script: str, parts: list[str]) -> None:
    assert list(split(script)) == parts


# --- the cluster variant --------------------------------------------------------------------------------


def test_every_statement_for_a_cluster_is_one_that_the_engine_can_parse(client: Client) -> None:
    for statement in statements("d", "{cluster}"):
        assert "ON CLUSTER `{cluster}`" in statement
        if "MergeTree" in statement:
            assert "ENGINE = Replicated" in statement
            deduplicated = "replicated_deduplication_window_seconds = 604800" in statement
            assert deduplicated == ("schema_version" not in statement)
            assert "non_replicated" not in statement
        tree = client.command(f"EXPLAIN AST {statement}")
        assert "Create" in str(tree) or "Alter" in str(tree)


def test_what_has_no_rule_for_a_cluster_is_not_guessed() -> None:
    with pytest.raises(ValueError, match="no rule for a cluster"):
        for_cluster("ALTER TABLE kalshi.trades DROP COLUMN qty", "c")


def test_a_cluster_is_not_what_the_embedded_engine_is(engine_url: str) -> None:
    with pytest.raises(ConfigError, match="CLICKHOUSE_CLUSTER: the embedded engine"):
        clickhouse.connect(engine_url, user="default", password="", database="d", cluster="c")


def test_the_tables_of_a_cluster_are_what_they_should_be(tmp_path: Path) -> None:
    """In an engine of its own, with a cluster in its configuration."""
    script = Path(__file__).with_name("cluster_engine.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["applied"] == ALL
    assert found["missing"] == []
    assert found["engines"]["orderbook_events"] == "Distributed"
    assert found["engines"]["orderbook_events_local"] == "MergeTree"
    assert found["engines"]["level_states_local"] == "ReplacingMergeTree"
    assert found["engines"]["schema_version"] == "ReplacingMergeTree"
    assert found["engines"]["best_bid_ask"] == "View"
    assert found["sharding"] == {
        "feed_health": "cityHash64(conn_id)",
        "orderbook_events": "cityHash64(market_ticker)",
        "level_states": "cityHash64(market_ticker)",
        "trades": "cityHash64(market_ticker)",
        "tickers": "cityHash64(market_ticker)",
        "market_lifecycle": "cityHash64(market_ticker)",
        "markets": "cityHash64(market_ticker)",
        "reference_prices": "cityHash64(index_id)",
    }
    assert found["same_columns"] is True
    assert "Distributed" in found["refused"]
    assert "CLICKHOUSE_CLUSTER" in found["refused"]
