"""Every error that kalshi-fast raises on purpose. Errors are part of the API.

What reaches this family has been understood: it names the field, the value and what was expected, and
its text is one sentence fit for a terminal. Anything else that escapes is a bug.
"""

from __future__ import annotations

_EXCERPT_CHARS = 80
_REASON_CHARS = 160


def excerpt(value: object) -> str:
    """The value as a short, printable literal: never longer than a terminal line, never raw bytes."""
    text = repr(value)
    return text if len(text) <= _EXCERPT_CHARS else f"{text[: _EXCERPT_CHARS - 1]}…"


def reason(cause: Exception) -> str:
    """What a library says. It may quote what it has read: then in one printable line of bounded length."""
    text = " ".join(str(cause).split())
    return text if text.isprintable() and len(text) <= _REASON_CHARS else excerpt(text)


class KalshiFastError(Exception):
    """Base of all errors of this package. ``exit_code`` is what the command line ends with."""

    exit_code = 1


class ConfigError(KalshiFastError):
    """A setting, a flag, a key file or a path is wrong; the user has to change something."""

    exit_code = 2  # as for all that stays wrong however often it is tried: a service manager then gives up


class TuningError(ConfigError):
    """This machine refuses a setting of its tuning (cores, priority, locked memory)."""


class FieldError(KalshiFastError):
    """A value from outside is not what it must be: names the field, the value, the expectation."""

    def __init__(self, field: str, value: object, expected: str) -> None:
        super().__init__(f"{field}: expected {expected}, got {excerpt(value)}")
        self.field = field
        self.value = value
        self.expected = expected


class FrameError(FieldError):
    """A frame of the exchange cannot be understood. The frame is counted and kept aside.

    ``kind`` (its type), ``sid``, ``seq`` and ``market_ticker`` are what could still be read of it (None:
    unreadable); ``counted`` says that its seq has been taken into account, ``about_book`` that a book
    missed it.
    """

    kind: str | None = None
    sid: int | None = None
    seq: int | None = None
    market_ticker: str | None = None
    counted: bool = False
    about_book: bool = False


class BookError(FieldError):
    """An update that cannot be true of the book. The book is unchanged and marked stale."""


class PriceOffGridError(BookError):
    """The price is not a tick of the market's price grid."""


class NegativeLevelError(BookError):
    """The delta would leave a level below zero: an earlier update is missing."""


class LevelLimitError(BookError):
    """The level would exceed the largest size that a book holds (``MAX_QTY_E2``)."""


class DuplicateLevelError(BookError):
    """A snapshot names one price of one side twice."""


class ConnectError(KalshiFastError):
    """No connection to the exchange: name resolution, TCP, TLS, or the upgrade was refused.

    It ends a recording only when the very first connection fails; a later attempt may succeed with nothing
    changed, hence the exit code. ``lasting``: trying again soon will not help. ``unanswered``: nobody was
    there, so that trying again soon harms nobody.
    """

    lasting = False
    unanswered = False


class RefusedError(ConnectError):
    """The exchange refused the handshake because of the key, the signature or the clock.

    ``may_pass``: the clock is off, or the refusal (HTTP 403) may not be about the key; the exit code is then
    1, since time may mend it.
    """

    exit_code = 2
    lasting = True

    def __init__(self, text: str, *, may_pass: bool = False) -> None:
        super().__init__(text)
        self.may_pass = may_pass
        if may_pass:
            self.exit_code = 1


class SubscriptionError(KalshiFastError):
    """The exchange rejected a subscription for good."""

    exit_code = 2


class SinkError(KalshiFastError):
    """A store (ClickHouse, Parquet) cannot take the rows."""


class UnreachableError(SinkError):
    """A store does not answer: it may do so later."""


class CompactError(KalshiFastError):
    """Files of a date cannot be merged; they stay as they are. The text names the file."""


class ExportError(KalshiFastError):
    """An export or a picture cannot be made: what was asked for is not there, or a file is in the way."""


class ForeignFileError(KalshiFastError):
    """A file of another recorder cannot be imported. The text names the file and what is wrong with it."""


class SchemaError(SinkError):
    """The ClickHouse database is not one that this version can write to; nothing in it was changed."""

    exit_code = 2


class SimulatorError(KalshiFastError):
    """The exchange simulator cannot start or was asked for something it does not have."""


class NotRunningError(KalshiFastError):
    """No recording answers where one was expected."""


class JournalError(KalshiFastError):
    """The journal cannot be read or written."""


class JournalFullError(JournalError):
    """The journal has reached its bound: nothing more until a store has come on."""


class ReplayError(KalshiFastError):
    """Recorded events cannot be read as they are. ``path`` and ``row_group`` say where, if it is a file."""

    def __init__(self, text: str, path: object = None, row_group: int | None = None) -> None:
        where = (
            "" if path is None else f"{path}: " if row_group is None else f"{path}, row group {row_group}: "
        )
        super().__init__(where + text)
        self.path = path
        self.row_group = row_group


class RestError(KalshiFastError):
    """The exchange's REST interface does not answer, or not as it must. ``status``: of an HTTP answer."""

    status = 0
