"""What a check says: one line with a verdict, and the remedy where there is something to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Verdict(StrEnum):
    """``warning``: a recording works, not as well as it could. ``failure``: it does not."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Finding:
    """``remedy``: what to do about it; of an ``ok`` what else could be done."""

    name: str
    verdict: Verdict
    said: str
    remedy: str = ""

    def line(self, name_width: int = 0) -> str:
        remedy = f" -> {self.remedy}" if self.remedy else ""
        return f"{self.verdict:<8} {self.name:<{name_width}} {self.said}{remedy}"

    def figures(self) -> dict[str, str]:
        return {key: str(value) for key, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Check:
    """``look`` gives what it found and raises nothing but KalshiFastError, which is a failure."""

    name: str
    look: Callable[[], Iterable[Finding]]


def ok(name: str, said: str, remedy: str = "") -> Finding:
    return Finding(name, Verdict.OK, said, remedy)


def warning(name: str, said: str, remedy: str) -> Finding:
    return Finding(name, Verdict.WARNING, said, remedy)


def failure(name: str, said: str, remedy: str = "") -> Finding:
    return Finding(name, Verdict.FAILURE, said, remedy)
