"""Signing of requests to the exchange, and the checks a private key file has to pass.

Two kinds of key, over the same bytes (timestamp + method + path without its query) and in the same headers:
RSA (RSA-PSS with SHA-256, MGF1-SHA-256 and a salt of 32 bytes) and, since September 2026, Ed25519 (the plain
signature). Source: Kalshi's API documentation. Key material never appears in an error or a repr.
"""

from __future__ import annotations

import base64
import os
import stat
from pathlib import Path
from typing import Final, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x448, x25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from kalshi_fast.blotting import is_key_material
from kalshi_fast.errors import ConfigError

WS_PATH: Final = "/trade-api/ws/v2"
_SALT_BYTES: Final = 32
_MIN_KEY_BITS: Final = 2048
_MAX_FILE_BYTES: Final = 64 * 1024
_OPENSSH: Final = b"-----BEGIN OPENSSH PRIVATE KEY-----"
# What a key of another kind is called in an error.
_KINDS: Final = (
    (ec.EllipticCurvePrivateKey, "EC"),
    (dsa.DSAPrivateKey, "DSA"),
    (ed448.Ed448PrivateKey, "Ed448"),
    (x25519.X25519PrivateKey, "X25519"),
    (x448.X448PrivateKey, "X448"),
)

PrivateKey: TypeAlias = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


class Signer:
    """Signs requests with one API key. Make it with ``from_file``."""

    def __init__(self, key_id: str, private_key: PrivateKey) -> None:
        self._key_id = key_id
        self._private_key = private_key

    @classmethod
    def from_file(cls, key_id: str, path: Path) -> Signer:
        """Reads an RSA (PKCS#1 or PKCS#8) or Ed25519 (PKCS#8) private key in PEM form, or either in OpenSSH's
        form. Raises ConfigError with what is wrong with the file."""
        return cls(key_id, _private_key(_read(path), path))

    def headers(self, now_ms: int, method: str = "GET", path: str = WS_PATH) -> dict[str, str]:
        """The three headers of one request; the exchange refuses them when ``now_ms`` is seconds off."""
        message = f"{now_ms}{method}{path.partition('?')[0]}".encode("ascii")
        key = self._private_key
        if isinstance(key, ed25519.Ed25519PrivateKey):
            signature = key.sign(message)
        else:
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=_SALT_BYTES)
            signature = key.sign(message, pss, hashes.SHA256())
        return {
            "KALSHI-ACCESS-KEY": self._key_id,
            "KALSHI-ACCESS-TIMESTAMP": str(now_ms),
            "KALSHI-ACCESS-SIGNATURE": base64.b64encode(signature).decode("ascii"),
        }

    @property
    def kind(self) -> str:
        """Of the key: RSA or Ed25519."""
        return "Ed25519" if isinstance(self._private_key, ed25519.Ed25519PrivateKey) else "RSA"

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


def _private_key(content: bytes, path: Path) -> PrivateKey:
    if b"-----BEGIN " not in content:
        raise ConfigError(f"PROD_KEYFILE: {path} is not PEM (no '-----BEGIN' line)")
    if b"PRIVATE KEY-----" not in content:
        found = _no_key(content)
        raise ConfigError(
            f"PROD_KEYFILE: {path} holds {found}, expected an RSA or Ed25519 private key in PEM form"
        )
    # `from None`: what the library says could quote the key.
    try:
        load = load_ssh_private_key if _OPENSSH in content else load_pem_private_key
        key = load(content, password=None)
    except TypeError:
        raise ConfigError(f"PROD_KEYFILE: {path} is protected by a password, expected a plain key") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"PROD_KEYFILE: {path} is damaged: its PEM holds no readable private key") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    if not isinstance(key, rsa.RSAPrivateKey):
        kind = next((name for of, name in _KINDS if isinstance(key, of)), "another")
        raise ConfigError(
            f"PROD_KEYFILE: {path} holds a key of the wrong kind ({kind}), expected RSA or Ed25519"
        )
    if key.key_size < _MIN_KEY_BITS:
        raise ConfigError(
            f"PROD_KEYFILE: {path} holds an RSA key of {key.key_size} bits, expected at least {_MIN_KEY_BITS}"
        )
    return key


def _no_key(content: bytes) -> str:
    """What a PEM file without a private key holds."""
    if b"CERTIFICATE" in content:
        return "a certificate"
    return "a public key" if b"PUBLIC KEY-----" in content else "no private key"
