"""The metrics: one table of names, kinds and meanings, from which the Prometheus text and docs/metrics.md are
made.

Counters start with the recorder (those that come from the writer, with the writer process). Markets are no
labels: there are thousands of them; `kalshi-fast top` and the page have them. Not here: where the figures
come from (``state``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from kalshi_fast.lags import LE_NS
from kalshi_fast.status.health import REASONS, reasons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from kalshi_fast.status.figures import Capture, Connection, Histogram, Writing
    from kalshi_fast.status.state import State
    from kalshi_fast.status.usage import Usage

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
Labels: TypeAlias = dict[str, str]
Value: TypeAlias = "int | float | Histogram"


@dataclass(frozen=True, slots=True)
class View:
    """What one scrape sees."""

    capture: Capture
    writing: Writing | None
    unhealthy: frozenset[str]
    processes: dict[str, Usage]


@dataclass(frozen=True, slots=True)
class Metric:
    """``read`` gives each series: its labels and its value. ``labels``: their names, for the document."""

    name: str
    kind: str  # counter, gauge or histogram
    text: str
    read: Callable[[View], Iterable[tuple[Labels, Value]]]
    labels: tuple[str, ...] = ()


def _capture(name: str, kind: str, text: str, read: Callable[[Capture], int | float]) -> Metric:
    return Metric(f"kalshi_fast_{name}", kind, text, lambda view: [({}, read(view.capture))])


def _writing(name: str, kind: str, text: str, read: Callable[[Writing], int | float]) -> Metric:
    return Metric(
        f"kalshi_fast_{name}",
        kind,
        text,
        lambda view: [] if view.writing is None else [({}, read(view.writing))],
    )


def _lag(name: str, text: str) -> Metric:
    def read(view: View) -> list[tuple[Labels, Value]]:
        found = view.writing.histograms.get(name) if view.writing is not None else None
        return [] if found is None else [({}, found)]

    return Metric(f"kalshi_fast_{name}_seconds", "histogram", text, read)


def _by_carries(capture: Capture, counts: Callable[[Connection], bool]) -> list[tuple[Labels, Value]]:
    kinds = dict.fromkeys(one.carries for one in capture.connections)
    return [
        ({"carries": kind}, sum(counts(one) for one in capture.connections if one.carries == kind))
        for kind in kinds
    ]


def _by_channel(name: str, text: str, field: str) -> Metric:
    """Every channel has its series from its first frame on, so that an alert can compare them."""

    def read(view: View) -> list[tuple[Labels, Value]]:
        found = getattr(view.capture, field)
        return [({"channel": one}, found.get(one, 0)) for one in sorted(view.capture.channel_frames)]

    return Metric(f"kalshi_fast_{name}_total", "counter", text, read, ("channel",))


METRICS: Final = (
    Metric(
        "kalshi_fast_build_info",
        "gauge",
        "1; the version is the label",
        lambda view: [({"version": view.capture.version}, 1)],
        ("version",),
    ),
    Metric(
        "kalshi_fast_healthy",
        "gauge",
        "1 when /healthz answers 200, else 0",
        lambda view: [({}, int(not view.unhealthy))],
    ),
    Metric(
        "kalshi_fast_unhealthy",
        "gauge",
        "1 for each reason why /healthz answers 503, else 0",
        lambda view: [({"reason": what}, int(what in view.unhealthy)) for what in REASONS],
        ("reason",),
    ),
    _capture(
        "start_time_seconds", "gauge", "Unix time at which the recorder started", lambda c: c.started_ns / 1e9
    ),
    # --- what comes
    _capture("frames_total", "counter", "frames read from the exchange", lambda c: c.frames),
    _capture(
        "events_total",
        "counter",
        "rows of orderbook_events written by the capture process",
        lambda c: c.events,
    ),
    _capture("snapshots_total", "counter", "snapshots applied", lambda c: c.snapshots),
    _capture("deltas_total", "counter", "deltas written", lambda c: c.deltas),
    _capture("gaps_total", "counter", "times that sequence numbers were missing", lambda c: c.gaps),
    _capture(
        "gap_events_total",
        "counter",
        "books that became unknown, for whatever reason",
        lambda c: c.gap_events,
    ),
    _capture("resyncs_total", "counter", "commands sent to ask for snapshots", lambda c: c.resyncs),
    _capture(
        "frames_repeated_total", "counter", "frames with a number that was seen before", lambda c: c.repeated
    ),
    _capture("frames_foreign_total", "counter", "frames of no subscription of ours", lambda c: c.foreign),
    Metric(
        "kalshi_fast_frames_rejected_total",
        "counter",
        "frames that could not be used, by the field that was wrong",
        lambda view: [({"reason": name}, count) for name, count in sorted(view.capture.rejected.items())],
        ("reason",),
    ),
    _by_channel(
        "channel_frames", "frames read, by channel (and replies, other, unreadable)", "channel_frames"
    ),
    _by_channel("rejected_frames", "frames that could not be used, by channel", "rejected_frames"),
    _by_channel("lossy_frames", "frames that were used without a field that they lost", "lossy_frames"),
    Metric(
        "kalshi_fast_lost_fields_total",
        "counter",
        "fields that could not be used and cost only themselves, by message type",
        lambda view: [
            ({"type": kind, "field": name}, count)
            for kind, fields in sorted(view.capture.lost_fields.items())
            for name, count in sorted(fields.items())
        ],
        ("type", "field"),
    ),
    _capture(
        "unknown_types_total", "counter", "frames of a type that is not known", lambda c: c.unknown_types
    ),
    _capture(
        "unknown_keys_total",
        "counter",
        "keys, in sampled frames, that are not known",
        lambda c: c.unknown_keys,
    ),
    # --- the channels beside the books
    _capture("trades_total", "counter", "trades recorded", lambda c: c.trades),
    _capture("trades_repeated_total", "counter", "trades that had come already", lambda c: c.trades_repeated),
    _capture(
        "trades_filled_total", "counter", "trades fetched by REST after a loss", lambda c: c.trades_filled
    ),
    _capture("tickers_total", "counter", "ticker messages recorded", lambda c: c.tickers),
    _capture("lifecycle_total", "counter", "life-cycle messages recorded", lambda c: c.lifecycle),
    _capture("reference_prices_total", "counter", "reference prices recorded", lambda c: c.reference_prices),
    _capture(
        "reference_prices_repeated_total",
        "counter",
        "reference prices that the other connection had brought already",
        lambda c: c.reference_repeated,
    ),
    _capture("raw_frames_total", "counter", "frames of other channels kept as they came", lambda c: c.raw),
    # --- connections and markets
    Metric(
        "kalshi_fast_connections",
        "gauge",
        "connections that there should be, by what they carry (books, channels)",
        lambda view: _by_carries(view.capture, lambda one: True),
        ("carries",),
    ),
    Metric(
        "kalshi_fast_connections_up",
        "gauge",
        "connections that are up",
        lambda view: _by_carries(view.capture, lambda one: one.up),
        ("carries",),
    ),
    _capture("connects_total", "counter", "connections made", lambda c: c.connects),
    _capture("reconnects_total", "counter", "connections made after a loss", lambda c: c.reconnects),
    _capture("handovers_total", "counter", "markets that a hot standby took over", lambda c: c.handovers),
    _capture(
        "blackout_max_seconds",
        "gauge",
        "the longest time without frames at a handover",
        lambda c: c.blackout_us / 1e6,
    ),
    _capture(
        "last_frame_timestamp_seconds",
        "gauge",
        "Unix time of the last frame on any connection",
        lambda c: max((one.last_frame_ns for one in c.connections), default=0) / 1e9,
    ),
    _capture("markets_wanted", "gauge", "markets that are to be recorded", lambda c: c.markets_wanted),
    _capture("markets_known", "gauge", "markets whose book is exact", lambda c: c.markets_known),
    _capture(
        "markets_unknown",
        "gauge",
        "markets whose book is not known now",
        lambda c: max(0, c.markets_wanted - c.markets_known),
    ),
    _capture(
        "markets_absent",
        "gauge",
        "markets that are wanted and that the exchange does not have",
        lambda c: c.markets_absent,
    ),
    _capture(
        "scale_contradictions_total",
        "counter",
        "books that were not stored since they are on another scale than believed",
        lambda c: c.scale_contradictions,
    ),
    _capture(
        "scale_unproven",
        "gauge",
        "connections whose books wait for a proof of their scale",
        lambda c: len(c.scale_doubts),
    ),
    _capture(
        "markets_refused", "gauge", "markets that the exchange does not know", lambda c: c.markets_refused
    ),
    Metric(
        "kalshi_fast_channels_refused",
        "gauge",
        "channels that the exchange refuses, by the setting that asks for them (CHANNELS, RAW, REFERENCE)",
        lambda view: [
            ({"setting": "CHANNELS"}, len(view.capture.channels_refused)),
            ({"setting": "RAW"}, len(view.capture.raw_refused)),
            ({"setting": "REFERENCE"}, len(view.capture.reference_refused)),
        ],
        ("setting",),
    ),
    # --- between the processes
    _capture("batches_total", "counter", "batches sealed", lambda c: c.batches),
    _capture(
        "queue_batches",
        "gauge",
        "sealed batches that the writer has not taken yet",
        lambda c: c.queue_batches,
    ),
    _capture("queue_slots", "gauge", "room for so many", lambda c: c.queue_slots),
    _capture(
        "queue_unsent_batches", "gauge", "sealed batches that found no room", lambda c: c.unsent_batches
    ),
    _capture(
        "reading_paused", "gauge", "1 while the buffers are full and reading pauses", lambda c: int(c.paused)
    ),
    _capture(
        "publish_seconds",
        "gauge",
        "what it last cost the capture process to tell all this",
        lambda c: c.publish_us / 1e6,
    ),
    _capture("writer_up", "gauge", "1 while there is a writer process", lambda c: int(c.writer_pid != 0)),
    _capture(
        "writer_restarts_total", "counter", "writer processes started again", lambda c: c.writer_restarts
    ),
    # --- journal and stores
    _writing("journal_bytes", "gauge", "size of the journal", lambda w: w.journal_bytes),
    _writing("journal_max_bytes", "gauge", "JOURNAL_MAX_BYTES", lambda w: w.journal_max_bytes),
    _writing(
        "journal_batches", "gauge", "batches that some store does not have yet", lambda w: w.journal_batches
    ),
    _writing(
        "journal_failing",
        "gauge",
        "1 while the journal cannot be written",
        lambda w: int(bool(w.journal_error)),
    ),
    Metric(
        "kalshi_fast_sink_rows_total",
        "counter",
        "rows that a store has taken",
        lambda view: (
            [({"sink": name}, rows) for name, rows in view.writing.rows.items()] if view.writing else []
        ),
        ("sink",),
    ),
    Metric(
        "kalshi_fast_sink_failing",
        "gauge",
        "1 while a store takes no rows",
        lambda view: (
            [({"sink": name}, int(name in view.writing.errors)) for name in view.writing.rows]
            if view.writing
            else []
        ),
        ("sink",),
    ),
    Metric(
        "kalshi_fast_insert_seconds",
        "histogram",
        "how long inserts take",
        lambda view: (
            [({"sink": name}, times) for name, times in view.writing.inserts.items()] if view.writing else []
        ),
        ("sink",),
    ),
    # --- how long it takes, by row
    _lag("exchange_to_wire", "from the exchange's time of a delta to reading it, as the two clocks have it"),
    _lag("wire_to_row", "from reading a frame to its rows being in the journal"),
    _lag("wire_to_queryable", "from reading a frame to its rows being in ClickHouse"),
    # --- processes
    Metric(
        "kalshi_fast_process_resident_bytes",
        "gauge",
        "memory of each process",
        lambda view: [({"process": name}, one.resident_bytes) for name, one in view.processes.items()],
        ("process",),
    ),
    Metric(
        "kalshi_fast_process_cpu_seconds_total",
        "counter",
        "processor time of each process",
        lambda view: [({"process": name}, one.cpu_s) for name, one in view.processes.items()],
        ("process",),
    ),
)


def exposition(state: State) -> str:
    """All metrics in Prometheus' text format; only ``kalshi_fast_healthy`` before the recorder has spoken."""
    unhealthy = frozenset(reason.what for reason in reasons(state))
    with state.lock:
        capture, writing = state.capture, state.writing
        processes = state.processes()
    if capture is None:
        return f"# TYPE kalshi_fast_healthy gauge\nkalshi_fast_healthy {int(not unhealthy)}\n"
    view = View(capture, writing, unhealthy, processes)
    return "".join(line + "\n" for metric in METRICS for line in _lines(metric, view))


def _lines(metric: Metric, view: View) -> Iterable[str]:
    yield f"# HELP {metric.name} {metric.text}"
    yield f"# TYPE {metric.name} {metric.kind}"
    for labels, value in metric.read(view):
        if isinstance(value, int | float):
            yield f"{metric.name}{_shown(labels)} {_number(value)}"
            continue
        for le_ns, count in zip(LE_NS, value.cumulative, strict=True):
            yield f"{metric.name}_bucket{_shown(labels | {'le': _number(le_ns / 1e9)})} {count}"
        yield f"{metric.name}_bucket{_shown(labels | {'le': '+Inf'})} {value.count}"
        yield f"{metric.name}_sum{_shown(labels)} {_number(value.total_ns / 1e9)}"
        yield f"{metric.name}_count{_shown(labels)} {value.count}"


def _shown(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(value)
