"""docs/reference, made from the code: ``python -m tools.reference`` writes it, a test fails when it is stale.

One module a page; each has a ``document`` that returns the page's text. Not here: pages that people write,
and the site (``tools.website``).
"""
