"""The questions to REST beside the recording: one that fails does not hold up the other."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from kalshi_fast.discovery import inquiry
from kalshi_fast.discovery.inquiry import Inquiry
from kalshi_fast.errors import RestError

if TYPE_CHECKING:
    import pytest


def test_a_lasting_error_about_names_does_not_stop_the_questions_for_books(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(inquiry, "LOOK_S", 0.001)
    rest = SimpleNamespace(closed=False)
    asked = {"names": 0, "books": 0}

    async def names(self: Inquiry) -> None:
        asked["names"] += 1
        raise RestError("REST_URL", "500", "an answer")

    async def books(self: Inquiry) -> None:
        asked["books"] += 1
        rest.closed = asked["books"] == 5

    monkeypatch.setattr(Inquiry, "_names", names)
    monkeypatch.setattr(Inquiry, "_books", books)
    asyncio.run(asyncio.wait_for(Inquiry(cast("Any", rest), cast("Any", None), tuple).run(), 10))
    assert asked == {"names": 1, "books": 5}
    assert caplog.text.count("again in 1 s") == 1
