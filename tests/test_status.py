"""The parts of the status process on their own: what is made of what it is told, and what is well."""

from __future__ import annotations

import json
import logging
import re
import socket
import subprocess
import sys
import threading
import uuid
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from kalshi_fast import logs
from kalshi_fast._columns import CLEAR, DELTA, GAP, SNAPSHOT
from kalshi_fast.config import Settings
from kalshi_fast.errors import ConfigError
from kalshi_fast.front import bounded, incoming
from kalshi_fast.lags import LE_NS, Lags
from kalshi_fast.ring import Ring
from kalshi_fast.status.figures import (
    AskLadder,
    Capture,
    Connection,
    Histogram,
    Ladder,
    MarketRow,
    Markets,
    Message,
    Writing,
    decode,
    encode,
)
from kalshi_fast.status.health import REASONS, reasons
from kalshi_fast.status.http import StatusServer
from kalshi_fast.status.metrics import exposition
from kalshi_fast.status.publish import Publisher
from kalshi_fast.status.seen import Seen, histogram
from kalshi_fast.status.state import UNKNOWN_S, State, percentile_us

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
S = 1_000_000_000


class World:
    """A state, its clock, and what it has asked for."""

    def __init__(self) -> None:
        self.now = 100.0
        self.asked: list[str] = []
        self.answer: Callable[[str], Ladder | None] = lambda ticker: None
        self.state = State(self._ask, clock=lambda: self.now)

    def _ask(self, message: AskLadder) -> None:
        self.asked.append(message.ticker)

    def capture(self, **changes: Any) -> None:  # noqa: ANN401 - fields of the struct
        """A capture process that is well, but for the changes."""
        well: dict[str, Any] = {
            "pid": 1,
            "at_ns": int(self.now * S),
            "started_ns": 50 * S,
            "version": "9",
            "writer_pid": 7,
            "connections": [Connection(up=True, markets=2, last_frame_ns=S)],
            "markets_wanted": 2,
            "markets_known": 2,
        }
        self.state.hear(Capture(**(well | changes)))

    def writing(self, **changes: Any) -> None:  # noqa: ANN401 - fields of the struct
        well: dict[str, Any] = {
            "pid": 7,
            "at_ns": int(self.now * S),
            "journal_bytes": 10,
            "journal_max_bytes": 100,
            "journal_batches": 0,
            "journal_error": "",
            "rows": {"ClickHouse": 0},
            "errors": {},
            "histograms": {},
            "inserts": {},
        }
        self.state.hear(Writing(**(well | changes)))

    @property
    def reasons(self) -> dict[str, str]:
        return dict(reasons(self.state))


def test_a_recording_that_is_well() -> None:
    world = World()
    assert world.reasons.keys() == {"starting"}
    world.capture()
    world.writing()
    assert world.reasons == {}


@pytest.mark.parametrize(
    ("what", "sentence", "capture", "writing"),
    [
        ("connection", "no connection", {"connections": [Connection(False, 2, 0)]}, {}),
        ("connection", "no connection", {"connections": []}, {}),
        ("paused", "buffers are full", {"paused": True}, {}),
        ("writer", "dead", {"writer_pid": 0}, {}),
        ("writer", "started again", {"writer_pid": 8}, {}),
        ("store", "ClickHouse: away", {}, {"errors": {"ClickHouse": "away"}}),
        ("journal", "no space", {}, {"journal_error": "no space"}),
        ("journal", "91 of 100 bytes", {}, {"journal_bytes": 91}),
        ("channels", "recorded: trade, ticker", {"channels_refused": ["trade", "ticker"]}, {}),
        ("closing", "is ending", {"closing": True, "channels_refused": ["trade"]}, {}),
        ("closing", "is ending", {"closing": True, "connections": []}, {}),
    ],
)
def test_what_is_wrong_is_told(
    what: str, sentence: str, capture: dict[str, Any], writing: dict[str, Any]
) -> None:
    world = World()
    world.capture(**capture)
    world.writing(**writing)
    assert world.reasons.keys() == {what}
    assert sentence in world.reasons[what]
    assert what in REASONS


