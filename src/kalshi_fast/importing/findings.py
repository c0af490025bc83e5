"""What was wrong in the files of an import: counted, with examples, and what was done about it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

EXAMPLES: Final = 5
NOTED, REPAIRED, ASIDE = "noted", "repaired", "kept aside"


class Kind(NamedTuple):
    """One way of being wrong. ``done``: noted (the rows are as they were), repaired, or kept aside."""

    done: str
    text: str


# The order of the report. Counts are rows unless the text says otherwise.
KINDS: Final[dict[str, Kind]] = {
    "text_timestamps": Kind(REPAIRED, "timestamps are text: read as instants"),
    "no_zone": Kind(REPAIRED, "timestamps without a zone: taken as UTC"),
    "bad_ts": Kind(REPAIRED, "exchange time missing or unreadable: the receive time stands for it"),
    "bad_ingest_ts": Kind(REPAIRED, "receive time missing or unreadable: the exchange time stands for it"),
    "unsorted": Kind(REPAIRED, "rows not in the order of time: sorted"),
    "clock_back": Kind(REPAIRED, "receive time before that of the row before: raised to it"),
    "ts_after_ingest": Kind(NOTED, "exchange time after the receive time"),
    "market_id_filled": Kind(REPAIRED, "market id missing: taken from other rows of the market"),
    "market_id_missing": Kind(NOTED, "market id missing, and no row of the market has it"),
    "bad_market_id": Kind(REPAIRED, "market id is no UUID: left out"),
    "market_id_changes": Kind(NOTED, "market ids beside the first one of a market (ids)"),
    "relabelled": Kind(
        REPAIRED,
        "changes under the name of a market without snapshot and id: they fit the only book of their"
        " subscription, and are taken for its",
    ),
    "label_doubtful": Kind(
        NOTED, "changes under the name of a market without snapshot and id: all books are unknown from there"
    ),
    "connections": Kind(NOTED, "numbers begin anew: another connection, all books unknown (times)"),
    "begins_late": Kind(NOTED, "a sequence begins after 1: frames before it were not recorded (times)"),
    "seq_gaps": Kind(NOTED, "numbers missing in a sequence: all of its books unknown (numbers)"),
    "deltas_unknown": Kind(NOTED, "changes of a book that is unknown at the time"),
    "no_snapshot": Kind(NOTED, "markets without any usable snapshot: their books are never known (markets)"),
    "would_be_negative": Kind(NOTED, "levels below zero where a missing snapshot is taken for an empty book"),
    "crossed": Kind(NOTED, "books whose best bids cross after the row"),
    "bad_type": Kind(ASIDE, "type is neither snapshot nor delta"),
    "bad_market_ticker": Kind(ASIDE, "market_ticker missing or not of A-Z, 0-9, '.', '-'"),
    "bad_side": Kind(ASIDE, "side is neither yes nor no"),
    "bad_price": Kind(ASIDE, "price is no whole number of cents from 0 to 100"),
    "bad_qty": Kind(ASIDE, "qty is no whole number, or beyond what a book can hold"),
    "bad_sid": Kind(ASIDE, "sid is no number of 32 bits"),
    "bad_seq": Kind(ASIDE, "seq is no number of 63 bits"),
    "no_time": Kind(ASIDE, "neither ts nor ingest_ts can be read"),
    "duplicate": Kind(ASIDE, "the same row once more"),
    "repeated_seq": Kind(ASIDE, "another row with a number that has been used"),
    "negative_level": Kind(ASIDE, "the change would leave a level below zero: the book is unknown from here"),
    "level_limit": Kind(ASIDE, "the change would leave more than a book can hold: unknown from here"),
    "empty_level": Kind(ASIDE, "a level of a snapshot without a size: it says nothing"),
    "broken_snapshot": Kind(ASIDE, "rows of a snapshot with a row that cannot be true"),
}


@dataclass(slots=True)
class Finding:
    count: int = 0
    examples: list[str] = field(default_factory=list)


class Findings:
    """Counts by kind; the first examples of each are kept."""

    def __init__(self) -> None:
        self._found: dict[str, Finding] = {}

    def add(self, kind: str, example: str, count: int = 1) -> None:
        finding = self._of(kind)
        finding.count += count
        if len(finding.examples) < EXAMPLES:
            finding.examples.append(example)

    def count(self, kind: str, count: int, examples: Iterable[str] = ()) -> None:
        """Many at once; ``examples`` is read only as far as examples are wanted."""
        if count == 0:
            return
        finding = self._of(kind)
        finding.count += count
        if len(finding.examples) < EXAMPLES:
            for example in examples:
                finding.examples.append(example)
                if len(finding.examples) >= EXAMPLES:
                    break

    def wants(self, kind: str) -> bool:
        """Whether another example would be kept."""
        return len(self._of(kind).examples) < EXAMPLES

    def _of(self, kind: str) -> Finding:
        found = self._found.get(kind)
        if found is None:
            assert kind in KINDS, kind  # noqa: S101 - a kind without a text
            found = self._found[kind] = Finding()
        return found

    def __getitem__(self, kind: str) -> int:
        return self._found[kind].count if kind in self._found else 0

    def figures(self) -> dict[str, dict[str, Any]]:
        """By kind: what was done, the count, examples."""
        return {
            kind: {"done": KINDS[kind].done, "count": finding.count, "examples": finding.examples}
            for kind in KINDS
            if (finding := self._found.get(kind)) is not None and finding.count
        }
