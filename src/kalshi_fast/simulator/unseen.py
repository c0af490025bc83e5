"""What the simulator says that nobody has recorded from the exchange: where its form comes from instead.

Everything else that it says has the keys, their order and the forms of values of a recorded frame; a test
compares them and fails when this list is not exact. A kind is named by ``kind``. Not here: the frames.
"""

from __future__ import annotations

from typing import Any, Final

DOCUMENT: Final = "an example of the AsyncAPI document"
FIELDS: Final = "fields of the AsyncAPI document; their order is ours"
OLDER: Final = "a frame of 2025, which had no seq; the rest by the document"

UNSEEN: Final[dict[str, str]] = {
    "orderbook_snapshot with id": FIELDS,  # the answer to get_snapshot
    "market_lifecycle_v2 activated": FIELDS,
    "market_lifecycle_v2 price_level_structure_updated": DOCUMENT,
    "event_lifecycle": OLDER,
    "event_fee_update": DOCUMENT,
    "multivariate_market_lifecycle created": DOCUMENT,
    "multivariate_market_lifecycle activated": FIELDS,
    "multivariate_market_lifecycle deactivated": FIELDS,
    "multivariate_market_lifecycle determined": FIELDS,
    "multivariate_market_lifecycle settled": FIELDS,
    "fill": FIELDS,
    "pyth_value": DOCUMENT,
    "cfbenchmarks_value_indexlist": DOCUMENT,
    "cfbenchmarks_value_5hz_indexlist": DOCUMENT,
    "pyth_value_underlying_list": DOCUMENT,
    "ok without msg": FIELDS,  # to a subscription with skip_ticker_ack
    "ok with a list": FIELDS,  # to list_subscriptions
    "unsubscribed": FIELDS,
    "error with sid, seq": FIELDS,
}


def kind(message: dict[str, Any]) -> str:
    """The name under which a decoded frame is compared: its type, and what else decides on its keys."""
    name, body = str(message["type"]), message.get("msg")
    if isinstance(body, dict) and "event_type" in body:
        return f"{name} {body['event_type']}"
    if name == "ok":
        if body is None:
            return "ok without msg"
        return "ok with a list" if isinstance(body, list) else f"ok{_scope(message)}"
    if name == "error":
        return f"error{_scope(message)}"
    return f"{name} with id" if name == "orderbook_snapshot" and "id" in message else name


def _scope(message: dict[str, Any]) -> str:
    scope = [key for key in ("sid", "seq") if key in message]
    return f" with {', '.join(scope)}" if scope else ""


# The same of REST, by what an answer is.
REST_UNSEEN: Final[dict[str, str]] = {
    "/exchange/status": "the two fields of the OpenAPI document that stay",
    "market.floor_strike": "the WebSocket's metadata_updated has it as a number",
    "null for an empty list or object": "the OpenAPI document; empty pages of trades were seen as []",
    "error of status 401 and 5xx": "the form of recorded errors of status 400, 404 and 429",
    "cursor": "opaque here as there; what is in it is ours",
    "/markets/orderbooks": "recorded elements; the object around them by the OpenAPI document",
}
