"""One Parquet file of the seed as typed columns: text becomes integers, what cannot be read is marked.

The seed's columns are type, sid, seq, market_id, market_ticker, side, price (cents), qty (contracts), ts
and ingest_ts, the last two as ISO 8601 text (files seen have all of them, older ones no ingest_ts). Values
are read in whole batches; only a batch that holds something unreadable is read value by value. Not here:
what rows mean together (``rebuild``).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast.errors import ForeignFileError, reason
from kalshi_fast.importing.values import (
    EXPECTED,
    Place,
    codes,
    integers,
    moments,
    numbered,
    ones,
    plain_type,
    reads,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kalshi_fast.importing.findings import Findings
    from kalshi_fast.importing.values import Ints, Mask

REQUIRED: Final = ("type", "seq", "market_ticker", "side", "price", "qty", "ts")
OPTIONAL: Final = ("sid", "market_id", "ingest_ts")
BATCH_ROWS: Final = 65_536
TICKER: Final = re.compile(r"[A-Z0-9.-]{1,128}")
MAX_CENTS: Final = 100
MAX_CONTRACTS: Final = 10**12  # QTY_LIMIT_E2 of a book, in contracts
# A footer that has been damaged may name columns in bytes that are no text.
_UNREADABLE: Final = (pa.ArrowException, OSError, UnicodeDecodeError)
_KINDS: Final = pa.array(["snapshot", "delta"])
_SIDES: Final = pa.array(["yes", "no"])
# In this order a row is looked at: the first that is wrong is the reason.
REASONS: Final = (
    "",
    "bad_seq",
    "bad_sid",
    "bad_market_ticker",
    "bad_type",
    "bad_side",
    "bad_price",
    "bad_qty",
    "no_time",
)
_CODES: Final = {name: code for code, name in enumerate(REASONS)}


@dataclass(slots=True)
class Rows:
    """Columns of one length. ``wrong``: an index into REASONS; where it is not 0 some value is meaningless.

    ``ticker`` and ``market_id`` are numbers of ``Texts``, -1 for none.
    """

    file: Ints
    row: Ints
    wrong: Ints
    kind: Ints  # SNAPSHOT 0, DELTA 1
    sid: Ints
    seq: Ints
    ticker: Ints
    market_id: Ints
    side: Ints
    price: Ints  # cents
    qty: Ints  # contracts
    ts_ns: Ints
    ingest_ns: Ints

    def __len__(self) -> int:
        return len(self.row)

    def arrays(self) -> list[Ints]:
        return [getattr(self, name) for name in Rows.__slots__]

    def take(self, order: Ints) -> Rows:
        return Rows(*(array[order] for array in self.arrays()))

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        return Rows(*(np.concatenate(arrays) for arrays in zip(*(p.arrays() for p in parts), strict=True)))


class Texts:
    """Tickers and market ids by number, in the order in which they were met."""

    def __init__(self) -> None:
        self.tickers: list[str] = []
        self.ids: list[str] = []
        self._ticker_numbers: dict[str, int] = {}
        self._id_numbers: dict[str, int] = {}

    def ticker(self, text: str | None) -> int:
        if text is None or TICKER.fullmatch(text) is None:
            return -1
        return _number(text, self.tickers, self._ticker_numbers)

    def market_id(self, text: str | None) -> int:
        """-1: none; -2: no UUID."""
        if not text:
            return -1
        try:
            canonical = str(uuid.UUID(text))
        except ValueError:
            return -2
        return _number(canonical, self.ids, self._id_numbers)


def _number(text: str, texts: list[str], numbers: dict[str, int]) -> int:
    number = numbers.get(text)
    if number is None:
        number = numbers[text] = len(texts)
        texts.append(text)
    return number


class SeedFile:
    """A file whose footer and columns are known to be those of the seed. Raises ForeignFileError."""

    def __init__(self, path: Path, name: str, number: int) -> None:
        self.path = path
        self.name = name  # as it is called in reports
        self.number = number
        try:
            self.bytes = path.stat().st_size
            with path.open("rb") as file:
                self.digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
            with self._open() as opened:
                self.rows: int = opened.metadata.num_rows
                self._check(opened.schema_arrow)
        except _UNREADABLE as error:
            raise ForeignFileError(f"{path} is no readable Parquet file: {reason(error)}") from error

    def _open(self) -> pq.ParquetFile:
        return pq.ParquetFile(self.path, pre_buffer=False, page_checksum_verification=True)

    def _check(self, schema: pa.Schema) -> None:
        if "price_e4" in schema.names:
            raise ForeignFileError(f"{self.path} is in the layout of kalshi-fast already: nothing to import")
        odd = [name for name in REQUIRED if schema.names.count(name) != 1]
        odd += [name for name in OPTIONAL if schema.names.count(name) > 1]
        if odd:
            raise ForeignFileError(
                f"{self.path} is no recording of the seed: it has no column {', '.join(odd)} (or several)"
            )
        for name in REQUIRED + OPTIONAL:
            if name in schema.names and not reads(name, plain_type(schema.field(name).type)):
                raise ForeignFileError(
                    f"{self.path}: {name}: expected text or {EXPECTED.get(name, 'nothing else')}, got"
                    f" {schema.field(name).type}"
                )
        self.columns = [name for name in REQUIRED + OPTIONAL if name in schema.names]

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The columns as they are. Raises ForeignFileError, which names the row group that is damaged."""
        group = 0
        rows = 0
        try:
            with self._open() as file:
                for group in range(file.metadata.num_row_groups):
                    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=self.columns):
                        rows += batch.num_rows
                        yield batch
        except _UNREADABLE as error:
            raise ForeignFileError(f"{self.path}: row group {group} is damaged: {reason(error)}") from error
        if rows != self.rows:
            raise ForeignFileError(f"{self.path} has {rows} rows, and its footer says {self.rows}")

    def read(self, texts: Texts, findings: Findings) -> Iterator[Rows]:
        """All rows, in the order of the file."""
        first = 0
        for batch in self.batches():
            yield self._typed(batch, first, texts, findings)
            first += batch.num_rows

    def _typed(self, batch: pa.RecordBatch, first: int, texts: Texts, findings: Findings) -> Rows:
        n = batch.num_rows
        place = Place(self.name, first, findings)
        columns = {name: batch.column(name) for name in batch.schema.names}
        kind = codes(columns["type"], _KINDS)
        side = codes(columns["side"], _SIDES)
        ticker = numbered(columns["market_ticker"], texts.ticker)
        market_id = numbered(columns["market_id"], texts.market_id) if "market_id" in columns else -ones(n)
        seq, seq_good = integers(columns["seq"])
        sid, sid_good = integers(columns["sid"]) if "sid" in columns else (0 * ones(n), ones(n) > 0)
        price, price_good = integers(columns["price"])
        qty, qty_good = integers(columns["qty"])
        ts, ts_good = moments(columns["ts"], place)
        ingest, ingest_good = (
            moments(columns["ingest_ts"], place) if "ingest_ts" in columns else (0 * ones(n), ones(n) < 0)
        )
        wrong = 0 * ones(n)
        for name, bad in reversed(
            (
                ("bad_seq", ~(seq_good & (seq >= 0))),
                ("bad_sid", ~(sid_good & (sid >= 0) & (sid < 1 << 32))),
                ("bad_market_ticker", ticker < 0),
                ("bad_type", kind < 0),
                ("bad_side", side < 0),
                ("bad_price", ~(price_good & (price >= 0) & (price <= MAX_CENTS))),
                ("bad_qty", ~_fits(kind, qty, qty_good)),
                ("no_time", ~(ts_good | ingest_good)),
            )
        ):
            wrong[bad] = _CODES[name]
        place.note("bad_ts", ~ts_good & ingest_good, columns["ts"])
        if "ingest_ts" in columns:
            place.note("bad_ingest_ts", ~ingest_good & ts_good, columns["ingest_ts"])
        else:
            place.note("bad_ingest_ts", ts_good, None)
        place.note("ts_after_ingest", ts_good & ingest_good & (ts > ingest), columns["ts"])
        if "market_id" in columns:
            place.note("bad_market_id", market_id == -2, columns["market_id"])
        return Rows(
            file=ones(n) * self.number,
            row=np.arange(first, first + n),
            wrong=wrong,
            kind=kind,
            sid=sid,
            seq=seq,
            ticker=ticker,
            market_id=np.maximum(market_id, -1),
            side=side,
            price=price,
            qty=qty,
            ts_ns=np.where(ts_good, ts, ingest),
            ingest_ns=np.where(ingest_good, ingest, ts),
        )


def _fits(kind: Ints, qty: Ints, good: Mask) -> Mask:
    least = np.where(kind == 0, 0, -MAX_CONTRACTS)
    fits: Mask = good & (qty >= least) & (qty <= MAX_CONTRACTS)
    return fits
