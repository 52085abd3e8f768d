"""The certificate that the server shows."""

import ssl
from pathlib import Path
from typing import NamedTuple, Optional

from wenet_runtime.errors import SettingsError
from wenet_runtime.settings import Settings


class Tls(NamedTuple):
    """PEM files: the certificate with its chain, and its key."""

    cert: Path
    key: Path


def tls_of(settings: Settings) -> Optional[Tls]:
    """The settings' certificate; None to serve HTTP. Raises `SettingsError` for files that cannot be used."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    found = Tls(settings.tls_cert.expanduser(), settings.tls_key.expanduser())
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(found.cert), str(found.key), password=_no_password)
    except (OSError, ValueError) as error:  # `ssl.SSLError` is one of the first
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise SettingsError(
            f"--tls-cert {found.cert} and --tls-key {found.key} cannot be used ({reason}): "
            "give PEM files that belong together, the key without a password"
        ) from None
    return found


def _no_password() -> str:
    """Instead of asking for one on the terminal."""
    return ""
