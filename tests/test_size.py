"""The exchange's limit of a subscription is found with few refusals, and forgotten in time."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from kalshi_fast.backoff import NS
from kalshi_fast.size import REFUSALS, Size


def fill(size: Size, limit: int, wanted: int, now_ns: int, portion: int = 1000) -> tuple[int, int]:
    """A connection that is filled; what it carries then, and with how many commands."""
    carried = commands = 0
    while carried < wanted:
        count, question = size.next(carried, min(portion, wanted - carried), "me", now_ns)
        if not count:
            assert size.full(carried, now_ns)
            break
        commands += 1
        if question:
            size.ask("me")
            assert size.next(carried, 1, "another", now_ns)[0] == 0, "one at a time"
        if carried + count > limit:
            assert question or limit < size.granted, "what is known to be allowed is not refused"
            size.refuse(carried + count, carried, now_ns)
        else:
            carried += count
            size.grant(carried, now_ns)
        size.release("me")
    return carried, commands


@given(st.integers(1, 20_000), st.integers(1, 20_000), st.integers(1, 3000))
def test_any_limit_is_found_with_few_refusals_and_then_known(limit: int, wanted: int, portion: int) -> None:
    size = Size()
    carried, commands = fill(size, limit, wanted, NS, portion)
    assert carried == min(limit, wanted)
    assert size.refusals <= REFUSALS
    assert commands <= -(-wanted // portion) + 60
    refusals = size.refusals
    assert fill(size, limit, wanted, 2 * NS, portion)[0] == carried
    assert size.refusals == refusals, "the next connection knows it"
    if wanted > limit:
        assert size.room(2 * NS) == limit


def test_a_limit_that_changes_is_noticed_and_one_that_does_not_is_asked_for_ever_more_rarely() -> None:
    size, now_ns = Size(), NS
    assert fill(size, 400, 1200, now_ns)[0] == 400
    asked = []
    for _ in range(4000):
        now_ns += NS
        before = size.refusals
        assert fill(size, 400, 401, now_ns)[0] == 400
        if size.refusals > before:
            asked.append(now_ns)
    waits = [(after - one) // NS for one, after in pairwise(asked)]
    assert waits == [20, 40, 80, 160, 320, 640, 1280]
    now_ns += 3600 * NS
    assert fill(size, 900, 1200, now_ns)[0] == 900, "it has risen"
    assert fill(size, 100, 1200, now_ns)[0] == 100, "it has fallen"
    assert size.room(now_ns) == 100


def test_a_market_that_is_refused_alone_says_nothing_about_the_size() -> None:
    size = Size()
    size.refuse(1, 0, NS)
    assert size.room(NS) is None
    assert size.next(0, 10, "me", NS) == (10, True)
