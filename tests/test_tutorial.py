"""docs/tutorial.md runs, block by block in order, in a directory with nothing but examples/ in it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import kalshi_fast

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
_FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)

for extra in ("hftbacktest", "matplotlib", "pandas", "chdb"):
    pytest.importorskip(extra, reason=f"the tutorial uses {extra}")


def blocks() -> Iterator[tuple[str, str]]:
    """Kind and text. A line of a console block that goes on is one command."""
    yield from _FENCED.findall(PAGE.read_text("utf-8"))


def run(command: str, directory: Path) -> str:
    """A command as a reader would type it, with this interpreter and this kalshi-fast."""
    python = shlex.quote(sys.executable)
    defined = f'kalshi-fast() {{ {python} -m kalshi_fast "$@"; }}; python() {{ {python} "$@"; }}; '
    done = subprocess.run(
        ["bash", "-euc", defined + command],
        cwd=directory,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(Path(kalshi_fast.__path__[0]).parent)},
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    said: str = done.stdout
    return said


# pandas, and what numba makes of hftbacktest, may warn of things to come.
@pytest.mark.filterwarnings("default")
def test_every_block_of_the_tutorial_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tutorial"}
    said: dict[str, str] = {}
    kinds = []
    for kind, text in blocks():
        kinds.append(kind)
        if kind == "console":
            for command in re.findall(r"^\$ (.*)$", text, re.MULTILINE):
                said[command.split(" --")[0]] = run(command, tmp_path)
        elif kind == "python":
            exec(compile(text, str(PAGE), "exec"), names)
    assert set(kinds) == {"console", "python", "sh"}, "another kind of block is not run by anybody"
    assert kinds.count("sh") == 1  # what it takes an account to do
    assert "KXSIM-26DEC31-T0000" in said["kalshi-fast query"]
    assert names["strategy"].right + names["strategy"].wrong > 10
    assert "towards the larger side" in capsys.readouterr().out
    assert len(names["best"]) > 100
    backtest = next(text for command, text in said.items() if command.startswith("python examples/"))
    assert '"trades": ' in backtest
    for name in ("market.png", "backtest.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert {path.suffix for path in (tmp_path / "nautilus").iterdir()} == {".parquet"}
    assert len(list((tmp_path / "csv").iterdir())) >= 2
