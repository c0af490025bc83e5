"""The recorder as a user runs it: the command, in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.simulator.process import Simulator


def record(directory: Path, simulator: Simulator, **settings: str) -> subprocess.Popen[bytes]:
    """``kalshi-fast run`` into a directory; what it says on stderr is appended to a file there."""
    told = {
        "PROD_KEYID": simulator.key_id,
        "PROD_KEYFILE": simulator.key_file,
        "MARKET_TICKERS": ",".join(simulator.tickers),
        "WS_URL": simulator.url,
        "WS_CAFILE": simulator.ca_file or "",
        "REST_URL": simulator.rest_url,
        "PARQUET_DIR": str(directory / "parquet"),
        "JOURNAL_DIR": str(directory / "journal"),
        **settings,
    }
    with (directory / "stderr").open("ab") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "kalshi_fast", "run", "--json", "--quiet", "--env-file", os.devnull],
            env={**os.environ, **told},
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=stderr,
        )
