# ruff: noqa: E501 - frames as they are
"""The exchange's own example messages, and short forms for the frames that tests need many of."""

from __future__ import annotations

import json
from typing import Any

MARKET_ID = "9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1"

# From Kalshi's AsyncAPI document 2.0.0 (autumn 2026) and, the last three, from frames of 2025.
EXAMPLES: dict[str, bytes] = {
    "subscribed": b'{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":1}}',
    "ok": b'{"id":123,"sid":456,"seq":222,"type":"ok","msg":{"market_tickers":["FED-23DEC-T3.00"]}}',
    "ok without tickers": b'{"id":123,"sid":456,"seq":222,"type":"ok"}',
    "unsubscribed": b'{"id":102,"sid":2,"seq":7,"type":"unsubscribed"}',
    "list": b'{"id":3,"type":"ok","msg":[{"channel":"orderbook_delta","sid":1}]}',
    "error": b'{"id":5,"type":"error","msg":{"code":7,"msg":"Unknown subscription ID"}}',
    "scoped error": b'{"id":5,"type":"error","sid":2,"seq":9,"msg":{"code":11,"msg":"bad","market_ticker":"A"}}',
    "error of many": b'{"id":5,"type":"error","msg":{"code":11,"msg":"bad","market_tickers":["A","B"]}}',
    "snapshot": b'{"type":"orderbook_snapshot","sid":2,"seq":2,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"market_id":"9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1","yes_dollars_fp":[["0.0800","300.00"],["0.2200","333.00"]],'
    b'"no_dollars_fp":[["0.5400","20.00"],["0.5600","146.00"]]}}',
    "empty snapshot": b'{"type":"orderbook_snapshot","sid":2,"seq":2,"id":9,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"market_id":"9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1"}}',
    "delta": b'{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"market_id":"9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1","price_dollars":"0.9600","delta_fp":"-54.00","side":"yes",'
    b'"ts":"2022-11-22T20:44:01Z","ts_ms":1669149841000}}',
    "own delta": b'{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"market_id":"9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1","price_dollars":"0.960","delta_fp":"-54.00","side":"yes",'
    b'"client_order_id":"x","subaccount":0}}',
    "trade": b'{"type":"trade","sid":11,"seq":2,"msg":{"trade_id":"d91bc706-ee49-470d-82d8-11418bda6fed",'
    b'"market_ticker":"HIGHNY-22DEC23-B53.5","yes_price_dollars":"0.3600","no_price_dollars":"0.6400",'
    b'"count_fp":"136.00","taker_side":"no","taker_outcome_side":"no","taker_book_side":"ask",'
    b'"is_block_trade":false,"ts":1669149841,"ts_ms":1669149841000}}',
    "ticker": b'{"type":"ticker","sid":11,"msg":{"market_id":"9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1",'
    b'"market_ticker":"FED-23DEC-T3.00","price_dollars":"0.4800","yes_bid_dollars":"0.4500",'
    b'"yes_ask_dollars":"0.5300","volume_fp":"33896.00","open_interest_fp":"20422.00","dollar_volume":16948,'
    b'"dollar_open_interest":10211,"yes_bid_size_fp":"300.00","yes_ask_size_fp":"150.00",'
    b'"last_trade_size_fp":"25.00","ts":1669149841,"ts_ms":1669149841000,"time":"2022-11-22T20:44:01Z"}}',
    "created": b'{"type":"market_lifecycle_v2","sid":13,"seq":3,"msg":{"market_ticker":"INXD-23SEP14-B4487",'
    b'"event_type":"created","open_ts":1694635200,"close_ts":1694721600,"price_level_structure":"linear_cent",'
    b'"additional_metadata":{"event_ticker":"INXD-23SEP14","title":"S&P 500","rules_primary":"..."}}}',
    "determined": b'{"type":"market_lifecycle_v2","sid":13,"seq":4,"msg":{"market_ticker":"INXD-23SEP14-B4487",'
    b'"event_type":"determined","result":"yes","settlement_value":"1.0000","determination_ts":1694721600}}',
    "settled": b'{"type":"market_lifecycle_v2","sid":13,"seq":5,"msg":{"market_ticker":"INXD-23SEP14-B4487",'
    b'"event_type":"settled","settled_ts":1694721600}}',
    "grid": b'{"type":"market_lifecycle_v2","sid":13,"seq":6,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"event_type":"price_level_structure_updated","price_level_structure":"deci_cent",'
    b'"price_ranges":[{"start":"0.0000","end":"1.0000","step":"0.0010"}]}}',
    "metadata": b'{"type":"market_lifecycle_v2","sid":13,"seq":7,"msg":{"market_ticker":"INXD-23SEP14-B4487",'
    b'"event_type":"metadata_updated","yes_sub_title":"4,488 or more","strike_type":"greater","floor_strike":"4487.99"}}',
    "event": b'{"type":"event_lifecycle","sid":5,"seq":1,"msg":{"event_ticker":"KXE-26","exchange_index":0,"title":"t",'
    b'"subtitle":"s","collateral_return_type":"binary","series_ticker":"KXE","strike_date":1694721600}}',
    "fee": b'{"type":"event_fee_update","sid":5,"seq":2,"msg":{"event_ticker":"KXE-26",'
    b'"fee_type_override":"quadratic_with_maker_fees","fee_multiplier_override":"0.5"}}',
    "fee as before": b'{"type":"event_fee_update","sid":5,"seq":3,"msg":{"event_ticker":"KXE-26",'
    b'"fee_type_override":null,"fee_multiplier_override":null}}',
    "fee without": b'{"type":"event_fee_update","sid":5,"seq":2,"msg":{"event_ticker":"KXE-26"}}',
    "multivariate": b'{"type":"multivariate_market_lifecycle","sid":6,"seq":1,"msg":{"market_ticker":"KXMVE-1-2",'
    b'"event_type":"created","open_ts":1694635200,"additional_metadata":{"event_ticker":"KXMVE-1","title":"t"}}}',
    "index": rb'{"type":"cfbenchmarks_value","sid":5,"seq":49,"msg":{"index_id":"BRTI","received_at":1790363641073,'
    rb'"data":"{\"type\":\"value\",\"time\":1790363641000,\"id\":\"BRTI\",\"value\":\"84033.39\"}",'
    b'"avg_60s_data":{"value":"84023.75645833","window_size":48,"window_start_ts_ms":1790363581000,'
    b'"window_end_ts_exclusive":1790363641000},"last_60s_windowed_average_15min":{"value":"84033.39000000",'
    b'"window_size":1,"window_start_ts_ms":1790363640000,"window_end_ts_exclusive":1790363641000}}}',
    "fast index": b'{"type":"cfbenchmarks_value_5hz","sid":6,"seq":1,"msg":{"index_id":"BRTI",'
    b'"value_usd":"84017.28000000","source_ts_ms":1790363592200,"received_at":1790363592237,'
    rb'"data":"{\"type\":\"value\",\"time\":1790363592200,\"id\":\"BRTI\",\"value\":\"84017.28\"}"}}',
    "pyth": b'{"type":"pyth_value","sid":1,"seq":42,"msg":{"underlying_ticker":"Metal.XAU/USD",'
    b'"value_usd":"2365.12345000","source_ts_ms":1710000000100,"received_at":1710000000123}}',
    "indices": b'{"type":"cfbenchmarks_value_indexlist","id":2,"sid":1,"seq":1,"msg":{"index_ids":["BRTI"]}}',
    "fast indices": b'{"type":"cfbenchmarks_value_5hz_indexlist","id":2,"sid":1,"seq":1,'
    b'"msg":{"index_ids":["BRTI","ETHUSD_RTI"]}}',
    "underlyings": b'{"type":"pyth_value_underlying_list","id":2,"sid":1,"seq":1,'
    b'"msg":{"underlying_tickers":["Metal.XAG/USD","Metal.XAU/USD"]}}',
    "legacy snapshot": b'{"type":"orderbook_snapshot","sid":2,"seq":2,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"market_id":"9b0f6b43-5b68-4f9f-9f02-9a2d1b8ac1a1","yes":[[8,300],[22,333]],"no":[[54,20],[56,146]]}}',
    "legacy delta": b'{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"price":96,"delta":-54,"side":"yes"}}',
    "both forms": b'{"type":"orderbook_delta","sid":2,"seq":3,"msg":{"market_ticker":"FED-23DEC-T3.00",'
    b'"price":96,"delta":-54,"price_dollars":"0.9650","delta_fp":"-54.50","side":"yes"}}',
}


def frame(kind: str, sid: int | None, seq: int | None, **msg: Any) -> bytes:  # noqa: ANN401
    head: dict[str, Any] = {"type": kind}
    if sid is not None:
        head["sid"] = sid
    if seq is not None:
        head["seq"] = seq
    return json.dumps({**head, "msg": msg}).encode()


def snapshot(seq: int, ticker: str = "A", *, sid: int = 1, yes: Any = (), no: Any = (), **more: Any) -> bytes:  # noqa: ANN401
    sides = {f"{name}_dollars_fp": list(levels) for name, levels in (("yes", yes), ("no", no)) if levels}
    return frame("orderbook_snapshot", sid, seq, market_ticker=ticker, market_id=MARKET_ID, **sides, **more)


def delta(
    seq: int,
    price: str,
    change: str,
    side: str = "yes",
    ticker: str = "A",
    *,
    sid: int = 1,
    **more: Any,  # noqa: ANN401
) -> bytes:
    body = {"market_ticker": ticker, "market_id": MARKET_ID, "price_dollars": price, "delta_fp": change}
    return frame("orderbook_delta", sid, seq, **body, side=side, **more)
