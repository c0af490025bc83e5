"""The compiled modules under gcc's address and undefined-behaviour sanitizers, with bounds checks on.

A second build goes to a directory of its own; the tests of the compiled code then run in a process with the
sanitizers' runtime loaded. Any report ends that process, and this test shows what it said.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILED = (
    "test_book.py",
    "test_columns.py",
    "test_decode.py",
    "test_path.py",
    "test_recorder.py",
    "test_standby.py",
)


def runtime(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


def reports(directory: Path) -> str:
    """What the sanitizers have said."""
    return "".join(file.read_text(errors="replace") for file in sorted(directory.glob("report.*")))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_compiled_code_is_clean_under_sanitizers(tmp_path: Path) -> None:
    shutil.copytree(
        ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    )
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    built = subprocess.run(
        build,
        cwd=tmp_path,
        env=os.environ | {"KALSHI_FAST_DEBUG": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    libraries = [runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
    environment = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        # The interpreter itself leaks on purpose; its allocator would hide what is out of bounds.
        # A report goes to a file: pytest takes away what a test writes to its standard error.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={tmp_path}/report",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={tmp_path}/report",
        "PYTHONMALLOC": "malloc",
        "PYTHONPATH": str(tmp_path / "src"),
        "KALSHI_FAST_FEW": "1",
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    loaded = Path(run("-c", "import kalshi_fast._book as book; print(book.__file__)").stdout.strip())
    assert loaded.is_relative_to(tmp_path), "the second build is what runs"
    assert b"__asan_report" in loaded.read_bytes()
    tests = [str(ROOT / "tests" / name) for name in COMPILED]
    checked = run("-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:benchmark", *tests)
    output = checked.stdout + checked.stderr + reports(tmp_path)
    assert checked.returncode == 0, output[-6000:]
    assert "AddressSanitizer" not in output
    assert "runtime error" not in output
