"""``kalshi-fast import --to clickhouse``: twice imported is once stored, wherever it was interrupted."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

import replay_model
from kalshi_fast.cli import main
from kalshi_fast.compact import compact, days
from kalshi_fast.errors import ConfigError, SinkError
from kalshi_fast.importing import import_recordings, store
from kalshi_fast.importing.store import store_imports
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.sinks import layout
from seedfiles import Feed, rows_of, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client

pytestmark = pytest.mark.parametrize("open_database", ["embedded"], indirect=True)


@pytest.fixture(autouse=True)
def _small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several inserts of an import."""
    monkeypatch.setattr(layout, "ROW_GROUP_ROWS", 16)


def imported(out: Path, *sources: Path) -> Path:
    import_recordings(sources, out, quiet=True)
    return out


def recorded(where: Any, **options: Any) -> list[Any]:  # noqa: ANN401
    return [
        (e.ticker, e.kind, e.ingest_ns, e.conn_id, e.seq, replay_model.digest(e.book))
        for e in Replay(where, **options).events()
    ]


def count(client: Client) -> int:
    found: int = client.query("SELECT count() FROM orderbook_events").result_rows[0][0]
    return found


def test_what_was_imported_is_stored_once_from_whatever_directory(
    tmp_path: Path, open_database: Callable[[], Client], engine_url: str
) -> None:
    client = open_database()
    source = write(tmp_path / "a.parquet", rows_of(Feed(4).run(1, 80)))
    out = imported(tmp_path / "out", source)
    report = store_imports(client, out, quiet=True)
    assert (report.imports, report.already) == (1, 0)
    assert report.inserts > 3
    assert report.rows == count(client) > 80
    assert recorded(engine_url, database=client.database) == recorded(out)
    again = store_imports(client, out, quiet=True)
    assert (again.imports, again.already, again.rows) == (0, 1, 0)
    elsewhere = store_imports(client, imported(tmp_path / "elsewhere", source), quiet=True)
    assert (elsewhere.imports, elsewhere.already) == (0, 1)

    more = write(tmp_path / "b.parquet", rows_of(Feed(5).run(1, 30)))
    store_imports(client, imported(out, source, more), quiet=True)
    assert recorded(engine_url, database=client.database) == recorded(out)
    before = count(client)
    together = imported(tmp_path / "together", source, more)
    assert store_imports(client, together, quiet=True).already == 1, "each of them is there"
    third = write(tmp_path / "c.parquet", rows_of(Feed(6).run(1, 30)))
    mixed = imported(tmp_path / "mixed", source, third)
    with pytest.raises(ConfigError, match=r"a\.parquet is in the database already, by import"):
        store_imports(client, mixed, quiet=True)
    assert count(client) == before
    levels = client.query("SELECT count() FROM level_states").result_rows
    assert levels == [(0,)], "no imported book is known now"


@pytest.mark.parametrize("after", [0, 1, 3])
@pytest.mark.parametrize("told", [False, True])
def test_interrupted_anywhere_nothing_is_stored_twice_or_missing(
    tmp_path: Path,
    open_database: Callable[[], Client],
    monkeypatch: pytest.MonkeyPatch,
    after: int,
    told: bool,
) -> None:
    """``told``: the insert that was under way had happened."""
    client = open_database()
    out = imported(tmp_path / "out", write(tmp_path / "a.parquet", rows_of(Feed(4).run(1, 80))))
    interrupt(client, out, monkeypatch, after, told=told)
    expected = len(rows_in(out))
    assert count(client) < expected
    report = store_imports(client, out, quiet=True)
    assert report.imports == 1
    assert count(client) == expected
    assert client.query("SELECT uniqExact(tuple(*)) FROM orderbook_events").result_rows == [(expected,)]


