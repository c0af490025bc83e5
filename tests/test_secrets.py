"""What nobody may see is seen nowhere: not in what a recording says, serves, stores or leaves behind, nor in
what the commands say when something is wrong. And nothing listens beyond this machine.

One recorder for the tests of a recording, which run in this order: the last one crashes it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from operators import Exchange, Recorder, eventually, recording

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-m", "kalshi_fast"]
PASSWORD = "canary-7f3a9-of-a-password"
FAULTS = [{"at_s": 0.4, "kind": "corrupt", "n": 2}, {"at_s": 0.8, "kind": "drop", "n": 2}]
FAULTS += [{"at_s": 1.2, "kind": "close", "code": 1012}]
PAGES = ("/", "/metrics", "/healthz", "/api/status", "/api/markets", "/api/ladder?market=X", "/none", "/%")


class Canaries:
    """Every form in which a secret could turn up."""

    def __init__(self, key_file: Path, *others: str) -> None:
        pem = key_file.read_bytes()
        key = load_pem_private_key(pem, None)
        forms = [
            key.private_bytes(encoding, form, NoEncryption())
            for encoding in (Encoding.DER, Encoding.PEM)
            for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
        ]
        numbers = key.private_numbers()  # type: ignore[union-attr]
        self.forms = {form for form in forms if not form.startswith(b"-----")}
        for form in forms:
            if form.startswith(b"-----"):
                self.forms |= {line for line in form.splitlines() if line and not line.startswith(b"-----")}
        for number in (numbers.d, numbers.p, numbers.q):  # type: ignore[union-attr]
            raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
            self.forms |= {raw, raw[::-1], raw.hex().encode(), str(number).encode()}
        for other in others:
            text = other.encode()
            self.forms |= {
                text,
                base64.b64encode(text),
                other.encode("utf-16-le"),
                json.dumps(other).encode(),
            }
        assert all(len(form) >= 8 for form in self.forms - {b""})

    def check(self, where: str, content: bytes) -> None:
        for form in self.forms:
            assert form not in content, (where, form[:12])


@pytest.fixture(scope="module")
def exchange(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exchange]:
    directory = tmp_path_factory.mktemp("exchange")
    script = directory / "faults.json"
    script.write_text(json.dumps(FAULTS))
    exchange = Exchange(directory, "--markets", "10", "--rate", "500", "--faults", str(script))
    yield exchange
    exchange.stop()


@pytest.fixture(scope="module")
def canaries(exchange: Exchange) -> Canaries:
    told = exchange.environment
    return Canaries(Path(told["PROD_KEYFILE"]), PASSWORD, told["PROD_KEYID"])


@pytest.fixture(scope="module")
def recorder(exchange: Exchange, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """All settings but the markets, the exchange and the password at their defaults."""
    directory = tmp_path_factory.mktemp("recorder")
    settings = {"CLICKHOUSE_PASSWORD": PASSWORD, "PYTHONFAULTHANDLER": "1", "PARQUET_MAX_SECS": "1"}
    with recording(directory, exchange, **settings) as recorder:
        yield recorder


def processes(pid: int) -> list[int]:
    """It and all that it has started."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def files(directory: Path) -> list[Path]:
    """All in it; directories of the engine may go meanwhile, which os.walk does not mind."""
    return sorted(Path(root, name) for root, _, names in os.walk(directory) for name in names)


def test_nothing_listens_beyond_this_machine(recorder: Recorder) -> None:
    pids = processes(recorder.process.pid)
    assert len(pids) >= 3, "capture, writer, status"
    sockets = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                sockets |= {*re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink()))}
    listening = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in sockets and fields[3] in ("0A", "07"):  # LISTEN, and UDP without a peer
                listening.append((table, fields[1].split(":")[0]))
    assert len(listening) == 2, "the status page and the query front"
    assert {*listening} == {("tcp", "0100007F")}, "127.0.0.1"


