"""docs/metrics.md, made from the table of metrics, the reasons of health, and the rules of Prometheus in
deploy/.

Not here: the metrics themselves (``kalshi_fast.status.metrics``).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

import yaml

from kalshi_fast.lags import LE_NS
from kalshi_fast.status.health import REASONS
from kalshi_fast.status.metrics import METRICS, Metric
from tools.reference import markdown

RULES: Final = Path(__file__).resolve().parents[2] / "deploy" / "prometheus" / "kalshi-fast.rules.yml"
_FILLED_IN: Final = re.compile(r"\{\{.*?\}\}")


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


def alerts() -> list[dict[str, Any]]:
    """The rules, in their order."""
    groups = yaml.safe_load(RULES.read_text("utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def _alert(rule: dict[str, Any]) -> tuple[str, str, str, str]:
    said, when = rule["annotations"], markdown.code(rule["expr"])
    if "for" in rule:
        when += f" for {rule['for']}"
    summary = markdown.sentence(_FILLED_IN.sub("…", said["summary"]))
    return markdown.code(rule["alert"]), rule["labels"]["severity"], when, f"{summary} {said['description']}"


def document() -> str:
    """docs/metrics.md."""
    rows = [f"| `{metric.name}` | {metric.kind} | {_labels(metric)} | {metric.text} |" for metric in METRICS]
    bounds = f"{LE_NS[0] // 1000} µs to {LE_NS[-1] // 10**9}"
    return "\n".join(
        [
            *_HEAD.format(bounds=bounds).splitlines(),
            "",
            "| name | kind | labels | meaning |",
            "|---|---|---|---|",
            *rows,
            "",
            *_HEALTH.splitlines(),
            "",
            "| reason | meaning |",
            "|---|---|",
            *(f"| `{what}` | {text} |" for what, text in REASONS.items()),
            "",
            *_ALERTS.splitlines(),
            "",
            markdown.table(_ALERT, map(_alert, alerts())),
            "",
        ]
    )


_HEAD: Final = """# Metrics

`kalshi-fast run --http 127.0.0.1:9187` (setting `HTTP_LISTEN`) serves `/metrics` in Prometheus' text
format, `/healthz`, a page that updates itself at `/`, and the same figures as JSON: `/api/status`,
`/api/markets` and `/api/ladder?market=TICKER`. It is off by default: it takes a process of its own and
opens a port. There is no password; everything is read-only, and none of it is secret but what you record
and how much.

It is served by a process of its own, to which the capture process and the writer process say twice a
second how far they are. So a scrape costs the recording nothing; saying so takes the capture process 6 µs,
and some 80 µs when others have had its core's caches meanwhile (`kalshi_fast_publish_seconds` has the last
one). Counters begin with the recorder, those of journal, stores and lags with the writer process (which is
started again when it dies). Durations are in seconds, in buckets of {bounds} s, one for each row, so that
the mean time from the journal to ClickHouse is the difference of the means of `wire_to_queryable` and
`wire_to_row`. Markets are no labels, for there are thousands: `kalshi-fast top` and the page have them.

[Alerts](#alerts) on them are in deploy/prometheus/kalshi-fast.rules.yml, a dashboard in
[deploy/grafana/kalshi-fast.json](../deploy/grafana/kalshi-fast.json).

This file is made from the code and the rules, by `make docs`."""

_HEALTH: Final = """## /healthz

200 and `{"status": "ok", "reasons": []}`, or 503 and
`{"status": "failing", "reasons": [{"what": …, "detail": …}, …]}`: one sentence for each thing that is wrong.
`kalshi_fast_unhealthy{reason=…}` is the same as a metric."""

_ALERT: Final = ("alert", "severity", "when", "what it says, and what to do")
_ALERTS: Final = """## Alerts

The rules of [deploy/prometheus/kalshi-fast.rules.yml](../deploy/prometheus/kalshi-fast.rules.yml). `page`:
data is being lost or soon will be. `ticket`: somebody should look when there is time. … is filled in
by Prometheus. What the recorder does by itself meanwhile:
[operations.md](operations.md#when-something-fails)."""
