"""Whatever bytes come from outside, nothing escapes but an error of the package's own family.

For each parser (a *target*) there are kept inputs in ``corpus/<target>/``: all of them are always run, and
hypothesis spoils them further. An input that fails is written there as ``found-…``, to be kept with the fix.
``KALSHI_FAST_FUZZ_EXAMPLES`` is the number of spoilt inputs for each target; ``make fuzz`` sets it high.
"""

from __future__ import annotations

import hashlib
import os
import random
import re
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import localcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import channels as channel_frames
import test_channels
from conftest import FEW
from frames import EXAMPLES
from kalshi_fast import config, wire
from kalshi_fast._decode import MAX_QTY_E2, price_e4, qty_e2, rfc3339_us
from kalshi_fast.auth import Signer
from kalshi_fast.batch import pack_extra, unpack_extra
from kalshi_fast.channels.backfill import filled_row
from kalshi_fast.channels.catalogue import Catalogue
from kalshi_fast.channels.rows import TABLES, arrow
from kalshi_fast.errors import FrameError, KalshiFastError, RestError, SimulatorError
from kalshi_fast.losses import Losses
from kalshi_fast.rest_bodies import PAGES, MarketPage, TradePage, Unread, error_text, read_page
from kalshi_fast.simulator.handshake import refusal
from kalshi_fast.simulator.recorded import RecordedMarkets
from test_auth import RSA
from test_decode import reference
from test_recorder import Rig
from test_wire import mutated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CORPUS = Path(__file__).with_name("corpus")
EXAMPLES_PER_TARGET = 40 if FEW else int(os.environ.get("KALSHI_FAST_FUZZ_EXAMPLES", "1000"))
MAX_BYTES = 300_000
NOW_MS = 1_669_149_841_000

Check: TypeAlias = "Callable[[bytes, Path], None]"


# --- targets: what is done with the bytes, and what must hold then ---------------------------------------


def fit_for_a_terminal(error: KalshiFastError) -> None:
    """One line, no control characters, of bounded length."""
    assert str(error).isprintable()
    assert len(str(error)) < 1000


def message(data: bytes, directory: Path) -> None:
    wire.unknown_keys(data)
    losses = Losses()
    try:
        decoded = wire.decode(data, losses)
    except FrameError as error:
        fit_for_a_terminal(error)
        return
    if isinstance(decoded, wire.Unknown):
        assert isinstance(decoded.type, str)
        return
    known = {kind: set(wire._BODY_FIELDS[kind].names) for kind in wire._BODY_FIELDS}
    assert all(name in {"sid", "seq", "id", "msg"} | known.get(kind, set()) for kind, name in losses.fields)
    if not losses.fields:  # read as a whole or field by field, it is the same message
        with suppress(RecursionError):
            assert wire.encode(wire._second_reading(data, ValueError(""), None)) == wire.encode(decoded)  # type: ignore[arg-type]
    # As text, because comparing what nests deeply needs more stack than decoding it.
    with suppress(RecursionError):
        text = wire.encode(decoded)
        again = wire.decode(text)
        assert not isinstance(again, wire.Unknown)
        assert wire.encode(again) == text


def command(data: bytes, directory: Path) -> None:
    try:
        decoded = wire.decode_command(data)
    except FrameError as error:
        fit_for_a_terminal(error)
        return
    assert wire.decode_command(wire.encode(decoded)) == decoded


def numbers(data: bytes, directory: Path) -> None:
    text = data.decode(errors="replace")
    with localcontext(prec=len(text) + 50):
        price = None if text.startswith("-") else reference(text, 4, 0, 10_000)
        size = reference(text, 2, -MAX_QTY_E2, MAX_QTY_E2)
    for parse, expected in ((price_e4, price), (qty_e2, size), (rfc3339_us, time_us(text))):
        try:
            value = parse(text)
        except FrameError as error:
            assert expected is None, (parse, text)
            fit_for_a_terminal(error)
        else:
            assert value == expected, (parse, text)


_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):(\d\d))", re.ASCII
)


