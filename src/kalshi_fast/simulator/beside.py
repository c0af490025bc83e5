"""A simulated exchange beside one recording: ``kalshi-fast run --simulated``.

Nothing that is configured for the live exchange concerns such a recording: it has a key, markets and a
directory of its own, so that invented rows never come among real ones. Not here: recording (``recording``),
an exchange that outlives it (``command``), one that is asked afterwards (``process``).
"""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kalshi_fast.config import SELECTORS, writable_directory
from kalshi_fast.errors import ConfigError, SimulatorError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from kalshi_fast.config import Settings

SIMULATED_DIR: Final = Path("simulated-data")
DEMO_DIR: Final = Path("demo-data")
MARKETS: Final = 20
LIVE_ONLY: Final = ("PROD_KEYID", "PROD_KEYFILE", "WS_URL", "WS_HOSTNAME", "WS_CAFILE", "REST_URL")
RATE: Final = 2_000  # frames per second
FIRST_MARKET: Final = "KXSIM-26DEC31-T0000"  # the busiest


def stores(directory: Path) -> dict[str, str]:
    """Where everything of a recording in one directory goes, by the names of the settings."""
    return {
        "CLICKHOUSE_URL": f"chdb://{directory.absolute()}/clickhouse",
        "PARQUET_DIR": str(directory / "parquet"),
        "JOURNAL_DIR": str(directory / "journal"),
    }


def command(*, anywhere: bool = False) -> str:
    """How this program is called, short where it is found so; ``anywhere``: from another terminal, too."""
    called = Path(sys.argv[0])
    if called.name != "kalshi-fast":
        return f"{shlex.quote(sys.executable)} -m kalshi_fast"
    found = None if anywhere else shutil.which("kalshi-fast")
    if found is not None and Path(found).samefile(called):
        return "kalshi-fast"
    return shlex.quote(str(called.absolute()))


def invitation(directory: Path, market: str | None, database: str = "kalshi") -> str:
    """What can be asked of such a directory, ready to be copied; ``market``: one that has been recorded."""
    where = f"--dir {shlex.quote(str(directory))}"
    best = (
        "SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size"  # noqa: S608 - shown, and a plain name
        f" FROM {database}.best_bid_ask ORDER BY market_ticker LIMIT 5"
    )
    text = f'Everything is in {directory}. Ask it:\n  {command()} query {where} "{best}"'
    if market is not None:
        other = "" if database == "kalshi" else f" --database {database}"
        text += f"\n  {command()} plot {market} {where}{other} --out market.png"
    return text


def invitation_to(directory: Path, settings: Settings, recorded: Collection[str]) -> str:
    """The same of a recording with these settings; nothing when it has left nothing there."""
    market = FIRST_MARKET if FIRST_MARKET in recorded else min(recorded, default=None)
    if settings.clickhouse_url == stores(directory)["CLICKHOUSE_URL"]:
        return invitation(directory, market, settings.clickhouse_database)
    if settings.parquet_dir is None:
        return ""
    files = settings.parquet_dir
    return f"The files are in {files}. Read them:\n  {command()} replay {shlex.quote(str(files))} --verify"


@contextmanager
def simulated(directory: Path, flags: Mapping[str, str | None]) -> Iterator[dict[str, str | None]]:
    """An exchange for as long as this lasts, and what a recording of it is told: ``flags``, but for where
    the exchange is and how to sign. Raises ConfigError."""
    writable_directory("--simulated", directory)
    arguments = ["--dir", str(directory / "simulator"), "--markets", str(MARKETS), "--rate", str(RATE)]
    # It ends when its standard input does, whatever becomes of this process.
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "kalshi_fast.simulator", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdout is not None  # noqa: S101 - asked for
        line = process.stdout.readline()
        if not line:
            raise SimulatorError(f"the simulator ended early (exit code {process.wait()})")
        ready = json.loads(line)
        if ready["event"] != "ready":
            raise ConfigError(str(ready.get("message", ready)))
        told: dict[str, str | None] = {**stores(directory)}
        told |= {name: text for name, text in flags.items() if text}
        if not any(told.get(name) for name in SELECTORS):
            told["MARKET_ALL_OPEN"] = "on"
        yield told | {
            "PROD_KEYID": ready["key_id"],
            "PROD_KEYFILE": ready["key_file"],
            "WS_URL": ready["url"],
            "WS_HOSTNAME": None,
            "WS_CAFILE": ready["ca_file"],
            "REST_URL": ready["rest_url"],
        }
