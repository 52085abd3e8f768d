"""One request and its reply, by the standard library's client."""

import http.client
import json
import socket
import ssl
from dataclasses import dataclass
from typing import Any, Dict, Mapping, Optional

from wenet_runtime.client.address import Address
from wenet_runtime.errors import WeNetError

TIMEOUT_S = 60.0
MAX_REPLY_BYTES = 64 << 20
MAX_SHOWN = 300


class Unreachable(WeNetError):
    """No server answered, or what answered is none."""


@dataclass(frozen=True)
class Reply:
    """What a server answered; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def members(self) -> Dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            found = json.loads(self.body.decode())
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def slug(self) -> str:
        """Which problem this is (HTTP API v1, section 7), or its status if it says none."""
        kind = self.members().get("type")
        return printable(kind.rsplit(":", 1)[-1]) if isinstance(kind, str) and kind else f"HTTP {self.status}"

    @property
    def complaint(self) -> str:
        """An error in one line: which, and what the server says of it."""
        detail = self.members().get("detail")
        text = detail if isinstance(detail, str) and detail else "the server says no more"
        return f"{self.slug}: {printable(text)}"


def printable(text: str) -> str:
    """A server's text without what could drive a terminal, and not too long."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:MAX_SHOWN])


@dataclass(frozen=True)
class Client:
    """Asks one server; every request has a connection of its own.

    Attributes:
        address: the server's.
        token: sent as `Authorization: Bearer`; None sends none.
        timeout_s: how long the server may be silent.
    """

    address: Address
    token: Optional[str] = None
    timeout_s: float = TIMEOUT_S

    def headers(self) -> Dict[str, str]:
        """What every request carries."""
        return {} if self.token is None else {"Authorization": f"Bearer {self.token}"}

    def request(
        self, method: str, path: str, *, body: Optional[bytes] = None, headers: Optional[Mapping[str, str]] = None
    ) -> Reply:
        """Ask once.

        Args:
            method: of HTTP.
            path: begins with a slash.
            body: None sends none.
            headers: further ones.

        Raises:
            Unreachable: nothing answered, not in time, or not in HTTP.
        """
        where = self.address
        kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection
        connection = kind(where.host, where.port, timeout=self.timeout_s)
        try:
            connection.request(
                method,
                where.prefix + path,
                body=body,
                headers={**self.headers(), **(headers or {}), "Connection": "close"},
            )
            found = connection.getresponse()
            data = found.read(MAX_REPLY_BYTES)
            return Reply(found.status, {name.lower(): value for name, value in found.getheaders()}, data)
        except ConnectionRefusedError:
            raise Unreachable(
                f"nothing listens on {where.url}: start it with `wenet-runtime --bundle DIR`, or give another --url"
            ) from None
        except ssl.SSLCertVerificationError:
            raise Unreachable(
                f"the certificate of {where.url} is not trusted here: name its issuer's file in SSL_CERT_FILE"
            ) from None
        except socket.timeout:
            raise Unreachable(f"{where.url} did not answer within {self.timeout_s:g} s: is --url right?") from None
        except http.client.HTTPException as error:
            raise Unreachable(
                f"{where.url} does not answer in HTTP ({type(error).__name__}): is --url right?"
            ) from None
        except OSError as error:
            raise Unreachable(f"cannot ask {where.url} ({error.strerror or error}): is --url right?") from None
        finally:
            connection.close()
