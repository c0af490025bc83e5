"""Which of the engine's settings a client of the front may choose, and how they are written.

Not here: the values of our limits (``engine.Limits``).
"""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from kalshi_fast.front.errors import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping

# What a client may set as it likes: how an answer looks, and limits that come on top of ours.
_FREE: Final = frozenset(
    {
        "aggregate_functions_null_for_empty",
        "cast_string_to_dynamic_use_inference",
        "date_time_input_format",
        "date_time_output_format",
        "final",
        "format_csv_delimiter",
        "format_csv_null_representation",
        "format_tsv_null_representation",
        "group_by_use_nulls",
        "join_use_nulls",
        "limit",
        "max_block_size",
        "max_bytes_to_read",
        "max_result_rows",
        "max_rows_to_read",
        "offset",
        "session_timezone",
        "transform_null_in",
    }
)
_FREE_PREFIX: Final = "output_format_"
_NOT_FREE: Final = frozenset({"output_format_schema"})  # names a file that the engine would write
_SETTING = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,127}\Z")


def is_free(name: str) -> bool:
    """Whether a client may set it as it likes."""
    return name in _FREE or (name.startswith(_FREE_PREFIX) and name not in _NOT_FREE)


def at_most(name: str, text: str, ours: int) -> str:
    """A client's value of a limit. Raises a refusal when it lifts ours."""
    try:
        if 0 < Decimal(text) <= ours:
            return text
    except InvalidOperation:
        raise refusal("BAD_ARGUMENTS", f"Setting {name}: expected a number, got {text[:40]!r}") from None
    raise refusal(
        "SETTING_CONSTRAINT_VIOLATION", f"Setting {name} shouldn't be greater than {ours}, nor 0 (no limit)"
    )


def assignments(settings: Mapping[str, str]) -> str:
    """Settings as SET and SETTINGS take them. Raises a refusal at a name that is none."""
    for name in settings:
        if not _SETTING.match(name):
            raise refusal("BAD_ARGUMENTS", f"{name[:40]!r} is not the name of a setting")
    return ", ".join(f"{name} = {quoted(value, chr(39))}" for name, value in settings.items())


def quoted(text: str, quote: str) -> str:
    """A literal or an identifier, by its quote."""
    return quote + text.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("\0", "\\0") + quote
