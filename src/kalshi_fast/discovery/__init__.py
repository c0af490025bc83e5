"""Which markets to record: named one by one, or found by REST and followed while they come and go.

``selection`` says what is wanted, ``listing`` asks REST for it, ``follower`` keeps a running recording to it,
``table`` shows it. Not here: requests (``rest``), subscriptions (``fleet``, ``channels``).
"""
