"""``kalshi-fast check`` says what is true of key, exchange, stores, disk and host, and changes none of it.

The exchange is the simulator in a process of its own over real TLS; the servers with a wrong clock, without
an answer or without the right to sign in are real too. Other hosts are directories that look like theirs.
"""

from __future__ import annotations

import email.utils
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import front
from journals import mounted
from kalshi_fast.check import disk, exchange, host, stores
from kalshi_fast.check.finding import Check, Finding, Verdict, ok
from kalshi_fast.check.run import exit_code, figures, run_checks
from kalshi_fast.config import Settings, load
from kalshi_fast.errors import ConfigError
from kalshi_fast.simulator.tls import make_key, make_tls
from kalshi_fast.sinks import clickhouse
from test_simulator import process

if TYPE_CHECKING:
    from collections.abc import Iterator

SILENCE = {"PATH", "HOME", "LANG", "TMPDIR", "PYTHONPATH", "LD_LIBRARY_PATH"}


def settings(**told: str) -> Settings:
    return load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings


def looked(checks: list[Check], limit_s: float = 10) -> dict[str, Finding]:
    return {finding.name: finding for finding in run_checks(checks, limit_s)}


def check(directory: Path, env: dict[str, str], *arguments: str, code: int = 0) -> dict[str, dict[str, str]]:
    """The command as a user runs it; its findings by name."""
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_fast", "check", "--json", "--quiet", *arguments],
        cwd=directory,
        env={name: value for name, value in os.environ.items() if name in SILENCE} | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    for row in found["checks"]:
        assert row["verdict"] != "warning" or row["remedy"], row
    return {row["name"]: row for row in found["checks"]}


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The settings for a simulated exchange."""
    directory = tmp_path_factory.mktemp("simulated")
    with process(directory, "--markets", "2") as child:
        assert child.stdout is not None
        ready = json.loads(child.stdout.readline())
        yield {
            "PROD_KEYID": ready["key_id"],
            "PROD_KEYFILE": ready["key_file"],
            "WS_URL": ready["url"],
            "REST_URL": ready["rest_url"],
            "WS_CAFILE": ready["ca_file"],
        }
        child.communicate("stop\n")


# --- the command ----------------------------------------------------------------------------------------


def test_all_is_well_and_nothing_is_written(tmp_path: Path, simulated: dict[str, str]) -> None:
    found = check(tmp_path, simulated)
    assert list(tmp_path.iterdir()) == []
    for name in ("key", "clock", "websocket", "clickhouse", "journal", "fsync", "parquet", "tuning"):
        assert found[name]["verdict"] == "ok", found[name]
    assert "takes the handshake (signed, over TLS)" in found["websocket"]["said"]
    assert "not measured" not in found["fsync"]["said"] or sys.platform != "linux"
    assert {row["verdict"] for row in found.values()} <= {"ok", "warning"}


def test_markets_that_the_exchange_does_not_know(tmp_path: Path, simulated: dict[str, str]) -> None:
    known = "KXSIM-26DEC31-T0000"
    found = check(tmp_path, simulated, "--tickers", known)
    assert (found["markets"]["verdict"], found["markets"]["said"]) == (
        "ok",
        "the exchange knows the 1 that are named",
    )
    found = check(tmp_path, simulated, "--tickers", f"{known},NOPE-1,NOPE-2", code=1)
    assert found["markets"]["verdict"] == "failure"
    assert found["markets"]["said"] == "the exchange does not know NOPE-1, NOPE-2"
    assert check(tmp_path, simulated, "--match", "KXSIM*")["markets"]["verdict"] == "ok"
    found = check(tmp_path, simulated, "--match", "NOPE*")
    assert found["markets"]["verdict"] == "warning"
    assert found["markets"]["said"].startswith("there is no market to record: ")


def test_a_line_for_each(tmp_path: Path, simulated: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_fast", "check"],
        cwd=tmp_path,
        env={**os.environ, **simulated, "PROD_KEYFILE": "nowhere.pem"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert {verdict for verdict, *_ in lines} <= {"ok", "warning", "failure"}
    assert ["failure", "key", "PROD_KEYFILE: nowhere.pem does not exist"] in lines
    assert "warning  websocket" in done.stdout


def test_wrong_settings_are_exit_code_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_fast", "check", "--batch-rows", "many"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kalshi-fast: BATCH_ROWS: expected")
    assert done.stdout == ""


def test_a_key_that_others_can_read(tmp_path: Path, simulated: dict[str, str], key_file: Path) -> None:
    key_file.chmod(0o644)
    found = check(tmp_path, simulated | {"PROD_KEYFILE": str(key_file)}, code=1)
    assert found["key"]["verdict"] == "failure"
    assert "(mode 0644): chmod 600" in found["key"]["said"]


def test_a_key_that_the_exchange_does_not_know(
    tmp_path: Path, simulated: dict[str, str], key_file: Path
) -> None:
    found = check(tmp_path, simulated | {"PROD_KEYFILE": str(key_file)}, code=1)
    assert found["key"]["verdict"] == "ok"
    assert found["websocket"]["verdict"] == "failure"
    assert "refused the key, the signature or the clock: HTTP 401" in found["websocket"]["said"]


def test_no_settings_at_all(tmp_path: Path) -> None:
    found = check(
        tmp_path,
        {"WS_URL": "wss://127.0.0.1:9/trade-api/ws/v2", "REST_URL": "https://127.0.0.1:9/trade-api/v2"},
        code=1,
    )
    assert found["key"]["said"] == "PROD_KEYFILE is not set"
    assert found["rest"]["verdict"] == "failure"
    assert "cannot be reached: Connection refused" in found["rest"]["said"]
    assert found["clock"]["verdict"] == found["websocket"]["verdict"] == "warning"


def test_tuning_that_this_host_has_not(tmp_path: Path, simulated: dict[str, str]) -> None:
    found = check(tmp_path, simulated, "--cpu", "4000", code=1)
    assert found["tuning"]["said"].startswith("CAPTURE_CPU: expected cores of this machine")


# --- time limits ----------------------------------------------------------------------------------------


def test_who_does_not_answer_costs_no_more_than_the_limit(key_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        told = settings(
            PROD_KEYID="id",
            PROD_KEYFILE=str(key_file),
            WS_URL=f"ws://127.0.0.1:{port}/trade-api/ws/v2",
            REST_URL=f"http://127.0.0.1:{port}/trade-api/v2",
            CLICKHOUSE_URL=f"http://127.0.0.1:{port}",
        )
        waited_for: list[list[str]] = []
        checks = [*exchange.checks(told), *stores.checks(told), Check("easy", lambda: [ok("easy", "yes")])]
        findings = run_checks(checks, 0.5, waited_for.append)
    assert [finding.name for finding in findings] == ["rest", "clock", "websocket", "clickhouse", "easy"]
    assert [finding.verdict for finding in findings] == [Verdict.FAILURE] * 4 + [Verdict.OK]
    assert findings[2].said == "no answer within 0.5 s"
    assert waited_for[-1] == ["rest", "clock", "websocket", "clickhouse"]


def test_a_check_that_breaks_does_not_take_the_others_along() -> None:
    def breaks() -> Iterator[Finding]:
        yield ok("broken", "so far")
        raise ZeroDivisionError("a\nb")

    def refuses() -> Iterator[Finding]:
        raise ConfigError("CLICKHOUSE_URL: no")
        yield

    found = looked(
        [Check("broken", breaks), Check("refuses", refuses), Check("fine", lambda: [ok("fine", "")])]
    )
    assert found["broken"].said == "cannot be checked: ZeroDivisionError: a b"
    assert found["refuses"] == Finding("refuses", Verdict.FAILURE, "CLICKHOUSE_URL: no")
    assert found["fine"].verdict is Verdict.OK
    assert exit_code([*found.values()]) == 1
    assert exit_code([found["fine"]]) == 0
    assert figures([*found.values()])["failures"] == 2


# --- the exchange ---------------------------------------------------------------------------------------


@contextmanager
def rest_server(directory: Path, status: int, ahead_s: float | None) -> Iterator[Settings]:
    """A server over TLS with a clock of its own; None: it does not tell the time."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response_only(status)
            if ahead_s is not None:
                self.send_header("Date", email.utils.formatdate(time.time() + ahead_s, usegmt=True))
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")
            signed.append("KALSHI-ACCESS-SIGNATURE" in self.headers)

        def log_message(self, *_: object) -> None:
            pass

    signed: list[bool] = []
    context, ca_file = make_tls(directory)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    make_key(directory / "key.pem")
    try:
        yield settings(
            PROD_KEYID="id",
            PROD_KEYFILE=str(directory / "key.pem"),
            WS_URL=f"wss://127.0.0.1:{server.server_port}/trade-api/ws/v2",
            REST_URL=f"https://127.0.0.1:{server.server_port}/trade-api/v2",
            WS_CAFILE=str(ca_file),
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert True in signed


@pytest.mark.parametrize(
    ("ahead_s", "verdict", "said"),
    [
        (0.0, Verdict.OK, "agree"),
        (-30.0, Verdict.FAILURE, "ahead of the exchange's, which refuses"),
        (30.0, Verdict.FAILURE, "behind the exchange's, which refuses"),
        (3.5, Verdict.WARNING, "behind the exchange's"),
        (None, Verdict.WARNING, "has not told its time"),
    ],
)
def test_the_clocks(tmp_path: Path, ahead_s: float | None, verdict: Verdict, said: str) -> None:
    with rest_server(tmp_path, 200, ahead_s) as told:
        found = looked(exchange.checks(told))
    assert found["clock"].verdict is verdict, found["clock"]
    assert said in found["clock"].said
    assert found["rest"].verdict is Verdict.OK
    assert found["rest"].said.startswith("127.0.0.1 answers in")
    assert found["websocket"].verdict is Verdict.FAILURE, "it is no WebSocket server"


@pytest.mark.parametrize(("status", "said"), [(401, "refuses the signature"), (503, "with HTTP 503")])
def test_rest_that_answers_otherwise(tmp_path: Path, status: int, said: str) -> None:
    with rest_server(tmp_path, status, 0) as told:
        found = looked(exchange.checks(told))
    assert found["rest"].verdict is Verdict.WARNING
    assert said in found["rest"].said
    assert found["clock"].verdict is Verdict.OK, "a refusal tells the time too"


def test_a_certificate_of_nobody_we_trust(simulated: dict[str, str]) -> None:
    found = looked(exchange.checks(settings(**(simulated | {"WS_CAFILE": ""}))))
    assert "certificate of 127.0.0.1 is not valid" in found["rest"].said
    assert "certificate of 127.0.0.1 is not valid" in found["websocket"].said


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "\0",
        "now",
        "Wed, 99 Nov 2026 14:13:52 GMT",
        "1" * 5000,
        "Wed, 25 Nov 99999999999 14:13:52 GMT",
    ],
)
def test_a_date_that_is_none(text: str | None) -> None:
    assert exchange._date_s(text) is None


