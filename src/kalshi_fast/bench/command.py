"""`kalshi-fast bench`: all parts one after the other, the tables, and the object for ``--json``.

Not here: how any of it is measured.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.bench import burst, inprocess, instructions, latency, plot, sockets, tables
from kalshi_fast.bench.cpus import cores, machine, pinned
from kalshi_fast.bench.options import PARTS
from kalshi_fast.bench.peers import versions
from kalshi_fast.bench.results import Results
from kalshi_fast.bench.rounds import interleaved
from kalshi_fast.bench.sending import sending
from kalshi_fast.bench.workload import N_MARKETS, N_WARM, WARM_DELTAS, made_frames
from kalshi_fast.progress import ProgressLine

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    deltas: int
    rounds: int
    socket_deltas: int
    socket_rounds: int
    latency_s: float
    latency_rounds: int
    variants: tuple[latency.Variant, ...]


QUICK: Final = Size(
    deltas=50_000,
    rounds=5,
    socket_deltas=150_000,
    socket_rounds=4,
    latency_s=2.5,
    latency_rounds=1,
    variants=latency.QUICK,
)
FULL: Final = Size(
    deltas=50_000,
    rounds=21,
    socket_deltas=400_000,
    socket_rounds=11,
    latency_s=5.5,
    latency_rounds=5,
    variants=latency.VARIANTS,
)


def measure(size: Size, parts: tuple[str, ...], say: Callable[[str], None]) -> Results:
    """All of these parts."""
    results = Results()
    started = time.monotonic()
    placed = cores()
    sender_core, core = placed if placed is not None else (None, None)
    results.about = {"machine": machine(), "versions": versions(), "pinned": placed is not None}
    in_process = [part for part in ("pipeline", "stages") if part in parts]
    if in_process:
        say("making frames")
        contenders = []
        if "pipeline" in parts:
            contenders += inprocess.pipelines(made_frames(WARM_DELTAS + size.deltas))
        if "stages" in parts:
            contenders += inprocess.stages()
        with pinned(core):
            results.add(contenders, interleaved(contenders, size.rounds, say))
    if "sockets" in parts:
        _sockets(results, size, sender_core, core, say)
    if "latency" in parts:
        _latency(results, size, placed, say)
    if "burst" in parts:
        say("burst: the sender makes its frames")
        with sending(N_MARKETS + burst.FRAMES, tls=False, core=sender_core) as sender:
            results.burst = burst.measured(sender, burst.FRAMES, core, say)
    if "instructions" in parts:
        if (reason := instructions.why_not()) is None:
            results.instructions = asdict(instructions.count(say))
        else:
            results.reasons["instructions_per_frame"] = reason
    results.about["seconds"] = round(time.monotonic() - started, 1)
    return results


def _latency(
    results: Results, size: Size, placed: tuple[int, int] | None, say: Callable[[str], None]
) -> None:
    frames = N_MARKETS + round(size.latency_s * latency.RATE)
    rounds: dict[str, list[dict[str, Any]]] = {variant.name: [] for variant in size.variants}
    with ExitStack() as stack:
        say("latency: the senders make their frames")
        senders = {
            tls: stack.enter_context(sending(frames, tls=tls, core=placed[0] if placed is not None else None))
            for tls in {variant.tls for variant in size.variants}
        }
        for number in range(1, size.latency_rounds + 1):
            for variant in size.variants:
                say(f"latency: round {number} of {size.latency_rounds}: {variant.name}")
                found = latency.measured(senders[variant.tls], variant, size.latency_s, placed)
                rounds[variant.name].append(found)
    for variant in size.variants:
        found = latency.combined(rounds[variant.name])
        if variant.fifo and not found["realtime"]:
            results.reasons[variant.name] = "real-time priority is not allowed here"
        else:
            results.latency[variant.name] = found


def _sockets(
    results: Results, size: Size, sender_core: int | None, core: int | None, say: Callable[[str], None]
) -> None:
    with ExitStack() as stack:
        say("sockets: the senders make their frames")
        frames = N_WARM + size.socket_deltas
        senders = [stack.enter_context(sending(frames, tls=tls, core=sender_core)) for tls in (False, True)]
        contenders = [
            contender for sender in senders for contender in sockets.contenders(sender, size.socket_deltas)
        ]
        with pinned(core):
            results.add(contenders, interleaved(contenders, size.socket_rounds, say))


def bench(options: argparse.Namespace) -> int:
    """The command; its exit code."""
    if options.plot is not None:
        plot.require(options.plot)
    parts = tuple(options.only or (part for part in PARTS if part != "burst" or not options.quick))
    line = ProgressLine(quiet=options.quiet)
    size = QUICK if options.quick else FULL
    try:
        results = measure(size, parts, line.show)
    finally:
        line.end()
    results.about["quick"] = options.quick
    if options.plot is not None:
        plot.draw(results, options.plot)
    sys.stdout.write((tables.markdown(results) if options.markdown else tables.text(results)) + "\n")
    if options.json:
        sys.stdout.write(json.dumps(results.as_json()) + "\n")
    return 0
