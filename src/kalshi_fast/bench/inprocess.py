"""What is measured without a socket: the stages one by one, and the whole pipeline beside others' ways.

The whole pipeline is decode, sequence check, book and columns, per delta frame, with all books known from
snapshots and ``WARM_DELTAS`` deltas before the clock starts. Contenders that are slow get fewer frames.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast import wire
from kalshi_fast._bench import Changes, Frames, to_books, to_columns
from kalshi_fast._book import LINEAR_CENT, OrderBook
from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.bench.peers import peer, why_not
from kalshi_fast.bench.rig import BATCH_ROWS, Rig, WrongResultError
from kalshi_fast.bench.rounds import Contender, Timed
from kalshi_fast.bench.seed_style import SeedStyleRecorder
from kalshi_fast.bench.workload import N_MARKETS, N_WARM, changes, spread, tickers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kalshi_fast.bench.rounds import Prepared

PIPELINE: Final = "pipeline"
OURS: Final = "kalshi-fast: decode, sequence, book, columns"
OURS_NO_NEWLINE: Final = "kalshi-fast: the same frames without the newline at their end"
OURS_NO_ROWS: Final = "kalshi-fast: decode, sequence, book (a standby's: no rows)"
SIDS: Final = 5
OURS_SIDS: Final = f"kalshi-fast: the same, spread over {SIDS} subscriptions"
SEED: Final = "the usual Python recorder rebuilt: orjson, books of dicts, rows as dicts"
SEED_JSON: Final = "the same with json"
PYKALSHI: Final = "pykalshi: parser and OrderbookManager"
MSGSPEC: Final = "msgspec, decode only"
ORJSON: Final = "orjson, decode only"
SIMDJSON: Final = "pysimdjson, parse only"
JSON: Final = "json, decode only"
BOOK: Final = "book: arrays"
BOOK_DICTS: Final = "book: dicts in Python"
COLUMNS: Final = "columns: numpy arrays"
COLUMNS_DICTS: Final = "columns: rows as dicts in Python"

SLOW_FRAMES: Final = 4_000
DECODED_FRAMES: Final = 20_000


def pipelines(frames: list[bytes]) -> list[Contender]:
    """``frames``: warm ones first (see ``workload``), then those that are measured."""
    of_many, bare = spread(frames, SIDS), [frame.rstrip() for frame in frames]
    found = [
        Contender(PIPELINE, OURS, Timed(len(frames) - N_WARM, lambda: ours(frames))),
        Contender(PIPELINE, OURS_SIDS, Timed(len(frames) - N_WARM, lambda: ours(of_many, sids=SIDS))),
        Contender(PIPELINE, OURS_NO_NEWLINE, Timed(len(frames) - N_WARM, lambda: ours(bare))),
        Contender(PIPELINE, OURS_NO_ROWS, Timed(len(frames) - N_WARM, lambda: ours(frames, rows=False))),
        Contender(PIPELINE, SEED_JSON, Timed(SLOW_FRAMES, lambda: seed(frames, json.loads))),
        Contender("decode", MSGSPEC, Timed(DECODED_FRAMES, lambda: decode(frames, wire.decode))),
        Contender("decode", JSON, Timed(SLOW_FRAMES, lambda: decode(frames, json.loads, SLOW_FRAMES))),
    ]
    if (orjson := peer("orjson")) is not None:
        found.insert(4, Contender(PIPELINE, SEED, Timed(SLOW_FRAMES, lambda: seed(frames, orjson.loads))))
        found.append(Contender("decode", ORJSON, Timed(DECODED_FRAMES, lambda: decode(frames, orjson.loads))))
    else:
        found += [Contender(group, name, None, why_not("orjson")) for group, name in _WITH_ORJSON]
    if peer("pykalshi") is not None:
        found.append(Contender(PIPELINE, PYKALSHI, Timed(SLOW_FRAMES, lambda: pykalshi(frames))))
    else:
        found.append(Contender(PIPELINE, PYKALSHI, None, why_not("pykalshi")))
    if (simdjson := peer("simdjson")) is not None:
        parse = simdjson.Parser().parse
        found.append(Contender("decode", SIMDJSON, Timed(DECODED_FRAMES, lambda: decode(frames, parse))))
    else:
        found.append(Contender("decode", SIMDJSON, None, why_not("simdjson")))
    return found


_WITH_ORJSON: Final = ((PIPELINE, SEED), ("decode", ORJSON))


def stages() -> list[Contender]:
    """Book and columns alone; ours in a compiled loop, as they are used."""
    n = 50_000
    made = changes(n)
    compiled, in_python = Changes(*made), list(zip(*made, strict=True))[:DECODED_FRAMES]
    return [
        Contender("book", BOOK, Timed(n, lambda: arrays(compiled))),
        Contender("book", BOOK_DICTS, Timed(len(in_python), lambda: dicts(in_python))),
        Contender("columns", COLUMNS, Timed(n, lambda: columns(compiled))),
        Contender("columns", COLUMNS_DICTS, Timed(len(in_python), lambda: row_dicts(in_python))),
    ]


# --- pipelines --------------------------------------------------------------------------------------


def ours(frames: list[bytes], *, rows: bool = True, sids: int = 1) -> Prepared:
    rig = Rig(tickers(), sids=sids)
    rig.warm(frames[:N_WARM])
    measured = Frames(frames[N_WARM:])
    if not rows:
        for replica in rig.link.replicas.values():
            replica.active = False
    before = rig.recorder.counts.events

    def check() -> None:
        rig.check(len(frames))
        written = rig.recorder.counts.events - before
        if written != (len(measured) if rows else 0):
            raise WrongResultError(f"expected a row for each of {len(measured)} deltas, got {written}")
        rig.close()

    return lambda: rig.drive(measured), check


def seed(frames: list[bytes], loads: Callable[[bytes], Any], n: int = SLOW_FRAMES) -> Prepared:
    recorder = SeedStyleRecorder(loads)
    for frame in frames[:N_WARM]:
        recorder.on_frame(frame)
    recorder.seal()
    measured = frames[N_WARM : N_WARM + n]
    before = recorder.rows

    def work() -> None:
        for frame in measured:
            recorder.on_frame(frame)

    def check() -> None:
        recorder.seal()
        if recorder.rows - before != len(measured):
            raise WrongResultError(f"expected {len(measured)} rows, got {recorder.rows - before}")

    return work, check


class PykalshiBooks:
    """As its documentation shows it: a manager for each market, fed from the parsed messages."""

    def __init__(self) -> None:
        from pykalshi import OrderbookManager
        from pykalshi.feed import _parse_message

        self.books: dict[str, Any] = {}
        self._parse, self._manager = _parse_message, OrderbookManager

    def on_frame(self, raw: bytes) -> None:
        kind, _, message, _ = self._parse(raw)
        ticker = message.market_ticker
        if kind == "orderbook_snapshot":
            book = self.books[ticker] = self._manager(ticker)
            book.apply_snapshot(message.yes_dollars, message.no_dollars)
        else:
            self.books[ticker].apply_delta(message.side, message.price_dollars, message.delta_fp)


def pykalshi(frames: list[bytes], n: int = SLOW_FRAMES) -> Prepared:
    books = PykalshiBooks()
    # The deltas before those that are measured would take it a third of a second in every round: it starts
    # from the snapshots, and the same number of deltas is measured.
    for frame in frames[:N_MARKETS]:
        books.on_frame(frame)
    measured = frames[N_MARKETS : N_MARKETS + n]

    def work() -> None:
        for frame in measured:
            books.on_frame(frame)

    def check() -> None:
        if len(books.books) != N_MARKETS:
            raise WrongResultError(f"expected {N_MARKETS} books, got {len(books.books)}")

    return work, check


def decode(frames: list[bytes], loads: Callable[[bytes], Any], n: int = DECODED_FRAMES) -> Prepared:
    measured = frames[N_WARM : N_WARM + n]

    def work() -> None:
        for frame in measured:
            loads(frame)

    return work, lambda: None


# --- stages -----------------------------------------------------------------------------------------


def arrays(changes: Changes) -> Prepared:
    books = [OrderBook(LINEAR_CENT) for _ in range(N_MARKETS)]
    to_books(books, changes)  # once before: memory that has been touched
    return lambda: to_books(books, changes), lambda: None


def dicts(changes: Sequence[tuple[int, ...]]) -> Prepared:
    books: list[tuple[dict[int, int], dict[int, int]]] = [({}, {}) for _ in range(N_MARKETS)]

    def work() -> None:
        for market, side, price, change in changes:
            levels = books[market][side]
            size = levels.get(price, 0) + change
            if size:
                levels[price] = size
            else:
                levels.pop(price, None)

    return work, lambda: None


def columns(changes: Changes) -> Prepared:
    events, levels = EventColumns(BATCH_ROWS), LevelColumns(BATCH_ROWS)
    to_columns(events, levels, changes)
    return lambda: to_columns(events, levels, changes), lambda: None


def row_dicts(changes: Sequence[tuple[int, ...]]) -> Prepared:
    events: list[dict[str, int]] = []
    levels: list[dict[str, int]] = []

    def work() -> None:
        for market, side, price, change in changes:
            events.append(
                {
                    "type": 1,
                    "sid": 1,
                    "seq": 1,
                    "market_id": market,
                    "market_ticker": market,
                    "side": side,
                    "price": price,
                    "qty": change,
                    "ts": 1,
                    "ingest_ts": 1,
                }
            )
            levels.append(
                {
                    "market_id": market,
                    "market_ticker": market,
                    "side": side,
                    "price": price,
                    "size": change,
                    "ts": 1,
                    "ingest_ts": 1,
                }
            )

    return work, lambda: None