def test_a_channel_whose_frames_are_rejected_or_lose_fields_is_told_while_it_lasts() -> None:
    world = World()

    def say(frames: int, rejected: int, lossy: int) -> dict[str, str]:
        world.now += 10
        world.capture(
            at_ns=10**12,
            started_ns=10**12,
            channel_frames={"ticker": frames, "trade": 50},
            rejected_frames={"ticker": rejected},
            lossy_frames={"ticker": lossy},
            lost_fields={"ticker": {"dollar_volume": lossy}} if lossy else {},
        )
        world.writing()
        return world.reasons

    assert say(100, 0, 0) == {}
    assert say(200, 4, 5) == {}, "nine are not many"
    assert say(1500, 5, 10) == {}, "one in a hundred is not many"
    told = say(1600, 15, 110)
    assert told.keys() == {"frames"}
    assert (
        "ticker: of 1600 frames of the last 5 minutes 15 were rejected and 110 lost fields" in told["frames"]
    )
    assert "ticker.dollar_volume 110" in told["frames"]
    for _ in range(31):
        told = say(1600, 15, 110)
    assert told == {}, "it is over"
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(world.state))
        for sample in family.samples
    }
    assert samples["kalshi_fast_channel_frames_total", "trade"] == 50
    assert samples["kalshi_fast_rejected_frames_total", "trade"] == 0
    assert samples["kalshi_fast_lossy_frames_total", "ticker"] == 110
    assert samples["kalshi_fast_lost_fields_total", "ticker", "dollar_volume"] == 110


def test_silence_is_told() -> None:
    world = World()
    world.capture()
    world.writing()
    world.now += 5.1
    assert world.reasons.keys() == {"capture", "writer"}
    world.capture()
    assert world.reasons.keys() == {"writer"}
    world.writing()
    assert world.reasons == {}


def test_books_that_are_repaired_in_time_are_no_failure_and_others_are() -> None:
    world = World()

    def pass_by(seconds: float, known: int) -> None:
        for _ in range(int(2 * seconds)):
            world.now += 0.5
            world.capture(markets_known=known)
            world.writing()

    pass_by(UNKNOWN_S - 2, 1)
    assert world.reasons == {}
    pass_by(1, 2)
    pass_by(UNKNOWN_S - 1, 0)
    assert world.reasons == {}, "a moment at which all were known begins it anew"
    pass_by(2, 1)
    assert world.reasons["books"].startswith("at least 1 of 2 books")
    pass_by(1, 2)
    assert world.reasons == {}


def test_history_has_rates_and_the_lags_of_its_second() -> None:
    world = World()

    def lags(fast: int, slow: int) -> dict[str, Histogram]:
        made = Lags()
        made.add(np.array([15_000_000] * fast + [150_000_000] * slow))
        return {"wire_to_queryable": histogram(made)}

    world.writing(rows={"ClickHouse": 100}, histograms=lags(100, 0))
    world.capture(frames=1000, events=2000)
    world.now += 2
    world.writing(rows={"ClickHouse": 500}, histograms=lags(100, 100))
    world.capture(frames=1500, events=2600, queue_batches=3)
    (point,) = world.state.history
    assert (point.frames, point.events, point.rows) == (250, 300, {"ClickHouse": 200})
    assert point.queue_batches == 3
    assert point.queryable_p50_us is not None
    assert 100_000 < point.queryable_p50_us <= 200_000, "the fast ones were before"
    assert point.to_row_p50_us is None


def test_a_new_writer_counts_on_and_keeps_what_is_known() -> None:
    world = World()
    world.capture()
    world.writing()
    world.state.hear(Markets(7, 0, [MarketRow("A", 10, 1, True, 5, 6, 7)]))
    world.writing(pid=8)
    world.now += 1
    world.state.hear(Markets(8, 0, [MarketRow("A", 3, 0, False, 0, 9, 7)]))
    (market,) = world.state.markets()
    assert (market["events"], market["gaps"], market["known"], market["since_ns"]) == (13, 1, True, 5)
    world.now += 1
    world.state.hear(Markets(8, 0, [MarketRow("A", 5, 1, False, 12, 12, 7)]))
    (market,) = world.state.markets()
    assert (market["events"], market["gaps"], market["known"]) == (15, 2, False)
    assert market["events_per_s"] == pytest.approx(5 / 2, abs=1)
    world.now += 10
    assert world.state.markets()[0]["events_per_s"] == 0


def test_ladders_are_asked_for_once_in_a_while() -> None:
    world = World()

    def ask(message: AskLadder) -> None:
        world.asked.append(message.ticker)
        state = world.state
        state._ladders[message.ticker] = (world.now, Ladder(message.ticker, 1, recorded=True))

    world.state._ask = ask
    for _ in range(5):
        found = world.state.ladder("A")
        assert found is not None
        assert found.recorded
    assert world.asked == ["A"]
    answers = [world.state.ladder(f"B{number}") for number in range(50)]
    assert len(world.asked) <= 20, "whoever asks for everything does not load the capture process"
    assert answers[-1] is None
    world.now += 1.1
    assert world.state.ladder("C") is not None


# --- what is told ------------------------------------------------------------------------------------

