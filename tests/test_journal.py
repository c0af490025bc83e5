"""The journal: what is appended comes out again as it was, whatever comes between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from contextlib import contextmanager
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import START_NS, Filler, Written
from frames import snapshot
from journals import Source, mounted
from kalshi_fast import _clock
from kalshi_fast._columns import GAP, EventColumns, LevelColumns
from kalshi_fast.batch import Extra
from kalshi_fast.channels.reference_rows import ReferenceRow
from kalshi_fast.channels.rows import NIL_ID, LifecycleRow, Row, TickerRow, TradeRow
from kalshi_fast.errors import ConfigError, JournalError, JournalFullError
from kalshi_fast.journal import Cursor, Entry, Journal
from kalshi_fast.pool import BatchPool
from kalshi_fast.ring import Ring

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = 4000  # bytes of a segment


def read(journal: Journal, seq: int = 0, max_rows: int = 1 << 30) -> list[Entry]:
    """All entries from ``seq`` on."""
    cursor = Cursor(journal, seq)
    entries: list[Entry] = []
    while more := cursor.take(max_rows):
        entries += more
    cursor.close()
    assert all(one.end == other.seq for one, other in pairwise(entries))
    return entries


def same(entries: list[Entry], written: list[Written]) -> None:
    """The entries are these batches, all of them, in order."""
    assert [entry.number for entry in entries] == [batch.number for batch in written]
    for entry, batch in zip(entries, written, strict=True):
        assert batch.is_entry(entry)


@contextmanager
def opened(directory: Path, *, segment_bytes: int = SMALL, max_bytes: int = 1 << 30) -> Iterator[Journal]:
    journal = Journal(directory, fsync="off", segment_bytes=segment_bytes, max_bytes=max_bytes)
    try:
        yield journal
    finally:
        journal.close()


BATCHES = st.lists(
    st.tuples(
        st.integers(0, 20),  # rows
        st.integers(0, 4),  # new names
        st.integers(0, 2),  # records beside the rows
        st.sampled_from(["", "", "", "reopen", "recorder"]),  # what comes before it
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=40)
@given(BATCHES, st.integers(0, 2**32), st.integers(1, 30))
def test_what_is_appended_comes_out_the_same(
    batches: list[tuple[int, int, int, str]], seed: int, max_rows: int
) -> None:
    with TemporaryDirectory() as directory:
        journal = Journal(Path(directory), fsync="off", segment_bytes=SMALL)
        seeds = Random(seed)
        filler = Filler(seed)
        journal.begin(filler.recorder)
        fillers = [filler]
        for rows, new_names, records, before in batches:
            if before == "reopen":
                journal.close()
                journal = Journal(Path(directory), fsync="off", segment_bytes=SMALL)
            elif before == "recorder":
                filler = Filler(seeds.getrandbits(32), at_ns=journal.floor_ns + 1)
                fillers.append(filler)
            journal.begin(filler.recorder)
            filler.put(journal, rows=rows, new_names=new_names, records=records)
        entries = read(journal, max_rows=max_rows)
        same([e for e in entries if e.number], [batch for filler in fillers for batch in filler.written])
        assert [entry.seq for entry in entries] == list(range(journal.end))
        start = seeds.randrange(journal.end)
        later = read(journal, start)
        assert [entry.seq for entry in later] == list(range(start, journal.end))
        for one, other in zip(entries[start:], later, strict=True):
            assert (one.events, one.levels, one.extra) == (other.events, other.levels, other.extra)
            assert (one.recorder, one.number) == (other.recorder, other.number)
        journal.close()


def test_batches_come_through_the_shared_memory(tmp_path: Path) -> None:
    filler = Filler(1)
    ring = Ring.create(16, 4, filler.recorder)
    pool = BatchPool(ring, filler.tickers, filler.ids)
    with opened(tmp_path) as journal:
        journal.begin(ring.recorder)
        for _ in range(30):
            batch = pool.acquire(0)
            slot = filler.fill(rows=16, records=1)
            batch.number, batch.names = slot.number, slot.names
            extra = filler.written[-1].extra
            columns = (slot.event_arrays[name][: slot.events].tolist() for name in batch.events.arrays)
            for values in zip(*columns, strict=True):
                batch.events.add(*values)
            for row in range(slot.levels):
                batch.levels.set(row, 0, 0, 1, 1, 1, 1)
            for name, column in slot.level_arrays.items():
                batch.levels.arrays[name][:] = column
            batch.health, batch.rejected = extra.health, extra.rejected
            pool.deliver(batch)
            sealed = ring.peek()
            assert sealed is not None
            journal.append(sealed, ring.tickers, ring.ids)
            journal.commit()
            ring.release()
        assert len(journal.segments) > 3
        same(read(journal), filler.written)
    os.close(ring.fd)


def test_a_recorder_that_knows_no_market_yet_is_read_too(tmp_path: Path) -> None:
    """Its first batch says that it connects, and names nothing."""
    fillers = [Filler(seed) for seed in (1, 2)]
    with opened(tmp_path) as journal:
        for filler in fillers:
            journal.begin(filler.recorder)
            filler.put(journal, rows=0, new_names=0, records=1)
        same(read(journal), [filler.written[0] for filler in fillers])
        for filler in fillers[1:]:
            filler.put(journal)
        same(read(journal)[1:], fillers[1].written)


def test_names_alone_may_fill_a_segment(tmp_path: Path) -> None:
    filler = Filler(1)
    with opened(tmp_path, segment_bytes=1000) as journal:
        journal.begin(filler.recorder)
        for _ in range(6):
            filler.put(journal, new_names=60)
            assert len({segment.path for segment in journal.segments}) == len(journal.segments)
            assert journal.used_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.journal"))
        same(read(journal), filler.written)
    for _ in range(3):  # a beginning that is larger than a segment should be does no harm either
        with opened(tmp_path, segment_bytes=1000) as journal:
            filler.put(journal)
            filler.put(journal)
            assert len({segment.path for segment in journal.segments}) == len(journal.segments)
            journal.trim(journal.end)
            filler.put(journal)
            same(read(journal), filler.written[journal.first_seq :])


def test_a_batch_offered_again_is_not_stored_again(tmp_path: Path) -> None:
    filler = Filler(1)
    slots = [filler.fill() for _ in range(6)]
    with opened(tmp_path) as journal:
        journal.begin(filler.recorder)
        for slot in slots[:4]:
            filler.append(journal, slot)
        filler.append(journal, slots[3])
        assert journal.end == 4
    with opened(tmp_path) as journal:
        assert (journal.recorder, journal.last_number) == (filler.recorder, 4)
        journal.begin(filler.recorder)
        for slot in slots[2:]:
            filler.append(journal, slot)
        same(read(journal), filler.written)


def test_a_batch_that_never_came_is_said(tmp_path: Path) -> None:
    """The numbers of a recorder have no holes: one that does not come was lost with damaged bytes."""
    filler = Filler(1)
    with opened(tmp_path) as journal:
        journal.begin(filler.recorder)
        filler.put(journal, rows=20, new_names=4)
        known = filler.written[-1].known
        filler.fill(rows=20)
        filler.put(journal)
        entries = read(journal)
        assert [entry.number for entry in entries] == [1, 0, 3]
        assert gapped(entries[1]) == known
        assert [event.event for event in entries[1].extra.health] == ["lost"]
        assert filler.written[2].is_entry(entries[2])


# --- the recorder's end -------------------------------------------------------------------------------


def gapped(entry: Entry) -> frozenset[str]:
    """The tickers of the gap rows of an entry that holds nothing else."""
    if entry.events is None:
        return frozenset()
    assert set(entry.events.column("type").to_pylist()) == {GAP}
    assert entry.levels is None
    tickers = entry.names.events(entry.events).column("market_ticker").to_pylist()
    assert len(set(tickers)) == len(tickers)
    return frozenset(tickers)


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 30))
def test_another_recorder_finds_a_gap_for_each_known_book(seed: int, rows: int) -> None:
    with TemporaryDirectory() as directory, opened(Path(directory)) as journal:
        filler = Filler(seed)
        journal.begin(filler.recorder)
        for _ in range(8):
            filler.put(journal, rows=rows)
        journal.begin(filler.recorder)
        assert journal.end == 8
        last = filler.written[-1]
        journal.begin(Filler(seed + 1).recorder)
        entries = read(journal)
        same(entries[:8], filler.written)
        assert journal.end == 8 + bool(last.known)
        if not last.known:
            return
        entry = entries[8]
        assert gapped(entry) == last.known
        assert entry.events is not None
        assert (entry.recorder, entry.number) == (filler.recorder, 0)
        assert [event.event for event in entry.extra.health] == ["lost"]
        last_ns: dict[int, int] = {}  # of each connection
        for batch in filler.written:
            for stored in [] if batch.events is None else batch.events.to_pylist():
                last_ns[stored["conn_id"]] = stored["ingest_ns"]
        for row in entry.events.to_pylist():
            assert row["ingest_ns"] == last_ns[row["conn_id"]] + 1
            assert row["id_ix"] == row["market_ix"]  # as the filler has it
            assert (row["conn_id"], row["sid"]) == (1 + row["market_ix"] % 2, 7)
            assert row["seq"] in (filler.seqs[row["conn_id"]], filler.seqs[row["conn_id"]] + 1)
        assert journal.floor_ns >= filler.at_ns + 1
        journal.begin(Filler(seed + 2).recorder)
        assert journal.end == 9  # that was all


def test_gaps_begin_behind_the_last_number_of_each_subscription(tmp_path: Path) -> None:
    """Connection 1 had its last word on market 1 with a delta, connection 2 on market 2 with a snapshot."""
    filler = Filler(1)
    filler.tickers[:], filler.ids[:] = ["A", "B", "C", "D"], ["a", "b", "c", "d"]
    rows = [  # type, conn, sid, seq, market
        (2, 1, 5, 10, 0),
        (0, 1, 5, 10, 0),
        (2, 1, 5, 11, 1),
        (1, 1, 5, 12, 1),
        (2, 2, 5, 3, 3),
        (2, 2, 5, 4, 2),
        (0, 2, 5, 4, 2),
    ]
    events = EventColumns(16)
    for at, (kind, conn, sid, seq, market) in enumerate(rows, START_NS):
        events.add(kind, conn, sid, seq, market, market, 0, 1, 1, at // 1000, at)
    with opened(tmp_path) as journal:
        journal.begin(filler.recorder)
        filler.append(journal, filler.seal(events, LevelColumns(1), Extra()))
        journal.end_recorder()
        entry = read(journal)[1]
        assert gapped(entry) == {"A", "B", "C", "D"}
        assert entry.events is not None
        seqs = [(row["conn_id"], row["market_ix"], row["seq"]) for row in entry.events.to_pylist()]
        # Of market C more rows with number 4 may have been on their way: it is unknown from 4 on.
        assert seqs == [(1, 0, 13), (1, 1, 13), (2, 2, 4), (2, 3, 5)]


@pytest.mark.parametrize("table", ["trades", "tickers", "market_lifecycle", "reference_prices", "raw"])
def test_receive_times_of_other_channels_do_not_fall_over_a_restart_either(
    tmp_path: Path, table: str
) -> None:
    """The clock was set back while nothing ran, and the last row was none of a book."""
    source = Source(tmp_path)
    source.feed(snapshot(1, "A", yes=[("0.0800", "1.00")]))
    good_ns = source.now
    last_ns = good_ns + 5_000_000_000
    rows: dict[str, Row] = {
        "trades": TradeRow(9, 1, 1, str(uuid.UUID(int=1)), "A", "yes", False, 4500, 100, 1, last_ns),
        "tickers": TickerRow(9, 1, NIL_ID, "A", *(None,) * 10, last_ns // 1000, last_ns),
        "market_lifecycle": LifecycleRow(9, 1, 1, "A", "E", "created", "{}", last_ns),
        "reference_prices": ReferenceRow(9, 1, 1, "pyth_value", "X.Y", Decimal(1), *(None,) * 6, 1, last_ns),
    }
    if table == "raw":
        source.recorder.raw(b"{}", last_ns, source.link, "fill")
    else:
        source.recorder.keep(table, rows[table])
    source.feed()
    assert source.journal.floor_ns >= last_ns
    for renewed in (False, True):  # found in the batch itself, and in the beginning of the next segment
        if renewed:
            source.journal.renew()
            source.journal.trim(source.journal.end)
        source.journal.close()
        source.journal = Journal(tmp_path / "journal")
        assert source.journal.floor_ns >= last_ns, renewed
    source.journal.end_recorder()
    gap = read(source.journal, source.journal.first_seq)[-1]
    assert gap.events is not None
    assert gap.events.column("ingest_ns").to_pylist() == [good_ns + 1], (
        "behind the last row of its connection"
    )
    assert source.journal.floor_ns > last_ns


def test_a_clean_end_writes_nothing(tmp_path: Path) -> None:
    filler = Filler(1)
    with opened(tmp_path) as journal:
        journal.end_recorder()
        assert journal.end == 0
        journal.begin(filler.recorder)
        filler.put(journal, rows=30, new_names=5)
        events = EventColumns(8)
        for ix in filler.known:
            events.add(GAP, 1 + ix % 2, 7, 99, ix, ix, 0, 0, 0, 0, filler.at_ns + 1)
        filler.append(journal, filler.seal(events, LevelColumns(1), Extra()))
        journal.end_recorder()
        assert journal.end == 2
    with opened(tmp_path) as journal:
        journal.begin(Filler(2).recorder)
        assert journal.end == 2


# --- bounds and disks ---------------------------------------------------------------------------------


def test_at_its_bound_the_journal_takes_nothing_until_there_is_room(tmp_path: Path) -> None:
    filler = Filler(1)
    with opened(tmp_path, max_bytes=30_000) as journal:
        journal.begin(filler.recorder)
        slots = []

        def fill_up() -> None:
            while True:
                slots.append(filler.fill())
                filler.append(journal, slots[-1])

        with pytest.raises(JournalFullError, match="JOURNAL_MAX_BYTES"):
            fill_up()
        end = journal.end
        assert journal.used_bytes <= 30_000
        slot = slots[-1]
        for _ in range(3):
            with pytest.raises(JournalFullError):
                filler.append(journal, slot)
        assert journal.used_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.journal"))
        same(read(journal), filler.written[:-1])
        trimmed = end // 2
        journal.trim(trimmed)
        assert 0 < journal.first_seq <= trimmed
        filler.append(journal, slot)
        same(read(journal), filler.written[journal.first_seq :])
    with opened(tmp_path) as journal:
        same(read(journal), filler.written[journal.first_seq :])


def test_trim_keeps_all_that_somebody_needs(tmp_path: Path) -> None:
    filler = Filler(1)
    with opened(tmp_path) as journal:
        journal.begin(filler.recorder)
        for _ in range(40):
            filler.put(journal)
        for seq in range(41):
            journal.trim(seq)
            assert journal.first_seq <= seq
            same(read(journal, seq), filler.written[seq:])
        assert len(journal.segments) == 1
        assert len(list(tmp_path.glob("*.journal"))) == 1


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    filler = Filler(1)
    with mounted(tmp_path / "disk", "-o", "size=128k") as disk:
        with opened(disk / "journal") as journal:
            journal.begin(filler.recorder)
            refusals: list[JournalError] = []
            tries = 0
            for _ in range(300):
                slot = filler.fill(rows=20, new_names=filler.number < 20)
                while True:
                    tries += 1
                    assert tries < 1000
                    try:
                        filler.append(journal, slot)
                    except JournalError as error:
                        refusals.append(error)
                        same(read(journal), filler.written[journal.first_seq : -1])
                        journal.trim(journal.end - 3)
                    else:
                        break
            assert len(refusals) > 3
            assert {type(error) for error in refusals} == {JournalError}
            assert all("No space left" in str(error) for error in refusals)
            first = journal.first_seq
            same(read(journal), filler.written[first:])
        with opened(disk / "journal") as journal:
            assert journal.first_seq == first
            same(read(journal), filler.written[first:])


def test_a_disk_that_is_full_at_the_start_is_said(tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "-o", "size=64k") as disk:
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
        with pytest.raises((ConfigError, JournalError), match="No space left"):
            Journal(disk / "journal")
        (disk / "ballast").unlink()
        filler = Filler(1)
        with opened(disk / "journal") as journal:
            journal.begin(filler.recorder)
            filler.put(journal)
            same(read(journal), filler.written)


def test_a_read_only_disk_is_a_wrong_setting(tmp_path: Path) -> None:
    with (
        mounted(tmp_path / "disk", "-o", "size=64k,ro") as disk,
        pytest.raises(ConfigError, match="Read-only"),
    ):
        Journal(disk / "journal")


def test_a_file_in_the_place_of_the_directory_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "journal"):
        with pytest.raises(ConfigError, match="JOURNAL_DIR"):
            Journal(path)
    (tmp_path / "journal" / "lock").mkdir(parents=True)
    with pytest.raises(ConfigError, match="JOURNAL_DIR"):
        Journal(tmp_path / "journal")


# --- processes and threads ----------------------------------------------------------------------------

OWNER = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from batches import Filler
from kalshi_fast.journal import Journal
journal = Journal(Path(sys.argv[1]), fsync="off", segment_bytes=4000)
filler = Filler(7)
journal.begin(filler.recorder)
while True:
    filler.put(journal, rows=20, new_names=filler.number < 50, records=1)
    print(filler.number, flush=True)
"""


