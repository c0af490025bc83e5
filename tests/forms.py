"""The form of a message: its keys in their order, and of each value what kind of value it is.

Not here: which messages are compared (``test_conformance_simulator``).
"""

from __future__ import annotations

import re
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_TEXTS: Final = (
    ("empty", r""),
    ("uuid", r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"),
    ("time to the microsecond", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{0,5}[1-9])?Z"),
    ("other time", r"\d{4}-\d\d-\d\d.*"),
    ("yes or no", r"yes|no"),
    ("bid or ask", r"bid|ask"),
    ("ticker", r"(?=.*[A-Z])[A-Z0-9.-]+"),
)


def of_text(text: str) -> str:
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        _, _, decimals = text.partition(".")
        return f"a number with {len(decimals)} decimals as text"
    return next((name for name, pattern in _TEXTS if re.fullmatch(pattern, text)), "text")


def of_value(value: Any) -> str:  # noqa: ANN401 - any JSON
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | Decimal():
            return "number"
        case str():
            return of_text(value)
        case dict():
            return "object"
        case list():
            return "list"
    raise AssertionError(value)


def orders(message: Any, path: str = "") -> Iterator[tuple[str, tuple[str, ...]]]:  # noqa: ANN401
    """Of each object in it: where it is, and its keys as they stand."""
    if isinstance(message, dict):
        yield path, tuple(message)
        for key, value in message.items():
            yield from orders(value, f"{path}.{key}")
    elif isinstance(message, list):
        for value in message:
            yield from orders(value, f"{path}[]")


def values(message: Any, path: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401
    """Of each value in it: where it is, and its form. A pair of a price and a size has a place for each."""
    yield path, of_value(message)
    if isinstance(message, dict):
        for key, value in message.items():
            yield from values(value, f"{path}.{key}")
    elif isinstance(message, list):
        pair = len(message) == 2 and all(isinstance(value, str) for value in message)
        for at, value in enumerate(message):
            yield from values(value, f"{path}[{at if pair and path.endswith('[]') else ''}]")


class Forms:
    """Which forms some messages of one kind have."""

    def __init__(self, messages: Iterable[dict[str, Any]] = ()) -> None:
        self.orders: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
        self.values: defaultdict[str, set[str]] = defaultdict(set)
        for message in messages:
            self.add(message)

    def add(self, message: dict[str, Any]) -> None:
        for path, keys in orders(message):
            self.orders[path].add(keys)
        for path, form in values(message):
            self.values[path].add(form)

    def differences(self, message: dict[str, Any], values_of: Forms) -> list[str]:
        """What a message has otherwise; empty when it fits. Its keys are compared with these messages, the
        forms of its values with ``values_of``."""
        found = [
            f"keys at {path or 'the top'}: {list(keys)} and not {sorted(map(list, self.orders[path]))}"
            for path, keys in orders(message)
            if keys not in self.orders[path]
        ]
        return found + [
            f"value at {path}: {form} and not {sorted(values_of.values[path])}"
            for path, form in values(message)
            if form not in values_of.values[path]
        ]
