"""Recorded tickers through the recorder's own path: each row against an independent reading of the file."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

import oracle
from conformance import BesideRig, besides, named

if TYPE_CHECKING:
    from recordings import Capture


@pytest.mark.parametrize("found", besides("ticker"), ids=named)
def test_tickers(found: Capture) -> None:
    rig = BesideRig()
    fed = [message for message in rig.feed(found) if message["type"] == "ticker"]
    expected = [oracle.ticker(message) for message in fed]
    rows = [msgspec.structs.asdict(row) for row in rig.rows.tickers]
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected
    for row, message in zip(rows, fed, strict=True):
        assert row["dollar_volume"] == message["msg"].get("dollar_volume")
        assert row["dollar_open_interest"] == message["msg"].get("dollar_open_interest")
