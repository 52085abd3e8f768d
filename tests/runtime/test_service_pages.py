"""The pages: what is served, under which headers, and how large it is."""

import fnmatch
import re
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tests.runtime.fakes import Client
from wenet_runtime.service.pages import FOLDER, MEDIA, PAGES

LARGEST_BYTES = 60_000


@pytest.mark.parametrize("path", sorted(PAGES))
def test_a_page_is_served_as_what_it_is_under_headers_that_let_it_load_nothing_else(client: Client, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200
    assert response.content == (FOLDER / PAGES[path]).read_bytes()
    headers = response.headers
    assert headers["content-type"] == MEDIA[Path(PAGES[path]).suffix]
    rules = [one.strip() for one in headers["content-security-policy"].split(";")]
    assert {"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"} <= set(rules)
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("form", ["{}", "W/{}", '"other", {}'])
def test_a_page_that_is_known_already_is_not_sent_again(client: Client, form: str) -> None:
    tag = client.get("/ui").headers["etag"]
    again = client.get("/ui", headers={"If-None-Match": form.format(tag)})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert "default-src" in again.headers["content-security-policy"]
    assert client.get("/ui", headers={"If-None-Match": '"other"'}).status_code == 200


def test_each_file_has_its_own_tag(client: Client) -> None:
    assert len({client.get(path).headers["etag"] for path in PAGES}) == len(PAGES)


def test_head_is_answered_and_other_methods_are_not(client: Client) -> None:
    response = client.request("HEAD", "/ui")
    assert (response.status_code, response.content) == (200, b"")
    assert client.request("POST", "/ui").status_code == 405


def test_the_pages_are_no_part_of_the_described_interface(client: Client) -> None:
    assert not [path for path in client.get("/openapi.json").json()["paths"] if path.startswith(("/ui", "/docs"))]


def test_every_file_of_the_folder_is_served_and_all_are_small() -> None:
    files = {one.name for one in FOLDER.iterdir()}
    assert files == set(PAGES.values())
    assert sum((FOLDER / name).stat().st_size for name in files) <= LARGEST_BYTES


def test_an_installed_wheel_has_every_file() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    packed = project["tool"]["setuptools"]["package-data"]["wenet_runtime"]
    for name in PAGES.values():
        assert any(fnmatch.fnmatch(f"service/ui/{name}", pattern) for pattern in packed), name


@pytest.mark.parametrize("name", sorted(set(PAGES.values())))
def test_no_file_holds_what_the_policy_forbids_or_names_another_place(name: str) -> None:
    text = (FOLDER / name).read_text(encoding="utf-8")
    assert not re.search(r"(?:https?:)?//(?!www\.w3\.org/(?:2000/svg|1999/xhtml))[a-z0-9.-]+\.[a-z]{2,}", text)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text)
    if name.endswith(".html"):
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=|<script(?![^>]*\ssrc=)|javascript:", text)


@pytest.mark.parametrize("page", ["index.html", "docs.html"])
def test_all_that_a_page_asks_for_is_served(client: Client, page: str) -> None:
    text = (FOLDER / page).read_text(encoding="utf-8")
    wanted = re.findall(r'(?:src|href)="([^"#]+)"', text)
    for module in (one for one in FOLDER.glob("*.js")):
        wanted += [f"ui/{name}" for name in re.findall(r'from "\./([^"]+)"', module.read_text(encoding="utf-8"))]
    assert len(wanted) > 3
    for one in wanted:
        assert client.get(f"/{one}").status_code == 200, one
