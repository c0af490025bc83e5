"""What is released: the sdist has what the repository has, the wheel only the package, and it is portable.

Not here: building the wheel and installing it, which `make dist` does (minutes).
"""

from __future__ import annotations

import ctypes
import email.parser
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators import tool

if TYPE_CHECKING:
    from email.message import Message

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
SQL = "src/kalshi_fast/sql"  # a link to sql/, which becomes a directory where there are no links
NOT_RELEASED = (".ci/", ".git", ".dockerignore")  # about the repository itself


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A copy of what git has, as it is now, and its files."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("this is no repository")
    names = [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    copy = tmp_path_factory.mktemp("clean") / "repository"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    return copy, names


@pytest.fixture(scope="module")
def sdist(tracked: tuple[Path, list[str]]) -> tuple[set[str], Message]:
    """The files of the sdist, and its metadata."""
    copy, _ = tracked
    code = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    subprocess.run([sys.executable, "-c", code], cwd=copy, check=True, capture_output=True)
    (path,) = (copy / "dist").iterdir()
    assert path.name == f"kalshi_fast-{VERSION}.tar.gz"
    with tarfile.open(path) as archive:
        names = {member.name.partition("/")[2] for member in archive.getmembers() if not member.isdir()}
        file = archive.extractfile(f"kalshi_fast-{VERSION}/PKG-INFO")
        assert file is not None
        return names, email.parser.BytesParser().parse(file)


def test_the_sdist_is_the_repository(
    tracked: tuple[Path, list[str]], sdist: tuple[set[str], Message]
) -> None:
    names = {name for name in sdist[0] if ".egg-info/" not in name} - {"PKG-INFO", "setup.cfg"}
    wanted = {name for name in tracked[1] if not name.startswith(NOT_RELEASED)} - {SQL}
    wanted |= {f"src/kalshi_fast/{name}" for name in wanted if name.startswith("sql/")}
    assert names == wanted


def test_its_metadata_say_what_the_project_says(sdist: tuple[set[str], Message]) -> None:
    _, metadata = sdist
    assert metadata["Name"] == "kalshi-fast"
    assert metadata["Version"] == VERSION
    assert metadata["Requires-Python"] == "<3.14,>=3.11"
    assert metadata["License-Expression"] == "MIT"
    assert "# kalshi-fast" in str(metadata.get_payload())


def test_the_version_is_the_release_that_the_changelog_begins_with() -> None:
    form = r"^## (\S+)(?: \((unreleased)\)| — \d{4}-\d\d-\d\d)$"
    heading = re.search(form, (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading is not None
    release, _, development = VERSION.partition(".dev")
    assert release == heading[1]
    assert bool(development) == (heading[2] is not None)


def test_the_wheel_has_the_package_and_nothing_else(tracked: tuple[Path, list[str]], tmp_path: Path) -> None:
    """All of it but the compiled modules: with each comes its stub, and no source."""
    copy, names = tracked
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(tmp_path)]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    built = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    package = {name.removeprefix("src/") for name in names if name.startswith("src/")} - {"kalshi_fast/sql"}
    package |= {f"kalshi_fast/{name}" for name in names if name.startswith("sql/")}
    assert built == {name for name in package if not name.endswith(".pyx")}
    compiled = {name.removesuffix(".pyx") for name in package if name.endswith(".pyx")}
    assert {name.removesuffix(".pyi") for name in built if name.endswith(".pyi")} >= compiled
    assert {name.partition("/")[0] for name in built} == {"kalshi_fast"}


def test_the_supported_versions_are_the_same_everywhere() -> None:
    supported = {"3.11", "3.12", "3.13"}
    classifiers = PROJECT["project"]["classifiers"]
    assert {one.split()[-1] for one in classifiers if re.search(r":: 3\.\d+$", one)} == supported
    wheels = PROJECT["tool"]["cibuildwheel"]["build"]
    assert {f"{one[2]}.{one[3:5]}" for one in wheels} == supported
    assert (ROOT / PROJECT["tool"]["cibuildwheel"]["test-command"].split("{project}/")[1]).is_file()
    python = re.search(r"^ARG PYTHON=(\S+)$", (ROOT / "deploy" / "Dockerfile").read_text(), re.MULTILINE)
    assert python is not None
    assert python[1] in supported


def test_a_wheel_runs_on_any_machine_of_its_platform() -> None:
    """No instructions of this machine's processor only are asked for, and x86's stand behind a question."""
    assert not re.search(r"-m(arch|tune|cpu|avx|sse)", (ROOT / "setup.py").read_text())
    within: list[bool] = []
    for line in (ROOT / "src" / "kalshi_fast" / "_scan.h").read_text().splitlines():
        if line.startswith("#if"):
            within.append("__SSE2__" in line)
        elif line.startswith("#else"):
            within[-1] = False
        elif line.startswith("#endif"):
            within.pop()
        elif re.search(r"_mm_|__m128|emmintrin", line):
            assert any(within), line


SCANS = """
#include "_scan.h"
static long where(const char *from, const char *found) { return found == NULL ? -1 : found - from; }
long plain_text(const char *at, long n) { return where(at, scan_plain_text(at, at + n)); }
long quote(const char *at, long n) { return where(at, scan_quote(at, at + n)); }
long same(const char *one, const char *other, long n) { return scan_same(one, other, n); }
"""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[ctypes.CDLL]:
    """The scanner as an x86 has it, and as every other processor has."""
    compiler = tool("gcc")
    directory = tmp_path_factory.mktemp("scan")
    source = directory / "scan.c"
    source.write_text(SCANS)
    found = []
    for name, flags in (("usual", ()), ("elsewhere", ("-U__SSE2__",))):
        library = directory / f"{name}.so"
        command = [compiler, "-O2", "-shared", "-fPIC", *flags, f"-I{ROOT}/src/kalshi_fast"]
        command += [f"-I{sysconfig.get_path('include')}", str(source), "-o", str(library)]
        subprocess.run(command, check=True, capture_output=True)
        found.append(ctypes.CDLL(str(library)))
    return found


texts = st.lists(
    st.sampled_from([b"a", b"KXBTC-26DEC31", b'"', b"\\", b"\x7f", b"\x1f", b"\xff", b" "]), max_size=30
)


@settings(max_examples=300)
@given(texts.map(b"".join), st.integers(0, 400), st.integers(0, 255))
def test_other_processors_scan_alike(scans: list[ctypes.CDLL], text: bytes, at: int, byte: int) -> None:
    usual, elsewhere = scans
    for function in ("plain_text", "quote"):
        one, other = (int(getattr(library, function)(text, ctypes.c_long(len(text)))) for library in scans)
        assert one == other, (function, text)
    if len(text) >= 16:
        other_text = bytearray(text)
        other_text[at % len(text)] = byte
        arguments = (text, bytes(other_text), ctypes.c_long(len(text)))
        assert bool(usual.same(*arguments)) == bool(elsewhere.same(*arguments)) == (text == other_text)
