"""Fixed-point text becomes exact integers or a FrameError that names the field: never anything else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kalshi_fast._decode import MAX_QTY_E2, cents_e4, contracts_e2, price_e4, qty_e2, rfc3339_us
from kalshi_fast.errors import FrameError

NUMBER_LIKE = st.text(alphabet="0123456789.-+eE _x\x00é", max_size=24)


def reference(text: str, decimals: int, low: int, high: int) -> int | None:
    """What the exchange's fixed-point format means, by way of Decimal; None when it is not that format."""
    body = text.removeprefix("-")
    whole, dot, fraction = body.partition(".")
    if not (whole.isascii() and whole.isdigit()) or (dot and not (fraction.isascii() and fraction.isdigit())):
        return None
    try:
        scaled = Decimal(text).scaleb(decimals)
    except InvalidOperation:
        return None
    value = int(scaled)
    return value if scaled == value and low <= value <= high else None


@given(NUMBER_LIKE)
@example("0.0800")
@example("1.0000")
@example("1.00000")
@example("1.00001")
@example("-0.0000")
@example("")
@example("00000000000000000000000000.5")
def test_price_is_exact_or_refused(text: str) -> None:
    expected = None if text.startswith("-") else reference(text, 4, 0, 10_000)
    if expected is None:
        with pytest.raises(FrameError, match="price_dollars"):
            price_e4(text)
    else:
        assert price_e4(text) == expected


@given(NUMBER_LIKE)
@example("-54.00")
@example("0.01")
@example("1000000000000.00")
@example("1000000000000.01")
@example("-1000000000000")
@example("9" * 60)
def test_size_is_exact_or_refused(text: str) -> None:
    expected = reference(text, 2, -MAX_QTY_E2, MAX_QTY_E2)
    if expected is None:
        with pytest.raises(FrameError, match="delta_fp"):
            qty_e2(text)
    else:
        assert qty_e2(text) == expected


@given(st.integers(0, 10_000), st.integers(-MAX_QTY_E2, MAX_QTY_E2))
def test_every_price_and_size_survives_the_round_trip(price: int, qty: int) -> None:
    assert price_e4(f"{price // 10_000}.{price % 10_000:04d}") == price
    assert qty_e2(f"{'-' if qty < 0 else ''}{abs(qty) // 100}.{abs(qty) % 100:02d}") == qty


@given(
    st.datetimes(datetime(1971, 1, 1), datetime(2261, 1, 1)),  # noqa: DTZ001 - the zone is drawn below
    st.integers(-23 * 60, 23 * 60),
)
def test_times_agree_with_datetime(moment: datetime, offset_minutes: int) -> None:
    aware = moment.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    expected = (aware - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert rfc3339_us(aware.isoformat()) == expected
    assert rfc3339_us(aware.astimezone(UTC).isoformat().replace("+00:00", "Z")) == expected


@given(st.text(alphabet="0123456789-:.TZ+ t", max_size=40))
@example("2022-11-22T20:44:01")
@example("2023-02-29T00:00:00Z")
@example("2022-13-01T00:00:00Z")
@example("2022-11-22T24:00:00Z")
@example("2022-11-22T20:44:01.Z")
@example("2022-11-22T20:44:01Zjunk")
@example("9999-11-22T20:44:01Z")
def test_no_time_is_made_up(text: str) -> None:
    try:
        value = rfc3339_us(text)
    except FrameError:
        return
    assert 0 <= value < 2**63 // 1000


@pytest.mark.parametrize("cents", [-1, 101, 2**70, -(2**70)])
def test_legacy_price_out_of_range(cents: int) -> None:
    with pytest.raises(FrameError, match="0 to 100 cents"):
        cents_e4(cents)


def test_legacy_numbers() -> None:
    assert [cents_e4(cents) for cents in (0, 8, 100)] == [0, 800, 10_000]
    assert [contracts_e2(n) for n in (-54, 0, 300)] == [-5400, 0, 30_000]
    for contracts in (10**12 + 1, -(10**12) - 1, 2**80):
        with pytest.raises(FrameError, match="delta"):
            contracts_e2(contracts)


@pytest.mark.parametrize("function", [price_e4, qty_e2, rfc3339_us])
def test_only_text_is_taken(function) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    for value in (None, 1, b"0.0800"):
        with pytest.raises(TypeError):
            function(value)
    with pytest.raises(UnicodeEncodeError):
        function("\ud800")
