"""Recorded trades and announcements through the recorder's own path: each row against an independent
reading of the file. What is of another product, made up or of no channel of ours costs nothing else."""

from __future__ import annotations

import json

import msgspec
import pytest

import oracle
from conformance import BesideRig, besides, named
from recordings import Capture, Kind, capture


@pytest.mark.parametrize("found", besides("trade"), ids=named)
def test_trades(found: Capture) -> None:
    rig = BesideRig()
    fed = [message for message in rig.feed(found) if message["type"] == "trade"]
    expected = [oracle.trade(message) for message in fed]
    rows = [msgspec.structs.asdict(row) for row in rig.rows.trades]
    assert [{name: row[name] for name in expected[0]} for row in rows] == expected
    assert {row["conn_id"] for row in rows} == {7}


@pytest.mark.parametrize("found", besides(*oracle.LIFECYCLE_TYPES), ids=named)
def test_announcements_are_kept_as_they_came(found: Capture) -> None:
    rig = BesideRig()
    fed = [message for message in rig.feed(found) if message["type"] in oracle.LIFECYCLE_TYPES]
    rows = rig.rows.market_lifecycle
    assert [oracle.load(row.body.encode()) for row in rows] == [message["msg"] for message in fed]
    assert [(row.market_ticker, row.event_type, row.sid, row.seq) for row in rows] == [
        (
            message["msg"].get("market_ticker", ""),
            message["msg"].get("event_type", message["type"]),
            message["sid"],
            message.get("seq", 0),
        )
        for message in fed
    ]
    assert [frame for frame in rig.rejected if b'"type":"ticker"' not in frame.payload] == []


def test_the_exchanges_own_examples_are_kept_and_what_has_no_table_raw() -> None:
    found = capture("asyncapi_examples")
    assert found.kind is Kind.EXAMPLE
    rig = BesideRig(raw=("market_positions", "communications"))
    fed = rig.feed(found)
    announced = [message for message in fed if message["type"] in oracle.LIFECYCLE_TYPES]
    assert [json.loads(row.body) for row in rig.rows.market_lifecycle] == [m["msg"] for m in announced]
    assert len(announced) == 7
    assert rig.rejected == []
    assert [frame.channel for frame in rig.raw] == ["market_positions", "communications"]
    assert [frame.payload for frame in rig.raw] == found.frames()[-2:]


def test_frames_of_no_channel_of_ours_are_counted() -> None:
    rig = BesideRig()
    rig.feed(capture("asyncapi_examples"))
    assert dict(rig.recorder.counts.unknown_types) == {"market_position": 1, "rfq_created": 1}


@pytest.mark.parametrize(
    ("beginning", "kind", "frames"), [("perps_margin", Kind.OTHER, 4), ("hypnogaba_made_up", Kind.MADE_UP, 1)]
)
def test_trades_of_another_product_and_made_up_ones_are_said_and_cost_nothing_else(
    beginning: str, kind: Kind, frames: int
) -> None:
    """They have no price of yes or no, or no id and no number: there is no row to make of them."""
    found = capture(beginning)
    assert found.kind is kind
    rig = BesideRig()
    fed = rig.feed(found)
    assert len(fed) == frames
    assert rig.rows.trades == []
    assert [frame.payload for frame in rig.rejected] == [f for f in found.frames() if b'"type":"trade"' in f]
    assert rig.recorder.counts.rejected == frames
    assert all("trade" in frame.reason for frame in rig.rejected)
    good = capture("johnivanov04_prod_b")
    rig.feed(good)
    assert len(rig.rows.trades) == 4


def test_the_title_strike_and_grid_of_a_recorded_market_are_known() -> None:
    """``created`` of September 2026, with its grid behind the ``event_type``."""
    rig = BesideRig()
    rig.feed(capture("delta_hedged"))
    row = next(row for row in rig.rows.markets if row.market_ticker == "KXAFCONTOTAL-26SEP25MLICPV-7")
    assert row.event_ticker == "KXAFCONTOTAL-26SEP25MLICPV"
    assert row.title == "Will over 6.5 goals be scored?"
    assert (row.strike_type, str(row.floor_strike)) == ("greater", "6.5")
    assert (row.open_ts_ms, row.close_ts_ms) == (1_790_363_733_000, 1_790_535_600_000)
    assert row.price_level_structure == "linear_cent"
    assert json.loads(row.price_ranges) == [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]
