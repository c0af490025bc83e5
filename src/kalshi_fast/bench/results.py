"""What came out, as one object for ``--json``: the figures that are promised, their spread, and all the rest.

A figure that could not be measured is null, and ``reasons`` says why. Not here: measuring, printing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.bench import inprocess, latency, sockets

if TYPE_CHECKING:
    from kalshi_fast.bench.rounds import Contender, Figure, Samples

NOT_ASKED: Final = "not asked for (--only)"
# Key → (slow, fast): how many times faster; of the floors the other way round: a fraction of its frames/s.
RATIOS: Final = {
    "ratio_seed_pipeline": (inprocess.SEED, inprocess.OURS),
    "ratio_msgspec_decode": (inprocess.MSGSPEC, inprocess.OURS),
    "ratio_pykalshi": (inprocess.PYKALSHI, inprocess.OURS),
    "ratio_ws_noop": (sockets.named("ws", sockets.FLOOR), sockets.named("ws", sockets.OURS)),
    "ratio_wss_noop": (sockets.named("wss", sockets.FLOOR), sockets.named("wss", sockets.OURS)),
    "ratio_websockets": (sockets.named("ws", sockets.WEBSOCKETS), sockets.named("ws", sockets.OURS)),
    "ratio_wss_websockets": (sockets.named("wss", sockets.WEBSOCKETS), sockets.named("wss", sockets.OURS)),
    "ratio_aiohttp": (sockets.named("ws", sockets.AIOHTTP), sockets.named("ws", sockets.OURS)),
    "ratio_ws_drain": (sockets.named("ws", sockets.DRAIN), sockets.named("ws", sockets.OURS)),
    "ratio_wss_drain": (sockets.named("wss", sockets.DRAIN), sockets.named("wss", sockets.OURS)),
}
# The same by the receiving thread's processor time: without what the machine did for others meanwhile.
CPU_RATIOS: Final = {
    key.replace("ratio_", "ratio_cpu_"): RATIOS[key]
    for key in (
        "ratio_seed_pipeline",
        "ratio_msgspec_decode",
        "ratio_ws_noop",
        "ratio_wss_noop",
        "ratio_websockets",
        "ratio_wss_websockets",
    )
}
FIGURES: Final = {
    "pipeline_ns_per_frame": inprocess.OURS,
    "ws_ns_per_frame": sockets.named("ws", sockets.OURS),
    "wss_ns_per_frame": sockets.named("wss", sockets.OURS),
}
LATENCIES: Final = {"latency_p50_us": "p50_us", "latency_p99_us": "p99_us", "latency_p999_us": "p999_us"}


@dataclass
class Results:
    """Filled in the course of a run."""

    contenders: list[Contender] = field(default_factory=list)
    samples: dict[str, Samples] = field(default_factory=dict)  # by contender
    latency: dict[str, dict[str, Any]] = field(default_factory=dict)
    burst: dict[str, Any] | None = None
    instructions: dict[str, Any] | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def add(self, contenders: list[Contender], samples: Samples) -> None:
        self.contenders += contenders
        for contender in contenders:
            self.samples[contender.name] = samples
            if contender.once is None:
                self.reasons[contender.name] = contender.why_not

    def figure(self, name: str) -> Figure | None:
        return self.samples[name].figure(name) if name in self.samples else None

    def cpu(self, name: str, field: str = "cpu_ns") -> Figure | None:
        return self.samples[name].figure(name, field) if name in self.samples else None

    def ratio(self, slow: str, fast: str, field: str = "ns") -> Figure | None:
        return self.samples[fast].ratio(slow, fast, field) if fast in self.samples else None

    def as_json(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        spreads: dict[str, list[float]] = {}
        reasons = dict(self.reasons)
        for key, name in FIGURES.items():
            _put(key, self.figure(name), made, spreads, reasons, reasons.get(name, NOT_ASKED))
        for key, (slow, fast) in RATIOS.items():
            _put(key, self.ratio(slow, fast), made, spreads, reasons, reasons.get(slow, NOT_ASKED))
        for key, (slow, fast) in CPU_RATIOS.items():
            ratio = self.ratio(slow, fast, "cpu_ns")
            _put(key, ratio, made, spreads, reasons, reasons.get(slow, NOT_ASKED))
        made["latency_of"] = self._latency_of()
        for key, percentile in LATENCIES.items():
            made[key] = None
            if made["latency_of"] is None:
                reasons.setdefault(key, NOT_ASKED)
            else:
                found = self.latency[made["latency_of"]]
                made[key], spreads[key] = found[percentile], found["spreads"][percentile]
        made["instructions_per_frame"] = None
        if self.instructions is not None:
            made["instructions_per_frame"] = self.instructions["instructions_per_frame"]
        else:
            reasons.setdefault("instructions_per_frame", NOT_ASKED)
        return {
            **made,
            "spreads": spreads,
            "ns_per_frame": [
                {
                    "group": contender.group,
                    "name": contender.name,
                    **self._figures(contender.name),
                    **({"why_not": contender.why_not} if contender.once is None else {}),
                }
                for contender in self.contenders
            ],
            "latency": self.latency,
            "burst": self.burst,
            "instructions": self.instructions,
            "reasons": reasons,
            **self.about,
        }

    def _latency_of(self) -> str | None:
        """Whose figures are promised: those with real-time priority, where that is allowed."""
        return next(
            (name for name in (latency.TUNED, latency.VARIANTS[0].name) if name in self.latency), None
        )

    def _figures(self, name: str) -> dict[str, float]:
        figure, cpu, sender = self.figure(name), self.cpu(name), self.cpu(name, "sender_cpu_ns")
        if figure is None or cpu is None or sender is None:
            return {}
        return {
            **_rounded(figure),
            "cpu": round(cpu.median, 2),
            **({"sender_cpu": round(sender.median, 2)} if sender.median else {}),
        }


def _put(
    key: str,
    figure: Figure | None,
    made: dict[str, Any],
    spreads: dict[str, list[float]],
    reasons: dict[str, str],
    reason: str,
) -> None:
    if figure is None:
        made[key] = None
        reasons.setdefault(key, reason)
        return
    made[key] = round(figure.median, 3)
    spreads[key] = [round(figure.low, 3), round(figure.high, 3)]


def _rounded(figure: Figure) -> dict[str, float]:
    return {
        "median": round(figure.median, 2),
        "low": round(figure.low, 2),
        "high": round(figure.high, 2),
        "rounds": figure.rounds,
    }
