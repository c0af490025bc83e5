"""A replay of files: compiled books are the reference's, every way sees the same, starts are exact."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import kalshi_fast
from kalshi_fast import OrderBook, Strategy, replay
from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast._features import Features
from kalshi_fast._replay import BookTable, EventReader, Rows
from kalshi_fast.errors import FieldError, ReplayError, UnreachableError
from kalshi_fast.replaying.replay import whole_frames
from kalshi_fast.replaying.source import open_source
from kalshi_fast.replaying.tables import contracts, dollars, exact
from kalshi_fast.replaying.times import duration_ns, iso, moment_ns
from replay_model import ReferenceBook, digest, rows_of, some_rows, table_of, write

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast._replay import Event
    from replay_model import Row

START_NS = 1_795_000_000_000_000_000
ROWS = some_rows(3000)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three files that follow one another, in small row groups."""
    root = tmp_path_factory.mktemp("parquet")
    table = table_of(ROWS)
    for number, first in enumerate(range(0, len(ROWS), 1000)):
        path = root / "orderbook" / "date=2026-11-18" / f"part-11064{number}_000000.parquet"
        write(path, table.slice(first, 1000), row_group=128)
    return root


def reference(rows: list[Row], markets: int = 5) -> list[list[str | None]]:
    """The hash of every book behind every row."""
    books = [ReferenceBook() for _ in range(markets)]
    found = []
    for kind, market, side, price, qty in rows:
        books[market].apply(kind, side, price, qty)
        found.append([book.digest() for book in books])
    return found


def columns(rows: list[Row]) -> dict[str, Any]:
    dtypes = (np.int8, np.int32, np.int8, np.uint16, np.int64)
    names = ("type", "market_ix", "side", "price_e4", "qty_e2")
    values = zip(*rows, strict=True) if rows else [()] * 5
    return {name: np.array(v, dtype) for name, v, dtype in zip(names, values, dtypes, strict=True)}


any_row = st.tuples(
    st.sampled_from([SNAPSHOT, DELTA, DELTA, DELTA, CLEAR, CLEAR, GAP]),
    st.integers(0, 2),
    st.integers(0, 1),
    st.sampled_from([0, 100, 4500, 4510, 5550, 5551, 9990, 10_000, 10_001, 65_535]),
    st.integers(-300, 500),
)


@given(st.lists(any_row, max_size=80))
def test_compiled_books_are_those_of_the_reference(rows: list[Row]) -> None:
    """Whatever the rows are, also such as no recorder writes."""
    expected = reference(rows, 3)
    table = BookTable(3)
    whole = columns(rows)
    for number in range(len(rows)):
        table.apply(**whole, first=number, stop=number + 1)
        assert [digest(book) for book in table.books[:3]] == expected[number]
    at_once = BookTable()
    at_once.apply(**whole)
    assert at_once.applied == table.applied == len(rows)
    assert (at_once.faults, at_once.skipped) == (table.faults, table.skipped)
    assert at_once.books == table.books[: len(at_once)]


def test_columns_that_cannot_be_are_refused() -> None:
    table = BookTable()
    good = columns([(CLEAR, 0, 0, 0, 0)])
    for name, bad in (("market_ix", [-1]), ("market_ix", [1 << 30])):
        with pytest.raises(FieldError, match="market_ix"):
            table.apply(**{**good, name: np.array(bad, np.int32)})
    with pytest.raises(FieldError, match="one length"):
        table.apply(**{**good, "side": np.zeros(2, np.int8)})
    with pytest.raises(FieldError, match="rows"):
        table.apply(**good, first=0, stop=2)
    table.apply(**{**good, "side": np.array([9], np.int8)})
    table.apply(**{**good, "type": np.array([DELTA], np.int8), "side": np.array([9], np.int8)})
    table.apply(**{**good, "type": np.array([77], np.int8)})
    assert table.faults == 2


