"""``kalshi-fast demo --recording FILE``: a capture through the whole system, and both stores against it.

The simulator sends the frames as they are; the recorder records them; then every row in ClickHouse and in
Parquet is compared with what the file says, read a second time with json and Decimal
(``simulator.capture_truth``). A row that is missing, is too many or is otherwise makes the demo fail. Not
here: invented markets and Parquet recordings (``demo``).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.dataset as ds

from kalshi_fast.arrow import EVENT_SCHEMA
from kalshi_fast.channels.rows import SCHEMAS
from kalshi_fast.config import CHANNELS, EVERYTHING, REFERENCE_CHANNELS
from kalshi_fast.scale import name as scale_name
from kalshi_fast.simulator.beside import command, invitation
from kalshi_fast.simulator.capture_truth import Truth, plain, scale, truth
from kalshi_fast.simulator.captured import CHANNEL_OF, Capture
from kalshi_fast.sinks import clickhouse

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kalshi_fast.books import Books
    from kalshi_fast.config import Settings
    from kalshi_fast.simulator.capture_truth import Sides

_NO_TIME: Final = -1
_EVENTS: Final = ("type", "market_ticker", "sid", "seq", "side", "price_e4", "qty_e2", "ts")
_TRADES: Final = ("trade_id", "market_ticker", "taker_side", "yes_price_e4", "qty_e2", "ts")
_TICKERS: Final = ("market_ticker", "price_e4", "yes_bid_e4", "yes_ask_e4", "volume_e2", "ts")
_PRICES: Final = ("channel", "index_id", "value", "avg_60s", "avg_60s_ticks", "ts")
_ANNOUNCED: Final = ("event_type", "market_ticker", "body")


@dataclass(frozen=True, slots=True)
class Expected:
    """What is to be played, and what has to come of it."""

    capture: Capture
    truth: Truth
    on_yes_scale: bool
    who_says_so: str

    @classmethod
    def of(cls, path: Path, told_scale: bool | None) -> Expected:
        """Raises SimulatorError when the file cannot be played."""
        capture = Capture(path)
        on_yes_scale, who = scale(capture, told_scale)
        return cls(capture, truth(capture, on_yes_scale=on_yes_scale), on_yes_scale, who)

    def settings(self) -> dict[str, str | None]:
        """What the recorder is told beside where everything is: markets, channels, the scale."""
        ours = {*CHANNEL_OF.values()}
        raw = [name for name in self.capture.channels if name not in ours or name == "fill"]
        prices = any(name in self.capture.channels for name in REFERENCE_CHANNELS)
        return {
            "MARKET_TICKERS": ",".join(self.capture.tickers()),
            "MARKET_ALL_OPEN": None,
            "CHANNELS": ",".join(CHANNELS),
            "RAW": ",".join(dict.fromkeys(raw)) or None,
            "REFERENCE": EVERYTHING if prices else None,
            "USE_YES_PRICE": "on" if self.on_yes_scale else "off",
            "HOT_STANDBY": None,
            # Several connections follow each other at once.
            "WS_BACKOFF_SECS": "0.1",
            "WS_BACKOFF_MAX_SECS": "0.5",
        }


def our_books(books: Books) -> dict[str, Sides | None]:
    """The recorder's books; None: unknown."""
    return {
        ticker: None if market.book.stale else (dict(ladders[0]), dict(ladders[1]))
        for ticker, market in books.by_ticker.items()
        if (ladders := market.book.ladders())
    }


