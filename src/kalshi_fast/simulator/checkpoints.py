"""The truth, written down now and then: ``checkpoints.jsonl``, for whoever wants to check a recording.

One line per checkpoint and order-book subscription: ``{"sid":S,"seq":s,"books":{ticker:{"yes":[[p,q],…],
"no":[…]}}}`` are the true books of every market the subscription carries after its frame ``s``. Written
between two changes only, so that truth and numbers agree. Sids are unique in a play only if the exchange is
told to make them so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kalshi_fast.errors import SimulatorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from kalshi_fast.simulator.frames import TrueBook
    from kalshi_fast.simulator.subscription import Subscription

FILE = "checkpoints.jsonl"


class Checkpoints:
    """Starts the file anew. Raises SimulatorError when the directory takes no file."""

    def __init__(self, directory: Path) -> None:
        self._encoder = msgspec.json.Encoder()
        try:
            self._file = (directory / FILE).open("wb")
        except OSError as error:
            raise SimulatorError(
                f"--dir: {directory} cannot be written: {error.strerror or error}"
            ) from error

    def write(self, subscriptions: Iterable[Subscription], books: Mapping[str, TrueBook]) -> None:
        for subscription in subscriptions:
            carried = sorted(subscription.tickers & books.keys())  # the others are no markets
            told = {ticker: books[ticker].as_lists() for ticker in carried}
            line = {"sid": subscription.sid, "seq": subscription.seq, "books": told}
            self._file.write(self._encoder.encode(line) + b"\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
