"""The benchmark suite measures what it says: all contenders see the same events and end with the same books,
the object on the last line has what is promised, a missing library is a null and a line, the gate holds."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import pytest
from benchmarks import instructions as gate

from kalshi_fast._bench import Frames, LagProbe, overslept_ns, pace
from kalshi_fast._columns import DELTA, SNAPSHOT, EventColumns
from kalshi_fast._decode import rfc3339_us
from kalshi_fast.bench import command, inprocess, latency, peers, plot, sockets, tables
from kalshi_fast.bench.instructions import Count, CountError, judged
from kalshi_fast.bench.options import PARTS
from kalshi_fast.bench.results import Results
from kalshi_fast.bench.rig import Rig, WrongResultError
from kalshi_fast.bench.rounds import Contender, Sample, Samples, Timed, interleaved
from kalshi_fast.bench.seed_style import SeedStyleRecorder
from kalshi_fast.bench.sender import Play
from kalshi_fast.bench.sending import SenderError, sending
from kalshi_fast.bench.workload import (
    N_MARKETS,
    N_WARM,
    WARM_DELTAS,
    made_frames,
    on_the_wire,
    tickers,
    time_of,
    untimed_wire,
)
from kalshi_fast.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from kalshi_fast.ring import SealedSlot

PROMISED = (
    "pipeline_ns_per_frame",
    "ratio_seed_pipeline",
    "ratio_msgspec_decode",
    "ratio_ws_noop",
    "ratio_wss_noop",
    "ratio_websockets",
    "latency_p50_us",
    "latency_p999_us",
    "instructions_per_frame",
)
Levels = dict[str, tuple[dict[int, int], dict[int, int]]]


@pytest.fixture(scope="module")
def frames() -> list[bytes]:
    return made_frames(WARM_DELTAS + 3_000)


@pytest.fixture(scope="module")
def ours(frames: list[bytes]) -> tuple[Rig, list[tuple[Any, ...]]]:
    """The rig after all frames, and (type, market, side, price, quantity, seq) of every row it sealed."""
    rows: list[tuple[Any, ...]] = []

    def look(sealed: SealedSlot) -> None:
        names = ("type", "market_ix", "side", "price_e4", "qty_e2", "seq")
        rows.extend(
            zip(*(sealed.event_arrays[name][: sealed.events].tolist() for name in names), strict=True)
        )

    rig = Rig(tickers(), look)
    rig.warm(frames[:N_WARM])
    rig.drive(Frames(frames[N_WARM:]))
    rig.recorder.seal()
    rig.check(len(frames))
    return rig, rows


def our_books(rig: Rig) -> Levels:
    """On the scale of the frames, where a no price is told as a yes price: nobody else turns it round."""
    return {
        ticker: (dict(sides[0]), {10_000 - price: size for price, size in sides[1]})
        for ticker, market in rig.books.by_ticker.items()
        if (sides := market.book.ladders())
    }


def test_the_seed_style_recorder_ends_with_the_same_books_and_rows(
    frames: list[bytes], ours: tuple[Rig, list[tuple[Any, ...]]]
) -> None:
    rig, rows = ours
    seed = SeedStyleRecorder(orjson.loads)
    theirs: list[tuple[Any, ...]] = []
    for frame in frames:
        before = len(seed.events)
        seed.on_frame(frame)
        # A batch that is full is sealed within a frame: its last rows are gone from the list then.
        theirs += [
            (row["type"], row["market_ticker"], row["side"], row["price"], row["qty"], row["seq"])
            for row in seed.events[before:]
        ]
    books = {ticker: (sides["yes"], sides["no"]) for ticker, sides in seed.books.items()}
    assert books == our_books(rig)
    kinds, names = {SNAPSHOT: "snapshot", DELTA: "delta"}, rig.books.tickers
    mine = {
        (kinds[kind], names[ix], ("yes", "no")[side], 10_000 - price if side else price, qty, seq)
        for kind, ix, side, price, qty, seq in rows
        if kind in kinds
    }
    assert len(theirs) > len(frames)
    assert set(theirs) <= mine
    assert len(mine) == seed.rows + len(seed.events)


def test_pykalshi_ends_with_the_same_books(
    frames: list[bytes], ours: tuple[Rig, list[tuple[Any, ...]]]
) -> None:
    theirs = inprocess.PykalshiBooks()
    for frame in frames:
        theirs.on_frame(frame)
    books = {
        ticker: tuple(
            {int(Decimal(price) * 10_000): int(Decimal(size) * 100) for price, size in side.items()}
            for side in (book.yes, book.no)
        )
        for ticker, book in theirs.books.items()
    }
    assert books == our_books(ours[0])


def test_every_contender_in_process_does_its_round(frames: list[bytes]) -> None:
    contenders = [*inprocess.pipelines(frames), *inprocess.stages()]
    samples = interleaved(contenders, 1, lambda _: None)
    for contender in contenders:
        figure = samples.figure(contender.name)
        assert figure is not None
        assert figure.low > 0


def test_a_round_in_which_a_frame_was_not_used_does_not_count(frames: list[bytes]) -> None:
    spoilt = [*frames[:N_WARM], frames[N_WARM + 1]]  # one number is missing
    _, check = prepared = inprocess.ours(spoilt)
    prepared[0]()
    with pytest.raises(WrongResultError, match="none unusable"):
        check()


def test_frames_on_the_wire_get_their_time(frames: list[bytes]) -> None:
    wire = on_the_wire(frames[-1])
    ts_us = 1_795_000_123_000_456
    timed = untimed_wire(wire) + time_of(ts_us)
    payload = timed[4:]
    assert timed == on_the_wire(payload)
    before, after = orjson.loads(frames[-1]), orjson.loads(payload)
    assert rfc3339_us(after["msg"]["ts"]) == ts_us
    assert after["msg"]["ts_ms"] == ts_us // 1000
    assert payload.endswith(b"}}\n")
    assert frames[-1].endswith(b"}}\n")
    for message in (before, after):
        message["msg"].pop("ts")
        message["msg"].pop("ts_ms", None)
    assert before == after


@pytest.mark.parametrize("group", [1, 2])
def test_the_compiled_sender_writes_what_the_frame_would_be(frames: list[bytes], group: int) -> None:
    ours, theirs = socket.socketpair()
    heads = [untimed_wire(on_the_wire(frame)) for frame in frames[-5:]]
    late_ns = np.zeros(5, np.int64)
    start_us = time.time_ns() // 1_000_000 * 1000 + 2_000
    instants = [start_us + 1000 * (i // group * group) for i in range(5)]
    with ours, theirs:
        pace(ours.fileno(), heads, start_us, 1000, group, late_ns, overslept_ns())
        assert time.time_ns() >= instants[-1] * 1000
        sent = theirs.recv(65_536)
    assert sent == b"".join(head + time_of(us) for head, us in zip(heads, instants, strict=True))
    assert (late_ns >= 0).all()
    with pytest.raises(OSError, match="Bad file descriptor"):
        pace(ours.fileno(), heads, start_us, 1000, 1, late_ns, -1)
    with pytest.raises(ValueError, match="at most 1000 bytes"):
        pace(-1, [bytes(1001)], start_us, 1000, 1, late_ns, -1)
    with pytest.raises(ValueError, match="groups of at most 64"):
        pace(-1, heads, start_us, 1000, 65, late_ns, -1)


def test_the_probe_counts_from_the_time_in_the_row_to_the_end_of_the_read() -> None:
    probe, events, others = LagProbe(3), EventColumns(4), EventColumns(4)
    probe.follow(events)
    events.add(SNAPSHOT, 1, 1, 1, 0, 0, 0, 5000, 1, 10, 1)
    events.add(DELTA, 1, 1, 2, 0, 0, 0, 5000, 1, 1_000_000, 1)
    probe.follow(others)  # sealed within a read: the row's time runs on
    others.add(DELTA, 1, 1, 3, 0, 0, 0, 5000, 1, 2_000_000, 1)
    assert len(probe.lags_ns()) == 0
    probe.end_of_read()
    first, second = probe.lags_ns().tolist()
    assert first - second == 1_000_000_000
    for seq in (4, 5):
        others.add(DELTA, 1, 1, seq, 0, 0, 0, 5000, 1, 1, 1)
    probe.end_of_read()
    assert probe.rows == 4
    assert len(probe.lags_ns()) == 3, "no more than it has room for"


def test_percentiles_are_of_all_lags_and_so_is_the_histogram() -> None:
    lags_ns = np.arange(1, 1001) * 1000
    found = latency.percentiles(lags_ns)
    assert (found["p50_us"], found["p99_us"], found["max_us"]) == (501.0, 991.0, 1000.0)
    counts = latency.histogram(lags_ns)
    assert sum(count for _, count in counts) == 1000
    assert all(bound > 0 for bound, _ in counts)


def test_rounds_of_a_variant_become_one() -> None:
    def found(us: float, realtime: bool) -> dict[str, Any]:
        figures = latency.percentiles(np.full(10, us * 1000))
        return {
            **figures,
            "histogram": latency.histogram(np.full(10, us * 1000)),
            "from_sent": figures,
            "sender_late": {**figures, "cpu": 1.0},
            "capture": {"realtime": realtime},
        }

    one = latency.combined([found(30, True), found(10, True), found(20, True)])
    assert (one["p50_us"], one["p999_us"], one["rounds"], one["realtime"]) == (20.0, 20.0, 3, True)
    assert one["spreads"]["max_us"] == [10.0, 30.0]
    assert one["from_sent"]["p99_us"] == one["sender_late"]["p99_us"] == 20.0
    assert [count for _, count in one["histogram"]] == [10, 10, 10]
    assert not latency.combined([found(1, True), found(1, False)])["realtime"]

    results = Results()
    assert results.as_json()["latency_p999_us"] is None
    untuned, tuned = latency.VARIANTS[0].name, latency.TUNED
    for name, us in ((untuned, 9.0), (tuned, 7.0)):
        results.latency[name] = latency.combined([found(us, name == tuned)])
        made = results.as_json()
        assert (made["latency_of"], made["latency_p50_us"]) == (name, us)
        assert made["spreads"]["latency_p50_us"] == [us, us]
        assert f"half of all rows ({name})" in tables.text(results)


def test_a_priority_that_is_refused_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody may take the figures without it for those with it."""

    def measured(_: object, variant: latency.Variant, *__: object) -> dict[str, Any]:
        figures = latency.percentiles(np.full(10, 5000))
        late = {**figures, "cpu": 1.0, "realtime": False}
        capture = {"realtime": False}
        return {**figures, "histogram": [], "from_sent": figures, "sender_late": late, "capture": capture}

    monkeypatch.setattr(latency, "measured", measured)
    results = command.measure(replace(command.QUICK, latency_s=0.01), ("latency",), lambda _: None)
    assert results.latency.keys() == {variant.name for variant in latency.QUICK if not variant.fifo}
    made = results.as_json()
    assert made["latency_of"] == latency.VARIANTS[0].name
    assert made["reasons"][latency.TUNED] == "real-time priority is not allowed here"
    (line,) = [line for line in tables.text(results).splitlines() if latency.TUNED in line]
    assert line.endswith("-  real-time priority is not allowed here")


