"""What is announced beside the life of single markets: events that come to be, other fees of theirs, and
multivariate markets.

Multivariate markets have no book here and are not told by REST: they are announced, from their creation to
their settlement, to those who listen to their own channel. Not here: markets with books (``life``).
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from kalshi_fast.simulator import announcements
from kalshi_fast.simulator.subscription import LIFECYCLE, MULTIVARIATE

if TYPE_CHECKING:
    from collections.abc import Iterable
    from random import Random

    from kalshi_fast.simulator.agenda import Agenda
    from kalshi_fast.simulator.exchange import Exchange

OTHER_FEES: Final = "quadratic_with_maker_fees"
SERIES: Final = "KXMVESIM"  # of the multivariate markets
_DAY_S: Final = 86_400


class Events:
    """``Events(exchange, agenda, known)``: these events are there from the beginning."""

    def __init__(self, exchange: Exchange, agenda: Agenda, known: Iterable[str]) -> None:
        self._exchange = exchange
        self._agenda = agenda
        self._known = set(known)
        self._fees: set[str] = set()  # events whose fees are others than those of their series
        self._combined = 0

    def begin(self, event_ticker: str) -> None:
        """It is announced when it is new."""
        if event_ticker in self._known:
            return
        self._known.add(event_ticker)
        said = announcements.of_event(event_ticker, title(event_ticker), "Simulated")
        self._exchange.announce(LIFECYCLE, said)

    def change_fees(self, event_ticker: str, multiplier: int) -> None:
        """To others than those of the series, and the next time back to those."""
        if event_ticker in self._fees:
            self._fees.remove(event_ticker)
            said = announcements.of_fees(event_ticker, None, None)
        else:
            self._fees.add(event_ticker)
            said = announcements.of_fees(event_ticker, OTHER_FEES, multiplier)
        self._exchange.announce(LIFECYCLE, said)

    def combine(self, legs: list[str], lead_s: float, rng: Random) -> None:
        """A multivariate market on these markets: opened after ``lead_s``, and over after as long again."""
        now_s = int(time.time())
        event_ticker = f"{SERIES}-26DEC31"
        ticker = f"{event_ticker}-M{self._combined:04d}"
        self._combined += 1

        def tell(event_type: str, **more: object) -> None:
            self._exchange.announce(MULTIVARIATE, announcements.of_combination(ticker, event_type, more))

        def settle() -> None:
            result = rng.choice(("yes", "no"))
            tell("deactivated")
            tell("determined", result=result, determination_ts=int(time.time()))
            tell("settled", settled_ts=int(time.time()))

        def activate() -> None:
            tell("activated")
            self._agenda.after(lead_s, settle)

        wording = f"yes {', yes '.join(legs)}"
        described = {
            "name": wording,
            "title": wording,
            "yes_sub_title": wording,
            "no_sub_title": wording,
            "rules_primary": "If all of it comes true, then the market resolves to Yes.",
            "rules_secondary": "Nobody is behind it.",
            "can_close_early": True,
            "event_ticker": event_ticker,
            "expected_expiration_ts": now_s + _DAY_S + 3600,
        }
        told = {"exchange_index": 0, "open_ts": now_s, "close_ts": now_s + _DAY_S}
        tell("created", **told, additional_metadata=described)
        self._agenda.after(lead_s, activate)


def title(event_ticker: str) -> str:
    return f"The simulation of {event_ticker}"
