"""Only bundles that are signed with a known key are served, where one is named."""

import asyncio
import builtins
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.runtime.fakes import PATIENCE_S
from tests.supernets import write_test_bundle
from wenet_runtime.bundle import MANIFEST, SIGNATURE, WEIGHTS, Bundle
from wenet_runtime.errors import BundleError, SettingsError
from wenet_runtime.service.daemon import open_daemon
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.signing import open_bundle, verifier
from wenet_runtime.settings import Settings

PEM = serialization.Encoding.PEM
PUBLIC = serialization.PublicFormat.SubjectPublicKeyInfo


@pytest.fixture(scope="module")
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def public(key: Ed25519PrivateKey, tmp_path: Path) -> Path:
    path = tmp_path / "key.pub"
    path.write_bytes(key.public_key().public_bytes(PEM, PUBLIC))
    return path


def sign(bundle: Path, key: Ed25519PrivateKey) -> None:
    (bundle / SIGNATURE).write_bytes(key.sign((bundle / MANIFEST).read_bytes()))


def test_a_signed_bundle_is_opened(own_bundle: Path, key: Ed25519PrivateKey, public: Path) -> None:
    sign(own_bundle, key)
    assert open_bundle(Settings(bundle=own_bundle, verify_key=public)).sha256 == Bundle(own_bundle).sha256


def test_without_a_key_a_signature_is_not_looked_at(own_bundle: Path) -> None:
    (own_bundle / SIGNATURE).write_bytes(b"anything")
    assert open_bundle(Settings(bundle=own_bundle)).modes


def unsigned(bundle: Path, key: Ed25519PrivateKey) -> None:
    """As it was exported."""


def other_key(bundle: Path, key: Ed25519PrivateKey) -> None:
    sign(bundle, Ed25519PrivateKey.generate())


def changed_manifest(bundle: Path, key: Ed25519PrivateKey) -> None:
    sign(bundle, key)
    (bundle / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes() + b"\n")


def changed_weights(bundle: Path, key: Ed25519PrivateKey) -> None:
    sign(bundle, key)
    content = bytearray((bundle / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (bundle / WEIGHTS).write_bytes(content)


def cut(bundle: Path, key: Ed25519PrivateKey) -> None:
    sign(bundle, key)
    (bundle / SIGNATURE).write_bytes((bundle / SIGNATURE).read_bytes()[:-1])


def a_link(bundle: Path, key: Ed25519PrivateKey) -> None:
    sign(bundle, key)
    shutil.move(str(bundle / SIGNATURE), str(bundle / "elsewhere"))
    (bundle / SIGNATURE).symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (unsigned, "is not signed"),
        (other_key, "no signature of this manifest"),
        (changed_manifest, "no signature of this manifest"),
        (changed_weights, "the file was changed"),
        (cut, "is not signed"),
        (a_link, "is not signed"),
    ],
)
def test_all_others_are_refused(
    own_bundle: Path, key: Ed25519PrivateKey, public: Path, damage: Any, said: str, command: Any
) -> None:
    damage(own_bundle, key)
    with pytest.raises(BundleError, match=said):
        open_bundle(Settings(bundle=own_bundle, verify_key=public))
    for verb in ("verify", "serve", "build"):
        found = command(verb, "--bundle", own_bundle, "--verify-key", public, "--engine", "sim", "--port", 0)
        assert (found.exit_code, said in found.stderr) == (3, True), found.stderr


def test_verify_says_whether_the_signature_was_looked_at(
    own_bundle: Path, key: Ed25519PrivateKey, public: Path, command: Any
) -> None:
    sign(own_bundle, key)
    assert "its signature not looked at" in command("verify", "--bundle", own_bundle).stderr
    found = command("verify", "--bundle", own_bundle, "--verify-key", public)
    assert (found.exit_code, f"signed with {public}" in found.stderr) == (0, True)
    assert '"signed": true' in command("verify", "--bundle", own_bundle, "--verify-key", public, "--json").stdout


def test_what_is_swapped_in_must_be_signed_too(tmp_path: Path, key: Ed25519PrivateKey, public: Path) -> None:
    for name in ("a", "b", "c"):
        write_test_bundle(tmp_path / "bundles" / name, seed=ord(name))
    for name in ("a", "b"):
        sign(tmp_path / "bundles" / name, key)
    daemon = open_daemon(
        Settings(
            bundle=tmp_path / "bundles" / "a", verify_key=public, engine="sim", cache_dir=tmp_path, profile_rounds=10
        )
    )

    async def changed() -> None:
        await daemon.bundles.swap("b")
        with pytest.raises(Problem, match="is not signed") as caught:
            await daemon.bundles.swap("c")
        assert caught.value.slug == "bundle-invalid"

    asyncio.run(changed())
    daemon.close(PATIENCE_S)


def test_openssl_makes_keys_and_signatures_as_the_messages_say(own_bundle: Path, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None or b"OpenSSL 1." in subprocess.run([openssl, "version"], capture_output=True, check=True).stdout:
        pytest.skip("needs the openssl command of version 3")
    manifest, signature = own_bundle / MANIFEST, own_bundle / SIGNATURE
    for words in (
        ["genpkey", "-algorithm", "ed25519", "-out", "key.pem"],
        ["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"],
        ["pkeyutl", "-sign", "-rawin", "-inkey", "key.pem", "-in", manifest, "-out", signature],
    ):
        subprocess.run([openssl, *map(str, words)], check=True, cwd=str(tmp_path), capture_output=True)
    assert open_bundle(Settings(bundle=own_bundle, verify_key=tmp_path / "key.pub")).modes


def test_a_key_that_is_none_is_said(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    with pytest.raises(SettingsError, match="cannot read --verify-key"):
        verifier(tmp_path / "nowhere")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(SettingsError, match="no public key in PEM"):
        verifier(tmp_path / "text")
    (tmp_path / "private").write_bytes(
        key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(SettingsError, match="no public key in PEM"):
        verifier(tmp_path / "private")
    (tmp_path / "ec").write_bytes(generate_private_key(SECP256R1()).public_key().public_bytes(PEM, PUBLIC))
    with pytest.raises(SettingsError, match="another kind than Ed25519"):
        verifier(tmp_path / "ec")


def test_without_the_library_it_says_what_to_install(public: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *how: Any) -> Any:
        if name.startswith("cryptography"):
            raise ImportError(name)
        return real(name, *how)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(SettingsError, match=r"pip install 'wenet-runtime\[sign\]'"):
        verifier(public)
    assert verifier(None) is None