@pytest.mark.parametrize("tls", [False, True])
def test_all_receivers_get_all_frames_from_the_sender(*, tls: bool) -> None:
    n = 2_000
    with sending(N_WARM + max(n, sockets.SLOW_FRAMES), tls=tls, core=None) as sender:
        contenders = sockets.contenders(sender, n)
        samples = interleaved(contenders, 1, lambda _: None)
        for contender in contenders:
            (sample,) = samples.by_name[contender.name]
            assert sample.sender_cpu_ns > 0
        for variant in (latency.Variant("x", tls=tls), latency.Variant("y", tls=tls, floor=True)):
            figures = latency.measured(sender, variant, 0.55, None)
            assert figures["p50_us"] >= figures["from_sent"]["p50_us"] > 0
            assert sum(count for _, count in figures["histogram"]) == round(0.05 * latency.RATE)


def test_a_sender_that_is_asked_for_more_than_it_has_says_so() -> None:
    with sending(10, tls=False, core=None) as sender:
        once = sockets.contenders(sender, 100)[2].once
        assert once is not None
        with pytest.raises(WrongResultError, match="the sender has ended the connection"):
            once()
        with pytest.raises(SenderError, match="asked for 50600 frames, has 10"):
            sender.report()


def test_the_command_ends_with_one_object_that_has_what_is_promised(tmp_path: Path) -> None:
    svg = tmp_path / "bench.svg"
    done = bench("--quick", "--json", "--only", "stages", "--plot", str(svg))
    made = json.loads(done.stdout.splitlines()[-1])
    assert made.keys() >= {*PROMISED, "spreads", "machine", "versions"}
    for key in PROMISED:
        assert made[key] is None
        assert made["reasons"][key] == "not asked for (--only)"
    figures = {row["name"]: row["median"] for row in made["ns_per_frame"]}
    assert figures[inprocess.BOOK] < figures[inprocess.BOOK_DICTS]
    assert svg.read_text().lstrip().startswith("<?xml")


