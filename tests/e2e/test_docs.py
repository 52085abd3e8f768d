"""The commands that the documents tell, run as they stand: `doc_blocks` says how a page marks them.

Every page is one test, because its commands follow on each other, in a folder that looks like a clone after
`make demo`: `.venv`, a small bundle where the demo's would be, images. What is mapped is said in `Folder.mapped`.
"""

import pkgutil
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests import supernets
from tests.e2e.doc_blocks import blocks_of, missing_line
from tests.e2e.doc_folder import folder

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy/README.md"]
TRIES = 20  # of a block whose answer a crowded machine may refuse, or give late
SIZE = 32  # pixels, as the demo's images have

# Why a block is not run, and how many are not: another one is somebody's decision, here.
NOT_RUN = {
    "on the board": 13,
    "needs root and systemd": 1,
    "needs a cluster": 2,
    "needs a package index": 1,
    "sets up its own environment": 1,
    "your own data": 3,
    "minutes of training": 10,
    "minutes of measuring": 2,
    "another test's": 1,
}


def runs(page: Path) -> bool:
    return any(block.mark in ("run", "serve") for block in blocks_of(page))


RUN = [page for page in PAGES if runs(page)]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a page's folder is copied from, its cache warm."""
    place = tmp_path_factory.mktemp("docs")
    (place / ".venv").symlink_to(sys.prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(supernets, "SIZE", SIZE)
        supernets.write_test_bundle(place / "out/demo/bundle")
    six = Image.new("L", (SIZE, SIZE))
    ImageDraw.Draw(six).text((12, 10), "6", fill=255)
    (place / "out/demo/images").mkdir()
    six.save(place / "out/demo/images/test-0000-label6.png")
    six.save(place / "cat.png")
    six.save(place / "cat.jpg")
    np.save(place / "x.npy", np.ones((1, 1, SIZE, SIZE), np.float32))
    shutil.copytree(place / "out/demo/bundle", place / "bundle")
    return place


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_s_commands_run_and_print_what_it_shows(page: Path, clone: Path) -> None:
    blocks = blocks_of(page)
    texts = [one.text for one in blocks if one.mark in ("run", "serve")]
    needed = {name for name in ("curl", "openssl") if any(f"{name} " in text for text in texts)}
    missing = sorted(name for name in needed if shutil.which(name) is None)
    if missing:
        pytest.skip(f"{page.name} has commands that need {' and '.join(missing)}, which is not here")
    with folder(clone, page) as here:
        for block, following in zip(blocks, [*blocks[1:], None], strict=True):
            if block.mark not in ("run", "serve"):
                continue
            expected = following.text if following is not None and following.mark == "output" else ""
            if block.mark == "serve":
                absent = missing_line(here.mapped(expected), here.serve(block))
                assert absent is None, f"{block.place}: {absent}"
                continue
            for _ in range(TRIES if expected else 1):
                complaint = here.complaint(block, expected)
                if complaint is None:
                    break
            assert complaint is None, complaint


def test_every_block_of_commands_says_what_is_done_with_it() -> None:
    unmarked = [one.place for page in PAGES for one in blocks_of(page) if one.language in ("sh", "python", "")]
    marked = [one.place for page in PAGES for one in blocks_of(page) if one.mark]
    assert sorted(set(unmarked) - set(marked)) == []


def test_what_is_not_run_is_counted_and_the_tests_that_it_names_exist() -> None:
    left = [one for page in PAGES for one in blocks_of(page) if one.mark == "not run"]
    assert Counter(one.why.split(";")[0] for one in left) == NOT_RUN
    for one in left:
        for test in re.findall(r"[\w/]+\.py", one.why):
            assert (ROOT / test).is_file(), f"{one.place} names {test}"


def test_an_output_stands_behind_commands_that_are_run() -> None:
    for page in PAGES:
        before = None
        for block in blocks_of(page):
            if block.mark == "output":
                assert before is not None, block.place
                assert before.mark in ("run", "serve") or before.why.startswith("another test's"), block.place
            before = block


def test_figures_may_differ_from_a_page_and_words_may_not() -> None:
    assert (
        missing_line("mode m2 (fits): 4.89 ms, sum 8c0d2bf9a1e47f\n…\nend", "x\nmode m0 (degraded): 1 ms, sum 9\nend")
        is None
    )
    assert missing_line("a …: 7", "a long story: 8") is None
    assert missing_line("HTTP/1.1 200 OK", "HTTP/1.1 204 OK") == "HTTP/1.1 200 OK"
    assert missing_line('{"status":422, "ms":1}', '{"status":503, "ms":1}') is not None
    assert missing_line("200 http://127.0.0.1:1/", "401 http://127.0.0.1:1/") is not None
    assert missing_line("budget of 20 ms met", "budget of 2 ms missed") == "budget of 20 ms met"
    assert missing_line("one\ntwo", "two\none") == "two"


def test_a_link_to_another_page_or_heading_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            file, _, heading = target.partition("#")
            if "://" in target:
                continue
            there = (page.parent / file).resolve() if file else page
            assert there.exists(), f"{page.name}: {target}"
            if heading:
                assert heading in headings(there), f"{page.name}: {target}"


def test_the_paper_s_map_names_what_exists() -> None:
    text = (ROOT / "docs/paper.md").read_text()
    rooms = {"T": "wenet_trainer", "R": "wenet_runtime"}
    named = 0
    for room, names in re.findall(r"\b([TR]) ((?:`[^`]+`(?:, )?)+)", text):
        for name in re.findall(r"`([a-z_0-9]+(?:\.\w+)*)`", names):
            pkgutil.resolve_name(f"{rooms[room]}.{name}")
            named += 1
    assert named > 30
    for test in re.findall(r"`((?:\w+/)?(?:test_)?\w+\.py)`", text):
        assert any((ROOT / one / test).is_file() for one in ("tests/trainer", "tests/runtime", ".")), test
    for figures in re.findall(r"`(\w+\.json)`", text):
        assert (ROOT / "benchmarks/results" / figures).is_file(), figures


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
