"""Damaged journals: every batch comes out as it was written, or a gap says that it did not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batches import Filler
from kalshi_fast._columns import CLEAR, GAP
from kalshi_fast.journal import Cursor, Entry, Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass
class Image:
    """A journal's files, what a reader gets from them when they are whole, and the recorder that was last."""

    files: dict[str, bytes]
    entries: list[Entry]
    filler: Filler

    def put(self, directory: Path) -> list[Path]:
        paths = [directory / name for name in sorted(self.files)]
        for path in paths:
            path.write_bytes(self.files[path.name])
        return paths


def opened(directory: Path, segment_bytes: int = 2000) -> Journal:
    return Journal(directory, fsync="off", segment_bytes=segment_bytes)


def read(journal: Journal, seq: int = 0) -> list[Entry]:
    cursor = Cursor(journal, seq)
    entries: list[Entry] = []
    while more := cursor.take(7):
        entries += more
    cursor.close()
    return entries


def image_of(batches: int, segment_bytes: int, recorders: int = 2) -> Image:
    with TemporaryDirectory() as name:
        directory = Path(name)
        journal = opened(directory, segment_bytes)
        for seed in range(recorders):
            filler = Filler(seed, at_ns=journal.floor_ns + 1)
            journal.begin(filler.recorder)
            for _ in range(batches // recorders):
                filler.put(journal, rows=4, new_names=filler.number % 2, records=1)
        entries = read(journal)
        journal.close()
        files = {path.name: path.read_bytes() for path in directory.glob("*.journal")}
    return Image(files, entries, filler)


SEGMENTED = image_of(16, 2000)
ONE_SEGMENT = image_of(3, 1 << 20, recorders=1)


def told(entry: Entry, known: set[str]) -> None:
    """A consumer reads the entry: whose books does it know now?"""
    if entry.events is None:
        return
    tickers = entry.names.events(entry.events).column("market_ticker").to_pylist()
    for kind, ticker in zip(entry.events.column("type").to_pylist(), tickers, strict=True):
        if kind == CLEAR:
            known.add(ticker)
        elif kind == GAP:
            known.discard(ticker)


def known_after(entries: Iterable[Entry]) -> set[str]:
    known: set[str] = set()
    for entry in entries:
        told(entry, known)
    return known


def is_damage(entry: Entry) -> bool:
    return [event.event for event in entry.extra.health] == ["damage"]


def equal(one: Entry, other: Entry) -> bool:
    if (one.seq, one.end, one.recorder, one.number, one.extra) != (
        other.seq,
        other.end,
        other.recorder,
        other.number,
        other.extra,
    ):
        return False
    for mine, theirs in ((one.events, other.events), (one.levels, other.levels)):
        if (mine is None) != (theirs is None) or (mine is not None and not mine.equals(theirs)):
            return False
    return all(
        mine[: len(theirs)] == theirs[: len(mine)]
        for mine, theirs in ((one.names.tickers, other.names.tickers), (one.names.ids, other.names.ids))
    )


def right(
    entries: list[Entry], start: int, end: int, truth: list[Entry], known: set[str] | None = None
) -> None:
    """The entries cover start to end, each as it was written, or damage that says so for each book whose
    state the consumer knows; ``known``: of those at the start."""
    known = set() if known is None else known
    at = start
    for entry in entries:
        assert entry.seq == at
        at = entry.end
        if not is_damage(entry):
            assert equal(entry, truth[entry.seq])
            told(entry, known)
            continue
        told(entry, known)
        assert not known, f"no gap for {known} at {entry.seq}"
        if entry.events is not None:
            assert set(entry.events.column("type").to_pylist()) == {GAP}
    assert at == end


def goes_on(journal: Journal, truth: list[Entry]) -> None:
    """Reads, another recorder comes, all is read again: as it must be."""
    entries = read(journal)
    right(entries, journal.first_seq, journal.end, truth)
    again = read(journal)
    assert all(equal(one, other) for one, other in zip(entries, again, strict=True))
    for start in range(journal.first_seq, journal.end, 5):  # a store that has all before it
        known = known_after(entry for entry in entries if entry.end <= start)
        later = read(journal, start)
        right(later, start, journal.end, truth, known)
        rest = [entry for entry in entries if entry.seq >= start]
        assert len(later) - len(rest) in (0, 1)
        assert all(
            equal(one, other) for one, other in zip(later[len(later) - len(rest) :], rest, strict=True)
        )
    filler = Filler(99, at_ns=journal.floor_ns + 1)
    end = journal.end
    journal.begin(filler.recorder)
    filler.put(journal)
    after = read(journal)
    assert all(equal(one, other) for one, other in zip(entries, after, strict=False))
    assert end + 1 <= journal.end <= end + 2
    assert not known_after(after[:-1])
    assert filler.written[0].is_entry(after[-1])


def damaged(image: Image, damage: Callable[[list[Path]], object], *, live: bool) -> None:
    """The files are damaged while the journal is open, or while it is closed."""
    with TemporaryDirectory() as name:
        directory = Path(name)
        paths = image.put(directory)
        if live:
            journal = opened(directory)
            damage(paths)
            assert journal.end == len(image.entries)
        else:
            damage(paths)
            journal = opened(directory)
            assert journal.end <= len(image.entries)
        goes_on(journal, image.entries)
        journal.close()
        journal = opened(directory)
        assert read(journal)[-1].number == 1
        journal.close()


def test_the_images_are_what_the_tests_need() -> None:
    assert len(SEGMENTED.files) >= 5
    assert len(ONE_SEGMENT.files) == 1
    assert [entry.seq for entry in SEGMENTED.entries] == list(range(len(SEGMENTED.entries)))
    assert len({entry.recorder for entry in SEGMENTED.entries}) == 2
    assert known_after(SEGMENTED.entries)
    assert not any(is_damage(entry) for entry in SEGMENTED.entries)


@settings(max_examples=25)
@given(st.data(), st.booleans())
def test_a_changed_byte_never_makes_a_wrong_row(data: st.DataObject, live: bool) -> None:
    name = data.draw(st.sampled_from(sorted(SEGMENTED.files)))
    at = data.draw(st.integers(0, len(SEGMENTED.files[name]) - 1))
    change = data.draw(st.integers(1, 255))

    def flip(paths: list[Path]) -> None:
        path = next(path for path in paths if path.name == name)
        with path.open("r+b") as file:
            file.seek(at)
            file.write(bytes([SEGMENTED.files[name][at] ^ change]))

    damaged(SEGMENTED, flip, live=live)


@settings(max_examples=20)
@given(st.data(), st.booleans())
def test_garbage_in_many_places_never_makes_a_wrong_row(data: st.DataObject, live: bool) -> None:
    names = sorted(SEGMENTED.files)[:-1]  # the last one is another matter: its end may be cut off
    places = data.draw(
        st.lists(
            st.tuples(st.sampled_from(names), st.integers(0, 4000), st.binary(min_size=1, max_size=200)),
            min_size=1,
            max_size=4,
        )
    )

    def scribble(paths: list[Path]) -> None:
        for name, at, garbage in places:
            content = SEGMENTED.files[name]
            start = at % len(content)
            with (paths[0].parent / name).open("r+b") as file:
                file.seek(start)
                file.write(garbage[: len(content) - start])

    with TemporaryDirectory() as directory:
        paths = SEGMENTED.put(Path(directory))
        journal = opened(Path(directory)) if live else None
        scribble(paths)
        journal = journal or opened(Path(directory))
        entries = read(journal)
        right(entries, 0, len(SEGMENTED.entries), SEGMENTED.entries)
        assert all(equal(one, other) for one, other in zip(entries, read(journal), strict=True))
        journal.close()


@pytest.mark.parametrize("live", [False, True])
@pytest.mark.parametrize("which", range(5))
def test_half_a_segment_a_missing_segment_a_damaged_beginning(which: int, live: bool) -> None:
    last = which == 4
    index = -1 if last else which

    def halve(paths: list[Path]) -> None:
        path = paths[index]
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)

    def spoil_beginning(paths: list[Path]) -> None:
        with paths[index].open("r+b") as file:
            file.seek(70)
            file.write(b"\xff\xff\xff")

    damaged(SEGMENTED, spoil_beginning, live=live)
    damaged(SEGMENTED, halve, live=live)
    if not last and not (which == 0 and not live):  # without its first file a journal begins later
        damaged(SEGMENTED, lambda paths: paths[index].unlink(), live=live)


