"""Two connections carry the same markets: the rows follow one, and the other takes over when that one fails.
The rows alone always rebuild the book, and every takeover is in them and in feed_health."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from hypothesis import given, settings
from hypothesis import strategies as st

import links
from conftest import FEW
from frames import delta, snapshot
from kalshi_fast._book import NO, YES
from kalshi_fast.books import Books
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder

if TYPE_CHECKING:
    from kalshi_fast.batch import Batch

KINDS = ("snapshot", "delta", "clear", "gap")
MARKETS = ("A", "B")


class Rig:
    """A recorder with two links whose subscriptions have sid 1 and sid 2."""

    def __init__(self) -> None:
        self.now = 1_000_000_000_000_000_000
        self.books = Books()
        self.pool = LocalPool(1000, 4)
        self.rows: list[tuple[Any, ...]] = []
        self.levels: dict[tuple[str, int, int], int] = {}
        self.health: list[Any] = []
        self.order: dict[int, tuple[int, int, int]] = {}
        self.recorder = Recorder(self.books, self.pool, self.store, seal_rows=1000)
        self.links = [links.link(self.recorder, MARKETS, lambda: self.now) for _ in range(2)]
        for number, link in enumerate(self.links):
            links.grant(link, 50 + number, self.now, sid=1 + number)

    def store(self, batch: Batch) -> None:
        self.check_order(batch)
        names = ("type", "market_ix", "conn_id", "sid", "seq", "side", "price_e4", "qty_e2")
        for kind, market, *rest in links.rows(batch.events, *names):
            self.rows.append((KINDS[kind], self.books.tickers[market], *rest))
        levels = links.rows(batch.levels, "market_ix", "side", "price_e4", "size_e2")
        for market, side, price, size in levels:
            self.levels[self.books.tickers[market], side, price] = size
        self.health += batch.health
        self.pool.release(batch)

    def check_order(self, batch: Batch) -> None:
        """A store has no other order of a market's rows than (ingest_ts, seq), then clear, levels, gap.

        In a file all rows but gaps are in the order of ingest_ts. A gap has that of the last good frame.
        """
        stored = links.rows(batch.events, "type", "ingest_ns")
        times = [ingest_ns for kind, ingest_ns in stored if KINDS[kind] != "gap"]
        assert times == sorted(times)
        rank = {"clear": 0, "snapshot": 1, "delta": 1, "gap": 2}
        for kind, market, ingest_ns, seq in links.rows(batch.events, "type", "market_ix", "ingest_ns", "seq"):
            key = (ingest_ns, seq, rank[KINDS[kind]])
            assert key >= self.order.get(market, key)
            self.order[market] = key

    def feed(self, number: int, *payloads: bytes) -> None:
        for payload in payloads:
            self.now += 1_000_000
            self.links[number].feed(payload, self.now)

    def sealed(self) -> list[tuple[Any, ...]]:
        self.recorder.seal()
        rows, self.rows = self.rows, []
        return rows

    def both(self, seq: int, ticker: str, price: str, change: str) -> None:
        for number in (0, 1):
            self.feed(number, delta(seq, price, change, ticker=ticker, sid=1 + number))


def start(sid: int) -> list[bytes]:
    return [
        snapshot(1, "A", sid=sid, yes=[("0.0800", "3.00")]),
        snapshot(2, "B", sid=sid, no=[("0.5000", "1.00")]),
    ]


def running() -> Rig:
    rig = Rig()
    rig.feed(0, *start(1))
    rig.feed(1, *start(2))
    rig.both(3, "A", "0.0900", "2.00")
    assert {row[2] for row in rig.sealed()} == {50}, "one of the two writes rows"
    return rig


def test_the_standby_takes_over_at_a_gap_with_its_whole_book() -> None:
    rig = running()
    rig.feed(1, delta(4, "0.0900", "1.00", ticker="A", sid=2))
    rig.feed(0, delta(5, "0.5000", "1.00", side="no", ticker="B"))  # 4 has not come
    assert rig.sealed() == [
        ("gap", "A", 50, 1, 4, YES, 0, 0),
        ("gap", "B", 50, 1, 4, YES, 0, 0),
        ("clear", "A", 51, 2, 4, YES, 0, 0),
        ("snapshot", "A", 51, 2, 4, YES, 900, 300),
        ("snapshot", "A", 51, 2, 4, YES, 800, 300),
        ("clear", "B", 51, 2, 4, YES, 0, 0),
        ("snapshot", "B", 51, 2, 4, NO, 5000, 100),
    ]
    assert rig.levels["A", YES, 900] == 300
    assert rig.recorder.counts.handovers == 2
    assert rig.recorder.counts.blackout_us == 3000, "since the last frame of the connection that failed"
    (handover,) = [event for event in rig.health if event.event == "handover"]
    assert "2 markets" in handover.detail
    assert "51" in handover.detail
    rig.feed(1, delta(5, "0.5000", "1.00", side="no", ticker="B", sid=2))
    assert [row[2] for row in rig.sealed()] == [51]
    assert not rig.books.by_ticker["B"].book.stale


def test_the_one_that_failed_becomes_the_standby() -> None:
    rig = running()
    rig.links[0].on_disconnected(rig.now, "gone")
    rig.sealed()
    links.grant(rig.links[0], 52, rig.now, sid=1)
    rig.feed(0, *start(1), delta(3, "0.0900", "2.00", ticker="A"))
    assert rig.sealed() == [], "the rows stay with the one that serves"
    assert not any(replica.book.stale for replica in rig.books.by_ticker["A"].replicas)
    rig.links[1].on_disconnected(rig.now, "gone")
    assert [(row[0], row[1], row[2]) for row in rig.sealed() if row[0] in ("gap", "clear")] == [
        ("gap", "A", 51),
        ("gap", "B", 51),
        ("clear", "A", 52),
        ("clear", "B", 52),
    ]


def test_rows_behind_a_takeover_in_the_same_read_are_not_older() -> None:
    rig = running()
    rig.now += 1_000_000
    for payload in (
        delta(4, "0.0800", "-9.00", ticker="A"),  # cannot be true: the other connection goes on with A
        snapshot(5, "B", no=[("0.5000", "4.00")]),
        delta(6, "0.5000", "-3.00", side="no", ticker="B", ts_ms=1_790_363_624_342),
        delta(7, "0.5050", "3.00", side="no", ticker="B"),  # off the grid: the long way
        delta(8, "0.5050", "-3.00", side="no", ticker="B", ts_ms=1_790_363_624_342),
    ):
        rig.links[0].feed(payload.replace(b": ", b":").replace(b", ", b","), rig.now)
    taken = rig.links[0].path.taken
    rows = rig.sealed()  # whose order is checked
    assert taken == 2, "deltas of B go the fast way"
    assert [row[0] for row in rows if row[1] == "B"] == ["clear", "snapshot", *["delta"] * 3]
    assert [row[0] for row in rows if row[1] == "A"] == ["gap", "clear", "snapshot", "snapshot"]


def test_without_an_exact_twin_the_book_is_unknown_until_either_has_a_snapshot() -> None:
    rig = running()
    rig.links[1].on_disconnected(rig.now, "gone")
    assert rig.sealed() == []
    rig.links[0].on_disconnected(rig.now, "gone")
    assert [row[0] for row in rig.sealed()] == ["gap", "gap"]
    links.grant(rig.links[1], 53, rig.now, sid=2)
    rig.feed(1, *start(2))
    assert [(row[0], row[2]) for row in rig.sealed() if row[0] == "clear"] == [("clear", 53)] * 2
    assert rig.levels["A", YES, 900] == 0, "a level that only the old book had"


@settings(max_examples=30 if FEW else 300, deadline=None)
@given(st.integers(0, 2**32))
def test_rows_of_two_unreliable_connections_rebuild_the_books(seed: int) -> None:
    rng = random.Random(seed)
    rig = Rig()
    truth: dict[str, dict[int, int]] = {ticker: {} for ticker in MARKETS}
    seqs = [0, 0]

    def numbered(number: int) -> int:
        seqs[number] += 1
        return seqs[number]

    def levels(ticker: str) -> list[tuple[str, str]]:
        return [
            (f"0.{price:04d}", f"{size // 100}.{size % 100:02d}") for price, size in truth[ticker].items()
        ]

    def snapshots(number: int, tickers: tuple[str, ...] = MARKETS) -> None:
        for ticker in tickers:
            payload = snapshot(numbered(number), ticker, sid=1 + number, yes=levels(ticker))
            if rng.random() < 0.95:
                rig.feed(number, payload)

    conn_id = 100
    for number in (0, 1):
        snapshots(number)
    for _ in range(rng.randrange(60)):
        ticker, price = rng.choice(MARKETS), rng.choice([800, 900, 5000])
        size = rng.randrange(1, 500)
        truth[ticker][price] = truth[ticker].get(price, 0) + size
        for number in rng.sample([0, 1], 2):
            change = f"{size // 100}.{size % 100:02d}"
            payload = delta(numbered(number), f"0.{price:04d}", change, ticker=ticker, sid=1 + number)
            if rng.random() < 0.9:
                rig.feed(number, payload)
            if rng.random() < 0.2:
                snapshots(number)
        if rng.random() < 0.1:
            number = rng.randrange(2)
            rig.links[number].on_disconnected(rig.now, "gone")
            conn_id, seqs[number] = conn_id + 1, 0
            links.grant(rig.links[number], conn_id, rig.now, sid=1 + number)
            snapshots(number)
    rebuilt: dict[str, dict[tuple[int, int], int] | None] = {}
    writer: dict[str, int] = {}
    for kind, ticker, conn, _, _, side, price, qty in rig.sealed():
        if kind == "clear":
            rebuilt[ticker], writer[ticker] = {}, conn
        elif kind == "gap":
            assert writer[ticker] == conn
            rebuilt[ticker] = None
        else:
            book = rebuilt.get(ticker)
            if book is not None:
                assert writer[ticker] == conn, "never rows of two connections in one book"
                book[side, price] = book.get((side, price), 0) + qty
    for ticker, market in rig.books.by_ticker.items():
        known = rebuilt.get(ticker)
        assert market.book.stale == (known is None)
        held = {(side, p): q for side in (YES, NO) for p, q in market.book.ladders()[side]}
        if known is not None:
            assert known == held
            assert sum(not replica.book.stale for replica in market.replicas) >= 1
        assert {key[1:]: size for key, size in rig.levels.items() if key[0] == ticker and size} == held
        if known is None:
            assert all(replica.book.stale for replica in market.replicas), (
                "an exact twin would have taken over"
            )
