"""``kalshi-fast plot``: the numbers of the picture are those of the books; files are what their names say."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kalshi_fast.cli import main
from kalshi_fast.errors import ConfigError, ExportError, FieldError
from kalshi_fast.plotting import collect, save
from streams import TICKERS, Reference, Row, random_rows, write_events

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")


def state_at(rows: list[Row], at_ns: int) -> Reference:
    """The book of the first market when everything received until then had been applied."""
    reference = Reference()
    for row in rows:
        if row.market == 0 and row.ingest_ns <= at_ns:
            reference.apply(row)
    return reference


def test_columns_show_the_book_at_their_beginning_and_nothing_where_it_is_unknown(tmp_path: Path) -> None:
    rows = random_rows(31, 600, step_ns=10**8)
    picture = collect(TICKERS[0], write_events(tmp_path, rows), columns=50)
    assert picture.events == sum(row.market == 0 for row in rows)
    shown = 0
    for column in range(1, len(picture.known)):
        reference = state_at(rows, picture.start_ns + column * picture.every_ns)
        bid, ask = reference.best
        assert picture.bid[column] == pytest.approx(np.nan if bid is None else bid / 10_000, nan_ok=True)
        assert picture.ask[column] == pytest.approx(np.nan if ask is None else ask / 10_000, nan_ok=True)
        sides = reference.book or ({}, {})
        for price, size in sides[0].items():
            row = round((price / 10_000 - picture.low) / picture.row_dollars)
            assert picture.bids[row, column] == pytest.approx(size / 100)
            shown += 1
        for price, size in sides[1].items():
            row = round(((10_000 - price) / 10_000 - picture.low) / picture.row_dollars)
            assert picture.asks[row, column] == pytest.approx(size / 100)
        assert np.count_nonzero(~np.isnan(picture.bids[:, column])) == len(sides[0])
    assert shown > 50
    assert ((picture.known >= 0) & (picture.known <= 1)).all()
    assert 0 < picture.known_share < 1


def test_a_book_that_is_never_known_has_a_picture_too(tmp_path: Path) -> None:
    rows = [row for row in random_rows(32, 50) if row.kind == 1]
    source = write_events(tmp_path / "data", rows)
    picture = collect(TICKERS[0], source, columns=10)
    assert picture.known_share == 0
    save(picture, tmp_path / "never.png")
    assert (tmp_path / "never.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("name", "begin"),
    [("p.png", b"\x89PNG"), ("p.svg", b"<?xml"), ("p.pdf", b"%PDF"), ("p.html", b"<!doctype html>")],
)
def test_the_name_says_the_format(tmp_path: Path, name: str, begin: bytes) -> None:
    source = write_events(tmp_path / "data", random_rows(33, 200))
    save(collect(TICKERS[1], source, columns=40), tmp_path / name)
    content = (tmp_path / name).read_bytes()
    assert content.startswith(begin)
    if name == "p.html":
        text = content.decode()
        assert TICKERS[1] in text
        # Nothing from elsewhere: the picture itself is in the file.
        assert re.findall(r'(?:src|href)="(?!data:)', text) == []


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = str(write_events(tmp_path / "data", random_rows(34, 100)))
    out = tmp_path / "p.png"
    command = [
        "plot",
        TICKERS[0],
        "--from",
        source,
        "--out",
        str(out),
        "--columns",
        "20",
        "--json",
        "--quiet",
    ]
    assert main(command) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["events"] > 0
    assert out.stat().st_size > 1000
    assert main(["plot", "KXB", "--from", source, "--out", str(out), "--quiet"]) == 1
    assert "nothing is recorded of KXB in" in (told := capsys.readouterr().err)
    assert "close to it: KXB-2.50" in told
    assert main(["plot", TICKERS[0], "--from", source, "--out", str(tmp_path / "p.gif"), "--quiet"]) == 2
    assert "expected a name that ends with .png" in capsys.readouterr().err


def test_what_cannot_be_drawn_is_said_in_one_sentence(tmp_path: Path) -> None:
    source = write_events(tmp_path / "data", random_rows(35, 20))
    with pytest.raises(ExportError, match="nothing is recorded of NOPE"):
        collect("NOPE", source)
    with pytest.raises(FieldError, match="columns"):
        collect(TICKERS[0], source, columns=0)
    picture = collect(TICKERS[0], source, columns=5)
    with pytest.raises(ConfigError, match="expected a name"):
        save(picture, tmp_path / "p.bmp")
