"""The results as a terminal shows them, and as Markdown. Not here: what they are (``results``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.bench import inprocess, sockets
from kalshi_fast.bench.latency import VARIANTS
from kalshi_fast.bench.results import NOT_ASKED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.bench.results import Results

TITLES: Final = {
    inprocess.PIPELINE: "in process, the whole pipeline",
    "decode": "in process, decoding alone",
    "book": "in process, the book alone",
    "columns": "in process, the columns alone",
    "ws": "from a socket, ws://",
    "wss": "from a socket, wss://",
}
PROMISED: Final = (
    ("pipeline_ns_per_frame", "ns per delta frame: decode, sequence, book, columns"),
    ("ratio_seed_pipeline", "times faster than the usual Python recorder rebuilt"),
    ("ratio_msgspec_decode", "times faster than msgspec's decode alone"),
    ("ratio_ws_noop", "of the frames/s of picows that only counts, ws://"),
    ("ratio_wss_noop", "of the same over wss://"),
    ("ratio_websockets", "times the frames/s of `websockets` doing nothing"),
    ("latency_p50_us", "us from wire to column at 50,000 frames/s, half of all rows ({latency_of})"),
    ("latency_p999_us", "us, 99.9 % of them"),
    ("instructions_per_frame", "instructions per delta frame (callgrind)"),
)
_PERCENTILES: Final = ("p50", "p90", "p99", "p999", "max")


def text(results: Results) -> str:
    """Everything, for a terminal."""
    lines: list[str] = []
    for group, rows in _groups(results):
        of_sockets = group in ("ws", "wss")
        heads = ("ns/frame", "least-most", "", "cpu ns", "sender cpu" if of_sockets else "")
        lines += ["", _columns(TITLES[group], heads)]
        for name, figure, ratio, why_not in rows:
            if figure is None:
                lines.append(f"  {name:<62}{'-':>10}  {why_not}")
                continue
            cpu, sender = results.cpu(name), results.cpu(name, "sender_cpu_ns")
            more = [_ns(of.median) if of is not None and of.median else "" for of in (cpu, sender)]
            spread = f"{_ns(figure.low)}-{_ns(figure.high)}"
            lines.append(_columns(f"  {name}", (_ns(figure.median), spread, ratio, *more)))
    if results.latency:
        names = "".join(f"{name:>10}" for name in _PERCENTILES)
        lines += ["", f"{'wire to column at a steady rate, us from the due instant':<64}{names}"]
        for name, figures in results.latency.items():
            for what, found in (
                (name, figures),
                ("  from the instant of sending", figures["from_sent"]),
                ("  how late the sender was", figures["sender_late"]),
            ):
                values = "".join(f"{found[f'{key}_us']:>10,.1f}" for key in _PERCENTILES)
                lines.append(f"  {what:<62}{values}")
            if figures["rounds"] > 1:
                least = "".join(f"{figures['spreads'][f'{key}_us'][0]:>10,.1f}" for key in _PERCENTILES)
                most = "".join(f"{figures['spreads'][f'{key}_us'][1]:>10,.1f}" for key in _PERCENTILES)
                lines += [f"  {'  the least of its rounds':<62}{least}", f"  {'  the most':<62}{most}"]
        for variant in VARIANTS:
            if variant.name in results.reasons:
                lines.append(f"  {variant.name:<62}{'-':>10}  {results.reasons[variant.name]}")
    if results.burst is not None:
        burst = results.burst
        lines += [
            "",
            f"a burst of {burst['frames']:,} frames into `kalshi-fast run`: taken in {burst['sent_s']:.2f} s"
            f" ({burst['frames_per_s']:,} frames/s), all {burst['events']:,} rows queryable after"
            f" {burst['drained_s']:.2f} s and in Parquet",
            f"  the capture process had at most {burst['capture_rss_max_mib']} MiB resident,"
            f" {burst['capture_shared_mib']} of them shared with the writer",
        ]
    made = results.as_json()
    lines += ["", *(_promise(made, key, what) for key, what in PROMISED if _was_asked(made, key))]
    return "\n".join(lines)


def _was_asked(made: dict[str, Any], key: str) -> bool:
    return made[key] is not None or made["reasons"][key] != NOT_ASKED


def _columns(name: str, columns: tuple[str, ...]) -> str:
    widths = (10, 18, 10, 10, 12)
    return (
        f"{name:<64}"
        + "".join(f"{text:>{width}}" for text, width in zip(columns, widths, strict=True)).rstrip()
    )


def _promise(made: dict[str, Any], key: str, what: str) -> str:
    value = made[key]
    if value is None:
        return f"{'-':>12}  {what}: {made['reasons'][key]}"
    spread = made["spreads"].get(key)
    return f"{value:>12,.2f}  {what.format_map(made)}" + (
        f" ({spread[0]:,.2f}-{spread[1]:,.2f})" if spread else ""
    )


def markdown(results: Results) -> str:
    """The table of the README: the in-process pipeline and both sockets."""
    lines = ["| ns per frame | median | least-most | of ours |", "|---|---:|---:|---:|"]
    for group, rows in _groups(results):
        if group in ("book", "columns"):
            continue
        lines.append(f"| **{TITLES[group]}** | | | |")
        for name, figure, ratio, _ in rows:
            if figure is None:
                continue
            short = name.partition("// ")[2] or name
            shown = f"**{short}**" if short in (inprocess.OURS, sockets.OURS) else short
            lines.append(
                f"| {shown} | {_ns(figure.median)} | {_ns(figure.low)}-{_ns(figure.high)} | {ratio.strip()} |"
            )
    if results.latency:
        lines += ["", "| us from wire to column, 50,000 frames/s | p50 | p90 | p99 | p99.9 | max |"]
        lines += ["|---|---:|---:|---:|---:|---:|"]
        for name, figures in results.latency.items():
            values = " | ".join(_of_rounds(figures, f"{key}_us") for key in _PERCENTILES)
            lines.append(f"| {name} | {values} |")
    return "\n".join(lines)


def _of_rounds(figures: dict[str, Any], key: str) -> str:
    least, most = (f"{_us(value)}" for value in figures["spreads"][key])
    return f"{_us(figures[key])} ({least}-{most})" if figures["rounds"] > 1 else _us(figures[key])


def _us(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


def _groups(results: Results) -> Iterator[tuple[str, list[tuple[str, Any, str, str]]]]:
    """By group: (name, figure, ratio to ours or to the first, why there is none)."""
    for group in TITLES:
        of_group = [contender for contender in results.contenders if contender.group == group]
        if not of_group:
            continue
        ours = {
            inprocess.PIPELINE: inprocess.OURS,
            "decode": inprocess.OURS,
            "ws": sockets.named("ws", sockets.OURS),
            "wss": sockets.named("wss", sockets.OURS),
        }.get(group, of_group[0].name)
        rows = []
        for contender in of_group:
            figure, base = results.figure(contender.name), results.ratio(contender.name, ours)
            ratio = f"x{base.median:.2f}" if base is not None else ""
            rows.append((contender.name, figure, ratio, contender.why_not))
        yield group, rows


def _ns(value: float) -> str:
    return f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"
