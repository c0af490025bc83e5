"""The frames that everybody gets: 500 markets, snapshots first, then deltas of about 265 bytes; always the
same, and as production sends them to us (see ``simulator.frames``): a newline at the end, microseconds in
``ts``, no-side prices on the yes scale.

Not here: who reads them.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

import numpy as np

from kalshi_fast.simulator.frames import snapshot_body, times
from kalshi_fast.simulator.source import on_yes_scale
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from collections.abc import Iterator

N_MARKETS: Final = 500
# Before anything is measured: no market still learns its grid, books and buffers are in use.
WARM_DELTAS: Final = 50_000
N_WARM: Final = N_MARKETS + WARM_DELTAS
SUBSCRIBED: Final = b'{"id":1,"type":"subscribed","msg":{"channel":"orderbook_delta","sid":1}}\n'
FIRST_TS_NS: Final = 1_795_000_000_000_000_000
_STEP_NS: Final = 1_000_000
_STEP_IN_STEP_US: Final = 617  # a prime: microseconds of every kind, of which some end with zeros


def tickers() -> list[str]:
    """The markets of the frames."""
    return list(SyntheticMarkets(N_MARKETS, seed=1).books)


def stream() -> Iterator[bytes]:
    """Snapshots of all markets, then deltas without an end; one sid, numbered from 1."""
    source = SyntheticMarkets(N_MARKETS, seed=1)
    for seq, book in enumerate(source.books.values(), 1):
        body = snapshot_body(book, yes_scale=True)
        yield b'{"type":"orderbook_snapshot","sid":1,"seq":%d,"msg":%b}\n' % (seq, body)
    seq = N_MARKETS
    while True:
        seq += 1
        change = source.step(FIRST_TS_NS + seq * _STEP_NS + seq * _STEP_IN_STEP_US % 1000 * 1000)
        change = on_yes_scale(change, source.books[change.ticker], source.form)
        yield b'{"type":"orderbook_delta","sid":1,"seq":%d,"msg":%b}\n' % (seq, change.body)


def spread(frames: list[bytes], sids: int) -> list[bytes]:
    """The same frames as a connection with so many subscriptions has them, each with its own numbers."""
    size = -(-N_MARKETS // sids)
    sid_of = {ticker.encode(): number // size + 1 for number, ticker in enumerate(tickers())}
    seqs = dict.fromkeys(sid_of.values(), 0)
    made = []
    for frame in frames:
        begin, rest = frame.index(b'"sid":1,'), frame[frame.index(b',"msg":') :]
        sid = sid_of[rest.split(b'"', 6)[5]]
        seqs[sid] += 1
        made.append(frame[:begin] + b'"sid":%d,"seq":%d' % (sid, seqs[sid]) + rest)
    return made


def made_frames(n_deltas: int) -> list[bytes]:
    """All snapshots and so many deltas."""
    frames = stream()
    return [next(frames) for _ in range(N_MARKETS + n_deltas)]


def untimed_wire(frame: bytes) -> bytes:
    """A delta on the wire up to its time: ``time_of`` is the rest, and always as long."""
    payload = frame[4:]
    head = payload[: payload.rindex(b',"ts":')]
    return on_the_wire(head + time_of(FIRST_TS_NS // 1000))[: 4 + len(head)]


def time_of(ts_us: int) -> bytes:
    """The end of a delta of this time. Always six digits of fraction: its length is known before its time."""
    told = times(ts_us // 1_000_000 * 1_000_000 + 1)  # of the same second, with all six
    second, ts_ms = told[: told.index(b".")], ts_us // 1000
    return b'%b.%06dZ","ts_ms":%d}}\n' % (second, ts_us % 1_000_000, ts_ms)


def on_the_wire(payload: bytes) -> bytes:
    """One unmasked text frame."""
    length = len(payload)
    if length < 126:
        return struct.pack(">BB", 0x81, length) + payload
    if length < 65_536:
        return struct.pack(">BBH", 0x81, 126, length) + payload
    return struct.pack(">BBQ", 0x81, 127, length) + payload


def changes(n: int) -> tuple[list[int], list[int], list[int], list[int]]:
    """(markets, sides, prices_e4, deltas_e2): additions to 500 cent markets in random order."""
    rng = np.random.default_rng(1)
    markets, sides = rng.integers(0, N_MARKETS, n), rng.integers(0, 2, n)
    prices, deltas = rng.integers(1, 100, n) * 100, rng.integers(1, 99, n)
    return markets.tolist(), sides.tolist(), prices.tolist(), deltas.tolist()
