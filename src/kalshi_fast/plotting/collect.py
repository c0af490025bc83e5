"""The numbers of a picture: best prices, spread, depth and knowledge of a market, in so many columns of time.

Three readings of the recording (its extent, bars, books), each in bounded memory. Floats, because this is for
eyes only: dollars, cents and contracts. Not here: how it looks (``draw``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from kalshi_fast.errors import FieldError
from kalshi_fast.exporting.run import unknown_market
from kalshi_fast.replaying.replay import Replay

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pyarrow as pa
    from numpy.typing import NDArray

    from kalshi_fast.replaying.times import Moment

    Floats: TypeAlias = NDArray[np.float64]

COLUMNS: Final = 800
DEPTH: Final = 100  # levels of each side
ROWS: Final = 400  # of the heat map at most
MARGIN_E4: Final = 1000  # how far beyond the best prices the heat map goes
_LEAST_NS: Final = 1_000_000


@dataclass(slots=True)
class Picture:
    """Arrays of one length, a value per column of time; NaN where there is none.

    ``known``: for which share of the column the book was known. ``bids`` and ``asks``: contracts by price
    (rows, upwards from ``low``, ``row_dollars`` each) and time, on the scale of yes, as the book was at the
    beginning of the column.
    """

    market: str
    source: str
    first_ns: int
    last_ns: int
    events: int
    start_ns: int
    every_ns: int
    known: Floats
    bid: Floats
    ask: Floats
    mid_low: Floats
    mid_high: Floats
    mid: Floats
    spread_low: Floats
    spread_high: Floats
    spread: Floats
    low: float
    row_dollars: float
    bids: Floats
    asks: Floats

    @property
    def known_share(self) -> float:
        return float(self.known.mean()) if len(self.known) else 0.0


def collect(
    market: str,
    source: str | Path,
    *,
    start: Moment | None = None,
    end: Moment | None = None,
    columns: int = COLUMNS,
    progress: Callable[[str], None] = lambda _: None,
    **options: Any,  # noqa: ANN401 - of open_source
) -> Picture:
    """Reads the recording of one market. Raises ExportError when nothing is recorded of it."""
    if not 1 <= columns <= 10_000:
        raise FieldError("columns", columns, "a number from 1 to 10000")
    replay = Replay(source, markets=[market], start=start, end=end, **options)
    progress("reading …")
    first_ns, last_ns, events = _extent(replay)
    if not events:
        raise unknown_market(market, source, **options)
    every_ns = max(_LEAST_NS, -(-(last_ns - first_ns + 1) // columns))
    start_ns = first_ns // every_ns * every_ns
    width = (last_ns - start_ns) // every_ns + 1
    progress("bars …")
    bars = _Bars(width)
    for batch in replay.bars(every_ns):
        bars.add(batch, start_ns, every_ns)
    progress("books …")
    books = _Books(width)
    for batch in replay.snapshots(every_ns, depth=DEPTH):
        books.add(batch, start_ns, every_ns)
    low, row_dollars, bids, asks = books.heat()
    return Picture(
        market=market,
        source=str(source),
        first_ns=first_ns,
        last_ns=last_ns,
        events=events,
        start_ns=start_ns,
        every_ns=every_ns,
        known=bars.known / _lengths(start_ns, every_ns, width, first_ns, last_ns),
        bid=books.bid,
        ask=books.ask,
        mid_low=bars.values["low_half_e4"] / 20_000,
        mid_high=bars.values["high_half_e4"] / 20_000,
        mid=bars.values["close_half_e4"] / 20_000,
        spread_low=bars.values["spread_low_e4"] / 100,
        spread_high=bars.values["spread_high_e4"] / 100,
        spread=bars.values["spread_close_e4"] / 100,
        low=low,
        row_dollars=row_dollars,
        bids=bids,
        asks=asks,
    )


def _extent(replay: Replay) -> tuple[int, int, int]:
    first_ns = last_ns = events = 0
    with replay.open() as source:
        for chunk in source.chunks(()):
            if not events:
                first_ns = int(chunk.ingest_ns[0])
            last_ns = int(chunk.ingest_ns[-1])
            events += len(chunk)
    return first_ns, last_ns, events


def _lengths(start_ns: int, every_ns: int, width: int, first_ns: int, last_ns: int) -> Floats:
    """How much of each column lies between the first and the last event."""
    begins = start_ns + every_ns * np.arange(width)
    ends = np.minimum(begins + every_ns, last_ns + 1)
    lengths: Floats = np.maximum(1.0, ends - np.maximum(begins, first_ns))
    return lengths


class _Bars:
    NAMES: Final = (
        "low_half_e4",
        "high_half_e4",
        "close_half_e4",
        "spread_low_e4",
        "spread_high_e4",
        "spread_close_e4",
    )

    def __init__(self, width: int) -> None:
        self.known = np.zeros(width)
        self.values = {name: np.full(width, np.nan) for name in self.NAMES}

    def add(self, batch: pa.RecordBatch, start_ns: int, every_ns: int) -> None:
        at, there = _places(batch.column("since"), start_ns, every_ns, len(self.known))
        self.known[at] = _floats(batch.column("known_ns"))[there]
        for name in self.NAMES:
            self.values[name][at] = _floats(batch.column(name))[there]


class _Books:
    """Books at the beginning of each column."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.bid, self.ask = np.full(width, np.nan), np.full(width, np.nan)
        self._levels: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any], bool]] = []

    def add(self, batch: pa.RecordBatch, start_ns: int, every_ns: int) -> None:
        at, there = _places(batch.column("at"), start_ns, every_ns, self.width)
        for side, best in (("bid", self.bid), ("ask", self.ask)):
            price_e4, qty_e2 = (
                batch.column(f"{side}_{what}").flatten().to_numpy().reshape(batch.num_rows, -1)[there]
                for what in ("price_e4", "qty_e2")
            )
            best[at] = np.where(price_e4[:, 0] < 0, np.nan, price_e4[:, 0] / 10_000)
            full = price_e4 >= 0
            columns = np.broadcast_to(at[:, None], full.shape)[full]
            self._levels.append((columns, price_e4[full], qty_e2[full] / 100, side == "ask"))

    def heat(self) -> tuple[float, float, Floats, Floats]:
        """Lowest price, height of a row, bids and asks by row and column."""
        bests = np.concatenate((self.bid, self.ask))
        bests = bests[~np.isnan(bests)] * 10_000
        if not len(bests):
            return 0.0, 0.01, np.full((100, self.width), np.nan), np.full((100, self.width), np.nan)
        prices = np.concatenate([level[1] for level in self._levels])
        tick_e4 = next((tick for tick in (100, 10) if not (prices % tick).any()), 1)
        low_e4 = max(0, int(bests.min()) - MARGIN_E4) // tick_e4 * tick_e4
        high_e4 = min(10_000, int(bests.max()) + MARGIN_E4)
        row_e4 = tick_e4 * max(1, -(-(high_e4 - low_e4) // (tick_e4 * ROWS)))
        rows = (high_e4 - low_e4) // row_e4 + 1
        sides = np.zeros((2, rows, self.width))
        for columns, price_e4, contracts, ask in self._levels:
            place = (price_e4 - low_e4) // row_e4
            shown = (price_e4 >= low_e4) & (place < rows)
            np.add.at(sides[int(ask)], (place[shown], columns[shown]), contracts[shown])
        sides[sides == 0] = np.nan
        return low_e4 / 10_000, row_e4 / 10_000, sides[0], sides[1]


def _places(
    times: pa.Array, start_ns: int, every_ns: int, width: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The columns of these times, and which of them have one."""
    at = (times.cast("int64").to_numpy() - start_ns) // every_ns
    there = (at >= 0) & (at < width)
    return at[there], there


def _floats(column: pa.Array) -> Floats:
    """Null becomes NaN."""
    found: Floats = column.cast("float64").to_numpy(zero_copy_only=False)
    return found
