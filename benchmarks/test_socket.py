"""From a socket to sealed columns, beside receivers that do nothing: frames per second over ws:// and wss://.

The sender is a process of its own that writes frames made beforehand. The floor is picows with a compiled
listener that only counts; ``websockets`` is the usual library, doing nothing too. Each round is one
connection with all frames.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import picows
import pytest
import uvloop

from benchmarks.conftest import N_MARKETS, made_frames, sealing_recorder
from benchmarks.floor import built_floor
from kalshi_fast._listener import FrameListener
from kalshi_fast.link import Link
from kalshi_fast.receiver import Receiver
from kalshi_fast.session import Session
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from pytest_benchmark.fixture import BenchmarkFixture

    End = Callable[[], Awaitable[None]]

N_DELTAS = 400_000
N_FRAMES = 1 + N_MARKETS + N_DELTAS
ROUNDS = 3
websockets: Any = pytest.importorskip("websockets")


@pytest.fixture(scope="session")
def floor(tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    """The compiled no-op listener, built for this run."""
    return built_floor(tmp_path_factory.mktemp("floor"))


@pytest.fixture(scope="module", params=["ws", "wss"])
def url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Any]]:
    """Where the sender listens, and the TLS context for it."""
    directory = tmp_path_factory.mktemp("sender")
    tls = request.param == "wss"
    arguments = [str(directory), str(N_DELTAS), *(["--tls"] if tls else [])]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.sender", *arguments],
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    context = ssl.create_default_context(cafile=str(directory / "ca.pem")) if tls else None
    yield f"{request.param}://127.0.0.1:{port}/", context
    process.communicate()


def measured(benchmark: BenchmarkFixture, receive: Callable[[asyncio.Future[None]], Awaitable[End]]) -> None:
    async def once() -> None:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        end = await receive(done)
        await asyncio.wait_for(done, 60)
        await end()

    benchmark.pedantic(lambda: uvloop.run(once()), rounds=ROUNDS, warmup_rounds=1)  # type: ignore[no-untyped-call]
    if benchmark.stats is not None:
        benchmark.extra_info["ns_per_frame"] = round(benchmark.stats.stats.median / N_FRAMES * 1e9)


async def connect(url: tuple[str, Any], listener: picows.WSListener) -> End:
    transport, _ = await picows.ws_connect(lambda: listener, url[0], ssl_context=url[1])

    async def end() -> None:
        transport.disconnect(graceful=False)
        await transport.wait_disconnected()

    return end


@pytest.mark.benchmark(group="6 from the socket")
def test_floor_picows_compiled_listener_that_counts(
    benchmark: BenchmarkFixture,
    url: tuple[str, Any],
    floor: Any,  # noqa: ANN401
) -> None:
    async def receive(done: asyncio.Future[None]) -> End:
        return await connect(url, floor.FloorListener(N_FRAMES, lambda: done.set_result(None)))

    measured(benchmark, receive)


@pytest.mark.benchmark(group="6 from the socket")
def test_kalshi_fast_to_sealed_columns(benchmark: BenchmarkFixture, url: tuple[str, Any]) -> None:
    tickers = list(SyntheticMarkets(N_MARKETS, seed=1).books)

    async def receive(done: asyncio.Future[None]) -> End:
        recorder, pool = sealing_recorder()
        session = Session(tickers, clock=time.monotonic_ns, rng=random.Random(1))
        link = Link(recorder, session)

        class Counting(Receiver):
            def on_end_of_read(self) -> None:
                super().on_end_of_read()
                subscription = session.subscriptions.get(1)
                if subscription is not None and subscription.next_seq == N_FRAMES and not done.done():
                    recorder.seal()
                    assert recorder.counts.frames == N_FRAMES
                    assert recorder.counts.gaps == recorder.counts.rejected == recorder.counts.foreign == 0
                    done.set_result(None)

        receiver = Counting(link, pool)
        return await connect(url, FrameListener(link.path, receiver))

    measured(benchmark, receive)


@pytest.mark.benchmark(group="6 from the socket")
def test_websockets_that_counts(benchmark: BenchmarkFixture, url: tuple[str, Any]) -> None:
    async def receive(done: asyncio.Future[None]) -> End:
        connection = await websockets.connect(url[0], ssl=url[1], compression=None, ping_interval=None)
        for _ in range(N_FRAMES):
            await connection.recv(decode=False)
        done.set_result(None)

        async def end() -> None:
            connection.transport.abort()
            await connection.wait_closed()

        return end

    measured(benchmark, receive)


def test_the_frames_are_what_they_are_said_to_be() -> None:
    frames = made_frames(100)
    assert len(frames) == N_MARKETS + 100
    assert max(map(len, frames)) < 65_536
