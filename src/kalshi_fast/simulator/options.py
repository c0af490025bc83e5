"""The options of a simulated exchange, for both of its command lines. Loads nothing but argparse."""

from __future__ import annotations

import argparse
from math import isfinite
from pathlib import Path


def add_options(parser: argparse.ArgumentParser, synthetic_rate: int = 0) -> None:
    """Everything that ``launch.launch`` reads, but for ``--dir``. Without ``--rate`` synthetic markets are
    played at ``synthetic_rate``."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--markets", type=natural, default=100, help="how many synthetic markets (100)")
    parser.add_argument(
        "--combos",
        type=natural,
        default=20,
        help="how many combinations of them there are besides, listed first by REST (20)",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the synthetic markets and of the faults (1)")
    shown = f"{synthetic_rate}; recordings: 0" if synthetic_rate else "0"
    parser.add_argument(
        "--rate", type=natural, help=f"frames per second, 0: as fast as they are taken ({shown})"
    )
    parser.set_defaults(synthetic_rate=synthetic_rate)
    parser.add_argument("--seconds", type=_positive, help="end of the play")
    parser.add_argument(
        "--recording",
        type=Path,
        metavar="DIR|FILE",
        help="play the Parquet recordings of this directory, or the frames of a capture (.jsonl)",
    )
    parser.add_argument(
        "--use-yes-price",
        action=argparse.BooleanOptionalAction,
        help="of a capture: its no side is on the yes scale (else its snapshots say it)",
    )
    parser.add_argument(
        "--form", choices=("current", "legacy"), default="current", help="wire form of a recording"
    )
    parser.add_argument(
        "--frames",
        choices=("real", "old"),
        default="real",
        help="real: as production, with a newline and microseconds in ts; old: for clients that know neither",
    )
    parser.add_argument(
        "--speed",
        type=_not_negative,
        default=0.0,
        help="of a recording: 1 as it happened, 2 twice as fast, 0: as fast as it is taken (0)",
    )
    wrong = parser.add_mutually_exclusive_group()
    wrong.add_argument("--faults", type=Path, metavar="FILE", help="a script of faults (JSON)")
    wrong.add_argument("--chaos", action="store_true", help="faults of every kind, drawn from the seed")
    parser.add_argument("--tls", action=argparse.BooleanOptionalAction, default=True, help="encrypt, as live")
    parser.add_argument(
        "--checkpoints",
        type=_positive,
        metavar="SECONDS",
        help="write the true books to checkpoints.jsonl so often",
    )
    parser.add_argument(
        "--unique-sids", action="store_true", help="no two subscriptions share a sid, whatever the connection"
    )
    parser.add_argument(
        "--scale",
        choices=("asked", "yes", "no"),
        default="asked",
        help="of no-side prices: as use_yes_price asks, or always the yes or the no scale (asked)",
    )
    parser.add_argument(
        "--market-limit", type=natural, metavar="N", help="most markets of one subscription (no limit)"
    )
    parser.add_argument(
        "--out-of-order", action="store_true", help="answers to commands come in another order than these"
    )
    parser.add_argument(
        "--refuse-unknown",
        action="store_true",
        help="error 11 for unknown tickers, where the exchange sends empty snapshots",
    )
    parser.add_argument(
        "--old-sids",
        action="store_true",
        help="a sid for every subscribe, where the exchange has one for each channel of a connection",
    )
    parser.add_argument(
        "--heartbeat", type=_positive, default=10.0, metavar="SECONDS", help="between two pings (10)"
    )
    parser.add_argument(
        "--life",
        type=_positive,
        metavar="SECONDS",
        help="so often a synthetic market is created, one repriced, and the oldest settled",
    )
    parser.add_argument(
        "--key-kind",
        choices=("rsa", "ed25519"),
        help="of the key that a client signs with (rsa, or that of the key file that is there)",
    )
    parser.add_argument("--drop-every", type=natural, default=0, help="leave out each n-th frame")


def natural(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= 65_535):
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def _not_negative(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not (isfinite(number) and number >= 0):
        raise argparse.ArgumentTypeError(f"expected a number from 0, got {text!r}")
    return number


def _positive(text: str) -> float:
    number = _not_negative(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number
