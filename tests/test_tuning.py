"""Each setting of the tuning does what it says, to the thread it is meant for, or says why this host refuses.

Cores, priorities and locked memory are asked of the kernel, in processes of their own where they would stay.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast.config import SETTINGS, Settings, load
from kalshi_fast.errors import ConfigError, KalshiFastError, TuningError
from kalshi_fast.simulator.process import Simulator
from kalshi_fast.tuning import capture, collector
from kalshi_fast.tuning.cpus import others, parse_cpus, pin, show_cpus
from kalshi_fast.tuning.priority import set_fifo, set_nice
from kalshi_fast.tuning.spin import Spinner
from recorders import record

if TYPE_CHECKING:
    from collections.abc import Callable

linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux pins, prioritises and locks")
root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="takes root")


def on_a_thread(work: Callable[[], object]) -> object:
    """What it gives, or the error that it raises; whatever it did to its thread is gone with it."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except KalshiFastError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found[0]


def in_a_process(code: str, *, as_nobody: bool = False) -> list[str]:
    """What the code prints, run in an interpreter of its own; ``as_nobody``: without any right, once all is
    imported."""
    imports = (
        "import os, resource\nfrom kalshi_fast.errors import TuningError\n"
        "from kalshi_fast.tuning import capture, cpus, memory, priority\n"
    )
    if as_nobody:
        imports += "os.getuid() or os.setresuid(65534, 65534, 65534)\n"
    done = subprocess.run(
        [sys.executable, "-c", imports + code], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# --- cores ----------------------------------------------------------------------------------------------


@given(st.sets(st.integers(0, 4095), min_size=1, max_size=40))
def test_cores_are_read_as_they_are_shown(cpus: set[int]) -> None:
    assert parse_cpus(show_cpus(cpus)) == tuple(sorted(cpus))


@given(st.text(alphabet="0123456789,- x", max_size=12))
def test_what_is_read_as_cores_is_some_and_within_bounds(text: str) -> None:
    cpus = parse_cpus(text)
    assert cpus is None or (cpus and 0 <= cpus[0] <= cpus[-1] <= 4095)


@pytest.mark.parametrize(
    "text", ["", "x", "1,", "3-1", "-1", "1-", "4096", "1.5", "0x1", "1 2", "99999999", "²"]
)
def test_what_names_no_cores(text: str) -> None:
    assert parse_cpus(text) is None


@linux
def test_only_the_calling_thread_is_pinned() -> None:
    mine = os.sched_getaffinity(0)
    cpu = min(mine)

    def pinned() -> set[int]:
        pin("CAPTURE_CPU", {cpu})
        return os.sched_getaffinity(0)

    assert on_a_thread(pinned) == {cpu}
    assert os.sched_getaffinity(0) == mine


@linux
@pytest.mark.parametrize("cpus", [{4000}, {0, 4000}])
def test_a_core_that_is_not_there_is_refused_and_nothing_changes(cpus: set[int]) -> None:
    def tried() -> tuple[str, set[int]]:
        with pytest.raises(TuningError) as caught:
            pin("WRITER_CPUS", cpus)
        return str(caught.value), os.sched_getaffinity(0)

    before = os.sched_getaffinity(0)
    found = on_a_thread(tried)
    assert isinstance(found, tuple)
    said, after = found
    assert said.startswith("WRITER_CPUS: expected cores of this machine")
    assert said.endswith("got 4000")
    assert after == before


@linux
def test_one_core_is_not_enough_for_two() -> None:
    cpu = min(os.sched_getaffinity(0))

    def alone() -> object:
        pin("CAPTURE_CPU", {cpu})
        return others(cpu)

    refused = on_a_thread(alone)
    assert isinstance(refused, TuningError)
    assert "a second core" in str(refused)


# --- priority -------------------------------------------------------------------------------------------


@linux
@root
def test_the_nice_value_is_the_thread_s_and_is_not_passed_on() -> None:
    def favoured() -> tuple[int, int]:
        set_nice(-5)
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"],
            capture_output=True,
            check=True,
        )
        return os.getpriority(os.PRIO_PROCESS, 0), int(child.stdout)

    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert on_a_thread(favoured) == (-5, max(before, 0))
    assert os.getpriority(os.PRIO_PROCESS, 0) == before


