"""Wire to column at a steady rate, open loop: from the instant that a frame was due, not from when it was sent.

A frame that comes late because the one before it was handled too slowly counts as late (no coordinated
omission), and so does one that the sender itself sent late; how late it was is reported beside. Not here: what
the capture process is (``capture``), how frames are sent (``sender``).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.bench.capture import Task, encoded
from kalshi_fast.bench.rig import WrongResultError
from kalshi_fast.bench.sender import Play
from kalshi_fast.bench.workload import N_MARKETS

if TYPE_CHECKING:
    from kalshi_fast.bench.sending import Sending

RATE: Final = 50_000
SKIP_S: Final = 0.5  # at the beginning: pages and caches are touched for the first time


@dataclass(frozen=True)
class Variant:
    """How the rows are received and where they go."""

    name: str
    sinks: bool = False
    busy: bool = False


VARIANTS: Final = (
    Variant("sinks off"),
    Variant("sinks off, busy polling", busy=True),
    Variant("both sinks writing", sinks=True),
)


def measured(
    sending: Sending, variant: Variant, seconds: float, cores: tuple[int, int] | None
) -> dict[str, Any]:
    """Percentiles in us, the histogram, and how late the sender was."""
    frames = round(seconds * RATE)
    sender_core, core = cores if cores is not None else (None, None)
    # With the writer on its core the sender sleeps between frames, or nothing would be written.
    play = Play(N_MARKETS, frames, RATE, sleeps=int(variant.sinks))
    with tempfile.TemporaryDirectory(prefix="kalshi-fast-bench-") as directory:
        task = Task(
            url=sending.url(play),
            warm=play.warm,
            frames=play.frames,
            skip=round(SKIP_S * RATE),
            seconds=seconds,
            ca_file=str(sending.ca_file) if sending.ca_file is not None else None,
            core=core,
            writer_core=sender_core,
            busy=variant.busy,
            directory=directory if variant.sinks else None,
        )
        done = subprocess.run(  # noqa: S603 - our own interpreter, our own module
            [sys.executable, "-m", "kalshi_fast.bench.capture", encoded(task)],
            stdout=subprocess.PIPE,
            check=False,
        )
    if done.returncode:
        raise WrongResultError(f"the capture process ended with code {done.returncode}")
    said = sending.report()
    if said["unready"]:
        raise WrongResultError("the sender had not made its frames when the first was due")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "rate": RATE, "sender": {name: us for name, us in said.items() if "late" in name}}