# --- the stores -----------------------------------------------------------------------------------------


def test_a_server_before_and_after_its_schema(engine_url: str) -> None:
    database = "checked 1"
    with front.server(engine_url) as url:
        told = settings(
            CLICKHOUSE_URL=url,
            CLICKHOUSE_USER=front.USER,
            CLICKHOUSE_PASSWORD=front.PASSWORD,
        )
        told = _named(told, database)
        before = looked(stores.checks(told))
        assert before["clickhouse"].verdict is Verdict.OK
        assert f"{url} is ClickHouse " in before["clickhouse"].said
        assert before["rights"].verdict is Verdict.OK, before["rights"]
        assert "CREATE DATABASE" in before["rights"].said
        assert "lacks 0000_schema_version.sql, " in before["schema"].said
        client = clickhouse.connect(url, user=front.USER, password=front.PASSWORD, database=database)
        after = looked(stores.checks(told))
        assert after["schema"].said == f"the database {database!r} is up to date"
        assert "CREATE" not in after["rights"].said
        client.command("INSERT INTO schema_version SELECT 900, '0900_x.sql', 'c', '7.0', now()")
        newer = looked(stores.checks(told))
        assert newer["schema"].verdict is Verdict.FAILURE
        assert "run kalshi-fast 7.0 or later" in newer["schema"].said
        client.close()


