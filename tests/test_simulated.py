"""`run --simulated`: a recording of its own, which nothing that is configured for live recording touches."""

from __future__ import annotations

import os
import shlex
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kalshi_fast.config import load
from kalshi_fast.errors import ConfigError
from kalshi_fast.simulator import beside
from test_cli import figures, refused, run

if TYPE_CHECKING:
    from kalshi_fast.config import Settings

LIVE = {
    "PROD_KEYID": "of-the-live-exchange",
    "MARKET_TICKERS": "FEDFUNDS-DEC25",
    "CLICKHOUSE_URL": "http://127.0.0.1:9",
    "PARQUET_DIR": "/nowhere",
    "WS_HOSTNAME": "nowhere.example",
}


def test_what_is_told_and_what_becomes_of_the_exchange(tmp_path: Path) -> None:
    flags = {"HOT_STANDBY": "on", "PARQUET_DIR": "off", "WS_URL": "wss://nowhere.example/", "RAW": None}
    with beside.simulated(tmp_path, flags) as told:
        settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
        key = settings.prod_keyfile
        assert key is not None
        assert stat.S_IMODE(key.stat().st_mode) == 0o600
        assert settings.ws_url.startswith("wss://127.0.0.1:")
        assert (settings.rest_url or "").startswith("https://127.0.0.1:")
        assert settings.market_all_open
        assert settings.hot_standby
        assert settings.parquet_dir is None, "flags count"
        assert settings.clickhouse_url == f"chdb://{tmp_path}/clickhouse"
        assert settings.journal_dir == tmp_path / "journal"
        first = key.read_bytes()
    with beside.simulated(tmp_path, {"MARKET_TICKERS": beside.FIRST_MARKET}) as told:
        assert told["MARKET_TICKERS"] == beside.FIRST_MARKET
        assert "MARKET_ALL_OPEN" not in told, "markets that are named are the markets"
        assert Path(told["PROD_KEYFILE"] or "").read_bytes() == first


def test_a_directory_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"--simulated: .* cannot be written"),
        beside.simulated(tmp_path / "file", {}),
    ):
        pass
    (tmp_path / "key" / "simulator").mkdir(parents=True)
    (tmp_path / "key" / "simulator" / "client.pem").write_text("no key")
    with (
        pytest.raises(ConfigError, match=r"client\.pem is no private key"),
        beside.simulated(tmp_path / "key", {}),
    ):
        pass