def test_every_way_sees_the_same_books(recording: Path) -> None:
    expected = reference(ROWS)
    ends = [i for i, row in enumerate(ROWS) if i + 1 == len(ROWS) or ROWS[i + 1][0] != SNAPSHOT]
    frames = [(ROWS[i][1], expected[i]) for i in ends]
    recorded = replay(recording)

    # Typed events.
    seen = [(e.ticker, e.kind, e.known, digest(e.book)) for e in recorded.events()]
    assert [(f"KX-{market}", books[market]) for market, books in frames] == [(t, d) for t, _, _, d in seen]
    assert {kind for _, kind, _, _ in seen} == {SNAPSHOT, DELTA, GAP}
    assert all(known == (hashed is not None) for _, _, known, hashed in seen)

    # Callbacks.
    class Log(Strategy):
        def __init__(self) -> None:
            self.seen: list[tuple[str, int, bool, str | None]] = []
            self.on_book_calls = 0

        def _note(self, event: Event) -> None:
            self.seen.append((event.ticker, event.kind, event.known, digest(event.book)))

        on_snapshot = on_delta = on_gap = _note

        def on_book(self, event: Event) -> None:
            self.on_book_calls += 1

    log = Log()
    assert recorded.drive(log) == len(frames)
    assert log.seen == seen
    assert log.on_book_calls == sum(known for _, _, known, _ in seen)

    # Steps.
    with recorded.run() as run:
        for number, (_, books) in enumerate(frames[:300]):
            assert run.advance(events=1) == 1
            assert run.events == number + 1
            known = {f"KX-{i}": hashed for i, hashed in enumerate(books) if hashed is not None}
            assert {ticker: digest(book) for ticker, book in run.books.items()} == known
        assert run.book("KX-9") is None
        assert run.advance() == len(frames) - 300
        assert run.done
        assert run.advance(events=5) == 0

    # Columns.
    with recorded.open() as source:
        assert rows_of(source.chunks(), source.tickers) == [(f"KX-{m}", k, s, p, q) for k, m, s, p, q in ROWS]


@pytest.mark.parametrize("cut", [0, 1, 700, 1531, 2999])
def test_a_start_begins_with_the_books_that_were_known_then(recording: Path, cut: int) -> None:
    times = table_of(ROWS)["ingest_ts"].cast(pa.int64()).to_numpy()
    start_ns = int(times[cut])
    before = reference(ROWS[: int(np.searchsorted(times, start_ns))] or [(GAP, 0, 0, 0, 0)])[-1]
    with open_source(recording, start=start_ns) as source:
        books = [ReferenceBook() for _ in range(5)]
        later = 0
        for chunk in source.chunks():
            assert (chunk.ingest_ns >= start_ns).all()
            if chunk.conn_id[0] == 0:
                for ticker, *row in rows_of([chunk], source.tickers):
                    books[int(ticker.removeprefix("KX-"))].apply(*row)
                assert [book.digest() for book in books] == before
            else:
                later += len(chunk)
    assert later == int((times >= start_ns).sum())
    for market in (0, 3):
        one = replay(recording, markets=[f"KX-{market}"], start=start_ns)
        final = [digest(event.book) for event in one.events()][-1:]
        whole = [digest(event.book) for event in replay(recording, markets=f"KX-{market}").events()]
        assert final in ([], whole[-1:])


def test_an_end_is_excluded_and_dates_behind_it_are_not_opened(recording: Path, tmp_path: Path) -> None:
    times = table_of(ROWS)["ingest_ts"].cast(pa.int64()).to_numpy()
    end_ns = int(times[1200])
    with open_source(recording, end=end_ns) as source:
        found = np.concatenate([chunk.ingest_ns for chunk in source.chunks()])
    assert found.tolist() == times[times < end_ns].tolist()
    later = tmp_path / "orderbook" / "date=2026-11-20" / "part-000000_000000.parquet"
    later.parent.mkdir(parents=True)
    later.write_text("not Parquet at all")
    write(tmp_path / "orderbook" / "date=2026-11-18" / "part-110640_000000.parquet", table_of(ROWS[:50]))
    with open_source(tmp_path, end="2026-11-19") as source:
        assert sum(map(len, source.chunks())) == 50


