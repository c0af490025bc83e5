"""What an event costs to keep: bytes in ClickHouse and in Parquet, ours beside the seed's, in one run.

ClickHouse: compressed bytes of the columns after OPTIMIZE FINAL, in the embedded engine. Parquet: the size of
one file. Either is divided by the events that both store, the rows of snapshots and deltas; our clear rows,
connection ids, nanoseconds, fractions of contracts and of cents come on top and are paid by us. The seed
stores whole cents and contracts only, so it gets less to store.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from benchmarks import seed_storage
from benchmarks.events import recorded_events, synthetic_events
from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.sinks import clickhouse
from kalshi_fast.sinks.layout import ROW_GROUP_ROWS, writer_options

if TYPE_CHECKING:
    import pyarrow as pa
    from clickhouse_connect.driver.client import Client

N_DELTAS = 400_000
RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "recorded-2025"


@pytest.fixture(scope="module")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"chdb://{tmp_path_factory.mktemp('engine')}"


@pytest.fixture(scope="module", params=["recorded", "synthetic"])
def events(request: pytest.FixtureRequest) -> pa.Table:
    if request.param == "synthetic":
        return synthetic_events(N_DELTAS)
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    return recorded_events(RECORDINGS)


def in_clickhouse(client: Client, table: str) -> dict[str, int]:
    """Compressed bytes after all merges: of the whole, and of each column where the engine tells them."""
    client.command(f"OPTIMIZE TABLE {table} FINAL")
    where = f"WHERE active AND database = currentDatabase() AND table = '{table}'"
    ((total,),) = client.query(f"SELECT sum(data_compressed_bytes) FROM system.parts {where}").result_rows
    columns = client.query(
        f"SELECT column, sum(column_data_compressed_bytes) FROM system.parts_columns {where} GROUP BY column"
    ).result_rows
    return {"": int(total)} | {str(name): int(size) for name, size in columns}


def in_parquet(path: Path) -> dict[str, int]:
    found = {"": path.stat().st_size}
    footer = pq.read_metadata(path)
    for group in range(footer.num_row_groups):
        for number in range(footer.num_columns):
            column = footer.row_group(group).column(number)
            found.setdefault(column.path_in_schema, 0)
            found[column.path_in_schema] += column.total_compressed_size
    return found


def show(title: str, rows: int, seed: dict[str, int], ours: dict[str, int]) -> None:
    """Bytes per event, whole and by column; a column that one of them lacks has no figure there."""
    renamed = {"price_e4": "price", "qty_e2": "qty"}
    ours = {renamed.get(name, name): size for name, size in ours.items()}
    lines = [f"\n{title}: bytes per event ({rows:,} events)", f"  {'':<14}{'seed':>8}{'ours':>8}"]
    for name in ("", *(renamed.get(name, name) for name in EVENT_SCHEMA.names)):
        figures = (f"{of[name] / rows:8.3f}" if of.get(name) else f"{'':>8}" for of in (seed, ours))
        if seed.get(name) or ours.get(name):
            lines.append(f"  {name or 'all':<14}" + "".join(figures))
    sys.stdout.write("\n".join(lines) + "\n")


def test_clickhouse(
    engine_url: str, events: pa.Table, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    name = request.node.callspec.id
    theirs = seed_storage.seed_events(events)
    client = clickhouse.connect(engine_url, user="default", password="", database=f"storage_{name}")
    try:
        client.command(seed_storage.ddl("seed_events"))
        client.insert_arrow("seed_events", theirs)
        client.insert_arrow("orderbook_events", events)
        for table, rows in (("seed_events", theirs), ("orderbook_events", events)):
            assert client.query(f"SELECT count() FROM {table}").result_rows == [(rows.num_rows,)]
        seed, ours = in_clickhouse(client, "seed_events"), in_clickhouse(client, "orderbook_events")
    finally:
        client.close()
    with capsys.disabled():
        show(f"ClickHouse, {name}", theirs.num_rows, seed, ours)
    assert ours[""] < seed[""]


def test_parquet(
    tmp_path: Path, events: pa.Table, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    name = request.node.callspec.id
    theirs = seed_storage.seed_events(events)
    seed_storage.write_parquet(theirs, tmp_path / "seed.parquet")
    with pq.ParquetWriter(tmp_path / "ours.parquet", EVENT_SCHEMA, **writer_options()) as writer:
        writer.write_table(events, row_group_size=ROW_GROUP_ROWS)
    assert pq.read_table(tmp_path / "ours.parquet").equals(events)
    seed, ours = in_parquet(tmp_path / "seed.parquet"), in_parquet(tmp_path / "ours.parquet")
    with capsys.disabled():
        show(f"Parquet, {name}", theirs.num_rows, seed, ours)
        if name == "recorded":
            real = sum(path.stat().st_size for path in RECORDINGS.rglob("*.parquet"))
            sys.stdout.write(f"  the seed's own small files: {real / theirs.num_rows:.3f}\n")
    assert ours[""] < seed[""]


def test_the_seed_is_rebuilt_as_its_own_files_are(tmp_path: Path) -> None:
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    seed_storage.write_parquet(
        seed_storage.seed_events(recorded_events(RECORDINGS)), tmp_path / "seed.parquet"
    )
    newest = max(RECORDINGS.rglob("*.parquet"))
    real, rebuilt = pq.ParquetFile(newest), pq.ParquetFile(tmp_path / "seed.parquet")
    assert rebuilt.schema_arrow.equals(real.schema_arrow)
    for number in range(len(real.schema_arrow)):
        columns = [file.metadata.row_group(0).column(number) for file in (real, rebuilt)]
        assert columns[0].encodings == columns[1].encodings
        assert columns[0].compression == columns[1].compression
    stored = pq.read_table(newest)
    same = rebuilt.read().slice(rebuilt.metadata.num_rows - stored.num_rows)
    for name in ("type", "sid", "seq", "market_ticker", "side", "price", "qty", "ts"):
        assert same[name].equals(stored[name]), name
