"""The event loop of a command, imported when one is needed: a command without one begins sooner."""

from __future__ import annotations

from typing import Any


def on_uvloop(work: Any) -> Any:  # noqa: ANN401
    import uvloop

    return uvloop.run(work)
