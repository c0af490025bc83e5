"""A sender process as its parent holds it: started, told what to play by the URL, asked how it went.

Not here: what it does (``sender``).
"""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalshi_fast.errors import KalshiFastError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.bench.sender import Play


class SenderError(KalshiFastError):
    """The process that sends the frames has ended or did not play them."""


@dataclass(frozen=True)
class Sending:
    """A sender that listens."""

    scheme: str
    port: int
    ca_file: Path | None
    context: ssl.SSLContext | None
    _process: subprocess.Popen[str]

    def url(self, play: Play) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{play.path}"

    def report(self) -> dict[str, Any]:
        """What it says of the play that has just ended. Raises SenderError when it ended badly."""
        found = _line(self._process)
        if not isinstance(found, dict) or "ended" in found:
            raise SenderError(f"the sender did not end its play: {found}")
        return found


@contextmanager
def sending(n_frames: int, *, tls: bool, core: int | None) -> Iterator[Sending]:
    """A sender process with so many frames, on this core."""
    with tempfile.TemporaryDirectory(prefix="kalshi-fast-bench-") as directory:
        command = [sys.executable, "-m", "kalshi_fast.bench.sender", directory, str(n_frames)]
        command += ["--tls"] * tls + (["--core", str(core)] if core is not None else [])
        process = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            port = _line(process)
            ca_file = Path(directory) / "ca.pem" if tls else None
            context = ssl.create_default_context(cafile=str(ca_file)) if tls else None
            yield Sending("wss" if tls else "ws", int(port), ca_file, context, process)
        finally:
            process.kill()
            process.communicate()


def _line(process: subprocess.Popen[str]) -> Any:  # noqa: ANN401
    assert process.stdout is not None  # noqa: S101 - a pipe
    line = process.stdout.readline()
    if not line:
        raise SenderError(f"the sender has ended with code {process.wait()}")
    return json.loads(line)
