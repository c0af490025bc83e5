"""What the rows written so far say of each market: is its book known, and where did it stand.

A recorder that dies takes what it had in memory with it: from there on its books are unknown, and
``gap_rows`` says so in rows. Not here: when that is due (``journal``).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kalshi_fast._columns import CLEAR, GAP, SNAPSHOT, EventColumns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from kalshi_fast.batch import Extra

_DTYPES = {
    "known": np.dtype(np.bool_),
    "type": np.dtype(np.int8),
    "conn_id": np.dtype(np.uint64),
    "sid": np.dtype(np.uint32),
    "seq": np.dtype(np.uint64),
    "id_ix": np.dtype(np.int32),
}


class _Packed(msgspec.Struct):
    columns: dict[str, bytes]
    ingest_ns: int
    version: int
    last_ns: dict[int, int] = {}


class Marks:
    """Of one recorder's markets, by their numbers.

    ``ingest_ns``, ``version``: the largest receive time and level version so far, of all recorders.
    """

    def __init__(self) -> None:
        self.ingest_ns = 0
        self.version = 0
        self._last_ns: dict[int, int] = {}  # of the rows of each connection
        self._columns: dict[str, NDArray[Any]] = {name: np.zeros(0, dtype) for name, dtype in _DTYPES.items()}

    @property
    def known(self) -> int:
        """How many books are known."""
        return int(np.count_nonzero(self._columns["known"]))

    def apply(
        self, events: Mapping[str, NDArray[Any]] | None, levels: Mapping[str, NDArray[Any]] | None
    ) -> None:
        """Takes the rows of one batch into account."""
        if levels is not None and len(levels["version"]):
            self.version = max(self.version, int(levels["version"].max()))
        if events is None or not len(events["market_ix"]):
            return
        self.ingest_ns = max(self.ingest_ns, int(events["ingest_ns"].max()))
        times, conn_ids = events["ingest_ns"], events["conn_id"]
        for conn_id in np.unique(conn_ids).tolist():
            last_ns = int(times[conn_ids == conn_id].max())
            self._last_ns[conn_id] = max(self._last_ns.get(conn_id, 0), last_ns)
        market = events["market_ix"]
        self._make_room(int(market.max()) + 1)
        for name in ("type", "conn_id", "sid", "seq", "id_ix"):
            self._columns[name][market] = events[name]  # of several rows of a market the last one stays
        marking = events["type"] >= CLEAR
        self._columns["known"][market[marking]] = events["type"][marking] == CLEAR

    def received(self, extra: Extra) -> None:
        """Takes the receive times of the rows of other channels into account; a channel's never fall."""
        rows = extra.channels
        told = (rows.trades, rows.tickers, rows.market_lifecycle, rows.reference_prices, extra.raw)
        for last in (found[-1:] for found in told):
            for row in last:
                self.ingest_ns = max(self.ingest_ns, row.ingest_ns)

    def _make_room(self, markets: int) -> None:
        there = len(self._columns["known"])
        if there >= markets:
            return
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate(
                [column, np.zeros(max(markets, 2 * there) - there, column.dtype)]
            )

    def gap_rows(self) -> EventColumns | None:
        """One gap for every market whose book is known, right behind the last row of its connection: that is
        the last frame which is known to be good. None when no book is known.

        Its ``seq`` is the first number from which the book is unknown: the one after the last that was
        written of its subscription, or that one itself when it may have been written in part (a snapshot).
        """
        columns = self._columns
        known = np.flatnonzero(columns["known"])
        if not len(known):
            return None
        pairs = np.empty(len(columns["sid"]), [("conn_id", np.uint64), ("sid", np.uint32)])
        pairs["conn_id"], pairs["sid"] = columns["conn_id"], columns["sid"]
        _, group = np.unique(pairs, return_inverse=True)
        last = np.zeros(group.max() + 1, np.uint64)
        np.maximum.at(last, group, columns["seq"])
        last_of_market = last[group]
        in_part = (columns["seq"] == last_of_market) & np.isin(columns["type"], (CLEAR, SNAPSHOT))
        seq = last_of_market + np.where(in_part, 0, 1).astype(np.uint64)
        rows = EventColumns(len(known))
        for ix in known:
            conn_id = int(columns["conn_id"][ix])
            at_ns = self._last_ns.get(conn_id, self.ingest_ns) + 1
            rows.add(
                GAP,
                conn_id,
                int(columns["sid"][ix]),
                int(seq[ix]),
                int(ix),
                int(columns["id_ix"][ix]),
                0,
                0,
                0,
                at_ns // 1000,
                at_ns,
            )
        self.ingest_ns += 1
        return rows

    def suspect(self) -> None:
        """Rows are missing: every book of which there are rows may be known to somebody."""
        self._columns["known"] = self._columns["conn_id"] != 0

    def begin_recorder(self) -> None:
        """Another recorder numbers its markets anew; times and versions go on."""
        for name, dtype in _DTYPES.items():
            self._columns[name] = np.zeros(0, dtype)
        self._last_ns.clear()

    def pack(self) -> bytes:
        """All of it as bytes."""
        columns = {name: column.tobytes() for name, column in self._columns.items()}
        carried = set(self._columns["conn_id"].tolist())
        last_ns = {conn_id: ns for conn_id, ns in self._last_ns.items() if conn_id in carried}
        return msgspec.msgpack.encode(_Packed(columns, self.ingest_ns, self.version, last_ns))

    @classmethod
    def unpack(cls, packed: bytes) -> Marks:
        """What ``pack`` has packed. Raises msgspec.DecodeError, KeyError or ValueError."""
        found = msgspec.msgpack.decode(packed, type=_Packed)
        marks = cls()
        marks.ingest_ns, marks.version = found.ingest_ns, found.version
        marks._last_ns = found.last_ns
        for name, dtype in _DTYPES.items():
            marks._columns[name] = np.frombuffer(found.columns[name], dtype).copy()
        return marks
