"""The picture: horizontal bars on a logarithmic scale, ns per frame, ours among the others, in process and
over a socket. Needs matplotlib. Not here: what is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.bench import inprocess
from kalshi_fast.bench.peers import INSTALL
from kalshi_fast.bench.tables import TITLES
from kalshi_fast.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.bench.results import Results

_SHOWN: Final = (inprocess.PIPELINE, "decode", "ws", "wss")
_OURS: Final = "#c8102e"
_OTHERS: Final = "#8a97a6"
_INK: Final = "#57606a"  # readable on white and on black


def require(file: Path) -> None:
    """Raises ConfigError when the picture could not be drawn or written: before anything is measured."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise ConfigError(f"--plot needs matplotlib: {INSTALL}") from None
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    except OSError as error:
        raise ConfigError(f"--plot: {file} cannot be written: {error.strerror or error}") from error


def draw(results: Results, file: Path) -> None:
    """Writes the SVG; the same results make the same file."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    labels: list[str] = []
    values: list[float] = []
    errors: list[tuple[float, float]] = []
    colours: list[str] = []
    places: list[float] = []
    heads: list[tuple[float, str]] = []
    at = 0.0
    for group in _SHOWN:
        rows = [
            (contender.name, figure)
            for contender in results.contenders
            if contender.group == group
            and contender.name not in (inprocess.OURS_SIDS, inprocess.OURS_NO_ROWS)
            and (figure := results.figure(contender.name)) is not None
        ]
        if not rows:
            continue
        heads.append((at, TITLES[group]))
        at += 1
        for name, figure in sorted(rows, key=lambda row: row[1].median):
            short = name.partition("// ")[2] or name
            labels.append(short)
            values.append(figure.median)
            errors.append((figure.median - figure.low, figure.high - figure.median))
            colours.append(_OURS if short.startswith("kalshi-fast") else _OTHERS)
            places.append(at)
            at += 1
        at += 0.4
    style: dict[Any, Any] = {
        "svg.hashsalt": "kalshi-fast",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
    }
    with mpl.rc_context(style):
        picture = Figure(figsize=(9, 0.27 * at + 0.9))
        axes = picture.add_subplot()
        axes.barh(places, values, color=colours, height=0.72)
        axes.errorbar(
            values,
            places,
            xerr=list(zip(*errors, strict=True)) if errors else None,
            fmt="none",
            ecolor=_INK,
            elinewidth=0.8,
        )
        axes.set_xscale("log")
        axes.invert_yaxis()
        axes.set_yticks(places, labels, color=_INK)
        for place, value, (_, above) in zip(places, values, errors, strict=True):
            shown = f" {value:,.0f}" if value >= 10 else f" {value:.1f}"
            axes.text((value + above) * 1.03, place, shown, va="center", color=_INK)
        for place, title in heads:
            axes.text(
                0, place, title, transform=axes.get_yaxis_transform(), va="center", weight="bold", color=_INK
            )
        axes.set_xlabel("ns per frame, log scale (median, least to most of the rounds)", color=_INK)
        axes.tick_params(colors=_INK)
        axes.set_xlim(min(values, default=1) / 3, max(values, default=1) * 2.2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_INK)
        picture.savefig(
            file,
            format="svg",
            transparent=True,
            bbox_inches="tight",
            metadata={"Date": None, "Creator": None},
        )
