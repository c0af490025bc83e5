"""A program that tests need and that is not here is never passed over in silence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from operators import TOOLS, tool

ROOT = Path(__file__).resolve().parents[1]
NEEDS_IT = """
from operators import tool

def test_one() -> None:
    tool("no-such-program")
"""


def test_a_program_is_found_by_any_of_its_names() -> None:
    assert tool("no-such-program", "sh").endswith("/sh")


@pytest.mark.parametrize(
    ("wanted", "code", "said"),
    [
        ("", 0, "SKIPPED [1] operators.py:"),
        ("required", 1, "there is no no-such-program here, and KALSHI_FAST_TOOLS=required"),
        ("maybe", 1, "KALSHI_FAST_TOOLS: expected required or nothing, got 'maybe'"),
    ],
)
def test_a_missing_one_is_told_or_is_a_failure(tmp_path: Path, wanted: str, code: int, said: str) -> None:
    """With `-ra`, as pyproject.toml has it for `make test`."""
    (tmp_path / "test_needs_it.py").write_text(NEEDS_IT)
    (tmp_path / "operators.py").symlink_to(ROOT / "tests" / "operators.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {TOOLS: wanted},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    assert said in done.stdout


def test_in_ci_they_are_required_and_what_was_skipped_is_told_at_the_end() -> None:
    workflow = ROOT / ".github" / "workflows" / "ci.yml"
    if not workflow.exists():
        pytest.skip("this is no repository")
    steps = yaml.safe_load(workflow.read_text())["jobs"]["run"]["steps"]
    (step,) = (step for step in steps if step.get("run") == ".ci/run")
    assert step["env"] == {TOOLS: "required"}
    (install,) = (step["run"] for step in steps if "apt-get install" in step.get("run", ""))
    assert {"chromium", "prometheus", "systemd", "tmux", "valgrind"} <= set(install.split())
    assert "grep '^SKIPPED'" in (ROOT / ".ci" / "run").read_text().splitlines()[-1]
