"""Signed bundles: an Ed25519 signature of the manifest, which holds the hash of every other file.

The signature is made where bundles are made, by OpenSSL or whatever else holds the key; a server holds the public one.
"""

from pathlib import Path
from typing import Callable, Optional

from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import SettingsError
from wenet_runtime.settings import Settings

MAX_KEY_BYTES = 16 << 10
MAKE = (
    "`openssl genpkey -algorithm ed25519 -out key.pem` makes a key, "
    "`openssl pkey -in key.pem -pubout -out key.pub` its public half"
)

Signed = Callable[[bytes, bytes], bool]


def open_bundle(settings: Settings) -> Bundle:
    """Verify the settings' bundle, its signature too if there is a key to verify it with.

    Raises:
        BundleError: it is not as it should be.
        SettingsError: the key is none, or the library that verifies with it is not installed.
    """
    return Bundle(settings.bundle, signed=verifier(settings.verify_key))


def verifier(path: Optional[Path]) -> Optional[Signed]:
    """What tells whether a signature is that of a message by this key; None without a key.

    Args:
        path: PEM file of an Ed25519 public key.

    Raises:
        SettingsError: see `open_bundle`.
    """
    if path is None:
        return None
    try:
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
        from cryptography.hazmat.primitives.serialization import load_pem_public_key
    except ImportError:
        raise SettingsError("--verify-key needs the package cryptography: pip install 'wenet-runtime[sign]'") from None
    path = path.expanduser()
    try:
        with path.open("rb") as file:
            key = load_pem_public_key(file.read(MAX_KEY_BYTES))
    except OSError as error:
        raise SettingsError(f"cannot read --verify-key {path} ({error.strerror}): {MAKE}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise SettingsError(f"--verify-key {path} is no public key in PEM: {MAKE}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsError(f"--verify-key {path} is a key of another kind than Ed25519: {MAKE}")
    public = key

    def signed(message: bytes, signature: bytes) -> bool:
        try:
            public.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    return signed