def _named(told: Settings, database: str) -> Settings:
    import dataclasses

    return dataclasses.replace(told, clickhouse_database=database)


def test_a_server_that_is_away_or_does_not_know_us(engine_url: str) -> None:
    with front.server(engine_url) as url:
        stranger = looked(stores.checks(settings(CLICKHOUSE_URL=url, CLICKHOUSE_PASSWORD="wrong")))
    assert stranger["clickhouse"].verdict is Verdict.FAILURE
    assert "wrong" not in stranger["clickhouse"].said
    gone = looked(stores.checks(settings(CLICKHOUSE_URL=url)))
    assert gone["clickhouse"].said.startswith(f"CLICKHOUSE_URL: {url} does not answer: ")


def test_the_embedded_engine_is_not_opened(tmp_path: Path) -> None:
    directory = tmp_path / "there"
    told = settings(CLICKHOUSE_URL=f"chdb://{directory}")
    assert "made when first used" in looked(stores.checks(told))["clickhouse"].said
    assert not directory.exists()
    directory.mkdir()
    (directory / "status").write_text("PID: 1")
    assert looked(stores.checks(told))["clickhouse"].verdict is Verdict.OK
    with (directory / "status").open("rb") as status:
        fcntl.flock(status, fcntl.LOCK_EX)
        used = looked(stores.checks(told))["clickhouse"]
    assert used.verdict is Verdict.FAILURE
    assert "in use by another process" in used.said
    assert [path.name for path in directory.iterdir()] == ["status"]


