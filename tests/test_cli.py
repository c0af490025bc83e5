"""The commands as a user runs them: processes of their own, real files, the genuine engine, real signals."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from kalshi_fast import __version__
from operators import eventually
from test_simulator import process, recorded_deltas

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [str(Path(sys.executable).parent / "kalshi-fast")]


COUNT = "SELECT count() FROM kalshi.orderbook_events"


def environment(**values: str) -> dict[str, str]:
    names = ("PATH", "HOME", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH")
    return {name: os.environ[name] for name in names if name in os.environ} | values


def run(
    *arguments: object, cwd: Path, code: int = 0, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**(env or {})),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    assert "Traceback" not in done.stderr
    return done


def refused(*arguments: object, cwd: Path, env: dict[str, str] | None = None, code: int = 2) -> str:
    """The one sentence on stderr."""
    done = run(*arguments, cwd=cwd, code=code, env=env)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("kalshi-fast: ")]
    return line


def query(directory: Path, sql: str) -> list[list[Any]]:
    done = run("query", "--dir", directory, "--format", "JSONCompact", sql, cwd=directory)
    return json.loads(done.stdout)["data"]  # type: ignore[no-any-return]


def figures(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


# --- demo -------------------------------------------------------------------------------------------


@pytest.mark.clock
def test_demo_counts_agree_and_a_second_run_in_the_same_directory_too(tmp_path: Path) -> None:
    for number in (1, 2):
        arguments = ("--seconds", 2, "--markets", 50, "--rate", 20_000, "--dir", tmp_path / "d", "--json")
        done = run("demo", *arguments, cwd=tmp_path)
        found = figures(done)
        assert found["events"] == found["clickhouse_rows"] == found["parquet_rows"] > 30_000
        assert found["books_equal"] == found["books_compared"] == found["sql_books_equal"] >= 50
        assert found["snapshots"] == found["markets"] == 50 + found["created"]
        assert found["created_complete"] == found["created"] == len(found["heard_us"]) >= 1
        kinds = ("snapshots", "deltas", "trades", "tickers", "lifecycle", "reference_prices")
        frames = sum(found[kind] for kind in kinds)
        told = found["frames_sent"] - frames - found["raw_stored"]
        assert 9 <= told <= 9 + 3 * found["created"], "subscriptions, and what was added to them"
        assert found["frames_sent"] == found["frames_received"]
        tables = {kind: kind for kind in ("trades", "tickers", "reference_prices")}
        for kind, table in {**tables, "lifecycle": "market_lifecycle"}.items():
            stored = found["channels"][table]
            assert stored["clickhouse"] == stored["parquet"] == found[f"exchange_{kind}"] > 0
        for kind in ("created", "metadata_updated", "event_fee_update", "multivariate_market_lifecycle"):
            counts = set(found["announcements"][kind].values())
            assert len(counts) == 1, (kind, found["announcements"])
            assert min(counts) > 0
        in_all = [sum(kind["parquet"] for kind in found["announcements"].values())]
        assert in_all == [found["lifecycle"]], "no kind is left out"
        assert found["raw_stored"] == found["exchange_raw"] > 0
        assert found["gaps"] == 0
        assert found["frames_per_s"] > 1000
        assert found["agrees"] is True
        assert "frames received" in done.stdout
        assert "frames" in done.stderr, "progress"
        assert query(tmp_path / "d", "SELECT uniq(conn_id) FROM kalshi.orderbook_events") == [[number]]
        files = ds.dataset(tmp_path / "d" / "parquet" / "orderbook", format="parquet")
        assert [[files.count_rows()]] == query(tmp_path / "d", "SELECT count() FROM kalshi.orderbook_events")


@pytest.mark.clock
@pytest.mark.parametrize("standby", [(), ("--hot-standby",)], ids=["alone", "standby"])
def test_demo_under_chaos_stores_the_truth(tmp_path: Path, standby: tuple[str, ...]) -> None:
    arguments = ("--chaos", "--seed", 7, "--seconds", 8, "--markets", 60, "--json", "--quiet", *standby)
    done = run("demo", *arguments, "--dir", tmp_path / "d", cwd=tmp_path)
    found = figures(done)
    assert found["agrees"] is True
    assert found["checkpoints_wrong"] == 0
    assert found["checkpoints_exact"] > found["checkpoints_compared"] / 4 > 100
    assert found["books_equal"] == found["books_compared"] == found["sql_books_equal"]
    assert found["books_compared"] + found["markets_let_go"] == 60 + found["created"] > 60
    assert found["events"] == found["clickhouse_rows"] == found["parquet_rows"]
    assert sum(found["faults"].values()) >= 5
    assert "known to be unknown" in done.stdout


@pytest.fixture(scope="module")
def played(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("played")
    done = run("demo", "--recording", recordings, "--dir", directory, "--json", "--quiet", cwd=directory)
    found = figures(done)
    assert found["books_equal"] == found["books_compared"] == 2
    assert found["events"] == found["clickhouse_rows"] == found["parquet_rows"]
    assert found["deltas"] == 11_480
    return directory


def test_recorded_deltas_are_stored_row_for_row(played: Path, recordings: Path) -> None:
    expected = recorded_deltas(recordings)
    columns = "market_ticker, side, price_e4, toInt32(qty_e2)"
    sql = f"SELECT {columns} FROM kalshi.orderbook_events WHERE type = 'delta' ORDER BY conn_id, sid, seq"
    assert [tuple(row) for row in query(played, sql)] == expected
    in_parquet = [
        (row["market_ticker"], row["side"], row["price_e4"], row["qty_e2"])
        for file in sorted((played / "parquet" / "orderbook").rglob("*.parquet"))
        for row in pq.ParquetFile(file).read().to_pylist()
        if row["type"] == "delta"
    ]
    assert in_parquet == expected


def test_recorded_times_are_kept_to_the_microsecond(played: Path, recordings: Path) -> None:
    times = [
        row["ts"][:26].replace("T", " ")
        for file in sorted(recordings.rglob("*.parquet"))
        for row in pq.ParquetFile(file).read().to_pylist()
        if row["type"] == "delta"
    ]
    sql = "SELECT toString(ts) FROM kalshi.orderbook_events WHERE type = 'delta' ORDER BY sid, seq"
    assert [row[0] for row in query(played, sql)] == [text.ljust(26, "0") for text in times]


def test_legacy_form_gives_the_same_rows(played: Path, recordings: Path, tmp_path: Path) -> None:
    run(
        "demo",
        "--recording",
        recordings,
        "--form",
        "legacy",
        "--dir",
        tmp_path,
        "--quiet",
        "--no-tls",
        cwd=tmp_path,
    )
    sql = (
        "SELECT type, sid, seq, market_id, market_ticker, side, price_e4, qty_e2, "
        "if(type = 'delta', toString(ts), '') FROM kalshi.orderbook_events"
        " ORDER BY seq, type, market_ticker, side, price_e4"
    )
    assert query(tmp_path, sql) == query(played, sql)


def test_the_seed_s_queries_run_unchanged(played: Path) -> None:
    levels = query(
        played,
        "SELECT side, price, size FROM kalshi.latest_levels WHERE market_ticker = 'FEDFUNDS-DEC25'"
        " ORDER BY price DESC;",
    )
    assert len(levels) == 15
    prices = [float(row[1]) for row in levels]
    assert prices == sorted(prices, reverse=True)
    assert max(prices) <= 100, "cents"
    history = query(
        played,
        "SELECT ts, side, price, qty FROM kalshi.orderbook_events WHERE market_ticker = 'FEDFUNDS-DEC25'"
        " AND type = 'snapshot' ORDER BY ts DESC LIMIT 100;",
    )
    assert 0 < len(history) <= 100
    deltas = query(
        played,
        "SELECT ts, seq, side, price, qty FROM kalshi.orderbook_events WHERE market_ticker = 'FEDFUNDS-DEC25'"
        " AND type = 'delta' ORDER BY seq;",
    )
    assert len(deltas) == 11_480
    monitor = query(
        played,
        "SELECT market_ticker, COUNT(*) as rows, MAX(ts) as last_update FROM kalshi.orderbook_events"
        " GROUP BY market_ticker;",
    )
    assert {row[0] for row in monitor} == {"FEDFUNDS-DEC25", "KXBTCMAXY-25-DEC31-129999.99"}


# --- run --------------------------------------------------------------------------------------------


@contextmanager
def simulator(directory: Path, *arguments: str) -> Iterator[dict[str, str]]:
    """A running simulator process and the environment that a recording of it needs."""
    with process(directory, *arguments) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        ready = json.loads(child.stdout.readline())
        yield {
            "PROD_KEYID": ready["key_id"],
            "PROD_KEYFILE": ready["key_file"],
            "MARKET_TICKERS": ",".join(ready["tickers"]),
            "WS_URL": ready["url"],
            "WS_CAFILE": ready["ca_file"],
            "REST_URL": ready["rest_url"],
        }
        child.stdin.close()
        child.wait(10)


@contextmanager
def recording(directory: Path, settings: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A recorder process that has begun to write."""
    recorder = subprocess.Popen(
        [*COMMAND, "run", "--json", *arguments],
        cwd=directory,
        env=environment(**settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with recorder:
        deadline = time.monotonic() + 30
        while not list(directory.glob("data/orderbook/*/.part-*.tmp")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        try:
            yield recorder
        except BaseException:
            recorder.kill()  # or leaving would wait for it
            raise


def until_said(recorder: subprocess.Popen[str], what: str) -> None:
    """Reads its stderr up to that line. A recorder that does not say it is killed, which ends the reading."""
    assert recorder.stderr is not None
    killing = threading.Timer(30, recorder.kill)
    killing.start()
    lines = []
    while line := recorder.stderr.readline():
        lines.append(line)
        if what in line:
            killing.cancel()
            return
    pytest.fail(f"expected {what!r} in {''.join(lines)!r}")


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_run_delivers_everything_when_it_is_stopped(tmp_path: Path, signum: signal.Signals) -> None:
    with (
        simulator(tmp_path / "sim", "--markets", "5", "--rate", "2000") as settings,
        recording(tmp_path, settings) as recorder,
    ):
        eventually("rows", lambda: int(run("query", "--format", "TSV", COUNT, cwd=tmp_path).stdout) > 500)
        refused_too = refused("run", "--quiet", cwd=tmp_path, env=settings)
        assert "JOURNAL_DIR" in refused_too
        assert f"in use by process {recorder.pid}" not in refused_too, "the writer has it"
        recorder.send_signal(signum)
        out, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, err
    assert "Traceback" not in err
    found = json.loads(out.splitlines()[-1])
    assert found["deltas"] > 500
    assert found["events"] == found["clickhouse_rows"] == found["parquet_rows"]
    answer = run("query", "--format", "TSV", COUNT, cwd=tmp_path)
    assert int(answer.stdout) == found["events"]
    assert ds.dataset(tmp_path / "data" / "orderbook", format="parquet").count_rows() == found["events"]
    assert list(tmp_path.glob("data/orderbook/*/.part-*")) == []


@pytest.mark.clock
def test_lost_frames_become_gaps_and_the_books_repair_themselves(tmp_path: Path) -> None:
    lossy = ("--markets", "5", "--rate", "2000", "--drop-every", "400")
    with simulator(tmp_path / "sim", *lossy) as settings:
        done = run("run", "--seconds", 4, "--json", "--quiet", cwd=tmp_path, env=settings)
    found = figures(done)
    assert found["gaps"] >= 2
    assert found["frames_rejected"] == 0
    assert found["events"] == found["clickhouse_rows"] == found["parquet_rows"]
    asked = "SELECT count() FROM kalshi.gaps WHERE until IS NOT NULL"
    assert int(run("query", "--format", "TSV", asked, cwd=tmp_path).stdout) >= 5 * (found["gaps"] - 1)


@pytest.mark.clock
def test_resets_are_noticed_at_once_whatever_lies_unread_before_them(tmp_path: Path) -> None:
    """Not every transport sees a reset that comes with unread data, and a ping is half a minute away here."""
    script = tmp_path / "faults.json"
    script.write_text(json.dumps([{"at_s": at_s, "kind": "reset"} for at_s in (1, 2, 3, 4)]))
    arguments = ("--markets", "50", "--rate", "20000", "--faults", str(script))
    with simulator(tmp_path / "sim", *arguments) as told:
        patient = told | {"CLICKHOUSE_URL": "off", "WS_IDLE_SECS": "30", "WS_BACKOFF_SECS": "0.01"}
        patient |= {"CHANNELS": "orderbook_delta"}
        done = run("run", "--seconds", 7, "--json", "--quiet", cwd=tmp_path, env=patient)
    assert figures(done)["connections"] == 5
    assert done.stderr.count("the connection was lost without a close frame") == 4


def test_sighup_reads_the_markets_anew(tmp_path: Path) -> None:
    with simulator(tmp_path / "sim", "--markets", "3", "--rate", "500") as told:
        settings = told | {"CLICKHOUSE_URL": "off"}
        first, second, third = settings.pop("MARKET_TICKERS").split(",")
        (tmp_path / ".env").write_text(f"MARKET_TICKERS={first},{second}\n")
        settings["PARQUET_MAX_SECS"] = "1"

        def rows() -> list[tuple[str, str]]:
            found = []
            for file in sorted(tmp_path.glob("data/orderbook/*/part-*.parquet")):  # those that are closed
                table = pq.read_table(file, columns=["market_ticker", "type"])
                found += list(zip(*(column.to_pylist() for column in table.columns), strict=True))
            return found

        with recording(tmp_path, settings, "--quiet") as recorder:
            (tmp_path / ".env").write_text("MARKET_TICKERS=no such ticker\n")
            recorder.send_signal(signal.SIGHUP)
            until_said(recorder, "the markets stay as they are: MARKET_TICKERS")
            (tmp_path / ".env").write_text(f"MARKET_TICKERS={second},{third}\n")
            recorder.send_signal(signal.SIGHUP)
            eventually("the third market is recorded", lambda: third in dict(rows()))
            recorder.send_signal(signal.SIGTERM)
            out, err = recorder.communicate(timeout=30)
    assert recorder.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["markets"] == 3
    stored = rows()
    last = {ticker: number for number, (ticker, _) in enumerate(stored)}
    assert stored[last[first]][1] == "gap", "unknown from then on"
    assert last[second] > last[first] < last[third]


def test_unknown_tickers_are_named_and_the_others_recorded(tmp_path: Path) -> None:
    with simulator(tmp_path / "sim", "--markets", "2", "--rate", "500") as settings:
        some = settings | {"MARKET_TICKERS": settings["MARKET_TICKERS"] + ",NOPE-26"}
        done = run("run", "--seconds", 2, "--json", "--quiet", cwd=tmp_path, env=some)
        assert figures(done)["markets"] == 2
        assert "NOPE-26" in done.stderr
        line = refused("run", cwd=tmp_path, env=settings | {"MARKET_TICKERS": "NOPE-26"})
        assert "NOPE-26" in line
        (tmp_path / "stranger.pem").write_bytes(Path(settings["PROD_KEYFILE"]).read_bytes())
        line = refused("run", cwd=tmp_path, env=settings | {"PROD_KEYID": "someone-else"})
        assert "refused the key" in line
        (tmp_path / "stranger.pem").chmod(0o644)
        line = refused("run", cwd=tmp_path, env=settings | {"PROD_KEYFILE": "stranger.pem"})
        assert "chmod 600" in line


def test_wrong_configuration_is_one_sentence_and_exit_code_2(tmp_path: Path, key_file: Path) -> None:
    live = {"PROD_KEYID": "id", "PROD_KEYFILE": str(key_file), "MARKET_TICKERS": "FED-26"}
    assert "PROD_KEYID is not set" in refused("run", cwd=tmp_path)
    assert "MARKET_TICKERS is not set" in refused("run", cwd=tmp_path, env=live | {"MARKET_TICKERS": ""})
    assert "does not exist" in refused("run", cwd=tmp_path, env=live | {"PROD_KEYFILE": "nowhere.pem"})
    assert "BATCH_ROWS" in refused("run", "--batch-rows", "many", cwd=tmp_path, env=live)
    unreachable = live | {"WS_URL": "wss://127.0.0.1:9/trade-api/ws/v2"}
    told = refused("run", cwd=tmp_path, env=unreachable, code=1)
    assert "127.0.0.1 cannot be reached" in told, "which no setting need be the reason of"
    (tmp_path / "file").touch()
    assert "PARQUET_DIR" in refused("run", "--parquet-dir", "file", cwd=tmp_path, env=live)
    nowhere = ("--clickhouse-url", "chdb://file/x")
    assert "CLICKHOUSE_URL" in refused("run", *nowhere, cwd=tmp_path, env=live)
    both_off = ("--clickhouse-url", "off", "--parquet-dir", "off")
    assert "nothing would be recorded" in refused("run", *both_off, cwd=tmp_path, env=live)
    (tmp_path / ".env").write_text("BATCH_ROWS=5\nthis is no setting\n")
    assert "line 2" in refused("run", cwd=tmp_path)
    assert "line 2" in refused("config", cwd=tmp_path)


def test_demo_that_cannot_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "cannot be written" in refused("demo", "--dir", "file", cwd=tmp_path)
    assert "no Parquet files" in refused("demo", "--recording", "nowhere", cwd=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"{port} cannot be opened" in refused("demo", "--port", port, cwd=tmp_path)
    assert run("demo", "--markets", "-1", cwd=tmp_path, code=2).stderr


# --- query, config ----------------------------------------------------------------------------------


def test_chaos_and_a_recording_do_not_go_together(tmp_path: Path) -> None:
    assert "--chaos" in refused("demo", "--chaos", "--recording", tmp_path, cwd=tmp_path)


def test_query_errors(played: Path, tmp_path: Path) -> None:
    assert "nope" in refused("query", "--dir", played, "SELECT nope FROM kalshi.trades", cwd=tmp_path, code=1)
    assert "nothing has been recorded" in refused("query", "SELECT 1", cwd=tmp_path)
    assert "format" in refused("query", "--dir", played, "--format", "no'format", "SELECT 1", cwd=tmp_path)
    assert not (tmp_path / "data").exists()


def test_config_shows_values_sources_and_no_secrets(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("CLICKHOUSE_PASSWORD=hunter2\nBATCH_ROWS=7\n")
    done = run("config", "--parquet-dir", "/p", cwd=tmp_path, env={"PROD_KEYID": "0123456789"})
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert "7 " in lines["BATCH_ROWS"]
    assert ".env file" in lines["BATCH_ROWS"]
    assert "flag" in lines["PARQUET_DIR"]
    assert "environment" in lines["PROD_KEYID"]
    assert "…6789" in lines["PROD_KEYID"]
    assert "hunter2" not in done.stdout
    as_json = json.loads(run("config", "--json", cwd=tmp_path).stdout)
    assert as_json["BATCH_ROWS"] == {"value": "7", "source": ".env file .env"}


def test_help_and_version(tmp_path: Path) -> None:
    assert __version__ in run("--version", cwd=tmp_path).stdout
    for command in ("run", "demo", "query", "config"):
        assert "usage: kalshi-fast " + command in run(command, "--help", cwd=tmp_path).stdout
    assert "COMMAND" in run(cwd=tmp_path, code=2).stderr


# --- sql --------------------------------------------------------------------------------------------


def test_sql_prints_what_makes_the_tables(tmp_path: Path) -> None:
    printed = run("sql", "--clickhouse-database", "other", cwd=tmp_path).stdout
    assert printed.startswith("-- 0000_schema_version.sql\n\nCREATE DATABASE IF NOT EXISTS `other`;\n")
    assert "CREATE TABLE IF NOT EXISTS `other`.orderbook_events\n" in printed
    assert "kalshi." not in printed
    assert list(tmp_path.iterdir()) == [], "printing changes nothing"
    on_cluster = run("sql", "--cluster", "mine", cwd=tmp_path).stdout
    assert on_cluster.count(" ON CLUSTER `mine`") == on_cluster.count(";\n") > printed.count(";\n")


def test_sql_applies_once_and_tells_the_status(tmp_path: Path) -> None:
    assert "nothing has been recorded" in refused("sql", "--status", cwd=tmp_path)
    env = {"CLICKHOUSE_URL": "chdb://db"}
    applied = run("sql", "--apply", cwd=tmp_path, env=env).stdout.splitlines()
    assert applied[0] == "applied  0000_schema_version.sql"
    assert run("sql", "--apply", cwd=tmp_path, env=env).stdout.startswith("nothing to do")
    status = run("sql", "--status", cwd=tmp_path, env=env).stdout.splitlines()
    assert len(status) == len(applied)
    assert all(line.endswith(f"by kalshi-fast {__version__}") for line in status)
    newer = "INSERT INTO kalshi.schema_version SELECT 900, '0900_x.sql', 'c', '7.0', now()"
    run("query", newer, cwd=tmp_path, env=env)
    for what in ("--apply", "--status"):
        assert "run kalshi-fast 7.0 or later" in refused("sql", what, cwd=tmp_path, env=env)


def test_sql_knows_no_cluster_of_the_embedded_engine(tmp_path: Path) -> None:
    told = refused("sql", "--apply", "--cluster", "mine", cwd=tmp_path)
    assert "CLICKHOUSE_CLUSTER: the embedded engine" in told
    assert "CLICKHOUSE_CLUSTER: expected letters" in refused("sql", "--cluster", "a b", cwd=tmp_path)