messages = st.one_of(
    st.builds(Capture, *(st.integers(0, 2**62) for _ in range(3)), st.text(), rejected=st.just({"x": 1})),
    st.builds(Ladder, st.text(), st.integers(0, 2**62), st.booleans()),
    st.builds(AskLadder, st.text()),
)


@given(messages)
def test_messages_come_as_they_went(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(datagram: bytes) -> None:
    try:
        message = decode(datagram)
    except msgspec.DecodeError:
        return
    assert isinstance(message, Message)


events = st.lists(
    st.tuples(
        st.sampled_from([SNAPSHOT, DELTA, CLEAR, GAP]),
        st.integers(0, 5),  # market
        st.integers(0, 10_000),  # ms by which it was late
    ),
    max_size=60,
)


@given(st.lists(events, max_size=4))
def test_markets_are_what_their_rows_say(batches: list[list[tuple[int, int, int]]]) -> None:
    ring = Ring.create(64, 4, uuid.uuid4())
    seen, now_ns = Seen(), 1_000 * S
    model: dict[int, dict[str, int]] = {}
    said: dict[str, MarketRow] = {}
    lags: Counter[int] = Counter()
    for batch in batches:
        slot = ring.claim()
        assert slot is not None
        ring.add_names([f"M{ix}" for ix in range(6)], [], (0, 0))
        ring.seal(slot, 1, events=len(batch), levels=0, names=(6, 0), extra=b"")
        sealed = ring.peek()
        assert sealed is not None
        for row, (kind, market, late_ms) in enumerate(batch):
            now_ns += 1_000_000
            columns = sealed.event_arrays
            columns["type"][row], columns["market_ix"][row] = kind, market
            columns["ingest_ns"][row], columns["ts_us"][row] = now_ns, now_ns // 1000 - late_ms * 1000
            one = model.setdefault(market, {"events": 0, "gaps": 0, "known": 0, "lag_us": 0, "last_ns": 0})
            one["events"] += 1
            one["gaps"] += kind == GAP
            one["known"] = int(kind == CLEAR) if kind in (CLEAR, GAP) else one["known"]
            one["last_ns"] = now_ns
            if kind == DELTA:
                one["lag_us"] = late_ms * 1000
                lags[late_ms] += 1
        seen.add(sealed, now_ns)
        ring.release()
        for given_up in (True, False):
            while rows := seen.changed(ring.tickers, 2):
                if given_up:
                    seen.put_back()
                    break
                said |= {row.ticker: row for row in rows}
    assert {
        ticker: {
            "events": r.events,
            "gaps": r.gaps,
            "known": r.known,
            "lag_us": r.lag_us,
            "last_ns": r.last_ns,
        }
        for ticker, r in said.items()
    } == {f"M{market}": one for market, one in model.items()}
    counts = seen.to_wire.cumulative()
    assert counts == [sum(n for ms, n in lags.items() if ms * 1_000_000 <= le) for le in LE_NS]
    assert seen.to_wire.total_ns == sum(ms * 1_000_000 * n for ms, n in lags.items())


def test_percentiles_lie_in_their_bucket() -> None:
    assert percentile_us(None, 50) is None
    assert percentile_us([0] * len(LE_NS), 50) is None
    counts = [0] * (len(LE_NS) + 1)
    counts[3] = 10
    found = percentile_us(counts, 50)
    assert found is not None
    assert LE_NS[2] < found * 1000 <= LE_NS[3]
    counts = [0] * len(LE_NS) + [5]  # longer than all bounds
    assert percentile_us(counts, 99) == LE_NS[-1] / 1000


# --- the endpoint ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def address() -> Iterator[tuple[str, int]]:
    """A server whose recorder has told a little."""
    world = World()
    world.capture()
    world.writing()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = StatusServer(listening, world.state)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield listening.getsockname()
        server.shutdown()
        thread.join()


paths = st.one_of(
    st.sampled_from(["/", "/metrics", "/healthz", "/api/status", "/api/markets", "/api/ladder"]),
    st.text(st.characters(codec="latin-1"), max_size=30).map("/{}".format),
)
fields = st.text(st.characters(codec="latin-1"), max_size=40)
heads = st.builds("{} {}?since={}&limit={}&market={} {}\r\n{}: {}\r\n\r\n".format, *(
    st.sampled_from(["GET", "HEAD", "POST", "get", ""]), paths, fields, fields, fields,
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2", ""]),
    st.sampled_from(["Host", "Content-Length", "Transfer-Encoding", "X"]), fields,
))  # fmt: skip


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(heads.map(lambda text: text.encode("latin-1")), st.binary(max_size=200)))
def test_whatever_is_asked_it_goes_on(
    address: tuple[str, int], caplog: pytest.LogCaptureFixture, request_bytes: bytes
) -> None:
    with socket.create_connection(address, timeout=20) as connection:
        connection.sendall(request_bytes)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        with suppress(ConnectionError):
            while part := connection.recv(65_536):
                answer += part
    assert b"Traceback" not in answer
    status = re.match(rb"HTTP/1\.1 (\d{3}) ", answer)
    assert status is None or int(status[1]) in {200, 400, 403, 404, 411, 413, 414, 431, 501, 503, 505}
    assert caplog.records == [], "nothing of it is a surprise"