def test_an_embedded_engine_that_records_is_asked(engine_url: str, tmp_path: Path) -> None:
    """The one of this process stands for it: its front answers, and another process finds it."""
    directory = clickhouse.embedded_directory(engine_url)
    from kalshi_fast.front.endpoint import remove_endpoint, write_endpoint

    clickhouse.connect(engine_url, user="", password="", database="kalshi").close()
    with front.running(engine_url) as answering:
        write_endpoint(directory, answering.url)
        told = {
            "CLICKHOUSE_URL": engine_url,
            "CLICKHOUSE_USER": front.USER,
            "CLICKHOUSE_PASSWORD": front.PASSWORD,
            "WS_URL": "wss://127.0.0.1:9/",
            "REST_URL": "https://127.0.0.1:9/trade-api/v2",
        }
        found = check(tmp_path, told, code=1)
        remove_endpoint(directory, answering.url)
    assert found["clickhouse"]["said"].startswith("the recording that runs here is ClickHouse ")
    assert found["schema"]["said"] == "the database 'kalshi' is up to date"
    assert "rights" not in found


def test_nothing_to_record_into(tmp_path: Path) -> None:
    found = looked(stores.checks(settings(CLICKHOUSE_URL="off", PARQUET_DIR="off")))
    assert found["stores"].verdict is Verdict.FAILURE
    assert list(tmp_path.iterdir()) == []


# --- the disk -------------------------------------------------------------------------------------------


def test_directories_that_are_none_or_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = settings(JOURNAL_DIR=str(tmp_path / "file" / "x"), PARQUET_DIR=str(tmp_path / "a" / "b"))
    found = looked(disk.checks(told))
    assert found["journal"].said == f"JOURNAL_DIR: {tmp_path / 'file'} is no directory"
    assert found["parquet"].verdict in (Verdict.OK, Verdict.WARNING)
    assert str(tmp_path) in found["parquet"].said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file"]


def test_less_room_than_the_journal_may_take(tmp_path: Path) -> None:
    found = looked(disk.checks(settings(JOURNAL_DIR=str(tmp_path), JOURNAL_MAX_BYTES=str(2**50))))
    assert found["journal"].verdict is Verdict.WARNING
    assert "less than JOURNAL_MAX_BYTES (1048576.0 GiB)" in found["journal"].said
    assert "4 KiB are on the disk" in found["fsync"].said


def test_a_full_disk_and_one_that_is_read_only(tmp_path: Path) -> None:
    with mounted(tmp_path / "small", "-o", "size=1m") as small:
        found = looked(disk.checks(settings(JOURNAL_DIR=str(small / "j"), PARQUET_DIR=str(small / "p"))))
    assert found["journal"].verdict is found["parquet"].verdict is Verdict.FAILURE
    assert "0.0 GiB free" in found["journal"].said
    with mounted(tmp_path / "fixed", "-o", "ro") as fixed:
        found = looked(disk.checks(settings(JOURNAL_DIR=str(fixed), PARQUET_DIR=str(fixed / "p"))))
    assert found["journal"].said == f"JOURNAL_DIR: {fixed} cannot be written: Read-only file system"
    assert found["parquet"].verdict is Verdict.FAILURE
    assert "fsync" not in found


