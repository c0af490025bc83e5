"""What the simulator's REST interface says has the keys, their order and the forms of values of recorded
bodies.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest

from client import KEY_ID, exchange
from kalshi_fast.auth import Signer
from kalshi_fast.simulator.rest import ROOT
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.tape import Traded
from kalshi_fast.simulator.unseen import REST_UNSEEN
from recordings import DIRECTORY
from test_exchange_rest import THERE_ARE
from test_simulator_rest import STATUS, Asked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.simulator.exchange import Exchange

COMBOS: Final = 30
MARKET: Final = "KXSIM-26DEC31-T0000"
FORMS: Final = (
    ("empty", r""),
    ("price", r"-?[0-9]+\.[0-9]{4}"),
    ("size", r"[0-9]+\.[0-9]{2}"),
    ("time", r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{0,5}[1-9])?Z"),
    ("text", r"(?s).*"),
)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    directory = tmp_path_factory.mktemp("exchange")
    opened, ended, loops, held = threading.Event(), asyncio.Event(), [], list["Exchange"]()

    async def serve() -> None:
        async with exchange(directory, SyntheticMarkets(4, 1, COMBOS), tls=False) as running:
            held.append(running)
            loops.append(asyncio.get_running_loop())
            opened.set()
            await ended.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert opened.wait(30)
    yield Asked(held[0], Signer.from_file(KEY_ID, directory / "client.pem"))
    loops[0].call_soon_threadsafe(ended.set)
    thread.join()


def body(asked: Asked, path: str, status: int = 200) -> bytes:
    answer = asked.get(f"{ROOT}{path}")
    found = STATUS.match(answer)
    assert found is not None
    assert int(found[1]) == status, answer
    return answer.partition(b"\r\n\r\n")[2]


def told(asked: Asked, path: str, status: int = 200) -> Any:  # noqa: ANN401 - JSON
    return json.loads(body(asked, path, status))


def form(value: Any) -> str:  # noqa: ANN401
    """What a value looks like."""
    if isinstance(value, str):
        return next(name for name, pattern in FORMS if re.fullmatch(pattern, value))
    return type(value).__name__


def recorded(name: str) -> bytes:
    return (DIRECTORY / "rest" / name).read_bytes()


def forms_of(objects: list[dict[str, Any]]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for thing in objects:
        for key, value in thing.items():
            found.setdefault(key, set()).add(form(value))
    return found


def check(ours: dict[str, Any], theirs: list[dict[str, Any]], *, unseen: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Every key of ours has been recorded, in that order and form; those that all have are there."""
    assert list(ours) == sorted(ours)
    assert set.intersection(*map(set, theirs)) <= set(ours)
    forms = forms_of(theirs)
    assert set(ours) - set(forms) == unseen
    for key in set(ours) - unseen:
        near = {"empty"} if forms[key] & {"text", "time"} else set()
        null = {"NoneType"} if forms[key] & {"list", "dict"} else set()  # REST_UNSEEN says so
        assert form(ours[key]) in forms[key] | near | null | ({"text"} if "empty" in forms[key] else set()), (
            key
        )


# Markets of the autumn of 2026, before keys went.
MARKETS: Final = [market for market in THERE_ARE["market"] if "exchange_index" in market]


def test_a_market_has_the_keys_and_forms_of_recorded_ones(asked: Asked) -> None:
    plain = [market for market in MARKETS if "mve_selected_legs" not in market]
    market = told(asked, f"/markets/{MARKET}")["market"]
    check(market, plain, unseen={"floor_strike"})
    assert "market.floor_strike" in REST_UNSEEN
    assert list(market["price_ranges"][0]) == list(plain[0]["price_ranges"][0])
    asked.running.life.markets[MARKET].status = "finalized"
    asked.running.life.markets[MARKET].result = "yes"
    over = told(asked, f"/markets/{MARKET}")["market"]
    asked.running.life.markets[MARKET].status = "active"
    settled = [market for market in MARKETS if market["status"] == "finalized"]
    assert set(over) - set(market) == {"settlement_ts", "settlement_value_dollars"}
    check({key: over[key] for key in sorted(over)}, [*settled, *plain], unseen={"floor_strike"})
    assert over["settlement_value_dollars"] == "1.0000"


def test_a_combination_has_exactly_the_keys_of_recorded_ones(asked: Asked) -> None:
    theirs = json.loads(recorded("markets_list_2026-09-15.json"))["markets"]
    page = told(asked, "/markets?limit=5&status=open")
    assert list(page) == ["cursor", "markets"]
    assert len(page["markets"]) == 5
    for market in page["markets"]:
        assert list(market) == list(theirs[0])
        check(market, theirs)
        assert market["ticker"].startswith("KXMVE")
        assert list(market["custom_strike"]) == list(theirs[0]["custom_strike"])
        assert list(market["mve_selected_legs"][0]) == list(theirs[0]["mve_selected_legs"][0])
        assert market["price_ranges"] == theirs[0]["price_ranges"]
    empty = next(m for m in page["markets"] if m["no_bid_dollars"] == m["no_ask_dollars"] == "1.0000")
    assert (empty["yes_bid_dollars"], empty["yes_ask_dollars"]) == ("0.0000", "0.0000")


