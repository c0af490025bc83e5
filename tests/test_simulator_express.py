"""What goes out many at once is byte for byte what goes out one by one, and the truth keeps up with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import picows
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client import Client, connect, e2, e4, exchange, rebuilt
from kalshi_fast._frames import DeltaFrames
from kalshi_fast.errors import FieldError
from kalshi_fast.simulator.express import Express
from kalshi_fast.simulator.frames import TrueBook, delta_body, delta_head
from kalshi_fast.simulator.recorded import RecordedMarkets
from replay_model import some_rows, table_of, write
from test_simulator import subscribe

if TYPE_CHECKING:
    from pathlib import Path

ROWS = some_rows(6000, seed=9)
ID = "9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    directory = tmp_path / "recording"
    write(directory / "orderbook" / "date=2026-11-18" / "part-110640_000000.parquet", table_of(ROWS))
    return directory


deltas = st.tuples(
    st.integers(0, 2),
    st.integers(0, 1),
    st.integers(0, 10_000),
    st.integers(-(10**17), 10**17),
    st.sampled_from([b"", b',"ts":"2026-10-01T12:00:00.25Z"', b',"ts":"x"']),
)


@given(st.lists(deltas, max_size=20), st.booleans(), st.data())
def test_frames_are_those_that_go_out_one_by_one(rows: list[Any], newline: bool, data: st.DataObject) -> None:
    books = [TrueBook("A", ID), TrueBook("KX-LONG" * 18, ""), TrueBook("B", "")]
    slots = data.draw(st.lists(st.integers(-1, 1), min_size=3, max_size=3))
    sids, seqs = [1, 4_000_000_000], [0, 999]
    scales = data.draw(st.lists(st.booleans(), min_size=2, max_size=2))
    market, side, price, change, times = ([row[i] for row in rows] for i in range(5))
    frames = DeltaFrames(
        [delta_head(book) for book in books],
        np.array(market, np.int32),
        np.array(side, np.int8),
        np.array(price, np.uint16),
        np.array(change, np.int64),
        b"".join(times),
        np.cumsum([len(text) for text in times]).astype(np.int64),
        newline=newline,
    )
    first = data.draw(st.integers(0, len(rows)))
    expected, numbers, end = [], list(seqs), b"\n" if newline else b""
    for m, s, p, q, t in rows[first:]:
        slot = slots[m]
        if slot < 0:
            continue
        numbers[slot] += 1
        told = 10_000 - p if scales[slot] and s == 1 else p
        body = delta_body(books[m], s, told, q, t)
        expected.append(
            b'{"type":"orderbook_delta","sid":%d,"seq":%d,"msg":%b}%b'
            % (sids[slot], numbers[slot], body, end)
        )
    used = np.array(seqs, np.int64)
    sent, count = frames.write(
        first,
        len(rows),
        np.array(slots, np.int32),
        np.array(sids, np.int64),
        used,
        np.array(scales, np.int8),
    )
    assert unwrapped(sent) == expected
    assert (count, used.tolist()) == (len(expected), numbers)


def unwrapped(sent: bytes) -> list[bytes]:
    """The payloads of whole, unmasked text messages."""
    found, at = [], 0
    while at < len(sent):
        assert sent[at] == 0x81
        length, at = sent[at + 1], at + 2
        if length == 126:
            length, at = int.from_bytes(sent[at : at + 2]), at + 2
            assert length >= 126
        found.append(sent[at : at + length])
        at += length
    return found


def test_what_does_not_fit_together_is_refused() -> None:
    def made(market: int = 0, side: int = 0, price: int = 1, end: int = 0) -> DeltaFrames:
        columns = np.array([market], np.int32), np.array([side], np.int8), np.array([price], np.uint16)
        return DeltaFrames([b"{"], *columns, np.array([1], np.int64), b"", np.array([end], np.int64))

    for wrong in ({"market": 1}, {"market": -1}, {"side": 2}, {"price": 10_001}, {"end": 1}, {"end": -1}):
        with pytest.raises(FieldError):
            made(**wrong)
    one = np.array([0], np.int64)
    for first, stop, slots in ((0, 2, [0]), (-1, 1, [0]), (0, 1, [1]), (0, 1, [0, 0])):
        with pytest.raises(FieldError):
            made().write(first, stop, np.array(slots, np.int32), one, one.copy(), np.zeros(1, np.int8))


class Raw(Client):
    """Keeps the frames as they came."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[bytes] = []

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            self.raw.append(frame.get_payload_as_bytes())
        super().on_ws_frame(transport, frame)


