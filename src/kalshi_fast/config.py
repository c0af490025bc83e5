"""Settings: one table of what can be set, read from flags, environment, ``.env``, TOML and defaults.

That is also their precedence. The names are the environment's (``BATCH_ROWS``); as a flag a name is
``--batch-rows``, in ``kalshi-fast.toml`` it may be written in any case. An empty value counts as not set.
Every error names the setting, what was given, what was expected and where it came from; a secret's value
is never shown. The process's environment is not changed.
"""

from __future__ import annotations

import difflib
import errno
import io
import ipaddress
import os
import re
import tomllib
from dataclasses import dataclass, field, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from dotenv.parser import parse_stream

from kalshi_fast.blotting import is_key_material, keep_secret
from kalshi_fast.errors import ConfigError, excerpt, reason
from kalshi_fast.tuning.cpus import MAX_CPU, parse_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

DEFAULT_WS_URL: Final = "wss://external-api-ws.kalshi.com/trade-api/ws/v2"
TOML_NAME: Final = "kalshi-fast.toml"
DEFAULT_REST_URL: Final = "https://external-api.kalshi.com/trade-api/v2"
BOOKS: Final = "orderbook_delta"
CHANNELS: Final = (BOOKS, "trade", "ticker", "market_lifecycle_v2", "multivariate_market_lifecycle")
COMBOS: Final = ("exclude", "include", "only")
CF: Final = "cfbenchmarks_value"
CF_5HZ: Final = "cfbenchmarks_value_5hz"
PYTH: Final = "pyth_value"
REFERENCE_CHANNELS: Final = (CF, CF_5HZ, PYTH)
EVERYTHING: Final = "all"  # in REFERENCE, and to the exchange
OFF: Final = "off"
_PASSING_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})
_MAX_FILE_BYTES: Final = 1024 * 1024
MAX_TICKERS_FILE_BYTES: Final = 16 * 1024 * 1024
_TICKER = re.compile(r"[A-Z0-9.-]{1,128}\Z")
_PATTERN = re.compile(r"[A-Z0-9.*?\[\]!-]{1,128}\Z")
_CLUSTER = re.compile(r"([A-Za-z0-9_.-]{1,64}|\{[A-Za-z0-9_]{1,62}\})\Z")
_CHANNEL = re.compile(r"[a-z0-9_]{1,64}\Z")
# An index of CF Benchmarks, or a Pyth underlying: class of assets, dot, symbol, perhaps a currency.
_REFERENCE = re.compile(r"([A-Z0-9_]{1,64}|[A-Za-z0-9]{1,32}\.[A-Za-z0-9._!+-]{1,64}(/[A-Za-z0-9]{1,16})?)\Z")
_IDENTIFIER_BEFORE = re.compile(r"([A-Z][A-Z_]{1,39})(?:\s|=|\Z)")
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z")


class _BadValueError(Exception):
    """What was expected instead; becomes a ConfigError with name, value and source."""

    secret = False


