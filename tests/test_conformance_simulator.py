"""Each message of the simulator against recorded ones: the same keys in the same order, the same forms of
values. What nobody has recorded is listed, in the code and in the documentation, and the list is exact."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path
from typing import Any

import picows
import pytest

import oracle
from client import Client, connect, exchange
from forms import Forms
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.unseen import UNSEEN, kind
from recordings import NEWLINE, REAL

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "protocol.md"
TICKERS = [f"KXSIM-26DEC31-T{n:04d}" for n in range(6)]
OUTDATED = ("event_lifecycle",)  # of 2025 only, and other than the document of today
CHANNELS = (
    *("orderbook_delta", "trade", "ticker", "market_lifecycle_v2", "multivariate_market_lifecycle", "fill"),
)

REFERENCE = (  # BRTI: the index that has been recorded
    ("cfbenchmarks_value", "index_ids", "BRTI", "indexlist"),
    ("cfbenchmarks_value_5hz", "index_ids", "BRTI", "indexlist"),
    ("pyth_value", "underlying_tickers", "all", "underlying_list"),
)


class Keeper(Client):
    """Keeps every frame as it came."""

    def __init__(self) -> None:
        super().__init__()
        self.raw: list[bytes] = []

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        if frame.msg_type == picows.WSMsgType.TEXT:
            self.raw.append(frame.get_payload_as_bytes())
        super().on_ws_frame(transport, frame)


def command(number: int, cmd: str, **params: Any) -> dict[str, Any]:  # noqa: ANN401
    return {"id": number, "cmd": cmd, "params": params}


async def everything(directory: Path) -> list[bytes]:
    """A play in which the exchange says all that it can say."""
    markets = SyntheticMarkets(6, 1)
    for side in (0, 1):
        markets.books[TICKERS[5]].sides[side].clear()
    markets.stop(TICKERS[5])
    async with exchange(
        directory, markets, rate=3000, seconds=3, life_every_s=0.1, life_lead_s=0.2
    ) as running:
        keeper = Keeper()
        client = await connect(directory, running.url, keeper)
        client.send(command(1, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:3]))
        client.send(
            command(
                2, "subscribe", channels=["ticker"], market_tickers=TICKERS[:2], send_initial_snapshot=True
            )
        )
        client.send(
            command(3, "subscribe", channels=[c for c in CHANNELS if c not in ("orderbook_delta", "ticker")])
        )
        await prices(client)
        client.send(command(4, "subscribe", channels=["no_such_channel"]))
        await client.until(lambda: any(frame["type"] == "error" for frame in client.frames))
        sids = {f["msg"]["channel"]: f["msg"]["sid"] for f in client.frames if f["type"] == "subscribed"}
        books, tickers = sids["orderbook_delta"], sids["ticker"]
        client.send(
            command(5, "update_subscription", sid=books, action="add_markets", market_tickers=TICKERS[3:])
        )
        client.send(
            command(6, "update_subscription", sid=tickers, action="add_markets", market_tickers=TICKERS[2:4])
        )
        client.send(
            command(7, "update_subscription", sid=books, action="get_snapshot", market_tickers=TICKERS[:1])
        )
        client.send(
            command(
                8, "update_subscription", sid=sids["trade"], action="get_snapshot", market_tickers=TICKERS[:1]
            )
        )
        client.send(command(9, "list_subscriptions"))
        quiet = await connect(directory, running.url, Keeper())
        quiet.send(
            command(
                1, "subscribe", channels=["orderbook_delta"], market_tickers=TICKERS[:1], skip_ticker_ack=True
            )
        )
        quiet.send(
            command(2, "update_subscription", sid=1, action="add_markets", market_tickers=TICKERS[1:2])
        )
        await running.finished.wait()
        client.send(command(10, "unsubscribe", sids=[sids["fill"]]))
        await client.until(lambda: client.frames[-1]["type"] == "unsubscribed")
        assert isinstance(quiet, Keeper)
        return keeper.raw + quiet.raw


async def prices(client: Client) -> None:
    """Reference prices of each channel, and what there is."""
    for number, (channel, key, name, action) in enumerate(REFERENCE, 20):
        client.send(command(number, "subscribe", channels=[channel], **{key: [name]}))
        await client.until(lambda number=number: any(f.get("id") == number for f in client.frames))  # type: ignore[misc]
        sid = next(f["msg"]["sid"] for f in client.frames if f.get("id") == number)
        client.send(command(number + 10, "update_subscription", sid=sid, action=action))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return asyncio.run(everything(tmp_path_factory.mktemp("exchange")))


@pytest.fixture(scope="module")
def of_kind(said: list[bytes]) -> dict[str, list[dict[str, Any]]]:
    found = defaultdict(list)
    for frame in said:
        message = oracle.load(frame)
        found[kind(message)].append(message)
    return found


def recorded(*, newest: bool) -> dict[str, list[dict[str, Any]]]:
    """By kind the frames of all real files, or of the present form only."""
    found = defaultdict(list)
    for capture in REAL:
        if capture.newest or not newest:
            for message in map(oracle.load, capture.frames()):
                found[kind(message)].append(message)
    return found


NEWEST = recorded(newest=True)
ALL = recorded(newest=False)
SEEN = {name: NEWEST.get(name) or frames for name, frames in ALL.items() if name not in OUTDATED}


def test_what_was_never_recorded_is_listed_and_nothing_else(of_kind: dict[str, list[dict[str, Any]]]) -> None:
    assert {name for name in of_kind if name not in SEEN} == UNSEEN.keys()


def test_the_documentation_lists_it() -> None:
    text = DOCUMENT.read_text()
    for name, source in UNSEEN.items():
        assert f"| `{name}` | {source} |" in text


def test_it_says_every_kind_that_is_recorded(
    of_kind: dict[str, list[dict[str, Any]]],
) -> None:
    assert SEEN.keys() <= of_kind.keys()


@pytest.mark.parametrize("name", sorted(SEEN))
def test_it_has_the_form_of_the_recorded_ones(name: str, of_kind: dict[str, list[dict[str, Any]]]) -> None:
    forms, every = Forms(SEEN[name]), Forms(ALL[name])
    wrong = {line for message in of_kind[name] for line in forms.differences(message, every)}
    assert not wrong


def test_each_frame_ends_with_its_newline_and_has_no_other_whitespace(said: list[bytes]) -> None:
    for frame in said:
        assert frame.endswith(b"}" + NEWLINE)
        assert b'": ' not in frame
        assert b'", "' not in frame
    assert len(said) > 1000
