"""``kalshi-fast top``: all markets of a running recording, on the terminal.

It asks the recording's endpoint (``run --http``) and nothing else. Not here: the figures (``status``).
"""

from __future__ import annotations

import fnmatch
import http.client
import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from kalshi_fast.config import is_loopback
from kalshi_fast.errors import NotRunningError
from kalshi_fast.terminal import Screen, render

if TYPE_CHECKING:
    from kalshi_fast.terminal import Line

DEFAULT_ADDRESS: Final = ("127.0.0.1", 9187)
_COLUMNS: Final = f"{'events/s':>10}{'events':>13}{'gaps':>7}{'lag':>10}{'last':>8}  book"
TIMEOUT_S: Final = 5.0
_ALL: Final = 2**31  # lines
_MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TopOptions:
    """What is shown. ``match``: only markets like this; ``limit``: so many (None: as fit)."""

    address: tuple[str, int] = DEFAULT_ADDRESS
    once: bool = False
    as_json: bool = False
    interval_s: float = 1.0
    match: str = "*"
    limit: int | None = None


def top(options: TopOptions) -> None:
    """Until Ctrl-C, or once. Raises NotRunningError."""
    if options.once or options.as_json or not sys.stdout.isatty():
        while True:
            figures = fetch(options)
            if options.as_json:
                sys.stdout.write(json.dumps(figures) + "\n")
            else:
                shown = lines(figures, _ALL)
                sys.stdout.write("".join(render(line).rstrip() + "\n" for line in shown))
            sys.stdout.flush()
            if options.once or not options.as_json:
                return
            time.sleep(options.interval_s)
    figures, failure = fetch(options), ""
    try:
        with Screen() as screen:
            while True:
                _, rows = screen.size
                shown = lines(figures, rows)
                if failure:
                    shown[0] = [(failure, "bad")]
                screen.draw(shown)
                time.sleep(options.interval_s)
                try:
                    figures, failure = fetch(options), ""
                except NotRunningError as error:
                    failure = str(error)
    except KeyboardInterrupt:
        return


def fetch(options: TopOptions) -> dict[str, Any]:
    """The state of the recording and its markets. Raises NotRunningError."""
    host, port = options.address
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - what it listens on
    where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        now_ns = time.time_ns()
        since_ns = now_ns - 10 * 1_000_000_000
        figures: dict[str, Any] = _get(connection, f"/api/status?since={since_ns}")
        markets = _get(connection, "/api/markets")["markets"]
        if options.match != "*":
            markets = [one for one in markets if fnmatch.fnmatchcase(one["ticker"], options.match)]
        figures["markets"] = markets[: options.limit] if options.limit else markets
        figures["markets_shown_of"] = len(markets)
        if figures["capture"] is None:
            raise NotRunningError(f"{where}: the recording has only just begun; try again")
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        hint = "is `kalshi-fast run --http` running" if is_loopback(host) else "is it a recorder"
        raise NotRunningError(f"{where}: no answer that is a recording's ({error}); {hint}?") from error
    finally:
        connection.close()
    return figures


def _get(connection: http.client.HTTPConnection, path: str) -> Any:  # noqa: ANN401 - JSON
    connection.request("GET", path)
    answer = connection.getresponse()
    body = answer.read(_MAX_ANSWER_BYTES)
    if answer.status != 200:
        raise ValueError(f"HTTP {answer.status}")
    return json.loads(body)


def lines(figures: dict[str, Any], rows: int) -> list[Line]:
    """The screen, from the figures of ``fetch``."""
    capture, writing = figures["capture"], figures["writing"]
    last = figures["history"][-1] if figures["history"] else {}
    known, wanted = capture["markets_known"], capture["markets_wanted"]
    absent = f", {capture['markets_absent']:,} absent" if capture["markets_absent"] else ""
    up = sum(one[0] for one in capture["connections"])
    head: list[Line] = [
        [
            ("kalshi-fast ", "bold"),
            (figures["status"], "good" if figures["status"] == "ok" else "bad"),
            (f"  {_since(capture['started_ns'])}  ", "dim"),
            (f"connections {up} of {len(capture['connections'])}", "" if up else "bad"),
            ("  ", ""),
            (f"books exact {known:,} of {wanted:,}{absent}", "" if known >= wanted else "warn"),
        ],
        [
            (
                f"{last.get('frames', 0):,.0f} frames/s  {last.get('events', 0):,.0f} events/s"
                f"  frames {capture['frames']:,}  trades {capture['trades']:,}  gaps {capture['gaps']:,}"
                f"  resyncs {capture['resyncs']:,}"
                f"  reconnects {capture['reconnects']:,}  rejected {sum(capture['rejected'].values()):,}"
                f"  lossy {sum(capture['lossy_frames'].values()):,}",
                "",
            )
        ],
        [
            (
                f"queue {capture['queue_batches']:,} of {capture['queue_slots']:,}  journal "
                + ("?" if writing is None else f"{_bytes(writing['journal_bytes'])}")
                + f"  lag: journal {_ms(last.get('to_row_p50_us'))}"
                f"  ClickHouse {_ms(last.get('queryable_p50_us'))}"
                f" (99 %: {_ms(last.get('queryable_p99_us'))})",
                "",
            )
        ],
    ]
    if writing is not None and writing["rows"]:
        stores = "  ".join(f"{name} {rows:,}" for name, rows in writing["rows"].items())
        head.append([(f"rows: {stores}", "")])
    head += [[(f"{reason['what']}: {reason['detail']}", "bad")] for reason in figures["reasons"]]
    head.append([])
    markets = figures["markets"]
    width = max([6, *(len(one["ticker"]) for one in markets)])
    head.append([(f"{'market':<{width}}" + _COLUMNS, "bold")])
    now_ns = time.time_ns()
    for one in markets[: max(0, rows - len(head))]:
        head.append(
            [
                (
                    f"{one['ticker']:<{width}}{one['events_per_s']:>10,.1f}{one['events']:>13,}"
                    f"{one['gaps']:>7,}{_ms(one['lag_us']):>10}{_age(now_ns - one['last_ns']):>8}  ",
                    "",
                ),
                ("exact", "good") if one["known"] else ("unknown", "bad"),
            ]
        )
    return head


def _since(started_ns: int) -> str:
    return f"since {datetime.fromtimestamp(started_ns // 10**9, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _age(age_ns: int) -> str:
    seconds = max(0.0, age_ns / 1e9)
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _ms(lag_us: float | None) -> str:
    return "-" if lag_us is None else f"{lag_us / 1000:,.1f} ms"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
