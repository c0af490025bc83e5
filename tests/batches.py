"""Batches as a recorder would fill them, and what they held, for the tests of ring and journal."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT, EventColumns, LevelColumns
from kalshi_fast.arrow import STORED_EVENTS, STORED_LEVELS, stored
from kalshi_fast.batch import Extra, HealthEvent, RejectedFrame, pack_extra
from kalshi_fast.ring import SealedSlot

if TYPE_CHECKING:
    import pyarrow as pa

    from kalshi_fast.journal import Entry, Journal

START_NS = 1_700_000_000_000_000_000


@dataclass
class Written:
    """One batch as it must come out again; ``known``: the tickers whose books are known behind it."""

    recorder: uuid.UUID
    number: int
    tickers: list[str]
    ids: list[str]
    events: pa.RecordBatch | None
    levels: pa.RecordBatch | None
    extra: Extra
    known: frozenset[str]

    def is_entry(self, entry: Entry) -> bool:
        """Is this what the entry holds, value by value and name by name?"""
        return (
            (entry.recorder, entry.number, entry.extra) == (self.recorder, self.number, self.extra)
            and _same(entry.events, self.events)
            and _same(entry.levels, self.levels)
            and entry.names.tickers[: len(self.tickers)] == self.tickers
            and entry.names.ids[: len(self.ids)] == self.ids
        )


def _same(one: pa.RecordBatch | None, other: pa.RecordBatch | None) -> bool:
    if one is None or other is None:
        return one is other
    return bool(one.equals(other))


def ticker_of(ix: int) -> str:
    """Names of all lengths up to the longest."""
    return f"KX{ix}-".ljust(3 + 37 * ix % 126, "X")


def id_of(ix: int) -> str:
    return str(uuid.UUID(int=ix + 1))


@dataclass
class Filler:
    """One recorder: ``fill`` makes its next batch. Random rows by the rules of the feed."""

    seed: int
    recorder: uuid.UUID = field(init=False)
    number: int = 0
    at_ns: int = START_NS
    tickers: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    known: set[int] = field(default_factory=set)
    written: list[Written] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.recorder = uuid.UUID(int=self.random.getrandbits(128))
        self.seqs = {1: 0, 2: 0}

    def fill(self, rows: int = 5, new_names: int = 1, records: int = 0) -> SealedSlot:
        """A batch, as the shared memory would hold it."""
        dice = self.random
        for _ in range(new_names):
            self.tickers.append(ticker_of(len(self.tickers)))
            self.ids.append(id_of(len(self.ids)))
        events, levels = EventColumns(max(rows, 1)), LevelColumns(max(rows, 1))
        levels.begin(self.at_ns)
        for _ in range(rows if self.tickers else 0):
            self._row(dice, events, levels)
        health = [HealthEvent(self.at_ns, 1, "note", detail="x" * dice.randrange(50)) for _ in range(records)]
        rejected = [RejectedFrame(self.at_ns, 1, "why", dice.randbytes(20)) for _ in range(records)]
        return self.seal(events, levels, Extra(health, rejected))

    def _row(self, dice: random.Random, events: EventColumns, levels: LevelColumns) -> None:
        ix = dice.randrange(len(self.tickers))
        kind = dice.choice((DELTA, DELTA, SNAPSHOT, GAP)) if ix in self.known else CLEAR
        conn = 1 + ix % 2
        self.seqs[conn] += 1
        self.at_ns += dice.randrange(1, 1000)
        price, qty = dice.randrange(1, 10_000), dice.randrange(-(2**40), 2**40)
        at = (self.at_ns // 1000, self.at_ns)
        events.add(kind, conn, 7, self.seqs[conn], ix, ix, ix % 2, price, qty, *at)
        levels.set(ix, ix, ix % 2, price, abs(qty), *at)
        if kind == CLEAR:
            self.known.add(ix)
        elif kind == GAP:
            self.known.discard(ix)

    def seal(self, events: EventColumns, levels: LevelColumns, extra: Extra) -> SealedSlot:
        """Buffers that somebody has filled, as this recorder's next batch."""
        self.number += 1
        self.written.append(
            Written(
                self.recorder,
                self.number,
                list(self.tickers),
                list(self.ids),
                copied(STORED_EVENTS, events),
                last_of_each(levels),
                extra,
                frozenset(self.tickers[ix] for ix in self.known),
            )
        )
        return SealedSlot(
            self.number,
            events.n,
            levels.n,
            (len(self.tickers), len(self.ids)),
            events.arrays,
            levels.arrays,
            pack_extra(extra.health, extra.rejected),
        )

    def append(self, journal: Journal, batch: SealedSlot) -> None:
        """Writes it down and says so."""
        journal.append(batch, lambda start, stop: self.tickers[start:stop], lambda a, b: self.ids[a:b])
        journal.commit()

    def put(self, journal: Journal, rows: int = 5, new_names: int = 1, records: int = 0) -> Written:
        """The next batch, written down."""
        self.append(journal, self.fill(rows, new_names, records))
        return self.written[-1]


def copied(schema: pa.Schema, columns: EventColumns | LevelColumns) -> pa.RecordBatch | None:
    """A buffer's rows in memory of their own."""
    if not columns.n:
        return None
    return stored(
        schema, {name: column[: columns.n].copy() for name, column in columns.arrays.items()}, columns.n
    )


def last_of_each(levels: LevelColumns) -> pa.RecordBatch | None:
    """What the journal keeps of a buffer of states: of each level the last, in their order."""
    states = copied(STORED_LEVELS, levels)
    if states is None:
        return None
    keys = zip(*(states[name].to_pylist() for name in ("market_ix", "side", "price_e4")), strict=True)
    last = {key: row for row, key in enumerate(keys)}
    return states.take(sorted(last.values()))
