"""A simulator of the exchange: a real WebSocket server that speaks the protocol and knows the true books.

For demos and tests; it is also where a recording is played as live frames. It shares the wire structs with
the recorder and nothing else: its books are its own.
"""
