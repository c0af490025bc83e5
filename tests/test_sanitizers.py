"""The compiled modules under gcc's address and undefined-behaviour sanitizers, with bounds checks on.

A second build goes to a directory of its own; the tests of the compiled code, fuzzing included, then run in
a process with the sanitizers' runtime loaded. Any report ends that process; this test shows what it said.
That a report would be seen is tried first, on code that is wrong on purpose. ``make sanitize`` runs it all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COMPILED = (
    "test_book.py",
    "test_columns.py",
    "test_decode.py",
    "test_exporting.py::test_the_book_of_the_export_is_ours_after_every_event",
    "test_exporting.py::test_the_compiled_part_refuses_what_it_cannot_use",
    "test_path.py",
    "test_path_times.py",
    "test_recorder.py",
    "test_standby.py",
    "test_replay.py::test_compiled_books_are_those_of_the_reference",
    "test_replay.py::test_columns_that_cannot_be_are_refused",
    "test_replay.py::test_features_are_what_the_book_says",
    "test_replay.py::test_moments_have_everything_received_until_then",
    "test_replay.py::test_best_prices_whenever_they_change",
    "test_replay.py::test_snapshots_split_between_chunks_are_one_event",
    "test_replay_sources.py::test_verify_finds_what_is_wrong",
    "test_fuzz.py::test_kept_inputs_of_compiled_code",
    "test_fuzz.py::test_spoilt_inputs_of_compiled_code",
)

# Wrong on purpose, each in its own way, when `argument` is 1: the compiler cannot see it.
FAULTY = """
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

def eight_bytes():
    return <size_t>malloc(8)

def beyond_the_end(int argument):
    cdef char* memory = <char*><size_t>eight_bytes()  # from Python: its size is not known
    memory[7 + argument] = 1
    free(memory)

def after_free(int argument):
    cdef char* memory = <char*>malloc(8)
    memory[0] = 1
    if argument:
        free(memory)
    memory[0] += 1
    if not argument:
        free(memory)

def overflow(int64_t argument):
    cdef int64_t largest = 0x7FFFFFFFFFFFFFFF
    return largest + argument

def index(int argument):
    cdef int64_t values[4]
    cdef int64_t[:] view = values
    view[0] = 1
    return view[3 + argument]
"""

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")


@dataclass(frozen=True)
class Build:
    """The second build: where it lies, and how something is run on it."""

    directory: Path

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        libraries = [runtime(name) for name in ("libasan.so", "libubsan.so", "libstdc++.so.6")]
        environment = os.environ | {
            "LD_PRELOAD": " ".join(libraries),
            # The interpreter itself leaks on purpose; its allocator would hide what is out of bounds.
            "ASAN_OPTIONS": "detect_leaks=0",
            "UBSAN_OPTIONS": "print_stacktrace=1",
            "PYTHONMALLOC": "malloc",
            "PYTHONPATH": str(self.directory / "src"),
            "KALSHI_FAST_FEW": "1",
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def test(self, *tests: Path | str) -> subprocess.CompletedProcess[str]:
        """Runs pytest. Reports come in ``stderr``: it must not keep for itself what a test writes there.

        (A ``log_path`` would do for the address sanitizer; beside it, the other one does not heed it.)
        """
        plain = (
            "-q",
            "-x",
            "--capture=sys",
            "-p",
            "no:cacheprovider",
            "-p",
            "no:benchmark",
            "-p",
            "no:faulthandler",
        )
        return self.run("-m", "pytest", *plain, *map(str, tests))


def runtime(name: str) -> str:
    found = subprocess.run(["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    return found.stdout.strip()


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    directory = tmp_path_factory.mktemp("sanitized")
    ignore = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    shutil.copytree(ROOT / "src", directory / "src", ignore=ignore)
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, directory)
    (directory / "src/kalshi_fast/_faulty.pyx").write_text(FAULTY)
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=directory,
        env=os.environ | {"KALSHI_FAST_DEBUG": "1", "KALSHI_FAST_MODULES": "_faulty"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr[-4000:]
    return Build(directory)


WRONG = {
    "beyond_the_end": "AddressSanitizer: heap-buffer-overflow",
    "after_free": "AddressSanitizer: heap-use-after-free",
    "overflow": "runtime error: signed integer overflow",
    "index": "IndexError: Out of bounds on buffer access",
}


def called(build: Build, argument: int, *names: str) -> subprocess.CompletedProcess[str]:
    """Calls of the faulty module, as a test like all others."""
    file = build.directory / f"test_{'_'.join(names)}_{argument}.py"
    calls = "".join(f"    _faulty.{name}({argument})\n" for name in names)
    file.write_text(f"from kalshi_fast import _faulty\ndef test_calls():\n{calls}")
    return build.test(file)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_reported(build: Build, name: str) -> None:
    """The same flags, the same runtime, the same way of the report."""
    faulty = called(build, 1, name)
    assert faulty.returncode != 0
    assert WRONG[name] in faulty.stdout + faulty.stderr


def test_what_is_not_wrong_is_not_reported(build: Build) -> None:
    harmless = called(build, 0, *WRONG)
    assert harmless.returncode == 0, harmless.stdout + harmless.stderr
    assert harmless.stderr == ""


def test_compiled_code_is_clean_under_sanitizers(build: Build) -> None:
    loaded = Path(build.run("-c", "import kalshi_fast._book as book; print(book.__file__)").stdout.strip())
    assert loaded.is_relative_to(build.directory), "the second build is what runs"
    assert b"__asan_report" in loaded.read_bytes()
    checked = build.test(*(ROOT / "tests" / name for name in COMPILED))
    output = checked.stdout + checked.stderr
    assert checked.returncode == 0, output[-6000:]
    assert "AddressSanitizer" not in output
    assert "runtime error" not in output
    print(checked.stdout[-2000:])  # noqa: T201 - what `make sanitize` shows
