"""The simulator as a process of its own, seen from the parent: one JSON line per message on stdin and stdout.

What the process itself does is in ``__main__``.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any, Final

from kalshi_fast.errors import ConfigError, SimulatorError

_READY_TIMEOUT_S: Final = 30.0


class Simulator:
    """The simulator process; one JSON line per message on its stdin and stdout."""

    def __init__(self, process: asyncio.subprocess.Process, ready: dict[str, Any]) -> None:
        self.url: str = ready["url"]
        self.rest_url: str = ready["rest_url"]
        self.key_id: str = ready["key_id"]
        self.key_file: str = ready["key_file"]
        self.ca_file: str | None = ready["ca_file"]
        self.tickers: list[str] = ready["tickers"]
        self.frames: int | None = ready["frames"]  # of a recording
        self._process = process

    @classmethod
    async def start(cls, arguments: list[str]) -> Simulator:
        """Raises ConfigError with the simulator's own sentence when it cannot start."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kalshi_fast.simulator", *arguments),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=256 * 1024 * 1024,
        )
        ready = await asyncio.wait_for(_message(process), _READY_TIMEOUT_S)
        if ready["event"] != "ready":
            await process.wait()
            raise ConfigError(str(ready.get("message", ready)))
        return cls(process, ready)

    @property
    def pid(self) -> int:
        return self._process.pid

    async def finished(self) -> int:
        """Waits for the end of the play; how many frames were sent until then."""
        message = await _message(self._process)
        return int(message["frames_sent"])

    async def report(self) -> dict[str, Any]:
        """Counts, the true books (ticker → side → [[price_e4, qty_e2], …]), and how often each was traded."""
        self._say(b"report\n")
        return await _message(self._process)

    async def stop(self) -> None:
        if self._process.returncode is None:
            self._say(b"stop\n")
        await self._process.wait()

    def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101 - asked for at the start
        self._process.stdin.write(line)


async def _message(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None  # noqa: S101 - asked for at the start
    line = await process.stdout.readline()
    if not line:
        raise SimulatorError(f"the simulator ended early (exit code {await process.wait()})")
    message: dict[str, Any] = json.loads(line)
    return message
