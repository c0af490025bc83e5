"""Settings come from where they should, wrong ones are named with their source, secrets stay secret."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast.config import SETTINGS, Loaded, describe, load, require_live, writable_directory
from kalshi_fast.errors import ConfigError

SEED_ENV = """
# Authentication
PROD_KEYID=abcdef-1234-5678
PROD_KEYFILE=/keys/kalshi.pem
MARKET_TICKERS=KXBTCMAXY-25-DEC31-129999.99,FEDFUNDS-DEC25
WS_URL=wss://api.elections.kalshi.com/trade-api/ws/v2
WS_HOSTNAME=api.elections.kalshi.com
export CLICKHOUSE_URL="http://localhost:8123"
CLICKHOUSE_USER=default
CLICKHOUSE_PASSWORD='p4ss w0rd'
CLICKHOUSE_DATABASE=kalshi
BATCH_ROWS=2000
BATCH_FLUSH_SECS=0.010
PARQUET_DIR=./data
PARQUET_MAX_BYTES=104857600  # ~100MB
USE_ORJSON=1
SOMETHING_ELSE=of another program
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(env_text: str | None = None, toml_text: str | None = None, **environ: str) -> Loaded:
    if env_text is not None:
        Path(".env").write_text(env_text)
    if toml_text is not None:
        Path("kalshi-fast.toml").write_text(toml_text)
    return load({}, environ=environ)


def test_the_seed_s_env_file_works_unchanged() -> None:
    settings = loaded(SEED_ENV).settings
    assert settings.prod_keyid == "abcdef-1234-5678"
    assert settings.prod_keyfile == Path("/keys/kalshi.pem")
    assert settings.market_tickers == ("KXBTCMAXY-25-DEC31-129999.99", "FEDFUNDS-DEC25")
    assert settings.clickhouse_url == "http://localhost:8123"
    assert settings.clickhouse_password == "p4ss w0rd"
    assert settings.batch_flush_ns == 10_000_000
    assert settings.parquet_max_bytes == 104_857_600
    require_live(settings)


def test_defaults_record_into_the_embedded_engine() -> None:
    result = loaded()
    assert result.settings.clickhouse_url == "chdb://data/clickhouse"
    assert result.settings.parquet_dir == Path("./data")
    assert result.settings.batch_rows == 2000
    assert set(result.sources.values()) == {"default"}


def test_precedence() -> None:
    Path(".env").write_text("BATCH_ROWS=3\nPARQUET_MAX_SECS=33\nCLICKHOUSE_USER=env-file\n")
    Path("kalshi-fast.toml").write_text(
        'batch_rows = 4\nparquet-max-secs = 44\nclickhouse_user = "t"\nws_hostname="toml"\n'
    )
    result = load(
        {"BATCH_ROWS": "1", "PARQUET_MAX_SECS": None}, environ={"BATCH_ROWS": "2", "PARQUET_MAX_SECS": "22"}
    )
    assert result.settings.batch_rows == 1
    assert result.settings.parquet_max_secs == 22
    assert result.settings.clickhouse_user == "env-file"
    assert result.settings.ws_hostname == "toml"
    assert [
        result.sources[name] for name in ("BATCH_ROWS", "PARQUET_MAX_SECS", "CLICKHOUSE_USER", "WS_HOSTNAME")
    ] == [
        "flag",
        "environment",
        ".env file .env",
        "TOML file kalshi-fast.toml",
    ]
    assert load({"BATCH_ROWS": " "}, environ={"BATCH_ROWS": ""}).settings.batch_rows == 3, "empty is not set"


