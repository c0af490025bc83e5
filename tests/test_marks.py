"""What the rows say of each market: known or not, and where it stood; the same again after packing."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT, EventColumns, LevelColumns
from kalshi_fast.journal.marks import Marks

ROWS = st.lists(
    st.tuples(
        st.sampled_from([SNAPSHOT, DELTA, CLEAR, CLEAR, GAP]),
        st.integers(1, 2),  # connections that take turns at a market, as hot standby has them
        st.integers(1, 2),  # sids
        st.integers(0, 5),  # markets
    ),
    max_size=40,
)


def columns(rows: list[tuple[int, int, int, int]], first_seq: int = 1) -> EventColumns:
    events = EventColumns(64)
    for seq, (kind, conn, sid, market) in enumerate(rows, first_seq):
        events.add(kind, conn, sid, seq, market, market + 10, 0, 1, 1, seq, seq * 1000)
    return events


def applied(marks: Marks, events: EventColumns) -> None:
    marks.apply({name: column[: events.n] for name, column in events.arrays.items()}, None)


def model(rows: list[tuple[int, int, int, int]]) -> list[tuple[int, ...]]:
    """The gap rows as the documentation says: conn_id, sid, seq, market, id, receive time."""
    known, last = set(), {}
    for seq, (kind, conn, sid, market) in enumerate(rows, 1):
        last[market] = (kind, conn, sid, seq)
        if kind == CLEAR:
            known.add(market)
        elif kind == GAP:
            known.discard(market)
    last_of_conn = {conn: seq for seq, (_, conn, _, _) in enumerate(rows, 1)}
    gaps: list[tuple[int, ...]] = []
    for market in sorted(known):
        kind, conn, sid, seq = last[market]
        newest = max(s for _, c, i, s in last.values() if (c, i) == (conn, sid))
        in_part = seq == newest and kind in (CLEAR, SNAPSHOT)
        at_ns = last_of_conn[conn] * 1000 + 1
        gaps.append((conn, sid, newest if in_part else newest + 1, market, market + 10, at_ns))
    return gaps


def rows_of(events: EventColumns | None) -> list[tuple[int, ...]]:
    if events is None:
        return []
    names = ("conn_id", "sid", "seq", "market_ix", "id_ix", "ingest_ns")
    return list(zip(*(events.arrays[name][: events.n].tolist() for name in names), strict=True))


@settings(max_examples=150)
@given(ROWS, st.integers(0, 40))
def test_gap_rows_are_for_the_known_books_in_any_split(rows: list[tuple[int, ...]], split: int) -> None:
    marks = Marks()
    first = rows[:split]
    applied(marks, columns(first))  # type: ignore[arg-type]
    marks = Marks.unpack(marks.pack())
    applied(marks, columns(rows[split:], len(first) + 1))  # type: ignore[arg-type]
    expected = model(rows)  # type: ignore[arg-type]
    assert marks.known == len(expected)
    again = Marks.unpack(marks.pack())
    gaps = marks.gap_rows()
    assert rows_of(gaps) == expected == rows_of(again.gap_rows())
    if gaps is None:
        return
    arrays = {name: column[: gaps.n] for name, column in gaps.arrays.items()}
    assert set(arrays["type"].tolist()) == {GAP}
    assert (arrays["ts_us"] == arrays["ingest_ns"] // 1000).all()
    applied(marks, gaps)
    assert (marks.known, marks.gap_rows()) == (0, None)


def test_times_and_versions_go_on_with_another_recorder() -> None:
    marks = Marks()
    applied(marks, columns([(CLEAR, 1, 1, 0)]))
    levels = LevelColumns(4)
    levels.begin(2**62)
    levels.set(0, 0, 0, 1, 1, 1, 1)
    marks.apply(None, {name: column[:1] for name, column in levels.arrays.items()})
    marks.begin_recorder()
    for found in (marks, Marks.unpack(marks.pack())):
        assert (found.known, found.ingest_ns, found.version) == (0, 1000, 2**62 + 1)
        assert found.gap_rows() is None
