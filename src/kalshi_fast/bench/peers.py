"""The libraries that we are compared with: each may be missing, and then there is a line that says how to get
it.

Not here: what is done with them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any, Final

INSTALL: Final = "pip install 'kalshi-fast[bench]'"
_DISTRIBUTIONS: Final = {
    "orjson": "orjson",
    "simdjson": "pysimdjson",
    "pykalshi": "pykalshi",
    "websockets": "websockets",
    "aiohttp": "aiohttp",
}
_OURS: Final = ("kalshi-fast", "picows", "aiofastnet", "uvloop", "msgspec", "numpy", "pyarrow", "chdb")


def peer(module: str) -> Any:  # noqa: ANN401
    """The module, None when it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError:
        return None


def why_not(module: str) -> str:
    """The line for a peer that is missing."""
    return f"{_DISTRIBUTIONS.get(module, module)} is not installed: {INSTALL}"


def versions() -> dict[str, str | None]:
    """Of all that is measured, None for what is missing."""
    found: dict[str, str | None] = {}
    for name in (*_OURS, *_DISTRIBUTIONS.values()):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found
