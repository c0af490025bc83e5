-- Reference prices: what crypto and other markets settle on, beside their books.

-- Every value of the channels cfbenchmarks_value (about one a second), cfbenchmarks_value_5hz and pyth_value, once.
-- Exact decimals, in dollars for what the exchange lists; what was not told is NULL. `avg_60s` is the mean of the
-- 60 s before `ts`, without the value itself; `avg_final_60s`, in the last minute before a quarter of an hour only,
-- that of the minute so far: at the full quarter that of its 60 values.
CREATE TABLE IF NOT EXISTS kalshi.reference_prices
(
    conn_id             UInt64 CODEC(Delta, ZSTD(1)),
    sid                 UInt32 CODEC(ZSTD(1)),
    seq                 UInt64 CODEC(Delta, ZSTD(1)),
    channel             LowCardinality(String),
    index_id            LowCardinality(String),
    value               Nullable(Decimal(38, 18)) CODEC(ZSTD(1)),
    avg_60s             Nullable(Decimal(38, 18)) CODEC(ZSTD(1)),
    avg_60s_ticks       Nullable(UInt32) CODEC(ZSTD(1)),
    avg_final_60s       Nullable(Decimal(38, 18)) CODEC(ZSTD(1)),
    avg_final_60s_ticks Nullable(UInt32) CODEC(ZSTD(1)),
    source_ts           Nullable(DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
    received_ts         Nullable(DateTime64(3, 'UTC')) CODEC(DoubleDelta, ZSTD(1)),
    ts                  DateTime64(6, 'UTC') CODEC(DoubleDelta, ZSTD(1)),
    ingest_ts           DateTime64(9, 'UTC') CODEC(DoubleDelta, ZSTD(1))
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(ts)
ORDER BY (index_id, channel, ts)
SETTINGS non_replicated_deduplication_window = 10000;

-- The last value of every index and underlying, with the averages that came with it.
--     SELECT index_id, channel, value, avg_60s, ts FROM kalshi.reference_now ORDER BY index_id, channel
CREATE OR REPLACE VIEW kalshi.reference_now AS
SELECT
    index_id,
    channel,
    latest.1 AS value,
    latest.2 AS avg_60s,
    latest.3 AS avg_final_60s,
    last_update AS ts
FROM
(
    SELECT
        index_id,
        channel,
        argMax((value, avg_60s, avg_final_60s), (ts, ingest_ts)) AS latest,
        max(ts) AS last_update
    FROM kalshi.reference_prices
    GROUP BY index_id, channel
);

-- An index in bars of `every_s` seconds of its source's time, from all channels that have it; what two of them say of
-- one moment is one tick. A bar without a value has no row.
--     SELECT since, open, high, low, close, ticks FROM kalshi.reference_ohlc(index = 'BRTI',
--         since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 30)
CREATE OR REPLACE VIEW kalshi.reference_ohlc AS
SELECT
    fromUnixTimestamp64Micro(intDiv(toUnixTimestamp64Micro(ts), toInt64({every_s:UInt32}) * 1000000)
        * toInt64({every_s:UInt32}) * 1000000, 'UTC') AS since,
    argMin(value, (ts, ingest_ts, seq)) AS open,
    max(value) AS high,
    min(value) AS low,
    argMax(value, (ts, ingest_ts, seq)) AS close,
    uniqExact(ts) AS ticks
FROM kalshi.reference_prices
WHERE index_id = {index:String}
    AND value IS NOT NULL
    AND ts >= parseDateTime64BestEffort({since:String}, 6, 'UTC')
    AND ts < parseDateTime64BestEffort({until:String}, 6, 'UTC')
GROUP BY since
ORDER BY since;
