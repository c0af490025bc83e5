"""The API key: whether its file can be read, only by us, and holds a key that can sign."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kalshi_fast.auth import Signer
from kalshi_fast.check.finding import Finding, failure, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kalshi_fast.config import Settings


def signer(settings: Settings) -> Signer | None:
    """None when there is no key. Raises ConfigError when it cannot be used."""
    if not settings.prod_keyid or settings.prod_keyfile is None:
        return None
    return Signer.from_file(settings.prod_keyid, settings.prod_keyfile)


def look(settings: Settings) -> Iterator[Finding]:
    if not settings.prod_keyid:
        yield failure(
            "key", "PROD_KEYID is not set", "give the id of your API key in the environment or in .env"
        )
    if settings.prod_keyfile is None:
        yield failure("key", "PROD_KEYFILE is not set", "give the path of the private key, mode 0600")
    made = signer(settings)
    if made is not None:
        made.headers(time.time_ns() // 1_000_000)
        yield ok(
            "key", f"{settings.prod_keyfile} is an {made.kind} key that only its owner can read, and it signs"
        )
