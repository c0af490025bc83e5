"""Which of our rows a table lacks, as multisets, and that an insert of before is over when it is asked."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frames import snapshot
from journals import Source, deliver
from kalshi_fast.channels.rows import SCHEMAS
from kalshi_fast.errors import SinkError
from kalshi_fast.sinks.clickhouse import ClickHouseSink
from kalshi_fast.sinks.readback import beyond, make_sure_it_is_over, missing, serves_others

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clickhouse_connect.driver.client import Client


@given(st.lists(st.integers(0, 5), max_size=20), st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_what_is_there_more_often_than_in_the_table_is_missing(ours: list[int], theirs: list[int]) -> None:
    lacking = beyond(np.array(ours, np.uint64), np.array(theirs, np.uint64))
    found = Counter(value for value, lacks in zip(ours, lacking, strict=True) if lacks)
    assert found == Counter(ours) - Counter(theirs)


def tickers(count: int) -> pa.Table:
    """Some of them twice the same, some with values left out."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMAS["tickers"].names}
    for n in range(count):
        row: dict[str, Any] = dict.fromkeys(columns)
        row |= {"conn_id": 2**63 + 5, "sid": 3, "market_id": "00000000-0000-0000-0000-00000000000a"}
        row |= {"market_ticker": f"M-{n % 7}", "price_e4": None if n % 3 else 100 + n // 2}
        row |= {"dollar_volume": -n // 2, "ts": 1_700_000_000_000_000, "ingest_ts": 1_700_000_000_000_000_000}
        row["ingest_ts"] += n // 2 * 10
        row["market_ticker"] = f"M-{n // 2 % 7}"
        row["dollar_volume"] = n // 2
        row["price_e4"] = None if n // 2 % 3 else n // 2
        for name, value in row.items():
            columns[name].append(value)
    arrays = [
        pa.array(columns[field.name], field.type)
        if not pa.types.is_dictionary(field.type)
        else pa.array(columns[field.name], pa.string()).dictionary_encode()
        for field in SCHEMAS["tickers"]
    ]
    return pa.table(arrays, schema=SCHEMAS["tickers"])


def test_a_table_gets_what_it_lacks_equal_rows_and_nulls_included(
    open_database: Callable[[], Client],
) -> None:
    client, rows = open_database(), tickers(40)
    assert missing(client, "tickers", rows).num_rows == 40
    client.insert_arrow("tickers", rows.slice(0, 11))  # of the last pair one
    lacking = missing(client, "tickers", rows)
    assert lacking.num_rows == 29
    client.insert_arrow("tickers", lacking)
    assert missing(client, "tickers", rows).num_rows == 0
    assert client.query("SELECT count(), uniqExact(ingest_ts) FROM tickers").result_rows == [(40, 20)]


class Server:
    """Of a server what is asked of it: one insert runs until it has been killed, and some looks longer."""

    uri = "http://127.0.0.1:8123"

    def __init__(self, looks: int) -> None:
        self.looks = looks
        self.said: list[str] = []

    def query(self, sql: str, parameters: dict[str, str]) -> SimpleNamespace:
        assert "system.processes" in sql
        running = parameters["ids"] == "kalshi-fast:j:" and (not self.said or self.looks > 0)
        self.looks -= bool(self.said)
        return SimpleNamespace(result_rows=[(int(running),)])

    def command(self, sql: str, parameters: dict[str, str]) -> None:
        self.said.append(f"{sql} {parameters['ids']}")


def test_an_insert_of_before_is_ended_before_anything_is_read() -> None:
    server: Any = Server(looks=2)
    make_sure_it_is_over(server, "kalshi-fast:another:")
    assert server.said == []
    make_sure_it_is_over(server, "kalshi-fast:j:")
    assert len(server.said) == 1, "killed once, and waited for"
    assert server.said[0].startswith("KILL QUERY WHERE startsWith(query_id")
    assert server.looks <= 0
    with pytest.raises(SinkError, match="does not end"):
        make_sure_it_is_over(cast("Any", Server(looks=1000)), "kalshi-fast:j:", wait_s=0.3)


def test_inserts_have_ids_by_which_they_are_found(
    open_database: Callable[[], Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = open_database()
    asked: list[str] = []
    insert = client.insert_arrow

    def noted(table: str, rows: pa.Table, settings: dict[str, Any]) -> Any:  # noqa: ANN401
        asked.append(settings["query_id"])
        return insert(table, rows, settings=settings)

    monkeypatch.setattr(client, "insert_arrow", noted)
    source = Source(tmp_path)
    sink = ClickHouseSink(lambda: client, source.journal, source.position("clickhouse"))
    source.feed(snapshot(1, "A", yes=[("0.50", "1.00")]))
    deliver(sink)
    assert len(asked) == len(set(asked)) == 3
    assert all(query_id.startswith(f"kalshi-fast:{source.journal.id}:") for query_id in asked)
    assert serves_others(client) == client.uri.startswith("http")
