"""Rejected frames, read again by a newer version: what they say is stored, in both stores, once."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pyarrow.dataset as ds
import pytest

from channels import event, ticker, trade, trade_id
from frames import EXAMPLES, delta, snapshot
from kalshi_fast import Replay, cli, config
from kalshi_fast._columns import EventColumns, LevelColumns
from kalshi_fast.batch import RejectedFrame, pack_extra
from kalshi_fast.channels.rows import ChannelRows, TradeRow
from kalshi_fast.errors import ConfigError, SinkError
from kalshi_fast.journal import Journal
from kalshi_fast.rereading import describe, reread, run
from kalshi_fast.rereading.kept import NOTE, KeptFrames
from kalshi_fast.ring import SealedSlot
from kalshi_fast.stores import client_of

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.config import Settings

DAY_NS = 86_400_000_000_000
NOON_NS = 20_000 * DAY_NS + DAY_NS // 2
CREATED = event(1, "A", "created", close_ts=5)


class Place:
    """A recording that has ended, and frames that it has rejected."""

    def __init__(self, directory: Path, url: str | None) -> None:
        self.directory = directory
        self.database = f"reread_{uuid.uuid4().hex[:8]}"
        self.flags: dict[str, str | None] = {
            "PARQUET_DIR": str(directory),
            "JOURNAL_DIR": str(directory / "journal"),
            "CLICKHOUSE_URL": url or "off",
            "CLICKHOUSE_DATABASE": self.database,
            "MARKET_TICKERS": "A,B",
        }

    @property
    def settings(self) -> Settings:
        return config.load(self.flags, environ={}).settings

    def journal(self) -> Journal:
        return Journal(self.directory / "journal")

    def record(self, rejected: list[tuple[int, int, bytes]], rows: ChannelRows | None = None) -> None:
        """A recorder's batch in the journal: (receive time, connection, frame)."""
        frames = [
            RejectedFrame(ns, conn_id, "an older version could not", payload)
            for ns, conn_id, payload in rejected
        ]
        columns = [
            {name: column[:0] for name, column in one(1).arrays.items()}
            for one in (EventColumns, LevelColumns)
        ]
        journal = self.journal()
        journal.begin(uuid.uuid4())
        extra = pack_extra([], frames, rows)
        journal.append(
            SealedSlot(1, 0, 0, (0, 0), columns[0], columns[1], extra), lambda a, b: [], lambda a, b: []
        )
        journal.commit()
        journal.close()

    def in_files(self, table: str) -> list[dict[str, Any]]:
        files = [str(path) for path in sorted((self.directory / table).glob("date=*/*.parquet"))]
        if not files:
            return []
        found: list[dict[str, Any]] = ds.dataset(files).to_table().to_pylist()
        return sorted(found, key=lambda row: (row["ingest_ts"].value, row["market_ticker"]))

    def in_database(self, table: str, columns: str) -> list[Any]:
        client = client_of(self.settings)
        try:
            sql = f"SELECT {columns} FROM `{self.database}`.{table} ORDER BY ingest_ts, market_ticker"
            return list(client.query(sql).result_rows)
        finally:
            client.close()


def without_side(seq: int, number: int, market: str = "A") -> bytes:
    return trade(seq, number, market, taker_side=None, taker_outcome_side="no")


REJECTED = [
    (NOON_NS + 1, 50, without_side(1, 1)),
    (NOON_NS + 2, 51, without_side(1, 1)),  # the hot standby kept it too
    (NOON_NS + 3, 50, ticker("A", dollar_volume=1.5, yes_bid_dollars="0.4500")),
    (NOON_NS + 4, 51, ticker("A", dollar_volume=1.5, yes_bid_dollars="0.4500")),
    (NOON_NS + 5, 50, CREATED),
    (NOON_NS + 6, 51, CREATED),
    (NOON_NS + 90 * 10**9, 50, CREATED),  # the same was said once more
    (NOON_NS + 100 * 10**9, 7, delta(3, "0.0800", "1.00", ts=17)),
    (NOON_NS + 100 * 10**9, 7, snapshot(3, "A")),
    (NOON_NS + 100 * 10**9, 7, EXAMPLES["ok"]),
    (NOON_NS + 100 * 10**9, 7, b"\xff not JSON"),
    (NOON_NS + 100 * 10**9, 7, trade(9, 9, count_fp="0.00")),
    (NOON_NS + 100 * 10**9, 7, without_side(9, 8, "NOT-OURS")),
    (NOON_NS + DAY_NS, 60, without_side(2, 2, "B")),
]


