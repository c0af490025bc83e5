"""Frames become rows exactly once; whatever makes a book doubtful is said in the rows; bad frames cost no
good data. The rows alone, read by the simplest rules, give the same books as the recorder's."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import links
from conftest import FEW
from frames import EXAMPLES, MARKET_ID, delta, frame, snapshot
from kalshi_fast._book import DECI_CENT, LINEAR_CENT, NO, YES, Grid
from kalshi_fast.books import NIL_ID, Books
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.subscription import Subscription
from test_wire import mutated

if TYPE_CHECKING:
    from kalshi_fast.batch import Batch

KINDS = ("snapshot", "delta", "clear", "gap")


class Rig:
    """A recorder whose batches are read out and released as a store would."""

    def __init__(
        self, seal_rows: int = 1000, tickers: tuple[str, ...] = ("A", "B"), *, yes_price: bool = False
    ) -> None:
        self.books = Books()
        self.now = 1_000_000_000_000_000_000
        self.pool = LocalPool(seal_rows, 4)
        self.events: list[dict[str, Any]] = []
        self.levels: dict[tuple[str, int, int], tuple[int, int]] = {}
        self.rejected: list[Any] = []
        self.health: list[Any] = []
        self.numbers: list[int] = []
        self.recorder = Recorder(self.books, self.pool, self.store, seal_rows=seal_rows)
        self.link = links.link(self.recorder, tickers, lambda: self.now, use_yes_price=yes_price)
        self.session = self.link.session
        self.connect(99)

    def connect(self, conn_id: int) -> None:
        """A connection whose subscription of all markets has sid 1, and a second one of market C sid 2."""
        links.grant(self.link, conn_id, self.now)
        self.session.subscriptions[2] = Subscription(2, {"C"})

    def store(self, batch: Batch) -> None:
        columns = {name: values[: batch.events.n].tolist() for name, values in batch.events.arrays.items()}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            row["type"] = KINDS[row["type"]]
            row["ticker"] = self.books.tickers[row["market_ix"]]
            self.events.append(row)
        columns = {name: values[: batch.levels.n].tolist() for name, values in batch.levels.arrays.items()}
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            key = (self.books.tickers[row["market_ix"]], row["side"], row["price_e4"])
            assert row["version"] > self.levels.get(key, (0, 0))[1]
            self.levels[key] = (row["size_e2"], row["version"])
        self.rejected += batch.rejected
        self.health += batch.health
        self.numbers.append(batch.number)
        self.pool.release(batch)

    def feed(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.now += 1000
            self.link.feed(payload, self.now)

    def sealed(self) -> list[dict[str, Any]]:
        self.recorder.seal()
        return self.events

    def said(self) -> list[Any]:
        """The rows of feed_health so far."""
        self.sealed()
        return self.health

    def kinds(self) -> list[str]:
        return [row["type"] for row in self.sealed()]

    def asked(self) -> list[Any]:
        commands = [json.loads(command)["params"] for command in self.session.outbox]
        self.session.outbox.clear()
        return [(params["action"], params["sid"], params["market_tickers"]) for params in commands]

    def check(self) -> None:
        """What a reader makes of the rows is what the recorder holds; the level states say the same."""
        rebuilt: dict[str, dict[tuple[int, int], int] | None] = {}
        for row in self.sealed():
            ticker, level = row["ticker"], (row["side"], row["price_e4"])
            match row["type"]:
                case "clear":
                    rebuilt[ticker] = {}
                case "gap":
                    rebuilt[ticker] = None
                case _:
                    book = rebuilt.get(ticker)
                    if book is not None:
                        book[level] = book.get(level, 0) + row["qty_e2"]
                        assert book[level] >= 0
        for ticker, market in self.books.by_ticker.items():
            known = rebuilt.get(ticker)
            replica = market.active
            assert market.book.stale == (known is None) == (not market.known)
            if isinstance(replica.subscription, Subscription):
                assert self.session.exact(replica.subscription.sid, ticker) == (not market.book.stale)
            held = {
                (side, price): size
                for side in (YES, NO)
                for price, size in zip(*(array.tolist() for array in market.book.ladder(side)), strict=True)
            }
            if known is not None:
                assert {level: size for level, size in known.items() if size} == held
            states = {
                key[1:]: state[0] for key, state in self.levels.items() if key[0] == ticker and state[0]
            }
            assert states == held
        assert self.numbers == list(range(1, len(self.numbers) + 1))
        assert len(self.events) == self.recorder.counts.events


START = (
    snapshot(1, "A", yes=[("0.0800", "300.00")], no=[("0.5400", "20.00")]),
    snapshot(2, "B", no=[("0.50", "1.00")]),
)


def test_snapshot_and_delta_become_rows() -> None:
    rig = Rig()
    rig.feed(*START, delta(3, "0.0800", "-54.50", ts_ms=1669149841123), delta(4, "0.0900", "1.00", side="no"))
    rows = rig.sealed()
    assert [
        (row["type"], row["ticker"], row["side"], row["price_e4"], row["qty_e2"], row["seq"]) for row in rows
    ] == [
        ("clear", "A", YES, 0, 0, 1),
        ("snapshot", "A", YES, 800, 30_000, 1),
        ("snapshot", "A", NO, 5400, 2000, 1),
        ("clear", "B", YES, 0, 0, 2),
        ("snapshot", "B", NO, 5000, 100, 2),
        ("delta", "A", YES, 800, -5450, 3),
        ("delta", "A", NO, 900, 100, 4),
    ]
    assert {row["conn_id"] for row in rows} == {99}
    assert rows[5]["ts_us"] == 1669149841123000
    assert rows[6]["ts_us"] == rig.now // 1000, "no time of the exchange: the receive time"
    assert rig.books.ids == [NIL_ID, MARKET_ID]
    assert {row["id_ix"] for row in rows} == {1}
    assert rig.books.by_ticker["A"].book.size_at(YES, 800) == 24_550
    rig.check()


def test_one_sid_many_markets_each_with_its_own_book() -> None:
    rig = Rig()
    rig.feed(*START, delta(3, "0.50", "7.00", side="no", ticker="B"), delta(4, "0.0800", "1.00"))
    assert rig.books.by_ticker["A"].book.size_at(YES, 800) == 30_100
    assert rig.books.by_ticker["B"].book.size_at(NO, 5000) == 800
    assert rig.recorder.counts.gaps == 0
    rig.check()


def test_an_empty_book_is_recorded_too() -> None:
    rig = Rig()
    rig.feed(snapshot(1, "A"))
    assert rig.kinds() == ["clear"]
    assert not rig.books.by_ticker["A"].book.stale
    rig.check()


def test_gap_makes_every_book_of_the_sid_unknown_until_its_own_snapshot() -> None:
    rig = Rig()
    rig.feed(*START, snapshot(1, "C", sid=2))
    rig.feed(delta(5, "0.0800", "1.00"))  # 3 and 4 are missing
    assert rig.asked() == [("get_snapshot", 1, ["A", "B"])]
    books = rig.books.by_ticker
    assert books["A"].book.stale
    assert books["B"].book.stale
    assert not books["C"].book.stale
    rig.feed(
        snapshot(6, "A", yes=[("0.0900", "5.00")]),
        delta(7, "0.0900", "1.00"),
        delta(8, "0.5", "1.00", ticker="B"),
    )
    assert not books["A"].book.stale
    assert books["A"].book.size_at(YES, 900) == 600
    assert books["A"].book.size_at(YES, 800) == 0
    assert books["B"].book.stale
    rows = rig.sealed()
    gaps = [(row["ticker"], row["seq"]) for row in rows if row["type"] == "gap"]
    assert gaps == [("A", 3), ("B", 3)], "with the first missing number"
    assert [row["seq"] for row in rows if row["type"] == "delta"] == [5, 7, 8], "deltas are kept all the same"
    assert rig.recorder.counts.gaps == 1
    assert rig.levels["A", YES, 800][0] == 0, "a level that vanished in the resync is written as 0"
    rig.check()


def test_repeated_frames_are_counted_and_not_used_again() -> None:
    rig = Rig()
    rig.feed(*START, delta(3, "0.0800", "1.00"), delta(3, "0.0800", "1.00"), delta(2, "0.0800", "1.00"))
    assert rig.books.by_ticker["A"].book.size_at(YES, 800) == 30_100
    assert rig.recorder.counts.repeated == 2
    assert rig.recorder.counts.deltas == 1
    rig.check()


def test_ok_unsubscribed_and_scoped_errors_take_numbers_too() -> None:
    rig = Rig()
    rig.feed(
        *START,
        b'{"id":2,"type":"ok","sid":1,"seq":3,"msg":{"market_tickers":["A"]}}',
        b'{"id":3,"type":"error","sid":1,"seq":4,"msg":{"code":11,"msg":"bad"}}',
        b'{"type":"market_mood","sid":1,"seq":5,"msg":{}}',
        b'{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":1}}',
        delta(6, "0.0800", "1.00"),
        b'{"id":4,"type":"unsubscribed","sid":1,"seq":7}',
    )
    assert rig.recorder.counts.gaps == 0
    assert rig.recorder.counts.unknown_types == {"market_mood": 1}
    rig.check()


def test_a_delta_that_cannot_be_true_costs_that_book_only() -> None:
    for change in ("-300.01", "-0.01"):
        rig = Rig()
        rig.feed(*START, delta(3, "0.0800" if change == "-300.01" else "0.0900", change))
        assert rig.asked() == [("get_snapshot", 1, ["A"])]
        rig.feed(delta(4, "0.0800", "1.00"), delta(5, "0.50", "1.00", side="no", ticker="B"))
        assert rig.kinds()[5:] == ["gap", "delta", "delta"]
        assert rig.rejected[0].payload == delta(3, "0.0800" if change == "-300.01" else "0.0900", change)
        assert "A" in rig.rejected[0].reason
        assert not rig.books.by_ticker["B"].book.stale
        assert rig.asked() == [], "asked once"
        rig.feed(snapshot(6, "A"), delta(7, "0.01", "1.00"))
        rig.check()
        assert rig.recorder.counts.rejected == 1


def test_bad_fields_are_named_and_the_book_is_unknown() -> None:
    bad = [
        delta(3, "1.5", "1.00"),
        delta(3, "0.08001", "1.00"),
        delta(3, "0.08", "1.001"),
        frame("orderbook_delta", 1, 3, market_ticker="A", side="yes", price=101, delta=1),
        frame("orderbook_delta", 1, 3, market_ticker="A", side="yes", price=8),
        frame("orderbook_delta", 1, 3, market_ticker="A", side="yes"),
        frame("orderbook_delta", 1, 3, market_ticker="A", side="both", price=8, delta=1),
        snapshot(3, "A", yes=[("0.08", "-1.00")]),
        snapshot(3, "A", yes=[("0.08", "1.00"), ("0.0800", "2.00")]),
        snapshot(3, "A", no=[("2", "1.00")]),
    ]
    for payload in bad:
        rig = Rig()
        rig.feed(*START, payload)
        assert rig.recorder.counts.rejected == 1, payload
        assert rig.books.by_ticker["A"].book.stale, payload
        assert not rig.books.by_ticker["B"].book.stale, payload
        assert rig.kinds()[-1] == "gap"
        assert rig.asked() == [("get_snapshot", 1, ["A"])]
        rig.feed(snapshot(4, "A", yes=[("0.0800", "1.00")]))
        assert rig.recorder.counts.gaps == 0, "its number was counted"
        rig.check()


def test_a_frame_without_a_readable_ticker_makes_the_whole_sid_unknown() -> None:
    rig = Rig()
    rig.feed(*START, frame("orderbook_delta", 1, 3, market_ticker=5, side="yes"))
    assert rig.kinds()[-2:] == ["gap", "gap"]
    rig.check()


def test_a_book_frame_that_cannot_be_counted_makes_unknown_what_it_may_have_been_about() -> None:
    body = {"market_ticker": "A", "price_dollars": "0.0800", "delta_fp": "1.00", "side": "yes"}
    for payload, of_other_sid in (
        (b'{"type":"orderbook_delta","sid":1,"se\xff', True),  # what is left of one
        (frame("orderbook_delta", None, 3, **body), True),
        (frame("orderbook_delta", 1, None, **body), False),
        (frame("orderbook_delta", 1, 3, **body).replace(b'"seq": 3', b'"seq": "x"'), False),
        (frame("orderbook_delta", 1, 3, **body).replace(b'"sid": 1', b'"sid": -1'), True),
        (frame("x", None, 3, **body).replace(b'"x"', b"7"), True),
    ):
        rig = Rig()
        rig.feed(*START, snapshot(1, "C", sid=2), payload)
        stale = {ticker for ticker, market in rig.books.by_ticker.items() if market.book.stale}
        assert stale == ({"A", "B", "C"} if of_other_sid else {"A", "B"}), payload
        rig.recorder.seal()
        assert [one.payload for one in rig.rejected] == [payload]
        assert rig.recorder.counts.gaps == 0
        rig.feed(delta(4, "0.0800", "1.00"))
        assert rig.recorder.counts.gaps == 1, "its number has not been counted"
        rig.check()


def test_what_is_no_frame_of_a_book_and_has_no_number_harms_nobody() -> None:
    rig = Rig()
    rig.feed(*START, b"\xff", b"", b"heartbeat", b"[]", b'{"type":"trade","sid":"x","seq":3,"msg":{}}')
    assert rig.recorder.counts.rejected == 5
    assert not rig.books.by_ticker["A"].book.stale
    assert rig.recorder.counts.losses.rejected == {"unreadable": 4, "trade": 1}
    rig.check()


def test_a_frame_of_a_market_that_cannot_exist_harms_nobody() -> None:
    rig = Rig()
    rig.feed(*START, delta(3, "0.08", "1.00", ticker="lower'; DROP"), delta(4, "0.0800", "1.00"))
    assert rig.recorder.counts.foreign == 1
    assert set(rig.books.by_ticker) == {"A", "B"}
    assert not rig.books.by_ticker["A"].book.stale
    rig.check()


def test_bad_frames_of_other_channels_leave_the_books_alone() -> None:
    rig = Rig()
    rig.feed(*START, b'{"type":"trade","sid":1,"seq":3,"msg":{"trade_id":1}}', delta(4, "0.0800", "1.00"))
    assert rig.recorder.counts.rejected == 1
    assert not rig.books.by_ticker["A"].book.stale
    assert rig.recorder.counts.gaps == 0


def test_no_side_prices_on_the_yes_scale_are_stored_like_all_others() -> None:
    """The same market told in both conventions (use_yes_price) gives the same book and the same rows."""
    told = []
    for yes_price in (False, True):
        rig = Rig(yes_price=yes_price)

        def no(price: int, *, yes_price: bool = yes_price) -> str:
            return f"0.{10_000 - price if yes_price else price:04d}"

        rig.feed(
            snapshot(1, "A", yes=[("0.0800", "3.00")], no=[(no(5400), "20.00"), (no(5605), "1.50")]),
            delta(2, no(5400), "-5.00", side="no"),
            delta(3, no(5500), "7.25", side="no"),
            delta(4, "0.0900", "1.00"),
            frame("orderbook_delta", 1, 5, market_ticker="A", side="no", price=int(no(5500)[2:4]), delta=2),
        )
        assert rig.books.by_ticker["A"].book.ladders() == (
            [(900, 100), (800, 300)],
            [(5605, 150), (5500, 925), (5400, 1500)],
        )
        rig.check()
        assert f"on the {'yes' if yes_price else 'no'} scale" in rig.health[0].detail
        told.append([(row["side"], row["price_e4"], row["qty_e2"]) for row in rig.events])
    assert told[0] == told[1]


def test_frames_of_no_subscription_of_ours_touch_nothing() -> None:
    rig = Rig()
    rig.feed(*START, delta(1, "0.0800", "1.00", sid=77), delta(3, "0.0800", "1.00", ticker="C"))
    assert rig.recorder.counts.foreign == 2
    assert rig.books.by_ticker["A"].book.size_at(YES, 800) == 30_000
    assert set(rig.books.by_ticker) == {"A", "B"}
    rig.feed(delta(4, "0.0800", "1.00"))
    assert rig.recorder.counts.gaps == 0, "the number of a foreign market's frame counts all the same"
    rig.check()


def test_a_removed_market_is_unknown_from_then_on() -> None:
    rig = Rig()
    rig.feed(*START)
    rig.link.remove(["A"])
    assert rig.asked() == [("delete_markets", 1, ["A"])]
    rig.feed(delta(3, "0.0800", "1.00"), delta(4, "0.5000", "1.00", side="no", ticker="B"))
    rows = rig.sealed()
    assert [(row["type"], row["ticker"], row["seq"]) for row in rows[5:]] == [
        ("gap", "A", 3),
        ("delta", "B", 4),
    ]
    rig.check()


def test_a_market_that_is_let_go_leaves_no_book_and_comes_back_under_its_number() -> None:
    rig = Rig()
    rig.feed(*START)
    rig.link.remove(["A"])
    rig.recorder.forget(["A", "NEVER-SEEN"], rig.now)
    rig.check()
    assert rig.books.by_ticker.keys() == rig.link.replicas.keys() == {"B"}
    assert not any(size for (ticker, *_), (size, _) in rig.levels.items() if ticker == "A")
    rig.feed(delta(3, "0.0800", "1.00"), delta(4, "0.5000", "1.00", side="no", ticker="B"))
    rig.check()
    assert rig.recorder.counts.foreign == 1
    assert rig.books.tickers == ["A", "B"]
    rig.session.subscriptions[1].tickers.add("A")
    rig.feed(snapshot(5, "A", yes=[("0.0900", "2.00")]), delta(6, "0.0900", "1.00"))
    rig.check()
    assert rig.books.tickers == ["A", "B"]
    assert rig.books.by_ticker["A"].book.size_at(YES, 900) == 300


def test_disconnect_makes_everything_unknown_once() -> None:
    rig = Rig()
    rig.feed(*START)
    rig.link.on_disconnected(rig.now + 1, "gone")
    rig.link.on_disconnected(rig.now + 2, "gone")
    assert rig.kinds()[5:] == ["gap", "gap"]
    rig.connect(100)
    rig.feed(snapshot(1, "A"), delta(2, "0.08", "2.00"))
    assert rig.sealed()[-1]["conn_id"] == 100
    assert rig.books.by_ticker["A"].book.size_at(YES, 800) == 200
    assert [event.event for event in rig.health] == ["connect", "disconnect", "disconnect", "connect"]
    rig.check()


def test_terminal_error_makes_the_books_unknown_and_subscribes_again() -> None:
    rig = Rig()
    rig.feed(*START)
    del rig.session.subscriptions[2]
    rig.feed(b'{"type":"error","sid":1,"seq":3,"msg":{"code":25,"msg":"buffer overflow"}}')
    assert rig.kinds()[-2:] == ["gap", "gap"]
    assert rig.session.outbox == [], "not at once"
    rig.now = rig.session.wake_ns
    rig.link.on_tick(rig.now)
    assert json.loads(rig.session.outbox[0])["cmd"] == "subscribe"
    rig.check()


def test_prices_widen_a_grid_whether_it_was_declared_or_not() -> None:
    rig = Rig()
    rig.feed(*START)
    book = rig.books.by_ticker["A"].book
    assert book.grid == LINEAR_CENT
    rig.feed(delta(3, "0.0805", "1.25"))
    assert book.size_at(YES, 805) == 125
    lifecycle = {"event_type": "price_level_structure_updated", "price_level_structure": "linear_cent"}
    rig.feed(frame("market_lifecycle_v2", 5, 1, market_ticker="B", **lifecycle))
    rig.feed(delta(4, "0.0810", "1.00", ticker="B"))
    assert rig.books.by_ticker["B"].book.size_at(YES, 810) == 100
    assert not rig.books.by_ticker["B"].book.stale, "off the declared grid, which costs the book nothing"
    told = [row for row in rig.said() if row.event == "grid"]
    assert [row.market_ticker for row in told] == ["B"]
    assert "off the declared grid Grid('linear_cent', 101 ticks), which is widened" in told[0].detail
    rig.feed(delta(5, "0.0820", "1.00", ticker="B"))
    assert [row.event for row in rig.said()].count("grid") == 1, "said once"
    ranges = [{"start": "0.0000", "end": "1.0000", "step": "0.0010"}]
    rig.feed(frame("market_lifecycle_v2", 5, 2, market_ticker="B", event_type="x", price_ranges=ranges))
    rig.feed(snapshot(6, "B", yes=[("0.0810", "1.00")]))
    assert rig.books.by_ticker["B"].book.grid == Grid("same", DECI_CENT.ranges)
    rig.check()


def test_a_grid_without_every_cent_widens_too() -> None:
    """Ranges may be anything: a market of steps of 5 cents, under a name that nobody knows."""
    rig = Rig()
    rig.feed(*START)
    ranges = [{"start": "0.0000", "end": "1.0000", "step": "0.0500"}]
    told = {"event_type": "created", "price_level_structure": "center_five_cents", "price_ranges": ranges}
    rig.feed(frame("market_lifecycle_v2", 5, 1, market_ticker="B", **told))
    rig.feed(snapshot(3, "B", yes=[("0.0500", "1.00")], no=[("0.1000", "2.00")]))
    book = rig.books.by_ticker["B"].book
    assert (book.grid.name, book.grid.n_ticks) == ("center_five_cents", 21)
    rig.feed(delta(4, "0.0300", "4.00", ticker="B"))
    assert rig.books.by_ticker["B"].book.size_at(YES, 300) == 400
    assert rig.books.by_ticker["B"].book.grid == LINEAR_CENT
    rig.feed(snapshot(5, "B", yes=[("0.0501", "1.00")], no=[("0.1000", "2.00")]))
    assert rig.books.by_ticker["B"].book.size_at(YES, 501) == 100
    assert not rig.books.by_ticker["B"].book.stale
    rig.check()


def test_a_grid_that_the_resting_levels_do_not_fit_changes_nothing() -> None:
    rig = Rig()
    rig.feed(*START, delta(3, "0.0805", "1.00"))
    body = {"event_type": "price_level_structure_updated", "price_level_structure": "linear_cent"}
    rig.feed(frame("market_lifecycle_v2", 5, 1, market_ticker="A", **body))
    assert not rig.books.by_ticker["A"].book.stale
    assert rig.books.by_ticker["A"].book.size_at(YES, 805) == 100
    assert rig.asked() == []
    rig.feed(snapshot(4, "A", yes=[("0.0700", "1.00")]))
    assert rig.books.by_ticker["A"].book.grid is LINEAR_CENT, "the next snapshot begins with it"
    rig.check()
    assert rig.levels["A", YES, 805][0] == rig.levels["A", YES, 800][0] == 0


@pytest.mark.parametrize(
    "ranges",
    [
        [{"start": "0.0000", "end": "1.0000", "step": "0.0300"}],
        [{"start": "0.5000", "end": "0.4000", "step": "0.0100"}],
        [{"start": "zero", "end": "1.0000", "step": "0.0100"}],
        [{"start": "0.0000", "end": "1.0000", "step": "0.0000"}],
    ],
)
def test_ranges_that_cannot_be_leave_it_to_the_name_and_the_prices(ranges: list[dict[str, str]]) -> None:
    rig = Rig()
    rig.feed(*START)
    told = {"event_type": "created", "price_level_structure": "deci_cent", "price_ranges": ranges}
    rig.feed(frame("market_lifecycle_v2", 5, 1, market_ticker="A", **told))
    assert rig.books.by_ticker["A"].book.grid is DECI_CENT
    told["price_level_structure"] = "nobody_knows"
    rig.feed(frame("market_lifecycle_v2", 5, 2, market_ticker="B", **told))
    rig.feed(delta(3, "0.0801", "1.00", ticker="B"))
    assert rig.books.by_ticker["B"].book.size_at(YES, 801) == 100
    assert rig.recorder.counts.rejected == 0
    rig.check()


def test_names_from_outside_are_counted_within_bounds() -> None:
    rig = Rig()
    rig.feed(*(json.dumps({"type": f"new_{n}" + "x" * 500}).encode() for n in range(1500)))
    found = rig.recorder.counts.unknown_types
    assert found.total() == 1500
    assert len(found) == 1001
    assert found["(others)"] == 500
    assert max(map(len, found)) == 100


def test_legacy_frames_without_market_id() -> None:
    rig = Rig()
    rig.feed(
        frame("orderbook_snapshot", 1, 1, market_ticker="A", yes=[[8, 300]], no=[[54, 20]]),
        frame(
            "orderbook_delta",
            1,
            2,
            market_ticker="A",
            side="yes",
            price=8,
            delta=-54,
            ts="2025-11-04T01:10:36.31Z",
        ),
    )
    rows = rig.sealed()
    assert [row["qty_e2"] for row in rows] == [0, 30_000, 2000, -5400]
    assert rows[-1]["ts_us"] == 1762218636310000
    assert rig.books.ids == [NIL_ID]
    rig.feed(delta(3, "0.08", "1.00"))
    assert [row["id_ix"] for row in rig.sealed()] == [0, 0, 0, 0, 1], "known from now on"
    assert rig.books.ids == [NIL_ID, MARKET_ID]
    rig.check()


def test_small_batches_hold_the_same_rows() -> None:
    levels = [(f"0.{cents:02d}", "1.00") for cents in range(1, 90)]
    frames = [snapshot(1, "A", yes=levels), *(delta(seq, "0.50", "1.00") for seq in range(2, 40))]
    rigs = [Rig(seal_rows=size) for size in (1, 3, 1000)]
    for rig in rigs:
        rig.feed(*frames)
        rig.check()
    assert rigs[0].events == rigs[1].events == rigs[2].events
    assert rigs[0].pool.made <= 4


@st.composite
def sequences(draw: st.DrawFn) -> list[bytes]:
    """A believable stream of one sid, with frames lost, doubled and damaged."""
    rng = draw(st.randoms(use_true_random=False))
    frames: list[bytes] = []
    for seq in range(1, draw(st.integers(1, 60))):
        ticker = rng.choice("AB")
        price = rng.choice(["0.05", "0.0510", "0.95", "0.4805"])
        if rng.random() < 0.25:
            payload = snapshot(seq, ticker, yes=[(price, f"{rng.randrange(500)}.{rng.randrange(100):02d}")])
        else:
            size = f"{rng.randrange(-5, 40)}.{rng.randrange(100):02d}"
            payload = delta(seq, price, size, side=rng.choice(["yes", "no"]), ticker=ticker)
        fate = rng.random()
        if fate < 0.05:
            continue
        frames.append(mutated(rng, payload) if fate < 0.12 else payload)
        if fate > 0.95:
            frames.append(payload)
    return frames


@settings(max_examples=40 if FEW else 300)
@given(sequences(), st.sampled_from([1, 7, 500]))
def test_rows_always_rebuild_the_books(frames: list[bytes], seal_rows: int) -> None:
    rig = Rig(seal_rows)
    rig.feed(*frames)
    rig.check()


def test_a_hundred_thousand_mutated_frames_never_corrupt_a_book() -> None:
    rng = random.Random(1124)
    rig = Rig(seal_rows=500)
    examples = list(EXAMPLES.values())
    for number in range(5_000 if FEW else 100_000):
        if number % 50 == 0 or 1 not in rig.session.subscriptions:  # a frame may have ended it
            rig.check()
            rig = Rig(seal_rows=500)
            rig.feed(*START)
        seq = rig.session.subscriptions[1].next_seq
        original = delta(seq, "0.0800", "1.00") if rng.random() < 0.5 else rng.choice(examples)
        rig.feed(mutated(rng, original) if rng.random() < 0.9 else original)
    rig.check()


def test_a_refused_snapshot_after_a_new_grid_leaves_no_levels_behind() -> None:
    rig = Rig()
    rig.feed(*START, delta(3, "0.0850", "1.00"))
    coarse = [{"start": "0.0000", "end": "1.0000", "step": "0.0100"}]
    rig.feed(frame("market_lifecycle_v2", 2, 1, market_ticker="A", event_type="x", price_ranges=coarse))
    rig.feed(snapshot(4, "A", yes=[("0.08", "1"), ("0.0800", "2")]))
    rig.check()
    rig.feed(snapshot(5, "A", yes=[("0.10", "1.00")]))
    rig.check()
    assert {key[1:]: size for key, (size, _) in rig.levels.items() if key[0] == "A" and size} == {
        (YES, 1000): 100
    }
