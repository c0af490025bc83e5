"""What the two processes say to each other: the settings, one way, and reports, the other. Lines of JSON.

Not here: rows, which go through shared memory (``ring``).
"""

from __future__ import annotations

import msgspec

from kalshi_fast.config import Settings


class Report(msgspec.Struct):
    """One line of the writer's. ``failed``: it ends, and why; ``exit_code`` as of that error."""

    failed: str = ""
    exit_code: int = 1
    ready: bool = False
    warning: str = ""
    floor_ns: int = 0
    query_url: str = ""
    late_trades: list[tuple[int, str]] = []  # of recorders before: time in us, and id
    trades_forgotten_us: int = 0
    journal_bytes: int = 0
    journal_batches: int = 0
    rows: dict[str, int] = {}
    errors: dict[str, str] = {}
    queryable_us: dict[str, int] = {}  # percentiles of the time from the socket into ClickHouse, by row
    undelivered: int = 0  # batches that are in the journal when it ends
    journal_error: str = ""


def encode_settings(settings: Settings) -> bytes:
    """One line for the writer process."""
    return msgspec.json.encode(settings, enc_hook=str) + b"\n"


def decode_settings(line: bytes) -> Settings:
    return msgspec.json.decode(line, type=Settings, dec_hook=lambda kind, value: kind(value))
