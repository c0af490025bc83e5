"""Is the recording well? If not, what is wrong, in sentences.

``what`` is one of a few words that alerts can go by; docs/metrics.md lists them. Not here: the state itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from kalshi_fast.status.damage import DAMAGED_FRAMES, DAMAGED_S, DAMAGED_SHARE
from kalshi_fast.status.state import UNKNOWN_S

if TYPE_CHECKING:
    from kalshi_fast.status.state import State

SILENT_S: Final = 5.0
NEAR_BOUND: Final = 0.9  # of JOURNAL_MAX_BYTES
REASONS: Final = {
    "starting": "the recorder has not said anything yet",
    "capture": f"the capture process has said nothing for {SILENT_S:.0f} s",
    "closing": "the recording is ending; what is buffered is being delivered",
    "connection": "no connection to the exchange is up, for books or for the other channels",
    "channels": "the exchange refuses channels that are to be recorded",
    "absent": "markets that are to be recorded and that the exchange does not have",
    "scale": "it is not proven on which scale no-side prices come: books stay unknown",
    "frames": (
        f"more than {DAMAGED_SHARE:.0%} of a channel's frames, and at least {DAMAGED_FRAMES}, were rejected"
        f" or lost fields in the last {DAMAGED_S / 60:.0f} minutes"
    ),
    "books": f"books have been unknown for {UNKNOWN_S:.0f} s",
    "paused": "the buffers are full: reading from the exchange pauses",
    "writer": f"the writer process is dead or has said nothing for {SILENT_S:.0f} s",
    "store": "a store takes no rows; the journal keeps them",
    "journal": f"the journal cannot be written, or has {NEAR_BOUND:.0%} of JOURNAL_MAX_BYTES",
}


class Reason(NamedTuple):
    """Why the recording is not well: a key of REASONS, and a sentence with the figures."""

    what: str
    detail: str


def reasons(state: State) -> list[Reason]:
    """Empty: it is well."""
    with state.lock:
        now, capture, writing = state.now, state.capture, state.writing
        if capture is None:
            return [Reason("starting", REASONS["starting"])]
        found: list[Reason] = []
        silent_s = now - state.capture_at
        if capture.closing:
            found.append(Reason("closing", REASONS["closing"]))
        elif silent_s > SILENT_S:
            found.append(Reason("capture", f"the capture process has said nothing for {silent_s:.0f} s"))
        for carries in dict.fromkeys(connection.carries for connection in capture.connections):
            up = any(one.up for one in capture.connections if one.carries == carries)
            if not up and not capture.closing:
                found.append(Reason("connection", f"no connection for {carries} is up"))
        if not capture.connections and not capture.closing:
            found.append(Reason("connection", REASONS["connection"]))
        if (refused := [*capture.channels_refused, *capture.reference_refused]) and not capture.closing:
            names = ", ".join(refused)
            found.append(Reason("channels", f"{REASONS['channels']}: {names}"))
        if capture.markets_absent and not capture.closing:
            more = capture.markets_absent - len(capture.absent)
            names = ", ".join(capture.absent) + (f" and {more} more" if more > 0 else "")
            found.append(Reason("absent", f"the exchange does not have {names}"))
        if not capture.closing:
            found += [Reason("scale", doubt) for doubt in capture.scale_doubts]
        found += [Reason("frames", told) for told in state.damage.sentences(capture)]
        unknown = state.unknown_for_long()
        if unknown and not capture.closing:
            found.append(
                Reason(
                    "books",
                    f"at least {unknown} of {capture.markets_wanted} books have been unknown for"
                    f" {UNKNOWN_S:.0f} s",
                )
            )
        if capture.paused:
            found.append(Reason("paused", REASONS["paused"]))
        heard_at = state.writing_at if writing is not None else state.began_at
        if capture.writer_pid == 0:
            found.append(Reason("writer", "the writer process is dead"))
        elif writing is not None and writing.pid != capture.writer_pid:
            found.append(Reason("writer", "the writer process has been started again and is not ready yet"))
        elif now - heard_at > SILENT_S:
            found.append(Reason("writer", f"the writer process has said nothing for {now - heard_at:.0f} s"))
        if writing is not None:
            found += [Reason("store", f"{name}: {error}") for name, error in sorted(writing.errors.items())]
            if writing.journal_error:
                found.append(Reason("journal", writing.journal_error))
            elif writing.journal_bytes > NEAR_BOUND * writing.journal_max_bytes:
                found.append(
                    Reason(
                        "journal",
                        f"the journal has {writing.journal_bytes} of {writing.journal_max_bytes} bytes",
                    )
                )
        return found