class _SecretValueError(_BadValueError):
    """The value is, or has within it, what nobody may see: an error does not quote it."""

    secret = True


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, parsed. None: not set, or (for a store) off. Times are integer nanoseconds or seconds."""

    prod_keyid: str | None = field(default=None, repr=False)
    prod_keyfile: Path | None = None
    market_tickers: tuple[str, ...] = ()
    market_tickers_file: Path | None = None
    market_series: tuple[str, ...] = ()
    market_events: tuple[str, ...] = ()
    market_match: tuple[str, ...] = ()
    market_all_open: bool = False
    market_top: int | None = None
    market_combos: str = "exclude"
    discovery_secs: int = 300
    ws_url: str = DEFAULT_WS_URL
    ws_hostname: str | None = None
    ws_cafile: Path | None = None
    clickhouse_url: str | None = None
    clickhouse_user: str = "default"
    clickhouse_password: str = field(default="", repr=False)
    clickhouse_database: str = "kalshi"
    clickhouse_cluster: str = ""
    batch_rows: int = 2000
    batch_flush_ns: int = 10_000_000
    parquet_dir: Path | None = None
    parquet_max_bytes: int = 104_857_600
    parquet_max_secs: int = 900
    buffer_max_rows: int = 2_000_000
    journal_dir: Path = Path("data/journal")
    journal_fsync: str = "interval"
    journal_fsync_ns: int = 200_000_000
    journal_max_bytes: int = 4 << 30
    use_yes_price: bool = True
    subscription_markets: int = 1000
    connection_markets: int = 10000
    hot_standby: bool = False
    ws_idle_ns: int = 10_000_000_000
    ws_backoff_ns: int = 500_000_000
    ws_backoff_max_ns: int = 30_000_000_000
    ws_refused_ns: int = 30_000_000_000
    channels: tuple[str, ...] = (BOOKS,)
    rest_url: str | None = None
    raw: tuple[str, ...] = ()
    reference: tuple[str, ...] = ()
    query_listen: tuple[str, int] | None = None
    http_listen: tuple[str, int] | None = None
    log_format: str = "text"
    capture_cpu: int | None = None
    writer_cpus: tuple[int, ...] = ()
    busy_poll: bool = False
    capture_nice: int | None = None
    capture_fifo: int | None = None
    lock_memory: bool = False
    use_orjson: str | None = None


def _text(text: str) -> str:
    return text


def _path(text: str) -> Path:
    if "\0" in text:
        raise _BadValueError("a path")
    return Path(os.path.expanduser(text))  # noqa: PTH111 - Path's own raises when there is no such user


def _key_path(text: str) -> Path:
    if is_key_material(text):
        raise _SecretValueError("the path of the file that holds the key, not the key itself")
    return _path(text)


def _existing_file(text: str) -> Path:
    path = _path(text)
    try:
        exists = path.is_file()
    except OSError as error:  # a name too long, a directory that may not be searched
        raise _BadValueError(f"a file that exists ({error.strerror})") from None
    if not exists:
        raise _BadValueError("a file that exists")
    return path


def is_ticker(text: str) -> bool:
    """Whether it can be the name of a market, an event or a series."""
    return _TICKER.match(text) is not None


def _names(text: str, what: str, form: re.Pattern[str], of: str = "A-Z, 0-9, '.' and '-'") -> tuple[str, ...]:
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for name in found:
        if not form.match(name):
            upper = name.upper()
            hint = f" (did you mean {upper}?)" if upper != name and form.match(upper) else ""
            raise _BadValueError(f"{what} of {of} with commas between, but {excerpt(name)} is none{hint}")
    return tuple(found)


def _tickers(text: str) -> tuple[str, ...]:
    return _names(text, "tickers", _TICKER)


def _patterns(text: str) -> tuple[str, ...]:
    return _names(text, "patterns", _PATTERN, "A-Z, 0-9, '.', '-', '*', '?' and '[…]'")


def read_tickers(path: Path) -> tuple[str, ...]:
    """The markets that a file names: blanks, commas or line ends between, '#' begins a comment.

    Raises ConfigError that names the line.
    """
    text = _read_file(path, "MARKET_TICKERS_FILE:", MAX_TICKERS_FILE_BYTES)
    if text is None:
        raise ConfigError(f"MARKET_TICKERS_FILE: {path} does not exist")
    found: list[str] = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found += _tickers(",".join(line.partition("#")[0].split()))
        except _BadValueError as error:
            raise ConfigError(f"MARKET_TICKERS_FILE: {path}, line {number}: expected {error}") from None
    return tuple(dict.fromkeys(found))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _ws_url(text: str) -> str:
    parts = _url(text)
    if parts.scheme not in ("ws", "wss") or not parts.hostname:
        raise _BadValueError("a WebSocket address such as " + DEFAULT_WS_URL)
    if parts.scheme == "ws" and not is_loopback(parts.hostname):
        raise _BadValueError("wss://: a connection without TLS is allowed to this machine only")
    return text


def _clickhouse_url(text: str) -> str | None:
    if text.lower() == OFF:
        return None
    expected = "chdb://DIRECTORY, http://HOST:PORT, https://HOST:PORT or 'off'"
    parts = _url(text)
    if parts.scheme == "chdb":
        if not text.removeprefix("chdb://").strip("/"):
            raise _BadValueError(expected)
        return text
    if parts.query or parts.fragment or "?" in text:
        raise _SecretValueError(
            "an address without user, password or options in it (CLICKHOUSE_USER, CLICKHOUSE_PASSWORD)"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise (_SecretValueError if "@" in text else _BadValueError)(expected)
    return text


def _listen(text: str) -> tuple[str, int] | None:
    if text.lower() == OFF:
        return None
    expected = "HOST:PORT (port 0: any free one) or 'off'"
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise _BadValueError(expected) from None
    if not host or port is None or parts.netloc != text or "@" in text:
        raise _BadValueError(expected)
    return host, port


def _url(text: str) -> Any:  # noqa: ANN401 - urlsplit's result
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018 - reading it checks it
    except ValueError as error:
        if "@" in text:  # what stands before it is a user and a password, or part of them
            raise _SecretValueError("an address without user and password in it") from None
        raise _BadValueError(f"an address ({reason(error)})") from None
    if parts.username or parts.password:
        raise _SecretValueError("an address without user and password in it")
    return parts


def _rest_url(text: str) -> str | None:
    if text.lower() == OFF:
        return None
    parts = _url(text)
    if parts.query or parts.fragment:
        raise _SecretValueError("http(s)://HOST[:PORT]/PATH without '?' and '#', or off")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise _BadValueError("http(s)://HOST[:PORT]/PATH or off")
    return text


def _channels(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [channel for channel in found if channel not in CHANNELS]
    if unknown or not found:
        raise _BadValueError(f"some of {', '.join(CHANNELS)}, with commas between")
    return found


def _raw_channels(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for channel in found:
        if channel in REFERENCE_CHANNELS:
            raise _BadValueError(
                f"names of channels that are kept as they come, but {channel} has a table: REFERENCE says"
                " what of it is recorded"
            )
        if channel in CHANNELS or not _CHANNEL.match(channel):
            raise _BadValueError(
                f"names of channels that CHANNELS has no words for, with commas between, but"
                f" {excerpt(channel)} is none"
            )
    return found


def _reference(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if [name.lower() for name in found] == [EVERYTHING]:
        return (EVERYTHING,)
    if not found or EVERYTHING in map(str.lower, found):
        raise _BadValueError("names with commas between, or all and nothing else")
    for name in found:
        if not _REFERENCE.match(name):
            upper = name.upper()
            hint = f" (did you mean {upper}?)" if upper != name and _REFERENCE.match(upper) else ""
            raise _BadValueError(
                "indices of CF Benchmarks such as BRTI, and Pyth underlyings such as Metal.XAU/USD, with"
                f" commas between, or all, but {excerpt(name)} is none{hint}"
            )
    return found


def _directory(text: str) -> Path | None:
    return None if text.lower() == OFF else _path(text)


def _identifier(text: str) -> str:
    if not _IDENTIFIER.match(text):
        raise _BadValueError("letters, digits and '_', not starting with a digit, at most 64")
    return text


def _cluster(text: str) -> str:
    if not _CLUSTER.match(text):
        raise _BadValueError("letters, digits, '_', '.' and '-', at most 64, or a macro such as {cluster}")
    return text


def _integer(low: int, high: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        expected = f"an integer from {low} to {high}"
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text):
            raise _BadValueError(expected)
        if not low <= int(text) <= high:
            raise _BadValueError(expected)
        return int(text)

    return parse


def _integer_or_off(low: int, high: int) -> Callable[[str], int | None]:
    number = _integer(low, high)

    def parse(text: str) -> int | None:
        if text.lower() == OFF:
            return None
        try:
            return number(text)
        except _BadValueError as error:
            raise _BadValueError(f"{error}, or off") from None

    return parse


def _cpus(text: str) -> tuple[int, ...]:
    found = () if text.lower() == OFF else parse_cpus(text)
    if found is None:
        raise _BadValueError(f"cores such as 1-3,6 (0 to {MAX_CPU}), or off")
    return found


_SWITCHES: Final = {"on": True, "true": True, "yes": True, "1": True} | dict.fromkeys(
    (OFF, "false", "no", "0"), False
)


def _switch(text: str) -> bool:
    if text.lower() not in _SWITCHES:
        raise _BadValueError("on or off")
    return _SWITCHES[text.lower()]


def _fsync(text: str) -> str:
    if text.lower() not in ("interval", "always", OFF):
        raise _BadValueError("interval, always or off")
    return text.lower()


def _combos(text: str) -> str:
    if text.lower() not in COMBOS:
        raise _BadValueError("exclude, include or only")
    return text.lower()


def _log_format(text: str) -> str:
    if text.lower() not in ("text", "json"):
        raise _BadValueError("text or json")
    return text.lower()


def _seconds_ns(text: str) -> int:
    try:
        value = Decimal(text)
        if not 0 < value <= 60:  # NaN compares false or raises InvalidOperation
            raise _BadValueError("seconds, more than 0 and at most 60")
    except InvalidOperation:
        raise _BadValueError("seconds, more than 0 and at most 60") from None
    return max(1, int(value * 1_000_000_000))


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table: everything else about a setting is derived from it."""

    name: str
    attribute: str
    parse: Callable[[str], Any]
    default: str
    help: str
    secret: bool = False
    alias: str = ""  # a shorter flag beside the usual one

    @property
    def flag(self) -> str:
        return "--" + self.name.lower().replace("_", "-")

    @property
    def many(self) -> bool:
        """The flag may be given several times."""
        return self.parse in (_reference, *((_tickers, _patterns) if self.name in SELECTORS else ()))

    @property
    def accepts(self) -> str:
        """What may be written, in the words of the error for what may not; nothing when all text may."""
        try:
            self.parse("\0")
        except _BadValueError as error:
            return str(error).partition(", but")[0]
        return ""

    def shown(self, text: str) -> str:
        if not text:
            return "(not set)"
        if self.name == "PROD_KEYID":
            return f"…{text[-4:]}" if len(text) > 8 else "***"
        return "***" if self.secret else text


