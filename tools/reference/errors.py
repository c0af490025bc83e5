"""docs/reference/errors.md: every error of the family, as its docstring has it."""

from __future__ import annotations

import inspect
from typing import Final

from kalshi_fast import errors
from kalshi_fast.errors import KalshiFastError
from tools.reference.markdown import code, page, prose, table

_HEAD: Final = """
What kalshi-fast raises on purpose is a `KalshiFastError`, and its text is one sentence: what is wrong, the
value, what was expected. On the command line that sentence is all that is shown, and the process ends with
the exit code of the error. Any other exception is a bug.

```python
from kalshi_fast import BookError, KalshiFastError, YES, OrderBook

try:
    OrderBook().apply_delta(YES, 4550, 100)
except BookError as error:
    print(error.field, error.value, error)
```

`BookError` and `KalshiFastError` are names of `kalshi_fast`, the others of `kalshi_fast.errors`. What the
commands' exit codes mean is in [commands](commands.md#exit-codes)."""


def family() -> list[type[KalshiFastError]]:
    """Every class of the family in the order of the source."""
    return [
        found
        for found in vars(errors).values()
        if inspect.isclass(found) and issubclass(found, KalshiFastError)
    ]


def document() -> str:
    """The page."""
    rows = [
        (
            code(error.__name__),
            code(error.__bases__[0].__name__),
            str(error.exit_code),
            prose(error.__doc__ or ""),
        )
        for error in family()
    ]
    return page("Errors", _HEAD, table(("error", "is a", "exit code", "meaning"), rows))
