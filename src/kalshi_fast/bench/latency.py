"""Wire to column at a steady rate, open loop: from the instant that a frame was due, not from when it was
sent.

A frame that comes late because the one before it was handled too slowly counts as late (no coordinated
omission), and so does one that the sender itself sent late. How late it was is reported beside, and the lags
from the instants of sending. What the machine itself adds, the floor shows: the same frames into a listener
that only reads the time of each. Not here: what the capture process is (``capture``), how frames are sent
(``sender``).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast.bench.capture import Task, encoded
from kalshi_fast.bench.rig import WrongResultError
from kalshi_fast.bench.sender import Play
from kalshi_fast.bench.workload import N_MARKETS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kalshi_fast.bench.sending import Sending

RATE: Final = 50_000
PERCENTILES: Final = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p999": 99.9, "p9999": 99.99, "max": 100.0}
BUCKETS: Final = 1.2  # so many times is a bound of the histogram above the one before
SHARED_GROUP: Final = 2  # frames of one instant: for a sleep before each of them there is no time on a core
SKIP_S: Final = 0.5  # at the beginning: pages and caches are touched for the first time


@dataclass(frozen=True)
class Variant:
    """How the rows are received and where they go."""

    name: str
    sinks: bool = False
    busy: bool = False
    fifo: bool = False
    tls: bool = False
    floor: bool = False


VARIANTS: Final = (
    Variant("sinks off"),
    Variant("sinks off, real-time priority", fifo=True),
    Variant("sinks off, busy polling", busy=True),
    Variant("both sinks writing", sinks=True),
    Variant("both sinks writing, real-time priority", sinks=True, fifo=True),
    Variant("both sinks writing, busy polling", sinks=True, busy=True),
    Variant("sinks off, over wss://, real-time priority", tls=True, fifo=True),
    Variant("picows alone (the floor)", floor=True),
    Variant("picows alone, real-time priority", floor=True, fifo=True),
    Variant("picows alone, busy polling", floor=True, busy=True),
)
QUICK: Final = tuple(VARIANTS[i] for i in (0, 1, 5))
TUNED: Final = VARIANTS[1].name  # whose figures are promised: `--cpu N --fifo 50`


def measured(
    sending: Sending, variant: Variant, seconds: float, cores: tuple[int, int] | None
) -> dict[str, Any]:
    """One round: percentiles in us, the histogram, and how late the sender was."""
    frames = round(seconds * RATE)
    sender_core, core = cores if cores is not None else (None, None)
    # With the writer on its core the sender sleeps between instants, or nothing would be written; it has
    # real-time priority then, where it is allowed to: it is the clock of the measurement.
    group = SHARED_GROUP if variant.sinks else 1
    play = Play(N_MARKETS, frames, RATE, group=group, sleeps=int(variant.sinks))
    with tempfile.TemporaryDirectory(prefix="kalshi-fast-bench-") as name:
        directory = Path(name)
        task = Task(
            url=sending.url(play),
            warm=play.warm,
            frames=play.frames,
            seconds=seconds,
            lags_file=str(directory / "lags.int64"),
            ca_file=str(sending.ca_file) if sending.ca_file is not None else None,
            core=core,
            writer_core=sender_core,
            busy=variant.busy,
            fifo=variant.fifo,
            directory=str(directory) if variant.sinks else None,
            floor=variant.floor,
        )
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-m", "kalshi_fast.bench.capture", encoded(task)],
            stdout=subprocess.PIPE,
            check=False,
        )
        if done.returncode:
            raise WrongResultError(f"the capture process ended with code {done.returncode}")
        said = sending.report()
        skip = round(SKIP_S * RATE)
        lags_ns, late_ns = (
            np.fromfile(file, np.int64)[skip:] for file in (task.lags_file, said["late_file"])
        )
    return {
        "rate": RATE,
        "group": group,
        **percentiles(lags_ns),
        "histogram": histogram(lags_ns),
        "from_sent": percentiles(lags_ns - late_ns),
        "sender_late": {
            **percentiles(late_ns),
            "realtime": said["realtime"],
            "cpu": round(said["cpu_s"] / seconds, 2),
        },
        "capture": json.loads(done.stdout.splitlines()[-1]),
    }


def combined(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Several rounds of a variant: the median of each percentile, in ``spreads`` its least and most;
    the histogram is of all rows."""
    counts: Counter[float] = Counter()
    for found in rounds:
        counts.update(dict(found["histogram"]))

    def medians(of: list[dict[str, Any]]) -> dict[str, float]:
        return {f"{name}_us": statistics.median(one[f"{name}_us"] for one in of) for name in PERCENTILES}

    return {
        **rounds[-1],
        **medians(rounds),
        "spreads": {
            f"{name}_us": [end(found[f"{name}_us"] for found in rounds) for end in (min, max)]
            for name in PERCENTILES
        },
        "rounds": len(rounds),
        "histogram": sorted(counts.items()),
        "from_sent": medians([found["from_sent"] for found in rounds]),
        "sender_late": {
            **rounds[-1]["sender_late"],
            **medians([found["sender_late"] for found in rounds]),
        },
        "realtime": all(found["capture"]["realtime"] for found in rounds),
    }


def percentiles(lags_ns: NDArray[np.int64]) -> dict[str, float]:
    """In us, of all of them: exact, not of a histogram."""
    values = np.percentile(lags_ns / 1000, list(PERCENTILES.values()), method="higher")
    return {f"{name}_us": round(float(us), 1) for name, us in zip(PERCENTILES, values, strict=True)}


def histogram(lags_ns: NDArray[np.int64]) -> list[tuple[float, int]]:
    """(upper bound in us, how many lie between it and the bound before), without empty ones."""
    bounds = np.round(BUCKETS ** np.arange(100), 2)
    counts = np.bincount(np.searchsorted(bounds, lags_ns / 1000), minlength=len(bounds))
    return [(float(bound), int(count)) for bound, count in zip(bounds, counts, strict=False) if count]
