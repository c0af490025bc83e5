"""How log lines look: text for people, or a JSON object a line for whoever collects them. To stderr, both.

Secrets are not logged anywhere; should a library's message quote one all the same, it is blotted out
(``blotting``).
What nobody catches is logged too, so that no traceback is written past this.
Not here: what is logged.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from kalshi_fast.blotting import blotted, keep_secret

if TYPE_CHECKING:
    from types import TracebackType

    from kalshi_fast.config import Settings

_TEXT: Final = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _Formatter(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__(_TEXT)
        self._json = as_json

    def format(self, record: logging.LogRecord) -> str:
        if not self._json:
            return blotted(super().format(record))
        fields = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": blotted(record.getMessage()),
        }
        if record.exc_info:
            fields["exception"] = blotted(self.formatException(record.exc_info))
        return json.dumps(fields)


def begin(log_format: str = "text") -> None:
    """From now on warnings and worse go to stderr in this form. May be called again."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(as_json=log_format == "json"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # A line for each attempt at a store that is away: ours say it, and say it seldom.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)


def catch_all() -> None:
    """From now on what nobody catches, in any thread, is logged too."""
    sys.excepthook = _uncaught
    threading.excepthook = lambda end: _uncaught(
        end.exc_type, end.exc_value or end.exc_type(), end.exc_traceback
    )


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """A bug ends here, as one more line of the log, so that secrets are blotted out of its traceback too."""
    if issubclass(kind, SystemExit):  # a thread's way to end
        return
    logging.getLogger("kalshi_fast").critical("this should not happen", exc_info=(kind, error, trace))


def configure(settings: Settings) -> None:
    """The same, as configured."""
    keep_secret(
        settings.prod_keyid, settings.clickhouse_password
    )  # the writer process has not read them itself
    begin(settings.log_format)


def tell(settings: Settings, text: str) -> None:
    """Something that is no warning: on stderr as it is, or as one more line of JSON."""
    if settings.log_format != "json":
        sys.stderr.write(f"{text}\n")
        return
    logger = logging.getLogger("kalshi_fast")
    logger.setLevel(logging.INFO)
    logger.info("%s", text)
    logger.setLevel(logging.NOTSET)