@linux
@root
def test_the_real_time_priority_is_the_thread_s_and_is_not_passed_on() -> None:
    def favoured() -> tuple[int, int, int]:
        set_fifo(7)
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getscheduler(0))"],
            capture_output=True,
            check=True,
        )
        policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
        return policy, os.sched_getparam(0).sched_priority, int(child.stdout)

    assert on_a_thread(favoured) == (os.SCHED_FIFO, 7, os.SCHED_OTHER)
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@linux
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("priority.set_nice(-5)", "CAPTURE_NICE: this system refuses -5: "),
        ("priority.set_fifo(5)", "CAPTURE_FIFO: this system refuses 5: "),
        (
            "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536)); memory.lock_memory()",
            "LOCK_MEMORY: expected no limit of locked memory, got 65536 bytes: ",
        ),
    ],
)
def test_without_the_right_it_is_one_sentence_that_says_which(call: str, said: str) -> None:
    code = "for limit in (resource.RLIMIT_NICE, resource.RLIMIT_RTPRIO): resource.setrlimit(limit, (0, 0))\n"
    code += f"try:\n    {call}\nexcept TuningError as error:\n    print(error.exit_code, error)"
    (line,) = in_a_process(code, as_nobody=True)
    assert line.startswith(f"2 {said}")
    assert "systemd: Limit" in line


# --- memory ---------------------------------------------------------------------------------------------

RING = """
import mmap, re, uuid
from kalshi_fast.ring import Ring

def kib(name):
    return int(re.search(rf"{name}:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill(ring):
    before = faults()
    for slot in range(ring.slots):
        memory = ring.event_memory(slot)
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
    return faults() - before
"""


@linux
def test_a_ring_made_ready_is_filled_without_a_fault() -> None:
    code = RING + (
        "cold, ready = (Ring.create(2000, 50, uuid.uuid4()) for _ in range(2))\n"
        "ready.populate(50)\n"
        "pages = 50 * (len(cold.event_memory(0)) // mmap.PAGESIZE)\n"
        "print(pages, fill(cold), fill(ready))"
    )
    pages, cold, ready = map(int, in_a_process(code)[0].split())
    assert cold >= pages / 16, "the kernel may bring some of its neighbours along with a page"
    assert ready < cold / 10


@linux
def test_the_limit_of_locked_memory_is_read() -> None:
    limited = "resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 131072)); print(memory.limit_bytes())"
    assert in_a_process(limited, as_nobody=True) == ["131072"]


@linux
@root
def test_locked_memory_is_locked_and_a_reserve_costs_nothing() -> None:
    code = RING + (
        "memory.lock_memory()\n"
        "print(kib('VmLck'))\n"
        "before = kib('VmRSS')\n"
        "ring = Ring.create(2000, 200, uuid.uuid4())\n"
        "print(ring.size_bytes // 1024, kib('VmRSS') - before)"
    )
    locked, sizes = in_a_process(code)
    assert int(locked) > 1000
    reserved, used = map(int, sizes.split())
    assert used < 10_000 < reserved


# --- the event loop that does not sleep -------------------------------------------------------------------


def test_a_spinning_loop_never_waits_and_still_hears_its_sockets() -> None:
    async def run() -> tuple[int, int, bytes]:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        spinner = Spinner(loop)
        spinner.start()
        await asyncio.sleep(0.05)
        turns = spinner.turns
        theirs.send(b"frame")
        heard = await asyncio.wait_for(loop.sock_recv(ours, 100), 5)
        spinner.stop()
        await asyncio.sleep(0.01)
        stopped = spinner.turns
        await asyncio.sleep(0.05)
        ours.close()
        theirs.close()
        assert spinner.turns == stopped
        return turns, stopped, heard

    turns, stopped, heard = uvloop.run(run())
    assert heard == b"frame"
    assert 100 < turns <= stopped


# --- the garbage collector --------------------------------------------------------------------------------


def litter(count: int) -> None:
    """Garbage that only the collector finds."""
    for _ in range(count):
        loop: list[object] = []
        loop.append(loop)