def figures(expected: Expected, settings: Settings, report: dict[str, Any]) -> dict[str, Any]:
    """Every figure; ``agrees``: all that the file says is in both stores, and nothing else."""
    said, capture = expected.truth, expected.capture
    assert settings.clickhouse_url is not None  # noqa: S101 - the demo's settings name both stores
    assert settings.parquet_dir is not None  # noqa: S101
    client = clickhouse.connect(
        settings.clickhouse_url,
        user=settings.clickhouse_user,
        password=settings.clickhouse_password,
        database=settings.clickhouse_database,
    )
    try:
        stores: dict[str, _Asked | _Read] = {
            "clickhouse": _Asked(client, report),
            "parquet": _Read(settings.parquet_dir, report),
        }
        found = {name: _stored(store, said) for name, store in stores.items()}
        folded = {name: _same(_folded(store.events()), said.books) for name, store in stores.items()}
    finally:
        client.close()
    tables = {
        table: {
            "capture": sum(counted.values()),
            **{name: sum(tables[table].values()) for name, tables in found.items()},
            "same": all(tables[table] == counted for tables in found.values()),
        }
        for table, counted in _wanted(said).items()
    }
    books = {
        "capture": len(said.books),
        "recorder": _same({t: b for t, b in report["our_books"].items() if b is not None}, said.books),
        **folded,
    }
    raw = {"capture": sum(said.raw.values()), "parquet": report["raw_stored"]}
    result = {
        "capture": str(capture.path),
        "remarks": capture.remarks(),
        "frames": capture.frames,
        "played": report["played"],
        "scale": scale_name(on_yes_scale=expected.on_yes_scale),
        "scale_by": expected.who_says_so,
        **{name: report[name] for name in ("frames_sent", "frames_received", "frames_per_s")},
        "gaps": said.gaps,
        "repeated": said.repeated,
        "frames_rejected": report["rejected"],
        "unreadable": dict(said.unreadable),
        "tables": tables,
        "books": books,
        "books_unknown": len(said.unknown),
        "tickers": capture.tickers(),
        "raw": raw,
    }
    result["agrees"] = (
        result["frames_sent"] == result["frames_received"]
        and all(table["same"] for table in tables.values())
        and set(books.values()) == {len(said.books)}
        and raw["capture"] == raw["parquet"]
    )
    return result


def _wanted(said: Truth) -> dict[str, Counter[Any]]:
    return {
        "orderbook_events": said.book_rows,
        "trades": Counter({(trade_id, *row): 1 for trade_id, row in said.trades.items()}),
        "tickers": said.tickers,
        "market_lifecycle": said.announcements,
        "reference_prices": Counter(dict.fromkeys(said.reference, 1)),
    }


def _stored(store: _Asked | _Read, said: Truth) -> dict[str, Counter[Any]]:
    """The rows of each table, as the capture's are told: a time that it does not have is left out."""
    timeless = {row[:7] for row in said.book_rows if row[7] == _NO_TIME}
    events: Counter[Any] = Counter()
    for row in store.rows("orderbook_events", _EVENTS):
        if row[0] != "gap":
            events[(*row[:7], _NO_TIME) if row[:7] in timeless else row] += 1
    trades = {row for row in store.rows("trades", _TRADES) if row[0] in said.trades}
    return {
        "orderbook_events": events,
        "trades": Counter(dict.fromkeys(trades, 1)),
        "tickers": Counter(store.rows("tickers", _TICKERS)),
        "market_lifecycle": Counter(
            (kind, ticker, plain(json.loads(body)))
            for kind, ticker, body in store.rows("market_lifecycle", _ANNOUNCED)
        ),
        "reference_prices": Counter(store.rows("reference_prices", _PRICES)),
    }


