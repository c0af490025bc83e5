"""docs/quickstart.md as a new user would follow it: its commands, in an empty directory, print what it shows.

Two things differ from the page. The install command is left out: the environment that the tests run in takes
its place. And demo and recording are shorter. What comes must be what the page shows, line by line, but
for numbers and for lines of progress.
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
INSTALL = "make install && . .venv/bin/activate"
SIMULATE = "kalshi-fast simulate"
SHORTER = {
    "kalshi-fast demo": "kalshi-fast demo --seconds 2 --rate 2000 --markets 20",
    "--seconds 10": "--seconds 2",
}
PROGRESS = ("starting ", "opening ", "reading ", "books ", "drawing ", "delivering ", "[", "# frames")

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


def forms(lines: list[str]) -> set[str]:
    told = {form(line) for line in lines}
    return {line for line in told if line and not line.startswith(PROGRESS)}


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


def test_five_commands_and_no_surprise(tmp_path: Path) -> None:
    page = dict(sessions(PAGE))
    commands = [command for command in page if command not in (INSTALL, SIMULATE)]
    assert len(commands) == 4, "with the installation: five"
    assert next(iter(page)) == INSTALL
    for command in commands:
        assert forms(run(shorter(command), tmp_path)) == forms(page[command]), command
    assert (tmp_path / "market.png").read_bytes().startswith(b"\x89PNG")
    key = tmp_path / "simulated-data" / "simulator" / "client.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"demo-data", "simulated-data", "market.png"}


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
