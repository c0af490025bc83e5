"""Signatures that the exchange accepts; a key file that is not as it must be gets its own sentence."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kalshi_fast.auth import Signer
from kalshi_fast.errors import ConfigError
from kalshi_fast.simulator.tls import make_key, make_tls


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_signature_is_the_exchange_s(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key.pem")
    signer = Signer.from_file("my-key-id-1234", tmp_path / "key.pem")
    for path in ("/trade-api/ws/v2", "/trade-api/v2/markets?limit=5"):
        headers = signer.headers(1669149841000, "GET", path)
        assert headers["KALSHI-ACCESS-KEY"] == "my-key-id-1234"
        assert headers["KALSHI-ACCESS-TIMESTAMP"] == "1669149841000"
        public.verify(
            base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True),
            b"1669149841000GET" + path.partition("?")[0].encode(),
            padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32),
            hashes.SHA256(),
        )
    assert signer.headers(1) != signer.headers(1), "salted: never the same twice"
    assert repr(signer) == "Signer('…1234')"


def pem(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


RSA = rsa.generate_private_key(65537, 2048)
BAD = {
    "empty": (b" \n", "is empty"),
    "not pem": (b"hello", "is not PEM"),
    "public": (
        RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "no private key, expected an RSA private key",
    ),
    "encrypted": (
        RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "protected by a password",
    ),
    "elliptic": (pem(ec.generate_private_key(ec.SECP256R1())), "wrong kind"),
    "edwards": (pem(ed25519.Ed25519PrivateKey.generate()), "wrong kind"),
    "short": (pem(rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "damaged": (pem(RSA)[:200] + b"\n-----END PRIVATE KEY-----\n", "damaged"),
    "huge": (b"x" * 100_000, "larger than"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_key_files(kind: str, tmp_path: Path) -> None:
    content, sentence = BAD[kind]
    path = write(tmp_path / "key.pem", content)
    with pytest.raises(ConfigError, match=sentence) as caught:
        Signer.from_file("id", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    for line in content.splitlines():
        assert len(line) < 20 or line.decode("latin-1") not in str(caught.value)
    assert caught.value.__cause__ is None, "no library error that could quote the key"


def test_certificate_is_no_key(tmp_path: Path) -> None:
    _, ca_file = make_tls(tmp_path)
    ca_file.chmod(0o600)
    with pytest.raises(ConfigError, match="a certificate"):
        Signer.from_file("id", ca_file)


def test_missing_directory_and_readable_by_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        Signer.from_file("id", tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="is a directory"):
        Signer.from_file("id", tmp_path)
    for mode in (0o644, 0o640, 0o604, 0o620):
        path = write(tmp_path / "key.pem", pem(RSA), mode)
        with pytest.raises(ConfigError, match=f"chmod 600 {path}"):
            Signer.from_file("id", path)
    link = tmp_path / "link.pem"
    link.symlink_to(write(tmp_path / "key.pem", pem(RSA)))
    assert Signer.from_file("id", link).headers(1)


def test_a_credential_of_systemd_may_be_read_through_an_access_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mode then shows a group that may read; nobody else may, and nobody may write."""
    path = write(tmp_path / "kalshi.pem", pem(RSA), 0o440)
    with pytest.raises(ConfigError, match="can be read by others"):
        Signer.from_file("id", path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Signer.from_file("id", path).headers(1)
    for mode in (0o444, 0o460, 0o450):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="can be read by others"):
            Signer.from_file("id", path)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "another"))
    with pytest.raises(ConfigError, match="can be read by others"):
        Signer.from_file("id", write(path, pem(RSA), 0o440))


def test_a_key_instead_of_its_path_is_not_quoted() -> None:
    for material in (base64.b64encode(pem(RSA)).decode(), "".join(pem(RSA).decode().splitlines()[1:-1])):
        with pytest.raises(ConfigError, match="not the key itself") as caught:
            Signer.from_file("id", Path(material))
        assert material[:20] not in str(caught.value)