@pytest.mark.parametrize("both", [True, False])
def test_what_can_be_used_now_is_stored_once_in_every_store(
    both: bool, tmp_path: Path, engine_url: str
) -> None:
    place = Place(tmp_path, engine_url if both else None)
    filled = TradeRow(
        0, 0, 0, trade_id(2), "B", "no", False, 3600, 150, 1_669_149_841_002_000, NOON_NS + 2 * DAY_NS
    )
    place.record(REJECTED, ChannelRows(trades=[filled]))
    told = reread(place.settings, dry_run=True, quiet=True)
    assert told.frames == len(REJECTED)
    assert told.stored == {"trades": 1, "tickers": 1, "market_lifecycle": 2}
    assert told.there == {"trades": 2, "tickers": 1, "market_lifecycle": 1}
    assert place.in_files("tickers") == []
    done = reread(place.settings, quiet=True)
    assert done.figures() == told.figures()
    (reason,) = (why for why in done.left if "count_fp" in why)
    assert "more than 0 contracts" in reason
    assert sorted(done.left.values()) == [1, 1, 1, 1, 2]
    assert done.lost_fields == {
        "orderbook_delta.ts": 1,
        "ticker.dollar_volume": 2,
        "ticker.yes_ask_dollars": 2,
    } | {f"ticker.{name}": 2 for name in ("volume_fp", "open_interest_fp")}
    trades = place.in_files("trades")
    assert [(row["trade_id"], row["conn_id"], row["taker_side"]) for row in trades] == [
        (trade_id(1), 50, "no"),
        (trade_id(2), 0, "no"),
    ]
    assert trades[0]["ingest_ts"].value == NOON_NS + 1
    (row,) = place.in_files("tickers")
    assert (row["yes_bid_e4"], row["dollar_volume"], row["ingest_ts"].value) == (4500, None, NOON_NS + 3)
    assert [row["ingest_ts"].value - NOON_NS for row in place.in_files("market_lifecycle")] == [5, 90 * 10**9]
    if both:
        assert place.in_database("trades", "toString(trade_id), conn_id") == [
            (trade_id(1), 50),
            (trade_id(2), 0),
        ]
        assert place.in_database("tickers", "yes_bid_e4, dollar_volume") == [(4500, None)]
        assert place.in_database("market_lifecycle", "event_type, conn_id") == [("created", 50)] * 2
    again = reread(place.settings, quiet=True)
    assert not again.stored
    assert again.done == len(REJECTED) - sum(done.left.values())
    (tmp_path / "rejected" / NOTE).unlink()
    again = reread(place.settings, quiet=True)
    assert not again.stored, "the stores are asked, not the note"
    assert len(place.in_files("trades")) == 2
    # And a reader of all of it finds nothing wrong.
    found = list(Replay(tmp_path).rows("trades"))
    assert [row.trade_id for row in found if isinstance(row, TradeRow)] == [trade_id(1), trade_id(2)]


def test_a_run_that_is_cut_off_adds_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path, None)
    place.record(REJECTED)

    def cut_off(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(KeptFrames, "note", cut_off)
        with pytest.raises(KeyboardInterrupt):
            reread(place.settings, quiet=True)
    assert not reread(place.settings, quiet=True).stored
    assert len(place.in_files("trades")) == 2


def test_rows_that_no_store_takes_wait_in_the_journal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path, None)
    place.record(REJECTED)
    reread(place.settings, dry_run=True, quiet=True)
    place.flags["CLICKHOUSE_URL"] = "http://127.0.0.1:9"
    monkeypatch.setattr(run, "STORE_WAIT_S", 0.5)
    with pytest.raises(SinkError, match=r"ClickHouse.*run it again when the store is there"):
        reread(place.settings, quiet=True)
    place.flags["CLICKHOUSE_URL"] = "off"
    assert reread(place.settings, quiet=True).stored["trades"] == 2


def test_not_while_a_recording_runs_and_not_without_kept_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path, None)
    journal = place.journal()
    flags = [
        "--journal-dir",
        str(tmp_path / "journal"),
        "--parquet-dir",
        str(tmp_path),
        "--clickhouse-url",
        "off",
    ]
    assert cli.main(["reread", *flags]) == 2
    assert "in use by process" in (told := capsys.readouterr().err)
    assert "end the recording" in told
    journal.close()
    assert cli.main(["reread", *flags, "--json", "--quiet"]) == 0
    text, figures = capsys.readouterr().out.rstrip("\n").rsplit("\n", 1)
    assert text.startswith("0 kept frames")
    assert json.loads(figures)["frames"] == 0
    place.flags["PARQUET_DIR"] = "off"
    with pytest.raises(ConfigError, match="PARQUET_DIR is off"):
        reread(place.settings)


def test_lines_that_are_none_are_counted_and_the_summary_names_all(tmp_path: Path) -> None:
    place = Place(tmp_path, None)
    place.record(REJECTED)
    reread(place.settings, dry_run=True, quiet=True)
    (path, *_) = sorted((tmp_path / "rejected").glob("*.ndjson"))
    with path.open("ab") as file:
        file.write(b'{"ingest_ns": 5\n[]\n{"ingest_ns":5,"conn_id":1,"payload_base64":"?"}\n')
    done = reread(place.settings, quiet=True)
    assert done.unreadable == 3
    text = describe(done, dry_run=False)
    for part in (
        "14 kept frames",
        "trades",
        "2 stored, 1 were there",
        "of an order book",
        "3 lines",
        "ticker.",
    ):
        assert part in text
