-- What REST says of a market beyond 0007: what it pays by, when it expires, which markets a combination is made of.

-- `expiration_ts` is the latest time; when it is expected is `expected_expiration_ts`. `custom_strike` and
-- `mve_selected_legs` are JSON as the exchange tells it.
ALTER TABLE kalshi.markets
    ADD COLUMN IF NOT EXISTS yes_sub_title String CODEC(ZSTD(3)) AFTER version,
    ADD COLUMN IF NOT EXISTS no_sub_title String CODEC(ZSTD(3)) AFTER yes_sub_title,
    ADD COLUMN IF NOT EXISTS custom_strike String CODEC(ZSTD(3)) AFTER no_sub_title,
    ADD COLUMN IF NOT EXISTS expected_expiration_ts Nullable(DateTime64(3, 'UTC')) AFTER custom_strike,
    ADD COLUMN IF NOT EXISTS expiration_value String CODEC(ZSTD(3)) AFTER expected_expiration_ts,
    ADD COLUMN IF NOT EXISTS rules_primary String CODEC(ZSTD(3)) AFTER expiration_value,
    ADD COLUMN IF NOT EXISTS rules_secondary String CODEC(ZSTD(3)) AFTER rules_primary,
    ADD COLUMN IF NOT EXISTS mve_collection_ticker LowCardinality(String) AFTER rules_secondary,
    ADD COLUMN IF NOT EXISTS mve_selected_legs String CODEC(ZSTD(3)) AFTER mve_collection_ticker,
    ADD COLUMN IF NOT EXISTS is_provisional Bool AFTER mve_selected_legs,
    ADD COLUMN IF NOT EXISTS exchange_index Nullable(Int32) AFTER is_provisional;

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
    yes_sub_title,
    no_sub_title,
    status,
    strike_type,
    floor_strike,
    cap_strike,
    custom_strike,
    price_level_structure,
    price_ranges,
    open_ts,
    close_ts,
    expected_expiration_ts,
    expiration_ts,
    determination_ts,
    settled_ts,
    result,
    toDecimal32(settlement_value_e4, 4) / 10000 AS settlement_value,
    expiration_value,
    rules_primary,
    rules_secondary,
    mve_collection_ticker,
    mve_selected_legs,
    is_provisional,
    exchange_index
FROM kalshi.markets FINAL;
