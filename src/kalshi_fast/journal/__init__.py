"""The durable log between the capture process and the stores."""

from kalshi_fast.journal.cursor import Cursor
from kalshi_fast.journal.log import Journal
from kalshi_fast.journal.position import Point, Position
from kalshi_fast.journal.replay import NOBODY, Entry

__all__ = ["NOBODY", "Cursor", "Entry", "Journal", "Point", "Position"]
