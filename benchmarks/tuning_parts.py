"""What docs/tuning.md says of single parts, measured in process: ``python -m benchmarks.tuning_parts``.

The first use of the ring's memory, cold, made ready (LOCK_MEMORY) and on huge pages where the host has them;
a collection by Python's garbage collector in a process with what the capture process has, as usual and
frozen; a turn of the loop that does not sleep. Medians of the rounds, lowest and highest in brackets.
"""

from __future__ import annotations

import asyncio
import mmap
import statistics
import subprocess
import sys
import time
import uuid

import uvloop

from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.bench.workload import N_MARKETS, SUBSCRIBED, made_frames
from kalshi_fast.ring import Ring
from kalshi_fast.tuning.spin import Spinner

ROUNDS = 7
ROWS, SLOTS = 2000, 200


def said(what: str, numbers: list[float], unit: str) -> None:
    shown = f"{statistics.median(numbers):,.1f} ({min(numbers):,.1f}-{max(numbers):,.1f}) {unit}"
    sys.stdout.write(f"{what:<64}{shown}\n")


# --- the ring -------------------------------------------------------------------------------------------


def fill_ns_per_row(ring: Ring) -> float:
    """Every column of every slot written once, front to back, as the feed does in a burst."""
    columns = [
        (EventColumns(ROWS, ring.event_memory(slot)), LevelColumns(ROWS, ring.level_memory(slot)))
        for slot in range(ring.slots)
    ]
    arrays = [[*events.arrays.values(), *levels.arrays.values()] for events, levels in columns]
    began = time.perf_counter_ns()
    for slot in arrays:
        for column in slot:
            column[:] = 1
    return (time.perf_counter_ns() - began) / (ROWS * ring.slots)


def ring() -> None:
    cold, again, ready, made_ms, huge = [], [], [], [], []
    for _ in range(ROUNDS):
        one = Ring.create(ROWS, SLOTS, uuid.uuid4())
        cold.append(fill_ns_per_row(one))
        again.append(fill_ns_per_row(one))
        other = Ring.create(ROWS, SLOTS, uuid.uuid4())
        began = time.perf_counter()
        other.populate(SLOTS)
        made_ms.append((time.perf_counter() - began) * 1000)
        ready.append(fill_ns_per_row(other))
        third = Ring.create(ROWS, SLOTS, uuid.uuid4())
        third._mapped.madvise(mmap.MADV_HUGEPAGE)  # noqa: SLF001 - not a thing that the ring does
        fill_ns_per_row(third)
        huge.append(fill_ns_per_row(third))
    said(f"ring of {SLOTS} batches, first pass", cold, "ns a row")
    said("  second pass over the same", again, "ns a row")
    said("  first pass, made ready (LOCK_MEMORY)", ready, "ns a row")
    said("  making it ready", made_ms, "ms")
    said("  second pass, MADV_HUGEPAGE", huge, "ns a row")


# --- the garbage collector ------------------------------------------------------------------------------

_COLLECTIONS = """
import gc, random, sys, time
import kalshi_fast.cli, kalshi_fast.recording
from kalshi_fast.books import Books
from kalshi_fast.link import Link
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.session import Session

deltas = int(sys.argv[1])
frames = sys.stdin.buffer.read().splitlines(keepends=True)
tickers = [frame.split(b'"market_ticker":"')[1].split(b'"')[0].decode() for frame in frames[1:-deltas]]
pool = LocalPool(2000, 1000)
recorder = Recorder(Books(), pool, pool.release, seal_rows=2000)
session = Session(tickers, clock=time.monotonic_ns, rng=random.Random(1), use_yes_price=True)
link = Link(recorder, session)
link.on_connected(1, time.time_ns())
for frame in frames[:-deltas]:
    link.feed(frame, time.time_ns())
assert recorder.counts.snapshots == len(tickers)

def timed():
    took = []
    for _ in range(7):
        began = time.perf_counter()
        gc.collect()
        took.append((time.perf_counter() - began) * 1000)
    return took

print(*timed())
gc.freeze()
print(*timed())
gc.disable()
before = gc.get_count()[0]
for frame in frames[-deltas:]:
    link.feed(frame, time.time_ns())
print(gc.get_count()[0] - before, gc.collect())
assert recorder.counts.deltas == deltas and recorder.counts.gaps == 0, recorder.counts
"""


def collections() -> None:
    """In a process of its own, that has imported what the capture process has."""
    deltas = 50_000
    done = subprocess.run(
        [sys.executable, "-c", _COLLECTIONS, str(deltas)],
        input=b"".join([SUBSCRIBED, *made_frames(deltas)]),
        capture_output=True,
        check=True,
    )
    usual, frozen, left = done.stdout.decode().splitlines()
    said(f"a full collection, {N_MARKETS} books", [*map(float, usual.split())], "ms")
    said("  the same, frozen at the start", [*map(float, frozen.split())], "ms")
    what = f"  containers that {deltas:,} deltas leave, garbage found then"
    sys.stdout.write(f"{what:<64}{left}\n")


# --- the loop -------------------------------------------------------------------------------------------


async def turns() -> list[float]:
    spinner = Spinner(asyncio.get_running_loop())
    spinner.start()
    found = []
    for _ in range(ROUNDS):
        before, began = spinner.turns, time.process_time()
        await asyncio.sleep(0.2)
        found.append((time.process_time() - began) * 1e6 / (spinner.turns - before))
    spinner.stop()
    return found


def main() -> None:
    ring()
    collections()
    said("a turn of the loop that does not sleep, CPU time", uvloop.run(turns()), "us")


if __name__ == "__main__":
    main()
