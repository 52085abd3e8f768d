"""Where a server listens, and the token that it wants."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from wenet_runtime.errors import SettingsError

DEFAULT_URL = "http://127.0.0.1:8000"
MAX_TOKEN_FILE_BYTES = 64 << 10

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        scheme: http or https.
        host: name or number, without brackets.
        port: of TCP.
        prefix: what stands before every path, behind a proxy; empty or "/…" without a slash at its end.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Host and port, as in a URL."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The whole of it."""
        return f"{self.scheme}://{self.authority}{self.prefix}"


def address_of(url: str) -> Address:
    """Take a URL apart; `host:port` alone is http. Raises `SettingsError`."""
    text = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port, parts = None, urlsplit("")
    host = parts.hostname or ""
    plain = text.isascii() and text.isprintable() and " " not in text and not parts.query and not parts.fragment
    if parts.scheme not in _PORTS or not host or not plain or port == 0:
        raise SettingsError(f"--url is '{url[:100]}': give the server's address, such as {DEFAULT_URL}")
    if parts.username is not None or parts.password is not None:
        raise SettingsError("--url holds a password: give a token with --token-file, where nobody sees it")
    return Address(parts.scheme, host, port or _PORTS[parts.scheme], parts.path.rstrip("/"))


def read_token(path: Path) -> str:
    """The first token of a file like the server's own: one a line, `#` begins a comment, `infer:` is no part of it.

    Raises:
        SettingsError: it cannot be read or holds none; never with what stands in it.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TOKEN_FILE_BYTES)
    except OSError as error:
        raise SettingsError(f"--token-file '{path}' cannot be read ({error.strerror}): name the file") from None
    for line in data.decode("latin-1").splitlines():
        token = line.strip()
        if token.startswith("infer:"):
            token = token[len("infer:") :]
        if token and not token.startswith("#"):
            if not (token.isascii() and token.isprintable()) or " " in token:
                break
            return token
    raise SettingsError(f"--token-file '{path}' holds no token: write one of the server's into it")
