-- Codecs by measurement, and an index for questions about one market. Both hold for what is written from now
-- on and cost nothing now; parts of earlier are rewritten as they merge. To have the index on them at once:
--     ALTER TABLE kalshi.orderbook_events MATERIALIZE INDEX by_ticker

-- 8.18 bytes per event on recordings of 2025 and 12.40 on synthetic markets, where 0001 has 10.38 and 14.94.
ALTER TABLE kalshi.orderbook_events
    MODIFY COLUMN type CODEC(ZSTD(1)),
    MODIFY COLUMN conn_id CODEC(ZSTD(1)),
    MODIFY COLUMN sid CODEC(ZSTD(1)),
    MODIFY COLUMN seq CODEC(Delta, T64('bit'), ZSTD(1)),
    MODIFY COLUMN market_ticker CODEC(ZSTD(1)),
    MODIFY COLUMN side CODEC(ZSTD(1)),
    MODIFY COLUMN ts CODEC(GCD, Delta, T64('bit'), ZSTD(1)),
    MODIFY COLUMN ingest_ts CODEC(Delta, T64('bit'), ZSTD(1));

ALTER TABLE kalshi.level_states
    MODIFY COLUMN market_ticker CODEC(ZSTD(1)),
    MODIFY COLUMN side CODEC(ZSTD(1)),
    MODIFY COLUMN ts CODEC(GCD, Delta, T64('bit'), ZSTD(1)),
    MODIFY COLUMN ingest_ts CODEC(Delta, T64('bit'), ZSTD(1)),
    MODIFY COLUMN version CODEC(Delta, T64('bit'), ZSTD(1));

-- The order key begins with market_id and people ask by ticker: of 10 million events of 200 markets, one market's
-- query reads 9 granules instead of 1221, for 2 kB of index.
ALTER TABLE kalshi.orderbook_events ADD INDEX IF NOT EXISTS by_ticker market_ticker TYPE bloom_filter(0.01) GRANULARITY 1;
