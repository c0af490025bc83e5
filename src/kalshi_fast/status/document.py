"""docs/metrics.md, made from the table of metrics and the reasons of health.

``python -m kalshi_fast.status.document > docs/metrics.md``. Not here: the metrics themselves (``metrics``).
"""

from __future__ import annotations

import sys
from typing import Final

from kalshi_fast.lags import LE_NS
from kalshi_fast.status.health import REASONS
from kalshi_fast.status.metrics import METRICS, Metric


def _labels(metric: Metric) -> str:
    return ", ".join(f"`{label}`" for label in metric.labels)


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

[deploy/prometheus/kalshi-fast.rules.yml](../deploy/prometheus/kalshi-fast.rules.yml) has alerts,
[deploy/grafana/kalshi-fast.json](../deploy/grafana/kalshi-fast.json) a dashboard.

This file is made from the code: `python -m kalshi_fast.status.document`."""

_HEALTH: Final = """## /healthz

200 and `{"status": "ok", "reasons": []}`, or 503 and
`{"status": "failing", "reasons": [{"what": …, "detail": …}, …]}`: one sentence for each thing that is wrong.
`kalshi_fast_unhealthy{reason=…}` is the same as a metric."""


if __name__ == "__main__":
    sys.stdout.write(document())
