-- A trade is recorded without the taker's side too, where the exchange does not say it: '' (no rewrite of rows).
ALTER TABLE kalshi.trades
    MODIFY COLUMN taker_side Enum8('' = 0, 'yes' = 1, 'no' = 2);