def test_nothing_configured_for_live_matters(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("BATCH_ROWS=no number\n")
    arguments = ("run", "--simulated", "here", "--seconds", 2, "--json", "--quiet")
    done = run(*arguments, "--tickers", beside.FIRST_MARKET, cwd=tmp_path, env=LIVE)
    assert "recording 1 markets into ClickHouse" in done.stderr
    found = figures(done)
    assert found["events"] == found["clickhouse_rows"] == found["parquet_rows"] > 0
    sql = "SELECT DISTINCT market_ticker FROM kalshi.orderbook_events"
    live = LIVE | {
        "CLICKHOUSE_DATABASE": "live",
        "CLICKHOUSE_CLUSTER": "live",
        "CLICKHOUSE_PASSWORD": "x" * 9,
    }
    told = run("query", "--dir", "here", "--format", "TSV", sql, cwd=tmp_path, env=live)
    assert told.stdout == f"{beside.FIRST_MARKET}\n"
    overview = run("query", "--dir", "here", "--format", "CSV", cwd=tmp_path, env=live)
    assert f'"{beside.FIRST_MARKET}",{found["events"]},' in overview.stdout, "of its own database"
    run("plot", beside.FIRST_MARKET, "--dir", "here", "--out", "x.svg", "--quiet", cwd=tmp_path, env=live)
    assert {path.name for path in tmp_path.iterdir()} == {"here", "x.svg", ".env"}


@pytest.mark.parametrize(
    "flag", ["--prod-keyid", "--prod-keyfile", "--ws-url", "--rest-url", "--env-file", "--toml"]
)
def test_a_flag_that_has_no_effect_is_refused(flag: str, tmp_path: Path) -> None:
    told = refused("run", "--simulated", "here", flag, "x", cwd=tmp_path)
    assert f"--simulated: leave {flag} out" in told
    assert list(tmp_path.iterdir()) == []


def test_what_is_offered_is_what_has_been_recorded(tmp_path: Path) -> None:
    def settings(**told: str) -> Settings:
        given = {**beside.stores(tmp_path), **told}
        return load(given, environ={}, env_file=None, toml_file=Path(os.devnull)).settings

    both = beside.invitation_to(tmp_path, settings(), ["KXSIM-B", beside.FIRST_MARKET])
    assert "kalshi.best_bid_ask" in both
    assert f" plot {beside.FIRST_MARKET} --dir" in both
    assert " plot KXSIM-A --dir" in beside.invitation_to(tmp_path, settings(), ["KXSIM-B", "KXSIM-A"])
    assert " plot " not in beside.invitation_to(tmp_path, settings(), [])
    other = beside.invitation_to(tmp_path, settings(CLICKHOUSE_DATABASE="other"), ["KXSIM-A"])
    assert "other.best_bid_ask" in other
    assert " --database other " in other
    files = beside.invitation_to(tmp_path, settings(CLICKHOUSE_URL="off"), ["KXSIM-A"])
    assert f"replay {tmp_path}/parquet --verify" in files
    assert " query " not in files
    assert beside.invitation_to(tmp_path, settings(CLICKHOUSE_URL="off", PARQUET_DIR="off"), ["A"]) == ""


def test_a_recording_without_clickhouse_does_not_offer_to_ask_it(tmp_path: Path) -> None:
    second = beside.FIRST_MARKET.replace("T0000", "T0001")
    arguments = ("--simulated", "here", "--seconds", 2, "--quiet", "--clickhouse-url", "off")
    done = run("run", *arguments, "--tickers", second, cwd=tmp_path)
    assert done.stdout.rstrip().endswith("replay here/parquet --verify")
    assert " query " not in done.stdout
    command = shlex.split(done.stdout.splitlines()[-1])[1:]
    assert second in run(*command, cwd=tmp_path).stdout, "ready to be copied"


def test_whoever_has_nothing_configured_is_told_of_the_simulator(tmp_path: Path) -> None:
    assert "kalshi-fast run --simulated" in refused("run", cwd=tmp_path)
    assert "--simulated" not in refused("run", cwd=tmp_path, env={"PROD_KEYFILE": "mine.pem"})


def test_asking_in_the_wrong_place_makes_nothing_and_says_where_it_is(tmp_path: Path) -> None:
    plot = ("plot", "KXSIM", "--out", "x.png")
    assert "nothing has been recorded" in refused(*plot, cwd=tmp_path)
    (tmp_path / beside.SIMULATED_DIR / "clickhouse").mkdir(parents=True)
    for asked in (plot, ("query",)):
        assert "did you mean --dir simulated-data?" in refused(*asked, cwd=tmp_path)
    assert "leave one of --dir and --from out" in refused(*plot, "--dir", "a", "--from", "b", cwd=tmp_path)
    off = {"CLICKHOUSE_URL": "off", "PARQUET_DIR": "off"}
    assert "expected where to read from" in refused(*plot, cwd=tmp_path, env=off)
    assert {path.name for path in tmp_path.iterdir()} == {"simulated-data"}


@pytest.mark.parametrize(
    ("called", "expected"),
    [
        ("-c", f"{sys.executable} -m kalshi_fast"),
        ("/usr/lib/kalshi_fast/__main__.py", f"{sys.executable} -m kalshi_fast"),
        ("/opt/my place/bin/kalshi-fast", "'/opt/my place/bin/kalshi-fast'"),
    ],
)
def test_how_this_program_is_called(monkeypatch: pytest.MonkeyPatch, called: str, expected: str) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setenv("PATH", "/nowhere")
    assert beside.command() == beside.command(anywhere=True) == expected
