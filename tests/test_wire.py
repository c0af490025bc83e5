"""Every message of the protocol is understood; whatever else comes is named and costs nothing."""

from __future__ import annotations

import json
import random
from decimal import Decimal

import pytest
from msgspec import UNSET

from frames import EXAMPLES
from kalshi_fast import wire
from kalshi_fast.channels import reference
from kalshi_fast.errors import FrameError

CLASSES = {
    "subscribed": wire.Subscribed,
    "ok": wire.Ok,
    "unsubscribed": wire.Unsubscribed,
    "error": wire.Error,
    "orderbook_snapshot": wire.OrderbookSnapshot,
    "orderbook_delta": wire.OrderbookDelta,
    "trade": wire.Trade,
    "ticker": wire.TickerUpdate,
    "market_lifecycle_v2": wire.MarketLifecycle,
    "event_lifecycle": wire.EventLifecycle,
    "event_fee_update": wire.EventFeeUpdate,
    "multivariate_market_lifecycle": wire.MultivariateLifecycle,
    "cfbenchmarks_value": reference.CfValue,
    "cfbenchmarks_value_5hz": reference.Cf5HzValue,
    "pyth_value": reference.PythValue,
    "cfbenchmarks_value_indexlist": reference.CfIndexList,
    "cfbenchmarks_value_5hz_indexlist": reference.Cf5HzIndexList,
    "pyth_value_underlying_list": reference.PythUnderlyingList,
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_decodes_and_nothing_of_it_is_lost(name: str) -> None:
    message = wire.decode(EXAMPLES[name])
    as_json = json.loads(EXAMPLES[name])
    assert type(message) is CLASSES[as_json["type"]]
    assert wire.unknown_keys(EXAMPLES[name]) == []
    again = json.loads(wire.encode(message))
    dropped = {"is_block_trade", "subaccount"}  # written only when they differ from the default
    body, body_again = as_json.pop("msg", None), again.pop("msg", None)
    assert again == as_json
    if isinstance(body, dict):
        assert {k: v for k, v in body_again.items() if k not in dropped} == {
            k: v for k, v in body.items() if k not in dropped
        }
    else:
        assert body_again == body


@pytest.mark.parametrize("name", EXAMPLES)
def test_key_order_and_unknown_keys_do_not_matter(name: str) -> None:
    as_json = json.loads(EXAMPLES[name])
    reordered = dict(reversed(as_json.items()))
    if isinstance(reordered.get("msg"), dict):
        new = {"x": [1]} if name == "empty snapshot" else [1, {"x": None}]  # a list could be its levels
        reordered["msg"] = {"brand_new": new, **dict(reversed(reordered["msg"].items()))}
    reordered["also_new"] = True
    payload = json.dumps(reordered, separators=(",", ":")).encode()
    assert wire.decode(payload) == wire.decode(EXAMPLES[name])
    found = wire.unknown_keys(payload)
    assert f"{as_json['type']}.also_new" in found


def test_announcements_of_events_are_typed_and_tolerant() -> None:
    event = wire.decode(EXAMPLES["event"])
    assert isinstance(event, wire.EventLifecycle)
    assert (event.msg.series_ticker, event.msg.strike_date) == ("KXE", 1_694_721_600)
    fees = [wire.decode(EXAMPLES[name]) for name in ("fee", "fee as before", "fee without")]
    found = [fee.msg.fee_multiplier_override for fee in fees if isinstance(fee, wire.EventFeeUpdate)]
    assert found == [Decimal("0.5"), None, UNSET]
    number = wire.decode(EXAMPLES["fee"].replace(b'"0.5"', b"0.5"))
    assert number == fees[0], "exact, whether a text or a number"
    several = wire.decode(EXAMPLES["multivariate"])
    assert isinstance(several, wire.MultivariateLifecycle)
    assert (several.msg.event_type, several.msg.open_ts) == ("created", 1_694_635_200)
    for name in ("event", "fee", "multivariate"):
        ticker = b"market_ticker" if name == "multivariate" else b"event_ticker"
        with pytest.raises(FrameError):
            wire.decode(EXAMPLES[name].replace(b'"%b":"' % ticker, b'"%b":7,"x":"' % ticker, 1))


def test_unknown_type_is_no_error_and_keeps_its_number() -> None:
    assert wire.decode(b'{"type":"rfq_created","sid":4,"seq":9,"msg":[1]}') == wire.Unknown(
        "rfq_created", 4, 9
    )
    assert wire.decode(b'{"type":"rfq_created","sid":"4","seq":9.0}') == wire.Unknown("rfq_created", None, 9)
    assert wire.unknown_keys(b'{"type":"rfq_created","x":1}') == []


@pytest.mark.parametrize(
    ("payload", "sid", "seq", "ticker"),
    [
        (b"", None, None, None),
        (b"\xff\xfe\x00", None, None, None),
        (b"[]", None, None, None),
        (b"{}", None, None, None),
        (b'{"type":7}', None, None, None),
        (b"[" * 100_000, None, None, None),
        (b'{"type":"orderbook_delta","x":' + b"[" * 100_000 + b"}", None, None, None),
        (b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"A","side":"maybe"}}', 1, 2, "A"),
        (b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":5,"side":"yes"}}', 1, 2, None),
        (b'{"type":"orderbook_delta","sid":1,"seq":2,"msg":{"market_ticker":"A"}}', 1, 2, "A"),
        (b'{"type":"orderbook_delta","sid":-1,"seq":2,"msg":{"market_ticker":"A"}}', None, 2, "A"),
        (b'{"type":"orderbook_snapshot","sid":1,"seq":2,"msg":{"market_ticker":"A","yes":[[1]]}}', 1, 2, "A"),
    ],
)
def test_bad_frames_say_what_could_still_be_read(
    payload: bytes, sid: int | None, seq: int | None, ticker: str | None
) -> None:
    with pytest.raises(FrameError) as caught:
        wire.decode(payload)
    assert (caught.value.sid, caught.value.seq, caught.value.market_ticker) == (sid, seq, ticker)
    assert len(str(caught.value)) < 1000


def test_the_text_of_an_error_is_bounded_and_printable() -> None:
    for payload in (
        b'{"type":"%b"' % (b"x" * 5000),
        b'{"type":"orderbook_delta","sid":"a\\nb\\u001b","cmd":7}',
        b'{"cmd":7,"id":"\x07"}',
    ):
        for decode in (wire.decode, wire.decode_command):
            with pytest.raises(FrameError) as caught:
                decode(payload)
            assert str(caught.value).isprintable()
            assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "payload", [b"", b"\xff", b"[1]", b"7", b'{"type":[1]}', b'{"type":"trade","type":{}}']
)
def test_what_is_no_message_has_no_unknown_keys(payload: bytes) -> None:
    assert wire.unknown_keys(payload) in ([], ["(not readable)"])