def test_book_at_a_moment(recording: Path) -> None:
    times = table_of(ROWS)["ingest_ts"].cast(pa.int64()).to_numpy()
    expected = reference(ROWS)
    for row in (0, 40, 1111, 2999):
        last = int(np.searchsorted(times, times[row], "right")) - 1
        books = replay(recording).book_at(int(times[row]))
        known = {f"KX-{i}": hashed for i, hashed in enumerate(expected[last]) if hashed is not None}
        assert {ticker: digest(book) for ticker, book in books.items()} == known
    assert replay(recording).book_at("2020-01-01") == {}


def test_features_are_what_the_book_says(recording: Path) -> None:
    events = [event.copy() for event in replay(recording).events(columns=())]
    for every in (1, 7):
        blocks = list(replay(recording).features(events=every, depth=3, rows=50))
        rows = [
            (tickers[ix], i, block) for tickers, block in blocks for i, ix in enumerate(block["market_ix"])
        ]
        looked = events[every - 1 :: every]
        assert len(rows) == len(looked)
        for event, (ticker, i, block) in zip(looked, rows, strict=True):
            assert (ticker, block["at_ns"][i], block["known"][i]) == (
                event.ticker,
                event.ingest_ns,
                event.known,
            )
            if not event.known:
                assert block["bid_price_e4"][i].tolist() == [-1, -1, -1]
                assert block["mid_half_e4"][i] == -1
                continue
            yes, no = event.book.ladders()
            padded = [*yes, *[(-1, 0)] * 3][:3]
            assert list(zip(block["bid_price_e4"][i], block["bid_qty_e2"][i], strict=True)) == padded
            asks = [*((10_000 - price, size) for price, size in no), *[(-1, 0)] * 3][:3]
            assert list(zip(block["ask_price_e4"][i], block["ask_qty_e2"][i], strict=True)) == asks
            mid = event.book.mid_half_e4
            assert block["mid_half_e4"][i] == (-1 if mid is None else mid)
            sizes = sum(size for _, size in padded), sum(size for _, size in asks)
            if sum(sizes):
                assert block["imbalance"][i] == pytest.approx((sizes[0] - sizes[1]) / sum(sizes))
            if mid is not None:
                (bid, bid_size), (ask, ask_size) = padded[0], asks[0]
                micro = round((bid * ask_size + ask * bid_size) / (bid_size + ask_size) * 1e4)
                assert block["microprice_e8"][i] == pytest.approx(micro, abs=1)


