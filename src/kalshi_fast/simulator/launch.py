"""From options to a running exchange, with its source, its credentials and its faults."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from kalshi_fast.errors import SimulatorError
from kalshi_fast.simulator.captured import is_capture
from kalshi_fast.simulator.exchange import Exchange
from kalshi_fast.simulator.faults import chaos, read_faults
from kalshi_fast.simulator.playback import CapturedMarkets
from kalshi_fast.simulator.recorded import RecordedMarkets
from kalshi_fast.simulator.synthetic import SyntheticMarkets
from kalshi_fast.simulator.tls import keep_key, make_tls

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from kalshi_fast.simulator.faults import Fault

KEY_ID: Final = "simulated-key"
_ENDLESS_S: Final = 86_400.0  # so long does chaos go on in a play without an end


@dataclass(frozen=True, slots=True)
class Launched:
    """A running exchange, and what a client needs to connect."""

    exchange: Exchange
    key_file: Path
    ca_file: Path | None
    frames: int | None  # of a recording

    tickers: list[str]  # at the start


async def launch(options: argparse.Namespace) -> Launched:
    """Starts an exchange as ``options.add_options`` describes it. Raises SimulatorError."""
    if options.rate is None:
        options.rate = 0 if options.recording is not None else options.synthetic_rate
    if options.rate and options.speed:
        raise SimulatorError("--rate and --speed exclude each other")
    if options.speed and options.recording is None:
        raise SimulatorError("--speed: only a recording has times of its own, and --recording is not given")
    # A client may leave in the middle of a burst: that the rest goes nowhere is no news.
    logging.getLogger("aiofastnet").setLevel(logging.ERROR)
    source = _source(options)
    faults = _faults(options)
    try:
        options.dir.mkdir(parents=True, exist_ok=True)
        key_file = options.dir / "client.pem"
        keys = {KEY_ID: keep_key(key_file, options.key_kind)}
        context, ca_file = make_tls(options.dir, options.host) if options.tls else (None, None)
    except OSError as error:
        raise SimulatorError(f"--dir: {options.dir} cannot be written: {error.strerror or error}") from error
    exchange = Exchange(
        source,
        keys,
        host=options.host,
        port=options.port,
        ssl_context=context,
        rate=options.rate,
        speed=options.speed,
        seconds=options.seconds,
        heartbeat_s=options.heartbeat,
        drop_every=options.drop_every,
        seed=options.seed,
        faults=faults,
        checkpoint_every_s=options.checkpoints,
        directory=options.dir,
        unique_sids=options.unique_sids,
        market_limit=options.market_limit or None,
        out_of_order=options.out_of_order,
        refuse_unknown=options.refuse_unknown,
        old_sids=options.old_sids,
        scale=options.scale,
        life_every_s=options.life,
        old_frames=options.frames == "old",
    )
    await exchange.start()
    frames = None if isinstance(source, SyntheticMarkets) else len(source)
    return Launched(
        exchange, key_file, ca_file, frames, [t for t in source.books if not exchange.life.is_combination(t)]
    )


def _source(options: argparse.Namespace) -> RecordedMarkets | SyntheticMarkets | CapturedMarkets:
    if options.recording is not None and is_capture(options.recording):
        _refuse_for_capture(options)
        return CapturedMarkets(options.recording, use_yes_price=options.use_yes_price)
    if options.use_yes_price is not None:
        raise SimulatorError(
            "--use-yes-price: only a capture of frames, named by --recording FILE, has a scale"
        )
    if options.recording is not None:
        return RecordedMarkets(options.recording, options.form, old_frames=options.frames == "old")
    old_frames = options.frames == "old"
    return SyntheticMarkets(options.markets, options.seed, options.combos, old_frames=old_frames)


def _refuse_for_capture(options: argparse.Namespace) -> None:
    """A capture is played as it is, as fast as it is taken."""
    given = {
        "--form legacy": options.form != "current",
        "--rate": options.rate,
        "--speed": options.speed,
        "--seconds": options.seconds is not None,
        "--faults": options.faults is not None,
        "--chaos": options.chaos,
        "--checkpoints": options.checkpoints is not None,
        "--life": options.life is not None,
        "--drop-every": options.drop_every,
        "--scale": options.scale != "asked",
    }
    wrong = [name for name, is_given in given.items() if is_given]
    if wrong:
        raise SimulatorError(f"--recording: a capture is played as it is; leave {', '.join(wrong)} out")


def _faults(options: argparse.Namespace) -> list[Fault]:
    if options.faults is not None:
        return read_faults(options.faults)
    if options.chaos:
        return chaos(options.seed, options.seconds or _ENDLESS_S)
    return []
