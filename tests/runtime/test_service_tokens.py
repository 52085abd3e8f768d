"""Tokens: which files are taken, what a request must bring, and that no spelling of a path gets round it."""

import os
import stat
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

from wenet_runtime.errors import SettingsError
from wenet_runtime.service.tokens import ALL, INFER, MAX_BYTES, OPEN, Tokens, check_file, read_tokens, refusal

ADMIN_TOKEN = "a" * 15 + "!"
INFER_TOKEN = "~" + "b" * 15
USER = 1000
REGULAR = stat.S_IFREG


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "token"


def write(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def bearer(token: str, scheme: str = "Bearer") -> List[Tuple[bytes, bytes]]:
    return [(b"accept", b"*/*"), (b"authorization", f"{scheme} {token}".encode("latin-1"))]


@pytest.fixture
def tokens(path: Path) -> Tokens:
    return read_tokens(write(path, f"# fleet\n\n  {ADMIN_TOKEN}  \r\ninfer:{INFER_TOKEN}\n".encode()))


def test_a_line_is_a_token_for_everything_or_for_inference(tokens: Tokens) -> None:
    assert tokens.scope_of(bearer(ADMIN_TOKEN)) == ALL
    assert tokens.scope_of(bearer(INFER_TOKEN)) == INFER


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "Bearer "])
def test_the_scheme_s_case_and_spaces_do_not_matter(tokens: Tokens, scheme: str) -> None:
    assert tokens.scope_of(bearer(ADMIN_TOKEN, scheme)) == ALL


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        ADMIN_TOKEN,
        f"Basic {ADMIN_TOKEN}",
        f"Bearer{ADMIN_TOKEN}",
        f"Bearer {ADMIN_TOKEN} ",
        f"Bearer {ADMIN_TOKEN}x",
        f"Bearer {ADMIN_TOKEN[:-1]}",
        f"Bearer {ADMIN_TOKEN.upper()}",
        f"Bearer infer:{INFER_TOKEN}",
        "Bearer # fleet",
        "Bearer é",
        f"Bearer {ADMIN_TOKEN}, Bearer {INFER_TOKEN}",
    ],
)
def test_anything_else_is_no_token(tokens: Tokens, value: str) -> None:
    assert tokens.scope_of([(b"authorization", value.encode("latin-1"))]) is None


def test_no_header_or_two_are_no_token(tokens: Tokens) -> None:
    assert tokens.scope_of([]) is None
    assert tokens.scope_of([(b"x-authorization", f"Bearer {ADMIN_TOKEN}".encode())]) is None
    assert tokens.scope_of([*bearer(ADMIN_TOKEN), *bearer(ADMIN_TOKEN)]) is None


