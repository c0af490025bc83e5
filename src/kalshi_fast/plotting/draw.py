"""A picture as PNG, SVG, PDF or one HTML file that needs nothing else. matplotlib is the extra ``plot``.

From above: best bid, ask and mid; spread; what rests at which price. Where the book was unknown the time is
hatched grey in all three, and nothing is drawn there. Not here: the numbers (``collect``).
"""

from __future__ import annotations

import base64
import html
import io
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from kalshi_fast.errors import ConfigError
from kalshi_fast.exporting.files import new_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from kalshi_fast.plotting.collect import Picture

FORMATS: Final = (".png", ".svg", ".pdf", ".html")
KNOWN: Final = 0.999  # a column that is known for less of its time is shown as unknown
_INCHES: Final = (12, 9)
_BID, _ASK, _MID = "#1f6fb4", "#c8551b", "#333333"


def check_format(path: Path) -> None:
    """Raises ConfigError for a name that says no format, or when matplotlib is missing: before any work."""
    if path.suffix not in FORMATS:
        raise ConfigError(f"--out: expected a name that ends with {', '.join(FORMATS)}, got {path.name!r}")
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise ConfigError("matplotlib is not installed: pip install 'kalshi-fast[plot]'") from error


def save(picture: Picture, path: Path, *, overwrite: bool = True) -> None:
    """Draws the picture into a file; its name says in which format."""
    check_format(path)
    figure = _figure(picture)
    with new_file(path, overwrite=overwrite) as file:
        if path.suffix != ".html":
            figure.savefig(file, format=path.suffix[1:], dpi=120)
            return
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=120)
        file.write(_page(picture, drawn.getvalue()).encode())


def _figure(picture: Picture) -> Any:  # noqa: ANN401 - matplotlib is imported here only
    import matplotlib.dates
    from matplotlib.figure import Figure

    dates: Any = matplotlib.dates

    figure = Figure(figsize=_INCHES, layout="constrained")
    price, spread, depth = figure.subplots(3, 1, sharex=True, height_ratios=(3, 1, 3))
    edges = _edges(picture)
    middle = (edges[:-1] + edges[1:]) / 2
    price.fill_between(
        middle, picture.mid_low, picture.mid_high, step="mid", color=_MID, alpha=0.2, linewidth=0
    )
    price.step(middle, picture.ask, where="mid", color=_ASK, linewidth=1, label="best ask (yes)")
    price.step(middle, picture.mid, where="mid", color=_MID, linewidth=0.8, label="mid, with its range")
    price.step(middle, picture.bid, where="mid", color=_BID, linewidth=1, label="best bid (yes)")
    price.set_ylabel("dollars")
    spread.fill_between(
        middle, picture.spread_low, picture.spread_high, step="mid", color=_MID, alpha=0.25, linewidth=0
    )
    spread.step(middle, picture.spread, where="mid", color=_MID, linewidth=0.8)
    spread.set_ylabel("spread, cents")
    _heat(figure, depth, picture, edges)
    unknown = _unknown(price, spread, depth, picture, edges)
    handles, labels = price.get_legend_handles_labels()
    if unknown is not None:
        handles, labels = [*handles, unknown], [*labels, "unknown"]
    price.legend(handles, labels, loc="best", fontsize="small")
    price.set_title(_title(picture), fontsize="medium")
    locator = dates.AutoDateLocator(tz=UTC)
    depth.xaxis.set_major_locator(locator)
    depth.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))
    depth.set_xlim(edges[0], edges[-1])
    depth.set_xlabel("UTC")
    return figure


def _heat(figure: Any, axes: Any, picture: Picture, edges: NDArray[Any]) -> None:  # noqa: ANN401
    """Contracts that rest, by price and time: bids blue, asks orange, on one logarithmic scale."""
    from matplotlib.colors import LogNorm

    sizes = np.concatenate((picture.bids.ravel(), picture.asks.ravel()))
    sizes = sizes[~np.isnan(sizes)]
    axes.set_ylabel("dollars")
    half = picture.row_dollars / 2
    rows = picture.low - half + picture.row_dollars * np.arange(picture.bids.shape[0] + 1)
    axes.set_ylim(rows[0], rows[-1])
    if not len(sizes):
        return
    scale = LogNorm(max(0.01, float(sizes.min())), max(float(sizes.max()), float(sizes.min()) * 1.01))
    for levels, colours, label in ((picture.bids, "Blues", "bids"), (picture.asks, "Oranges", "asks")):
        mesh = axes.pcolormesh(edges, rows, levels, norm=scale, cmap=colours)
        mesh.set_rasterized(True)  # an SVG of a rectangle for each level would be larger than the recording
        figure.colorbar(mesh, ax=axes, label=f"{label}, contracts", pad=0.01, fraction=0.03)


def _unknown(
    price: Any,  # noqa: ANN401
    spread: Any,  # noqa: ANN401
    depth: Any,  # noqa: ANN401
    picture: Picture,
    edges: NDArray[Any],
) -> Any:  # noqa: ANN401
    lost = np.append(picture.known < KNOWN, False).astype(np.int8)
    begins = np.flatnonzero(np.diff(lost, prepend=0) == 1)
    ends = np.flatnonzero(np.diff(lost, prepend=0) == -1)
    span = None
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        for axes in (price, spread, depth):
            span = axes.axvspan(
                edges[begin], edges[end], facecolor="#dddddd", edgecolor="#aaaaaa", hatch="//", linewidth=0
            )
    return span


def _edges(picture: Picture) -> NDArray[Any]:
    """The times between columns, as matplotlib counts them: days since 1970."""
    edges = picture.start_ns + picture.every_ns * np.arange(len(picture.known) + 1)
    days: NDArray[Any] = edges / 86_400e9
    return days


def _title(picture: Picture) -> str:
    return (
        f"{picture.market}   {_told(picture.first_ns)} to {_told(picture.last_ns)}"
        f"   {picture.events:,} events, book known {picture.known_share:.1%} of the time"
    )


def _told(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M:%S}"


def _page(picture: Picture, png: bytes) -> str:
    rows = {
        "market": picture.market,
        "source": picture.source,
        "first event (UTC)": _told(picture.first_ns),
        "last event (UTC)": _told(picture.last_ns),
        "events": f"{picture.events:,}",
        "book known": f"{picture.known_share:.2%} of the time",
        "a column of the picture": f"{picture.every_ns / 1e9:g} s",
    }
    table = "".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    name = html.escape(picture.market)
    return (
        f'<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>{name}</title>\n'
        "<style>body{font:15px sans-serif;margin:2em auto;max-width:1500px}img{width:100%}"
        "th{text-align:left;padding-right:2em}</style>\n"
        f"<h1>{name}</h1>\n<table>{table}</table>\n"
        f'<img alt="price, spread and depth of {name}" src="data:image/png;base64,'
        f'{base64.b64encode(png).decode()}">\n</html>\n'
    )