def test_garbage_waits_for_a_quiet_moment() -> None:
    frames = 0
    with collector.QuietCollector(lambda: frames) as quiet:
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 10_000, "what was there is not looked at any more"
        litter(2 * collector.WORTH_IT)
        for _ in range(3):
            frames += 1
            quiet.look()
        assert quiet.collections == 0
        quiet.look()
        assert quiet.collections == 1
        assert gc.get_count()[0] < collector.WORTH_IT
        quiet.look()
        assert quiet.collections == 1, "nothing to collect"
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_much_garbage_does_not_wait() -> None:
    frames = 0
    with collector.QuietCollector(lambda: frames) as quiet:
        litter(collector.TOO_MUCH + 1)
        frames += 1
        quiet.look()
        assert quiet.collections == 1


def test_the_collector_of_a_program_that_has_it_off_stays_off() -> None:
    gc.disable()
    try:
        with collector.QuietCollector(lambda: 0):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


# --- settings ---------------------------------------------------------------------------------------------


def settings(**told: str) -> Settings:
    return load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings


def test_settings_of_the_tuning() -> None:
    found = settings(
        CAPTURE_CPU="1", WRITER_CPUS="2-4,0", BUSY_POLL="on", CAPTURE_NICE="-5", LOCK_MEMORY="on"
    )
    assert found.capture_cpu == 1
    assert found.writer_cpus == (0, 2, 3, 4)
    assert found.busy_poll
    assert found.lock_memory
    assert (found.capture_nice, found.capture_fifo) == (-5, None)
    off = settings(CAPTURE_CPU="off", WRITER_CPUS="off", CAPTURE_FIFO="off")
    assert (off.capture_cpu, off.writer_cpus, off.capture_fifo) == (None, (), None)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"CAPTURE_CPU": "one"}, "CAPTURE_CPU: expected an integer from 0 to 4095, or off"),
        ({"CAPTURE_CPU": "-1"}, "CAPTURE_CPU: expected"),
        ({"WRITER_CPUS": "1-"}, "WRITER_CPUS: expected cores such as 1-3,6"),
        ({"CAPTURE_NICE": "20"}, "CAPTURE_NICE: expected an integer from -20 to 19, or off"),
        ({"CAPTURE_FIFO": "0"}, "CAPTURE_FIFO: expected an integer from 1 to 99, or off"),
        ({"BUSY_POLL": "on"}, "BUSY_POLL: expected a CAPTURE_CPU"),
        (
            {"BUSY_POLL": "on", "CAPTURE_CPU": "1", "CAPTURE_FIFO": "1"},
            "CAPTURE_FIFO: expected off beside BUSY_POLL",
        ),
        ({"CAPTURE_NICE": "1", "CAPTURE_FIFO": "1"}, "CAPTURE_NICE: expected off beside CAPTURE_FIFO 1"),
        ({"CAPTURE_CPU": "1", "WRITER_CPUS": "0-2"}, "WRITER_CPUS: expected other cores than CAPTURE_CPU 1"),
    ],
)
def test_settings_that_cannot_be(told: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        settings(**told)


def test_every_setting_of_the_tuning_is_in_its_document() -> None:
    text = (Path(__file__).parents[1] / "docs" / "tuning.md").read_text("utf-8")
    names = [setting.name for setting in SETTINGS]
    tuning = names[names.index("CAPTURE_CPU") : names.index("LOCK_MEMORY") + 1]
    assert len(tuning) == 6
    for name in tuning:
        assert f"`{name}`" in text


@linux
def test_what_the_host_refuses_is_said_before_anything_is_opened(tmp_path: Path, key_file: Path) -> None:
    told = {"PROD_KEYID": "id", "PROD_KEYFILE": str(key_file), "MARKET_TICKERS": "FED-26"}
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_fast", "run", "--cpu", "4000"],
        cwd=tmp_path,
        env=os.environ | told,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "kalshi-fast: CAPTURE_CPU: expected cores of this machine" in done.stderr
    assert "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [key_file.name]


@linux
def test_a_trial_leaves_nothing_behind() -> None:
    before = os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    cpu = max(before[0])
    tried = settings(CAPTURE_CPU=str(cpu), CAPTURE_NICE="1")
    if len(before[0]) > 1:
        assert set(capture.try_out(tried).writer_cpus) == before[0] - {cpu}
    else:
        with pytest.raises(TuningError):
            capture.try_out(tried)
    assert before == (os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))


