"""Secrets are blotted out in every form; nothing else is."""

from __future__ import annotations

import json
from urllib.parse import quote, quote_plus, urlencode

import pytest

from kalshi_fast.blotting import blotted, keep_secret

PASSWORD = "p4ss wörd/'\"\\%+&"


@pytest.mark.parametrize(
    "text",
    [
        PASSWORD,
        repr(PASSWORD),
        repr({"password": PASSWORD}),
        repr(PASSWORD.encode()),
        json.dumps({"password": PASSWORD}),
        json.dumps({"password": PASSWORD}, ensure_ascii=False),
        quote(PASSWORD),
        quote(PASSWORD, safe=""),
        quote_plus(PASSWORD),
        urlencode({"password": PASSWORD}),
    ],
)
def test_every_form_is_blotted_out(text: str) -> None:
    keep_secret(PASSWORD)
    seen = blotted(f"before {text} after")
    assert "p4ss" not in seen
    assert "rd" not in seen.replace("password", "")
    assert seen.startswith("before ")
    assert seen.endswith(" after")


def test_one_secret_within_another() -> None:
    keep_secret("hunter2", None, "", "abc")
    keep_secret("hunter2-of-more")
    assert blotted("hunter2-of-more, hunter2, abc") == "***, ***, abc"
