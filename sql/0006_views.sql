-- What people ask of the order book, now and over time. All prices in dollars, all sizes in contracts, all exact
-- decimals; times are receive times, UTC. A book that was unknown has NULL for an answer, never an old value.
-- Takes the place of 0002: a market whose book is known to be empty has its row in best_bid_ask, and gaps in a
-- row are one stretch.
--
-- Order: (ingest_ts, seq), and where both are equal clear, levels, gap. Clear and gap rows always have side
-- 'yes' and price 0: saying so lets ClickHouse find them by the order key.

-- Best bid and ask of every market now. The yes ask is 1 dollar minus the best no bid; a side without orders is
-- NULL. `exact` is 0 while the book is unknown: then the row is what was known last.
--     SELECT market_ticker, yes_bid, yes_bid_size, yes_ask, yes_ask_size FROM kalshi.best_bid_ask
--     WHERE exact ORDER BY market_ticker
CREATE OR REPLACE VIEW kalshi.best_bid_ask AS
SELECT
    market_ticker,
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
        maxOrNull(ts) AS last_update
    FROM kalshi.latest_levels
    GROUP BY market_ticker
) AS levels
FULL OUTER JOIN
(
    SELECT market_ticker, argMax(type, (ingest_ts, seq, type)) = 'clear' AS exact
    FROM kalshi.orderbook_events
    WHERE type IN ('clear', 'gap') AND side = 'yes' AND price_e4 = 0
    GROUP BY market_ticker
) AS marks USING (market_ticker);

-- Every book as it was at a moment, best level first. A market whose book was unknown then has no rows.
--     SELECT side, price_dollars, size FROM kalshi.book_at(at = '2026-01-31 12:00:10')
--     WHERE market_ticker = 'FEDFUNDS-DEC25'
-- Cost: one pass over the events of the markets asked for; 1 s for 10 million.
CREATE OR REPLACE VIEW kalshi.book_at AS
SELECT
    events.market_ticker AS market_ticker,
    events.side AS side,
    toDecimal32(events.price_e4, 4) / 10000 AS price_dollars,
    toDecimal64(sum(events.qty_e2), 2) / 100 AS size
FROM
(
    SELECT market_ticker, side, price_e4, qty_e2, ingest_ts, seq
    FROM kalshi.orderbook_events
    WHERE type IN ('snapshot', 'delta') AND ingest_ts <= parseDateTime64BestEffort({at:String}, 9, 'UTC')
) AS events
INNER JOIN
(
    SELECT
        market_ticker,
        argMax(type, (ingest_ts, seq, type)) AS mark,
        max((ingest_ts, seq)) AS since
    FROM kalshi.orderbook_events
    WHERE type IN ('clear', 'gap') AND side = 'yes' AND price_e4 = 0
        AND ingest_ts <= parseDateTime64BestEffort({at:String}, 9, 'UTC')
    GROUP BY market_ticker
) AS marks ON events.market_ticker = marks.market_ticker
WHERE marks.mark = 'clear' AND (events.ingest_ts, events.seq) >= marks.since
GROUP BY market_ticker, side, events.price_e4
HAVING sum(events.qty_e2) != 0
ORDER BY market_ticker, side, price_dollars DESC;

-- Every stretch in which a book that had been recorded was unknown; `until` is NULL while it still is.
--     SELECT market_ticker, since, until, first_missing_seq FROM kalshi.gaps ORDER BY since, market_ticker
CREATE OR REPLACE VIEW kalshi.gaps AS
SELECT
    market_ticker,
    since,
    if(next_mark = 'clear', next_at, NULL) AS until,
    first_missing_seq,
    conn_id
