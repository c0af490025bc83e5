"""How the writer process hears what to do. What it then does, other tests prove with both processes."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kalshi_fast.config import load
from kalshi_fast.errors import ConfigError
from kalshi_fast.report import decode_settings, encode_settings
from kalshi_fast.writing import _first_line


def test_wakes_that_come_with_the_settings_do_not_hide_them() -> None:
    """A writer that is started again while the exchange sends is woken before it has read a byte."""
    told = {"CAPTURE_CPU": "1", "WRITER_CPUS": "0,2", "CLICKHOUSE_URL": "off"}
    settings = load(told, environ={}, env_file=None, toml_file=Path(os.devnull)).settings
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(encode_settings(settings))
        for _ in range(3):
            ours.send(b".")
        theirs.settimeout(10)
        assert decode_settings(_first_line(theirs)) == settings


def test_a_capture_process_that_ends_before_it_says_what_to_do() -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        ours.send(b'{"batch_rows":')
        ours.close()
        with pytest.raises(ConfigError, match="ended before it said what to do"):
            _first_line(theirs)
