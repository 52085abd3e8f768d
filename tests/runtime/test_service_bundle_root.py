"""Where bundles may come from, and what is told of it."""

from pathlib import Path

import pytest

from wenet_runtime.service.bundle_root import place_of, without_paths
from wenet_runtime.service.problems import Problem


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "deep" / "v2").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (root / "file").write_text("")
    (root / "out").symlink_to(tmp_path / "outside")
    (root / "up").symlink_to("..")
    (root / "current").symlink_to("deep/v2")
    (root / "loop").symlink_to("loop")
    return root


def test_a_directory_inside_is_found_by_either_kind_of_path(root: Path) -> None:
    place = root / "deep" / "v2"
    assert place_of(root, "deep/v2") == place_of(root, str(place)) == place_of(root, "./deep//v2/") == place


def test_a_link_that_stays_inside_leads_to_where_it_points(root: Path) -> None:
    assert place_of(root, "current") == root / "deep" / "v2"


def test_a_root_that_is_a_link_is_where_it_points(root: Path, tmp_path: Path) -> None:
    (tmp_path / "bundles").symlink_to(root)
    assert place_of(tmp_path / "bundles", str(tmp_path / "bundles" / "deep")) == root / "deep"


@pytest.mark.parametrize(
    "given",
    ["", ".", "..", "../outside", "deep/../deep/v2", "out", "up", "up/outside", "out/../deep", "/", "/etc", "~",
     "nowhere", "file", "file/x", "loop", "deep\0", "x" * 300, "x/" * 2000, "//etc", "http://127.0.0.1/bundle"],
)  # fmt: skip
def test_all_else_is_refused_and_nothing_is_told_of_where_things_lie(root: Path, given: str) -> None:
    with pytest.raises(Problem) as caught:
        place_of(root, given)
    assert caught.value.slug == "bundle-invalid"
    assert str(root) not in caught.value.detail
    assert str(root.parent) not in caught.value.detail


@pytest.mark.parametrize("given", ["../root/deep", "/etc", "../nowhere"])
def test_what_lies_outside_is_not_told_apart_from_what_does_not_exist(root: Path, given: str) -> None:
    with pytest.raises(Problem, match="not inside the folder"):
        place_of(root, given)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("no bundle at /srv/models/a-1: make one", "no bundle at …: make one"),
        ("/a/manifest.json is not JSON (x)", "… is not JSON (x)"),
        ("cannot use the cache ~/.cache/wenet/ab (full)", "cannot use the cache … (full)"),
        ("'modes/m0.safetensors' has 3/4 bytes", "'modes/m0.safetensors' has 3/4 bytes"),
        ("'/etc/passwd' and ../x/y", "'…' and …"),
    ],
)
def test_a_message_loses_its_paths_and_nothing_else(text: str, told: str) -> None:
    assert without_paths(text) == told
