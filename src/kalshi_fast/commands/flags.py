"""Flags that several commands have, and the settings that come of them. Not here: which command has which
(``parser``).
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kalshi_fast.config import SETTINGS, Loaded, load
from kalshi_fast.simulator.options import natural

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kalshi_fast.config import Settings


def rate(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0.01 <= number <= 100:
        raise argparse.ArgumentTypeError(f"expected a number from 0.01 to 100, got {text!r}")
    return number


def positive(text: str) -> int:
    number = natural(text)
    if number == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return number


def add_source(command: argparse.ArgumentParser, markets: str) -> None:
    command.add_argument("markets", nargs="*", metavar="MARKET", help=markets)
    add_stretch(command)


def add_stretch(command: argparse.ArgumentParser, default: str = "") -> None:
    command.add_argument(
        "--from",
        dest="source",
        required=not default,
        metavar="SOURCE",
        help="PARQUET_DIR, a file or pattern, chdb://DIR, http(s)://HOST:PORT, a journal, a capture"
        + (f" ({default})" if default else ""),
    )
    command.add_argument("--start", metavar="TIME", help="from this time on, such as 2026-01-31T12:00:00Z")
    command.add_argument("--end", metavar="TIME", help="before this time")
    command.add_argument("--repair", action="store_true", help="leave out what is damaged, and say so")
    command.add_argument("--database", help="of a ClickHouse URL (as configured)")


def add_output(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--json", action="store_true", help="the figures as one JSON object on the last line"
    )
    command.add_argument("--quiet", action="store_true", help="no progress")


def add_settings(command: argparse.ArgumentParser, only: Sequence[str] = ()) -> None:
    group = command.add_argument_group("settings (also from the environment, .env and kalshi-fast.toml)")
    for setting in SETTINGS:
        # A password on the command line is seen by every process of the machine.
        if setting.secret and setting.name != "PROD_KEYID":
            continue
        if not only or setting.name in only:
            names = [name for name in (setting.alias, setting.flag) if name]
            if setting.name == "MARKET_ALL_OPEN":
                group.add_argument(
                    names.pop(0), dest=setting.name, action="store_const", const="on", help=setting.help
                )
            group.add_argument(
                *names,
                dest=setting.name,
                action=_Joined if setting.many else "store",
                nargs="?" if setting.name == "MARKET_COMBOS" else None,
                const="include" if setting.name == "MARKET_COMBOS" else None,
                metavar="VALUE",
                help=setting.help,
            )
    group.add_argument("--env-file", type=Path, default=Path(".env"), help="instead of .env")
    group.add_argument("--toml", type=Path, help="instead of kalshi-fast.toml")


class _Joined(argparse.Action):
    """A flag that is given several times: all of its values, with commas between."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,  # noqa: ANN401
        option_string: str | None = None,
    ) -> None:
        before = getattr(namespace, self.dest, None)
        setattr(namespace, self.dest, f"{before},{values}" if before else values)


def flags_of(options: argparse.Namespace) -> dict[str, str | None]:
    return {setting.name: getattr(options, setting.name, None) for setting in SETTINGS}


def loaded(options: argparse.Namespace, flags_only: Sequence[str] = ()) -> Loaded:
    return load(
        flags_of(options),
        environ=os.environ,
        env_file=options.env_file,
        toml_file=options.toml,
        flags_only=flags_only,
    )


def told_only(settings: dict[str, str | None]) -> Settings:
    """These and no others: whatever is configured for live recording does not concern a simulation."""
    return load(settings, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