@pytest.mark.parametrize("batches", [1, 20, 57, 200])
def test_one_process_has_the_journal_and_kill_9_gives_it_free(batches: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        for _ in range(batches):
            owner.stdout.readline()
        said: list[str] = []
        with pytest.raises(ConfigError, match=f"in use by process {owner.pid}:"):
            Journal(tmp_path, lock_wait_s=0.05, say=said.append)
        assert said[0].startswith(f"waiting for process {owner.pid}")
        owner.send_signal(signal.SIGKILL)
        acknowledged = max([batches, *(int(line) for line in owner.stdout.read().split("\n")[:-1] if line)])
    filler = Filler(7)
    with opened(tmp_path) as journal:
        assert acknowledged <= journal.end <= acknowledged + 1
        assert (journal.recorder, journal.last_number) == (filler.recorder, journal.end)
        for _ in range(journal.end):
            filler.fill(rows=20, new_names=filler.number < 50, records=1)
        same(read(journal), filler.written)
        filler.put(journal)
        same(read(journal), filler.written)


def test_the_lock_waits_for_its_owner_to_finish(tmp_path: Path) -> None:
    first = Journal(tmp_path)
    said: list[str] = []

    def give_way(text: str) -> None:
        said.append(text)
        if len(said) == 1:
            first.close()

    Journal(tmp_path, lock_wait_s=60, say=give_way).close()
    assert said == [f"waiting for process {os.getpid()} to finish with the journal {tmp_path} …"]


@pytest.mark.parametrize("fsync", ["always", "interval", "off"])
def test_syncing_from_other_threads_and_reading_while_it_is_written(fsync: str, tmp_path: Path) -> None:
    filler = Filler(3)
    journal = Journal(tmp_path, fsync=fsync, segment_bytes=SMALL)
    journal.begin(filler.recorder)
    batches = 250
    slots = [filler.fill() for _ in range(batches)]
    over = threading.Event()
    failures: list[BaseException] = []
    results: list[list[Entry]] = [[], []]

    def sync() -> None:
        try:
            while not over.is_set():
                journal.sync()
        except BaseException as error:
            failures.append(error)

    def follow(entries: list[Entry], seed: int) -> None:
        dice = Random(seed)
        try:
            cursor = Cursor(journal, 0)
            while len(entries) < batches:
                if dice.random() < 0.3:
                    over.wait(dice.random() / 500)
                journal.wait(cursor.seq, 0.05)
                entries += cursor.take(dice.randrange(1, 100))
            cursor.close()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=sync)]
    readers = [threading.Thread(target=follow, args=(entries, seed)) for seed, entries in enumerate(results)]
    for thread in [*threads, *readers]:
        thread.start()
    for slot in slots:
        filler.append(journal, slot)
    for thread in readers:
        thread.join(60)
    over.set()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert len(journal.segments) > 20
    for entries in results:
        same(entries, filler.written)
    journal.close()


