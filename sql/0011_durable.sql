-- Stored means durable: an insert is on the disk when it is answered, a merge before its sources are removed, and the
-- directories with them. The sources stay for a minute, in which what was merged is read once. And no table refuses to be opened because a machine that died has left many torn parts: they
-- are set aside (system.detached_parts), which `kalshi-fast verify` finds.

ALTER TABLE kalshi.orderbook_events MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.level_states MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.feed_health MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.trades MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.tickers MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.market_lifecycle MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.markets MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.reference_prices MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

ALTER TABLE kalshi.schema_version MODIFY SETTING
    fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1,
    min_compressed_bytes_to_fsync_after_merge = 1, old_parts_lifetime = 60, max_suspicious_broken_parts = 100000,
    max_suspicious_broken_parts_bytes = 1000000000000;

-- What a table holds of a short time of receiving is asked after every insert of unknown outcome: parts that cannot
-- hold it are passed over.
ALTER TABLE kalshi.orderbook_events ADD INDEX IF NOT EXISTS by_time ingest_ts TYPE minmax GRANULARITY 1;
ALTER TABLE kalshi.trades ADD INDEX IF NOT EXISTS by_time ingest_ts TYPE minmax GRANULARITY 1;
ALTER TABLE kalshi.tickers ADD INDEX IF NOT EXISTS by_time ingest_ts TYPE minmax GRANULARITY 1;
ALTER TABLE kalshi.market_lifecycle ADD INDEX IF NOT EXISTS by_time ingest_ts TYPE minmax GRANULARITY 1;
ALTER TABLE kalshi.reference_prices ADD INDEX IF NOT EXISTS by_time ingest_ts TYPE minmax GRANULARITY 1;
