"""The whole of a recording, its processes with it: what is left of one that cannot be opened, what is sealed
when it ends."""

from __future__ import annotations

import asyncio
import json
import os
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client import KEY_ID, exchange
from kalshi_fast import fleet as fleet_module
from kalshi_fast.config import load
from kalshi_fast.errors import SubscriptionError
from kalshi_fast.recording import Recording
from kalshi_fast.simulator import commands, subscription
from kalshi_fast.simulator.synthetic import SyntheticMarkets

if TYPE_CHECKING:
    from kalshi_fast.config import Settings


def settings_for(directory: Path, key_file: Path, **more: str) -> Settings:
    told = {
        "PROD_KEYID": KEY_ID,
        "PROD_KEYFILE": str(key_file),
        "REST_URL": "off",
        "CLICKHOUSE_URL": "off",
        "PARQUET_DIR": str(directory / "parquet"),
        "JOURNAL_DIR": str(directory / "journal"),
        **more,
    }
    return load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings


def test_what_cannot_be_opened_leaves_no_process_and_no_port(
    tmp_path: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "MAX_CONNECTIONS", 1)
    told = {"MARKET_TICKERS": "A,B", "CONNECTION_MARKETS": "1", "HTTP_LISTEN": "127.0.0.1:0"}
    recording = Recording(settings_for(tmp_path, key_file, WS_URL="ws://127.0.0.1:9/x", **told))
    with pytest.raises(SubscriptionError, match="more than 1 connections"):
        recording.open()
    assert recording.writer._process is not None
    assert recording.writer._process.returncode == 0, "the writer has ended in order"
    assert recording.status is not None
    assert recording.status.writer_fd == -1, "its sockets are closed"


def test_the_last_rows_are_sealed_when_the_feeds_have_ended(tmp_path: Path) -> None:
    """Not only by ``close``, which may have to wait for a request that hangs in a thread."""

    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(3, 1), rate=500, heartbeat_s=0.2) as running:
            more = {"WS_URL": running.url, "WS_CAFILE": str(tmp_path / "ca.pem"), "BATCH_FLUSH_SECS": "60"}
            more["MARKET_TICKERS"] = ",".join(running.source.books)
            recording = Recording(settings_for(tmp_path, tmp_path / "client.pem", **more))
            await asyncio.to_thread(recording.open)
            task = asyncio.ensure_future(recording.run())
            async with asyncio.timeout(30):
                while recording.recorder.counts.deltas < 20:
                    await asyncio.sleep(0.01)
            before = recording.pool.sealed_rows
            recording.stop()
            await task
            sealed = recording.pool.sealed_rows
            await asyncio.to_thread(recording.close)
            assert before < sealed == recording.pool.sealed_rows

    asyncio.run(run())


def told(url: str) -> str:
    """What the endpoint answers, whatever its status."""
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            return str(response.read().decode())
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.read().decode()


def test_channels_that_the_exchange_refuses_are_logged_once_counted_and_no_health(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refused = ("ticker", "fill")
    known = tuple(channel for channel in subscription.CHANNELS if channel not in refused)
    monkeypatch.setattr(commands, "CHANNELS", known)

    async def run() -> None:
        async with exchange(tmp_path, SyntheticMarkets(3, 1), rate=500) as running:
            more = {"WS_URL": running.url, "WS_CAFILE": str(tmp_path / "ca.pem"), "RAW": "fill"}
            more |= {"HTTP_LISTEN": "127.0.0.1:0", "HOT_STANDBY": "on", "WS_BACKOFF_SECS": "0.05"}
            more["MARKET_TICKERS"] = ",".join(running.source.books)
            recording = Recording(settings_for(tmp_path, tmp_path / "client.pem", **more))
            await asyncio.to_thread(recording.open)
            task = asyncio.ensure_future(recording.run())
            assert recording.status is not None
            url = recording.status.url
            reasons: dict[str, str] = {}
            async with asyncio.timeout(30):
                while "channels" not in reasons:
                    said = json.loads(await asyncio.to_thread(told, f"{url}/healthz"))
                    reasons = {reason["what"]: reason["detail"] for reason in said["reasons"]}
            assert reasons["channels"].endswith("to be recorded: ticker"), "and not that of RAW"
            metrics = await asyncio.to_thread(told, f"{url}/metrics")
            assert 'kalshi_fast_channels_refused{setting="CHANNELS"} 1\n' in metrics
            assert 'kalshi_fast_channels_refused{setting="RAW"} 1\n' in metrics
            assert 'kalshi_fast_unhealthy{reason="channels"} 1\n' in metrics
            for client in list(running.clients):
                client.reset()
            async with asyncio.timeout(30):
                while recording.channels.reconnects < 2 or recording.channels.refused != ["ticker", "fill"]:
                    await asyncio.sleep(0.01)
            monkeypatch.setattr(commands, "CHANNELS", (*known, *refused))
            for client in list(running.clients):
                client.reset()
            async with asyncio.timeout(30):
                while recording.channels.refused or recording.recorder.counts.tickers == 0:
                    await asyncio.sleep(0.01)
            recording.stop()
            await task
            await asyncio.to_thread(recording.close)

    asyncio.run(run())
    for channel in refused:
        assert caplog.text.count(f"refuses the channel {channel}, which is not recorded: error 8: ") == 1
