"""Who may ask what: the token file, and the paths that need a token of it.

The file is read once, when the daemon starts: start it again for new tokens. Digests are all that is kept of them.
"""

import hashlib
import hmac
import os
import re
import stat
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Tuple

from wenet_runtime.errors import SettingsError
from wenet_runtime.service.pages import PAGES
from wenet_runtime.service.problems import Problem

MAX_BYTES = 64 << 10
ALL = "all"
INFER = "infer"  # everything but /admin
# Open to everybody: probes, and pages that hold no data. Named one by one, as the router names them: a path spelt in
# any other way is closed.
OPEN = frozenset(("/v2/health/live", "/v2/health/ready", "/openapi.json", *PAGES))

_TOKEN = re.compile(rb"[\x21-\x7e]{16,}")
_BEARER = re.compile(rb"bearer +([\x21-\x7e]+)", re.IGNORECASE)


class Tokens:
    """The tokens of one file.

    Args:
        scopes: `ALL` or `INFER` by the SHA-256 of the token.
    """

    def __init__(self, scopes: Dict[bytes, str]) -> None:
        self._scopes = scopes

    def scope_of(self, headers: Iterable[Tuple[bytes, bytes]]) -> Optional[str]:
        """What the token in these headers allows, `ALL` or `INFER`; None without one, two, or a wrong one."""
        given = [value for name, value in headers if name == b"authorization"]
        bearer = _BEARER.fullmatch(given[0]) if len(given) == 1 else None
        if bearer is None:
            return None
        digest = hashlib.sha256(bearer.group(1)).digest()
        found = None
        for known, scope in self._scopes.items():  # all of them, so that the time tells nothing
            if hmac.compare_digest(digest, known):
                found = scope
        return found


def refusal(tokens: Optional[Tokens], path: str, headers: List[Tuple[bytes, bytes]]) -> Optional[Problem]:
    """Why a request may not be answered; None if it may.

    Args:
        tokens: those of the token file; None without one.
        path: exactly what the router will look at.
        headers: the request's, names in lower case.
    """
    admin = path == "/admin" or path.startswith("/admin/")
    if tokens is None:
        text = "/admin is closed while the server has no tokens: start it with --token-file"
        return Problem("forbidden", text) if admin else None
    if path in OPEN:
        return None
    scope = tokens.scope_of(headers)
    if scope is None:
        text = "no token of this server: send one line of its token file, without 'infer:', as Authorization: Bearer"
        return Problem("unauthorized", text, headers={"WWW-Authenticate": "Bearer"})
    if admin and scope != ALL:
        return Problem("forbidden", "this token is not for /admin: use one that has no 'infer:' in the token file")
    return None


def read_tokens(path: Path) -> Tokens:
    """Read a token file: one token a line; `#` begins a comment's line; `infer:` before one keeps it from /admin.

    A token is 16 or more printable ASCII characters without spaces. Links are followed, as a Kubernetes Secret is
    one: it is the file at their end that `check_file` looks at.

    Raises:
        SettingsError: the file cannot be read, is not for this user alone, or a line is no token. It names the line,
            never the token.
    """
    path = path.expanduser()
    try:
        # Neither waits for a pipe's other end nor looks at another file than it reads.
        descriptor = os.open(str(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            check_file(path, os.fstat(descriptor), user=os.geteuid())
            content = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise SettingsError(
            f"cannot read --token-file {path}: {error.strerror}; "
            f"`(umask 077; openssl rand -hex 32 > {path})` makes one that user {os.geteuid()} can read"
        ) from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"--token-file {path} is larger than {MAX_BYTES >> 10} KiB: give a file of tokens alone")
    return Tokens(_scopes(path, content))


def check_file(path: Path, status: os.stat_result, *, user: int) -> None:
    """Whether only those may read and write a token file who should.

    It belongs to this user or to root, and nobody else may read it, with one exception: a group may read a file of
    root's. Only root can have made that so, and it is how a Secret reaches a container that does not run as root
    (Kubernetes `fsGroup`: root, 0440) and a systemd credential a service (`LoadCredential`: an access list looks like
    group's permission). A user's own file that a group can read is an accident.

    Args:
        path: named in errors.
        status: of the file itself, not of a link.
        user: effective user id of this process.

    Raises:
        SettingsError: what is wrong, and the command that mends it.
    """
    if not stat.S_ISREG(status.st_mode):
        raise SettingsError(f"--token-file {path} is no regular file: write the tokens into one, one a line")
    if status.st_uid not in (0, user):
        raise SettingsError(
            f"--token-file {path} belongs to user {status.st_uid}, who could change it: `chown {user} {path}`"
        )
    allowed = 0o740 if status.st_uid == 0 else 0o700
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o777 & ~allowed:
        raise SettingsError(f"--token-file {path} is open to others (mode {mode:04o}): `chmod 600 {path}`")


def _scopes(path: Path, content: bytes) -> Dict[bytes, str]:
    lines: Dict[bytes, int] = {}
    scopes: Dict[bytes, str] = {}
    for number, line in enumerate(content.splitlines(), 1):
        token = line.strip()
        if not token or token.startswith(b"#"):
            continue
        infer_only = token.startswith(b"infer:")
        token = token[len(b"infer:") :] if infer_only else token
        if _TOKEN.fullmatch(token) is None:
            raise SettingsError(
                f"line {number} of --token-file {path} is no token: "
                "16 or more printable ASCII characters without spaces, as `openssl rand -hex 32` gives"
            )
        digest = hashlib.sha256(token).digest()
        if digest in lines:
            raise SettingsError(f"line {number} of --token-file {path} repeats line {lines[digest]}: remove one")
        lines[digest] = number
        scopes[digest] = INFER if infer_only else ALL
    if not scopes:
        raise SettingsError(f"--token-file {path} holds no token: `openssl rand -hex 32 >> {path}` adds one")
    return scopes
