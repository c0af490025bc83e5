"""docs/reference/settings.md: every setting of the table in ``kalshi_fast.config``.

Names, flags, defaults, bounds and the first sentence come from there. ``GROUPS`` gives the order of the page,
``NOTES`` what one sentence cannot say. Not here: how settings are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from kalshi_fast.config import SELECTORS, SETTINGS
from tools.reference.markdown import code, page, sentence

if TYPE_CHECKING:
    from kalshi_fast.config import Setting

GROUPS: Final[dict[str, tuple[str, ...]]] = {
    "The account": ("PROD_KEYID", "PROD_KEYFILE"),
    "Which markets": (*SELECTORS, "MARKET_COMBOS", "DISCOVERY_SECS"),
    "What is recorded of them": ("CHANNELS", "REFERENCE", "RAW", "USE_YES_PRICE"),
    "The exchange": ("WS_URL", "WS_HOSTNAME", "WS_CAFILE", "REST_URL"),
    "Connections": (
        "SUBSCRIPTION_MARKETS",
        "CONNECTION_MARKETS",
        "HOT_STANDBY",
        "WS_IDLE_SECS",
        "WS_BACKOFF_SECS",
        "WS_BACKOFF_MAX_SECS",
        "WS_REFUSED_SECS",
    ),
    "ClickHouse": (
        "CLICKHOUSE_URL",
        "CLICKHOUSE_USER",
        "CLICKHOUSE_PASSWORD",
        "CLICKHOUSE_DATABASE",
        "CLICKHOUSE_CLUSTER",
        "QUERY_LISTEN",
    ),
    "Parquet": ("PARQUET_DIR", "PARQUET_MAX_BYTES", "PARQUET_MAX_SECS"),
    "Journal and buffers": (
        "JOURNAL_DIR",
        "JOURNAL_FSYNC",
        "JOURNAL_FSYNC_SECS",
        "JOURNAL_MAX_BYTES",
        "BATCH_ROWS",
        "BATCH_FLUSH_SECS",
        "BUFFER_MAX_ROWS",
    ),
    "Health and logs": ("HTTP_LISTEN", "LOG_FORMAT"),
    "The host": (
        "CAPTURE_CPU",
        "WRITER_CPUS",
        "BUSY_POLL",
        "CAPTURE_NICE",
        "CAPTURE_FIFO",
        "LOCK_MEMORY",
    ),
    "Without effect": ("USE_ORJSON",),
}

NOTES: Final[dict[str, str]] = {
    "PROD_KEYID": "Shown with its last four characters only.",
    "PROD_KEYFILE": "A file that others can read is refused.",
    "MARKET_TICKERS": "One way of naming markets is enough; what several of them name is recorded together.",
    "MARKET_TICKERS_FILE": "Blanks, commas or line ends between the tickers; `#` begins a comment. A changed"
    " file, or SIGHUP, changes the markets without a reconnect.",
    "MARKET_COMBOS": "The flag `--combos` alone means include. Where they are wanted,"
    " `multivariate_market_lifecycle` is recorded beside `market_lifecycle_v2`. Markets named one by one are"
    " recorded whatever they are.",
    "MARKET_ALL_OPEN": "The flag `--all-open` stands alone, `--market-all-open` takes a value.",
    "CHANNELS": "See [channels](../channels.md).",
    "REFERENCE": "With a dot it is a Pyth underlying, without an index of CF Benchmarks. See [reference"
    " prices](../channels.md#reference-prices).",
    "RAW": "See [raw frames](../channels.md#raw-frames).",
    "REST_URL": "With `off` nothing is asked for: missed trades stay missing, and said to be.",
    "HOT_STANDBY": "It doubles the traffic.",
    "CLICKHOUSE_URL": "The embedded engine admits one process at a time. User and password are settings"
    " of their"
    " own and not taken from the address.",
    "CLICKHOUSE_PASSWORD": "Not a flag: every process of the machine sees command lines.",
    "CLICKHOUSE_CLUSTER": "See [cluster](../cluster.md).",
    "QUERY_LISTEN": "Read-only. Another address than this machine's takes a `CLICKHOUSE_PASSWORD`.",
    "HTTP_LISTEN": "There is no password: whoever reaches the port sees figures and books. See"
    " [metrics](../metrics.md) and [live views](../live.md). `kalshi-fast top` asks there.",
    "JOURNAL_DIR": "Each recording needs one of its own.",
    "JOURNAL_FSYNC": "A process that dies loses nothing with any of them; a machine that loses power"
    " loses at most"
    " the interval with `interval`, nothing that had counted with `always`.",
    "JOURNAL_MAX_BYTES": "What the exchange does not send again after a pause shows as a gap.",
    "BATCH_ROWS": "Whichever of this and `BATCH_FLUSH_SECS` comes first.",
    "BUFFER_MAX_ROWS": "At least `BATCH_ROWS`.",
    "PARQUET_MAX_BYTES": "`kalshi-fast compact` makes larger ones afterwards.",
    "CAPTURE_CPU": "See [tuning](../tuning.md) for this section.",
    "BUSY_POLL": "Needs `CAPTURE_CPU`, and excludes `CAPTURE_FIFO`.",
    "CAPTURE_NICE": "One of this and `CAPTURE_FIFO`.",
}

_HEAD: Final = """
What can be set, and where. Settings come from flags, the environment, the file `.env` and the file
`kalshi-fast.toml`, in this order: the first that has a value counts, and an empty value is none.

```console
$ kalshi-fast run --batch-rows 5000 --env-file recorder.env --toml recorder.toml
$ kalshi-fast config
```

The second shows every setting with its value and where it came from, secrets redacted. In `kalshi-fast.toml`
a name may be written in any case; a list stands for values with commas between:

```toml
market_tickers = ["FEDFUNDS-DEC25", "KXBTCMAXY-25-DEC31-129999.99"]
batch_rows = 5000
hot_standby = "on"
```

A wrong value is one sentence that names the setting, the value, what was expected and where it came from;
the exit code is 2. `on` may also be `true`, `yes` or `1`, and `off` `false`, `no` or `0`. Times in seconds
may have decimals where the name says `SECS` and the bounds do not say integer."""


def flags(setting: Setting) -> list[str]:
    """Those that the command line has for it."""
    if setting.secret and setting.name != "PROD_KEYID":
        return []
    return [name for name in (setting.alias, setting.flag) if name]


def document() -> str:
    """The page."""
    by_name = {setting.name: setting for setting in SETTINGS}
    parts = []
    for group, names in GROUPS.items():
        parts.append(f"## {group}")
        parts += [_entry(by_name[name]) for name in names]
    return page("Settings", _HEAD, *parts)


def _entry(setting: Setting) -> str:
    named = ", ".join(map(code, flags(setting))) or "none"
    facts = [
        f"- flag: {named}{', may be given several times' if setting.many else ''}",
        f"- TOML: {code(setting.name.lower())}",
        f"- default: {code(setting.default) or 'not set'}",
        f"- may be: {setting.accepts or 'any text'}",
    ]
    if setting.secret:
        facts.append("- a secret: never shown, never logged")
    text = f"{sentence(setting.help)} {NOTES.get(setting.name, '')}".strip()
    return f"### `{setting.name}`\n\n{text}\n\n" + "\n".join(facts)