# Each of them says which markets to record; one is enough.
SELECTORS: Final = (
    "MARKET_TICKERS",
    "MARKET_TICKERS_FILE",
    "MARKET_SERIES",
    "MARKET_EVENTS",
    "MARKET_MATCH",
    "MARKET_ALL_OPEN",
    "MARKET_TOP",
)

SETTINGS: Final = (
    Setting("PROD_KEYID", "prod_keyid", _text, "", "API key id of the exchange", secret=True),
    Setting(
        "PROD_KEYFILE",
        "prod_keyfile",
        _key_path,
        "",
        "file of the RSA or Ed25519 private key (PEM, mode 0600)",
    ),
    Setting(
        "MARKET_TICKERS",
        "market_tickers",
        _tickers,
        "",
        "markets to record, with commas between",
        alias="--tickers",
    ),
    Setting(
        "MARKET_TICKERS_FILE",
        "market_tickers_file",
        _path,
        "",
        "file that names markets to record, read anew when it changes",
        alias="--tickers-file",
    ),
    Setting(
        "MARKET_SERIES",
        "market_series",
        _tickers,
        "",
        "series to record: their open markets, and each new one",
        alias="--series",
    ),
    Setting("MARKET_EVENTS", "market_events", _tickers, "", "events to record, likewise", alias="--event"),
    Setting(
        "MARKET_MATCH",
        "market_match",
        _patterns,
        "",
        "patterns of tickers to record, likewise (KXBTC*)",
        alias="--match",
    ),
    Setting(
        "MARKET_ALL_OPEN",
        "market_all_open",
        _switch,
        OFF,
        "record every open market, and each new one",
        alias="--all-open",
    ),
    Setting(
        "MARKET_TOP",
        "market_top",
        _integer(1, 1_000_000),
        "",
        "of the markets found, only so many with the largest volume",
        alias="--top",
    ),
    Setting(
        "MARKET_COMBOS",
        "market_combos",
        _combos,
        "exclude",
        "combination markets (KXMVE…) among those that are found: exclude, include, or only them",
        alias="--combos",
    ),
    Setting(
        "DISCOVERY_SECS",
        "discovery_secs",
        _integer(1, 86_400),
        "300",
        "so often REST is asked for the markets again, beside what is announced",
    ),
    Setting("WS_URL", "ws_url", _ws_url, DEFAULT_WS_URL, "WebSocket address of the exchange"),
    Setting("WS_HOSTNAME", "ws_hostname", _text, "", "host name to ask for and verify, instead of WS_URL's"),
    Setting(
        "WS_CAFILE",
        "ws_cafile",
        _existing_file,
        "",
        "authorities to verify TLS with, instead of the system's",
    ),
    Setting(
        "CLICKHOUSE_URL",
        "clickhouse_url",
        _clickhouse_url,
        "chdb://data/clickhouse",
        "chdb://DIRECTORY (embedded), http(s)://HOST:PORT, or off",
    ),
    Setting("CLICKHOUSE_USER", "clickhouse_user", _text, "default", "user of the ClickHouse server"),
    Setting("CLICKHOUSE_PASSWORD", "clickhouse_password", _text, "", "its password", secret=True),
    Setting("CLICKHOUSE_DATABASE", "clickhouse_database", _identifier, "kalshi", "database of the tables"),
    Setting(
        "CLICKHOUSE_CLUSTER",
        "clickhouse_cluster",
        _cluster,
        "",
        "cluster to spread the tables over (docs/cluster.md)",
    ),
    Setting(
        "QUERY_LISTEN",
        "query_listen",
        _listen,
        "127.0.0.1:0",
        "where a recording into the embedded engine answers queries, HOST:PORT (0: any free port) or off",
    ),
    Setting(
        "HTTP_LISTEN",
        "http_listen",
        _listen,
        OFF,
        "where a recording serves metrics, health and its page, HOST:PORT (0: any free port) or off",
    ),
    Setting(
        "LOG_FORMAT", "log_format", _log_format, "text", "of what is logged: text, or a JSON object a line"
    ),
    Setting("BATCH_ROWS", "batch_rows", _integer(1, 1_000_000), "2000", "rows after which a batch is sealed"),
    Setting(
        "BATCH_FLUSH_SECS", "batch_flush_ns", _seconds_ns, "0.010", "seconds after which a batch is sealed"
    ),
    Setting("PARQUET_DIR", "parquet_dir", _directory, "./data", "directory of the Parquet files, or off"),
    Setting(
        "PARQUET_MAX_BYTES",
        "parquet_max_bytes",
        _integer(4096, 2**40),
        "104857600",
        "size at which a Parquet file is closed",
    ),
    Setting(
        "PARQUET_MAX_SECS",
        "parquet_max_secs",
        _integer(1, 86_400),
        "900",
        "age in seconds at which a Parquet file is closed",
    ),
    Setting(
        "BUFFER_MAX_ROWS",
        "buffer_max_rows",
        _integer(1, 2**30),
        "2000000",
        "rows held in memory while a store is slow; then reading pauses",
    ),
    Setting(
        "JOURNAL_DIR",
        "journal_dir",
        _path,
        "data/journal",
        "directory of the journal: every row is written there first, and stays until each store has it",
    ),
    Setting(
        "JOURNAL_FSYNC",
        "journal_fsync",
        _fsync,
        "interval",
        "when the journal is forced to the disk: always (before a row counts), interval, or off",
    ),
    Setting(
        "JOURNAL_FSYNC_SECS", "journal_fsync_ns", _seconds_ns, "0.2", "seconds between two of the interval's"
    ),
    Setting(
        "JOURNAL_MAX_BYTES",
        "journal_max_bytes",
        _integer(1024 * 1024, 2**50),
        "4294967296",
        "most bytes of the journal; then reading pauses until a store has caught up",
    ),
    Setting(
        "USE_YES_PRICE",
        "use_yes_price",
        _switch,
        "on",
        "ask for no-side prices on the yes scale; what is stored is the same, and the scale is proven first",
    ),
    Setting(
        "SUBSCRIPTION_MARKETS",
        "subscription_markets",
        _integer(1, 100_000),
        "1000",
        "most markets that one command names: a subscription is filled in such portions;"
        " trades and tickers are asked for by market up to so many",
    ),
    Setting(
        "CONNECTION_MARKETS",
        "connection_markets",
        _integer(1, 1_000_000),
        "10000",
        "most markets of one connection; more markets, or a lower limit of the exchange, more connections",
    ),
    Setting(
        "HOT_STANDBY",
        "hot_standby",
        _switch,
        OFF,
        "a second connection with the same markets takes over when the first fails or misses a frame",
    ),
    Setting(
        "WS_IDLE_SECS",
        "ws_idle_ns",
        _seconds_ns,
        "10",
        "so long without any frame, the exchange is asked; as long again, the link is dead",
    ),
    Setting(
        "WS_BACKOFF_SECS", "ws_backoff_ns", _seconds_ns, "0.5", "bound of the first wait before reconnecting"
    ),
    Setting(
        "WS_BACKOFF_MAX_SECS", "ws_backoff_max_ns", _seconds_ns, "30", "bound of any wait before reconnecting"
    ),
    Setting(
        "WS_REFUSED_SECS",
        "ws_refused_ns",
        _seconds_ns,
        "30",
        "the first wait after the exchange has refused the key, the signature or the clock",
    ),
    Setting(
        "CAPTURE_CPU",
        "capture_cpu",
        _integer_or_off(0, MAX_CPU),
        "",
        "core for the process that reads from the exchange (docs/tuning.md); the writer takes the others",
        alias="--cpu",
    ),
    Setting("WRITER_CPUS", "writer_cpus", _cpus, "", "cores of the writer process, such as 1-3,6"),
    Setting(
        "BUSY_POLL",
        "busy_poll",
        _switch,
        OFF,
        "never sleep while waiting for frames: keeps the core of CAPTURE_CPU busy all the time",
    ),
    Setting(
        "CAPTURE_NICE",
        "capture_nice",
        _integer_or_off(-20, 19),
        "",
        "nice value of the process that reads from the exchange, -20 the most favoured",
        alias="--nice",
    ),
    Setting(
        "CAPTURE_FIFO",
        "capture_fifo",
        _integer_or_off(1, 99),
        "",
        "real-time priority (SCHED_FIFO) of that process, instead of a nice value",
        alias="--fifo",
    ),
    Setting(
        "LOCK_MEMORY",
        "lock_memory",
        _switch,
        OFF,
        "keep that process in memory, and make its buffers ready before the first frame",
    ),
    Setting(
        "CHANNELS",
        "channels",
        _channels,
        "orderbook_delta,trade,ticker,market_lifecycle_v2",
        f"what to record, with commas between: {', '.join(CHANNELS)}",
    ),
    Setting(
        "RAW",
        "raw",
        _raw_channels,
        "",
        "further channels, with commas between, whose frames are kept as they come (PARQUET_DIR/raw)",
    ),
    Setting(
        "REFERENCE",
        "reference",
        _reference,
        "",
        "reference prices to record, with commas between (BRTI,ETHUSD_RTI,Metal.XAU/USD), or all",
    ),
    Setting(
        "REST_URL",
        "rest_url",
        _rest_url,
        DEFAULT_REST_URL,
        "REST address of the exchange, asked for trades that were missed and for what markets are; or off",
    ),
    Setting("USE_ORJSON", "use_orjson", _text, "", "accepted for old .env files, without effect"),
)
assert {setting.attribute for setting in SETTINGS} == {f.name for f in fields(Settings)}  # noqa: S101