@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_token_is_compared_whichever_is_given(path: Path, monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    given = [f"{number:016d}" for number in range(3)]
    tokens = read_tokens(write(path, "\n".join(given).encode()))
    compared: List[Tuple[bytes, bytes]] = []

    def noted(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr("wenet_runtime.service.tokens.hmac.compare_digest", noted)
    assert tokens.scope_of(bearer(given[position])) == ALL
    assert len(compared) == 3
    assert {(len(one), len(other)) for one, other in compared} == {(32, 32)}


def test_a_token_is_in_no_representation(tokens: Tokens) -> None:
    shown = f"{tokens!r} {tokens} {vars(tokens)}"
    assert ADMIN_TOKEN not in shown
    assert INFER_TOKEN not in shown


# The paths of the API, and ways of writing /admin/policy that some server somewhere takes for it.
CLOSED = ["/", "/infer", "/modes", "/metrics", "/v2", "/v2/health", "/v2/models/tiny/infer", "/nowhere"]
TRICKS = [
    "//admin/policy", "/./admin/policy", "/../admin/policy", "/ADMIN/policy", "/Admin/policy", "/admin\t/policy",
    "/v2/health/live/../../admin/policy", "/v2/health/live/", "/v2/health//live", "/ui/../admin/policy", "/ui/",
    "/docs/x", "/openapi.json\n", "/ui\n", "/%61dmin/policy", "/ui%2f..%2fadmin/policy", "admin/policy", "", "*",
    "/UI", "/v2/health/live;x", "/ui?", "/v2/health/live\x00",
]  # fmt: skip
ADMIN = ["/admin", "/admin/", "/admin/policy", "/admin/./policy", "/admin//drain", "/admin/policy\n", "/admin/../ui"]


def asked(tokens: Optional[Tokens], path: str, token: Optional[str] = None) -> str:
    """What the gate says: a slug, or "" if it lets pass."""
    found = refusal(tokens, path, [] if token is None else bearer(token))
    return "" if found is None else found.slug


@pytest.mark.parametrize("url", sorted(OPEN))
def test_probes_and_pages_without_data_need_no_token(tokens: Tokens, url: str) -> None:
    assert asked(tokens, url) == ""
    assert asked(tokens, url, "wrong" * 5) == ""


def test_what_is_open_is_what_the_contract_names() -> None:
    named = {"/v2/health/live", "/v2/health/ready", "/ui", "/docs", "/openapi.json"}
    assert named <= OPEN
    assert {path.split("/")[1] for path in OPEN - named} == {"ui"}  # what belongs to the pages


@pytest.mark.parametrize("url", [*CLOSED, *TRICKS, *ADMIN])
def test_everything_else_needs_one(tokens: Tokens, url: str) -> None:
    assert asked(tokens, url) == "unauthorized"
    assert asked(tokens, url, "wrong" * 5) == "unauthorized"
    assert asked(tokens, url, ADMIN_TOKEN) == ""


@pytest.mark.parametrize("url", CLOSED)
def test_a_token_for_inference_opens_all_but_admin(tokens: Tokens, url: str) -> None:
    assert asked(tokens, url, INFER_TOKEN) == ""


@pytest.mark.parametrize("url", ADMIN)
def test_admin_is_closed_to_a_token_for_inference_and_to_all_without_a_file(tokens: Tokens, url: str) -> None:
    assert asked(tokens, url, INFER_TOKEN) == "forbidden"
    assert asked(None, url) == "forbidden"
    assert asked(None, url, ADMIN_TOKEN) == "forbidden"


@pytest.mark.parametrize("url", [*CLOSED, *sorted(OPEN), "/administrator"])
def test_without_a_file_all_else_is_open(url: str) -> None:
    assert asked(None, url) == ""


def test_a_refusal_says_what_to_send_and_not_what_was_sent(tokens: Tokens) -> None:
    wrong = "sesame" * 5
    found = refusal(tokens, "/infer", bearer(wrong))
    assert found is not None
    assert found.headers == {"WWW-Authenticate": "Bearer"}
    assert "Authorization: Bearer" in found.detail
    assert wrong not in found.detail


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (b"x" * 16, True),
        (b"x" * 15, False),
        (bytes(range(0x21, 0x23)) + bytes(range(0x24, 0x7F)), True),
        (b"infer:" + b"x" * 16, True),
        (b"infer:" + b"x" * 15, False),
        (b"infer: " + b"x" * 16, False),
        (b"two words of a line", False),
        (b"x" * 16 + b"\x7f", False),
        (b"x" * 16 + b"\x00", False),
        ("é".encode() * 16, False),
        (b"\xef\xbb\xbf" + b"x" * 16, False),
    ],
)
def test_a_token_is_sixteen_printable_characters_without_spaces(path: Path, line: bytes, taken: bool) -> None:
    write(path, b"# one\n" + line + b"\n")
    if taken:
        assert read_tokens(path).scope_of(bearer(line.decode().split("infer:")[-1])) is not None
    else:
        with pytest.raises(SettingsError, match=r"line 2 of --token-file .* is no token") as found:
            read_tokens(path)
        assert "x" * 15 not in str(found.value)
        assert "words" not in str(found.value)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a comment\n"])
def test_a_file_without_a_token_is_refused(path: Path, content: bytes) -> None:
    with pytest.raises(SettingsError, match=r"holds no token: `openssl rand"):
        read_tokens(write(path, content))


@pytest.mark.parametrize("again", [ADMIN_TOKEN, f"infer:{ADMIN_TOKEN}"])
def test_one_token_twice_is_refused(path: Path, again: str) -> None:
    with pytest.raises(SettingsError, match=r"line 3 of --token-file .* repeats line 1: remove one") as found:
        read_tokens(write(path, f"{ADMIN_TOKEN}\n#\n{again}\n".encode()))
    assert ADMIN_TOKEN not in str(found.value)


