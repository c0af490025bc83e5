-- What happened to the feed itself: connects, disconnects, sequence gaps, resyncs, rejected frames.
CREATE TABLE IF NOT EXISTS kalshi.feed_health
(
    ts            DateTime64(9, 'UTC') CODEC(Delta, ZSTD(1)),
    conn_id       UInt64 CODEC(Delta, ZSTD(1)),
    event         LowCardinality(String),
    sid           UInt32 CODEC(ZSTD(1)),
    seq           UInt64 CODEC(ZSTD(1)),
    market_ticker LowCardinality(String),
    detail        String CODEC(ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (ts, conn_id)
SETTINGS non_replicated_deduplication_window = 10000;
