"""The recordings of the exchange that tests judge by: each has a source, none has been changed."""

from __future__ import annotations

import hashlib
import json

import pytest

from recordings import CAPTURES, DIRECTORY, Capture

FILES = sorted(str(path.relative_to(DIRECTORY)) for path in DIRECTORY.glob("*/*"))
SUMS = {
    name: checksum
    for checksum, _, name in (
        line.partition("  ") for line in (DIRECTORY / "SHA256SUMS").read_text().splitlines()
    )
}


def test_each_file_has_a_source_and_its_checksum() -> None:
    sources = (DIRECTORY / "SOURCES.md").read_text()
    assert [name for name in FILES if name.split("/")[1] not in sources] == []
    assert sorted(SUMS) == FILES
    assert {f"ws/{capture.name}" for capture in CAPTURES} == {
        name for name in FILES if name.startswith("ws/")
    }


@pytest.mark.parametrize("name", FILES)
def test_it_is_as_it_came(name: str) -> None:
    content = (DIRECTORY / name).read_bytes()
    assert hashlib.sha256(content).hexdigest() == SUMS[name]
    assert b"\r" not in content


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda capture: capture.name)
def test_a_capture_has_one_message_a_line(capture: Capture) -> None:
    lines = capture.path.read_bytes().splitlines()
    assert lines
    for line in lines:
        assert isinstance(json.loads(line), dict)
        assert line.strip() == line
