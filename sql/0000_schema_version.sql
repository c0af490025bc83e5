-- Which files of sql/ this database has had, written by kalshi-fast after the last statement of each. A database
-- that was made by hand, with `clickhouse-client --multiquery < FILE` in order, has no rows here: kalshi-fast
-- takes it over at its next start, because every statement may run again.
--
-- What a database has had, and when:
--     SELECT file, applied_by, applied_at FROM kalshi.schema_version FINAL ORDER BY number

CREATE DATABASE IF NOT EXISTS kalshi;

-- `checksum` is the SHA-256 of the file's statements without comments and spacing. Recorders that start at the
-- same time may each write the same row; FINAL shows one.
CREATE TABLE IF NOT EXISTS kalshi.schema_version
(
    number     UInt16,
    file       String,
    checksum   String,
    applied_by String,
    applied_at DateTime64(3, 'UTC')
)
ENGINE = ReplacingMergeTree
ORDER BY (number, checksum);
