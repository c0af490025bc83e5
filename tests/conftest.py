"""What several test modules share: the recordings, one embedded ClickHouse engine, throw-away keys."""

from __future__ import annotations

import itertools
import os
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

import injector
from kalshi_fast import blotting
from kalshi_fast.simulator.tls import make_key
from kalshi_fast.sinks import clickhouse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clickhouse_connect.driver.client import Client

# Under the sanitizers everything is many times slower: fewer examples there, on the same tests.
settings.register_profile("few", max_examples=40, deadline=None)
settings.register_profile("usual", deadline=None)
FEW = os.environ.get("KALSHI_FAST_FEW") == "1"
settings.load_profile("few" if FEW else "usual")

RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "recorded-2025"


@pytest.fixture(autouse=True)
def _nothing_secret_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the settings of one test keep secret is a word like any other in the next."""
    monkeypatch.setattr(blotting, "_forms", [])


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The real recordings of 2025, which lie beside the repository."""
    if not RECORDINGS.is_dir():
        pytest.skip(f"no recordings at {RECORDINGS}")
    return RECORDINGS


@pytest.fixture(scope="session")
def engine_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The embedded engine allows one directory per process: all tests share it."""
    return f"chdb://{tmp_path_factory.mktemp('engine')}"


@pytest.fixture(scope="session")
def _databases() -> Iterator[int]:
    return itertools.count()


@pytest.fixture(params=["embedded", "server"])
def open_database(
    request: pytest.FixtureRequest, engine_url: str, _databases: Iterator[int]
) -> Iterator[Callable[[], Client]]:
    """Clients of one fresh database with the schema applied: of the engine itself, and over HTTP."""
    # Not at the top: the engine's library refuses to be loaded into a process with a sanitizer's runtime.
    import front

    database = f"test {next(_databases)}`s"  # a name that needs its quotes
    clients: list[Client] = []
    with front.server(engine_url) if request.param == "server" else nullcontext(engine_url) as url:

        def connect() -> Client:
            clients.append(
                clickhouse.connect(url, user=front.USER, password=front.PASSWORD, database=database)
            )
            return clients[-1]

        yield connect
        for client in clients:
            client.close()


@pytest.fixture(scope="session")
def _injector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return injector.compiled(tmp_path_factory.mktemp("injector"))


@pytest.fixture
def faults(_injector: Path, tmp_path: Path) -> Iterator[injector.Faults]:
    """Rules for faults, none yet."""
    found = injector.Faults(_injector, tmp_path / "faults")
    yield found
    found.close()


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    """An RSA private key as it must be."""
    path = tmp_path / "key.pem"
    make_key(path)
    return path