def time_us(text: str) -> int | None:
    """What RFC 3339 means, by way of datetime; None for what is none, or not from 1970 to 2261."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    *parts, fraction, sign, hours, minutes = match.groups()
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    if (minutes and int(minutes) > 59) or not 1970 <= int(parts[0]) <= 2261:
        return None
    try:
        zone = timezone(-offset if sign == "-" else offset)
        year, month, day, hour, minute, second = map(int, parts)
        moment = datetime(year, month, day, hour, minute, second, tzinfo=zone)
    except ValueError:
        return None
    since = moment - datetime(1970, 1, 1, tzinfo=timezone(timedelta(0)))
    value = since // timedelta(microseconds=1) + int((fraction or "").ljust(6, "0")[:6])
    return value if value >= 0 else None


def recorder(data: bytes, directory: Path) -> None:
    """Lines are frames of one connection; the rows must tell the books whatever they are."""
    rig = Rig(seal_rows=50)
    for line in data.split(b"\n")[:200]:
        with suppress(KalshiFastError):
            rig.feed(line)
    rig.check()


def channels(data: bytes, directory: Path) -> None:
    """Lines are frames of the other channels; whatever becomes a row fits its columns."""
    rig = test_channels.Rig()
    for line in data.split(b"\n")[:200]:
        rig.feed(line)
    packed = pack_extra([], [], rig.rows)
    for table in TABLES:
        rows = getattr(unpack_extra(packed).channels, table)
        assert rows == getattr(rig.rows, table)
        if rows:
            arrow(table, rows).validate(full=True)
    assert len({row.trade_id for row in rig.rows.trades}) == len(rig.rows.trades)
    for reason in rig.rejected:
        assert reason.isprintable()
        assert len(reason) < 1000


def rest(data: bytes, directory: Path) -> None:
    """An answer of REST."""
    error_text(data).encode()
    unread = Unread()
    for page in PAGES:
        try:
            read_page(data, page, unread)
        except RestError as error:
            fit_for_a_terminal(error)
    with suppress(RestError):
        for trade in read_page(data, TradePage, unread).trades:
            try:
                arrow("trades", [filled_row(trade, 5)]).validate(full=True)
            except KalshiFastError as error:
                fit_for_a_terminal(error)
    with suppress(RestError):
        catalogue = Catalogue()
        for market in read_page(data, MarketPage, unread).markets:
            row = catalogue.learn(market, 5)
            assert row is not None
            arrow("markets", [row]).validate(full=True)
    assert unread.sentence().isprintable()


def env(data: bytes, directory: Path) -> None:
    file = directory / ".env"
    file.write_bytes(data)
    loads({}, env_file=file)


def toml(data: bytes, directory: Path) -> None:
    file = directory / "kalshi-fast.toml"
    file.write_bytes(data)
    loads({}, toml_file=file)


def setting(data: bytes, directory: Path) -> None:
    text = data.decode(errors="surrogateescape")
    for one in config.SETTINGS:
        loads({one.name: text})


def loads(
    flags: dict[str, str | None], *, env_file: Path | None = None, toml_file: Path | None = None
) -> None:
    try:
        config.load(flags, environ={}, env_file=env_file, toml_file=toml_file)
    except KalshiFastError as error:
        fit_for_a_terminal(error)


def key(data: bytes, directory: Path) -> None:
    file = directory / "key.pem"
    file.write_bytes(data)
    file.chmod(0o600)
    try:
        Signer.from_file("id", file).headers(NOW_MS)
    except KalshiFastError as error:
        fit_for_a_terminal(error)


def handshake(data: bytes, directory: Path) -> None:
    """Lines are headers."""
    lines = data.decode(errors="surrogateescape").split("\n")
    headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
    refused = refusal(headers, {"id": RSA.public_key()}, NOW_MS)
    assert refused is None or all(isinstance(part, str) for part in refused)


def recorded(data: bytes, directory: Path) -> None:
    (directory / "part.parquet").write_bytes(data)
    try:
        source = RecordedMarkets(directory, "current")
    except SimulatorError as error:
        fit_for_a_terminal(error)
        return
    while (change := source.step(0)) is not None:
        kind = wire.OrderbookSnapshot if change.type == b"orderbook_snapshot" else wire.OrderbookDelta
        frame = b'{"type":"%b","sid":1,"seq":1,"msg":%b}' % (change.type, change.body)
        assert type(wire.decode(frame)) is kind


# --- accidents -------------------------------------------------------------------------------------------

Accident: TypeAlias = "Callable[[random.Random, bytes, Sequence[bytes]], bytes]"

_NUMBER = re.compile(rb"[-+]?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_PAIR = re.compile(rb'"[^"\\]{0,40}":(?:"[^"\\]{0,80}"|-?[0-9]+|true|false|null)')
_STRANGE_NUMBERS = (
    b"-0",
    b"-0.0000",
    b"1e400",
    b"1E-400",
    b"1e5",
    b"00001",
    b"0x10",
    b"1_000",
    b"NaN",
    b"-Infinity",
    b"1.",
    b".5",
    b"+1",
    b"1.0000000000000000000000000000000000001",
    b"0.30000000000000004",
    b"2147483648",
    b"4294967295",
    b"4294967296",
    b"9223372036854",
    b"9223372036854775807",
    b"9223372036854775808",
    b"-9223372036854775808",
    b"18446744073709551615",
    b"18446744073709551616",
    b"1000000000000.00",
    b"1000000000000.01",
    b"9" * 400,
    b"9" * 5000,
    b"0." + b"0" * 5000,
    "٣".encode(),
)
_STRANGE_TEXT = (
    b"\x00",
    b"\xef\xbb\xbf",
    b"\xff",
    b"\xed\xa0\x80",
    b"\\ud800",
    b"\\u0000",
    b"\r",
    b"\n",
    b'"',
    b"'",
    b"\\",
    b"{}",
    b"null",
    b"${HOME}",
    b"~root/",
    b"[[",
    b"=",
    b"1979-05-27",
    b"-----BEGIN PRIVATE KEY-----",
    "\u2028\U0001f600é".encode(),
)


def flips(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    return mutated(rng, data)


def cut(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def line_again(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    lines = data.split(b"\n")
    lines.insert(rng.randrange(len(lines) + 1), rng.choice([*lines, *rng.choice(seeds).split(b"\n")]))
    return b"\n".join(lines)


def strange_number(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    found = list(_NUMBER.finditer(data))
    start, end = rng.choice(found).span() if found else (0, 0)
    return data[:start] + rng.choice(_STRANGE_NUMBERS) + data[end:]


def strange_text(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(_STRANGE_TEXT) + data[at:]


def key_twice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    pairs = list(_PAIR.finditer(data))
    if not pairs:
        return data + data
    at = rng.choice(pairs).start()
    again = rng.choice([*pairs, *_PAIR.finditer(rng.choice(seeds))]).group()
    return data[:at] + again + b"," + data[at:]


def nested(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """One value becomes the innermost of many arrays or objects."""
    depth = rng.choice((1, 2, 30, 900, 1100, 30_000))
    opening, closing = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}")))
    pairs = list(_PAIR.finditer(data)) or list(_NUMBER.finditer(data))
    start, end = rng.choice(pairs).span() if pairs else (0, len(data))
    start += data[start:end].find(b":") + 1
    closings = closing * (depth if rng.random() < 0.8 else 0)
    return data[:start] + opening * depth + data[start:end] + closings + data[end:]


def many(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """A few bytes, very often."""
    at = rng.randrange(len(data) + 1)
    piece = data[at : at + rng.randint(1, 4)] or b"9"
    return data[:at] + piece * rng.choice((2, 100, 300, 5000)) + data[at:]


ACCIDENTS: tuple[Accident, ...] = (
    flips,
    cut,
    splice,
    line_again,
    strange_number,
    strange_text,
    key_twice,
    nested,
    many,
)


@st.composite
def spoilt(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    data = draw(st.sampled_from(seeds))
    for accident in draw(st.lists(st.sampled_from(ACCIDENTS), max_size=4)):
        rng = random.Random(draw(st.integers(0, 2**32 - 1)))
        data = accident(rng, data, seeds)[:MAX_BYTES]
    return data


# --- the tests -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target:
    check: Check
    cost: int = 1  # one example of this target stands for so many of the others
    fresh: tuple[bytes, ...] = ()  # seeds that are no files: private keys and what is signed with them

    @property
    def name(self) -> str:
        return self.check.__name__

    def files(self) -> list[Path]:
        return sorted((CORPUS / self.name).iterdir())

    def seeds(self) -> list[bytes]:
        return [*self.fresh, *(file.read_bytes() for file in self.files())]


def _good_headers() -> bytes:
    headers = Signer("id", RSA).headers(NOW_MS)
    return "\n".join(f"{name}: {value}" for name, value in headers.items()).encode()


KEYS = tuple(
    RSA.private_bytes(Encoding.PEM, form, NoEncryption())
    for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL)
)
CHANNEL_FRAMES = (
    channel_frames.trade(1, 1, no_price_dollars="0.6400", yes_price=36, count=1, ts=5),
    channel_frames.ticker("A", price_dollars="0.4800", yes_bid=45, volume_fp="33896.00", dollar_volume=16948),
    channel_frames.event(
        *(1, "A", "created"),
        open_ts=5,
        price_ranges=[{"start": "0.0000", "end": "1.0000", "step": "0.0100"}],
        settlement_value="1.0000",
        additional_metadata={"title": "t", "floor_strike": 4487.99, "cap_strike": 5, "event_ticker": "E"},
    ),
    channel_frames.trade(1, 1) + b"\n" + channel_frames.trade(3, 2),
)
REST_ANSWERS = (
    b'{"trades":[{"trade_id":"d91bc706-ee49-470d-82d8-11418bda6fed","ticker":"A","taker_side":"no",'
    b'"count":2,"created_time":"2026-01-01T00:00:00.123456Z","yes_price":36,"count_fp":"2.00",'
    b'"yes_price_dollars":"0.3600","no_price_dollars":"0.6400","is_block_trade":false}],"cursor":""}',
    b'{"markets":[{"ticker":"A","title":"t","floor_strike":4487.99,"cap_strike":null,'
    b'"open_time":"2026-01-01T00:00:00Z","price_ranges":[{"start":"0.0000","end":"1.0000",'
    b'"step":"0.0100"}],"settlement_value_dollars":"1.0000"}]}',
)
COMPILED = (
    Target(message, fresh=tuple(EXAMPLES.values())),
    Target(numbers),
    Target(recorder, cost=4),
)
OTHERS = (
    Target(channels, cost=4, fresh=CHANNEL_FRAMES),
    Target(rest, cost=2, fresh=REST_ANSWERS),
    Target(command),
    Target(env),
    Target(toml, cost=4),
    Target(setting, cost=2),
    Target(key, cost=3, fresh=KEYS),
    Target(handshake, fresh=(_good_headers(),)),
    Target(recorded, cost=8),
)


def kept(targets: Sequence[Target]) -> list[object]:
    return [
        pytest.param(target, file, id=f"{target.name}/{file.name}")
        for target in targets
        for file in target.files()
    ]


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


def run_spoilt(target: Target, scratch: Path) -> None:
    last = b""

    @settings(
        max_examples=max(20, EXAMPLES_PER_TARGET // target.cost),
        deadline=None,
        database=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(spoilt(target.seeds()))
    def run(data: bytes) -> None:
        nonlocal last
        last = data
        target.check(data, scratch)

    try:
        run()
    except BaseException:
        # Hypothesis has run the smallest one that fails at last.
        found = CORPUS / target.name / f"found-{hashlib.sha256(last).hexdigest()[:12]}"
        found.write_bytes(last)
        raise


@pytest.mark.parametrize(("target", "file"), kept(COMPILED))
def test_kept_inputs_of_compiled_code(target: Target, file: Path, scratch: Path) -> None:
    target.check(file.read_bytes(), scratch)


@pytest.mark.parametrize("target", COMPILED, ids=lambda target: target.name)
def test_spoilt_inputs_of_compiled_code(target: Target, scratch: Path) -> None:
    run_spoilt(target, scratch)


@pytest.mark.parametrize(("target", "file"), kept(OTHERS))
def test_kept_inputs(target: Target, file: Path, scratch: Path) -> None:
    target.check(file.read_bytes(), scratch)


@pytest.mark.parametrize("target", OTHERS, ids=lambda target: target.name)
def test_spoilt_inputs(target: Target, scratch: Path) -> None:
    run_spoilt(target, scratch)