def test_commands_survive_the_round_trip() -> None:
    params = wire.Params(channels=["orderbook_delta"], market_tickers=["A"], use_yes_price=False)
    command = wire.Command("subscribe", 1, params)
    assert json.loads(wire.encode(command)) == {
        "cmd": "subscribe",
        "id": 1,
        "params": {"channels": ["orderbook_delta"], "market_tickers": ["A"], "use_yes_price": False},
    }
    assert wire.decode_command(wire.encode(command)) == command
    with pytest.raises(FrameError, match="command"):
        wire.decode_command(b'{"cmd":1}')


def test_decoding_never_raises_anything_but_a_frame_error() -> None:
    rng = random.Random(20261124)
    originals = list(EXAMPLES.values())
    for _ in range(20_000):
        payload = mutated(rng, rng.choice(originals))
        try:
            wire.decode(payload)
        except FrameError:
            continue
        wire.unknown_keys(payload)


def mutated(rng: random.Random, payload: bytes) -> bytes:
    """One to four small accidents: bytes flipped, cut out, doubled, swapped with another place."""
    data = bytearray(payload)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(6):
            case 0:
                data[at:at] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randint(1, 8)]
            case 2:
                data = data[:at]
            case 3:
                data[at:at] = data[at : at + rng.randint(1, 20)]
            case 4 if at < len(data):
                data[at] = rng.choice(b'0123456789.-"{}[],:\\\xff')
            case _ if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
    return bytes(data)
