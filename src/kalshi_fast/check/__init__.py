"""``kalshi-fast check``: whether a recording with these settings would work here, and what could be better.

Nothing is written and nothing is changed, here or anywhere else. One module for each group: ``key``,
``exchange``, ``stores``, ``disk``, ``host``, ``tuned``; ``finding`` is what they say, ``run`` asks them all,
each within a time limit. Not here: making it so.
"""
