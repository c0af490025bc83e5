"""Who may connect: the exchange's checks of path, key, clock and signature of an upgrade request.

Source: Kalshi's API documentation (RSA-PSS, SHA-256, salt of 32 bytes, or Ed25519, over timestamp + "GET" +
path without its query).
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa

if TYPE_CHECKING:
    from collections.abc import Mapping

PublicKey: TypeAlias = rsa.RSAPublicKey | ed25519.Ed25519PublicKey

PATH: Final = "/trade-api/ws/v2"
MAX_CLOCK_SKEW_MS: Final = 5000
_TIMESTAMP: Final = re.compile("[0-9]{1,20}")
_HEADERS: Final = ("KALSHI-ACCESS-KEY", "KALSHI-ACCESS-TIMESTAMP", "KALSHI-ACCESS-SIGNATURE")


def refusal(
    headers: Mapping[str, str], keys: Mapping[str, PublicKey], now_ms: int, path: str = PATH
) -> tuple[str, str] | None:
    """None when the request is signed as it must be, else (code, message) of the refusal."""
    for name in _HEADERS:
        if name not in headers:
            return "missing_header", f"{name} is missing"
    key_id, timestamp, signature = (headers[name] for name in _HEADERS)
    key = keys.get(key_id)
    if key is None:
        return "unknown_key", "this key is not known"
    if not _TIMESTAMP.fullmatch(timestamp) or abs(int(timestamp) - now_ms) > MAX_CLOCK_SKEW_MS:
        return "stale_timestamp", "the timestamp is too far from the exchange's clock"
    try:
        signed = base64.b64decode(signature, validate=True)
        message = f"{timestamp}GET{path}".encode()
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signed, message)
        else:
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            key.verify(signed, message, pss, hashes.SHA256())
    except (InvalidSignature, binascii.Error, ValueError):
        return "bad_signature", "the signature does not fit"
    return None