@pytest.mark.parametrize("yes_scale", [False, True])
@pytest.mark.parametrize("tls", [True, False])
def test_a_whole_play_is_the_same_either_way(
    tmp_path: Path, recording: Path, monkeypatch: pytest.MonkeyPatch, tls: bool, yes_scale: bool
) -> None:
    stretches: list[int] = []
    play = Express.play

    def watched(self: Express, most: int) -> int:
        stretches.append(play(self, most))
        return stretches[-1]

    monkeypatch.setattr(Express, "play", watched)

    async def run(**options: Any) -> list[bytes]:  # noqa: ANN401
        async with exchange(tmp_path, RecordedMarkets(recording, "current"), tls=tls, **options) as running:
            client = Raw()
            await connect(tmp_path, running.url, client)
            client.send(subscribe(*running.source.books, use_yes_price=yes_scale))
            await running.finished.wait()
            await client.until(lambda: len(client.raw) == running.stats.frames_sent)
            books = rebuilt(client.frames)
            if not yes_scale:
                assert books == {
                    ticker: {side: dict(levels) for side, levels in book.items()}
                    for ticker, book in running.books().items()
                }
            assert running.played == len(running.source)  # type: ignore[arg-type]
            return client.raw

    slowly = asyncio.run(run(drop_every=10**9))
    assert stretches == []
    quickly = asyncio.run(run())
    assert max(stretches) > 100
    assert sum(stretches) > 4000
    assert quickly == slowly


def test_several_subscriptions_and_connections_at_once(tmp_path: Path, recording: Path) -> None:
    async def run() -> None:
        source = RecordedMarkets(recording, "current")
        tickers = list(source.books)
        async with exchange(tmp_path, source, tls=False, old_sids=True) as running:
            one, other = Client(), Client()
            await connect(tmp_path, running.url, one)
            await connect(tmp_path, running.url, other)
            one.send(subscribe(*tickers[:2]))
            one.send({**subscribe(*tickers[2:], use_yes_price=True), "id": 2})
            other.send(subscribe(*tickers[1:4]))
            await running.finished.wait()
            total = running.stats.frames_sent
            await one.until(lambda: len(one.frames) + len(other.frames) == total)
            truth = running.books()
            for client, wanted in ((one, tickers), (other, tickers[1:4])):
                for sid in {frame["sid"] for frame in client.frames if "sid" in frame}:
                    numbers = [frame["seq"] for frame in client.frames if frame.get("sid") == sid]
                    assert numbers == list(range(1, len(numbers) + 1))
                books = rebuilt(client.frames)
                assert sorted(books) == sorted(wanted)
                for ticker, sides in books.items():
                    assert sides["yes"] == dict(truth[ticker]["yes"])
                    if client is other or ticker in tickers[:2]:
                        assert sides["no"] == dict(truth[ticker]["no"])
                    else:
                        assert {10_000 - p: q for p, q in sides["no"].items()} == dict(truth[ticker]["no"])

    asyncio.run(run())


def test_a_market_carried_twice_goes_the_other_way(tmp_path: Path, recording: Path) -> None:
    async def run() -> None:
        source = RecordedMarkets(recording, "current")
        tickers = list(source.books)
        async with exchange(tmp_path, source, tls=False, old_sids=True) as running:
            client = await connect(tmp_path, running.url)
            client.send(subscribe(*tickers))
            client.send({**subscribe(*tickers), "id": 2})
            await running.finished.wait()
            await client.until(lambda: len(client.frames) == running.stats.frames_sent)
            for sid in (1, 2):
                books = rebuilt([frame for frame in client.frames if frame.get("sid") == sid])
                assert {
                    t: {s: sorted(x.items()) for s, x in b.items()} for t, b in books.items()
                } == running.books()

    asyncio.run(run())


def test_the_texts_are_read_back() -> None:
    assert (e4("0.4550"), e2("-3.05")) == (4550, -305)
