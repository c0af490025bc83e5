"""Markets that are wanted and that the exchange does not have: which, since when, and what is known of why.

Each is said once when it is noticed, once more when REST has said what the ticker is, and when it has come
after all. Their books stay unknown, and they are no failure of the recording. Not here: when they are asked
for again (``admission``), the question to REST (``discovery.inquiry``).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kalshi_fast.recorder import Recorder, Speaker

log = logging.getLogger("kalshi_fast.absent")


@dataclass(slots=True)
class Absence:
    """``why``: how it was noticed. ``answer``: what REST says of the ticker; empty: nothing yet."""

    since_ns: int
    why: str
    answer: str = ""


class AbsentMarkets:
    """``AbsentMarkets(recorder)``: in ``by_ticker``, in the order in which they were noticed."""

    def __init__(self, recorder: Recorder) -> None:
        self.by_ticker: dict[str, Absence] = {}
        self._recorder = recorder

    def __len__(self) -> int:
        return len(self.by_ticker)

    def say(self, ticker: str, why: str, now_ns: int, speaker: Speaker) -> None:
        """Noticed (again): said the first time."""
        if ticker in self.by_ticker:
            return
        self.by_ticker[ticker] = Absence(now_ns, why)
        log.warning("%s: there is no such market: %s; its book stays unknown", ticker, why)
        detail = f"there is no such market: {why}"
        self._recorder.health(now_ns, speaker, "absent", market_ticker=ticker, detail=detail)

    def answered(self, ticker: str, answer: str, now_ns: int, speaker: Speaker) -> None:
        """What REST says of an absent market; said when it is something new."""
        absence = self.by_ticker.get(ticker)
        if absence is None or absence.answer == answer:
            return
        absence.answer = answer
        log.warning("%s: %s", ticker, answer)
        self._recorder.health(now_ns, speaker, "absent", market_ticker=ticker, detail=answer)

    def found(self, ticker: str, now_ns: int, speaker: Speaker) -> None:
        """The market is there."""
        if self.by_ticker.pop(ticker, None) is not None:
            log.warning("%s: the market is there now", ticker)
            detail = "the market is there now"
            self._recorder.health(now_ns, speaker, "present", market_ticker=ticker, detail=detail)

    def forget(self, tickers: Iterable[str]) -> None:
        """They are not wanted any more."""
        for ticker in tickers:
            self.by_ticker.pop(ticker, None)

    def to_ask(self) -> list[str]:
        """Those of which REST has said nothing yet."""
        return [ticker for ticker, absence in self.by_ticker.items() if not absence.answer]

    def described(self, most: int) -> list[str]:
        """Some of them, each with what is known of it."""
        shown = list(self.by_ticker.items())[:most]
        return [f"{ticker} ({absence.answer or absence.why})" for ticker, absence in shown]
