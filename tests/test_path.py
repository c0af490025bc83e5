"""The fast path and the long way (msgspec) are the same function: for every frame, however spoilt, both give
the same rows, the same books, the same sequence numbers and the same counts. What is in the usual form does
go the fast way."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import links
from conftest import FEW
from frames import MARKET_ID
from kalshi_fast import wire
from kalshi_fast._book import SIDES
from kalshi_fast._decode import price_e4, qty_e2, rfc3339_us
from kalshi_fast.bench.workload import on_the_wire
from kalshi_fast.books import Books
from kalshi_fast.errors import FrameError
from kalshi_fast.pool import LocalPool
from kalshi_fast.recorder import Recorder
from kalshi_fast.subscription import Subscription
from test_wire import mutated

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast._path import DeltaPath
    from kalshi_fast.batch import Batch

TICKERS = ("KXA-26DEC31-T1.5", "KXB-26DEC31")
OTHER_ID = "11111111-2222-4333-8444-555555555555"


class LongWay:
    """A path that takes nothing: every frame is decoded with msgspec."""

    def __init__(self, path: DeltaPath) -> None:
        self.__dict__["path"] = path

    def take(self, read: bytes, ingest_ns: int, start: int = 0, end: int = -1, last: bool = True) -> int:
        return 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.path, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(self.path, name, value)


class Rig:
    def __init__(self, *, fast: bool, yes_price: bool = False, seal_rows: int = 50) -> None:
        self.now = 1_700_000_000_000_000_000
        self.books = Books()
        self.pool = LocalPool(seal_rows, 4)
        self.rows: list[Any] = []
        self.recorder = Recorder(self.books, self.pool, self.store, seal_rows=seal_rows)
        self.link = links.link(self.recorder, TICKERS, lambda: self.now, use_yes_price=yes_price)
        if not fast:
            self.link.path = LongWay(self.link.path)  # type: ignore[assignment]
        links.grant(self.link, 9, self.now)
        for seq, ticker in enumerate(TICKERS, 1):
            self.feed(
                b'{"type":"orderbook_snapshot","sid":1,"seq":%d,"msg":{"market_ticker":"%b","market_id":"%b",'
                b'"yes_dollars_fp":[["0.0800","300.00"],["0.5005","2.50"]],"no_dollars_fp":[["0.4000","1.00"]]}}'
                % (seq, ticker.encode(), MARKET_ID.encode())
            )

    def store(self, batch: Batch) -> None:
        for columns in (batch.events, batch.levels):
            self.rows += links.rows(columns)
        self.rows += [(event.event, event.sid, event.seq, event.market_ticker) for event in batch.health]
        self.rows += [rejected.payload for rejected in batch.rejected]
        self.pool.release(batch)

    def feed(self, payload: bytes) -> None:
        self.now += 1000
        self.link.feed(payload, self.now)

    def read(self, payloads: list[bytes], rest: bytes = b"") -> None:
        """Frames that came with one read, and the beginning of one more, as ``FrameListener`` takes them."""
        self.now += 1000
        read, at = b"".join(map(on_the_wire, payloads)) + rest, 0
        for number, payload in enumerate(payloads, 1):
            at += len(on_the_wire(payload))
            last = number == len(payloads)
            taken = self.link.path.take(read, self.now, at - len(payload), at, last=last)
            if taken == 0:
                self.link.on_frame(payload, self.now)
            elif taken == 2:
                self.link.on_full()

    def state(self) -> tuple[Any, ...]:
        self.recorder.seal()
        rows, self.rows = self.rows, []
        counts = self.recorder.counts
        sequences = {sid: item.next_seq for sid, item in self.link.session.subscriptions.items()}
        books = {
            ticker: (market.book.ladders(), market.book.stale, market.known)
            for ticker, market in self.books.by_ticker.items()
        }
        figures = (
            counts.frames,
            counts.events,
            counts.deltas,
            counts.repeated,
            counts.foreign,
            counts.rejected,
        )
        return rows, sequences, books, figures, self.link.session.outbox[:], counts.batches


def same(frames: Iterable[bytes], **options: Any) -> Rig:  # noqa: ANN401
    payloads = list(frames)
    fast, slow = Rig(fast=True, **options), Rig(fast=False, **options)
    for payload in payloads:
        fast.feed(payload)
        slow.feed(payload)
    assert fast.state() == slow.state()
    same_by_reads(payloads, **options)
    return fast


def same_by_reads(payloads: list[bytes], **options: Any) -> None:  # noqa: ANN401
    """Several frames a read: what comes is looked at in advance, rows are written at its end."""
    fast, slow, rng = Rig(fast=True, **options), Rig(fast=False, **options), random.Random(len(payloads))
    while payloads:
        n = rng.choice((1, 2, 5, 100))
        read, payloads = payloads[:n], payloads[n:]
        rest = on_the_wire(payloads[0])[: rng.randrange(300)] if payloads else b""
        fast.read(read, rest)
        slow.read(read)
    assert fast.state() == slow.state()


def usual(
    seq: int,
    ticker: str = TICKERS[0],
    market_id: str = MARKET_ID,
    price: str = "0.0800",
    change: str = "1.00",
    side: str = "yes",
    times: str = ',"ts":"2026-11-25T01:02:03Z","ts_ms":1795000050500',
    sid: int | str = 1,
) -> bytes:
    return (
        f'{{"type":"orderbook_delta","sid":{sid},"seq":{seq},"msg":{{"market_ticker":"{ticker}","market_id":'
        f'"{market_id}","price_dollars":"{price}","delta_fp":"{change}","side":"{side}"{times}}}}}'
    ).encode()


def test_the_usual_frame_goes_the_fast_way() -> None:
    rig = Rig(fast=True)
    payloads = [
        usual(3),
        usual(4, side="no", price="0.4000", change="-0.50"),
        usual(5, times=',"ts":"yesterday","ts_ms":1795000050500'),
        usual(6, times=',"ts":"2026-11-25T01:02:03.456789Z"'),
        usual(7, times=',"ts_ms":1795000050500'),
        usual(8, ticker=TICKERS[1]),
    ]
    assert [rig.link.path.take(payload, rig.now) for payload in payloads] == [1] * 6
    assert rig.link.path.take(usual(8), rig.now) == 0, "a number that was"
    assert rig.link.path.take(usual(10), rig.now) == 0, "a gap"
    assert rig.link.path.take(usual(9, times=""), rig.now) == 0, "no time: that is counted"
    same(payloads)


@pytest.mark.parametrize(
    "spoilt",
    [
        {"price": "0.08"},
        {"price": "8e-2"},
        {"price": "00.0800"},
        {"price": "0.08000"},
        {"price": "1.0000"},
        {"price": "1.0001"},
        {"price": "0.0801"},
        {"price": "-0.0800"},
        {"price": "+0.0800"},
        {"price": " 0.0800"},
        {"price": ""},
        {"price": "0.0\\u0038"},
        {"change": "-300.00"},
        {"change": "-300.01"},
        {"change": "-0"},
        {"change": "1e2"},
        {"change": "99999999999999999999"},
        {"change": "90071992547409.00"},
        {"change": "1.005"},
        {"change": "1." + "0" * 100},
        {"side": "maybe"},
        {"side": "no"},
        {"side": 'yes","side":"no'},
        {"market_id": ""},
        {"market_id": OTHER_ID},
        {"market_id": MARKET_ID.upper()},
        {"market_id": MARKET_ID + "0"},
        {"market_id": "not a uuid"},
        {"ticker": "KXA-26DEC31-T1"},
        {"ticker": "KXA-26DEC31-T1.5\\u0000"},
        {"ticker": "X" * 200},
        {"times": ',"ts_ms":-1'},
        {"times": ',"ts_ms":1.5'},
        {"times": ',"ts_ms":01'},
        {"times": ',"ts_ms":0'},
        {"times": ',"ts_ms":9223372036854'},
        {"times": ',"ts_ms":9223372036855'},
        {"times": ',"ts_ms":99999999999999999999'},
        {"times": ',"ts_ms":null'},
        {"times": ',"ts":null,"ts_ms":5'},
        {"times": ',"ts":"yesterday"'},
        {"times": ',"ts":"yesterday","ts_ms":5'},
        {"times": ',"ts":"a\\"b","ts_ms":5'},
        {"times": ',"ts":"\x01","ts_ms":5'},
        {"times": ',"ts":"é","ts_ms":5'},
        {"times": ',"ts":"' + "x" * 500 + '","ts_ms":5'},
        {"times": ',"ts_ms":5,"ts":"2026-11-25T01:02:03Z"'},
        {"times": ',"ts_ms":5,"client_order_id":"x"'},
        {"times": ',"ts_ms":5}'},
        {"times": ' ,"ts_ms":5'},
        {"sid": "01"},
        {"sid": 4294967297},
        {"sid": "1.0"},
        {"sid": "true"},
        {"seq": 0},
        {"seq": 2},
        {"seq": 9},
        {"seq": "3.0"},
        {"seq": "03"},
        {"seq": "3e0"},
        {"seq": 18446744073709551619},
    ],
    ids=str,
)
@pytest.mark.parametrize("yes_price", [False, True])
def test_exotic_frames_are_the_same_on_both_ways(spoilt: dict[str, Any], yes_price: bool) -> None:
    spoilt = {"seq": 3} | spoilt
    same([usual(**spoilt), usual(4), usual(5, TICKERS[1])], yes_price=yes_price)


@settings(max_examples=30 if FEW else 400)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 50]), st.booleans())
def test_spoilt_streams_are_the_same_on_both_ways(seed: int, seal_rows: int, yes_price: bool) -> None:
    rng = random.Random(seed)
    payloads = []
    seq = 3
    for _ in range(60):
        payload = usual(
            seq,
            rng.choice(TICKERS),
            rng.choice([MARKET_ID] * 9 + [OTHER_ID]),
            rng.choice(["0.0800", "0.5005", "0.4", "0.9990", "1", "0"]),
            f"{rng.choice(['', '-'])}{rng.randrange(40)}.{rng.randrange(100):02d}",
            rng.choice(["yes", "no"]),
            rng.choice(["", ',"ts_ms":1795000050500', ',"ts":"2026-11-25T01:02:03Z"']),
        )
        fate = rng.random()
        if fate < 0.9:
            seq += 1
        elif fate < 0.93:
            seq += 2
        payloads.append(mutated(rng, payload) if rng.random() < 0.15 else payload)
        if rng.random() < 0.1:
            payloads.append(
                b'{"type":"orderbook_snapshot","sid":1,"seq":%d,"msg":{"market_ticker":"%b","market_id":"%b",'
                b'"yes_dollars_fp":[["0.0800","30.00"]]}}'
                % (seq, rng.choice(TICKERS).encode(), MARKET_ID.encode())
            )
            seq += 1
    same(payloads, seal_rows=seal_rows, yes_price=yes_price)


def told_us(ts: str | None, ts_ms: int | None, otherwise: int) -> int:
    """``ts`` where ``ts_ms`` says the same or is not there, else ``ts_ms``."""
    if ts is None:
        return otherwise if ts_ms is None else ts_ms * 1000
    try:
        ts_us = rfc3339_us(ts)
    except FrameError:
        assert ts_ms is not None, "a time that is no time"
        return ts_ms * 1000
    return ts_us if ts_ms is None or ts_us // 1000 == ts_ms else ts_ms * 1000


class Again(Rig):
    """Every frame finds exact books and its own number expected: nothing that came before can keep it from
    being taken. One that is taken must be what msgspec and the long way's own functions read."""

    def __init__(self, seq: int) -> None:
        super().__init__(fast=True, seal_rows=50_000)
        self.subscription = self.link.session.subscriptions[1]
        self.seq = seq
        self.sizes: Counter[tuple[str, int, int]] = Counter()
        for ticker in TICKERS:
            book = self.books.by_ticker[ticker].book
            self.sizes.update({(ticker, s, p): q for s in (0, 1) for p, q in book.ladders()[s]})

    def give(self, payload: bytes) -> bool:
        """Whether it was taken."""
        self.subscription.next_seq = self.seq
        if self.link.path.take(payload, self.now) == 0:
            assert self.subscription.next_seq == self.seq
            return False
        assert self.subscription.next_seq == self.seq + 1
        message = wire.decode(payload)
        assert isinstance(message, wire.OrderbookDelta), payload
        body = message.msg
        assert body.market_id == MARKET_ID, payload
        assert body.price_dollars is not None, payload
        assert body.delta_fp is not None, payload
        side, price, change = SIDES.index(body.side), price_e4(body.price_dollars), qty_e2(body.delta_fp)
        ts_us = told_us(body.ts, body.ts_ms, self.now // 1000)
        columns = self.recorder._batch.events
        row = {name: array[columns.n - 1] for name, array in columns.arrays.items()}
        names = ("sid", "seq", "side", "price_e4", "qty_e2", "ts_us")
        expected = (1, self.seq, side, price, change, ts_us)
        assert tuple(row[name] for name in names) == expected, payload
        assert self.books.tickers[row["market_ix"]] == body.market_ticker, payload
        level = (body.market_ticker, side, price)
        self.sizes[level] += change
        assert self.books.by_ticker[level[0]].book.size_at(side, price) == self.sizes[level], payload
        if columns.n == 50_000:
            self.link.on_full()
        return True


def test_a_hundred_thousand_mutations_of_one_frame_are_taken_for_what_they_are() -> None:
    rng, rig = random.Random(99), Again(3)
    bases = [
        usual(3),
        usual(3, TICKERS[1], price="0.4000", side="no"),
        usual(3, times=',"ts_ms":1795000050500'),
    ]
    taken = sum(rig.give(mutated(rng, rng.choice(bases))) for _ in range(5_000 if FEW else 100_000))
    assert taken > 50


@pytest.mark.parametrize("seq", [3, 9_999_999_999_999_999, 10**16])
def test_every_byte_at_every_place_is_taken_for_what_it_is(seq: int) -> None:
    """The digits' neighbours, NUL, quotes, all; also when the next number is longer than the path knows."""
    rig = Again(seq)
    assert rig.give(usual(seq)) == (seq < 10**16)
    taken = 0
    for base in (
        usual(seq),
        usual(seq, TICKERS[1], price="0.4000", side="no", times=',"ts_ms":1795000050500'),
    ):
        for at in range(len(base)):
            values = range(256) if not FEW or at < 2 else b'\0/09:;?@"\\x\x80'
            for value in values:
                taken += rig.give(base[:at] + bytes([value]) + base[at + 1 :])
    assert (taken > 100) == (seq < 10**16)
    # The beginning without a number, whatever stands in the place of the brace.
    rest = usual(3)[usual(3).index(TICKERS[0].encode()) :]
    for value in range(256):
        assert not rig.give(bytes([value]) + b'"type":"orderbook_delta","sid":' + rest)


def test_mutations_in_a_row_are_the_same_on_both_ways() -> None:
    rng = random.Random(99)
    for _ in range(10 if FEW else 200):
        fast, slow = Rig(fast=True), Rig(fast=False)
        for _ in range(100):
            payload = mutated(rng, usual(fast.link.session.subscriptions[1].next_seq))
            fast.feed(payload)
            slow.feed(payload)
            if 1 not in fast.link.session.subscriptions:
                break
        assert fast.state() == slow.state()


def test_every_beginning_of_a_frame_is_the_same_on_both_ways() -> None:
    for times in ("", ',"ts":"2026-11-25T01:02:03Z","ts_ms":1795000050500', ',"ts_ms":1795000050500'):
        whole = usual(4, price="0.4000", side="no", times=times)
        same([usual(3, times=times), *(whole[:length] for length in range(len(whole))), whole])


@settings(max_examples=30 if FEW else 300)
@given(st.integers(0, 2**32))
def test_what_is_behind_a_frame_does_not_matter(seed: int) -> None:
    rng = random.Random(seed)
    rig = Rig(fast=True)
    for seq in range(3, 40):
        behind = on_the_wire(usual(seq + 1, rng.choice(TICKERS), price=rng.choice(["0.0800", "9.9999", "x"])))
        for _ in range(rng.randrange(3)):
            behind = rng.choice((mutated(rng, behind), rng.randbytes(rng.randrange(300)), behind + behind))
        frame = usual(seq, TICKERS[seq % 2], change=f"{seq}.00")
        assert rig.link.path.take(frame + behind, rig.now, 0, len(frame)) == 1
        assert rig.books.by_ticker[TICKERS[seq % 2]].book.size_at(0, 800) > 100 * seq


def test_rows_of_a_read_are_in_the_columns_at_its_end_however_many_they_are() -> None:
    fast, slow = Rig(fast=True, seal_rows=1000), Rig(fast=False, seal_rows=1000)
    payloads = [usual(seq, TICKERS[seq % 2], change="0.01") for seq in range(3, 503)]
    for rig in (fast, slow):
        rig.recorder.seal()
        rig.rows.clear()
        rig.read(payloads)
    assert fast.state() == slow.state()


def test_times_beyond_all_bounds_are_the_same_on_both_ways() -> None:
    before = ',"ts":"2026-11-25T01:02:03Z","ts_ms":'
    same(
        usual(seq, times=before + ms)
        for seq, ms in enumerate(
            (
                "1795000050500",
                "9999999999999",
                "1795000050501",
                "9223372036854",
                "9223372036855",
                "0000000000001",
            ),
            3,
        )
    )


def test_sequence_numbers_of_every_length_are_counted_on() -> None:
    rig = Rig(fast=True)
    subscription = rig.link.session.subscriptions[1]
    for start in (9, 99, 99_999_998, 999_999_999_999_998, 9_999_999_999_999_990):
        subscription.next_seq = start
        taken = [rig.link.path.take(usual(start + n), rig.now) for n in range(5)]
        assert taken == [1] * 5, start
        assert subscription.next_seq == start + 5
        assert rig.link.path.take(usual(start + 4), rig.now) == 0
    subscription.next_seq = 10**16  # longer than the fast path knows: the long way has it
    assert rig.link.path.take(usual(10**16), rig.now) == 0
    rig.feed(usual(10**16))
    assert subscription.next_seq == 10**16 + 1


class Many(Rig):
    """5,000 markets (or so many), on subscriptions of ``each`` markets. ``step``: from one sid to the next.

    A session has one sid. The path works with as many as it is given.
    """

    def __init__(self, *, fast: bool, markets: int = 5000, each: int = 1000, step: int = 1) -> None:
        super().__init__(fast=fast, seal_rows=20_000)
        self.names = [f"KX{n}-T{n % 7}" for n in range(markets)]
        self.link = links.link(self.recorder, self.names, lambda: self.now)
        self.link.on_connected(1, 1)
        self.link.session.outbox.clear()
        self.subscriptions = self.link.session.subscriptions
        for number, start in enumerate(range(0, markets, each)):
            sid = 1 + number * step
            carried = self.names[start : start + each]
            self.subscriptions[sid] = Subscription(sid, set(carried), self.now)
            self.subscriptions[sid].waiting.update(dict.fromkeys(carried, 0))
        self.sids = {ticker: sid for sid, item in self.subscriptions.items() for ticker in item.tickers}
        self.seqs = dict.fromkeys(self.subscriptions, 0)
        if not fast:
            self.link.path = LongWay(self.link.path)  # type: ignore[assignment]
        for name in self.names:
            self.feed(
                b'{"type":"orderbook_snapshot","sid":%d,"seq":%d,"msg":{"market_ticker":"%b","market_id":"%b"}}'
                % (self.sids[name], self.next_seq(name), name.encode(), MARKET_ID.encode())
            )

    def next_seq(self, name: str) -> int:
        self.seqs[self.sids[name]] += 1
        return self.seqs[self.sids[name]]

    def delta(self, number: int) -> bytes:
        """The next frame of a market: it gets its number of contracts more at 0.01."""
        name = self.names[number]
        return usual(
            self.next_seq(name), name, price="0.0100", change=f"{number + 1}.00", sid=self.sids[name]
        )


def test_many_markets_are_told_apart() -> None:
    rig = Many(fast=True)
    assert len(rig.sids) == 5000
    assert all(rig.link.path.take(rig.delta(number), 1) == 1 for number in range(5000))
    sizes = [rig.books.by_ticker[name].book.size_at(0, 100) for name in rig.names]
    assert sizes == [100 * (number + 1) for number in range(5000)]


def test_a_read_may_be_of_several_subscriptions() -> None:
    rigs = Many(fast=True), Many(fast=False)
    for rig in rigs:
        rng = random.Random(7)
        rig.read([rig.delta(rng.choice((0, 1, 1500, 4999))) for _ in range(400)])
    assert rigs[0].state() == rigs[1].state()


@pytest.mark.parametrize("step", [1, 32, 64])
def test_a_read_may_be_of_many_subscriptions(step: int) -> None:
    """Numbers of different lengths; one misses a frame, one is told twice, one ends meanwhile. Of those whose
    sids are 64 apart the path knows one at a time."""
    rigs = [Many(fast=fast, markets=40, each=4, step=step) for fast in (True, False)]
    for rig in rigs:
        assert len(rig.subscriptions) == 10
        for number, seq in ((1, 8), (2, 10**15), (8, 97), (9, 9_998)):
            sid = 1 + number * step
            rig.subscriptions[sid].next_seq, rig.seqs[sid] = seq, seq - 1
        rng = random.Random(3)
        rig.read([rig.delta(rng.randrange(40)) for _ in range(700)])
        assert rig.recorder.counts.deltas == 700
        rig.next_seq(rig.names[3])
        told = [rig.delta(rng.randrange(40)) for _ in range(300)]
        told[150:150] = [told[10], b'{"id":99,"sid":%d,"seq":9,"type":"unsubscribed"}' % (1 + 2 * step)]
        rig.read(told, rest=b"\x81\x7e")
    assert rigs[0].state() == rigs[1].state()
    assert rigs[0].recorder.counts.gaps > 0


def test_a_sid_that_is_given_anew_is_learned_at_once() -> None:
    rig = Rig(fast=True)
    assert rig.link.path.take(usual(3), rig.now) == 1
    before = rig.link.session.subscriptions[1]
    before.ended = True
    assert rig.link.path.take(usual(4), rig.now) == 0
    anew = Subscription(1, set(TICKERS), rig.now, 0)
    rig.link.session.subscriptions[1] = anew
    for replica in rig.link.replicas.values():
        replica.subscription = anew
    assert [rig.link.path.take(usual(seq), rig.now) for seq in (1, 2, 3)] == [1, 1, 1]
    assert (before.next_seq, anew.next_seq) == (4, 4)


def test_a_path_that_follows_no_subscription_takes_nothing_until_it_does() -> None:
    rig = Rig(fast=True)
    path, now = rig.link.path, rig.now
    assert path.take(usual(3), now) == 1
    path.follow({})
    assert path.take(usual(4), now) == 0
    path.follow(rig.link.session.subscriptions)
    path.no_on_yes_scale = True
    assert path.take(usual(4, side="no", price="0.4000"), now) == 1
    rig.recorder.seal()
    levels = rig.books.by_ticker[TICKERS[0]].book.ladders()[1]
    assert sorted(price for price, _ in levels) == [4000, 6000]  # 0.40 of the snapshot, 1 - 0.40 of the delta


def test_markets_that_are_let_go_are_not_looked_for_in_advance() -> None:
    rig = Many(fast=True)
    there, gone = rig.delta(0), rig.delta(4999)
    read = there + on_the_wire(gone)
    assert rig.link.path.take(read, rig.now, 0, len(there), last=False) == 1
    rig.link.path.forget({rig.names[4999]})
    assert rig.link.path.take(read, rig.now, len(read) - len(gone)) == 0
    assert rig.link.path.take(rig.delta(1), rig.now) == 1
