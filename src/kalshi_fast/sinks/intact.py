"""Are the parts that a table has the ones that it thinks it has? Proof by reading, of what inserts and merges
write.

The engine may answer an insert of which a write has failed, and replace parts by a merge of which a write has
failed: then a part's files are not what its checksums say, and its rows cannot be read. So each part that
lasts is read once (``CHECK TABLE … PART``); short-lived ones are read by the merge that ends them. Where one
is damaged the table is loaded anew from the disk: the engine sets the part aside, and takes back the sources
of a merge, which it keeps for a minute (sql/0011). Not here: what to insert again (``clickhouse``).
"""

from __future__ import annotations

import logging
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from kalshi_fast.cluster import quote
from kalshi_fast.sinks.readback import serves_others

if TYPE_CHECKING:
    from collections.abc import Callable

    from clickhouse_connect.driver.client import Client

log = logging.getLogger("kalshi_fast.clickhouse")

LASTS_S: Final = 5.0  # a part that is older than this is read
_Part: TypeAlias = tuple[str, str, str]  # table, name, directory
_PARTS: Final = (
    "SELECT table, name, path, modification_time >= now() - 120 FROM system.parts"
    " WHERE active AND database = currentDatabase()"
)
# Of errors of an insert: what the engine says of the disk, after which its memory may differ from that.
_DISK: Final = re.compile(r"filesystem error|errno|CANNOT_|Input/output|Code: 1001\b|No space left")


class PartsCheck:
    """``look`` now and then. Parts that are older than two minutes at the beginning are taken as they are."""

    def __init__(self, client: Client, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.checked = 0
        self._client = client
        self._clock = clock
        self._seen: dict[_Part, float] = {}  # parts to be read, and since when they are there
        self._good: set[_Part] = {part for part, new in self._active() if not new}

    def _active(self) -> list[tuple[_Part, bool]]:
        rows = self._client.query(_PARTS).result_rows
        return [((str(table), str(name), str(path)), bool(new)) for table, name, path, new in rows]

    def look(self, *, every: bool = False) -> list[str]:
        """Reads the parts that have lasted, or ``every`` one that was not read yet. Which tables have damaged
        ones. Raises what ClickHouse says."""
        now = self._clock()
        active = {part for part, _ in self._active()}
        self._good &= active
        self._seen = {part: self._seen.get(part, now) for part in active - self._good}
        damaged = []
        for part, since in self._seen.items():
            if every or now - since >= LASTS_S:
                if self._is_intact(*part):
                    self._good.add(part)
                else:
                    damaged.append(part[0])
        return sorted(set(damaged))

    def _is_intact(self, table: str, part: str, path: str) -> bool:
        if not serves_others(self._client) and (empty := _empty_file(Path(path))):
            log.error("ClickHouse: part %s of %s is damaged: %s is empty", part, table, empty)
            return False
        try:
            rows = self._client.query(
                f"CHECK TABLE {quote(table)} PART '{part}' SETTINGS check_query_single_value_result = 0"
            ).result_rows
        except Exception as error:
            if "NO_SUCH_DATA_PART" in str(error) or "No such data part" in str(error):
                return True  # merged meanwhile
            raise
        self.checked += 1
        for _, passed, message in rows:
            if not int(passed):
                log.error("ClickHouse: part %s of %s is damaged: %s", part, table, message[:200])
                return False
        return True


def _empty_file(part: Path) -> str:
    """A file of a part that must not be empty, and of which its checksums say nothing: the engine reads it at
    its next start only, and then drops the part. "" when there is none, or the part is merged meanwhile."""
    for pattern in ("*.txt", "*.json"):
        for path in part.glob(pattern):
            with suppress(FileNotFoundError):
                if path.stat().st_size == 0:
                    return path.name
    return ""


def reload(client: Client, tables: list[str]) -> None:
    """The tables as they are on the disk: what the engine has in memory may be something else. Raises what
    ClickHouse says; then a table may be missing until the engine is opened anew."""
    for table in tables:
        log.warning("ClickHouse: %s is loaded anew from the disk", table)
        client.command(f"DETACH TABLE IF EXISTS {quote(table)} SYNC")
        client.command(f"ATTACH TABLE IF NOT EXISTS {quote(table)}")


def is_about_disk(client: Client, error: str) -> bool:
    """Is an insert's error one after which the embedded engine may not be believed?"""
    return not serves_others(client) and _DISK.search(error) is not None
