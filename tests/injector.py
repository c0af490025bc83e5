"""Real faults in real processes: the control side of tests/faults/inject.c, which has what a fault is.

``Faults.there`` compiles the library once a session. Not here: what has to hold after a fault (the tests).
"""

from __future__ import annotations

import mmap
import os
import shutil
import struct
import subprocess
from enum import IntEnum, IntFlag
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

SOURCE: Final = Path(__file__).parent / "faults" / "inject.c"
RULES: Final = 16
_RULE: Final = struct.Struct("<IIIIQQQQ232s232s")
_COUNT_AT: Final = 24
_FIRED_AT: Final = 32


class Call(IntFlag):
    """Groups of functions that mean the same."""

    RENAME = 1
    WRITE = 2
    FSYNC = 4
    UNLINK = 8
    MKDIR = 16
    READ = 64


class Action(IntEnum):
    """What happens at the n-th call; ``FAIL_AFTER``: the call is made, and reported as failed."""

    KILL_BEFORE = 1
    KILL_AFTER = 2
    FAIL_BEFORE = 3
    FAIL_AFTER = 4
    SHORT_WRITE = 5
    COUNT = 6


class Faults:
    """``Faults(library, control)``; processes with ``environment`` obey the rules that ``rule`` sets."""

    def __init__(self, library: Path, control: Path) -> None:
        self._library, self._control = library, control
        control.write_bytes(bytes(RULES * _RULE.size))
        with control.open("r+b") as file:
            self._rules = mmap.mmap(file.fileno(), 0)

    @property
    def environment(self) -> Mapping[str, str]:
        """To be added to a process's."""
        return {"LD_PRELOAD": str(self._library), "KALSHI_FAST_FAULTS": str(self._control)}

    def rule(
        self,
        call: Call,
        action: Action,
        path: str | Path = "",
        *,
        nth: int = 1,
        times: int = 1,
        error: int = 0,
        number: int = 0,
    ) -> None:
        """From now on, in running processes too. ``times`` 0: at the n-th call and at all behind it."""
        text = str(path).encode()
        if len(text) >= 232:
            raise ValueError(f"a path of {len(text)} bytes is too long for a rule")
        packed = _RULE.pack(0, call, error, times, nth, 0, 0, 0, text, b"")
        at = number * _RULE.size
        self._rules[at : at + _RULE.size] = packed
        self._rules[at : at + 4] = struct.pack("<I", action)

    def clear(self) -> None:
        """No rules; counts are forgotten."""
        self._rules[:] = bytes(RULES * _RULE.size)

    def count(self, number: int = 0) -> int:
        """How many calls a rule has met."""
        return self._number(number, _COUNT_AT)

    def fired(self, number: int = 0) -> int:
        """How often its fault has happened."""
        return self._number(number, _FIRED_AT)

    def where(self, number: int = 0) -> str:
        """The path of the call that it happened to first."""
        rule = _RULE.unpack_from(self._rules, number * _RULE.size)
        return bytes(rule[-1]).split(b"\0")[0].decode("utf-8", "replace")

    def _number(self, number: int, at: int) -> int:
        return int(struct.unpack_from("<Q", self._rules, number * _RULE.size + at)[0])

    def close(self) -> None:
        self._rules.close()


def compiled(directory: Path) -> Path:
    """The library; the test is skipped where there is no C compiler, or another machine than x86-64."""
    if os.uname().machine != "x86_64":
        pytest.skip(f"the fault injector knows the relocations of x86-64, not of {os.uname().machine}")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler for the fault injector")
    return build(directory)


def build(directory: Path) -> Path:
    """The library, compiled anew."""
    library = directory / "inject.so"
    options = ["-O2", "-Wall", "-Wextra", "-fPIC", "-shared", "-fno-builtin"]
    command = ["cc", *options, "-o", str(library), str(SOURCE), "-ldl"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return library
