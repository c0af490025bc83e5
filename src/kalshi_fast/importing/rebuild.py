"""What each row is worth: the seed's rows in order become ours, with the moments when a book is unknown.

A book is known from a snapshot that is whole and true, until a number of its sequence is missing, the
connection begins anew, or a row of its market cannot be true: then a ``gap`` says so, at the last moment
when it was known. Rows that cannot be true, or that come twice, are kept aside with the reason; every row
read is either written or kept aside. Rows of one snapshot share ticker, sid and seq. Not here: reading
(``seedfile``), order of time (``ordering``), files (``publish``).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from kalshi_fast._book import NO, SIDES, YES
from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast.errors import BookError, LevelLimitError
from kalshi_fast.importing.ordering import FRAME_NS
from kalshi_fast.importing.seedfile import REASONS
from kalshi_fast.importing.state import Aside, Market, Snapshot

if TYPE_CHECKING:
    from kalshi_fast.importing.findings import Findings
    from kalshi_fast.importing.labels import Labels
    from kalshi_fast.importing.ordering import MarketIds
    from kalshi_fast.importing.seedfile import Rows, SeedFile, Texts
    from kalshi_fast.importing.state import Output

_REMEMBERED: Final = 50_000  # rows, twice: how far back a repetition is known for one
_BAD_SEQ, _BAD_SID = (REASONS.index(name) for name in ("bad_seq", "bad_sid"))


class Rebuilder:
    """``take`` rows in order, then ``finish``."""

    def __init__(
        self,
        files: list[SeedFile],
        texts: Texts,
        ids: MarketIds,
        findings: Findings,
        output: Output,
        labels: Labels,
    ) -> None:
        self.aside = Aside()
        self.written = 0  # of the rows read; clear and gap rows come on top
        self.clears = 0
        self.gaps = 0
        self.connections = 0
        self._files = files
        self._texts = texts
        self._ids = ids
        self._findings = findings
        self._output = output
        self._labels = labels
        self._markets: dict[int, Market] = {}
        self._last_seq: dict[int, int] = {}
        self._conn_id = 0
        self._snapshot: Snapshot | None = None
        self._now_ns = 0  # of the last row taken
        self._suspect: dict[int, int] = {}  # by market (-1: any): when a row of no known number came last
        self._recent: set[tuple[int, ...]] = set()
        self._older: set[tuple[int, ...]] = set()

    def take(self, rows: Rows) -> None:
        for row in zip(*(column.tolist() for column in rows.arrays()), strict=True):
            self._row(row)

    def finish(self) -> None:
        """The recordings end here: what comes after is not known of any book."""
        self._close_snapshot()
        for market in self._markets.values():
            self._lose(market, self._last_seq.get(market.sid, 0) + 1)
            if not market.snapshots:
                self._findings.add("no_snapshot", self._texts.tickers[market.number])
        for ticker, _ in sorted(self._ids.others):
            self._findings.add("market_id_changes", self._texts.tickers[ticker])

    @property
    def markets(self) -> int:
        return len(self._markets)

    # --- one row ----------------------------------------------------------------------------------

    def _row(self, row: tuple[int, ...]) -> None:
        file, place, wrong, kind, sid, seq, ticker, market_id, side, cents, qty, ts_ns, ingest_ns = row
        snapshot = self._snapshot
        goes_on = (
            snapshot is not None
            and snapshot.sid == sid
            and snapshot.seq == seq
            and (
                (wrong and ticker in (snapshot.market.number, -1))
                or (
                    kind == SNAPSHOT
                    and ticker == snapshot.market.number
                    and abs(ts_ns - snapshot.ts_us * 1000) < FRAME_NS
                )
            )
        )
        if wrong in (_BAD_SEQ, _BAD_SID):
            # Which number it was is not known: the next one will show whether one is missing.
            if snapshot is not None and kind != DELTA and ticker in (snapshot.market.number, -1):
                snapshot.broken = True
            else:
                self._close_snapshot()
                self._suspect[ticker if kind == SNAPSHOT else -1] = ts_ns
            self._advance(ingest_ns, file, place)
            self._keep_aside(file, place, REASONS[wrong])
            self._doubt(-1 if ticker in self._labels.orphans else ticker, None, None)
            return
        key = (sid, seq, ticker, kind, side, cents, qty, ts_ns)
        if not goes_on:
            self._close_snapshot()
            last = self._last_seq.get(sid)
            if last is not None and seq != last + 1:
                if key in self._recent or key in self._older:
                    self._keep_aside(file, place, "duplicate")
                    return
                if seq == last and (kind != SNAPSHOT or ts_ns - self._now_ns < FRAME_NS):
                    self._keep_aside(file, place, "repeated_seq")
                    self._advance(ingest_ns, file, place)
                    self._doubt(ticker, sid, seq + 1)
                    return
            self._sequence(sid, seq, last, file, place)
        self._remember(key)
        self._advance(ingest_ns, file, place)
        if wrong:
            self._keep_aside(file, place, REASONS[wrong])
            if goes_on and snapshot is not None:
                snapshot.broken = True
            elif kind == SNAPSHOT and ticker >= 0:
                self._begin_snapshot(row).broken = True
            else:
                self._doubt(-1 if ticker in self._labels.orphans else ticker, sid, seq)
            return
        label = ticker
        if ticker in self._labels.orphans:
            ticker = self._owner(sid, seq, ticker, file, place)
        market = self._market(ticker)
        market_id = self._named(market_id, ticker, file, place)
        if kind == SNAPSHOT:
            self._level(row, snapshot if goes_on else None)
        else:
            self._delta(market, row, market_id, label)

    def _owner(self, sid: int, seq: int, ticker: int, file: int, place: int) -> int:
        """The market of a change whose own label has nothing but changes."""
        owner = self._labels.owner(sid, ticker)
        if owner >= 0:
            names = self._texts.tickers
            findings = self._findings
            told = f"{self._at(file, place)}: {names[ticker]} is {names[owner]}"
            findings.add("relabelled", told if findings.wants("relabelled") else "")
            return owner
        self._note("label_doubtful", file, place)
        self._doubt(-1, sid, seq)
        return ticker

    def _level(self, row: tuple[int, ...], snapshot: Snapshot | None) -> None:
        file, place, _, _, _, _, _, _, side, cents, qty, _, _ = row
        if snapshot is None:
            snapshot = self._begin_snapshot(row)
        if qty == 0:
            self._keep_aside(file, place, "empty_level")
            return
        level = (side, cents * 100)
        before = snapshot.levels.get(level)
        if before is not None:
            # The same once more is a repetition; another size makes both doubtful.
            self._keep_aside(file, place, "duplicate" if before == qty * 100 else "broken_snapshot")
            snapshot.broken |= before != qty * 100
            return
        snapshot.levels[level] = qty * 100
        snapshot.rows.append((file, place, self._now_ns))

    def _delta(self, market: Market, row: tuple[int, ...], market_id: int, label: int) -> None:
        file, place, _, _, sid, seq, _, _, side, cents, qty, ts_ns, _ = row
        if market.known and market.sid != sid:
            # Two subscriptions of one market: which of their changes a reader has applied is anybody's guess.
            self._lose(market, self._last_seq[market.sid] + 1)
        if market.known:
            try:
                market.book.apply_delta(side, cents * 100, qty * 100)
            except BookError as error:
                reason = "level_limit" if isinstance(error, LevelLimitError) else "negative_level"
                size = market.book.size_at(side, cents * 100)
                told = f"{SIDES[side]} {cents} has {size / 100:.2f}, changed by {qty}"
                self._keep_aside(file, place, reason, told)
                self._lose(market, seq)
                if label != market.number:
                    self._labels.contradicts(label, market.number)
                return
            if label != market.number:
                self._labels.fits(sid, label, market.number, side, cents, qty)
            self._look_at(market, file, place)
        else:
            self._unknown_delta(market, side, cents, qty, file, place)
        self.written += 1
        self._output.add(
            DELTA,
            self._conn_id,
            sid,
            seq,
            market.number,
            market_id,
            side,
            cents * 100,
            qty * 100,
            ts_ns // 1000,
            self._now_ns,
        )

    def _unknown_delta(self, market: Market, side: int, cents: int, qty: int, file: int, place: int) -> None:
        self._note("deltas_unknown", file, place)
        after = market.changes.get((side, cents), 0) + qty
        market.changes[side, cents] = after
        if after < 0:
            self._note("would_be_negative", file, place)

    def _look_at(self, market: Market, file: int, place: int) -> None:
        spread_e4 = market.book.spread_e4
        crossed = spread_e4 is not None and spread_e4 < 0
        if crossed and not market.crossed:
            self._note("crossed", file, place)
        market.crossed = crossed

    # --- snapshots --------------------------------------------------------------------------------

    def _begin_snapshot(self, row: tuple[int, ...]) -> Snapshot:
        file, place, _, _, sid, seq, ticker, market_id, _, _, _, ts_ns, _ = row
        if market_id < 0:
            market_id = self._ids.first.get(ticker, -1)
        at = (file, place, self._now_ns)
        self._snapshot = Snapshot(self._market(ticker), market_id, sid, seq, ts_ns // 1000, at)
        # A row whose number cannot be read may have been its first one.
        self._snapshot.broken = any(
            abs(ts_ns - self._suspect.get(number, 0)) < FRAME_NS for number in (ticker, -1)
        )
        return self._snapshot

    def _close_snapshot(self) -> None:
        """All rows of the open snapshot are there: they are a book, or none of them is."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        self._snapshot = None
        market = snapshot.market
        if snapshot.broken:
            for file, place, _ in snapshot.rows:
                self._keep_aside(file, place, "broken_snapshot")
            self._lose(market, snapshot.seq)
            return
        self._labels.snapshot(snapshot.sid, market.number)
        file, place, ingest_ns = snapshot.at
        begin = (self._conn_id, snapshot.sid, snapshot.seq, market.number, snapshot.market_id)
        self._output.add(CLEAR, *begin, YES, 0, 0, snapshot.ts_us, ingest_ns)
        self.clears += 1
        sides: tuple[list[tuple[int, int]], list[tuple[int, int]]] = ([], [])
        for ((side, price_e4), qty_e2), (_, _, at_ns) in zip(
            snapshot.levels.items(), snapshot.rows, strict=True
        ):
            sides[side].append((price_e4, qty_e2))
            self._output.add(SNAPSHOT, *begin, side, price_e4, qty_e2, snapshot.ts_us, at_ns)
        self.written += len(snapshot.rows)
        market.book.apply_snapshot(sides[YES], sides[NO])
        market.known = True
        market.sid = snapshot.sid
        market.snapshots += 1
        market.changes.clear()
        self._look_at(market, file, place)

    # --- sequences --------------------------------------------------------------------------------

    def _sequence(self, sid: int, seq: int, last: int | None, file: int, place: int) -> None:
        """What the number of a new frame says about the books of its subscription."""
        if last is None or seq <= last:
            if last is not None or not self._conn_id:
                self._connect(file, place)
            if seq > 1:
                self._findings.add("begins_late", f"{self._at(file, place)}: sid {sid} begins with {seq}")
        elif seq > last + 1:
            missing = seq - last - 1
            example = f"{self._at(file, place)}: sid {sid} goes from {last} to {seq}"
            self._findings.count("seq_gaps", missing, [example])
            for market in self._markets.values():
                if market.sid == sid:
                    self._lose(market, last + 1)
        self._last_seq[sid] = seq

    def _connect(self, file: int, place: int) -> None:
        """Numbers begin anew."""
        for market in self._markets.values():
            self._lose(market, self._last_seq.get(market.sid, 0) + 1)
            market.changes.clear()
        self._last_seq.clear()
        self._labels.connect()
        self.connections += 1
        if self._conn_id:
            self._note("connections", file, place)
            # Numbers of two connections say nothing about their order: time alone has to.
            self._now_ns += 1
        name = f"{self._files[file].digest}:{place}".encode()
        # Alike in every import of the file, and never one that a recorder gives (those begin with the time).
        self._conn_id = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little") | 1 << 63

    def _remember(self, key: tuple[int, ...]) -> None:
        self._recent.add(key)
        if len(self._recent) >= _REMEMBERED:
            self._older, self._recent = self._recent, set()

    def _advance(self, ingest_ns: int, file: int, place: int) -> None:
        if ingest_ns < self._now_ns:
            if ingest_ns + 1 < self._now_ns:  # not what another connection has added
                self._note("clock_back", file, place)
            return
        self._now_ns = ingest_ns

    # --- books ------------------------------------------------------------------------------------

    def _doubt(self, ticker: int, sid: int | None, seq: int | None) -> None:
        """A row that cannot be used was about this market, or (-1) about any of its subscription."""
        of = self._markets.values() if ticker < 0 else [self._market(ticker)]
        for market in of:
            if ticker >= 0 or sid is None or market.sid == sid:
                after_last = self._last_seq.get(market.sid, 0) + 1
                self._lose(market, seq if seq is not None and market.sid == sid else after_last)

    def _lose(self, market: Market, seq: int) -> None:
        """From now on the book is unknown; ``seq`` is the first number from which it is."""
        if not market.known:
            return
        market.known = market.crossed = False
        market_id = self._ids.first.get(market.number, -1)
        at_ns = self._now_ns
        row = (self._conn_id, market.sid, seq, market.number, market_id, YES, 0, 0, at_ns // 1000, at_ns)
        self._output.add(GAP, *row)
        self.gaps += 1

    def _market(self, ticker: int) -> Market:
        market = self._markets.get(ticker)
        if market is None:
            market = self._markets[ticker] = Market(ticker)
        return market

    def _named(self, market_id: int, ticker: int, file: int, place: int) -> int:
        if market_id >= 0:
            return market_id
        market_id = self._ids.first.get(ticker, -1)
        self._note("market_id_missing" if market_id < 0 else "market_id_filled", file, place)
        return market_id

    # --- what is said -----------------------------------------------------------------------------

    def _at(self, file: int, place: int) -> str:
        return f"{self._files[file].name}, row {place}"

    def _note(self, kind: str, file: int, place: int) -> None:
        findings = self._findings
        findings.add(kind, self._at(file, place) if findings.wants(kind) else "")

    def _keep_aside(self, file: int, place: int, reason: str, told: str = "") -> None:
        findings = self._findings
        example = f"{self._at(file, place)}{': ' if told else ''}{told}" if findings.wants(reason) else ""
        findings.add(reason, example)
        self.aside.add(file, place, reason)
