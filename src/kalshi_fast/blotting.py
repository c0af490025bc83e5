"""What nobody may see, and how it is blotted out of a text, in every form that a library could give it.

The settings name their secrets here as they are read; whatever is written to stderr passes through
``blotted``. Not here: which settings are secret (``config``), how log lines look (``logs``).
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote, quote_plus

BLOT: Final = "***"
_SHORTEST_SECRET: Final = 4  # shorter ones would blot out half of every line
_KEY_CHARS: Final = 60  # PEM has 64 in a line
_BASE64 = re.compile(r"[A-Za-z0-9+/=_\s-]+\Z")
_forms: list[str] = []  # of all secrets, the longest first


def keep_secret(*secrets: str | None) -> None:
    """From now on none of these is to be seen, nor its forms in an address or a Python or JSON literal."""
    found = set(_forms)
    for secret in secrets:
        if secret is None or len(secret) < _SHORTEST_SECRET:
            continue
        raw = secret.encode("utf-8", "surrogateescape")
        found |= {
            secret,
            repr(secret)[1:-1],
            repr(f"{secret}'\"")[1:-4],  # as within a literal that has both quotes
            repr(raw)[2:-1],
            json.dumps(secret)[1:-1],
            json.dumps(secret, ensure_ascii=False)[1:-1],
            quote(raw),
            quote(raw, safe=""),
            quote_plus(raw),
        }
    _forms[:] = sorted(found, key=len, reverse=True)


def blotted(text: str) -> str:
    """The text without secrets."""
    for form in _forms:
        text = text.replace(form, BLOT)
    return text


def is_key_material(text: str) -> bool:
    """Whether it is a private key, or a line of one, where the path of its file belongs: PEM, or base64 as
    long as a line of PEM that names no file."""
    if "-----BEGIN" in text or "\n" in text:
        return True
    if len(text) < _KEY_CHARS or not _BASE64.match(text):
        return False
    try:
        return not Path(text).exists()
    except OSError:  # too long for a path
        return True
