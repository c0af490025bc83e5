"""The public channels beside the order book: trades, tickers, and the life of markets and events.

``messages`` are the exchange's words, ``rows`` ours; ``session`` subscribes, ``link`` takes the frames of a
connection, ``streams`` writes the rows of all connections, each thing once; ``catalogue`` knows the markets;
``backfill`` asks REST for what was missed. Not here: order books, and how rows reach the stores.
"""
