"""The scale of no-side prices is proven by recorded books, wrong in none of them, and never guessed; what the
recorder believes wrongly is found out before a row is written."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import links
import oracle
from conformance import WITH_BOOKS, named, of_books
from frames import delta, frame, snapshot
from kalshi_fast import wire
from kalshi_fast._decode import price_e4, qty_e2
from kalshi_fast.admission import HELD_NS, QUOTE_NS
from kalshi_fast.books import Books
from kalshi_fast.errors import FrameError
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.replaying.replay import Replay
from kalshi_fast.scale import IN_A_ROW, ScaleProof, Weight, told_by_ask, told_by_book, told_by_ladder
from recordings import DIRECTORY, Capture, capture

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kalshi_fast.batch import Batch

Levels = list[tuple[int, int]]
KINDS = ("snapshot", "delta", "clear", "gap")
START_NS = 1_800_000_000_000_000_000

# How many of the recorded snapshots decide, and how many do not: there a side is empty, or the best yes
# level and the lowest no level told are the same price.
DECIDED = {
    "bot_btc_1hr_kalshi_2026-04-18.jsonl": (7, 1),
    "cockpit_orderbook_prod_2026-08-07.jsonl": (12, 0),
    "delta_hedged_prod_2026-09-25.jsonl": (0, 1),
    "hypnogaba_demo_2026-08-20.jsonl": (0, 1),
    "johnivanov04_prod_a_2026-09-16.jsonl": (3, 1),
    "johnivanov04_prod_b_2026-09-16.jsonl": (3, 1),
    "openpx_btc15m_prod_2026-05-14.jsonl": (1, 0),
}


def told(body: dict[str, Any]) -> tuple[Levels, Levels]:
    """The levels of a snapshot as they were told."""
    yes, no = (
        [(price_e4(price), qty_e2(size)) for price, size in body.get(f"{side}_dollars_fp") or ()]
        for side in ("yes", "no")
    )
    return yes, no


def snapshots(found: Capture) -> list[tuple[Levels, Levels]]:
    return [told(m["msg"]) for m in found.messages() if m["type"] == "orderbook_snapshot"]


def mirrored(levels: Iterable[tuple[int, int]]) -> Levels:
    return sorted((10_000 - price, size) for price, size in levels)


# --- what a book says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [f for f in WITH_BOOKS if f.name in DECIDED], ids=named)
def test_recorded_snapshots_decide_and_none_of_them_wrongly(found: Capture) -> None:
    words = [told_by_book(*sides) for sides in snapshots(found)]
    right = sum(word is found.yes_scale for word in words)
    assert (right, words.count(None)) == DECIDED[found.name]
    assert right + words.count(None) == len(words), "one is wrong"
    # The same books told on the other scale say the other.
    again = [told_by_book(yes, mirrored(no)) for yes, no in snapshots(found)]
    assert again == [None if word is None else not word for word in words]


def test_how_many_recorded_snapshots_decide() -> None:
    """The figures of the documentation; each recording with books is among them."""
    assert DECIDED.keys() == {found.name for found in WITH_BOOKS if snapshots(found)}
    assert [sum(column) for column in zip(*DECIDED.values(), strict=True)] == [26, 5]


def test_no_recorded_book_is_crossed_after_a_delta() -> None:
    """So one that is crossed in the reading that we believe is not read rightly."""
    states = 0
    for found in WITH_BOOKS:
        books = oracle.Books(found.yes_scale)
        for message in map(oracle.load, of_books(found)):
            books.take(message)
            if message["type"] != "orderbook_delta":
                continue
            yes, no = books.integers().get(message["msg"]["market_ticker"], ({}, {}))
            if yes and no:
                states += 1
                assert max(yes) + max(no) < 10_000
    assert states == 315


@given(
    st.dictionaries(st.integers(1, 9999), st.integers(1, 10**6), min_size=1, max_size=8),
    st.dictionaries(st.integers(1, 9999), st.integers(1, 10**6), min_size=1, max_size=8),
    st.booleans(),
)
def test_a_book_that_is_not_crossed_never_speaks_for_the_wrong_scale(
    yes: dict[int, int], no: dict[int, int], on_yes_scale: bool
) -> None:
    best = max(yes)
    bids = {price: size for price, size in no.items() if price + best <= 10_000}
    levels = mirrored(bids.items()) if on_yes_scale else list(bids.items())
    assert told_by_book(list(yes.items()), levels) in (None, on_yes_scale)


def test_what_touches_and_what_is_crossed_in_both_readings_says_nothing() -> None:
    assert told_by_book([(4000, 1)], [(5000, 1)]) is None  # uncrossed in both
    assert told_by_book([(6000, 1)], [(5000, 1)]) is None  # crossed in both
    assert told_by_book([(6000, 1)], [(6000, 1)]) is None  # touches on the yes scale
    assert told_by_book([(6000, 1)], [(4000, 1), (100, 1)]) is None  # touches on the no scale
    assert told_by_book([(6000, 1)], [(3900, 1), (100, 1)]) is False
    assert told_by_book([(6000, 1)], [(6100, 1), (9900, 1)]) is True
    assert told_by_book([(6000, 1), (7000, 0)], [(6100, 1)]) is True  # a level without size is none
    assert told_by_book([], [(6100, 1)]) is told_by_book([(6000, 1)], []) is None


# --- what others say ----------------------------------------------------------------------------------


def test_the_ticker_channels_ask_decides_where_the_book_does_not() -> None:
    one_sided = [(3000, 500), (9900, 20)]
    assert told_by_ask(one_sided, 3000) is True
    assert told_by_ask(one_sided, 100) is False
    assert told_by_ask(one_sided, 3100) is None  # of another moment
    assert told_by_ask(one_sided, 10_000) is told_by_ask(one_sided, 0) is None  # no ask
    assert told_by_ask([(100, 5), (9900, 5)], 100) is None  # both readings have the same ask
    assert told_by_ask([], 100) is None


@pytest.mark.parametrize(
    "name",
    ["linear_cent_2026-09-15", "tapered_deci_cent_2026-09-15", "center_deci_edge_centi_cent_2026-09-15"],
)
def test_a_recorded_ladder_of_rest_tells_the_scale(name: str) -> None:
    body = oracle.load((DIRECTORY / "rest" / f"orderbook_{name}.json").read_bytes())["orderbook_fp"]
    bids = {price_e4(price): qty_e2(size) for price, size in body["no_dollars"]}
    yes = [(price_e4(price), qty_e2(size)) for price, size in body["yes_dollars"]]
    assert max(bids) + max(price for price, _ in yes) <= 10_000, "REST has bids on both sides"
    assert told_by_ladder(list(bids.items()), bids) == (False, len(bids))
    assert told_by_ladder(mirrored(bids.items()), bids) == (True, len(bids))


def test_the_recorded_book_on_the_yes_scale_is_told_by_its_ladder_alone() -> None:
    """It has no yes bid, and no levels at 0.01 and at 0.99: neither the book nor the ask can tell."""
    ((yes, no),) = snapshots(capture("delta_hedged"))
    assert told_by_book(yes, no) is None
    assert told_by_ask(no, 100) is None
    word, fitting = told_by_ladder(no, dict(mirrored(no)))
    assert word is True
    assert fitting == len(no) == 51


def test_a_ladder_that_has_changed_meanwhile_or_fits_both_ways_says_nothing() -> None:
    levels = [(100 * n, 100 * n) for n in range(1, 11)]
    assert told_by_ladder(levels, dict(levels[:5])) == (False, 5)
    assert told_by_ladder(levels, dict(levels[:4]))[0] is None
    even = [(100, 7), (9900, 7)]
    assert told_by_ladder(even, dict(even)) == (None, 2)
    assert told_by_ladder([], {100: 1}) == (None, 0)


# --- the rule -----------------------------------------------------------------------------------------


def test_two_markets_prove_and_three_in_a_row_against_end_it() -> None:
    proof = ScaleProof(on_yes_scale=True)
    assert proof.hear(True, "A", 9)
    assert proof.hear(True, "A", 9)
    assert not proof.proven
    assert proof.hear(True, "B", 9)
    assert proof.proven
    for ticker in "CDCDCD":
        assert not proof.hear(False, ticker, 9)
    assert proof.proven, "markets count, not words"
    proof.hear(True, "A", 9)  # those were flukes
    for ticker in "CD":
        proof.hear(False, ticker, 9)
    assert not proof.contradicted
    proof.hear(False, "E", 9)
    assert proof.contradicted
    assert not proof.proven
    proof.hear(True, "A", 9)
    proof.hear(True, "B", 9)
    assert not proof.proven, "what is disproven stays so until the next connection"
    proof.turn()
    proof.begin()
    assert (proof.on_yes_scale, proof.proven, proof.contradicted) == (False, False, False)


def test_more_markets_have_to_confirm_than_contradict() -> None:
    proof = ScaleProof(on_yes_scale=False)
    for ticker, word in (("A", True), ("B", True), ("C", False), ("D", False)):
        proof.hear(word, ticker, 9)
        assert not proof.proven
    proof.hear(False, "E", 9)
    assert proof.proven


def test_where_few_are_carried_all_that_decide_have_to_agree() -> None:
    alone = ScaleProof(on_yes_scale=True)
    alone.hear(True, "A", 1, Weight.HINT)
    assert not alone.proven
    alone.hear(True, "A", 1)
    assert alone.proven
    for carried, tickers in ((1, "AAA"), (2, "AAA"), (2, "ABA")):
        proof = ScaleProof(on_yes_scale=True)
        for ticker in tickers[:-1]:
            proof.hear(False, ticker, carried)
        for _ in range(9):
            proof.hear(False, "A", carried, Weight.HINT)
        assert not proof.contradicted
        proof.hear(False, tickers[-1], carried)
        assert proof.contradicted
    other = ScaleProof(on_yes_scale=True)
    other.hear(True, "B", 2)
    for _ in range(9):
        other.hear(False, "A", 2)
    assert not other.contradicted, "the other one confirms"


def test_a_ladder_decides_alone_until_others_have() -> None:
    proof = ScaleProof(on_yes_scale=True)
    proof.hear(False, "A", 9, Weight.LADDER)
    assert proof.contradicted
    proof.begin()
    proof.hear(True, "A", 9, Weight.LADDER)
    assert proof.proven
    proof.hear(False, "B", 9, Weight.LADDER)
    assert proof.proven


# --- what a connection does about it ------------------------------------------------------------------


class Rig:
    """A link whose scale has to be proven, and the rows that come of it."""

    def __init__(self, tickers: Iterable[str], *, yes_scale: bool = True) -> None:
        self.now = START_NS
        self.books = Books()
        self.rows: list[tuple[str, str, int, int]] = []
        self.health: list[Any] = []
        self.pool = LocalPool(2000, 4)
        self.recorder = Recorder(self.books, self.pool, self._keep, seal_rows=2000)
        self.link = links.link(
            self.recorder, sorted(tickers), lambda: self.now - START_NS, use_yes_price=yes_scale, hold=True
        )
        self.connect(1)

    def connect(self, conn_id: int) -> None:
        self.seq = 0
        links.grant(self.link, conn_id, self.now)

    def disconnect(self) -> None:
        self.link.on_disconnected(self.now, "over")

    def _keep(self, batch: Batch) -> None:
        for kind, market, side, price in links.rows(batch.events, "type", "market_ix", "side", "price_e4"):
            self.rows.append((KINDS[kind], self.books.tickers[market], side, price))
        self.health += batch.health
        self.pool.release(batch)

    def feed(self, *frames: bytes) -> None:
        for payload in frames:
            self.now += 1000
            self.link.feed(payload, self.now)
        self.recorder.seal()

    def tick(self, seconds: float = 0) -> list[tuple[str, ...]]:
        """Time passes; the snapshots that are asked for then."""
        self.now += int(seconds * 1e9) + 1
        self.link.on_tick(self.now)
        commands = [oracle.load(command)["params"] for command in self.link.session.outbox]
        self.link.session.outbox.clear()
        return [tuple(c["market_tickers"]) for c in commands if c.get("action") == "get_snapshot"]

    @property
    def known(self) -> set[str]:
        return {market.ticker for market in self.books.by_ticker.values() if market.known}

    def said(self, event: str = "scale") -> list[tuple[str, str]]:
        self.recorder.seal()
        return [(row.market_ticker, row.detail) for row in self.health if row.event == event]


ON_NO: dict[str, Any] = {"yes": [["0.6000", "5.00"]], "no": [["0.0100", "900.00"], ["0.3900", "4.00"]]}
ON_YES: dict[str, Any] = {"yes": [["0.6000", "5.00"]], "no": [["0.6100", "4.00"], ["0.9900", "900.00"]]}
ONE_SIDED: dict[str, Any] = {"no": [["0.3000", "5.00"], ["0.8000", "7.00"]]}


def test_a_proven_connection_has_its_books_and_the_fast_path() -> None:
    rig = Rig("ABC")
    rig.feed(snapshot(1, "A", **ON_YES))
    assert rig.known == {"A"}
    assert ("snapshot", "A", 1, 3900) in rig.rows
    assert rig.said() == []
    rig.feed(snapshot(2, "C", **ON_YES))
    assert rig.said() == [
        ("C", "proven: no-side prices come on the yes scale (best yes 0.6000, no told from 0.6100 to 0.9900)")
    ]
    change = delta(3, "0.9900", "-1.00", "no", ts_ms=1795000050500).replace(b": ", b":").replace(b", ", b",")
    assert rig.link.path.take(change, rig.now) == 1
    rig.feed(snapshot(4, "B", **ONE_SIDED))
    assert rig.known == {"A", "B", "C"}
    assert ("snapshot", "B", 1, 7000) in rig.rows
    assert rig.recorder.scale_doubts(rig.now) == []


def test_nothing_is_stored_of_a_connection_on_the_other_scale() -> None:
    """Recorded books that were told on the no scale, to a recorder that believes the yes scale: no row of
    them is stored, it is said, and the next connection is read the other way, with every book right."""
    found = capture("cockpit")
    frames = of_books(found)
    tickers = {m["msg"]["market_ticker"] for m in map(oracle.load, frames) if m["type"] in oracle.BOOK_TYPES}
    rig = Rig(tickers)
    rig.feed(*frames)
    assert rig.rows == []
    assert rig.known == set()
    assert rig.link.session.closing is not None
    assert rig.recorder.counts.scale_contradictions == IN_A_ROW
    assert [row[0] for row in rig.said()[:IN_A_ROW]] == list(dict.fromkeys(r[0] for r in rig.said()))[
        :IN_A_ROW
    ]
    assert rig.said()[-1][1].startswith(
        "the exchange's books contradict the yes scale (use_yes_price sent: true)"
    )
    assert "contradict the yes scale" in rig.recorder.scale_doubts(rig.now)[0]
    rig.disconnect()
    rig.connect(2)
    assert "has proven the no scale" in rig.recorder.scale_doubts(rig.now)[0]
    assert "though use_yes_price is sent as true" in rig.said("connect")[-1][1]
    rig.feed(*frames)
    expected = oracle.Books(yes_scale=False)
    for payload in frames:
        expected.take(oracle.load(payload))
    assert rig.known == tickers
    books = {
        ticker: tuple(dict(levels) for levels in market.book.ladders())
        for ticker, market in rig.books.by_ticker.items()
    }
    assert books == expected.integers()
    assert rig.recorder.scale_doubts(rig.now) == []


def test_a_single_crossed_book_costs_that_book_alone() -> None:
    rig = Rig("ABC")
    rig.feed(snapshot(1, "A", **ON_YES), snapshot(2, "B", **ON_NO), snapshot(3, "C", **ON_YES))
    assert rig.known == {"A", "C"}
    assert [ticker for ticker, _ in rig.said()] == ["B", "C"]
    assert rig.tick(1) == [("B",)]
    rig.feed(snapshot(4, "B", **ON_YES))
    assert rig.known == {"A", "B", "C"}
    assert rig.link.session.closing is None


@pytest.mark.parametrize("tickers", ["AB", "ACDB"])
def test_a_book_that_stays_crossed_is_said_once_and_put_off_ever_longer(tickers: str) -> None:
    rig = Rig(tickers)
    rig.feed(*(snapshot(n, ticker, **ON_YES) for n, ticker in enumerate(tickers[:-1], 1)))
    delay_s = 1
    for seq in range(len(tickers), len(tickers) + 8):
        rig.feed(snapshot(seq, "B", **ON_NO))
        assert rig.tick(0.9 * delay_s) == []
        assert rig.tick(0.2 * delay_s) == [("B",)]
        delay_s *= 2
    assert rig.link.session.closing is None
    assert rig.known == set(tickers) - {"B"}
    assert [ticker for ticker, detail in rig.said() if "as believed" in detail] == ["B"]
    assert [row for row in rig.rows if row[1] == "B"] == []


def test_a_book_that_decides_for_itself_goes_on_before_others_are_released() -> None:
    rig = Rig("ABC")
    rig.feed(snapshot(1, "A", **ON_YES), snapshot(2, "B", **ONE_SIDED), delta(3, "0.6100", "1.00", "no"))
    assert rig.known == {"A"}
    assert rig.rows[-1] == ("delta", "A", 1, 3900)
    assert rig.recorder.held_tickers == ["B"]
    rig.feed(snapshot(4, "A", **ONE_SIDED), delta(5, "0.3000", "1.00", "no"))
    assert rig.known == set(), "this one does not decide"
    assert rig.rows[-1] == ("gap", "A", 0, 0)


def test_books_that_do_not_decide_wait_for_one_that_does() -> None:
    rig = Rig("ABC")
    rig.feed(
        snapshot(1, "A", **ONE_SIDED), delta(2, "0.3000", "1.00", "no"), delta(3, "0.1000", "1.00", "yes")
    )
    assert rig.rows == [("delta", "A", 0, 1000)]  # a yes price is one on either scale
    assert rig.recorder.held_tickers == ["A"]
    assert rig.tick(1) == []
    assert rig.recorder.scale_doubts(rig.now) == []
    rig.now += 2 * HELD_NS
    assert "1 books wait" in rig.recorder.scale_doubts(rig.now)[0]
    rig.feed(snapshot(4, "B", **ON_YES))
    assert rig.known == {"B"}
    assert rig.tick() == [("A",)]  # it is time; one market alone does not release it
    rig.feed(snapshot(5, "A", **ONE_SIDED))
    assert rig.known == {"B"}
    rig.feed(snapshot(6, "C", **ON_YES))
    assert rig.tick() == [("A",)]
    rig.feed(snapshot(7, "A", **ONE_SIDED))
    assert rig.known == {"A", "B", "C"}
    assert ("snapshot", "A", 1, 7000) in rig.rows
    assert ("snapshot", "A", 1, 3000) not in rig.rows
    assert rig.recorder.held == 0


def test_a_book_without_a_no_side_is_the_same_on_both_scales_until_it_gets_one() -> None:
    rig = Rig("ABC")
    rig.feed(snapshot(1, "A"), snapshot(2, "B", yes=[["0.4000", "1.00"]]))
    assert rig.known == {"A", "B"}
    rig.feed(delta(3, "0.4100", "1.00", "yes", "B"), delta(4, "0.4500", "2.00", "no", "B"))
    assert rig.known == {"A"}
    assert [row for row in rig.rows if row[1] == "B"] == [
        ("clear", "B", 0, 0),
        ("snapshot", "B", 0, 4000),
        ("delta", "B", 0, 4100),
        ("gap", "B", 0, 0),
    ]
    assert rig.tick() == [("B",)]
    rig.feed(snapshot(5, "B", yes=[["0.4100", "1.00"]], no=[["0.4500", "2.00"]]))  # uncrossed either way
    assert rig.known == {"A"}
    rig.recorder.quoted("B", 4200, 200, rig.now)
    assert rig.tick() == []
    rig.recorder.quoted("B", 4500, 200, rig.now)
    assert rig.tick() == []
    rig.feed(snapshot(6, "C", **ON_YES))
    assert rig.tick() == [("B",)]
    rig.feed(snapshot(7, "B", yes=[["0.4100", "1.00"]], no=[["0.4500", "2.00"]]))
    assert rig.known == {"A", "B", "C"}


def test_asks_of_three_markets_against_it_end_a_connection() -> None:
    rig = Rig("ABC")
    rig.feed(*(snapshot(n, ticker, **ONE_SIDED) for n, ticker in enumerate("ABC", 1)))
    for ticker in "ABC":
        assert rig.link.session.closing is None
        for ask_e4 in (5000, 2000, 2000, 2000):  # 1 - 0.80: the no levels are bids
            rig.recorder.quoted(ticker, ask_e4, None, rig.now)
    assert rig.link.session.closing is not None
    assert rig.recorder.counts.scale_contradictions == 3, "once for each snapshot"
    assert rig.rows == []


def test_an_ask_of_another_moment_decides_nothing() -> None:
    """A book of bids at 0.01, 0.50 and 0.93; the yes ask was 0.07 and moves to 0.01 at the end."""
    held: dict[str, Any] = {"no": [["0.0100", "5.00"], ["0.5000", "6.00"], ["0.9300", "7.00"]]}
    rig = Rig("AB")
    rig.feed(snapshot(1, "A", **held), snapshot(2, "B", **ONE_SIDED))
    rig.recorder.quoted("A", 100, 500, rig.now + QUOTE_NS + 1)
    rig.recorder.quoted("A", 700, 700, rig.now + 5 * QUOTE_NS)
    assert rig.recorder.counts.scale_contradictions == 0
    assert rig.link.admission.scale.confirmations == 0
    for _ in range(5):
        rig.recorder.quoted("A", 100, 800, rig.now)  # of this moment, and of one market
    assert rig.link.admission.scale.confirmations == 1
    assert rig.recorder.held_tickers == ["A", "B"]
    assert rig.said() == []


def test_an_ask_proves_a_lone_market_by_its_size_alone() -> None:
    for size_e2, held in ((None, 1), (400, 1), (500, 0)):
        rig = Rig("A")
        rig.feed(snapshot(1, "A", **ONE_SIDED))
        rig.recorder.quoted("A", 3000, size_e2, rig.now)
        assert rig.recorder.held == held


def test_a_ladder_of_rest_proves_or_ends_a_connection_at_once() -> None:
    levels = [["0.3000", "5.00"], ["0.8000", "7.00"], ["0.9000", "1.00"]]
    bids = {7000: 500, 2000: 700, 1000: 100}
    rig = Rig("A")
    rig.feed(snapshot(1, "A", no=levels))
    rig.recorder.listed("A", bids)
    assert rig.tick() == [("A",)]
    rig.feed(snapshot(2, "A", no=levels))
    assert rig.known == {"A"}
    other = Rig("A", yes_scale=False)
    other.feed(snapshot(1, "A", no=levels))
    other.recorder.listed("A", bids)
    assert other.link.session.closing is not None
    assert other.rows == []


def test_a_scale_that_changes_in_mid_connection_is_found_out() -> None:
    """Nobody has seen that; the only sign of it is books that stay crossed."""
    rig = Rig("ABCD", yes_scale=False)
    rig.feed(*(snapshot(n, ticker, **ON_NO) for n, ticker in enumerate("ABCD", 1)))
    assert rig.known == set("ABCD")
    rig.feed(*(delta(4 + n, "0.6100", "4.00", "no", ticker) for n, ticker in enumerate("ABCD", 1)))
    rig.link.admission.look(rig.now)
    assert rig.known == set("ABCD"), "it may be the middle of a move"
    rig.link.admission.look(rig.now)
    assert rig.known == set()
    rig.recorder.seal()
    assert sum(row[0] == "gap" for row in rig.rows) == 4
    assert sorted(ticker for asked in rig.tick() for ticker in asked) == list("ABCD")
    before = len(rig.rows)
    rig.feed(*(snapshot(8 + n, ticker, **ON_YES) for n, ticker in enumerate("ABC", 1)))
    assert rig.link.session.closing is not None
    rig.feed(delta(12, "0.0100", "1.00", "yes", "A"), frame("ok", 1, 13), snapshot(14, "D", **ON_YES))
    assert len(rig.rows) == before, "nothing of it counts any more"


def test_a_book_that_the_exchange_itself_sends_crossed_is_left_at_that() -> None:
    rig = Rig("ABC")
    crossed: dict[str, Any] = {"yes": [["0.6000", "1.00"]], "no": [["0.5000", "1.00"]]}
    rig.feed(snapshot(1, "A", **ON_YES), snapshot(2, "C", **ON_YES), snapshot(3, "B", **crossed))
    for _ in range(3):
        rig.link.admission.look(rig.now)
    assert rig.known == {"A", "B", "C"}
    assert rig.recorder.counts.scale_contradictions == 0


def test_a_book_that_is_crossed_for_a_moment_is_no_sign() -> None:
    rig = Rig("A", yes_scale=False)
    rig.feed(snapshot(1, "A", **ON_NO), delta(2, "0.6100", "4.00", "no"))
    rig.link.admission.look(rig.now)
    rig.feed(delta(3, "0.6100", "-4.00", "no"))
    rig.link.admission.look(rig.now)
    assert rig.known == {"A"}
    assert rig.recorder.counts.scale_contradictions == 0


# --- levels under another name ------------------------------------------------------------------------


def test_levels_under_keys_that_we_do_not_know_are_no_empty_book() -> None:
    rig = Rig("AB")
    rig.feed(snapshot(1, "A", yes_levels=[["0.6000", "5.00"]]), snapshot(2, "B", levels=[], flags={"x": [1]}))
    assert rig.known == {"B"}
    assert rig.recorder.counts.rejected == 1
    assert rig.rows == [("clear", "B", 0, 0)]
    with pytest.raises(FrameError, match=r"msg\.yes_levels"):
        wire.decode(snapshot(1, "A", yes_levels=[["0.6000", "5.00"]]))


# --- captures -----------------------------------------------------------------------------------------


def write_capture(path: Path, frames: Iterable[bytes], header: str = "") -> Path:
    lines = [
        f'{{"ingest_ns":{START_NS + number},"conn_id":7,"frame":{payload.decode().strip()}}}'
        for number, payload in enumerate(frames)
    ]
    path.write_text("\n".join([*([header] if header else ()), *lines]) + "\n")
    return path


def on_the_other_scale(payload: bytes) -> bytes:
    """The same frame, its no side told the other way."""

    def other(price: str) -> str:
        return f"{(10_000 - price_e4(price)) / 10_000:.4f}"

    message = json.loads(payload)
    body = message.get("msg", {})
    if "no_dollars_fp" in body:
        body["no_dollars_fp"] = sorted([other(price), size] for price, size in body["no_dollars_fp"])
    if body.get("side") == "no":
        body["price_dollars"] = other(body["price_dollars"])
    return json.dumps(message).encode()


def replayed(path: Path) -> dict[str, tuple[dict[int, int], dict[int, int]]]:
    books = Replay(path).book_at("2028-01-01")
    return {ticker: (dict(book.ladders()[0]), dict(book.ladders()[1])) for ticker, book in books.items()}


@pytest.mark.parametrize("turned", [False, True])
def test_a_capture_is_read_on_the_scale_that_its_books_prove(tmp_path: Path, turned: bool) -> None:
    for found in WITH_BOOKS:
        if not found.whole:
            continue  # a selection, with numbers that are missing
        expected = oracle.Books(yes_scale=False)
        frames = of_books(found)
        for payload in frames:
            expected.take(oracle.load(payload))
        told_so = [on_the_other_scale(payload) for payload in frames] if turned else frames
        books = replayed(write_capture(tmp_path / "capture.ndjson", told_so))
        assert books == expected.integers(), found.name


def test_a_first_line_says_the_scale_of_books_that_do_not_decide(tmp_path: Path) -> None:
    frames = of_books(capture("delta_hedged"))[-2:-1]  # its only snapshot
    path = tmp_path / "capture.ndjson"
    ((_, no),) = snapshots(capture("delta_hedged"))
    for header, levels in (
        ('{"use_yes_price": true}', mirrored(no)),
        ('{"use_yes_price": false}', no),
        ("", no),
    ):
        ((yes_side, no_side),) = replayed(write_capture(path, frames, header)).values()
        assert (yes_side, no_side) == ({}, dict(levels))


def test_a_first_line_that_the_books_contradict_costs_the_books(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write_capture(tmp_path / "capture.ndjson", of_books(capture("cockpit")), '{"use_yes_price": true}')
    assert replayed(path) == {}
    assert "the exchange's books contradict the yes scale" in caplog.text
