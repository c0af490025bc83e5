-- The order book: what happened (orderbook_events) and what is (latest_levels).
-- Applied by kalshi-fast at start; `clickhouse-client --multiquery < sql/0001_orderbook.sql` does the same.
-- Every statement may run again. Integers only: price_e4 = 1/10,000 dollar, qty_e2 = 1/100 contract.

CREATE DATABASE IF NOT EXISTS kalshi;

-- One row per event. `clear` comes before the levels of a snapshot; `gap` says: from here on this book is
-- unknown until the next clear. A reader needs no other rule. `ts` is the exchange's time (for events that
-- have none, the receive time), `ingest_ts` the time the frame was read from the socket. The order of a
-- market's events is (ingest_ts, seq).
CREATE TABLE IF NOT EXISTS kalshi.orderbook_events
(
    type          Enum8('snapshot' = 1, 'delta' = 2, 'clear' = 3, 'gap' = 4) CODEC(T64, ZSTD(1)),
    conn_id       UInt64 CODEC(Delta, ZSTD(1)),
    sid           UInt32 CODEC(Delta, ZSTD(1)),
    seq           UInt64 CODEC(Delta, ZSTD(1)),
    market_id     UUID CODEC(ZSTD(1)),
    market_ticker LowCardinality(String) CODEC(LZ4),
    side          Enum8('yes' = 1, 'no' = 2) CODEC(T64, ZSTD(1)),
    price_e4      UInt16 CODEC(Delta, ZSTD(1)),
    qty_e2        Int64 CODEC(T64, ZSTD(1)),
    ts            DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ingest_ts     DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    price         Decimal(9, 2) ALIAS toDecimal32(price_e4, 2) / 100,
    price_dollars Decimal(9, 4) ALIAS toDecimal32(price_e4, 4) / 10000,
    qty           Decimal(18, 2) ALIAS toDecimal64(qty_e2, 2) / 100
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (market_id, side, price_e4, ts, seq)
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 10000;

-- Every state a level had at the end of a batch; the largest version is the truth, size 0 means no level.
-- The key is the ticker: old frames carry no market_id, and two such markets must not become one.
CREATE TABLE IF NOT EXISTS kalshi.level_states
(
    market_id     UUID CODEC(ZSTD(1)),
    market_ticker LowCardinality(String) CODEC(LZ4),
    side          Enum8('yes' = 1, 'no' = 2) CODEC(T64, ZSTD(1)),
    price_e4      UInt16 CODEC(Delta, ZSTD(1)),
    size_e2       Int64 CODEC(T64, ZSTD(1)),
    ts            DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ingest_ts     DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    version       UInt64 CODEC(Delta, ZSTD(1))
)
ENGINE = ReplacingMergeTree(version)
ORDER BY (market_ticker, side, price_e4)
SETTINGS index_granularity = 8192, non_replicated_deduplication_window = 10000;

-- The levels as they are, whatever client asks: a plain read of a ReplacingMergeTree would also show the
-- states that are not merged away yet.
CREATE VIEW IF NOT EXISTS kalshi.latest_levels AS
SELECT
    market_id,
    market_ticker,
    side,
    price_e4,
    size_e2,
    toDecimal32(price_e4, 2) / 100 AS price,
    toDecimal32(price_e4, 4) / 10000 AS price_dollars,
    toDecimal64(size_e2, 2) / 100 AS size,
    ts,
    ingest_ts
FROM kalshi.level_states FINAL
WHERE size_e2 > 0;
