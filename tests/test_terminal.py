"""Screens are text of a known width, whatever is shown on them."""

from __future__ import annotations

import io
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast import ladder_view
from kalshi_fast._decode import MAX_PRICE_E4
from kalshi_fast.ladder_view import TradeSeen, View, contracts, dollars
from kalshi_fast.terminal import STYLES, Screen, bar, render

segments = st.lists(st.tuples(st.text(), st.sampled_from(list(STYLES))))
sides = st.dictionaries(st.integers(1, MAX_PRICE_E4 - 1), st.integers(1, 10**12), max_size=40).map(
    lambda levels: sorted(levels.items(), reverse=True)
)


@given(segments, st.integers(0, 100))
def test_a_line_is_never_wider_than_asked_and_steers_nothing(
    line: list[tuple[str, str]], columns: int
) -> None:
    plain = render(line, columns)
    assert len(plain) <= columns
    assert plain.isprintable()
    coloured = render(line, columns, colours=True)
    assert re.sub(r"\x1b\[\d*m", "", coloured) == plain


@given(st.integers(1, 10**15), st.integers(1, 10**15), st.integers(1, 200))
def test_bars_are_in_proportion_and_fit(part: int, whole: int, width: int) -> None:
    drawn = bar(min(part, whole), whole, width)
    assert 1 <= len(drawn) <= width
    assert bar(whole, whole, width) == "█" * width


@given(sides, sides, st.integers(20, 200), st.integers(5, 60), st.booleans(), st.integers(0, 8))
def test_a_ladder_fits_its_screen_and_shows_both_best(
    yes: list[tuple[int, int]],
    no: list[tuple[int, int]],
    columns: int,
    rows: int,
    known: bool,
    trades: int,
) -> None:
    seen = [TradeSeen(1_700_000_000 * 10**9, 4500, 100, "yes")] * trades
    view = View("T", known=known, connected=True, yes=yes, no=no, age_s=1.0, trades=seen)
    lines = [render(line, columns) for line in ladder_view.screen(view, columns, rows)]
    assert len(lines) <= max(rows, 5)
    whole = "\n".join(render(line) for line in ladder_view.screen(view, columns, rows))
    if yes:
        assert f"bid  {dollars(yes[0][0]):>8}{contracts(yes[0][1]):>15}" in whole
    if no:
        assert f"ask  {dollars(MAX_PRICE_E4 - no[0][0]):>8}{contracts(no[0][1]):>15}" in whole
    assert "\n" not in ladder_view.compact(view)
    as_json = ladder_view.as_json(view, 3)
    assert as_json["state"] == ("exact" if known else "unknown")
    assert [level["price_e4"] for level in as_json["yes"]] == [price for price, _ in yes[:3]]


@pytest.mark.parametrize(
    ("qty_e2", "text"),
    [(0, "0.00"), (5, "0.05"), (-5, "-0.05"), (123_456_789, "1,234,567.89"), (-150, "-1.50")],
)
def test_sizes_are_exact(qty_e2: int, text: str) -> None:
    assert contracts(qty_e2) == text


def test_a_screen_gives_the_terminal_back_and_keeps_what_was_logged() -> None:
    out, before = io.StringIO(), logging.root.handlers[:]
    with Screen(out) as screen:
        logging.getLogger("kalshi_fast").warning("connecting again in %.1f s", 0.5)
        screen.draw([[("hello", "")]])
        assert screen.said == "connecting again in 0.5 s"
    assert logging.root.handlers == before
    assert out.getvalue().startswith("\x1b[?1049h\x1b[?25l")
    assert "hello\x1b[K\x1b[J" in out.getvalue()
    assert out.getvalue().endswith("\x1b[?25h\x1b[?1049l")
