"""Recorded deltas with their newline, as production sends them: each on the fast path, to the microsecond."""

from __future__ import annotations

import pytest

import oracle
from conformance import BOOKS, WITH_DELTAS, Rig, named, of_books, played
from recordings import Capture, capture


def with_room(frames: list[bytes]) -> list[bytes]:
    """Behind a made-up snapshot where the file has none: enough at each level that its deltas name."""
    first = oracle.load(frames[0])
    if any(oracle.load(frame)["type"] == "orderbook_snapshot" for frame in frames):
        return frames
    head = f'{{"type":"orderbook_snapshot","sid":{first["sid"]},"seq":{first["seq"] - 1},"msg":{{'
    body = f'"market_ticker":"{first["msg"]["market_ticker"]}","market_id":"{first["msg"]["market_id"]}"'
    side, price, _ = oracle.level(first["msg"], yes_scale=False)
    body += f',"{side}_dollars_fp":[["{price:.4f}","1000000.00"]]'
    return [f"{head}{body}}}}}\n".encode(), *frames]


def fast_ones(found: Capture) -> list[bytes]:
    """The frames as far as the fast path has to take each delta: fixed point, of a book that is known."""
    frames = with_room(of_books(found))
    assert [oracle.load(frame)["seq"] for frame in frames if "seq" in oracle.load(frame)]
    return frames


@pytest.mark.parametrize(
    "found", [f for f in WITH_DELTAS if f.whole or f.name.startswith("delta_KX")], ids=named
)
def test_each_delta_takes_the_fast_path(found: Capture) -> None:
    frames = fast_ones(found)
    rig = Rig(frames, yes_scale=found.yes_scale)
    rig.feed(frames)
    assert rig.fast == sum(oracle.load(frame)["type"] == BOOKS for frame in frames) > 0


def test_on_the_yes_scale_too() -> None:
    """The file has its snapshot and its delta from different moments: the number between is closed here."""
    snapshot, delta = (
        frame
        for frame in of_books(capture("delta_hedged"))
        if oracle.load(frame)["type"] in oracle.BOOK_TYPES
    )
    after = b'"seq":%d,' % (oracle.load(snapshot)["seq"] + 1)
    delta = delta.replace(b'"seq":%d,' % oracle.load(delta)["seq"], after)
    rig = Rig([snapshot, delta], yes_scale=True)
    rig.feed([snapshot, delta])
    expected = oracle.Books(yes_scale=True)
    for frame in (snapshot, delta):
        expected.take(oracle.load(frame))
    assert rig.integers() == expected.integers() != {}
    (book,) = rig.integers().values()
    assert book[1][9900] == 3_333_800, "33,338 contracts bid 0.99 for no"
    assert 400 not in book[1], "the two contracts at 0.96 yes are gone"
    assert rig.fast == 1


@pytest.mark.parametrize("found", WITH_DELTAS, ids=named)
def test_times_keep_their_microseconds(found: Capture) -> None:
    rig, expected = played(found)
    times = [(row["seq"], row["ts_us"]) for row in rig.rows if row["kind"] == "delta"]
    assert times == [(row.seq, row.ts_us) for row in expected.rows if row.kind == "delta"]
    assert any(ts_us is not None and ts_us % 1000 for _, ts_us in times)