def test_a_file_has_a_largest_size(path: Path) -> None:
    token = ADMIN_TOKEN.encode() + b"\n"
    fits = token + b"#" * (MAX_BYTES - len(token))
    assert read_tokens(write(path, fits)).scope_of(bearer(ADMIN_TOKEN)) == ALL
    with pytest.raises(SettingsError, match="larger than 64 KiB"):
        read_tokens(write(path, fits + b"#"))


def test_what_is_no_file_is_refused_and_a_pipe_does_not_hold_the_start(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot read --token-file .*No such file.*openssl rand"):
        read_tokens(path)
    path.mkdir()
    with pytest.raises(SettingsError, match="is no regular file"):
        read_tokens(path)
    path.rmdir()
    os.mkfifo(str(path))
    path.chmod(0o600)
    with pytest.raises(SettingsError, match="is no regular file"):
        read_tokens(path)
    with pytest.raises(SettingsError, match="is no regular file"):
        read_tokens(Path("/dev/null"))


def test_a_link_is_followed_and_the_file_at_its_end_is_what_counts(path: Path, tmp_path: Path) -> None:
    (tmp_path / "..data").mkdir()  # as Kubernetes mounts a Secret
    target = write(tmp_path / "..data" / "token", ADMIN_TOKEN.encode())
    path.symlink_to(Path("..data") / "token")
    assert read_tokens(path).scope_of(bearer(ADMIN_TOKEN)) == ALL
    target.chmod(0o644)
    with pytest.raises(SettingsError, match=r"open to others \(mode 0644\): `chmod 600"):
        read_tokens(path)


def test_a_file_in_the_home_directory_is_found(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(path, ADMIN_TOKEN.encode())
    assert read_tokens(Path("~/token")).scope_of(bearer(ADMIN_TOKEN)) == ALL


def test_a_file_that_others_can_read_is_refused_and_left_closed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: List[int] = []
    close = os.close
    monkeypatch.setattr("wenet_runtime.service.tokens.os.close", lambda descriptor: left.append(close(descriptor) or 1))
    with pytest.raises(SettingsError, match="open to others"):
        read_tokens(write(path, ADMIN_TOKEN.encode(), 0o604))
    assert left == [1]


def status(**members: Any) -> os.stat_result:
    values: Dict[str, Any] = {"mode": REGULAR | 0o600, "uid": USER, **members}
    return os.stat_result((values["mode"], 0, 0, 1, values["uid"], 0, 0, 0, 0, 0))


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o000])
@pytest.mark.parametrize("owner", [0, USER])
def test_a_file_for_its_owner_alone_is_taken_from_this_user_and_from_root(mode: int, owner: int) -> None:
    check_file(Path("t"), status(mode=REGULAR | mode, uid=owner), user=USER)


@pytest.mark.parametrize("mode", [0o440, 0o640])
def test_a_group_may_read_root_s_file_and_no_other(mode: int) -> None:
    for user in (USER, 0):
        check_file(Path("t"), status(mode=REGULAR | mode, uid=0), user=user)
    with pytest.raises(SettingsError, match=f"mode {mode:04o}"):
        check_file(Path("t"), status(mode=REGULAR | mode, uid=USER), user=USER)


@pytest.mark.parametrize("bit", [0o020, 0o010, 0o004, 0o002, 0o001])
@pytest.mark.parametrize("owner", [0, USER])
def test_no_further_bit_is_taken_from_anybody(bit: int, owner: int) -> None:
    with pytest.raises(SettingsError, match="open to others"):
        check_file(Path("t"), status(mode=REGULAR | 0o600 | bit, uid=owner), user=USER)


@pytest.mark.parametrize("user", [USER, 0])
def test_a_third_user_s_file_is_refused_with_the_remedy(user: int) -> None:
    with pytest.raises(SettingsError, match=f"belongs to user 4711, who could change it: `chown {user} t`"):
        check_file(Path("t"), status(uid=4711), user=user)


@pytest.mark.parametrize("kind", [stat.S_IFDIR, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK, stat.S_IFLNK])
def test_only_a_regular_file_is_taken(kind: int) -> None:
    with pytest.raises(SettingsError, match="is no regular file"):
        check_file(Path("t"), status(mode=kind | 0o600), user=USER)