class _Asked:
    """The rows of this recording in ClickHouse."""

    def __init__(self, client: Any, report: dict[str, Any]) -> None:  # noqa: ANN401
        self._client = client
        self._first, self._since_ns = report["first_conn_id"], report["since_ns"]

    def rows(self, table: str, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
        columns = ", ".join(
            "toUnixTimestamp64Micro(ts)"
            if name == "ts"
            else f"toString({name})"
            if name in ("trade_id", "type", "side", "taker_side")
            else name
            for name in names
        )
        # A trade that an earlier run has stored is not stored again.
        mine = {"orderbook_events": "conn_id >= {first:UInt64}", "trades": "1"}.get(
            table, "ingest_ts >= fromUnixTimestamp64Nano({since:Int64})"
        )
        result = self._client.query(
            f"SELECT {columns} FROM {table} WHERE {mine}",  # noqa: S608 - our own names
            parameters={"first": self._first, "since": self._since_ns},
        )
        return [tuple(row) for row in result.result_rows]

    def events(self) -> list[tuple[Any, ...]]:
        """In the order in which they were received."""
        return [
            tuple(row)
            for row in self._client.query(
                "SELECT toString(type), market_ticker, toString(side), price_e4, qty_e2 FROM orderbook_events"
                " WHERE conn_id >= {first:UInt64} ORDER BY ingest_ts, seq, type != 'gap', type != 'clear'",
                parameters={"first": self._first},
            ).result_rows
        ]


class _Read:
    """The rows of this recording in the Parquet files."""

    def __init__(self, directory: Path, report: dict[str, Any]) -> None:
        self._directory = directory
        self._first, self._since_ns = report["first_conn_id"], report["since_ns"]

    def _table(self, table: str, names: tuple[str, ...]) -> pa.Table:
        since = pa.scalar(self._since_ns, pa.timestamp("ns", "UTC"))
        if table == "orderbook_events":
            files, schema = self._directory / "orderbook", EVENT_SCHEMA
            mine = ds.field("conn_id") >= self._first
        else:
            files, schema = self._directory / table, SCHEMAS[table]
            mine = ds.field("ingest_ts") >= (pa.scalar(0, since.type) if table == "trades" else since)
        return ds.dataset(files, format="parquet", schema=schema).to_table(columns=list(names), filter=mine)

    def rows(self, table: str, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
        found = self._table(table, names)
        columns = [
            (found.column(name).cast(pa.int64()) if name == "ts" else found.column(name)).to_pylist()
            for name in names
        ]
        return list(zip(*columns, strict=True))

    def events(self) -> list[tuple[Any, ...]]:
        """In the order in which they were received."""
        names = ("type", "market_ticker", "side", "price_e4", "qty_e2", "ingest_ts", "seq")
        rows = self.rows("orderbook_events", names)
        rows.sort(key=lambda row: (row[5], row[6], row[0] != "gap", row[0] != "clear"))
        return [row[:5] for row in rows]


def _folded(events: Iterable[tuple[Any, ...]]) -> dict[str, Sides]:
    """The books that the rows alone make, each as it was when it became unknown for the last time."""
    books: dict[str, Sides] = {}
    for kind, ticker, side, price, qty in events:
        if kind == "clear":
            books[ticker] = ({}, {})
        elif kind != "gap" and ticker in books:
            levels = books[ticker][side == "no"]
            levels[price] = levels.get(price, 0) + qty
            if not levels[price]:
                del levels[price]
    return books


def _same(found: dict[str, Sides], wanted: dict[str, Sides]) -> int:
    return sum(found.get(ticker) == sides for ticker, sides in wanted.items())


_CALLED: Final = {
    "orderbook_events": "order-book rows",
    "trades": "trades",
    "tickers": "tickers",
    "market_lifecycle": "announcements",
    "reference_prices": "reference",
}


def describe(found: dict[str, Any], directory: Path) -> str:
    """The figures as the demo prints them."""

    def line(what: str, count: int, more: str) -> str:
        return f"{what:<30}{count:>12,}  {more}".rstrip()

    def verdict(same: bool) -> str:
        return "ok" if same else "DIFFERENT"

    books, raw = found["books"], found["raw"]
    on_scale = ""
    if found["tables"]["orderbook_events"]["capture"]:
        on_scale = f", the no side on the {found['scale']} ({found['scale_by']})"
    lines = [
        f"{found['capture']}: {found['frames']:,} frames{on_scale}",
        *(f"note: {remark}" for remark in found["remarks"]),
        line("frames played as they are", found["played"], ""),
        line("frames sent, with replies", found["frames_sent"], ""),
        line(
            "frames received",
            found["frames_received"],
            verdict(found["frames_sent"] == found["frames_received"]),
        ),
        line("gaps in the numbers", found["gaps"], ""),
    ]
    for table, counts in found["tables"].items():
        more = verdict(counts["same"])
        if not counts["same"]:
            more += f": {counts['clickhouse']:,} in ClickHouse, {counts['parquet']:,} in Parquet"
        lines.append(line(f"{_CALLED[table]} in both stores", counts["capture"], more))
    for what, name in (
        ("known in the recorder", "recorder"),
        ("in ClickHouse", "clickhouse"),
        ("in Parquet", "parquet"),
    ):
        lines.append(
            line(
                f"books {what}",
                books[name],
                f"of {books['capture']:,}  {verdict(books[name] == books['capture'])}",
            )
        )
    if found["books_unknown"]:
        lines.append(line("books not known at the end", found["books_unknown"], "as the frames make them"))
    if raw["capture"]:
        lines.append(
            line(
                "frames of other channels",
                raw["capture"],
                f"kept as they came  {verdict(len(set(raw.values())) == 1)}",
            )
        )
    if found["frames_rejected"] or found["unreadable"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(found["unreadable"].items())) or "none"
        lines.append(
            line("frames rejected", found["frames_rejected"], f"(by the file itself unusable: {kinds})")
        )
    market = next(iter(sorted(found["tickers"])), None)
    lines += [
        "",
        invitation(directory, market)
        if books["capture"]
        else f"Everything is in {directory}: {command()} query --dir {directory}",
    ]
    if not found["agrees"]:
        lines += ["", "FAILED: the stores do not have what the capture says."]
    return "\n".join(lines)
