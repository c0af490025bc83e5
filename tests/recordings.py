"""Recorded messages of the exchange (``tests/exchange``): where they are, what each file is, its frames.

Sources and remarks are in ``tests/exchange/SOURCES.md``; here is what tests have to know. Not here: what the
frames mean (``oracle``).
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DIRECTORY: Final = Path(__file__).resolve().parent / "exchange"
NEWLINE: Final = b"\n"  # ends each text frame of production


class Kind(enum.Enum):
    """What a file of frames is."""

    REAL = "recorded from the exchange"
    OTHER = "recorded from another product of the exchange"
    EXAMPLE = "an example of the exchange's document"
    MADE_UP = "made up by others"


@dataclass(frozen=True, slots=True)
class Capture:
    """One file of WebSocket frames.

    ``yes_scale``: recorded with ``use_yes_price``. ``newest``: messages in the present form of the exchange
    (fixed point, with ``ts_ms`` where the type has it). ``whole``: from the start of a connection, without a
    hole in any sequence.
    """

    name: str
    kind: Kind = Kind.REAL
    yes_scale: bool = False
    newest: bool = True
    whole: bool = False

    @property
    def path(self) -> Path:
        return DIRECTORY / "ws" / self.name

    def frames(self) -> list[bytes]:
        """The frames as production sends them: with their newline."""
        return [line + NEWLINE for line in self.path.read_bytes().split(NEWLINE) if line]

    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(frame) for frame in self.frames()]


CAPTURES: Final = (
    Capture("cockpit_orderbook_prod_2026-08-07.jsonl", whole=True),
    Capture("johnivanov04_prod_a_2026-09-16.jsonl", whole=True),
    Capture("johnivanov04_prod_b_2026-09-16.jsonl", whole=True),
    Capture("openpx_btc15m_prod_2026-05-14.jsonl", whole=True),
    Capture("bot_btc_1hr_kalshi_2026-04-18.jsonl", newest=False, whole=True),
    Capture("delta_hedged_prod_2026-09-25.jsonl", yes_scale=True),
    Capture("delta_KXHIGHNY_2026-06-24.jsonl"),
    Capture("ssmd_ticker_trade_2026-03_2026-07.jsonl", newest=False),
    Capture("ssmd_lifecycle_2026-07-19.jsonl"),
    Capture("metadata_updated_2026-09-06.jsonl"),
    Capture("hypnogaba_demo_2026-08-20.jsonl", whole=True),
    Capture("ssmd_ticker_trade_2026-02-12.jsonl", newest=False),
    Capture("rust_client_prod_2025-10-02.jsonl", newest=False),
    Capture("legacy_delta_2025-08-12.jsonl", newest=False),
    Capture("perps_margin_2026-09-03.jsonl", Kind.OTHER),
    Capture("hypnogaba_made_up.jsonl", Kind.MADE_UP, newest=False),
    Capture("asyncapi_examples_2026-09.jsonl", Kind.EXAMPLE),
)
BY_NAME: Final = {capture.name: capture for capture in CAPTURES}
REAL: Final = tuple(capture for capture in CAPTURES if capture.kind is Kind.REAL)


def capture(beginning: str) -> Capture:
    """The file whose name begins so."""
    (found,) = (one for one in CAPTURES if one.name.startswith(beginning))
    return found


def rest(name: str) -> bytes:
    """A recorded REST body."""
    return (DIRECTORY / "rest" / name).read_bytes()
