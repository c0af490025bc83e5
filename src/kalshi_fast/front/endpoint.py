"""Where the front of an embedded directory listens: a small file in that directory.

It is written whole, for its owner only, and removed when the front ends; one whose process is gone does
not count. There is no secret in it. Not here: whether the directory is in use (``sinks.clickhouse``).
"""

from __future__ import annotations

import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

NAME: Final = "query-endpoint.json"
_MAX_BYTES: Final = 4096


def write_endpoint(directory: Path, url: str) -> Path:
    """Says that this process answers at ``url`` for the engine in ``directory``."""
    path = directory / NAME
    descriptor, name = tempfile.mkstemp(prefix=f"{NAME}.", dir=directory)  # mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"url": url, "pid": os.getpid()}, file)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return path


def read_endpoint(directory: Path) -> str | None:
    """The address of a front whose process is there. None: no file, a stale or an unreadable one."""
    try:
        with (directory / NAME).open("rb") as file:
            found = json.loads(file.read(_MAX_BYTES))
        url, pid = found["url"], found["pid"]
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname or not parts.port or type(pid) is not int or pid < 1:
            return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except (PermissionError, OverflowError):
        return url if Path(f"/proc/{pid}").exists() else None  # another user's
    return str(url)


def remove_endpoint(directory: Path, url: str) -> None:
    """Takes back what ``write_endpoint`` said, unless another front has taken the place."""
    with suppress(FileNotFoundError):
        if read_endpoint(directory) == url:
            (directory / NAME).unlink()