def test_a_missing_library_is_null_and_says_how_to_install_it(tmp_path: Path) -> None:
    """The names are taken by modules that cannot be imported."""
    for module in ("orjson", "pykalshi", "simdjson"):
        (tmp_path / f"{module}.py").write_text("raise ImportError\n")
    made = json.loads(
        bench("--quick", "--json", "--only", "pipeline", first=tmp_path).stdout.splitlines()[-1]
    )
    assert made["pipeline_ns_per_frame"] > 0
    assert made["ratio_msgspec_decode"] > 0
    assert made["ratio_seed_pipeline"] is None
    assert made["ratio_pykalshi"] is None
    assert made["reasons"]["ratio_seed_pipeline"] == peers.why_not("orjson")
    assert "pip install 'kalshi-fast[bench]'" in made["reasons"]["ratio_pykalshi"]


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"--plot: .* cannot be written"):
        plot.require(tmp_path / "file" / "bench.svg")


def bench(*arguments: str, first: Path | None = None) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([*([str(first)] if first else []), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "kalshi_fast", "bench", *arguments],
        env={**os.environ, "PYTHONPATH": path.rstrip(os.pathsep)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_ratios_are_of_the_rounds_not_of_the_medians() -> None:
    """A slow minute of the machine that meets both is no difference between them."""
    ours_ns, floor_ns = (100.0, 200.0, 1000.0), (50.0, 110.0, 480.0)
    names = (sockets.named("ws", sockets.OURS), sockets.named("ws", sockets.FLOOR))
    samples = Samples(
        {
            name: [Sample(ns, ns, 1.0) for ns in all_ns]
            for name, all_ns in zip(names, (ours_ns, floor_ns), strict=True)
        }
    )
    results = Results()
    results.add([Contender("ws", name, lambda: Sample(1.0, 1.0)) for name in names], samples)
    made = results.as_json()
    assert made["ratio_ws_noop"] == 0.5
    assert made["spreads"]["ratio_ws_noop"] == [0.48, 0.55]
    assert made["ratio_wss_noop"] is None
    assert "0.50  of the frames/s of picows" in tables.text(results)
    assert f"| **{sockets.OURS}** | 200.0 | 100.0-1,000 |" in tables.markdown(results)


def test_only_the_work_of_a_round_is_timed() -> None:
    done: list[str] = []

    def prepare() -> Any:  # noqa: ANN401
        done.append("prepared")
        return lambda: done.append("worked"), lambda: done.append("checked")

    samples = interleaved([Contender("g", "n", Timed(10, prepare))], 2, lambda _: None)
    assert done == ["prepared", "worked", "checked"] * 3, "one round warms up"
    assert len(samples.by_name["n"]) == 2


# --- the gate ---------------------------------------------------------------------------------------

HERE = Count(1000.0, "gcc 12", "3.11.7", "3.3.1", "x86_64")


@pytest.mark.parametrize(
    ("committed", "good", "said"),
    [
        (1000.0, True, "+0.0%"),
        (975.0, True, "+2.6%"),
        (970.0, False, "FAILED: more than 3%"),
        (1100.0, True, "--update keeps it so"),
    ],
)
def test_the_gate_fails_when_instructions_have_grown(committed: float, *, good: bool, said: str) -> None:
    verdict, lines = judged(HERE, Count(committed, "gcc 12", "3.11.7", "3.3.1", "x86_64"))
    assert verdict is good
    assert said in "\n".join(lines)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (("clang 19", "3.11.7", "3.3.1", "x86_64"), "compiler clang 19, now gcc 12"),
        (("gcc 12", "3.12.1", "3.3.1", "x86_64"), "python 3.12.1, now 3.11.7"),
        (("gcc 12", "3.11.7", "3.2.0", "x86_64"), "cython 3.2.0, now 3.3.1"),
        (("gcc 12", "3.11.7", "3.3.1", "aarch64"), "arch aarch64, now x86_64"),
    ],
)
def test_the_gate_does_not_judge_what_other_tools_have_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], other: tuple[str, str, str, str], said: str
) -> None:
    file = tmp_path / "figure.json"
    Count(500.0, *other).write(file)
    assert gate.main(["--check", "--file", str(file)], counted=lambda: HERE) == 0
    out = capsys.readouterr().out
    assert f"SKIPPED: not judged, the committed figure was counted with other tools: {said}\n" in out
    assert "FAILED" not in out


