"""The usual Python recorder, rebuilt for comparison: JSON to dicts, a book of dicts, rows as dicts.

It does per frame what the system before kalshi-fast did: decode, keep a dict book per market, make one
event row, one level row and one archive row as dicts with datetimes, and turn them into columns when a
batch is full. No I/O. Prices and sizes go through Decimal, since fixed-point strings have to become exact
somehow.
"""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

Row = dict[str, Any]
BATCH_ROWS: Final = 2000


class SeedStyleRecorder:
    def __init__(self, loads: Callable[[bytes], Any]) -> None:
        self.loads = loads
        self.books: dict[str, dict[str, dict[int, int]]] = {}
        self.events: list[Row] = []
        self.levels: list[Row] = []
        self.archive: list[Row] = []
        self.rows = 0

    def on_frame(self, payload: bytes) -> None:
        frame = self.loads(payload)
        msg = frame["msg"]
        now = datetime.now(UTC)
        ticker = msg["market_ticker"]
        if frame["type"] == "orderbook_snapshot":
            book = self.books[ticker] = {"yes": {}, "no": {}}
            for side in ("yes", "no"):
                for price, size in msg.get(f"{side}_dollars_fp", ()):
                    price_e4, qty = int(Decimal(price) * 10_000), int(Decimal(size) * 100)
                    book[side][price_e4] = qty
                    self._rows("snapshot", frame, ticker, side, price_e4, qty, qty, now, now)
        elif frame["type"] == "orderbook_delta":
            side = msg["side"]
            price_e4 = int(Decimal(msg["price_dollars"]) * 10_000)
            change = int(Decimal(msg["delta_fp"]) * 100)
            levels = self.books[ticker][side]
            size = levels.get(price_e4, 0) + change
            if size:
                levels[price_e4] = size
            else:
                levels.pop(price_e4, None)
            ts = datetime.fromtimestamp(msg["ts_ms"] / 1000, UTC)
            self._rows("delta", frame, ticker, side, price_e4, change, size, ts, now)

    def _rows(
        self,
        kind: str,
        frame: Row,
        ticker: str,
        side: str,
        price: int,
        qty: int,
        size: int,
        ts: datetime,
        now: datetime,
    ) -> None:
        market_id = frame["msg"]["market_id"]
        self.events.append(
            {
                "type": kind,
                "sid": frame["sid"],
                "seq": frame["seq"],
                "market_id": market_id,
                "market_ticker": ticker,
                "side": side,
                "price": price,
                "qty": qty,
                "ts": ts,
                "ingest_ts": now,
            }
        )
        self.levels.append(
            {
                "market_id": market_id,
                "market_ticker": ticker,
                "side": side,
                "price": price,
                "size": size,
                "ts": ts,
                "ingest_ts": now,
            }
        )
        self.archive.append({**self.events[-1], "ts": ts.isoformat(), "ingest_ts": now.isoformat()})
        if len(self.events) >= BATCH_ROWS:
            self.seal()

    def seal(self) -> None:
        for rows in (self.events, self.levels, self.archive):
            if rows:
                columns = {name: [row[name] for row in rows] for name in rows[0]}
                assert len(columns["sid" if "sid" in columns else "size"]) == len(rows)  # noqa: S101
        self.rows += len(self.events)
        self.events.clear()
        self.levels.clear()
        self.archive.clear()