_BY_NAME: Final = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and for each name the text it came from and where that stood."""

    settings: Settings
    texts: dict[str, str] = field(repr=False)
    sources: dict[str, str]


def load(
    flags: Mapping[str, str | None],
    *,
    environ: Mapping[str, str],
    env_file: Path | None = Path(".env"),
    toml_file: Path | None = None,
    flags_only: Container[str] = (),
) -> Loaded:
    """Reads and checks all settings; ``flags`` has setting names as keys. Raises ConfigError.

    ``flags_only``: settings that are not looked for anywhere else. A missing ``.env`` or
    ``kalshi-fast.toml`` is fine; a ``toml_file`` that was asked for must exist.
    """
    layers: list[tuple[str, Mapping[str, str | None]]] = [
        ("flag", flags),
        ("environment", environ),
        (f".env file {env_file}", _read_env(env_file) if env_file is not None else {}),
        (f"TOML file {toml_file or TOML_NAME}", _read_toml(toml_file)),
        ("default", {setting.name: setting.default for setting in SETTINGS}),
    ]
    for _, layer in layers:
        keep_secret(*((layer.get(setting.name) or "").strip() for setting in SETTINGS if setting.secret))
    texts: dict[str, str] = {}
    sources: dict[str, str] = {}
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        source, text = next(
            (
                (source, given.strip())
                for source, layer in (layers[:1] if setting.name in flags_only else layers)
                if (given := layer.get(setting.name) or "").strip()
            ),
            ("default", ""),
        )
        texts[setting.name], sources[setting.name] = text, source
        if not text:
            continue
        try:
            values[setting.attribute] = setting.parse(text)
        except _BadValueError as error:
            shown = "***" if setting.secret or error.secret else excerpt(text)
            raise ConfigError(f"{setting.name}: expected {error}, got {shown} (from the {source})") from None
    settings = Settings(**values)
    if settings.buffer_max_rows < settings.batch_rows:
        raise ConfigError(
            f"BUFFER_MAX_ROWS: expected at least BATCH_ROWS ({settings.batch_rows}), got"
            f" {settings.buffer_max_rows} (from the {sources['BUFFER_MAX_ROWS']})"
        )
    listen = settings.query_listen
    if listen is not None and not is_loopback(listen[0]) and not settings.clickhouse_password:
        raise ConfigError(
            "QUERY_LISTEN: expected an address of this machine only, or a CLICKHOUSE_PASSWORD, got"
            f" {excerpt(texts['QUERY_LISTEN'])} (from the {sources['QUERY_LISTEN']})"
        )
    _check_tuning(settings, sources)
    return Loaded(settings, texts, sources)


def _check_tuning(settings: Settings, sources: Mapping[str, str]) -> None:
    if settings.busy_poll and settings.capture_cpu is None:
        raise ConfigError(
            f"BUSY_POLL: expected a CAPTURE_CPU of its own to keep busy, got none"
            f" (on from the {sources['BUSY_POLL']})"
        )
    if settings.busy_poll and settings.capture_fifo is not None:
        raise ConfigError(
            "CAPTURE_FIFO: expected off beside BUSY_POLL (Linux stops a real-time program that never sleeps"
            f" for 50 ms of each second), got {settings.capture_fifo} (from the {sources['CAPTURE_FIFO']})"
        )
    if settings.capture_nice is not None and settings.capture_fifo is not None:
        raise ConfigError(
            f"CAPTURE_NICE: expected off beside CAPTURE_FIFO {settings.capture_fifo}, got"
            f" {settings.capture_nice} (from the {sources['CAPTURE_NICE']})"
        )
    if settings.capture_cpu in settings.writer_cpus:
        raise ConfigError(
            f"WRITER_CPUS: expected other cores than CAPTURE_CPU {settings.capture_cpu}, got it among them"
            f" (from the {sources['WRITER_CPUS']})"
        )


def _read_file(path: Path, what: str, most_bytes: int = _MAX_FILE_BYTES) -> str | None:
    """The text of a small file, None when there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise ConfigError(f"{what} {path}: larger than {most_bytes} bytes")
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{what} {path}: not UTF-8 at byte {error.start}") from None
    except OSError as error:
        raise ConfigError(f"{what} {path}: cannot be read: {error.strerror or error}") from None


