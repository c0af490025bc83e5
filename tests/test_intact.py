"""Parts whose files are not what the engine thinks: found by reading, and their tables made good."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from frames import delta, snapshot
from journals import Source, deliver
from kalshi_fast.errors import SinkError
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.intact import LASTS_S, PartsCheck

if TYPE_CHECKING:
    from collections.abc import Callable

    from clickhouse_connect.driver.client import Client


@pytest.fixture
def open_embedded(engine_url: str, tmp_path: Path) -> Callable[[], Client]:
    """Clients of a database of its own in the engine itself: only there parts are files that we can reach."""
    database = f"intact {tmp_path.name}"
    return lambda: clickhouse.connect(engine_url, user="default", password="", database=database)


def damage(client: Client, table: str, file_name: str) -> str:
    """Cuts a file of the newest part of a table short, as a write does that fails and is not reported."""
    (part, path), *_ = client.query(
        "SELECT name, path FROM system.parts WHERE active AND database = currentDatabase()"
        f" AND table = '{table}' ORDER BY modification_time DESC, name DESC LIMIT 1"
    ).result_rows
    file = Path(path) / file_name
    file.write_bytes(file.read_bytes()[:-20])
    return str(part)


def test_parts_that_last_are_read_once_and_damaged_ones_are_named(
    open_embedded: Callable[[], Client], tmp_path: Path
) -> None:
    client, now = open_embedded(), 0.0
    check = PartsCheck(client, clock=lambda: now)
    source = Source(tmp_path)
    source.feed(snapshot(1, "A", yes=[("0.50", "1.00")]))
    sink = ClickHouseSink(lambda: client, source.journal, source.position("clickhouse"))
    deliver(sink)
    assert check.look() == []
    assert check.checked == 0
    now = LASTS_S
    assert check.look() == []
    checked = check.checked
    assert checked >= 3
    assert check.look() == []
    assert check.checked == checked, "once"
    client.command("SYSTEM STOP MERGES orderbook_events")
    source.feed(delta(2, "0.50", "1.00"))
    deliver(sink)
    damage(client, "orderbook_events", "data.bin")
    assert check.look() == []
    assert check.look(every=True) == ["orderbook_events"]
    assert check.look(every=True) == ["orderbook_events"], "until it is made good"
    client.command("SYSTEM START MERGES orderbook_events")


@pytest.mark.parametrize("file_name", ["data.bin", "metadata_version.txt"])
def test_what_a_damaged_part_held_is_stored_again(
    file_name: str, open_embedded: Callable[[], Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_embedded()
    monkeypatch.setattr(client, "close", lambda: None)
    source = Source(tmp_path)
    sink = ClickHouseSink(lambda: client, source.journal, source.position("clickhouse"))
    source.feed(snapshot(1, "A", yes=[("0.50", "1.00")]))
    deliver(sink)
    client.command("SYSTEM STOP MERGES orderbook_events")
    source.feed(delta(2, "0.50", "1.00"))
    deliver(sink)
    part = damage(client, "orderbook_events", file_name)
    assert sink.done_seq == 0, "answered, and not yet read"
    with pytest.raises(SinkError, match="orderbook_events has damaged parts"):
        sink._prove(every=True)
    sink.reset()
    deliver(sink)
    sink._prove(every=True)
    assert client.query("SELECT count(), uniqExact(seq) FROM orderbook_events").result_rows == [(3, 2)]
    assert sink.repaired == 1
    assert sink.done_seq == source.journal.end
    detached = client.query(
        "SELECT count() FROM system.detached_parts WHERE database = currentDatabase() AND name LIKE"
        f" '%{part}'"
    ).result_rows
    assert detached == [(1,)], "what is damaged is set aside, not removed"
