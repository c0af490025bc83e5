"""Signing of requests to the exchange, and the checks a private key file has to pass.

Source: Kalshi's API documentation: RSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes over
timestamp + method + path without its query. Key material never appears in an error or a repr.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from kalshi_fast.blotting import is_key_material
from kalshi_fast.errors import ConfigError

WS_PATH: Final = "/trade-api/ws/v2"
_SALT_BYTES: Final = 32
_MIN_KEY_BITS: Final = 2048
_MAX_FILE_BYTES: Final = 64 * 1024


class Signer:
    """Signs requests with one API key. Make it with ``from_file``."""

    def __init__(self, key_id: str, private_key: rsa.RSAPrivateKey) -> None:
        self._key_id = key_id
        self._private_key = private_key

    @classmethod
    def from_file(cls, key_id: str, path: Path) -> Signer:
        """Reads an RSA private key in PEM form. Raises ConfigError with what is wrong with the file."""
        return cls(key_id, _private_key(_read(path), path))

    def headers(self, now_ms: int, method: str = "GET", path: str = WS_PATH) -> dict[str, str]:
        """The three headers of one request; the exchange refuses them when ``now_ms`` is seconds off."""
        message = f"{now_ms}{method}{path.partition('?')[0]}".encode("ascii")
        signature = self._private_key.sign(
            message, padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT_BYTES), hashes.SHA256()
        )
        return {
            "KALSHI-ACCESS-KEY": self._key_id,
            "KALSHI-ACCESS-TIMESTAMP": str(now_ms),
            "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode("ascii"),
        }

    def __repr__(self) -> str:
        return f"Signer('…{self._key_id[-4:]}')"


def _is_credential(path: Path) -> bool:
    """Whether systemd gave it to this service alone (LoadCredential=). It may be root's then, with an access
    list for us, which looks like a group that may read."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return directory is not None and path.parent == Path(directory)


def _read(path: Path) -> bytes:
    """The file's bytes; its mode is that of the very file that is read."""
    if is_key_material(str(path)):
        raise ConfigError(
            "PROD_KEYFILE: expected the path of the file that holds the key, not the key itself"
        )
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ConfigError(f"PROD_KEYFILE: {path} is not a regular file")
            if mode & (0o037 if _is_credential(path) else 0o077):
                shown = f"{stat.S_IMODE(mode):04o}"
                raise ConfigError(
                    f"PROD_KEYFILE: {path} can be read by others (mode {shown}): chmod 600 {path}"
                )
            content = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(f"PROD_KEYFILE: {path} does not exist") from None
    except IsADirectoryError:
        raise ConfigError(f"PROD_KEYFILE: {path} is a directory, expected a private key file") from None
    except OSError as error:
        raise ConfigError(f"PROD_KEYFILE: {path} cannot be read: {error.strerror or error}") from None
    if not content.strip():
        raise ConfigError(f"PROD_KEYFILE: {path} is empty")
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError(f"PROD_KEYFILE: {path} is larger than {_MAX_FILE_BYTES} bytes: no private key file")
    return content


def _private_key(content: bytes, path: Path) -> rsa.RSAPrivateKey:
    if b"-----BEGIN " not in content:
        raise ConfigError(f"PROD_KEYFILE: {path} is not PEM (no '-----BEGIN' line)")
    if b"PRIVATE KEY-----" not in content:
        kind = "a certificate" if b"CERTIFICATE-----" in content else "no private key"
        raise ConfigError(f"PROD_KEYFILE: {path} holds {kind}, expected an RSA private key in PEM form")
    # `from None`: what the library says could quote the key.
    try:
        key = load_pem_private_key(content, password=None)
    except TypeError:
        raise ConfigError(f"PROD_KEYFILE: {path} is protected by a password, expected a plain key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"PROD_KEYFILE: {path} is damaged: its PEM holds no readable private key") from None
    if not isinstance(key, rsa.RSAPrivateKey):
        kind = type(key).__name__.removesuffix("PrivateKey").lstrip("_")
        raise ConfigError(f"PROD_KEYFILE: {path} holds a key of the wrong kind ({kind}), expected RSA")
    if key.key_size < _MIN_KEY_BITS:
        raise ConfigError(
            f"PROD_KEYFILE: {path} holds an RSA key of {key.key_size} bits, expected at least {_MIN_KEY_BITS}"
        )
    return key
