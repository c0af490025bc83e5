"""The machine itself: what of it costs latency or could end a recording, read from /proc and /sys.

Every look takes the root of the file system, so that a test can show it another machine. Where a file is
not there, the thing is not either (a container, a virtual machine) and nothing is said against it.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from kalshi_fast.check.finding import Check, Finding, ok, warning
from kalshi_fast.tuning.cpus import parse_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings

FEW_FILES: Final = 4096
SMALL_RCVBUF_BYTES: Final = 4 * 1024**2
SLOW_CLOCK_NS: Final = 500
_STA_UNSYNC: Final = 0x0040  # linux/timex.h
_CPU: Final = "sys/devices/system/cpu"


def checks(settings: Settings, root: Path = Path("/")) -> list[Check]:
    return [
        Check("isolation", partial(isolation, settings, root)),
        Check("governor", partial(governor, root)),
        Check("huge pages", partial(huge_pages, root)),
        Check("clock source", partial(clock_source, root)),
        Check("time service", time_service),
        Check("open files", open_files),
        Check("socket buffers", partial(socket_buffers, root)),
        Check("busy polling", partial(busy_polling, settings, root)),
        Check("swap", partial(swap, settings, root)),
    ]


def read(path: Path) -> str | None:
    """The text of a small file of the kernel's, None when it is not there or not for us."""
    try:
        return path.read_text("utf-8", "replace").strip()
    except OSError:
        return None


def isolation(settings: Settings, root: Path) -> Iterator[Finding]:
    cpu = settings.capture_cpu
    isolated = parse_cpus(read(root / _CPU / "isolated") or "") or ()
    if cpu is None:
        yield ok("isolation", "no core is asked for (CAPTURE_CPU)")
    elif cpu in isolated:
        yield ok("isolation", f"core {cpu} is isolated: nothing else runs there")
    else:
        yield ok(
            "isolation",
            f"core {cpu} is not isolated: other programs may run there",
            f"boot with isolcpus={cpu} nohz_full={cpu}, if they do",
        )


def governor(root: Path) -> Iterator[Finding]:
    found = Counter(
        text for path in sorted((root / _CPU).glob("cpu*/cpufreq/scaling_governor")) if (text := read(path))
    )
    if not found:
        yield ok("governor", "the system does not scale the cores' clock, or does not show it")
    elif set(found) == {"performance"}:
        yield ok("governor", "performance on every core")
    else:
        said = ", ".join(f"{name} on {count} cores" for name, count in sorted(found.items()))
        yield warning("governor", said, "cpupower frequency-set -g performance")


def huge_pages(root: Path) -> Iterator[Finding]:
    text = read(root / "sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = text.partition("[")[2].partition("]")[0]
    if chosen == "always":
        yield warning(
            "huge pages",
            "transparent for every program: the kernel may stop one to make them",
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        )
    else:
        yield ok("huge pages", f"transparent: {chosen or 'none'}")


def clock_source(root: Path) -> Iterator[Finding]:
    base = root / "sys/devices/system/clocksource/clocksource0"
    name = read(base / "current_clocksource") or "unknown"
    cost_ns = reading_the_time_ns()
    said = f"{name}: the time is read in {cost_ns:.0f} ns, once for each read from a socket"
    if cost_ns > SLOW_CLOCK_NS:
        others = read(base / "available_clocksource") or "none"
        yield warning("clock source", said, f"boot with clocksource=tsc, if the host has it ({others})")
    else:
        yield ok("clock source", said)


def reading_the_time_ns() -> float:
    """What one reading costs, from Python."""
    took = []
    for _ in range(9):
        began = time.perf_counter_ns()
        for _ in range(500):
            time.time_ns()
        took.append((time.perf_counter_ns() - began) / 500)
    return statistics.median(took)


class _Timex(ctypes.Structure):
    """The beginning of the kernel's struct timex; the rest is room."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def time_service() -> Iterator[Finding]:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "adjtimex"):
        yield ok("time service", "this system does not tell whether one keeps the clock")
        return
    timex = _Timex()  # modes 0: only asked
    if libc.adjtimex(ctypes.byref(timex)) < 0 or timex.status & _STA_UNSYNC:
        yield warning(
            "time service",
            "the kernel knows of none that keeps the clock: receive times may drift, signatures be refused",
            "run chrony or systemd-timesyncd",
        )
    else:
        yield ok(
            "time service", f"the clock is kept, to within {timex.maxerror / 1000:.1f} ms by its own account"
        )


def open_files() -> Iterator[Finding]:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FEW_FILES:
        yield warning(
            "open files",
            f"at most {soft} (hard limit {hard}): ClickHouse and the journal keep many open",
            "ulimit -n 65536 (systemd: LimitNOFILE=65536)",
        )
    else:
        yield ok("open files", f"up to {'any number' if soft == resource.RLIM_INFINITY else soft}")


def socket_buffers(root: Path) -> Iterator[Finding]:
    most = (read(root / "proc/sys/net/ipv4/tcp_rmem") or "").split()
    core = read(root / "proc/sys/net/core/rmem_max")
    if not most:
        yield ok("socket buffers", "the system does not tell")
        return
    most_kib, core_kib = int(most[-1]) // 1024, int(core or 0) // 1024
    said = f"TCP receives up to {most_kib} KiB ahead (net.core.rmem_max: {core_kib} KiB)"
    if int(most[-1]) < SMALL_RCVBUF_BYTES:
        yield warning(
            "socket buffers", said, f'sysctl -w net.ipv4.tcp_rmem="4096 131072 {2 * SMALL_RCVBUF_BYTES}"'
        )
    else:
        yield ok("socket buffers", said)


def busy_polling(settings: Settings, root: Path) -> Iterator[Finding]:
    value = int(read(root / "proc/sys/net/core/busy_read") or 0)
    if value:
        yield ok("busy polling", f"a read asks the network card for up to {value} us (net.core.busy_read)")
    elif settings.busy_poll:
        remedy = (
            "on a machine with a card of its own try sysctl -w net.core.busy_read=50 net.core.busy_poll=50"
        )
        yield ok(
            "busy polling", "the program does not sleep; the kernel waits for the card's interrupts", remedy
        )
    else:
        yield ok("busy polling", "off, in the kernel and in the settings")


def swap(settings: Settings, root: Path) -> Iterator[Finding]:
    lines = (line.split() for line in (read(root / "proc/meminfo") or "").splitlines())
    total_kib = next((int(parts[1]) for parts in lines if parts[0] == "SwapTotal:"), 0)
    swappiness = int(read(root / "proc/sys/vm/swappiness") or 0)
    said = f"{total_kib // 1024} MiB of swap, vm.swappiness {swappiness}"
    if not total_kib:
        yield ok("swap", "none")
    elif settings.lock_memory or swappiness <= 1:
        yield ok("swap", said)
    else:
        yield warning("swap", f"{said}: what was not used for a while comes back late", "LOCK_MEMORY=on")