def _read_env(path: Path) -> dict[str, str | None]:
    text = _read_file(path, ".env file")
    if text is None:
        return {}
    found: dict[str, str | None] = {}
    for binding in parse_stream(io.StringIO(text)):
        if binding.error or (binding.key is not None and binding.value is None):
            # Only the name of a setting is quoted: what stands behind it, or all of it, may be a secret.
            name = _IDENTIFIER_BEFORE.match(binding.original.string.strip())
            known = name is not None and name[1] in _BY_NAME
            got = f"a line that begins {excerpt(name[1])}" if name and known else "another line"
            raise ConfigError(
                f".env file {path}, line {binding.original.line}: expected NAME=value, got {got}"
            )
        if binding.key is not None:
            found[binding.key] = binding.value
    return found


def _read_toml(path: Path | None) -> dict[str, str | None]:
    text = _read_file(path or Path(TOML_NAME), "TOML file")
    if text is None:
        if path is not None:
            raise ConfigError(f"TOML file {path}: does not exist")
        return {}
    path = path or Path(TOML_NAME)
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"TOML file {path}: {reason(error)}") from None
    except RecursionError:
        raise ConfigError(f"TOML file {path}: nested too deeply") from None
    except ValueError:  # Python's own limit, which tomllib lets through
        raise ConfigError(f"TOML file {path}: a number in it has thousands of digits") from None
    found: dict[str, str | None] = {}
    for key, value in table.items():
        name = key.upper().replace("-", "_")
        if name not in _BY_NAME:
            close = difflib.get_close_matches(name, _BY_NAME, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            raise ConfigError(f"TOML file {path}: no setting is named {excerpt(key)}{hint}")
        parts = value if isinstance(value, list) else [value]
        for part in parts:
            if isinstance(part, bool) or not isinstance(part, str | int | float):
                raise ConfigError(
                    f"TOML file {path}: {key}: expected text or a number, got {excerpt(type(part).__name__)}"
                )
            if isinstance(part, int) and part.bit_length() > 64:
                raise ConfigError(f"TOML file {path}: {key}: expected a number of at most 64 bits")
        found[name] = ",".join(map(str, parts))
    return found


def require_key(settings: Settings) -> tuple[str, Path]:
    """What every request to the exchange is signed with. Raises ConfigError."""
    if settings.prod_keyid is None:
        hint = "; without an account: kalshi-fast run --simulated" if settings.prod_keyfile is None else ""
        raise _missing("PROD_KEYID", "the id of your API key", hint)
    if settings.prod_keyfile is None:
        raise _missing("PROD_KEYFILE", "the path of its private key")
    return settings.prod_keyid, settings.prod_keyfile


def require_live(settings: Settings) -> None:
    """What a recording cannot do without. Raises ConfigError."""
    require_key(settings)
    if not any(getattr(settings, _BY_NAME[name].attribute) for name in SELECTORS):
        raise _missing("MARKET_TICKERS", "the markets to record", "; --series, --match and others find them")


def _missing(name: str, what: str, more: str = "") -> ConfigError:
    flag = _BY_NAME[name].flag
    return ConfigError(f"{name} is not set: give {what} in the environment, in .env or with {flag}{more}")


def writable_directory(name: str, directory: Path) -> None:
    """Makes the directory that setting ``name`` asks for and tries it. Raises ConfigError."""
    probe = directory / ".kalshi-fast-writable"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        refusal = ConfigError(f"{name}: {directory} cannot be written: {error.strerror or error}")
        if error.errno in _PASSING_ERRNOS:
            refusal.exit_code = 1  # whoever starts us again may find room
        raise refusal from error


def describe(loaded: Loaded) -> list[tuple[str, str, str, str]]:
    """(name, value with secrets redacted, source, help) of every setting."""
    return [
        (
            setting.name,
            setting.shown(loaded.texts[setting.name]),
            loaded.sources[setting.name],
            setting.help,
        )
        for setting in SETTINGS
    ]


def template() -> str:
    """An environment file of every setting, each at its default behind a '#'."""
    lines = [
        "# Settings of kalshi-fast at their defaults: take the '#' away from what you change. For .env,",
        "# --env-file, the service and the containers of deploy/. Keep it from others: it has secrets.",
        "# Made by `kalshi-fast config --template`.",
    ]
    for setting in SETTINGS:
        lines += ["", f"# {setting.help}", f"#{setting.name}={setting.default}"]
    return "\n".join(lines) + "\n"