BAD_VALUES = [
    ("QUERY_LISTEN", "127.0.0.1", "HOST:PORT"),
    ("QUERY_LISTEN", ":9000", "HOST:PORT"),
    ("QUERY_LISTEN", "9000", "HOST:PORT"),
    ("QUERY_LISTEN", "localhost:70000", "HOST:PORT"),
    ("QUERY_LISTEN", "me:secret@localhost:1", "HOST:PORT"),
    ("QUERY_LISTEN", "http://localhost:1", "HOST:PORT"),
    ("QUERY_LISTEN", "[::1:1", "HOST:PORT"),
    ("QUERY_LISTEN", "0.0.0.0:9000", "CLICKHOUSE_PASSWORD"),
    ("QUERY_LISTEN", "example.com:9000", "CLICKHOUSE_PASSWORD"),
    ("BATCH_ROWS", "abc", "an integer from 1 to 1000000"),
    ("BATCH_ROWS", "0", "an integer from 1 to 1000000"),
    ("BATCH_ROWS", "1e3", "an integer"),
    ("BATCH_ROWS", "9" * 5000, "an integer"),
    ("BATCH_FLUSH_SECS", "0", "more than 0"),
    ("BATCH_FLUSH_SECS", "nan", "more than 0"),
    ("BATCH_FLUSH_SECS", "61", "at most 60"),
    ("BATCH_FLUSH_SECS", "soon", "seconds"),
    ("PARQUET_MAX_BYTES", "100MB", "an integer"),
    ("MARKET_TICKERS", "FED,bad_ticker", "'bad_ticker' is none"),
    ("MARKET_TICKERS", "fedfunds-dec25", "did you mean FEDFUNDS-DEC25?"),
    ("MARKET_TICKERS", "A" * 129, "tickers of A-Z"),
    ("WS_URL", "https://api.kalshi.com", "a WebSocket address"),
    ("WS_URL", "ws://api.kalshi.com/x", "without TLS"),
    ("WS_URL", "wss://", "a WebSocket address"),
    ("WS_URL", "wss://user:pw@host/x", "without user and password"),
    ("WS_URL", "wss://host:99999/x", "an address"),
    ("WS_URL", "wss://host:" + "x" * 5000, "an address"),
    ("WS_CAFILE", "/no/such/file", "a file that exists"),
    ("WS_CAFILE", "/" + "x" * 5000, "a file that exists (File name too long)"),
    ("CLICKHOUSE_URL", "localhost:8123", "chdb://DIRECTORY"),
    ("CLICKHOUSE_URL", "chdb://", "chdb://DIRECTORY"),
    ("CLICKHOUSE_URL", "http://me:pw@host:8123", "without user and password"),
    ("CLICKHOUSE_URL", "http://host:8123/elsewhere", "http://HOST:PORT"),
    ("CLICKHOUSE_DATABASE", "kalshi; DROP", "letters, digits"),
    ("BUFFER_MAX_ROWS", "10", "at least BATCH_ROWS"),
]


@pytest.mark.parametrize(("name", "value", "sentence"), BAD_VALUES)
def test_wrong_values_name_setting_value_expectation_and_source(name: str, value: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(**{name: value})
    text = str(caught.value)
    assert text.startswith(f"{name}: expected ")
    assert sentence in text
    assert text.endswith("(from the environment)")
    assert value[:20] in text or ("user and password" in sentence and "got ***" in text)
    assert len(text) < 400
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLICKHOUSE_URL", "http://h:8123/?user=a&password=hunter2"),
        ("CLICKHOUSE_URL", "https://h/#hunter2"),
        ("CLICKHOUSE_URL", "me:hunter2@h:8123"),
        ("CLICKHOUSE_URL", "http://me:hunter2/x@h:8123"),
        ("CLICKHOUSE_URL", "http:/h:8123/?password=hunter2"),
        ("REST_URL", "https://h/trade-api/v2?token=hunter2"),
        ("PROD_KEYFILE", "MIIEvQhunter2" + "Ab+/" * 400),
        ("PROD_KEYFILE", "hunter2" + "Ab+/" * 14),
    ],
)
def test_values_that_may_have_a_secret_in_them_are_not_quoted(name: str, value: str) -> None:
    with pytest.raises(
        ConfigError, match=rf"^{name}: expected .* got \*\*\* \(from the environment\)$"
    ) as caught:
        loaded(**{name: value})
    assert "hunter2" not in str(caught.value)


def test_a_long_path_of_a_key_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / ("k" * 70)
    path.touch()
    assert loaded(PROD_KEYFILE=str(path)).settings.prod_keyfile == path
    absent = "/etc/kalshi-fast/" + "a-directory-with-a-long-name/" * 3 + "kalshi.pem"
    assert loaded(PROD_KEYFILE=absent).settings.prod_keyfile == Path(absent)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"MYSECRETVALUEunclosed\n", "line 1: expected NAME=value, got another line"),
        (b"UNCLOSED\n", "line 1: expected NAME=value, got another line"),
        (b"BATCH_ROWS=1\nCLICKHOUSE_PASSWORD hunter2\n", "line 2: expected NAME=value"),
        (b"BATCH_ROWS=1\nPROD_KEYID='unclosed\n", "line 2: expected NAME=value"),
        (b"BATCH_ROWS\n", "line 1: expected NAME=value, got a line that begins 'BATCH_ROWS'"),
        (b"PROD_KEYFILE=-----BEGIN\nMIIEvQunclosed+/\n", "line 2: expected NAME=value, got another line"),
        (b"\xff\xfeB", "not UTF-8 at byte 0"),
        (b"A=" + b"x" * 2_000_000, "larger than"),
    ],
)
def test_malformed_env_file(content: bytes, sentence: str) -> None:
    Path(".env").write_bytes(content)
    with pytest.raises(ConfigError, match=r"^\.env file \.env") as caught:
        load({}, environ={})
    assert sentence in str(caught.value)
    assert "unclosed" not in str(caught.value).lower()


