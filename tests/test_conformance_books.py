"""Recorded order-book frames through the recorder's own path: each book against an independent reading of the
file, each row as it has to be, and nothing rejected."""

from __future__ import annotations

import pytest

import oracle
from conformance import BOOKS, WITH_BOOKS, WITH_DELTAS, Rig, named, of_books, played
from recordings import Capture, Kind, capture


def test_there_are_files_of_both_scales_and_all_generations() -> None:
    assert len(WITH_BOOKS) >= 9
    assert {found.yes_scale for found in WITH_BOOKS} == {True, False}
    deltas = [message for found in WITH_DELTAS for message in found.messages() if message["type"] == BOOKS]
    assert len(deltas) >= 330


@pytest.mark.parametrize("found", WITH_BOOKS, ids=named)
def test_the_books_are_those_of_an_independent_reading(found: Capture) -> None:
    rig, expected = played(found)
    assert rig.integers() == expected.integers()
    if found.whole:
        assert rig.integers()
        assert not rig.link.session.outbox, "nothing to ask for"
        assert rig.recorder.counts.gaps == 0


@pytest.mark.parametrize("found", WITH_BOOKS, ids=named)
def test_the_rows_are_those_of_an_independent_reading(found: Capture) -> None:
    """In the order of arrival; within a snapshot the order of levels is ours."""
    rig, expected = played(found)
    rows = [row for row in rig.rows if row["kind"] != "gap"]
    assert sorted(
        (row["ticker"], row["seq"], row["kind"], row["side"], row["price_e4"], row["qty_e2"]) for row in rows
    ) == sorted(row.key() for row in expected.rows)
    assert [row["seq"] for row in rows if row["kind"] != "snapshot"] == [
        row.seq for row in expected.rows if row.kind != "snapshot"
    ]
    assert {row["conn_id"] for row in rig.rows} == {7}


@pytest.mark.parametrize("found", WITH_BOOKS, ids=named)
def test_nothing_is_rejected(found: Capture) -> None:
    rig, _ = played(found)
    assert rig.rejected == []
    counts = rig.recorder.counts
    assert (counts.rejected, counts.foreign, counts.repeated) == (0, 0, 0)
    assert counts.frames == len(of_books(found))
    assert counts.deltas == sum(oracle.load(frame)["type"] == BOOKS for frame in of_books(found))


# --- what is no recording of this exchange ------------------------------------------------------------------


def test_made_up_cents_are_read_and_what_cannot_be_costs_its_own_book_only() -> None:
    """In old shapes: the snapshot can be read; the delta takes from a level that is not there."""
    found = capture("hypnogaba_made_up")
    assert found.kind is Kind.MADE_UP
    frames = of_books(found)
    rig = Rig(frames, yes_scale=False)
    rig.feed(frames[:1])
    assert rig.integers() == {"KXBTCD-X": ({1000: 10_000, 1100: 5000}, {2000: 3000})}
    rig.feed(frames[1:])
    assert rig.integers() == {}
    (rejected,) = rig.rejected
    assert rejected.payload == frames[1]
    assert "KXBTCD-X" in rejected.reason
    assert rig.recorder.counts.rejected == 1
