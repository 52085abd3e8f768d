"""The commands that the documents tell, run as they stand: `doc_blocks` says how a page marks them.

Every page is one test, because its commands follow on each other, in a folder that looks like a clone after
`make demo`: `.venv`, a small bundle where the demo's would be, images. What is mapped is said in `mapped`.
"""

import os
import pkgutil
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests import supernets
from tests.e2e.doc_blocks import Block, blocks_of, missing_line

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "deploy/README.md"]
WAIT_S = 120
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


@contextmanager
def folder(clone: Path, page: Path) -> Iterator["Folder"]:
    """A copy of the clone, and an end to every daemon that was started in it."""
    place = clone.parent / f"{clone.name}-{page.parent.name}-{page.stem}"
    shutil.copytree(clone, place, symlinks=True)
    with ExitStack() as daemons:
        yield Folder(place, clone.parent / "docs-cache", daemons)


class Folder:
    """Where a page's commands run."""

    def __init__(self, place: Path, cache: Path, daemons: ExitStack) -> None:
        self.place = place
        self._daemons = daemons
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port: int = free.getsockname()[1]
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("WENET_")}
        self._environment |= {
            "PATH": f"{place / '.venv/bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(cache),
            "XDG_CONFIG_HOME": str(place / "config"),
            "XDG_RUNTIME_DIR": str(place),
            "WENET_PORT": str(self._port),  # of a daemon, and below of who asks one
            "WENET_URL": f"http://127.0.0.1:{self._port}",
            "WENET_PROFILE_ROUNDS": "10",
            "WENET_TUNE": "false",
            "NO_COLOR": "1",
        }

    def mapped(self, text: str) -> str:
        """The port is a free one; the small bundle calls its model and input otherwise."""
        text = text.replace(":8000", f":{self._port}").replace("digits_resnet", "tiny")
        return text.replace('"image"', '"input"')

    def run(self, block: Block) -> tuple[int, str]:
        """Its exit code, and everything that the block prints."""
        command = [sys.executable, "-"] if block.language == "python" else ["bash", "-e", "-s"]
        done = subprocess.run(
            command,
            input=self.mapped(block.text),
            cwd=self.place,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        return done.returncode, done.stdout

    def complaint(self, block: Block, expected: str) -> str | None:
        """Run it; what is not as the page has it, or None."""
        code, printed = self.run(block)
        wanted = int(block.why.removeprefix("exits ") or 0)
        if code != wanted:
            return f"{block.place} ends with {code}\n{printed}"
        absent = missing_line(self.mapped(expected), printed)
        return None if absent is None else f"{block.place} does not print\n{absent}\nbut\n{printed}"

    def serve(self, block: Block) -> str:
        """Start the daemon of the block's last command, in place of the page's one before; what it said so far."""
        self._daemons.close()
        *before, last = re.sub(r"\\\n *", " ", block.text).strip().splitlines()
        if before:
            complaint = self.complaint(Block(block.page, block.line, "sh", "\n".join(before), "run", ""), "")
            assert complaint is None, complaint
        daemon = subprocess.Popen(
            ["bash", "-c", f"exec {self.mapped(last)}"],
            cwd=self.place,
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert daemon.stderr is not None
        guard = threading.Timer(WAIT_S, daemon.kill)
        guard.start()
        said = ""
        for line in daemon.stderr:
            said += line
            if "serving " in line:
                break
        else:
            pytest.fail(f"{block.place}: the daemon ended\n{said}")
        self._daemons.callback(_stop, daemon, guard, block)
        return said


def _stop(daemon: "subprocess.Popen[str]", guard: threading.Timer, block: Block) -> None:
    if daemon.poll() is None:
        daemon.send_signal(signal.SIGTERM)
    _, said = daemon.communicate(timeout=WAIT_S)
    guard.cancel()
    assert daemon.returncode == 0, f"{block.place}\n{said}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_page_s_commands_run_and_print_what_it_shows(page: Path, clone: Path) -> None:
    blocks = blocks_of(page)
    needed = {name for name in ("curl", "openssl") if any(name in one.text for one in blocks if one.mark == "run")}
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
