"""A simulator of the exchange: a real WebSocket server that speaks the protocol and knows the true books.

For demos, tests and experiments: it plays invented markets or recordings, and misbehaves in every way the
exchange can, by a script or from a seed. It shares the wire structs with the recorder and nothing else: its
books are its own. ``exchange`` is the server, ``client`` one connection of it, ``faults`` the scripts,
``launch`` the way in from a command line.
"""