def test_without_its_first_file_a_journal_begins_later(tmp_path: Path) -> None:
    paths = SEGMENTED.put(tmp_path)
    paths[0].unlink()
    journal = opened(tmp_path)
    assert journal.first_seq == int(paths[1].stem)
    right(read(journal), journal.first_seq, len(SEGMENTED.entries), SEGMENTED.entries)
    journal.close()


def test_when_nothing_can_be_read_all_is_kept_aside_and_a_new_journal_begins(tmp_path: Path) -> None:
    paths = SEGMENTED.put(tmp_path)
    journal = opened(tmp_path)
    old = journal.id
    journal.close()
    for path in paths:
        path.write_bytes(b"\xff" * 100 + path.read_bytes()[100:])
    journal = opened(tmp_path)
    assert (journal.end, journal.used_bytes > 0) == (0, True)
    assert journal.id != old
    assert len(list(tmp_path.glob("*.damaged-*"))) == len(paths)
    filler = Filler(5)
    journal.begin(filler.recorder)
    filler.put(journal)
    assert filler.written[0].is_entry(read(journal)[0])
    journal.close()


def test_a_last_segment_without_a_byte_is_forgotten(tmp_path: Path) -> None:
    """A crash at the instant when the next segment has its name and nothing else."""
    SEGMENTED.put(tmp_path)
    end = len(SEGMENTED.entries)
    empty = tmp_path / f"{end:020d}.journal"
    empty.touch()
    journal = opened(tmp_path)
    assert not empty.exists()
    assert journal.end == end
    goes_on(journal, SEGMENTED.entries)
    journal.close()


