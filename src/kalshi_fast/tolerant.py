"""A message read field by field, for one that does not decode as a whole: what cannot be used costs itself.

The structs say what a message is. A field without a default is one that its row means nothing without: when
it cannot be used, the frame cannot. Any other that is missing, null or "" has its default; one of another
type, or out of range, has it too and is counted as lost. Numbers may be written in every form that JSON has
(``2.0``, ``1E0``); prices and sizes, which come as texts, may be numbers: what is written is kept as it is,
exactly, and is judged where integers are made of it (``_decode``), as one that is no number is too. Not
here: the usual frame, which msgspec decodes at once (``wire``).
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from kalshi_fast.errors import FrameError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from kalshi_fast.losses import Losses

# RecursionError: a frame may nest deeper than the interpreter's stack.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
MISSING: Final = msgspec.Raw(b"")
_NO_VALUE: Final = (b"null", b'""')
_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?\Z")
_MOST_NUMBER_BYTES: Final = 64
_SHOWN_BYTES: Final = 100  # of a value that is named in an error

S = TypeVar("S", bound=msgspec.Struct)


def number(text: bytes) -> Decimal | None:
    """A number as JSON writes it, exactly; None when it is none, or longer than any that is meant."""
    if len(text) > _MOST_NUMBER_BYTES or not _NUMBER.match(text):
        return None
    return Decimal(text.decode())


def decimal_text(raw: bytes) -> str:
    """A price or size as a text: that of a JSON string, else what is written, a number in plain digits."""
    if raw[:1] == b'"':
        try:
            return msgspec.json.decode(raw, type=str)
        except UNREADABLE:
            return _shown(raw)
    found = number(raw)
    return _shown(raw) if found is None else f"{found:f}"


def _shown(written: bytes) -> str:
    return written[:_SHOWN_BYTES].decode(errors="replace")


class Fields:
    """``Fields(struct, defaults)``: how the fields of a struct are read, each by itself.

    ``defaults``: of fields that the struct has none for, and that a message can do without all the same.
    ``left``: a field whose value is left as it is written.
    """

    def __init__(
        self, struct: type[msgspec.Struct], defaults: Mapping[str, Any] | None = None, left: str = ""
    ) -> None:
        self.struct = struct
        self._fields = [_Field(info, defaults or {}, left) for info in msgspec.structs.fields(struct)]
        self.names = tuple(field.name for field in self._fields)
        parts = [(name, msgspec.Raw, MISSING) for name in self.names]
        self._raw = msgspec.json.Decoder(msgspec.defstruct(f"_{struct.__name__}Raw", parts))

    def written(self, text: bytes | msgspec.Raw) -> tuple[msgspec.Raw, ...]:
        """Every field as it is written; MISSING are those that are not there. Raises one of UNREADABLE."""
        return msgspec.structs.astuple(self._raw.decode(text))

    @property
    def nothing(self) -> tuple[msgspec.Raw, ...]:
        """What ``written`` gives for a message that has none of the fields."""
        return (MISSING,) * len(self._fields)

    def read(self, written: Iterable[msgspec.Raw], kind: str, losses: Losses | None) -> list[Any]:
        """The values, in the order of the struct's fields. Raises FrameError for a field that a message
        cannot do without."""
        values = []
        parts = tuple(written)
        for field, text in zip(self._fields, parts, strict=True):
            try:
                value, lost = (field.default, False) if text is MISSING else field.read(text)
            except FrameError:
                twin = parts[self.names.index(field.twin)] if field.twin in self.names else MISSING
                if bytes(twin) in (b"", b"null"):
                    raise
                value, lost = field.default, bytes(text) not in _NO_VALUE  # what counts is the twin
            if value is _NEEDED:
                raise FrameError(field.name, None, "a value: a message is of no use without it")
            if lost and losses is not None:
                losses.field(kind, field.name)
            values.append(value)
        return values


_NEEDED: Final = object()


class _Field:
    def __init__(self, info: msgspec.structs.FieldInfo, defaults: Mapping[str, Any], left: str) -> None:
        self.name = info.encode_name
        self._left = self.name == left
        self.default = (
            defaults.get(self.name, _NEEDED)
            if info.required
            else info.default
            if info.default is not msgspec.NODEFAULT
            else info.default_factory()
        )
        self._type = info.type
        self._decoder = msgspec.json.Decoder(info.type)
        self._decimal = self.name.endswith(("_dollars", "_fp"))
        self._levels = self.name in _LEVELS
        self.twin = f"{self.name}_dollars_fp"  # of levels in the old form: what wins over them

    def read(self, text: msgspec.Raw) -> tuple[Any, bool]:
        """The value, and whether what was there is lost."""
        if self._left:
            return text, False
        try:
            return self._decoder.decode(text), False
        except UNREADABLE as error:
            cause = error
        written = bytes(text)
        if self._levels:
            return _levels(self.name, written), False
        if self._decimal and written not in _NO_VALUE:
            return decimal_text(written), False
        value = self._from_number(written)
        if value is not None:
            return value, False
        if self.default is _NEEDED:
            raise FrameError(
                self.name,
                _shown(written),
                f"what the exchange's protocol has there ({reason(cause)})",
            )
        return self.default, written not in _NO_VALUE

    def _from_number(self, written: bytes) -> Any:  # noqa: ANN401 - of the field's type
        """A whole number in any form, or an id that is a number; None when it is none for this field."""
        found = number(written)
        if found is None:
            return None
        if self.name in _IDS:
            return written.decode()
        try:
            whole = int(found) if found == found.to_integral_value() else None
            return None if whole is None else msgspec.convert(whole, self._type)
        except msgspec.ValidationError:
            return None


_IDS: Final = ("trade_id",)  # texts that may as well be numbers
_LEVELS: Final = {"yes_dollars_fp": str, "no_dollars_fp": str, "yes": int, "no": int}
_raw_levels: Final = msgspec.json.Decoder(list[list[msgspec.Raw]] | None)


def _levels(name: str, written: bytes) -> list[tuple[Any, Any]] | None:
    """The levels of one side. All of them have to be read: a book without one is wrong."""
    try:
        levels = _raw_levels.decode(written)
        return None if levels is None else [_level(name, level) for level in levels]
    except UNREADABLE as error:
        raise FrameError(
            name, _shown(written), f"a list of levels, price and size each ({reason(error)})"
        ) from error


def _level(name: str, level: list[msgspec.Raw]) -> tuple[Any, Any]:
    written = [bytes(part) for part in level]
    if len(written) >= 2:
        price, size = written[:2]
        if _LEVELS[name] is str and price not in _NO_VALUE and size not in _NO_VALUE:
            return decimal_text(price), decimal_text(size)
        whole = [number(part) for part in (price, size)]
        if _LEVELS[name] is int and all(
            part is not None and part == part.to_integral_value() for part in whole
        ):
            return tuple(int(part) for part in whole if part is not None)  # type: ignore[return-value]
    raise FrameError(name, _shown(b",".join(written)), "levels of a price and a size each")
