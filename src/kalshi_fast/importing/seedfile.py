"""One Parquet file of the seed as typed columns: text becomes integers, what cannot be read is marked.

The seed's columns are type, sid, seq, market_id, market_ticker, side, price (cents), qty (contracts), ts and
ingest_ts, the last two as ISO 8601 text (shared/SEED.md; files seen have all of them, older ones no
ingest_ts). Values are read in whole batches; only a batch that holds something unreadable is read value by
value. Not here: what rows mean together (``rebuild``).
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kalshi_fast.errors import ForeignFileError, reason

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from kalshi_fast.importing.findings import Findings

Ints: TypeAlias = "NDArray[np.int64]"
Mask: TypeAlias = "NDArray[np.bool_]"

REQUIRED: Final = ("type", "seq", "market_ticker", "side", "price", "qty", "ts")
OPTIONAL: Final = ("sid", "market_id", "ingest_ts")
BATCH_ROWS: Final = 65_536
TICKER: Final = re.compile(r"[A-Z0-9.-]{1,128}")
MAX_CENTS: Final = 100
MAX_CONTRACTS: Final = 10**12  # QTY_LIMIT_E2 of a book, in contracts
# Kalshi opened in 2021; what is dated elsewhere is no time of an event.
FLOOR_NS: Final = int(datetime(2021, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
END_NS: Final = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000_000
# A footer that has been damaged may name columns in bytes that are no text.
_UNREADABLE: Final = (pa.ArrowException, OSError, UnicodeDecodeError)
_UNIT_NS: Final = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
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
            if name in schema.names and not _reads(name, _plain_type(schema.field(name).type)):
                raise ForeignFileError(
                    f"{self.path}: {name}: expected text or {_EXPECTED.get(name, 'nothing else')}, got"
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
        place = _Place(self.name, first, findings)
        columns = {name: batch.column(name) for name in batch.schema.names}
        kind = _codes(columns["type"], _KINDS)
        side = _codes(columns["side"], _SIDES)
        ticker = _numbered(columns["market_ticker"], texts.ticker)
        market_id = _numbered(columns["market_id"], texts.market_id) if "market_id" in columns else -_ones(n)
        seq, seq_good = _integers(columns["seq"])
        sid, sid_good = _integers(columns["sid"]) if "sid" in columns else (0 * _ones(n), _ones(n) > 0)
        price, price_good = _integers(columns["price"])
        qty, qty_good = _integers(columns["qty"])
        ts, ts_good = _moments(columns["ts"], place)
        ingest, ingest_good = (
            _moments(columns["ingest_ts"], place) if "ingest_ts" in columns else (0 * _ones(n), _ones(n) < 0)
        )
        wrong = 0 * _ones(n)
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
            file=_ones(n) * self.number,
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


@dataclass(slots=True)
class _Place:
    """Where a batch stands, to say it in examples."""

    name: str
    first: int
    findings: Findings

    def note(self, kind: str, rows: Mask, column: pa.Array | None) -> None:
        places = np.flatnonzero(rows)
        self.findings.count(kind, len(places), (self._example(place, column) for place in places))

    def _example(self, place: np.intp, column: pa.Array | None) -> str:
        told = "" if column is None else f": {strings(column.slice(int(place), 1))[0]!r}"[:80]
        return f"{self.name}, row {self.first + int(place)}{told}"


def _ones(n: int) -> Ints:
    return np.ones(n, np.int64)


def _fits(kind: Ints, qty: Ints, good: Mask) -> Mask:
    least = np.where(kind == 0, 0, -MAX_CONTRACTS)
    fits: Mask = good & (qty >= least) & (qty <= MAX_CONTRACTS)
    return fits


# --- columns -------------------------------------------------------------------------------------------

_EXPECTED: Final = {
    **dict.fromkeys(("sid", "seq", "price", "qty"), "whole numbers"),
    **dict.fromkeys(("ts", "ingest_ts"), "timestamps"),
}


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _reads(name: str, kind: pa.DataType) -> bool:
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind):
        return True
    expected = _EXPECTED.get(name)
    if expected == "whole numbers":
        is_number = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal)
        return any(found(kind) for found in is_number)
    return expected == "timestamps" and bool(pa.types.is_timestamp(kind))


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _is_text(column: pa.Array) -> bool:
    return bool(pa.types.is_string(column.type) or pa.types.is_large_string(column.type))


def strings(column: pa.Array) -> list[Any]:
    """The values; text that is no UTF-8 with replacement characters."""
    column = _plain(column)
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = [
            None if value is None else value.decode("utf-8", "replace")
            for value in column.cast(pa.large_binary()).to_pylist()
        ]
    except (ValueError, OverflowError):  # a timestamp beyond the years of datetime
        values = [None if value is None else str(value) for value in column.cast(pa.int64()).to_pylist()]
    return values


def _codes(column: pa.Array, words: pa.Array) -> Ints:
    """Which of the words each value is, -1 for none of them."""
    column = _plain(column)
    if not _is_text(column):
        return -_ones(len(column))
    found = pc.index_in(column, value_set=words.cast(column.type)).fill_null(-1)
    codes: Ints = found.to_numpy(zero_copy_only=False).astype(np.int64)
    return codes


def _numbered(column: pa.Array, number: Any) -> Ints:  # noqa: ANN401
    """``number`` of each value; it is asked once for each different one."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    if pa.types.is_null(column.type):
        return _ones(len(column)) * int(number(None))
    numbers = np.array([number(value) for value in strings(encoded.dictionary)] + [number(None)], np.int64)
    indices = encoded.indices.cast(pa.int64()).fill_null(len(numbers) - 1)
    found: Ints = numbers[indices.to_numpy(zero_copy_only=False)]
    return found