def test_a_segment_that_was_damaged_is_kept_when_it_is_trimmed(tmp_path: Path) -> None:
    paths = SEGMENTED.put(tmp_path)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[:-100] + b"\xff" * 100)
    journal = opened(tmp_path)
    read(journal)
    journal.trim(journal.end)
    assert paths[1].with_suffix(".damaged").exists()
    assert not paths[0].exists()
    journal.close()


# --- a torn end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"\xff", b"KFJ1", bytes(range(256)) * 3])
def test_wherever_the_end_is_torn_all_whole_batches_are_kept(garbage: bytes) -> None:
    """At every byte (garbage behind it: every fifth), and the journal goes on with the right number."""
    (content,) = ONE_SEGMENT.files.values()
    whole: list[int] = []
    with TemporaryDirectory() as name:
        directory = Path(name)
        (path,) = ONE_SEGMENT.put(directory)
        for cut in [*range(0, len(content), 5 if garbage else 1), len(content)]:
            path.write_bytes(content[:cut] + garbage)
            journal = opened(directory, 1 << 20)
            whole.append(journal.end)
            if cut % 40 == 0 or whole[-2:-1] != [journal.end]:
                entries = read(journal)
                assert all(equal(entry, ONE_SEGMENT.entries[entry.seq]) for entry in entries)
                assert [entry.seq for entry in entries] == list(range(journal.end))
                filler = Filler(99, at_ns=journal.floor_ns + 1)
                end = journal.end
                journal.begin(filler.recorder)
                filler.put(journal)
                after = read(journal)
                assert len(after) == end + 1 + bool(known_after(entries))
                assert not known_after(after[:-1])
                assert filler.written[0].is_entry(after[-1])
            journal.close()
            for left in directory.iterdir():
                if left != path and left.is_file():
                    left.unlink()
    assert whole == sorted(whole)  # the more is there, the more is kept
    assert set(whole) == {0, 1, 2, 3}
    assert whole[-1] == 3


def test_what_a_torn_end_has_taken_from_a_living_recorder_is_said(tmp_path: Path) -> None:
    """The writer alone was started again: the recorder goes on with the batch behind those that are gone."""
    (path,) = ONE_SEGMENT.put(tmp_path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 20)
    filler = ONE_SEGMENT.filler
    journal = opened(tmp_path)
    assert journal.end == 2
    journal.begin(filler.recorder)
    known = known_after(ONE_SEGMENT.entries[:2])
    assert known
    kept = len(filler.written)
    filler.put(journal)
    entries = read(journal)
    assert [entry.number for entry in entries] == [1, 2, 0, kept + 1]
    assert not known_after(entries[:3])
    journal.close()
