-- What people ask of the order book. All prices in dollars, all sizes in contracts, all exact decimals.

-- Best bid and ask of every market now. The yes ask is 1 dollar minus the best no bid; a side without
-- orders is NULL. `exact` is 0 while the book is unknown (a gap without a snapshot after it).
CREATE VIEW IF NOT EXISTS kalshi.best_bid_ask AS
SELECT
    levels.market_ticker AS market_ticker,
    levels.yes_bid AS yes_bid,
    levels.yes_bid_size AS yes_bid_size,
    levels.yes_ask AS yes_ask,
    levels.yes_ask_size AS yes_ask_size,
    levels.yes_ask - levels.yes_bid AS spread,
    marks.exact AS exact,
    levels.last_update AS last_update
FROM
(
    SELECT
        market_ticker,
        maxOrNullIf(price_dollars, side = 'yes') AS yes_bid,
        argMaxOrNullIf(size, price_e4, side = 'yes') AS yes_bid_size,
        1 - maxOrNullIf(price_dollars, side = 'no') AS yes_ask,
        argMaxOrNullIf(size, price_e4, side = 'no') AS yes_ask_size,
        max(ts) AS last_update
    FROM kalshi.latest_levels
    GROUP BY market_ticker
) AS levels
LEFT JOIN
(
    SELECT market_ticker, argMax(type, (ingest_ts, seq)) = 'clear' AS exact
    FROM kalshi.orderbook_events
    WHERE type IN ('clear', 'gap')
    GROUP BY market_ticker
) AS marks USING (market_ticker);

-- The full ladder of every market now, best level first, with what rests at this price or better.
--     SELECT side, price_dollars, size, cumulative_size FROM kalshi.ladder WHERE market_ticker = 'FEDFUNDS-DEC25'
CREATE VIEW IF NOT EXISTS kalshi.ladder AS
SELECT
    market_ticker,
    side,
    price_dollars,
    size,
    sum(size) OVER (PARTITION BY market_ticker, side ORDER BY price_e4 DESC) AS cumulative_size,
    ts
FROM kalshi.latest_levels
ORDER BY market_ticker, side, price_e4 DESC;

-- Every book as it was at a moment of receive time. A market whose book was unknown then has no rows.
CREATE VIEW IF NOT EXISTS kalshi.book_at AS
SELECT
    events.market_ticker AS market_ticker,
    events.side AS side,
    toDecimal32(events.price_e4, 4) / 10000 AS price_dollars,
    toDecimal64(sum(events.qty_e2), 2) / 100 AS size
FROM kalshi.orderbook_events AS events
INNER JOIN
(
    SELECT market_ticker, argMax(type, (ingest_ts, seq)) AS mark, max((ingest_ts, seq)) AS since
    FROM kalshi.orderbook_events
    WHERE type IN ('clear', 'gap') AND ingest_ts <= parseDateTime64BestEffort({at:String}, 9, 'UTC')
    GROUP BY market_ticker
) AS marks ON events.market_ticker = marks.market_ticker
WHERE marks.mark = 'clear'
    AND events.type IN ('snapshot', 'delta')
    AND (events.ingest_ts, events.seq) >= marks.since
    AND events.ingest_ts <= parseDateTime64BestEffort({at:String}, 9, 'UTC')
GROUP BY market_ticker, side, events.price_e4
HAVING sum(events.qty_e2) != 0
ORDER BY market_ticker, side, price_dollars DESC;

-- Every stretch in which a book was unknown; `until` is NULL while it still is.
CREATE VIEW IF NOT EXISTS kalshi.gaps AS
SELECT
    market_ticker,
    since,
    if(next_mark = 'clear', next_at, NULL) AS until,
    seq AS first_missing_seq,
    conn_id
FROM
(
    SELECT
        market_ticker,
        type,
        conn_id,
        seq,
        ingest_ts AS since,
        leadInFrame(type, 1) OVER later AS next_mark,
        leadInFrame(toNullable(ingest_ts), 1) OVER later AS next_at
    FROM kalshi.orderbook_events
    WHERE type IN ('clear', 'gap')
    WINDOW later AS (PARTITION BY market_ticker ORDER BY ingest_ts, seq
                     ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
WHERE type = 'gap'
ORDER BY since, market_ticker;
