-- The other public channels are recorded from here on: what 0004 has no columns for, and what people ask of them.

-- `sid` and `seq` are 0 for what came by REST: trades that were missed while a connection was away.
ALTER TABLE kalshi.tickers
    ADD COLUMN IF NOT EXISTS sid UInt32 CODEC(ZSTD(1)) AFTER conn_id,
    ADD COLUMN IF NOT EXISTS dollar_volume Nullable(Int64) CODEC(ZSTD(1)) AFTER open_interest_e2,
    ADD COLUMN IF NOT EXISTS dollar_open_interest Nullable(Int64) CODEC(ZSTD(1)) AFTER dollar_volume;

-- `event_type` of what is no market's: event_lifecycle, event_fee_update. `body` is the announcement as it came.
ALTER TABLE kalshi.market_lifecycle
    ADD COLUMN IF NOT EXISTS event_ticker LowCardinality(String) CODEC(ZSTD(1)) AFTER market_ticker;

ALTER TABLE kalshi.markets
    ADD COLUMN IF NOT EXISTS subtitle String CODEC(ZSTD(3)) AFTER title,
    ADD COLUMN IF NOT EXISTS status LowCardinality(String) AFTER subtitle,
    ADD COLUMN IF NOT EXISTS strike_type LowCardinality(String) AFTER status,
    ADD COLUMN IF NOT EXISTS floor_strike Nullable(Decimal(38, 10)) AFTER strike_type,
    ADD COLUMN IF NOT EXISTS cap_strike Nullable(Decimal(38, 10)) AFTER floor_strike,
    ADD COLUMN IF NOT EXISTS price_ranges String CODEC(ZSTD(3)) AFTER price_level_structure,
    ADD COLUMN IF NOT EXISTS expiration_ts Nullable(DateTime64(3, 'UTC')) AFTER close_ts,
    ADD COLUMN IF NOT EXISTS determination_ts Nullable(DateTime64(3, 'UTC')) AFTER expiration_ts,
    ADD COLUMN IF NOT EXISTS settled_ts Nullable(DateTime64(3, 'UTC')) AFTER determination_ts,
    ADD COLUMN IF NOT EXISTS settlement_value_e4 Nullable(UInt16) AFTER result;

-- Markets as they are. A plain read of `markets` would also show what is not merged away yet.
--     SELECT market_ticker, title, status, close_ts, result FROM kalshi.markets_now
--     WHERE event_ticker = 'FEDFUNDS' ORDER BY market_ticker
CREATE OR REPLACE VIEW kalshi.markets_now AS
SELECT
    market_ticker,
    market_id,
    event_ticker,
    series_ticker,
    title,
    subtitle,
    status,
    strike_type,
    floor_strike,
    cap_strike,
    price_level_structure,
    price_ranges,
    open_ts,
    close_ts,
    expiration_ts,
    determination_ts,
    settled_ts,
    result,
    toDecimal32(settlement_value_e4, 4) / 10000 AS settlement_value
FROM kalshi.markets FINAL;

-- The last word of every market on the ticker channel.
--     SELECT market_ticker, price, yes_bid, yes_ask, volume, open_interest FROM kalshi.tickers_now
--     ORDER BY market_ticker
CREATE OR REPLACE VIEW kalshi.tickers_now AS
SELECT
    market_ticker,
    toDecimal32(latest.1, 4) / 10000 AS price,
    toDecimal32(latest.2, 4) / 10000 AS yes_bid,
    toDecimal32(latest.3, 4) / 10000 AS yes_ask,
    toDecimal64(latest.4, 2) / 100 AS volume,
    toDecimal64(latest.5, 2) / 100 AS open_interest,
    last_update
FROM
(
    SELECT
        market_ticker,
        argMax((price_e4, yes_bid_e4, yes_ask_e4, volume_e2, open_interest_e2), ingest_ts) AS latest,
        max(ts) AS last_update
    FROM kalshi.tickers
    GROUP BY market_ticker
);

-- What traded in every market from `since` to before `until`, by the exchange's time: number, contracts, dollars
-- that the yes side paid, the volume-weighted price, and how much of it was bought as yes.
--     SELECT market_ticker, trades, volume, vwap, bought_yes FROM
--     kalshi.trade_stats(since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00') ORDER BY market_ticker
CREATE OR REPLACE VIEW kalshi.trade_stats AS
SELECT
    market_ticker,
    count() AS trades,
    toDecimal64(sum(qty_e2), 2) / 100 AS volume,
    toDecimal128(sum(toInt128(yes_price_e4) * qty_e2), 6) / 1000000 AS yes_dollars,
    toDecimal64(intDiv(sum(toInt128(yes_price_e4) * qty_e2) * 100, sum(qty_e2)), 6) / 1000000 AS vwap,
    toDecimal64(sumIf(qty_e2, taker_side = 'yes'), 2) / 100 AS bought_yes
FROM kalshi.trades
WHERE ts >= parseDateTime64BestEffort({since:String}, 6, 'UTC')
    AND ts < parseDateTime64BestEffort({until:String}, 6, 'UTC')
GROUP BY market_ticker;

-- A market's trades in bars of `every_s` seconds of the exchange's time; a bar without trades has no row.
--     SELECT since, open, high, low, close, volume, trades FROM kalshi.trade_ohlc(market = 'FEDFUNDS-DEC25',
--         since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 30)
CREATE OR REPLACE VIEW kalshi.trade_ohlc AS
SELECT
    fromUnixTimestamp64Micro(intDiv(toUnixTimestamp64Micro(ts), toInt64({every_s:UInt32}) * 1000000)
        * toInt64({every_s:UInt32}) * 1000000, 'UTC') AS since,
    argMin(price_dollars, (ts, ingest_ts, seq)) AS open,
    max(price_dollars) AS high,
    min(price_dollars) AS low,
    argMax(price_dollars, (ts, ingest_ts, seq)) AS close,
    sum(qty) AS volume,
    count() AS trades
FROM kalshi.trades
WHERE market_ticker = {market:String}
    AND ts >= parseDateTime64BestEffort({since:String}, 6, 'UTC')
    AND ts < parseDateTime64BestEffort({until:String}, 6, 'UTC')
GROUP BY since
ORDER BY since;