def test_who_is_slow_or_one_too_many_is_let_go(
    address: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming, "IDLE_S", 0.3)
    monkeypatch.setattr(incoming, "REQUEST_S", 0.3)
    for data in (b"", b"GET /metrics HTTP/1.1\r\nA:", b"GET / HTTP/1.1\r\nContent-Length: 9\r\n\r\nabc"):
        with socket.create_connection(address, timeout=20) as connection:
            connection.sendall(data)
            assert connection.recv(100) == b""
    monkeypatch.setattr(bounded, "MAX_CONNECTIONS", 0)
    with socket.create_connection(address, timeout=20) as connection, suppress(ConnectionResetError):
        assert connection.recv(100) == b""


# --- metrics, documents, logs ------------------------------------------------------------------------


def test_labels_that_are_not_harmless_are_escaped() -> None:
    world = World()
    world.capture(rejected={'a "field"\\\n': 3})
    families = {family.name: family for family in text_string_to_metric_families(exposition(world.state))}
    (sample,) = families["kalshi_fast_frames_rejected"].samples
    assert (sample.labels, sample.value) == ({"reason": 'a "field"\\\n'}, 3)


def test_before_the_recorder_speaks_only_health_is_told() -> None:
    assert "kalshi_fast_healthy 0" in exposition(World().state)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_secrets_are_blotted_out(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = logging.root.handlers[:]
    try:
        told = Settings(prod_keyid="key-id-1234", clickhouse_password='pass"word', log_format=log_format)
        logs.configure(told)
        log = logging.getLogger("kalshi_fast.test")
        log.warning("sent %s as %s", "key-id-1234", 'pass"word')
        try:
            raise ValueError("key-id-1234")
        except ValueError:
            log.exception("it broke")
        logs.tell(told, "listening")
    finally:
        logging.root.handlers = before
    said = capsys.readouterr().err
    assert "key-id-1234" not in said
    assert "word" not in said
    assert said.count("***") == 4
    if log_format == "json":
        first, second, third = (json.loads(line) for line in said.splitlines())
        assert first["message"] == "sent *** as ***"
        assert first["level"] == "WARNING"
        assert "ValueError: ***" in second["exception"]
        assert third["message"] == "listening"


def test_an_address_that_cannot_be_listened_on_is_one_sentence() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"HTTP_LISTEN: 127\.0\.0\.1:\d+ cannot be listened on"):
            Publisher(Settings(http_listen=("127.0.0.1", taken.getsockname()[1])))


def test_the_page_asks_nobody_else() -> None:
    page = (ROOT / "src" / "kalshi_fast" / "status" / "page.html").read_text()
    assert "://" not in page.replace('"http://www.w3.org/2000/svg"', "")
    assert "src=" not in page
    assert "innerHTML" not in page, "names from outside are text, never markup"


def test_top_without_a_recording_is_one_sentence(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    done = subprocess.run(
        [sys.executable, "-m", "kalshi_fast", "top", "--once", "--http", address],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"http://{address}: no answer" in done.stderr


@pytest.mark.parametrize("arguments", [[], ["A", "--ticker", "B"], ["A,B"]])
def test_watch_wants_one_market(arguments: list[str], tmp_path: Path, key_file: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "kalshi_fast", "watch", *arguments),
            *("--prod-keyid", "x", "--prod-keyfile", str(key_file)),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("kalshi-fast: TICKER: expected one market")


def test_markets_that_are_over_are_forgotten() -> None:
    world = World()

    def told(ticker: str, *, known: bool) -> None:
        row = MarketRow(ticker, 1, 0, known, 1, 1, 1)
        world.state.hear(Markets(7, 0, [row]))

    for _ in range(10):
        told("OVER", known=False)
        told("QUIET", known=True)
        world.now += 1
    world.now += 86_400
    told("NEW", known=True)
    world.now += 60
    told("NEW", known=True)
    assert {market["ticker"] for market in world.state.markets()} == {"QUIET", "NEW"}
