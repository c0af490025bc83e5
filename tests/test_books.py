"""Many books at once cost what their markets' grids need."""

from __future__ import annotations

import subprocess
import sys

from kalshi_fast._book import OrderBook


def test_ten_thousand_cent_markets_fit_into_64_mib() -> None:
    program = """
from kalshi_fast import OrderBook
def resident_bytes():
    pages = int(open("/proc/self/statm").read().split()[1])
    return pages * 4096
before = resident_bytes()
books = [OrderBook() for _ in range(10_000)]
for book in books:
    book.apply_snapshot([(price * 100, 1) for price in range(1, 100)], [(100, 1)])
print(resident_bytes() - before)
"""
    grown = int(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True).stdout)
    assert 10_000 * OrderBook().nbytes < grown < 64 * 1024 * 1024
