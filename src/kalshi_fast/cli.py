"""The command line: flags in, one sentence out when something is wrong. No logic of its own.

Exit codes: 0 done; 1 the work failed; 2 the configuration is wrong; 130 interrupted before it began.
"""

from __future__ import annotations

import os
import resource
import sys
from typing import TYPE_CHECKING

from kalshi_fast import logs
from kalshi_fast.blotting import blotted
from kalshi_fast.commands import look, record, stored
from kalshi_fast.commands.parser import parser
from kalshi_fast.errors import KalshiFastError

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMMANDS = {
    "run": record.run,
    "demo": record.demo,
    "simulate": record.simulate,
    "watch": look.watch,
    "top": look.top,
    "markets": look.markets,
    "query": stored.query,
    "replay": stored.replay,
    "compact": stored.compact,
    "import": stored.import_files,
    "reread": stored.reread,
    "export": stored.export,
    "plot": stored.plot,
    "sql": stored.sql,
    "check": look.check,
    "bench": look.bench,
    "config": look.config,
}


def process() -> int:
    """The command as a process of its own."""
    logs.catch_all()
    _no_core_dumps()
    return main()


def _no_core_dumps() -> None:
    """A core dump would hold the private key. What we start inherits it.

    One byte, not none: Linux asks a program that takes core dumps (a core_pattern with '|', such as
    systemd-coredump) whatever the limit is, but not when it is 1; a file is not begun below a page.
    """
    most = resource.getrlimit(resource.RLIMIT_CORE)[1]
    limit = 1 if sys.platform == "linux" and most != 0 else 0
    resource.setrlimit(resource.RLIMIT_CORE, (limit, most))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code."""
    logs.begin()
    options = parser().parse_args(arguments)
    try:
        return _COMMANDS[options.command](options)
    except KalshiFastError as error:
        sys.stderr.write(f"kalshi-fast: {blotted(str(error))}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read us has read enough; the interpreter must not complain at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