def test_env_file_that_is_a_directory() -> None:
    Path(".env").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        load({}, environ={})
    assert load({}, environ={}, env_file=None).settings.batch_rows == 2000


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("batch_row = 1", "did you mean BATCH_ROWS?"),
        ("what = 1", "no setting is named 'what'"),
        ("batch_rows = ", "kalshi-fast.toml"),
        ("batch_rows = true", "expected text or a number"),
        ('market_tickers = ["A", ["B"]]', "expected text or a number, got 'list'"),
        ("batch_rows = " + "[" * 20_000, "nested too deeply"),
        ("batch_rows = " + "9" * 5000, "a number in it has thousands of digits"),
        ("batch_rows = 0x" + "f" * 5000, "a number of at most 64 bits"),
        ("[batch_rows]\nx = 1", "expected text or a number"),
    ],
)
def test_wrong_toml(content: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loaded(toml_text=content)
    assert sentence in str(caught.value)


def test_toml_lists_and_a_toml_that_was_asked_for() -> None:
    assert loaded(toml_text='market_tickers = ["A", "B", "A"]').settings.market_tickers == ("A", "B")
    with pytest.raises(ConfigError, match="does not exist"):
        load({}, environ={}, toml_file=Path("other.toml"))


def test_what_a_recording_needs() -> None:
    for name, flag in (
        ("PROD_KEYID", "--prod-keyid"),
        ("PROD_KEYFILE", "--prod-keyfile"),
        ("MARKET_TICKERS", "--market"),
    ):
        given_ = {"PROD_KEYID": "x", "PROD_KEYFILE": "y", "MARKET_TICKERS": "Z"}
        given_[name] = " , " if name == "MARKET_TICKERS" else ""
        with pytest.raises(ConfigError, match=f"^{name} is not set.*{flag}"):
            require_live(load({}, environ=given_).settings)


def test_secrets_are_never_shown() -> None:
    result = loaded(SEED_ENV)
    shown = {name: value for name, value, _, _ in describe(result)}
    assert shown["CLICKHOUSE_PASSWORD"] == "***"
    assert shown["PROD_KEYID"] == "…5678"
    assert shown["WS_CAFILE"] == "(not set)"
    assert len(shown) == len(SETTINGS)
    for text in (repr(result), repr(result.settings), str(describe(result))):
        assert "p4ss" not in text
        assert "abcdef" not in text


@given(st.text(max_size=60))
def test_any_text_is_a_setting_or_a_config_error(text: str) -> None:
    for setting in SETTINGS:
        with suppress(ConfigError):
            load({setting.name: text}, environ={}, env_file=None)


@given(st.integers(1, 60_000_000_000))
def test_seconds_are_exact(ns: int) -> None:
    text = f"{ns // 10**9}.{ns % 10**9:09d}"
    assert load({"BATCH_FLUSH_SECS": text}, environ={}, env_file=None).settings.batch_flush_ns == ns


def test_where_queries_are_answered() -> None:
    assert loaded().settings.query_listen == ("127.0.0.1", 0)
    assert loaded(QUERY_LISTEN="Off").settings.query_listen is None
    assert loaded(QUERY_LISTEN="[::1]:9000").settings.query_listen == ("::1", 9000)
    everywhere = loaded(QUERY_LISTEN="0.0.0.0:9000", CLICKHOUSE_PASSWORD="x")
    assert everywhere.settings.query_listen == ("0.0.0.0", 9000)


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, 1), (errno.EDQUOT, 1), (errno.EACCES, 2), (errno.EROFS, 2)]
)
def test_a_full_disk_is_no_wrong_setting(
    number: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service manager does not try again after 2; there may be room then."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(ConfigError, match=r"JOURNAL_DIR: .* cannot be written: ") as caught:
        writable_directory("JOURNAL_DIR", tmp_path)
    assert caught.value.exit_code == code
