-- The other public channels and the markets themselves, in the same style. kalshi-fast 0.1 creates these
-- tables and records order books only.

-- Every trade of the markets recorded, once: by id over reconnects, standby, restarts and what REST brings later.
CREATE TABLE IF NOT EXISTS kalshi.trades
(
    conn_id       UInt64 CODEC(Delta, ZSTD(1)),
    sid           UInt32 CODEC(Delta, ZSTD(1)),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    trade_id      UUID CODEC(ZSTD(1)),
    market_ticker LowCardinality(String) CODEC(LZ4),
    taker_side    Enum8('yes' = 1, 'no' = 2) CODEC(T64, ZSTD(1)),
    is_block      Bool CODEC(T64, ZSTD(1)),
    yes_price_e4  UInt16 CODEC(Delta, ZSTD(1)),
    qty_e2        Int64 CODEC(T64, ZSTD(1)),
    ts            DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ingest_ts     DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    price_dollars Decimal(9, 4) ALIAS toDecimal32(yes_price_e4, 4) / 10000,
    qty           Decimal(18, 2) ALIAS toDecimal64(qty_e2, 2) / 100
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (market_ticker, ts, trade_id)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every message of the ticker channel; what the exchange leaves out of one is NULL.
CREATE TABLE IF NOT EXISTS kalshi.tickers
(
    conn_id           UInt64 CODEC(Delta, ZSTD(1)),
    market_id         UUID CODEC(ZSTD(1)),
    market_ticker     LowCardinality(String) CODEC(LZ4),
    price_e4          Nullable(UInt16) CODEC(ZSTD(1)),
    yes_bid_e4        Nullable(UInt16) CODEC(ZSTD(1)),
    yes_ask_e4        Nullable(UInt16) CODEC(ZSTD(1)),
    yes_bid_qty_e2    Nullable(Int64) CODEC(ZSTD(1)),
    yes_ask_qty_e2    Nullable(Int64) CODEC(ZSTD(1)),
    last_trade_qty_e2 Nullable(Int64) CODEC(ZSTD(1)),
    volume_e2         Nullable(Int64) CODEC(ZSTD(1)),
    open_interest_e2  Nullable(Int64) CODEC(ZSTD(1)),
    ts                DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ingest_ts         DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (market_ticker, ts)
SETTINGS non_replicated_deduplication_window = 10000;

-- Every announcement about markets and events, of all of the exchange, as it came.
CREATE TABLE IF NOT EXISTS kalshi.market_lifecycle
(
    conn_id       UInt64 CODEC(Delta, ZSTD(1)),
    sid           UInt32 CODEC(Delta, ZSTD(1)),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    market_ticker LowCardinality(String) CODEC(LZ4),
    event_type    LowCardinality(String) CODEC(LZ4),
    body          String CODEC(ZSTD(3)),
    ingest_ts     DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ingest_ts)
ORDER BY (market_ticker, ingest_ts, seq)
SETTINGS non_replicated_deduplication_window = 10000;

-- What is known of each market, a row at each change: read `markets_now`.
CREATE TABLE IF NOT EXISTS kalshi.markets
(
    market_ticker         String CODEC(ZSTD(1)),
    market_id             UUID CODEC(ZSTD(1)),
    event_ticker          LowCardinality(String),
    series_ticker         LowCardinality(String),
    title                 String CODEC(ZSTD(3)),
    price_level_structure LowCardinality(String),
    open_ts               Nullable(DateTime64(3, 'UTC')),
    close_ts              Nullable(DateTime64(3, 'UTC')),
    result                LowCardinality(String),
    version               UInt64
)
ENGINE = ReplacingMergeTree(version)
ORDER BY market_ticker
SETTINGS non_replicated_deduplication_window = 10000;