def test_combinations_come_first_and_are_filtered(asked: Asked) -> None:
    def tickers(query: str) -> list[str]:
        found, cursor = list[str](), ""
        while True:
            page = told(asked, f"/markets?limit=7&{query}" + (f"&cursor={cursor}" if cursor else ""))
            found += [market["ticker"] for market in page["markets"] or ()]
            cursor = page["cursor"]
            if not cursor:
                return found

    everything = tickers("status=open")
    assert [ticker.startswith("KXMVE") for ticker in everything] == [True] * COMBOS + [False] * 4
    assert tickers("mve_filter=exclude") == everything[COMBOS:]
    assert tickers("mve_filter=only&status=open") == everything[:COMBOS]
    assert tickers("status=paused") == []


def test_one_status_and_nothing_else(asked: Asked) -> None:
    refused = recorded("error_400_invalid_status_filter_2026-08-08.json").strip()
    for status in ("active", "finalized", "open,paused", "Open", "all"):
        assert body(asked, f"/markets?status={status}", 400) == refused
    for status in ("unopened", "paused", "closed", "settled"):
        assert told(asked, f"/markets?status={status}") == {"cursor": "", "markets": None}
    assert told(asked, "/markets?mve_filter=include", 400)["error"]["details"] == "invalid mve filter"
    assert told(asked, "/markets?cursor=5", 400)["error"]["details"] == "invalid cursor"


def test_errors_have_the_recorded_keys(asked: Asked) -> None:
    there_is_none = told(asked, "/markets/NOPE", 404)
    assert list(there_is_none["error"]) == list(
        json.loads(recorded("error_404_demo_2026-07-06.json"))["error"]
    )
    asked.running.conditions.rest_faults.append(("rest_busy", 0))
    answer = asked.get(f"{ROOT}/markets")
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After" not in answer
    assert answer.partition(b"\r\n\r\n")[2] == recorded("error_429_2026-09-26.json").strip()


def test_books_are_asked_for_one_by_one_or_by_repeated_names(asked: Asked) -> None:
    one = body(asked, f"/markets/{MARKET}/orderbook")
    assert not one.endswith(b"\n")
    book = json.loads(one)["orderbook_fp"]
    assert list(book) == list(json.loads(recorded("orderbook_linear_cent_2026-09-15.json"))["orderbook_fp"])
    for side in book.values():
        assert side == sorted(side)
        assert {(form(price), form(size)) for price, size in side} == {("price", "size")}
    empty = next(t for t in asked.running.source.books if not any(asked.running.source.books[t].sides))
    assert body(asked, f"/markets/{empty}/orderbook") == recorded("orderbook_empty_2026-09-15.json")
    both = told(asked, f"/markets/orderbooks?tickers={MARKET}&tickers={empty}")["orderbooks"]
    assert [list(each) for each in both] == [["ticker", "orderbook_fp"]] * 2
    assert [each["orderbook_fp"] for each in both] == [book, {"no_dollars": [], "yes_dollars": []}]
    joined = told(asked, f"/markets/orderbooks?tickers={MARKET},{empty}")["orderbooks"]
    assert joined == [
        {"ticker": f"{MARKET},{empty}", "orderbook_fp": {"no_dollars": [], "yes_dollars": []}}
    ], "by commas it is one name, that nobody has"
    told(asked, "/markets/orderbooks", 400)


def test_events_series_and_trades(asked: Asked) -> None:
    events = [event for event in THERE_ARE["event"] if "markets" not in event]
    page = told(asked, "/events")
    assert list(page) == list(json.loads(recorded("events_list_2026-09-15.json")))
    assert [event["event_ticker"] for event in page["events"]] == ["KXSIM-26DEC31"], "no combinations"
    check(page["events"][0], events)
    whole = told(asked, "/events/KXSIM-26DEC31")
    assert list(whole) == list(json.loads(recorded("event_mutually_exclusive_2026-09-15.json")))
    assert whole["event"]["last_updated_ts"] == "0001-01-01T00:00:00Z"
    assert len(whole["markets"]) == 4
    nested = told(asked, "/events/KXSIM-26DEC31?with_nested_markets=true")
    assert list(nested) == ["event"]
    assert nested["event"]["markets"] == whole["markets"]
    check(nested["event"], THERE_ARE["event"])
    check(told(asked, "/series/KXSIM")["series"], THERE_ARE["series"])
    trades = asked.running.tape.trades
    trades[:] = [Traded("0723a045-55c1-a478-de4a-642a5deee757", MARKET, "yes", 7700, 894, 1_790_000_000_123)]
    (trade,) = told(asked, "/markets/trades")["trades"]
    trades.clear()
    (theirs,) = THERE_ARE["trade"]
    assert list(trade) == list(theirs)
    assert {key: form(value) for key, value in trade.items()} == {
        key: form(value) for key, value in theirs.items()
    }
    assert body(asked, "/markets/trades") == recorded("trades_empty_2026-09-26.json").strip()


def test_bodies_end_with_a_newline_where_recorded_ones_do(asked: Asked) -> None:
    for path in ("/markets", f"/markets/{MARKET}", "/events", "/events/KXSIM-26DEC31", "/series/KXSIM"):
        assert body(asked, path).endswith(b"}\n")
        assert b": " not in body(asked, path)