def test_moments_have_everything_received_until_then(recording: Path) -> None:
    times = table_of(ROWS)["ingest_ts"].cast(pa.int64()).to_numpy()
    expected = reference(ROWS)
    table = replay(recording).snapshots("100us", depth=2).arrow()
    at = table["at"].cast(pa.int64()).to_numpy()
    assert len(set(at.tolist())) == (int(times[-1]) // 100_000) - (int(times[0]) - 1) // 100_000
    for moment in np.unique(at):
        last = int(np.searchsorted(times, moment, "right")) - 1
        known = {f"KX-{i}" for i, hashed in enumerate(expected[last]) if hashed is not None}
        rows = table.filter(pa.array(at == moment))
        assert set(rows["market"].to_pylist()) == known
        books = replay(recording).book_at(int(moment)) if moment == at[0] else {}
        for row in rows.to_pylist() if books else ():
            yes = books[row["market"]].ladders()[0]
            assert (
                list(zip(row["bid_price_e4"], row["bid_qty_e2"], strict=True)) == [*yes, (-1, 0), (-1, 0)][:2]
            )
    with_end = replay(recording, end=int(times[-1]) + 1_000_000).snapshots("100us", depth=2).arrow()
    assert with_end.num_rows > table.num_rows, "moments go on up to the end"
    assert with_end.slice(0, table.num_rows)["at"] == table["at"]


def test_best_prices_whenever_they_change(recording: Path) -> None:
    table = replay(recording).bbo().arrow()
    state: dict[str, tuple[object, ...]] = {}
    expected = []
    for event in replay(recording).events():
        book = event.book
        now: tuple[object, ...] = (False, None, 0, None, 0)
        if event.known:
            bid, ask = book.best_bid(0), book.best_ask(0)
            sizes = (
                0 if bid is None else book.size_at(0, bid),
                0 if ask is None else book.size_at(1, 10_000 - ask),
            )
            now = (True, bid, sizes[0], ask, sizes[1])
        if state.get(event.ticker) != now and (event.known or event.ticker in state):
            expected.append((event.ticker, event.ingest_ns, *now))
        if event.known or event.ticker in state:
            state[event.ticker] = now
    names = ("market", "at", "known", "bid_price_e4", "bid_qty_e2", "ask_price_e4", "ask_qty_e2")
    found = [table[name].cast(pa.int64()) if name == "at" else table[name] for name in names]
    assert list(zip(*(column.to_pylist() for column in found), strict=True)) == expected


def test_bars_sum_up_what_stood_in_them(recording: Path) -> None:
    every_ns = 300_000
    bars = replay(recording).bars(every_ns).arrow().to_pylist()
    states: dict[str, list[tuple[int, bool, int | None, int | None]]] = {}
    last_ns = 0
    for event in replay(recording).events():
        mid = event.book.mid_half_e4 if event.known else None
        spread = event.book.spread_e4 if event.known else None
        states.setdefault(event.ticker, []).append((event.ingest_ns, event.known, mid, spread))
        last_ns = event.ingest_ns
    first_ns = min(s[0][0] for s in states.values()) // every_ns * every_ns
    found = {(bar["market"], bar["since"].value): bar for bar in bars}
    expected_keys = set()
    for ticker, history in states.items():
        for since in range(first_ns, last_ns + 1, every_ns):
            until = min(since + every_ns, last_ns + 1)
            inside = [s for s in history if since <= s[0] < since + every_ns]
            standing = [(since, *s[1:]) for s in history if s[0] < since][-1:]
            stretch = standing + inside
            known_ns = quoted_ns = 0
            for one, after in pairwise([*stretch, (until, False, None, None)]):
                known_ns += (after[0] - one[0]) * one[1]
                quoted_ns += (after[0] - one[0]) * (one[2] is not None)
            if not inside and not known_ns:
                continue
            expected_keys.add((ticker, since))
            bar = found[ticker, since]
            mids = [s[2] for s in stretch if s[2] is not None]
            spreads = [s[3] for s in stretch if s[3] is not None]
            if mids:
                assert (bar["open_half_e4"], bar["close_half_e4"]) == (mids[0], mids[-1])
                assert (bar["high_half_e4"], bar["low_half_e4"]) == (max(mids), min(mids))
                assert (bar["spread_high_e4"], bar["spread_low_e4"]) == (max(spreads), min(spreads))
                assert (bar["spread_open_e4"], bar["spread_close_e4"]) == (spreads[0], spreads[-1])
            else:
                assert bar["open_half_e4"] is None is bar["spread_close_e4"]
            assert (bar["known_ns"], bar["quoted_ns"], bar["events"]) == (known_ns, quoted_ns, len(inside))
    assert found.keys() == expected_keys


def test_tables_for_pandas_and_polars(recording: Path) -> None:
    bbo = replay(recording).bbo()
    table = bbo.arrow()
    frame, polars = bbo.pandas(), bbo.polars()
    assert len(frame) == polars.height == table.num_rows
    assert frame["bid_qty_e2"].tolist() == polars["bid_qty_e2"].to_list() == table["bid_qty_e2"].to_pylist()
    assert str(frame["at"].dt.tz) == "UTC"
    assert bbo.reader().read_all().num_rows == table.num_rows
    shown = exact(table)
    assert {"bid_price", "mid", "microprice"} <= set(shown.column_names)
    for column, scale in (("bid_price", 10_000), ("bid_qty", 100)):
        whole = table[f"{column}_e{len(str(scale)) - 1}"].to_pylist()
        assert [None if v is None else int(v * scale) for v in shown[column].to_pylist()] == whole
    assert str(exact(pa.table({"mid_half_e4": [9]})).column(0)[0]) == "0.00045"


def test_trades_are_not_in_files(recording: Path) -> None:
    with pytest.raises(ReplayError, match="no trades"):
        replay(recording).trades().arrow()


def test_conversions() -> None:
    assert (dollars(4567), dollars(10_000), dollars(-5)) == ("0.4567", "1.0000", "-0.0005")
    assert (contracts(12_050), contracts(-1)) == ("120.50", "-0.01")
    with pytest.raises(FieldError):
        dollars(0.5)  # type: ignore[arg-type]
    assert moment_ns("t", "2026-11-18T11:06:40.123456789Z") == START_NS + 123_456_789
    assert moment_ns("t", "2026-11-18T12:06:40+01:00") == moment_ns("t", str(START_NS)) == START_NS
    assert iso(START_NS + 5) == "2026-11-18T11:06:40.000000005Z"
    assert duration_ns("every", "5min") == 300_000_000_000
    for bad in ("yesterday", "", True, 1.5):
        with pytest.raises(FieldError, match="start"):
            moment_ns("start", bad)  # type: ignore[arg-type]
    for bad in ("1 fortnight", "0s", 0, -1, True):
        with pytest.raises(FieldError, match="every"):
            duration_ns("every", bad)
    with pytest.raises(FieldError, match="end"):
        open_source("anywhere", start=5_000_000_000_000, end=4_000_000_000_000)


def test_the_event_is_one_object_and_its_copy_is_not(recording: Path) -> None:
    first, second = None, None
    for event in replay(recording).events():
        if first is None:
            first, second = event, event.copy()
        elif event.ticker == second.ticker:  # type: ignore[union-attr]
            break
    assert first is event
    assert second is not None
    assert second.book != event.book
    assert second.book == next(iter(replay(recording))).book
    assert "snapshot" in repr(second)


def test_features_has_no_room_for_more_than_it_was_made_for() -> None:
    features = Features(1)
    features.look(OrderBook())
    assert features.full
    with pytest.raises(FieldError, match="capacity"):
        features.look(OrderBook())
    for bad in ((0, 1), (1, 0), (1, 20_000)):
        with pytest.raises(FieldError):
            Features(*bad)


def test_a_reader_that_stops_early_leaves_no_thread_behind(recording: Path) -> None:
    import threading

    events = replay(recording).events()
    next(events)
    events.close()  # type: ignore[attr-defined]
    with replay(recording).run() as run:
        run.advance(events=1)
    assert not [t for t in threading.enumerate() if t.name == "kalshi-fast-read-ahead"]


def test_snapshots_split_between_chunks_are_one_event() -> None:
    rows = columns(ROWS)
    times = np.arange(len(ROWS), dtype=np.int64)

    def parts(size: int) -> list[Rows]:
        from kalshi_fast.replaying.chunks import make_chunk

        chunk = make_chunk({**rows, "ingest_ns": times})
        return list(whole_frames(chunk.slice(i, min(i + size, len(ROWS))) for i in range(0, len(ROWS), size)))

    def told(size: int) -> list[tuple[int, int, str | None]]:
        tickers = [f"KX-{i}" for i in range(5)]
        return [(e.kind, e.market_ix, digest(e.book)) for e in EventReader(BookTable(), tickers, parts(size))]

    assert told(1) == told(7) == told(100_000)


def test_the_public_names_are_there() -> None:
    assert kalshi_fast.replay is replay
    with pytest.raises(AttributeError, match="no attribute"):
        kalshi_fast.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_nothing_there_is_said_so(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "nowhere", str(tmp_path / "*.parquet")):
        with pytest.raises(ReplayError, match="no event files"):
            open_source(where)
    with pytest.raises(UnreachableError):
        list(replay("http://127.0.0.1:1").events())