def test_nothing_that_is_said_or_served_has_a_secret(
    recorder: Recorder, exchange: Exchange, canaries: Canaries
) -> None:
    eventually(
        "the faults have been seen",
        lambda: re.search(r"^kalshi_fast_reconnects_total [1-9]", recorder.get("/metrics")[1], re.MULTILINE),
    )
    for page in PAGES:
        canaries.check(page, recorder.get(page)[1].encode())
    environment = {
        **os.environ,
        **exchange.environment,
        "CLICKHOUSE_PASSWORD": PASSWORD,
        "MARKET_TICKERS": exchange.tickers[0],
    }
    address = recorder.url.removeprefix("http://")
    for arguments in (
        ("config",),
        ("config", "--json"),
        ("check", "--json"),
        ("top", "--once", "--http", address),
        ("query", "SELECT * FROM kalshi.feed_health FORMAT JSON"),
        ("query", "SELECT nonsense"),
    ):
        done = subprocess.run(
            [*COMMAND, *arguments],
            cwd=recorder.said.parent,
            env=environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode in (0, 1), (arguments, done.stderr)
        canaries.check(" ".join(arguments), done.stdout + done.stderr)
    canaries.check("stderr", recorder.said.read_bytes())


def test_no_command_line_and_no_file_has_a_secret(recorder: Recorder, canaries: Canaries) -> None:
    """Journal, Parquet files, the engine's own and its logs; Parquet unpacked too."""
    for pid in processes(recorder.process.pid):
        canaries.check("command line", Path(f"/proc/{pid}/cmdline").read_bytes())
    data = recorder.said.parent
    eventually("a Parquet file", lambda: [path for path in files(data) if path.suffix == ".parquet"])
    read = 0
    for path in files(data):
        with contextlib.suppress(FileNotFoundError):  # merged meanwhile
            if not path.is_file():
                continue
            canaries.check(str(path), path.read_bytes())
            read += 1
            if path.suffix == ".parquet":
                table = pq.read_table(path)
                canaries.check(f"{path}: metadata", str(table.schema.metadata).encode())
                canaries.check(f"{path}: rows", str(table.slice(0, 5000).to_pylist()).encode())
    assert read > 10


def test_a_crash_leaves_no_secret_behind(recorder: Recorder, canaries: Canaries) -> None:
    """Killed as by a fault of their own, with Python's fault handler at work."""
    for pid in processes(recorder.process.pid):
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(r"^Max core file size +1 ", limits, re.MULTILINE), "what stops a piped dump, too"
    os.kill(recorder.json("/api/status")["capture"]["writer_pid"], signal.SIGABRT)
    eventually("the writer has ended", lambda: b"Fatal Python error: Aborted" in recorder.said.read_bytes())
    os.kill(recorder.process.pid, signal.SIGSEGV)
    assert recorder.process.wait(60) == -signal.SIGSEGV
    said = recorder.said.read_bytes()
    assert b"Fatal Python error: Segmentation fault" in said
    canaries.check("the fault handler's words", said)
    left = [path.name for path in recorder.said.parent.rglob("*") if re.match(r"core(\.\d+)?$", path.name)]
    assert left == [], "a core dump has the key"


# --- when something is wrong ------------------------------------------------------------------------

CRASH = """
import kalshi_fast.recording as recording
async def run(self, progress):
    settings = self.settings
    raise RuntimeError(f"{settings!r} {settings.clickhouse_password} {settings.prod_keyid}")
recording.Recording.run = run
"""


def refused(directory: Path, told: dict[str, str], *arguments: str) -> tuple[int, bytes]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        env={**os.environ, **told},
        cwd=directory,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("case", "code", "sentence"),
    [
        ("a password in the address", 2, b"CLICKHOUSE_URL: expected an address without user and password"),
        ("a server that is away", 1, b"CLICKHOUSE_URL"),
        (
            "a password in the address's query",
            2,
            b"CLICKHOUSE_URL: expected an address without user, password",
        ),
        ("the key instead of its path", 2, b"PROD_KEYFILE: expected the path of the file"),
        ("the key in one line", 2, b"PROD_KEYFILE: expected the path of the file"),
        ("the key in one line, shown", 2, b"PROD_KEYFILE: expected the path of the file"),
        ("the key in .env", 2, b".env file .env, line 2: expected NAME=value, got another line"),
        ("a damaged key", 2, b"is damaged"),
        ("a bug", 1, b"RuntimeError: Settings("),
    ],
)
def test_errors_have_no_secret(
    case: str, code: int, sentence: bytes, exchange: Exchange, canaries: Canaries, tmp_path: Path
) -> None:
    pem = Path(exchange.environment["PROD_KEYFILE"]).read_text()
    told = {**exchange.environment, "MARKET_TICKERS": exchange.tickers[0], "CLICKHOUSE_PASSWORD": PASSWORD}
    arguments = ["run", "--quiet", "--seconds", "2"]
    if case == "a password in the address":
        told["CLICKHOUSE_URL"] = f"http://recorder:{PASSWORD}@127.0.0.1:1"
    elif case == "a password in the address's query":
        told["CLICKHOUSE_URL"] = f"http://127.0.0.1:1/?user=recorder&password={PASSWORD}"
    elif case.startswith("the key in one line"):
        told["PROD_KEYFILE"] = "".join(pem.splitlines()[1:-1])
        arguments = ["config"] if case.endswith("shown") else arguments
    elif case == "a server that is away":
        told["CLICKHOUSE_URL"] = "http://127.0.0.1:1"
        arguments = ["query", "SELECT 1"]
    elif case == "the key instead of its path":
        told["PROD_KEYFILE"] = pem
    elif case == "the key in .env":
        del told["PROD_KEYFILE"]
        (tmp_path / ".env").write_text(f"PROD_KEYFILE={pem}")
    elif case == "a damaged key":
        damaged = tmp_path / "damaged.pem"
        damaged.write_text(pem.replace(pem.splitlines()[3], "A" * 64))
        damaged.chmod(0o600)
        told["PROD_KEYFILE"] = str(damaged)
    else:
        (tmp_path / "sitecustomize.py").write_text(CRASH)
        told["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
        told["CLICKHOUSE_URL"] = "off"
    ended, said = refused(tmp_path, told, *arguments)
    assert sentence in said
    assert ended == code
    canaries.check(case, said)


BUG = """
import os
import kalshi_fast.{module} as module
def bug(*arguments, **more):
    password = os.environ["CLICKHOUSE_PASSWORD"]
    raise RuntimeError(f"{{arguments!r}} {{more!r}} {{password}} {{password!r}} {{os.environ['PROD_KEYID']}}")
module.{name} = bug
"""


@pytest.mark.parametrize(
    ("module", "name", "arguments"),
    [
        ("sinks.clickhouse", "open_client", ["query", "SELECT 1"]),
        ("sinks.clickhouse", "open_client", ["sql", "--apply"]),
        ("sinks.clickhouse", "open_reader", ["replay", "http://127.0.0.1:1"]),
        ("check.run", "all_checks", ["check", "--quiet"]),
        ("compact", "all_dates", ["compact"]),
        ("discovery.command", "markets", ["markets"]),
    ],
)
def test_a_bug_in_any_command_shows_no_secret(
    module: str, name: str, arguments: list[str], exchange: Exchange, canaries: Canaries, tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(BUG.format(module=module, name=name))
    odd = f"{PASSWORD}'\"\\"
    told = {**exchange.environment, "CLICKHOUSE_PASSWORD": odd, "CLICKHOUSE_URL": "http://127.0.0.1:1"}
    told["PYTHONPATH"] = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    ended, said = refused(tmp_path, told, *arguments)
    assert ended == 1
    assert b"RuntimeError: (" in said
    canaries.check(" ".join(arguments), said)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_refused_key_is_not_shown(
    log_format: str, exchange: Exchange, canaries: Canaries, tmp_path: Path
) -> None:
    unknown = "canary-51c20-of-a-key-id"
    told = {**exchange.environment, "PROD_KEYID": unknown, "LOG_FORMAT": log_format}
    told |= {"CLICKHOUSE_URL": "off", "MARKET_TICKERS": exchange.tickers[0], "CLICKHOUSE_PASSWORD": PASSWORD}
    ended, said = refused(tmp_path, told, "run", "--quiet", "--seconds", "2")
    assert ended == 2
    assert b"HTTP 401" in said
    canaries.check("a refused key", said)
    assert unknown.encode() not in said