# --- the command, with all of it --------------------------------------------------------------------------


def of_threads(pid: int, name: str) -> dict[int, str]:
    """A line of every thread's status, by thread."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError, StopIteration):
            lines = (task / "status").read_text().splitlines()
            found[int(task.name)] = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return found


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def minds_sigterm(pid: int) -> bool:
    caught = of_threads(pid, "SigCgt").get(pid, "0")
    return bool(int(caught, 16) >> (signal.SIGTERM - 1) & 1)


async def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@linux
@root
@pytest.mark.skipif(len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="takes two cores")
def test_a_tuned_recording_keeps_to_its_cores_and_misses_nothing(tmp_path: Path) -> None:
    capture_cpu, *rest = sorted(os.sched_getaffinity(0))

    async def run() -> None:
        play = ("--markets", "5", "--rate", "2000", "--seconds", "3")
        simulator = await Simulator.start(["--dir", str(tmp_path), *play])
        recorder = record(
            tmp_path,
            simulator,
            CLICKHOUSE_URL="off",
            CAPTURE_CPU=str(capture_cpu),
            BUSY_POLL="on",
            CAPTURE_NICE="-3",
            LOCK_MEMORY="on",
            BUFFER_MAX_ROWS="100000",
        )
        pid = recorder.pid
        try:
            await until(lambda: os.getpriority(os.PRIO_PROCESS, pid) == -3)  # the last of it
            assert of_threads(pid, "Cpus_allowed_list").pop(pid) == str(capture_cpu)
            assert show_cpus(rest) in of_threads(pid, "Cpus_allowed_list").values(), "who hears the writer"
            (writer,) = children(pid)
            assert set(of_threads(writer, "Cpus_allowed_list").values()) == {show_cpus(rest)}
            assert os.getpriority(os.PRIO_PROCESS, writer) == 0
            assert int(of_threads(pid, "VmLck")[pid]) > 1000
            os.kill(writer, signal.SIGKILL)
            await until(lambda: children(pid) not in ([], [writer]))
            (again,) = children(pid)
            assert set(of_threads(again, "Cpus_allowed_list").values()) == {show_cpus(rest)}
            assert os.getpriority(os.PRIO_PROCESS, again) == 0
            sent = await asyncio.wait_for(simulator.finished(), 30)
        finally:
            await asyncio.sleep(0.3)
            recorder.send_signal(signal.SIGTERM)
            said, _ = await asyncio.to_thread(recorder.communicate)
            await simulator.stop()
        assert recorder.returncode == 0, (tmp_path / "stderr").read_text()
        figures = json.loads(said.splitlines()[-1])
        assert 0 < figures["frames_received"] <= sent
        assert figures["events"] == figures["parquet_rows"] > 0
        assert figures["gaps"] == 0
        assert figures["writer_restarts"] == 1

    asyncio.run(run())


@linux
@root
def test_a_real_time_recording_has_a_writer_like_any_other(tmp_path: Path) -> None:
    async def run() -> None:
        simulator = await Simulator.start(["--dir", str(tmp_path), "--markets", "2", "--rate", "100"])
        recorder = record(tmp_path, simulator, CLICKHOUSE_URL="off", CAPTURE_FIFO="5")
        try:
            await until(lambda: os.sched_getscheduler(recorder.pid) & 0xFF == os.SCHED_FIFO)
            (writer,) = children(recorder.pid)
            assert os.sched_getscheduler(writer) == os.SCHED_OTHER
            await until(lambda: minds_sigterm(recorder.pid))
        finally:
            recorder.send_signal(signal.SIGTERM)
            await asyncio.to_thread(recorder.communicate)
            await simulator.stop()
        assert recorder.returncode == 0, (tmp_path / "stderr").read_text()

    asyncio.run(run())