def _integers(column: pa.Array) -> tuple[Ints, Mask]:
    """Whole numbers, and where they are some; a fraction or text that is no number is none."""
    column = _plain(column)
    if not _is_text(column):
        try:
            whole = column.cast(pa.int64())
        except pa.ArrowException:
            pass  # one of them is no whole number
        else:
            good: Mask = whole.is_valid().to_numpy(zero_copy_only=False)
            filled: Ints = whole.fill_null(0).to_numpy(zero_copy_only=False)
            return filled, good
    read = [_integer(value) for value in strings(column)]
    values = np.array([0 if value is None else value for value in read], np.int64)
    return values, np.array([value is not None for value in read], np.bool_)


def _integer(value: object) -> int | None:
    if isinstance(value, str):
        if re.fullmatch(r"[+-]?[0-9]{1,19}(\.0{1,9})?", value, re.ASCII) is None:
            return None
        value = int(value.partition(".")[0])
    try:
        whole = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError, ArithmeticError):  # null, NaN, infinity
        return None
    return whole if whole == value and -(1 << 63) <= whole < 1 << 63 else None


def _moments(column: pa.Array, place: _Place) -> tuple[Ints, Mask]:
    """Nanoseconds since 1970, and where they are times that an event can have."""
    column = _plain(column)
    n = len(column)
    if pa.types.is_timestamp(column.type):
        raw = column.cast(pa.int64())
        unit = _UNIT_NS[column.type.unit]
        values = raw.fill_null(0).to_numpy(zero_copy_only=False)
        good = raw.is_valid().to_numpy(zero_copy_only=False)
        good = good & (values >= FLOOR_NS // unit) & (values < END_NS // unit)
        if column.type.tz is None:
            place.note("no_zone", good, None)
        return np.where(good, values, 0) * unit, good
    if not _is_text(column):  # a column of nothing but nulls
        return 0 * _ones(n), _ones(n) < 0
    place.note("text_timestamps", column.is_valid().to_numpy(zero_copy_only=False), column)
    for zone in ("UTC", None):
        try:
            read = column.cast(pa.timestamp("us", zone)).cast(pa.int64())
        except pa.ArrowException:
            continue  # one of them is no time, or has a zone and should not, or the reverse
        us = read.fill_null(0).to_numpy(zero_copy_only=False)
        good = (us >= FLOOR_NS // 1000) & (us < END_NS // 1000)
        ns = np.where(good, us, 0) * 1000
        if zone is None:
            place.note("no_zone", good, column)
        return ns, good
    found = [_moment(text) for text in strings(column)]
    ns = np.array([at for at, _ in found], np.int64)
    good = (ns >= FLOOR_NS) & (ns < END_NS)
    place.note("no_zone", good & np.array([naive for _, naive in found], np.bool_), column)
    return ns, good


def _moment(text: str | None) -> tuple[int, bool]:
    """Nanoseconds (0: no time), and whether it had no zone."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return 0, False
    naive = moment.tzinfo is None
    if naive:
        moment = moment.replace(tzinfo=UTC)
    try:
        whole = moment.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    except OverflowError:  # the first and the last day of datetime
        return 0, naive
    ns = (whole.days * 86_400 + whole.seconds) * 1_000_000_000 + whole.microseconds * 1000
    return (ns if FLOOR_NS <= ns < END_NS else 0), naive