def test_waiting_ends_with_the_batch_or_with_the_time(tmp_path: Path) -> None:
    filler = Filler(1)
    with opened(tmp_path) as journal:
        journal.begin(filler.recorder)
        assert not journal.wait(0, 0.0)
        slot = filler.fill()
        journal.append(slot, lambda a, b: filler.tickers[a:b], lambda a, b: filler.ids[a:b])
        assert not journal.wait(0, 0.0)  # not committed
        assert read(journal) == []
        journal.commit()
        assert journal.wait(0, 0.0)
        assert not journal.wait(1, 0.0)


def test_a_cursor_takes_what_it_is_asked_for(tmp_path: Path) -> None:
    filler = Filler(1)
    with opened(tmp_path) as journal:
        journal.begin(filler.recorder)
        for _ in range(30):
            filler.put(journal, rows=10)
        cursor = Cursor(journal, 3)
        assert [entry.seq for entry in cursor.take(1)] == [3]
        assert [entry.seq for entry in cursor.take(11)] == [4, 5]
        assert [entry.seq for entry in cursor.take(0, until=20)] == list(range(6, 20))
        assert cursor.take(0, until=20) == []
        assert [entry.seq for entry in cursor.take(10**6)] == list(range(20, 30))
        assert cursor.take(10**6) == []
        cursor.close()
        cursor.close()


# --- the clock ----------------------------------------------------------------------------------------


def test_receive_times_only_grow() -> None:
    times = [_clock.receive_ns() for _ in range(10_000)]
    assert all(one < other for one, other in pairwise(times))


CLOCK_AHEAD = """
import time
from kalshi_fast import _clock
first = _clock.receive_ns()
ahead = time.time_ns() + 3_600_000_000_000
_clock.not_before(ahead)
print(*(_clock.receive_ns() - ahead for _ in range(3)))
_clock.not_before(0)
print(_clock.receive_ns() - ahead)
"""


def test_a_clock_that_was_set_back_goes_on_from_the_last_time() -> None:
    """In a process of its own: this one's clock shall not be an hour ahead for the other tests."""
    result = subprocess.run([sys.executable, "-c", CLOCK_AHEAD], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["0", "1", "2", "3"]
