"""A burst: a million frames as fast as the socket takes them, into the real `kalshi-fast run` with both
stores.

All have to be stored, the capture process's memory has a bound, and how long it takes until the last row can
be queried is reported. Not here: steady rates over a long time (``benchmarks/endurance.py``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import urlopen

from kalshi_fast.bench.rig import WrongResultError
from kalshi_fast.bench.sender import Play
from kalshi_fast.bench.workload import N_MARKETS, tickers
from kalshi_fast.simulator.tls import make_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from kalshi_fast.bench.sending import Sending

FRAMES: Final = 1_000_000
DEADLINE_S: Final = 120.0
_LOOK_S: Final = 0.05
_COUNT: Final = "SELECT count() FROM kalshi.orderbook_events WHERE type = 'delta' FORMAT TSV"


def measured(sending: Sending, frames: int, core: int | None, say: Callable[[str], None]) -> dict[str, Any]:
    """Raises WrongResultError when not all was stored, or not in time."""
    with tempfile.TemporaryDirectory(prefix="kalshi-fast-bench-") as name:
        directory = Path(name)
        make_key(directory / "key.pem")
        told = {
            "PROD_KEYID": "bench",
            "PROD_KEYFILE": str(directory / "key.pem"),
            "MARKET_TICKERS": ",".join(tickers()),
            "WS_URL": sending.url(Play(N_MARKETS, frames, go=0)),
            "WS_CAFILE": str(sending.ca_file) if sending.ca_file is not None else "",
            "CLICKHOUSE_URL": f"chdb://{directory}/clickhouse",
            "PARQUET_DIR": str(directory / "parquet"),
            "JOURNAL_DIR": str(directory / "journal"),
        }
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-m", "kalshi_fast", "run", "--json", "--quiet", "--env-file", os.devnull],
            env={**os.environ, **told},
            cwd=directory,
            stdout=subprocess.PIPE,
        )
        try:
            return _watched(process, sending, frames, core, directory, say)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


def _watched(
    process: subprocess.Popen[bytes],
    sending: Sending,
    frames: int,
    core: int | None,
    directory: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    say("burst: the recording opens its stores")
    sent = sending.report()
    began = time.monotonic() - sent["seconds"]
    if core is not None:
        os.sched_setaffinity(process.pid, {core})
    while (rows := _rows(directory)) < frames:
        waited = time.monotonic() - began
        if waited > DEADLINE_S or process.poll() is not None:
            raise WrongResultError(f"expected {frames} deltas in ClickHouse, got {rows} in {waited:.0f} s")
        say(f"burst: {rows:,} of {frames:,} rows can be queried")
        time.sleep(_LOOK_S)
    drained_s = time.monotonic() - began
    memory = _memory(process.pid)
    process.terminate()
    output, _ = process.communicate()
    closed_s = time.monotonic() - began
    figures = json.loads(output.splitlines()[-1])
    stored = (figures["events"], figures["clickhouse_rows"], figures["parquet_rows"])
    if figures["deltas"] != frames or len(set(stored)) != 1 or figures["gaps"] or figures["frames_rejected"]:
        raise WrongResultError(f"expected {frames} deltas, each in both stores, got {figures}")
    return {
        "frames": frames,
        "sent_s": round(sent["seconds"], 3),
        "frames_per_s": round(frames / sent["seconds"]),
        "drained_s": round(drained_s, 3),
        "closed_s": round(closed_s, 3),
        "events": figures["events"],
        "clickhouse_rows": figures["clickhouse_rows"],
        "parquet_rows": figures["parquet_rows"],
        **memory,
    }


def _rows(directory: Path) -> int:
    """Deltas that a query finds, 0 as long as nobody answers."""
    try:
        endpoint = json.loads((directory / "clickhouse" / "query-endpoint.json").read_text())
        with urlopen(endpoint["url"], data=_COUNT.encode(), timeout=30) as answer:  # noqa: S310 - loopback
            return int(answer.read())
    except (OSError, ValueError):
        return 0


def _memory(pid: int) -> dict[str, int | None]:
    """Of the capture process in MiB: the most that was resident; what of it is shared with the writer, now.
    None where the system does not tell."""
    found: dict[str, int] = {}
    status = Path(f"/proc/{pid}/status")
    for line in status.read_text().splitlines() if status.exists() else ():
        name, _, value = line.partition(":")
        if name in ("VmHWM", "RssShmem"):
            found[name] = int(value.split()[0]) // 1024
    return {"capture_rss_max_mib": found.get("VmHWM"), "capture_shared_mib": found.get("RssShmem")}
