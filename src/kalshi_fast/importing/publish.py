"""The result of an import in its place: all of its files, or none; and the same source never twice.

Files are made under temporary names. Then ``imports/ID.json`` is written: it names the sources by their
digests, the files and the report, and its appearance under its own name is the moment in which the import
has happened. After it the files take their names; ``recover`` finishes what a crash has left between, and
removes what never got so far. Not here: what is in the files (``rebuild``).
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from kalshi_fast._columns import EventColumns
from kalshi_fast.arrow import EVENT_SCHEMA, SCHEMA_VERSION, STORED_EVENTS, Names, stored
from kalshi_fast.books import NIL_ID
from kalshi_fast.errors import ConfigError, ForeignFileError, reason
from kalshi_fast.sinks import layout

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kalshi_fast.importing.seedfile import Texts

IMPORT_KEY: Final = f"{layout.PREFIX}import"  # in the metadata of the files: which import they are of
_PREFIX: Final = ".import-"
_DAY_NS: Final = 86_400_000_000_000


class SourceEntry(msgspec.Struct, frozen=True):
    name: str
    bytes: int
    digest: str
    rows: int


class OutputEntry(msgspec.Struct, frozen=True):
    date: str  # the directory
    temporary: str
    first_us: int
    rows: int


class Manifest(msgspec.Struct, frozen=True):
    """What an import has made of what."""

    id: str
    at: str
    version: str
    sources: list[SourceEntry]
    outputs: list[OutputEntry]
    report: dict[str, Any]


class Place:
    """The directory that imports go into (PARQUET_DIR of a recorder, say). One import at a time."""

    def __init__(self, root: Path) -> None:
        self.orderbook = root / "orderbook"
        self.imports = root / "imports"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Raises ConfigError for a directory that cannot be used or in which an import is running."""
        try:
            self.orderbook.mkdir(parents=True, exist_ok=True)
            self.imports.mkdir(exist_ok=True)
            handle = os.open(self.imports, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise ConfigError(f"--out: {self.imports.parent}: {error.strerror or error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise ConfigError(f"--out: another import into {self.imports.parent} is running") from None
        finally:
            os.close(handle)

    def manifests(self) -> list[Manifest]:
        """Of all imports that have happened."""
        found = []
        for path in sorted(self.imports.glob("*.json")) if self.imports.is_dir() else ():
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Manifest))
            except (OSError, msgspec.DecodeError) as error:
                raise ConfigError(f"{path} is no report of an import: {reason(error)}") from error
        return found

    def recover(self) -> None:
        """Finishes imports that have happened, removes what did not get so far."""
        manifests = self.manifests()
        for manifest in manifests:
            self._publish(manifest)
        for path in self.orderbook.glob(f"date=*/{_PREFIX}*.tmp"):
            path.unlink()
        done = {manifest.id for manifest in manifests}
        for path in self.imports.iterdir():
            if path.name.endswith(".tmp") or path.name.partition(".")[0] not in done:
                path.unlink()

    def commit(self, manifest: Manifest) -> list[Path]:
        """The import happens. Returns its files."""
        for name in {output.date for output in manifest.outputs}:
            _sync(self.orderbook / name)
        path = self.imports / f"{manifest.id}.json"
        making = path.with_name(f"{path.name}.tmp")
        with making.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
            file.flush()
            os.fsync(file.fileno())
        making.rename(path)
        _sync(self.imports)
        return self._publish(manifest)

    def _publish(self, manifest: Manifest) -> list[Path]:
        paths = []
        for output in manifest.outputs:
            directory = self.orderbook / output.date
            temporary = directory / output.temporary
            if not temporary.exists():
                continue  # it has its name, or has been compacted since
            at_us = output.first_us
            while (final := directory / layout.part_name(at_us)).exists():
                at_us += 1
            temporary.rename(final)
            _sync(directory)
            paths.append(final)
        return paths


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class EventFiles:
    """Rows into files of our layout under temporary names, a file for each date and ``max_bytes``.

    ``place`` None: rows are counted and go nowhere.
    """

    def __init__(self, place: Place | None, import_id: str, texts: Texts, *, max_bytes: int) -> None:
        self.outputs: list[OutputEntry] = []
        self.rows = 0
        self._place = place
        self._id = import_id
        self._texts = texts
        # Only the markets that have rows: a name in a file is a market that is recorded there.
        self._tickers: list[str] = []
        self._numbers: dict[int, int] = {}
        self._max_bytes = max_bytes
        self._columns = EventColumns(layout.ROW_GROUP_ROWS)
        self._day_end_ns = 0
        self._file: _OpenFile | None = None

    def add(
        self,
        kind: int,
        conn_id: int,
        sid: int,
        seq: int,
        ticker: int,
        market_id: int,
        side: int,
        price_e4: int,
        qty_e2: int,
        ts_us: int,
        ingest_ns: int,
    ) -> None:
        """One row; receive times never fall."""
        if ingest_ns >= self._day_end_ns:
            self._end_file()
            self._day_end_ns = (ingest_ns // _DAY_NS + 1) * _DAY_NS
        number = self._numbers.get(ticker)
        if number is None:
            number = self._numbers[ticker] = len(self._tickers)
            self._tickers.append(self._texts.tickers[ticker])
        row = (kind, conn_id, sid, seq, number, market_id + 1, side, price_e4, qty_e2, ts_us, ingest_ns)
        if not self._columns.add(*row):
            self._flush()
            if self._file is not None and self._file.size_bytes >= self._max_bytes:
                self._end_file()
            self._columns.add(*row)
        self.rows += 1

    def finish(self) -> None:
        self._end_file()

    def abandon(self) -> None:
        """Leaves no file behind."""
        if self._file is not None:
            self._file.abandon()
            self._file = None
        if self._place is not None:
            for output in self.outputs:
                (self._place.orderbook / output.date / output.temporary).unlink(missing_ok=True)

    def _flush(self) -> None:
        """Makes a row group of what is in the columns."""
        columns = self._columns
        if columns.n and self._place is not None:
            if self._file is None:
                first_us = int(columns.arrays["ingest_ns"][0]) // 1000
                temporary = f"{_PREFIX}{self._id}-{len(self.outputs)}.tmp"
                self._file = _OpenFile(self._place.orderbook, temporary, first_us)
            names = Names(self._tickers, [NIL_ID, *self._texts.ids])
            self._file.write(names.events(stored(STORED_EVENTS, columns.arrays, columns.n)))
        columns.begin()

    def _end_file(self) -> None:
        self._flush()
        if self._file is not None:
            self.outputs.append(self._file.finish(self._id))
            self._file = None


class _OpenFile:
    def __init__(self, orderbook: Path, temporary: str, first_us: int) -> None:
        self._first_us = first_us
        self._rows = 0
        directory = orderbook / layout.date_name(first_us)
        directory.mkdir(exist_ok=True)
        self._path = directory / temporary
        self._file = self._path.open("wb")
        self._writer = pq.ParquetWriter(self._file, EVENT_SCHEMA, **layout.writer_options())

    @property
    def size_bytes(self) -> int:
        return self._file.tell()

    def write(self, rows: pa.RecordBatch) -> None:
        self._writer.write_batch(rows)
        self._rows += rows.num_rows

    def finish(self, import_id: str) -> OutputEntry:
        self._writer.add_key_value_metadata(
            {
                layout.SCHEMA_VERSION_KEY: str(SCHEMA_VERSION),
                layout.VERSION_KEY: version("kalshi-fast"),
                layout.RECORDER_KEY: f"import-{import_id}",
                IMPORT_KEY: import_id,
            }
        )
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        return OutputEntry(self._path.parent.name, self._path.name, self._first_us, self._rows)

    def abandon(self) -> None:
        with suppress(OSError):  # the disk may have refused: what it has is thrown away all the same
            self._writer.close()
        self._writer.is_open = False
        with suppress(OSError):
            self._file.close()
        self._path.unlink(missing_ok=True)


@contextmanager
def writing(place: Place) -> Iterator[None]:
    """What the disk says, as our error."""
    try:
        yield
    except OSError as error:
        raise ForeignFileError(
            f"{error.filename or place.orderbook} cannot be written: {error.strerror or error}"
        ) from error