def interrupt(client: Client, out: Path, monkeypatch: pytest.MonkeyPatch, after: int, *, told: bool) -> None:
    """``told``: the insert that was under way had happened, and its row ``import`` had not."""
    insert, say = client.insert_arrow, store._say
    calls = 0

    def failing(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        nonlocal calls
        calls += 1
        if calls > after and not told:
            raise ConnectionError("away")
        return insert(*arguments, **options)

    def silent(database: Client, event: str, seq: int, market: str, detail: str) -> None:
        if calls > after:
            raise ConnectionError("away")
        say(database, event, seq, market, detail)

    with monkeypatch.context() as patch:
        patch.setattr(client, "insert_arrow", failing)
        patch.setattr(store, "_say", silent)
        with pytest.raises(SinkError, match="takes no import: away"):
            store_imports(client, out, quiet=True)


@pytest.mark.parametrize("after", [0, 2])
def test_what_an_interrupted_import_has_begun_no_other_import_stores(
    tmp_path: Path, open_database: Callable[[], Client], monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    client = open_database()
    first = write(tmp_path / "a.parquet", rows_of(Feed(4).run(1, 60)))
    second = write(tmp_path / "b.parquet", rows_of(Feed(5).run(1, 60)))
    both = imported(tmp_path / "both", first, second)
    interrupt(client, both, monkeypatch, after, told=False)
    begun = count(client)
    alone = imported(tmp_path / "alone", first)
    with pytest.raises(ConfigError, match=r"a\.parquet belongs to import [0-9a-f]+, which was interrupted"):
        store_imports(client, alone, quiet=True)
    assert count(client) == begun, "nothing of it"
    assert store_imports(client, both, quiet=True).imports == 1
    assert store_imports(client, alone, quiet=True).already == 1
    expected = len(rows_in(both))
    assert client.query("SELECT uniqExact(tuple(*)) FROM orderbook_events").result_rows == [(expected,)]
    assert count(client) == expected


@pytest.mark.parametrize(("there", "told_markets"), [(0, 500), (1, 500), (1, 0)])
def test_a_stretch_of_unknown_outcome_is_known_again_when_its_token_is_forgotten(
    tmp_path: Path,
    open_database: Callable[[], Client],
    monkeypatch: pytest.MonkeyPatch,
    there: int,
    told_markets: int,
) -> None:
    """``there``: 1, and some rows of the stretch are missing all the same."""
    client = open_database()
    monkeypatch.setattr(store, "_TOLD_MARKETS", told_markets)
    client.command("ALTER TABLE orderbook_events MODIFY SETTING non_replicated_deduplication_window = 0")
    out = imported(tmp_path / "out", write(tmp_path / "a.parquet", rows_of(Feed(4).run(1, 80))))
    interrupt(client, out, monkeypatch, 1, told=True)
    before = count(client)
    assert before > 16, "of two stretches, and one is told of"
    if there:
        last = client.query("SELECT max(ingest_ts) FROM orderbook_events").result_rows[0][0]
        client.command(
            "DELETE FROM orderbook_events WHERE ingest_ts = {last:DateTime64(9)}", parameters={"last": last}
        )
        assert count(client) < before
    report = store_imports(client, out, quiet=True)
    expected = len(rows_in(out))
    assert count(client) == expected
    assert client.query("SELECT uniqExact(tuple(*)) FROM orderbook_events").result_rows == [(expected,)]
    assert (report.rows == expected - before) == (not there), "what was there was not stored again"


@pytest.mark.parametrize("group", [8, 1000])
def test_an_import_goes_on_only_with_the_stretches_that_it_began_with(
    tmp_path: Path, open_database: Callable[[], Client], monkeypatch: pytest.MonkeyPatch, group: int
) -> None:
    client = open_database()
    source = write(tmp_path / "a.parquet", rows_of(Feed(4).run(1, 80)))
    out = imported(tmp_path / "out", source)
    interrupt(client, out, monkeypatch, 3, told=False)
    before = count(client)
    with monkeypatch.context() as patch:
        patch.setattr(layout, "ROW_GROUP_ROWS", group)
        other = imported(tmp_path / "other", source)
    with pytest.raises(ConfigError, match=r"the 3 stretches that the database has are [0-9]+ rows, and here"):
        store_imports(client, other, quiet=True)
    assert count(client) == before > 0
    store_imports(client, out, quiet=True)
    assert count(client) == len(rows_in(out))


def rows_in(out: Path) -> list[Any]:
    with Replay(out).open() as source:
        return replay_model.rows_of(source.chunks(), source.tickers)


def test_files_that_are_no_more_are_said(
    tmp_path: Path, open_database: Callable[[], Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_database()
    monkeypatch.setattr(days, "SETTLED_S", -1.0)
    for name, seed in (("a", 4), ("b", 5)):
        imported(tmp_path / "out", write(tmp_path / f"{name}.parquet", rows_of(Feed(seed).run(1, 30))))
    compact(sorted((tmp_path / "out" / "orderbook").iterdir()), quiet=True)
    with pytest.raises(ConfigError, match=r"there are 0 of [0-9]+ rows in files of its own"):
        store_imports(client, tmp_path / "out", quiet=True)
    assert count(client) == 0


def test_the_command(
    tmp_path: Path,
    open_database: Callable[[], Client],
    engine_url: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    open_database()
    source = write(tmp_path / "in" / "a.parquet", rows_of(Feed(4).run(1, 20)))
    command = ["import", str(source), "--out", str(tmp_path / "out"), "--to", "clickhouse", "--quiet"]
    command += ["--clickhouse-url", engine_url, "--clickhouse-database", "imported"]
    command += ["--env-file", os.devnull]
    assert main(command) == 0
    assert "1 imports with" in capsys.readouterr().out
    assert main(command) == 0
    assert "0 imports with 0 rows stored; 1 were there before" in capsys.readouterr().out
    client = open_database()
    client.database = "imported"
    assert count(client) == len(rows_in(tmp_path / "out"))
    assert main([*command, "--clickhouse-url", "off"]) == 2
    assert "CLICKHOUSE_URL is off" in capsys.readouterr().err
