"""A read-only HTTP front over the embedded ClickHouse engine, for the process that owns it.

The engine's directory is locked to one process; through the front others query it while it is written.
``server`` listens, ``http`` speaks ClickHouse's HTTP interface, ``incoming`` reads requests, ``engine`` runs
one statement within limits, ``statement`` says what may be asked, ``endpoint`` tells other processes where
the front listens.
"""

from kalshi_fast.front.engine import Answer, Engine, Limits, Query
from kalshi_fast.front.http import Request
from kalshi_fast.front.server import QueryFront

__all__ = ["Answer", "Engine", "Limits", "Query", "QueryFront", "Request"]
