"""docs/quickstart.md as a new user would follow it: its commands, from an empty directory, print what it
shows.

What differs from the page. The first command is run in an empty directory up to `make install`, with this
repository for ADDRESS; what make would do is read from it, not done: it takes minutes and the network. The
environment that the tests run in takes the place of the one that it makes. (`.ci/run` begins with the same
installation, for `make test` needs it, and in CI that is in a fresh clone.) Demo and recording are shorter.
What comes must be what the page shows, line by line and in order, but for numbers and lines of progress.
"""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "quickstart.md"
BIN = Path(sys.executable).parent
INSTALL = "git clone -q ADDRESS kalshi-fast && cd kalshi-fast && make install && . .venv/bin/activate"
SIMULATE = "kalshi-fast simulate"
SHORTER = {
    "kalshi-fast demo": "kalshi-fast demo --seconds 2 --rate 2000 --markets 20",
    "--seconds 10": "--seconds 2",
}
# Forms of lines that come and go with the time that things take.
PROGRESS = re.compile(r"(starting|opening|reading|drawing|delivering)\b.*…|\[.*|# frames # events .*")

for extra in ("chdb", "matplotlib"):
    pytest.importorskip(extra, reason=f"the quick start uses {extra}")


def sessions(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Every command of a page with the lines below it."""
    for block in re.findall(r"^```console\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        for session in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *lines = session.splitlines()
            yield command, lines


def form(line: str) -> str:
    """A line without what differs from run to run: numbers, the width of tables and bars, directories."""
    line = re.sub(r"(?<![\w.])/[^ )]*(?=/\.venv/|/bin/|/simulat)", "/HERE", line)
    line = line.replace("/HERE/.venv/bin/kalshi-fast", "kalshi-fast").replace(
        "/HERE/bin/kalshi-fast", "kalshi-fast"
    )
    line = re.sub(r"\d[\d,.:]*", "#", line)
    line = re.sub(r"\bKX[A-Z]+-#DEC#-[A-Z]#", "MARKET", line)
    return " ".join(re.sub(r"[─#]+", "#", line).split())


def forms(lines: list[str]) -> list[str]:
    told = [form(line) for line in lines]
    return [line for line in told if line and not PROGRESS.fullmatch(line)]


def run(command: str, directory: Path) -> list[str]:
    done = subprocess.run(
        ["bash", "-euc", command],
        cwd=directory,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout.splitlines()


def environment() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "PYTHONPATH", "TMPDIR") if name in os.environ}
    return kept | {"PATH": f"{BIN}:{os.environ['PATH']}"}


def shorter(command: str) -> str:
    for long, short in SHORTER.items():
        command = command.replace(long, short)
    return command


def planned(target: str, clone: Path) -> str:
    """What make would do there."""
    return "\n".join(run(f"make --dry-run {target} PYTHON={shlex.quote(sys.executable)}", clone))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What the first command makes of an empty directory, before `make install`."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no repository")
    get_it, enter, *_ = INSTALL.split(" && ")
    assert run(get_it.replace("ADDRESS", shlex.quote(str(ROOT))), tmp_path) == []
    return tmp_path / enter.removeprefix("cd ")


def test_the_first_command_gets_the_source_and_installs_it_as_ci_does(clone: Path) -> None:
    page = dict(sessions(PAGE))
    assert next(iter(page)) == INSTALL
    assert INSTALL.split(" && ")[2:] == ["make install", ". .venv/bin/activate"]
    plan = planned("install", clone)
    assert page[INSTALL][0] in plan
    assert "-m venv .venv" in plan
    assert "pip install" in plan
    assert "'.[embedded,backtest,plot,dev]'" in plan
    same = planned("test", clone).replace(' test"; exit 2', ' install"; exit 2')
    assert same.startswith(plan), "what CI begins with is the same installation"
    assert "\nlogged make test\n" in (clone / ".ci" / "run").read_text()


def test_five_commands_and_no_surprise(clone: Path) -> None:
    page = dict(sessions(PAGE))
    commands = [command for command in page if command not in (INSTALL, SIMULATE)]
    assert len(commands) == 4, "with the installation: five"
    for command in commands:
        assert forms(run(shorter(command), clone)) == forms(page[command]), command
    assert (clone / "market.png").read_bytes().startswith(b"\x89PNG")
    key = clone / "simulated-data" / "simulator" / "client.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    left = run("git status --porcelain --ignored", clone)
    assert sorted(left) == ["!! demo-data/", "!! market.png", "!! simulated-data/"], "git ignores all of it"


def test_the_comparison_sees_order_repetition_and_every_result() -> None:
    lines = [
        "books equal to the exchange's          105  of 105  ok",
        "reading …",
        "gaps        0",
        "10,077 frames  9,635 events  0 gaps  9,410 rows in ClickHouse",
        "frames received  1",
    ]
    assert forms(lines) == ["books equal to the exchange's # of # ok", "gaps #", "frames received #"]
    assert forms(lines) != forms(lines[::-1])
    assert forms(lines) != forms([*lines, lines[0]])


@contextmanager
def started(command: list[str], cwd: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with this, whatever happens; what it says on stderr is in ``cwd``/stderr."""
    cwd.mkdir()
    with (
        (cwd / "stderr").open("w") as stderr,
        subprocess.Popen(
            command, cwd=cwd, env=environment() | more, stdout=subprocess.PIPE, stderr=stderr, text=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()


def test_the_command_that_simulate_prints_works_as_printed_from_another_directory(tmp_path: Path) -> None:
    page = dict(sessions(PAGE))
    other = tmp_path / "other"
    simulate = [str(BIN / "kalshi-fast"), "simulate", "--port", "0", "--quiet"]
    with started(simulate, tmp_path / "one") as exchange:
        assert exchange.stdout is not None
        said = [exchange.stdout.readline().rstrip("\n") for _ in page[SIMULATE]]
        assert forms(said) == forms(page[SIMULATE])
        with started(shlex.split(said[-1]), other, PATH="/nowhere") as recording:
            while "queries are answered" not in (other / "stderr").read_text():
                assert recording.poll() is None, (other / "stderr").read_text()
                time.sleep(0.1)
            listed: list[str] = []
            while sum(line.startswith("KXSIM-") for line in listed) < 20:  # asked while it records
                assert recording.poll() is None, (other / "stderr").read_text()
                listed = run("kalshi-fast query --format TSV", other)
            run("kalshi-fast plot KXSIM-26DEC31-T0000 --out live.svg", other)
            recording.terminate()
            figures, _ = recording.communicate()
        exchange.terminate()
        assert "deltas" in exchange.communicate()[0]
    assert recording.returncode == exchange.returncode == 0
    assert re.search(r"^markets +100$", figures, re.MULTILINE)
    assert (other / "live.svg").stat().st_size > 1000


def test_the_readme_has_the_same_five_commands() -> None:
    in_readme = [command for command, _ in sessions(ROOT / "README.md")]
    five = [command for command, _ in sessions(PAGE) if command != SIMULATE]
    assert len(five) == 5
    assert [command for command in in_readme if command in five] == five