FROM
(
    SELECT
        market_ticker,
        type,
        conn_id,
        seq AS first_missing_seq,
        ingest_ts AS since,
        leadInFrame(type, 1) OVER following AS next_mark,
        leadInFrame(toNullable(ingest_ts), 1) OVER following AS next_at
    FROM
    (
        SELECT
            market_ticker,
            type,
            conn_id,
            seq,
            ingest_ts,
            lagInFrame(toString(type), 1) OVER
            (
                PARTITION BY market_ticker ORDER BY ingest_ts, seq, type
                ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) AS previous_mark
        FROM kalshi.orderbook_events
        WHERE type IN ('clear', 'gap') AND side = 'yes' AND price_e4 = 0
    )
    WHERE toString(type) != previous_mark
    WINDOW following AS (PARTITION BY market_ticker ORDER BY ingest_ts, first_missing_seq, type
                         ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
WHERE type = 'gap'
ORDER BY since, market_ticker;

-- How much of a stretch of time each book was known for; the time before a market's first snapshot counts as
-- unknown. The share is rounded down: 1 means all of it.
--     SELECT market_ticker, known_share, gaps
--     FROM kalshi.known_time(since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00') ORDER BY market_ticker
CREATE OR REPLACE VIEW kalshi.known_time AS
WITH
    toUnixTimestamp64Nano(parseDateTime64BestEffort({since:String}, 9, 'UTC')) AS since_ns,
    toUnixTimestamp64Nano(parseDateTime64BestEffort({until:String}, 9, 'UTC')) AS until_ns
SELECT
    market_ticker,
    sumIf(greatest(next_ns, since_ns) - greatest(at_ns, since_ns), type = 'clear') AS known_ns,
    until_ns - since_ns - known_ns AS unknown_ns,
    toDecimal64(intDiv(toInt128(known_ns) * 1000000, until_ns - since_ns), 6) / 1000000 AS known_share,
    countIf(type = 'gap' AND previous_mark = 'clear' AND at_ns >= since_ns) AS gaps
FROM
(
    SELECT
        market_ticker,
        type,
        toUnixTimestamp64Nano(ingest_ts) AS at_ns,
        leadInFrame(toUnixTimestamp64Nano(ingest_ts), 1, until_ns) OVER marks AS next_ns,
        lagInFrame(toString(type), 1) OVER marks AS previous_mark
    FROM kalshi.orderbook_events
    WHERE type IN ('clear', 'gap') AND side = 'yes' AND price_e4 = 0
        AND ingest_ts < parseDateTime64BestEffort({until:String}, 9, 'UTC')
    WINDOW marks AS (PARTITION BY market_ticker ORDER BY ingest_ts, seq, type
                     ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)
)
GROUP BY market_ticker
ORDER BY market_ticker;

-- What the views below are computed from: one market's events in [since, until), and before them the book as
-- it stood, as one frame at the time of its last clear or gap. `kind`: 0 clear, 1 level, 2 gap. `epoch` counts
-- clears and gaps: within an epoch the book is known throughout or unknown throughout.
CREATE OR REPLACE VIEW kalshi.market_rows AS
WITH
    parseDateTime64BestEffort({since:String}, 9, 'UTC') AS since_at,
    parseDateTime64BestEffort({until:String}, 9, 'UTC') AS until_at,
    (
        SELECT max((toUnixTimestamp64Nano(ingest_ts), seq, type = 'gap'))
        FROM kalshi.orderbook_events
        WHERE market_ticker = {market:String} AND type IN ('clear', 'gap') AND side = 'yes' AND price_e4 = 0
            AND ingest_ts < parseDateTime64BestEffort({since:String}, 9, 'UTC')
    ) AS base,
    assumeNotNull(base.1) AS base_ns,
    assumeNotNull(base.2) AS base_seq,
    base_ns != 0 AND assumeNotNull(base.3) = 0 AS base_known
SELECT
    at_ns,
    seq,
    kind,
    side,
    price_e4,
    qty_e2,
    sum(kind != 1) OVER (ORDER BY at_ns, seq, kind ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS epoch
FROM
(
    SELECT
        base_ns AS at_ns,
        base_seq AS seq,
        toUInt8(if(base_known, 0, 2)) AS kind,
        CAST('yes', 'Enum8(\'yes\' = 1, \'no\' = 2)') AS side,
        toUInt16(0) AS price_e4,
        toInt64(0) AS qty_e2
    UNION ALL
    SELECT base_ns AS at_ns, base_seq AS seq, toUInt8(1) AS kind, side, price_e4, sum(events.qty_e2) AS qty_e2
    FROM kalshi.orderbook_events AS events
    WHERE market_ticker = {market:String} AND type IN ('snapshot', 'delta')
        AND base_known
        AND (toUnixTimestamp64Nano(ingest_ts), events.seq) >= (base_ns, base_seq) AND ingest_ts < since_at
    GROUP BY side, price_e4
    UNION ALL
    SELECT
        toUnixTimestamp64Nano(ingest_ts) AS at_ns,
        seq,
        toUInt8(multiIf(type = 'clear', 0, type = 'gap', 2, 1)) AS kind,
        side,
        price_e4,
        qty_e2
    FROM kalshi.orderbook_events
    WHERE market_ticker = {market:String} AND ingest_ts >= since_at AND ingest_ts < until_at
);

-- Every best bid and ask that a market had, from when until when, in the order of `n`. `exact` 0: unknown.
-- Several frames may have come with one read from the socket: all but the last of them have `since` = `until`.
--     SELECT since, until, exact, yes_bid, yes_ask, mid, spread
--     FROM kalshi.best_over_time(market = 'FEDFUNDS-DEC25', since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00')
--     ORDER BY n
-- How: running sizes of each level by a window function; only where one begins or ends can the best price
-- change, and there a running sumMap holds the prices that have orders. Cost: the book before `since` is one pass
-- over the market's events since its last clear; then 2 s for a million events in the stretch.
CREATE OR REPLACE VIEW kalshi.best_over_time AS
WITH
    toUnixTimestamp64Nano(parseDateTime64BestEffort({since:String}, 9, 'UTC')) AS since_ns,
    toUnixTimestamp64Nano(parseDateTime64BestEffort({until:String}, 9, 'UTC')) AS until_ns
SELECT
    n,
    fromUnixTimestamp64Nano(greatest(at_ns, since_ns), 'UTC') AS since,
    fromUnixTimestamp64Nano(next_ns, 'UTC') AS until,
    state.1 AS exact,
    toDecimal32(state.2, 4) / 10000 AS yes_bid,
    toDecimal32(10000 - state.3, 4) / 10000 AS yes_ask,
    toDecimal64((state.2 + 10000 - state.3) * 5, 5) / 100000 AS mid,
    yes_ask - yes_bid AS spread
FROM
(
    SELECT
        at_ns,
        state,
        row_number() OVER (ORDER BY epoch, at_ns, seq) AS n,
        leadInFrame(at_ns, 1, until_ns) OVER
        (
            ORDER BY epoch, at_ns, seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS next_ns
    FROM
    (
        SELECT
            epoch,
            at_ns,
            seq,
            state,
            lagInFrame(toNullable(toString(state)), 1) OVER
            (
                ORDER BY epoch, at_ns, seq ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
            ) AS before
        FROM
        (
            SELECT
                epoch,
                at_ns,
                seq,
                max(clear) OVER book AS exact,
                (sumMap(yes_prices, yes_changes) OVER book).1 AS yes,
                (sumMap(no_prices, no_changes) OVER book).1 AS no,
                (
                    exact,
                    if(exact AND notEmpty(yes), toInt32(arrayMax(yes)), NULL),
                    if(exact AND notEmpty(no), toInt32(arrayMax(no)), NULL)
                ) AS state
            FROM
            (
                SELECT
                    epoch,
                    at_ns,
                    seq,
                    max(kind = 0) AS clear,
                    groupArrayIf(price_e4, side = 'yes' AND change != 0) AS yes_prices,
                    groupArrayIf(change, side = 'yes' AND change != 0) AS yes_changes,
                    groupArrayIf(price_e4, side = 'no' AND change != 0) AS no_prices,
                    groupArrayIf(change, side = 'no' AND change != 0) AS no_changes
                FROM
                (
                    SELECT
                        epoch,
                        at_ns,
                        seq,
                        kind,
                        side,
                        price_e4,
                        sum(qty_e2) OVER
                        (
                            PARTITION BY epoch, side, price_e4 ORDER BY at_ns, seq, kind
                            ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
                        ) AS size_e2,
                        toInt16(size_e2 > 0) - toInt16(size_e2 - qty_e2 > 0) AS change
                    FROM kalshi.market_rows(market = {market:String}, since = {since:String}, until = {until:String})
                )
                WHERE change != 0 OR kind != 1
                GROUP BY epoch, at_ns, seq
            )
            WINDOW book AS (PARTITION BY epoch ORDER BY at_ns, seq ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )
    )
    WHERE before IS NULL OR before != toString(state)
)
WHERE at_ns < until_ns AND (next_ns > since_ns OR at_ns >= since_ns);

-- Open, high, low and close of mid and spread, a bar each `every_s` seconds from `since` on. The book as it
-- stands when a bar begins opens it. NULL: in no moment of the bar both sides were known to have orders.
-- `known_share` is the share of the bar's time in which the book was known, `quoted_share` that in which it had
-- both sides; both are rounded down, 1 means all of it. Cost: that of best_over_time.
--     SELECT since, open, high, low, close, spread_low, spread_high, known_share
--     FROM kalshi.mid_ohlc(market = 'FEDFUNDS-DEC25', since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 10)
CREATE OR REPLACE VIEW kalshi.mid_ohlc AS
WITH
    toUnixTimestamp64Nano(parseDateTime64BestEffort({since:String}, 9, 'UTC')) AS start_ns,
    toUnixTimestamp64Nano(parseDateTime64BestEffort({until:String}, 9, 'UTC')) AS end_ns,
    toInt64({every_s:UInt32}) * 1000000000 AS step_ns
SELECT
    fromUnixTimestamp64Nano(start_ns + bar * step_ns, 'UTC') AS since,
    fromUnixTimestamp64Nano(least(start_ns + (bar + 1) * step_ns, end_ns), 'UTC') AS until,
    argMinIf(mid, (from_ns, n), mid IS NOT NULL) AS open,
    max(mid) AS high,
    min(mid) AS low,
    argMaxIf(mid, (from_ns, n), mid IS NOT NULL) AS close,
    argMinIf(spread, (from_ns, n), spread IS NOT NULL) AS spread_open,
    max(spread) AS spread_high,
    min(spread) AS spread_low,
    argMaxIf(spread, (from_ns, n), spread IS NOT NULL) AS spread_close,
    toDecimal64(intDiv(sumIf(toInt128(to_ns - from_ns), exact) * 1000000, bar_ns), 6) / 1000000 AS known_share,
    toDecimal64(intDiv(sumIf(toInt128(to_ns - from_ns), mid IS NOT NULL) * 1000000, bar_ns), 6) / 1000000 AS quoted_share
FROM
(
    SELECT
        n,
        bar,
        exact,
        mid,
        spread,
        least(start_ns + (bar + 1) * step_ns, end_ns) - (start_ns + bar * step_ns) AS bar_ns,
        greatest(state_ns, start_ns + bar * step_ns) AS from_ns,
        least(next_ns, start_ns + (bar + 1) * step_ns) AS to_ns
    FROM
    (
        SELECT
            n,
            exact,
            mid,
            spread,
            toUnixTimestamp64Nano(states.since) AS state_ns,
            toUnixTimestamp64Nano(states.until) AS next_ns,
            intDiv(state_ns - start_ns, step_ns) AS first_bar,
            intDiv(greatest(next_ns - 1, state_ns) - start_ns, step_ns) AS last_bar
        FROM kalshi.best_over_time(market = {market:String}, since = {since:String}, until = {until:String}) AS states
    )
    ARRAY JOIN range(first_bar, last_bar + 1) AS bar
)
GROUP BY bar, bar_ns
ORDER BY bar;

-- What rested in the book at regular instants, `every_s` seconds apart from `since` on: all of it, and what was
-- no further than `within_e4` (1/10,000 dollar; 100 is a cent) from the best price of its side. The no side is
-- what is offered to buyers of yes. NULL: the book was unknown then. Cost: about that of best_over_time.
--     SELECT at, yes_size, no_size, yes_size_within, no_size_within
--     FROM kalshi.depth_over_time(market = 'FEDFUNDS-DEC25', since = '2026-01-31 12:00:00', until = '2026-01-31 12:01:00', every_s = 10, within_e4 = 100)
CREATE OR REPLACE VIEW kalshi.depth_over_time AS
WITH
    toUnixTimestamp64Nano(parseDateTime64BestEffort({since:String}, 9, 'UTC')) AS start_ns,
    toUnixTimestamp64Nano(parseDateTime64BestEffort({until:String}, 9, 'UTC')) AS end_ns,
    toInt64({every_s:UInt32}) * 1000000000 AS step_ns,
    intDiv(end_ns - start_ns + step_ns - 1, step_ns) AS instants,
    toInt32({within_e4:UInt16}) AS within
SELECT
    fromUnixTimestamp64Nano(start_ns + instant * step_ns, 'UTC') AS at,
    known AS exact,
    if(known, toDecimal64(arraySum(yes.2), 2) / 100, NULL) AS yes_size,
    if(known, toDecimal64(arraySum(no.2), 2) / 100, NULL) AS no_size,
    if(known, toDecimal64(arraySum((price, size) -> if(price + within >= arrayMax(yes.1), size, 0), yes.1, yes.2), 2) / 100, NULL) AS yes_size_within,
    if(known, toDecimal64(arraySum((price, size) -> if(price + within >= arrayMax(no.1), size, 0), no.1, no.2), 2) / 100, NULL) AS no_size_within,
    if(known, length(yes.1), NULL) AS yes_levels,
    if(known, length(no.1), NULL) AS no_levels
FROM
(
    SELECT
        slot,
        book.1 AS known,
        book.2 AS yes,
        book.3 AS no,
        leadInFrame(slot, 1, instants) OVER
        (
            ORDER BY slot ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING
        ) AS next_slot
    FROM
    (
        SELECT slot, argMax((known, yes, no), epoch) AS book
        FROM
        (
            SELECT
                epoch,
                slot,
                max(clear) OVER running AS known,
                sumMap(yes_change.1, yes_change.2) OVER running AS yes,
                sumMap(no_change.1, no_change.2) OVER running AS no
            FROM
            (
                SELECT
                    epoch,
                    if(at_ns <= start_ns, 0, intDiv(at_ns - start_ns + step_ns - 1, step_ns)) AS slot,
                    max(kind = 0) AS clear,
                    sumMapIf([price_e4], [qty_e2], kind = 1 AND side = 'yes') AS yes_change,
                    sumMapIf([price_e4], [qty_e2], kind = 1 AND side = 'no') AS no_change
                FROM kalshi.market_rows(market = {market:String}, since = {since:String}, until = {until:String})
                GROUP BY epoch, slot
            )
            WINDOW running AS (PARTITION BY epoch ORDER BY slot ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW)
        )
        GROUP BY slot
    )
)
ARRAY JOIN range(slot, next_slot) AS instant
WHERE slot < instants
ORDER BY at;

-- How each connection fared. The lag is the receive time minus the exchange's time of a change, which both
-- clocks are in: below 0 means that ours is behind. Percentiles are exact to a thousandth of the rank. Cost:
-- a pass over all changes; add WHERE conn_id = … for one connection.
--     SELECT conn_id, connects, disconnects, gaps, rejects, handovers, lag_p50_us, lag_p99_us FROM kalshi.health
--     ORDER BY conn_id
CREATE OR REPLACE VIEW kalshi.health AS
SELECT
    conn_id,
    happened.first_at AS first_at,
    happened.last_at AS last_at,
    happened.connects AS connects,
    happened.disconnects AS disconnects,
    happened.gaps AS gaps,
    happened.resyncs AS resyncs,
    happened.rejects AS rejects,
    happened.handovers AS handovers,
    lags.changes AS changes,
    lags.percentiles[1] AS lag_p50_us,
    lags.percentiles[2] AS lag_p99_us,
    lags.max_us AS lag_max_us
FROM
(
    SELECT
        conn_id,
        min(ts) AS first_at,
        max(ts) AS last_at,
        countIf(event = 'connect') AS connects,
        countIf(event = 'disconnect') AS disconnects,
        countIf(event = 'gap') AS gaps,
        countIf(event = 'resync') AS resyncs,
        countIf(event = 'reject') AS rejects,
        countIf(event = 'handover') AS handovers
    FROM kalshi.feed_health
    GROUP BY conn_id
) AS happened
LEFT JOIN
(
    SELECT
        conn_id,
        count() AS changes,
        arrayMap(us -> toNullable(us), quantilesGKIf(1000, 0.5, 0.99)(lag_us, timed)) AS percentiles,
        maxOrNullIf(lag_us, timed) AS max_us
    FROM
    (
        SELECT
            conn_id,
            intDiv(toUnixTimestamp64Nano(ingest_ts), 1000) - toUnixTimestamp64Micro(ts) AS lag_us,
            lag_us != 0 AS timed
        FROM kalshi.orderbook_events
        WHERE type = 'delta'
    )
    GROUP BY conn_id
) AS lags USING (conn_id);
