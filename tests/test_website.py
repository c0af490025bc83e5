"""What the site makes of the pages of the repository: links, anchors, and files that pages link to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from mkdocs.exceptions import PluginError
from tools import website


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("Exit codes", "exit-codes"),
        ("A book is exact or unknown", "a-book-is-exact-or-unknown"),
        ("kalshi-fast replay", "kalshi-fast-replay"),
        ("BATCH_ROWS", "batch_rows"),
        ("numba, and Cython", "numba-and-cython"),
        ("a / b", "a--b"),
    ],
)
def test_anchors_are_those_of_the_repository(heading: str, anchor: str) -> None:
    assert website.slug(heading) == anchor


@pytest.mark.parametrize(
    ("page", "written", "on_the_site"),
    [
        ("README.md", "docs/live.md#logs", "live.md#logs"),
        ("README.md", "CHANGELOG.md", "changelog.md"),
        ("README.md", "docs/img/bench.svg", "img/bench.svg"),
        ("README.md", "sql", "repository/sql/index.md"),
        ("README.md", "LICENSE", "repository/LICENSE.md"),
        ("docs/live.md", "metrics.md", "metrics.md"),
        ("docs/live.md", "../README.md#ask", "index.md#ask"),
        ("docs/live.md", "../sql/0001_orderbook.sql", "repository/sql/0001_orderbook.sql.md"),
        ("docs/reference/schema.md", "../../sql", "../repository/sql/index.md"),
        ("docs/reference/schema.md", "#views", "#views"),
        ("docs/live.md", "https://kalshi.com/x#y", "https://kalshi.com/x#y"),
        ("docs/live.md", "../nowhere.py", "../nowhere.py"),  # left as it is, for mkdocs to complain of
        ("docs/live.md", "../../outside.md", "../../outside.md"),
    ],
)
def test_links_lead_to_where_the_site_has_it(page: str, written: str, on_the_site: str) -> None:
    assert website.rewritten(f"a [b]({written}) c", page) == f"a [b]({on_the_site}) c"


def test_what_stands_in_code_is_left_alone() -> None:
    text = "```text\n[a](../sql)\n```\n[a](../sql)\n"
    assert website.rewritten(text, "docs/live.md") == text[:-12] + "[a](repository/sql/index.md)\n"
    assert website.targets(text) == ["../sql"]


def test_a_page_that_loads_something_from_elsewhere_is_refused() -> None:
    page: Any = SimpleNamespace(file=SimpleNamespace(src_uri="live.md"))
    inside = '<script src="assets/a.js"></script><a href="https://kalshi.com">Kalshi</a>'
    assert website.on_post_page(inside, page) == inside
    for tag in ('<script src="https://x.example/a.js">', '<link rel="stylesheet" href="//x.example/a.css">'):
        with pytest.raises(PluginError, match=r"live\.md: the page would load .*//x\.example/a"):
            website.on_post_page(inside + tag, page)
