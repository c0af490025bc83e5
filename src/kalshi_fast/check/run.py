"""Asks all checks at once, each within a time limit, and gives what they found in their order."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from kalshi_fast.check import disk, exchange, host, key, markets, reference, stores, tuned
from kalshi_fast.check.finding import Check, Finding, Verdict, failure
from kalshi_fast.errors import KalshiFastError, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kalshi_fast.config import Settings

LIMIT_S: Final = 10
_POLL_S: Final = 0.1


def all_checks(settings: Settings) -> list[Check]:
    """Every check of a recording with these settings."""
    return [
        *(Check("key", lambda: key.look(settings)),),
        *exchange.checks(settings),
        *markets.checks(settings),
        *reference.checks(settings),
        *stores.checks(settings),
        *disk.checks(settings),
        *tuned.checks(settings),
        *host.checks(settings),
    ]


def run_checks(
    checks: Sequence[Check], limit_s: float = LIMIT_S, waiting: Callable[[list[str]], None] = lambda _: None
) -> list[Finding]:
    """``waiting`` is told now and then which have not answered yet. One that never does stays behind in a
    thread that the end of the process ends."""
    results: queue.SimpleQueue[tuple[int, list[Finding]]] = queue.SimpleQueue()
    for at, check in enumerate(checks):
        threading.Thread(
            target=lambda at=at, check=check: results.put((at, _look(check))), daemon=True
        ).start()
    found: dict[int, list[Finding]] = {}
    deadline = time.monotonic() + limit_s
    while len(found) < len(checks) and (left_s := deadline - time.monotonic()) > 0:
        try:
            at, findings = results.get(timeout=min(left_s, _POLL_S))
        except queue.Empty:
            waiting([check.name for at, check in enumerate(checks) if at not in found])
        else:
            found[at] = findings
    late = f"no answer within {limit_s:g} s"
    return [
        finding
        for at, check in enumerate(checks)
        for finding in found.get(
            at, [failure(check.name, late, "see whether it is reachable, or give --limit")]
        )
    ]


def _look(check: Check) -> list[Finding]:
    try:
        return list(check.look())
    except KalshiFastError as error:
        return [failure(check.name, str(error))]
    except Exception as error:  # one check that cannot look must not take the others with it
        return [failure(check.name, f"cannot be checked: {type(error).__name__}: {reason(error)}")]


def exit_code(findings: Sequence[Finding]) -> int:
    """0 unless something would fail."""
    return int(any(finding.verdict is Verdict.FAILURE for finding in findings))


def figures(findings: Sequence[Finding]) -> dict[str, object]:
    """Everything, for ``--json``."""
    counts = {
        f"{verdict}s": sum(finding.verdict is verdict for finding in findings)
        for verdict in (Verdict.WARNING, Verdict.FAILURE)
    }
    return {"checks": [finding.figures() for finding in findings], **counts}
