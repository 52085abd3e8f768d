"""What must hold of the repository as a whole."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def committed() -> list[Path]:
    names = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if names.returncode != 0:
        pytest.skip("not a git checkout: nothing says which files are the project's")
    return [ROOT / name for name in names.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_committed_file_names_the_address_of_a_package_index() -> None:
    address = re.compile(rb"py" rb"pi\.org|python" rb"hosted\.org|--(extra-)?index-url")
    assert [str(path) for path in committed() if address.search(path.read_bytes())] == []


def test_the_readme_names_the_two_commands_and_ci_runs_the_second() -> None:
    assert "make demo" in README
    assert "make test" in README
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test")


def test_every_make_target_the_documents_name_exists() -> None:
    targets = set(re.findall(r"^([a-z0-9]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in ("README.md", "CONTRIBUTING.md", "deploy/README.md"):
        named = set(re.findall(r"`make ([a-z0-9]+)`", (ROOT / name).read_text()))
        assert named <= targets, name


def test_every_file_and_picture_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (ROOT / target).exists(), target


def test_serving_imports_neither_torch_nor_onnx() -> None:
    code = (
        "import sys, wenet_runtime.cli.serve, wenet_runtime.engines.ort\n"
        "print([name for name in ('torch', 'onnx', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_module_says_what_belongs_in_it() -> None:
    for folder in ("runtime", "trainer", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            assert path.read_text().startswith('"""'), path
