"""Recorded events from wherever they are, as columns in time order, and what is made of them.

``kalshi_fast.replay`` is the way in; docs/replay.md the manual. Not here: the books (``_book``), the rules by
which rows become books (``_replay``), files for other programs (``exporting``).
"""