# --- the host -------------------------------------------------------------------------------------------

PLAIN = settings()
TUNED = settings(CAPTURE_CPU="1", BUSY_POLL="on")


def a_host(directory: Path, **files: str) -> Path:
    """``a__b="text"`` is the file a/b."""
    for name, text in files.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return directory


def test_a_host_that_shows_nothing_is_not_blamed(tmp_path: Path) -> None:
    for told in (PLAIN, TUNED):
        found = looked(host.checks(told, tmp_path))
        blamed = {name for name, finding in found.items() if finding.verdict is not Verdict.OK}
        assert blamed <= {"time service", "open files", "clock source"}  # of this very process


@pytest.mark.parametrize(
    ("name", "told", "files", "verdict", "said"),
    [
        ("isolation", TUNED, {"sys__devices__system__cpu__isolated": "1-3"}, "ok", "core 1 is isolated"),
        ("isolation", TUNED, {"sys__devices__system__cpu__isolated": ""}, "ok", "core 1 is not isolated"),
        (
            "governor",
            PLAIN,
            {"sys__devices__system__cpu__cpu0__cpufreq__scaling_governor": "powersave"},
            "warning",
            "powersave on 1 cores",
        ),
        (
            "governor",
            PLAIN,
            {"sys__devices__system__cpu__cpu0__cpufreq__scaling_governor": "performance"},
            "ok",
            "performance on every core",
        ),
        (
            "huge pages",
            PLAIN,
            {"sys__kernel__mm__transparent_hugepage__enabled": "[always] madvise never"},
            "warning",
            "the kernel may stop one",
        ),
        (
            "huge pages",
            PLAIN,
            {"sys__kernel__mm__transparent_hugepage__enabled": "always [madvise] never"},
            "ok",
            "transparent: madvise",
        ),
        (
            "socket buffers",
            PLAIN,
            {
                "proc__sys__net__ipv4__tcp_rmem": "4096\t131072\t212992",
                "proc__sys__net__core__rmem_max": "212992",
            },
            "warning",
            "up to 208 KiB ahead",
        ),
        (
            "socket buffers",
            PLAIN,
            {"proc__sys__net__ipv4__tcp_rmem": "4096 131072 33554432"},
            "ok",
            "up to 32768 KiB ahead",
        ),
        ("busy polling", PLAIN, {"proc__sys__net__core__busy_read": "50"}, "ok", "for up to 50 us"),
        ("busy polling", TUNED, {"proc__sys__net__core__busy_read": "0"}, "ok", "interrupts"),
        (
            "swap",
            PLAIN,
            {"proc__meminfo": "MemTotal: 1 kB\nSwapTotal: 2097152 kB", "proc__sys__vm__swappiness": "60"},
            "warning",
            "2048 MiB of swap, vm.swappiness 60",
        ),
        (
            "swap",
            settings(LOCK_MEMORY="on"),
            {"proc__meminfo": "SwapTotal: 2097152 kB", "proc__sys__vm__swappiness": "60"},
            "ok",
            "2048 MiB",
        ),
        ("swap", PLAIN, {"proc__meminfo": "SwapTotal: 0 kB"}, "ok", "none"),
    ],
)
def test_what_a_host_is_told(
    tmp_path: Path, name: str, told: Settings, files: dict[str, str], verdict: str, said: str
) -> None:
    (found,) = [c for c in host.checks(told, a_host(tmp_path, **files)) if c.name == name]
    (finding,) = found.look()
    assert finding.verdict == verdict
    assert said in finding.said
    assert finding.remedy or finding.verdict is not Verdict.WARNING


def test_few_open_files() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))\n"
        "from kalshi_fast.check import host; print(*[f.line() for f in host.open_files()])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("warning  open files at most 256 (hard limit 256)")


def test_the_clock_of_this_machine_is_looked_at() -> None:
    (service,) = host.time_service()
    assert service.verdict in (Verdict.OK, Verdict.WARNING)
    assert host.reading_the_time_ns() > 0
