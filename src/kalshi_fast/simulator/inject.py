"""Makes the faults of a script happen to a running exchange, each at its moment of the play.

Whom a fault hits is drawn from the seed. A fault that finds nobody to hit (everybody is away) is tried again
until the moment of the script's last fault; only faults that did happen are counted.
"""

from __future__ import annotations

import random
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import picows

from kalshi_fast.simulator import announcements, grids
from kalshi_fast.simulator.faults import DIALECT_KINDS, FRAME_KINDS, REST_KINDS, Fault
from kalshi_fast.simulator.frames import times
from kalshi_fast.simulator.source import delta
from kalshi_fast.simulator.subscription import BOOKS, LIFECYCLE, Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kalshi_fast.simulator.agenda import Agenda
    from kalshi_fast.simulator.client import Client
    from kalshi_fast.simulator.exchange import Exchange
    from kalshi_fast.simulator.frames import TrueBook

_RETRY_S: Final = 0.25
_HUGE_SIZE_E2: Final = 100_000
_NEW_LEVELS: Final = 3  # at prices of a finer grid, right after it has become so


class Injector:
    """Enters every fault into the agenda, and itself takes them out of effect when their time is over."""

    def __init__(self, exchange: Exchange, faults: Sequence[Fault], agenda: Agenda) -> None:
        self._exchange = exchange
        self._agenda = agenda
        self._last_s = max((fault.at_s for fault in faults), default=0.0)
        self._in_effect: dict[str, object] = {}
        for number, fault in enumerate(faults):
            rng = random.Random(f"{exchange.seed} fault {number}")  # noqa: S311 - a simulation
            agenda.at(fault.at_s, partial(self._inject, fault, rng))

    def _inject(self, fault: Fault, rng: random.Random) -> None:
        if fault.kind in FRAME_KINDS:
            done = self._frames(fault.kind, rng, fault.args)
        elif fault.kind in REST_KINDS:
            done = self._rest(fault.kind, fault.args)
        elif fault.kind in DIALECT_KINDS:
            done = self._dialect(fault.kind, fault.args)
        else:
            done = getattr(self, f"_{fault.kind}")(rng, fault.args)
        if done:
            counted = self._exchange.stats.faults
            counted[fault.kind] = counted.get(fault.kind, 0) + 1
        elif self._agenda.now_s + _RETRY_S <= self._last_s:
            self._agenda.after(_RETRY_S, partial(self._inject, fault, rng))

    def _during(self, name: str, seconds: float, set_to: Callable[[Any], None], value: object) -> None:
        """Sets a value for so long; a later fault of the same kind takes over."""
        token = self._in_effect[name] = object()
        set_to(value)

        def end() -> None:
            if self._in_effect[name] is token:
                set_to(None)

        self._agenda.after(seconds, end)

    # --- whom -------------------------------------------------------------------------------------

    def _clients(self) -> list[Client]:
        """Those that still hear something, in order of their connecting."""
        found = [client for client in self._exchange.clients if not client.hung]
        return sorted(found, key=lambda client: client.number)

    def _any_client(self, rng: random.Random) -> Client | None:
        clients = self._clients()
        return rng.choice(clients) if clients else None

    def _subscriptions(self) -> list[tuple[Client, Subscription]]:
        return [
            (client, subscription)
            for client in self._clients()
            for subscription in client.subscriptions.values()
            if subscription.channel == BOOKS
        ]

    def _books(self, good: Callable[[TrueBook], bool] = lambda _: True) -> list[TrueBook]:
        """The markets that somebody carries, or all if nobody carries one like that."""
        life = self._exchange.life
        books = {t: b for t, b in self._exchange.source.books.items() if not life.is_combination(t)}
        carried = {ticker for _, subscription in self._subscriptions() for ticker in subscription.tickers}
        found = [book for ticker, book in books.items() if ticker in carried and good(book)]
        return found or [book for book in books.values() if good(book)]

    # --- frames and connections -------------------------------------------------------------------

    def _frames(self, kind: str, rng: random.Random, args: dict[str, Any]) -> bool:
        client = self._any_client(rng)
        if client is None:
            return False
        link = client.faulty()
        if kind == "reorder":
            link.reorder(args["k"])
        else:
            setattr(link, kind, getattr(link, kind) + args["n"])
        return True

    def _stall(self, rng: random.Random, args: dict[str, Any]) -> bool:
        client = self._any_client(rng)
        if client is None:
            return False
        link = client.faulty()
        link.stall()

        def end() -> None:
            if link.stalled:
                link.unstall()
            self._exchange.wake.set()

        self._agenda.after(args["s"], end)
        return True

    def _hang(self, rng: random.Random, args: dict[str, Any]) -> bool:
        client = self._any_client(rng)
        if client is None:
            return False
        client.faulty().hung = True
        return True

    def _reset(self, rng: random.Random, args: dict[str, Any]) -> bool:
        client = self._any_client(rng)
        if client is None:
            return False
        client.reset()
        return True

    def _close(self, rng: random.Random, args: dict[str, Any]) -> bool:
        client = self._any_client(rng)
        if client is None:
            return False
        client.close(args["code"])
        return True

    def _refuse(self, rng: random.Random, args: dict[str, Any]) -> bool:
        refusal = (args["status"], "unavailable", "the exchange takes no connections at the moment")
        self._during("refusal", args["s"], self._set_refusal, refusal)
        for client in self._clients():
            client.reset()
        return True

    def _expire(self, rng: random.Random, args: dict[str, Any]) -> bool:
        refusal = (401, "stale_timestamp", "the timestamp is too far from the exchange's clock")
        self._during("refusal", args["s"], self._set_refusal, refusal)
        for client in self._clients():
            client.close(picows.WSCloseCode.POLICY_VIOLATION.value)
        return True

    def _set_refusal(self, refusal: tuple[int, str, str] | None) -> None:
        self._exchange.conditions.refusal = refusal

    def _rest(self, kind: str, args: dict[str, Any]) -> bool:
        value = args.get("retry_after_s", args.get("status", 0))
        self._exchange.conditions.rest_faults.extend([(kind, value)] * args["n"])
        return True

    # --- the protocol -----------------------------------------------------------------------------

    def _terminal(self, rng: random.Random, args: dict[str, Any]) -> bool:
        found = self._subscriptions()
        if not found:
            return False
        client, subscription = rng.choice(found)
        client.terminate(subscription, args["code"])
        return True

    def _limit_markets(self, rng: random.Random, args: dict[str, Any]) -> bool:
        def set_to(limit: int | None) -> None:
            self._exchange.conditions.market_limit = limit

        self._during("limit_markets", args["s"], set_to, args["n"])
        return True

    def _limit_rate(self, rng: random.Random, args: dict[str, Any]) -> bool:
        def set_to(limited: bool | None) -> None:
            self._exchange.conditions.rate_limited = bool(limited)

        self._during("limit_rate", args["s"], set_to, value=True)
        return True

    def _out_of_order(self, rng: random.Random, args: dict[str, Any]) -> bool:
        def set_to(out_of_order: bool | None) -> None:
            always = self._exchange.out_of_order
            self._exchange.conditions.out_of_order = always or bool(out_of_order)

        self._during("out_of_order", args["s"], set_to, value=True)
        return True

    def _refuse_subscribe(self, rng: random.Random, args: dict[str, Any]) -> bool:
        clients = self._clients()
        if not clients:
            return False
        self._exchange.conditions.subscribe_refusals.extend([args["code"]] * args["n"])
        for client in clients:
            client.close()
        return True

    def _cut_merge(self, rng: random.Random, args: dict[str, Any]) -> bool:
        """What reconnects subscribes its first markets and adds the others: a merge."""
        client = self._any_client(rng)
        if client is None:
            return False

        def set_to(armed: bool | None) -> None:
            self._exchange.conditions.cut_merge = bool(armed)

        self._during("cut_merge", args["s"], set_to, value=True)
        client.close()
        return True

    def _storm(self, rng: random.Random, args: dict[str, Any]) -> bool:
        found = self._subscriptions()
        for client, subscription in found:
            client.snapshots(subscription, sorted(subscription.tickers))
        return bool(found)

    # --- markets ----------------------------------------------------------------------------------

    def _grid(self, rng: random.Random, args: dict[str, Any]) -> bool:
        source = self._exchange.source
        if source.form == "legacy":
            return False  # it has no words for such prices
        books = self._books(lambda book: source.structures[book.ticker] != grids.FINEST)
        if not books:
            return False
        book = rng.choice(books)
        old = source.structures[book.ticker]
        new = grids.finer(old)
        assert new is not None  # noqa: S101 - no market with the finest was taken
        self._restructure(book, new)
        off_the_old = sorted(set(grids.prices(new)) - set(grids.prices(old)))
        for price in rng.sample(off_the_old, _NEW_LEVELS):
            self._change(book, rng.randrange(2), price, rng.randrange(1, 100_000))
        return True

    def _empty(self, rng: random.Random, args: dict[str, Any]) -> bool:
        books = self._books(lambda book: any(book.sides))
        if not books:
            return False
        book = rng.choice(books)
        for side, levels in enumerate(book.sides):
            for price, size in sorted(levels.items()):
                self._change(book, side, price, -size)
        return True

    def _huge(self, rng: random.Random, args: dict[str, Any]) -> bool:
        source = self._exchange.source
        finest = grids.FINEST if source.form == "current" else grids.STRUCTURES[0]
        book = rng.choice(self._books(lambda book: source.structures[book.ticker] == finest) or self._books())
        if source.structures[book.ticker] != finest:
            self._restructure(book, finest)
        for side in (0, 1):
            for price in grids.prices(finest):
                if price not in book.sides[side]:
                    self._change(book, side, price, rng.randrange(1, _HUGE_SIZE_E2 // 100) * 100)
        return True

    def _restructure(self, book: TrueBook, structure: str) -> None:
        self._exchange.source.restructure(book.ticker, structure)
        told = {"price_level_structure": structure, "price_ranges": grids.price_ranges(structure)}
        said = announcements.of_market(book.ticker, "price_level_structure_updated", told)
        self._exchange.announce(LIFECYCLE, said)

    def _change(self, book: TrueBook, side: int, price_e4: int, delta_e2: int) -> None:
        book.altered = True
        form = self._exchange.source.form
        told = times(time.time_ns() // 1000) if self._exchange.frame_end else b""
        self._exchange.publish(delta(book, side, price_e4, delta_e2, told, form))

    # --- dialects ---------------------------------------------------------------------------------

    def _dialect(self, kind: str, args: dict[str, Any]) -> bool:
        dialect = self._exchange.dialect

        def set_to(on: bool | None) -> None:
            setattr(dialect, kind, bool(on))

        self._during(kind, args["s"], set_to, value=True)
        for client in self._exchange.clients:
            client.faulty()
        return True
