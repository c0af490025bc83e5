"""Fault scripts: what goes wrong at the exchange, and when. Written by hand as JSON, or drawn from a seed.

A script is a list of :class:`Fault`. In a file it is a JSON list of objects, for example
``[{"at_s": 1.5, "kind": "drop", "n": 3}, {"at_s": 4, "kind": "stall", "s": 0.5}]``; what is left out has
its default. Not here: what a fault does (``inject``, ``link``, ``dialect``).
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from kalshi_fast.errors import SimulatorError, excerpt

if TYPE_CHECKING:
    from pathlib import Path

CLEAN_S: Final = 3.0  # chaos leaves the end of a play alone, so that a client can recover
# Only silence tells a client of a hung link, and on some event loops of a reset that came together with data:
# it needs time before the clean end.
SILENT_KINDS: Final = ("hang", "reset", "refuse", "cut_merge", "refuse_subscribe")
SILENCE_NEEDS_S: Final = 6.0
_GAPS_S: Final = (0.25, 0.75)  # between two faults of chaos
_MAX_S: Final = 3600.0

Number: TypeAlias = int | float


@dataclass(frozen=True, slots=True)
class Fault:
    """``at_s`` counts from the first subscription; ``args`` are complete and valid for the kind."""

    at_s: float
    kind: str
    args: dict[str, Number] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Whole:
    """A whole number: the limits, the default, and the highest that chaos draws."""

    low: int
    high: int
    default: int
    wild: int

    expected: str = field(init=False, default="")

    def __post_init__(self) -> None:
        object.__setattr__(self, "expected", f"a whole number from {self.low} to {self.high}")

    def accepts(self, value: object) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def draw(self, rng: random.Random, left_s: float) -> Number:
        return rng.randint(self.low, self.wild)


@dataclass(frozen=True, slots=True)
class _Seconds:
    """A length of time: the default, and the longest that chaos draws."""

    default: float
    wild: float
    expected: str = f"seconds above 0 and up to {_MAX_S:.0f}"

    def accepts(self, value: object) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= _MAX_S

    def draw(self, rng: random.Random, left_s: float) -> Number:
        return round(min(rng.uniform(0.1, self.wild), left_s), 3)


@dataclass(frozen=True, slots=True)
class _OneOf:
    values: tuple[int, ...]
    default: int

    @property
    def expected(self) -> str:
        return f"one of {', '.join(map(str, self.values))}"

    def accepts(self, value: object) -> bool:
        return not isinstance(value, bool) and value in self.values

    def draw(self, rng: random.Random, left_s: float) -> Number:
        return rng.choice(self.values)


_Argument: TypeAlias = _Whole | _Seconds | _OneOf
_FRAMES = {"n": _Whole(1, 100_000, 1, 4)}

# Faults of frames, on one connection, after numbering.
FRAME_KINDS: Final[dict[str, dict[str, _Argument]]] = {
    "drop": {**_FRAMES},
    "duplicate": {**_FRAMES},
    "reorder": {"k": _Whole(1, 10_000, 1, 6)},  # the next frame goes out behind the k that follow it
    "corrupt": {**_FRAMES},
    "truncate": {**_FRAMES},
}
CONNECTION_KINDS: Final[dict[str, dict[str, _Argument]]] = {
    "stall": {"s": _Seconds(1.0, 0.8)},
    "hang": {},
    "reset": {},
    "close": {"code": _OneOf((1000, 1001, 1008, 1011, 1012, 1013), 1001)},
    "refuse": {"s": _Seconds(1.0, 0.8), "status": _OneOf((429, 500, 503), 503)},
    "expire": {"s": _Seconds(1.0, 0.8)},
    # All connections end, and the subscribes that follow are refused for the moment, the very first too.
    "refuse_subscribe": {"n": _Whole(1, 1000, 1, 3), "code": _OneOf((10, 25), 10)},
    "cut_merge": {"s": _Seconds(2.0, 2.0)},  # one connection ends, and the next merge goes half
}
PROTOCOL_KINDS: Final[dict[str, dict[str, _Argument]]] = {
    "terminal": {"code": _OneOf((10, 25), 25)},
    "limit_markets": {"n": _Whole(1, 100_000, 1, 20), "s": _Seconds(2.0, 2.0)},
    "limit_rate": {"s": _Seconds(1.0, 1.0)},
    "storm": {},
    "out_of_order": {"s": _Seconds(2.0, 2.0)},  # of the answers to commands
}
MARKET_KINDS: Final[dict[str, dict[str, _Argument]]] = {"grid": {}, "empty": {}, "huge": {}}
DIALECT_KINDS: Final[dict[str, dict[str, _Argument]]] = {
    "shuffle": {"s": _Seconds(1.0, 1.0)},
    "extra": {"s": _Seconds(1.0, 1.0)},
    "drift": {
        "s": _Seconds(1.0, 1.0)
    },  # of each frame one field that no row needs is gone, or of another kind
    "unknown": {"s": _Seconds(1.0, 1.0)},
}
# Of requests by REST. When they come is a client's affair, so chaos, the same for each seed, leaves them out.
REST_KINDS: Final[dict[str, dict[str, _Argument]]] = {
    "rest_busy": {**_FRAMES, "retry_after_s": _Whole(0, 3600, 1, 1)},  # 429 with Retry-After
    "rest_error": {**_FRAMES, "status": _OneOf((500, 502, 503, 504), 500)},
    "rest_cut": {**_FRAMES},  # the connection ends in the middle of the answer
}
KINDS: Final[dict[str, dict[str, _Argument]]] = {
    **FRAME_KINDS,
    **CONNECTION_KINDS,
    **PROTOCOL_KINDS,
    **MARKET_KINDS,
    **DIALECT_KINDS,
}
SCRIPT_KINDS: Final = {**KINDS, **REST_KINDS}


def fault(at_s: float, kind: str, **args: Number) -> Fault:
    """A checked fault, with defaults for what is not given. Raises SimulatorError."""
    return _entry({"at_s": at_s, "kind": kind, **args}, "fault")


def read_faults(file: Path) -> list[Fault]:
    """The script of a JSON file, in order of time. Raises SimulatorError that names the entry and the key."""
    try:
        content = json.loads(file.read_bytes())
    except OSError as error:
        raise SimulatorError(f"--faults: {file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SimulatorError(f"--faults: {file} is no JSON: {error}") from error
    if not isinstance(content, list):
        raise SimulatorError(f"--faults: {file}: expected a list of faults, got {excerpt(content)}")
    faults = [_entry(entry, f"--faults: {file}, entry {n}") for n, entry in enumerate(content, 1)]
    return sorted(faults, key=lambda found: found.at_s)


def _entry(entry: Any, where: str) -> Fault:  # noqa: ANN401
    if not isinstance(entry, dict):
        raise SimulatorError(f"{where}: expected an object with at_s and kind, got {excerpt(entry)}")
    for key in ("at_s", "kind"):
        if key not in entry:
            raise SimulatorError(f"{where}: {key} is missing")
    at_s, kind = entry["at_s"], entry["kind"]
    if not isinstance(at_s, int | float) or isinstance(at_s, bool) or not 0 <= at_s < 1e9:
        raise SimulatorError(f"{where}: at_s: expected seconds from 0, got {excerpt(at_s)}")
    if not isinstance(kind, str) or kind not in SCRIPT_KINDS:
        raise SimulatorError(f"{where}: kind: expected one of {', '.join(SCRIPT_KINDS)}, got {excerpt(kind)}")
    known = SCRIPT_KINDS[kind]
    args: dict[str, Number] = {name: argument.default for name, argument in known.items()}
    for key, value in entry.items():
        if key in ("at_s", "kind"):
            continue
        if key not in known:
            takes = ", ".join(known) or "nothing"
            raise SimulatorError(f"{where}: {excerpt(key)} is not known: {kind} takes {takes}")
        if not known[key].accepts(value):
            raise SimulatorError(f"{where}: {key}: expected {known[key].expected}, got {excerpt(value)}")
        args[key] = value
    return Fault(float(at_s), kind, args)


def chaos(seed: int, seconds: float) -> list[Fault]:
    """At least one fault in every second but the last three, every kind in turn; the same for the same seed.

    Kinds are drawn without putting them back, so a play of 20 seconds has them all. After the first round
    the kinds that do not break the connection come twice as often, or a client would mostly be away.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    calm = [kind for kind in KINDS if kind not in CONNECTION_KINDS or kind == "stall"]
    end_s = seconds - CLEAN_S
    faults: list[Fault] = []
    left: list[str] = []
    at_s = rng.uniform(*_GAPS_S)
    while at_s < end_s:
        if not left:
            left = [*KINDS, *(calm if faults else ())]
            rng.shuffle(left)
        at_s = round(at_s, 3)
        kind = _fitting(left, end_s - at_s)
        args = {name: argument.draw(rng, end_s - at_s) for name, argument in KINDS[kind].items()}
        faults.append(Fault(at_s, kind, args))
        at_s += rng.uniform(*_GAPS_S)
    return faults


def _fitting(left: list[str], left_s: float) -> str:
    """Takes the next kind that can be over in time; nothing with a length fits: a frame is dropped."""
    for at, kind in enumerate(left):
        needs_s = SILENCE_NEEDS_S if kind in SILENT_KINDS else 0.1 if "s" in KINDS[kind] else 0.0
        if needs_s <= left_s:
            return left.pop(at)
    return "drop"