def test_a_patch_of_python_is_the_same_tool() -> None:
    verdict, lines = judged(HERE, Count(500.0, "gcc 12", "3.11.14", "3.3.1", "x86_64"))
    assert not verdict
    assert "FAILED" in lines[1]


def test_the_gate_reads_a_committed_figure_and_refuses_what_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(what: str) -> int:
        return gate.main([what, "--file", str(file)], counted=lambda: HERE)

    file = tmp_path / "figure.json"
    Count(500.0, "gcc 12", "3.11.7", "3.3.1", "x86_64").write(file)
    assert main("--check") == 1
    assert "+100.0%" in capsys.readouterr().out
    assert main("--update") == 0
    assert Count.read(file) == HERE
    assert main("--check") == 0
    file.write_text("{}")
    with pytest.raises(CountError, match="expected a committed figure"):
        main("--check")


def test_without_valgrind_the_gate_says_that_it_has_not_judged(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert gate.main(["--check"]) == 0
    assert capsys.readouterr().out.startswith("SKIPPED: valgrind is not installed")


def test_the_committed_figure_can_be_read() -> None:
    assert Count.read(gate.COMMITTED).instructions_per_frame > 0


def test_a_play_is_told_in_the_url() -> None:
    play = Play(500, 1000, rate=50_000, sleeps=1)
    assert Play.of(b"GET %b HTTP/1.1\r\n" % play.path.encode()) == play
    assert len(tickers()) == N_MARKETS
    assert set(PARTS) >= {"stages", "pipeline", "sockets", "latency", "burst", "instructions"}
