"""Signatures that the exchange accepts; a key file that is not as it must be gets its own sentence."""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from kalshi_fast.auth import Signer
from kalshi_fast.errors import ConfigError, SimulatorError
from kalshi_fast.simulator.handshake import refusal
from kalshi_fast.simulator.tls import keep_key, make_key, make_tls

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def test_signature_is_the_exchange_s(tmp_path: Path) -> None:
    public = make_key(tmp_path / "key.pem")
    assert isinstance(public, rsa.RSAPublicKey)
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


# RFC 8032, section 7.1, "TEST 1" and "TEST 2": secret key and public key.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
    ),
]


@pytest.mark.parametrize(("secret", "public"), RFC_8032)
def test_an_ed25519_signature_is_checked_by_openssl(secret: str, public: str, tmp_path: Path) -> None:
    """The key of RFC 8032 as a file, its signature checked by a program that is not ours."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("no openssl here")
    # PKCS#8 (RFC 8410) is a fixed beginning and the 32 bytes of the key.
    der = bytes.fromhex("302e020100300506032b657004220420" + secret)
    key = write(tmp_path / "key.pem", armoured("PRIVATE KEY", der))
    signer = Signer.from_file("my-key-id-1234", key)
    assert signer.kind == "Ed25519"
    headers = signer.headers(1669149841000, "GET", "/trade-api/v2/markets?limit=5")
    signature = write(tmp_path / "sig", base64.b64decode(headers["KALSHI-ACCESS-SIGNATURE"], validate=True))
    assert len(signature.read_bytes()) == 64
    spki = armoured("PUBLIC KEY", bytes.fromhex("302a300506032b6570032100" + public))
    message = write(tmp_path / "message", b"1669149841000GET/trade-api/v2/markets")
    command = [openssl, "pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", str(write(tmp_path / "p", spki))]
    command += ["-sigfile", str(signature), "-in", str(message)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    write(tmp_path / "message", b"1669149841000GET/trade-api/v2/market")
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0
    assert headers == signer.headers(1669149841000, "GET", "/trade-api/v2/markets"), "deterministic"


def armoured(label: str, der: bytes) -> bytes:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n".encode()


def test_each_form_of_each_kind_of_key_signs(tmp_path: Path) -> None:
    edwards = ed25519.Ed25519PrivateKey.generate()
    forms: list[tuple[rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, PrivateFormat, bytes]] = [
        (RSA, PrivateFormat.TraditionalOpenSSL, b"BEGIN RSA PRIVATE KEY"),
        (RSA, PrivateFormat.PKCS8, b"BEGIN PRIVATE KEY"),
        (RSA, PrivateFormat.OpenSSH, b"BEGIN OPENSSH PRIVATE KEY"),
        (edwards, PrivateFormat.PKCS8, b"BEGIN PRIVATE KEY"),
        (edwards, PrivateFormat.OpenSSH, b"BEGIN OPENSSH PRIVATE KEY"),
    ]
    for key, form, begins in forms:
        content = key.private_bytes(Encoding.PEM, form, NoEncryption())
        assert begins in content
        signer = Signer.from_file("id", write(tmp_path / "key.pem", content))
        signature = base64.b64decode(signer.headers(7)["KALSHI-ACCESS-SIGNATURE"])
        message = b"7GET/trade-api/ws/v2"
        if isinstance(key, ed25519.Ed25519PrivateKey):
            assert signer.kind == "Ed25519"
            key.public_key().verify(signature, message)
        else:
            assert signer.kind == "RSA"
            pss = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=32)
            key.public_key().verify(signature, message, pss, hashes.SHA256())


def test_the_simulator_takes_and_refuses_both_kinds(tmp_path: Path) -> None:
    for kind in ("rsa", "ed25519"):
        key = tmp_path / kind
        public = keep_key(key, kind)
        assert keep_key(key) == public, "the one that is there is kept"
        assert key.stat().st_mode & 0o777 == 0o600
        headers = Signer.from_file("id", key).headers(1000)
        assert refusal(headers, {"id": public}, 1000) is None
        for wrong in (
            refusal(headers, {"id": public}, 1000, "/else"),
            refusal(headers, {"id": make_key(tmp_path / "other", kind)}, 1000),
        ):
            assert wrong == ("bad_signature", "the signature does not fit")
        other = "rsa" if kind == "ed25519" else "ed25519"
        crossed = refusal(headers, {"id": make_key(tmp_path / "other", other)}, 1000)
        assert crossed == ("bad_signature", "the signature does not fit")
        with pytest.raises(SimulatorError, match=f"--key-kind: .* of the other kind, expected {other}"):
            keep_key(key, other)


def pem(key: PrivateKeyTypes) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def encrypted_openssh() -> bytes:
    """What stands in such a file (PROTOCOL.key of OpenSSH): names of cipher and derivation, and noise for the
    key, which nobody without the password gets to."""

    def text(value: bytes) -> bytes:
        return len(value).to_bytes(4, "big") + value

    public = text(b"ssh-ed25519") + text(bytes(32))
    derivation = text(bytes(16)) + (16).to_bytes(4, "big")
    body = b"openssh-key-v1\0" + text(b"aes256-ctr") + text(b"bcrypt") + text(derivation)
    return armoured("OPENSSH PRIVATE KEY", body + (1).to_bytes(4, "big") + text(public) + text(bytes(128)))


RSA = rsa.generate_private_key(65537, 2048)
BAD = {
    "empty": (b" \n", "is empty"),
    "not pem": (b"hello", "is not PEM"),
    "public": (
        RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "a public key, expected an RSA or Ed25519 private key",
    ),
    "encrypted": (
        RSA.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")),
        "protected by a password",
    ),
    "elliptic": (pem(ec.generate_private_key(ec.SECP256R1())), r"wrong kind \(EC\), expected RSA or Ed25519"),
    "ed448": (pem(ed448.Ed448PrivateKey.generate()), r"wrong kind \(Ed448\)"),
    "x25519": (pem(x25519.X25519PrivateKey.generate()), r"wrong kind \(X25519\)"),
    "dsa": (pem(dsa.generate_private_key(2048)), r"wrong kind \(DSA\)"),
    "public edwards": (
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        "a public key, expected",
    ),
    "encrypted edwards": (
        ed25519.Ed25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        ),
        "protected by a password",
    ),
    "encrypted openssh": (encrypted_openssh(), "protected by a password"),
    "damaged edwards": (
        pem(ed25519.Ed25519PrivateKey.generate()).replace(b"MC4C", b"MC4D"),
        "damaged",
    ),
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
    edwards = pem(ed25519.Ed25519PrivateKey.generate()).decode().splitlines()[1]
    lines = "".join(pem(RSA).decode().splitlines()[1:-1])
    for material in (base64.b64encode(pem(RSA)).decode(), lines, edwards):
        with pytest.raises(ConfigError, match="not the key itself") as caught:
            Signer.from_file("id", Path(material))
        assert material[:20] not in str(caught.value)
