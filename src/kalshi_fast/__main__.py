"""``python -m kalshi_fast`` is the command ``kalshi-fast``."""

import sys

from kalshi_fast.cli import process

sys.exit(process())
