"""Can the two Jetson images be filled? Every pin as a wheel for aarch64, whatever each wheel needs, and an install.

No image is built here: this needs neither Docker nor a board, and says nothing of what happens on one.
"""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks.common import ROOT, Arguments, Figure, Measured, at_least, at_most, reported, run

QUESTION = "Do the constraints of the Jetson images resolve for aarch64, and does the image's install line work?"
# Compiled in the image, since there are no wheels. What each needs, from its setup.py or pyproject.toml.
COMPILED: Mapping[str, tuple[str, ...]] = {
    "pycuda==2022.1": ("pytools>=2011.2", "appdirs>=1.4.0", "mako"),
    "pycuda==2024.1.2": ("pytools>=2011.2", "platformdirs>=2.2.0", "mako"),
}


@dataclass(frozen=True)
class Image:
    """One of the argument sets of Dockerfile.jetson.

    Attributes:
        glibc: the minor version of the base image's, 2.x.
        tests: whether the constraints pin what the tests need, too.
    """

    name: str
    python: str
    glibc: int
    tests: bool

    @property
    def constraints(self) -> Path:
        """Where its versions stand."""
        return ROOT / f"constraints-py{self.python.replace('.', '')}.txt"

    def environment(self) -> dict[str, str]:
        """What markers are evaluated with: the board's Python, not this one's."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": "aarch64",
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.18",
            "python_version": self.python,
            "sys_platform": "linux",
            "extra": "",
        }


IMAGES = (Image("nano", "3.8", 27, True), Image("orin", "3.10", 35, False))


def pins(text: str) -> dict[str, str]:
    """Version by canonical name. Raises ValueError at a line that is no `name==version`, or a second one of a name."""
    found: dict[str, str] = {}
    for line in (line.split("#")[0].strip() for line in text.splitlines()):
        if not line:
            continue
        name, separator, version = line.partition("==")
        if not separator or not re.fullmatch(r"[A-Za-z0-9._-]+", name) or canonicalize_name(name) in found:
            raise ValueError(f"'{line}' is no name==version, or its name stands twice")
        found[canonicalize_name(name)] = version
    return found


def roots(image: Image) -> list[Requirement]:
    """What the image installs: the runtime with its extra `jetson`; the tests' for the job that has them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["jetson"], *(extras["test"] if image.tests else ())]
    return [Requirement(text) for text in texts]


def lacking(
    wanted: Iterable[Requirement], pinned: Mapping[str, str], needs: Mapping[str, list[Requirement]], image: Image
) -> tuple[list[str], set[str]]:
    """What the pins do not satisfy, in words, and the names that were reached.

    Args:
        wanted: the roots.
        pinned: version by canonical name.
        needs: requirements of a pin by canonical name; a name that is not there needs nothing.
    """
    problems: list[str] = []
    reached: set[str] = set()
    seen: set[tuple[str, str]] = set()
    queue = [(requirement, "wenet-runtime", "") for requirement in wanted]
    while queue:
        requirement, parent, extra = queue.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({**image.environment(), "extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        version = pinned.get(name)
        if version is None:
            problems.append(f"{parent} needs {requirement}, which is not pinned")
            continue
        if not requirement.specifier.contains(Version(version), prereleases=True):
            problems.append(f"{parent} needs {requirement}, and {version} is pinned")
        reached.add(name)
        for part in ("", *requirement.extras):
            if (name, part) not in seen:
                seen.add((name, part))
                queue += [(one, f"{name} {version}", part) for one in needs.get(name, [])]
    return sorted(set(problems)), reached


def measure(arguments: Arguments) -> Measured:
    """Both images; with `--quick` nothing is installed."""
    figures: dict[str, Figure] = {}
    samples: dict[str, Any] = {}
    for image in IMAGES:
        pinned = pins(image.constraints.read_text())
        compiled = {name: version for name, version in pinned.items() if f"{name}=={version}" in COMPILED}
        with tempfile.TemporaryDirectory(prefix="wenet-images-") as folder:
            wheels, failures = _downloaded(image, {k: v for k, v in pinned.items() if k not in compiled}, Path(folder))
            needs = {name: _needs(wheel) for name, wheel in wheels.items()}
        for name, version in compiled.items():
            needs[name] = [Requirement(text) for text in COMPILED[f"{name}=={version}"]]
        problems, reached = lacking(roots(image), pinned, needs, image)
        installed = [] if arguments.quick else _installed(image)
        how = f"pip download for cp{image.python.replace('.', '')}, aarch64, glibc <= 2.{image.glibc}"
        figures[f"{image.name}_wheels"] = at_least(len(wheels), len(pinned) - len(compiled), "pins", how)
        figures[f"{image.name}_unsatisfied"] = at_most(len(problems), 0, "requirements", "markers as on the board")
        figures[f"{image.name}_unreached"] = reported(
            len(pinned) - len(reached), "pins", "pinned, and nothing needs it"
        )
        if installed:
            failed = [one for one in installed if one["failure"]]
            figures[f"{image.name}_install"] = at_most(
                len(failed), 0, "failures", "the Dockerfile's install line but for pycuda and TensorRT, on x86-64"
            )
        samples[image.name] = {
            "python": image.python,
            "glibc": f"2.{image.glibc}",
            "pins": pinned,
            "wheels": sorted(wheel.name for wheel in wheels.values()),
            "failures": failures,
            "compiled in the image": compiled,
            "unsatisfied": problems,
            "unreached": sorted(set(pinned) - reached),
            "installed": installed or "not tried",
        }
    return figures, samples


def _downloaded(image: Image, pinned: Mapping[str, str], folder: Path) -> tuple[dict[str, Path], list[str]]:
    """A wheel for the board by name, and what pip said of those that have none."""
    tag = f"cp{image.python.replace('.', '')}"
    platforms = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, image.glibc + 1))]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version", image.python, "--implementation", "cp", "--abi", tag]
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += ["--dest", str(folder)]
    names = [f"{name}=={version}" for name, version in pinned.items()]
    failures: list[str] = []
    if _said([*command, *names]) is not None:  # one by one, to tell which
        failures = [f"{name}: {said}" for name in names if (said := _said([*command, name])) is not None]
    return {canonicalize_name(wheel.name.split("-")[0]): wheel for wheel in folder.glob("*.whl")}, failures


def _needs(wheel: Path) -> list[Requirement]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
        headers = HeaderParser().parsestr(archive.read(name).decode())
    return [Requirement(text) for text in headers.get_all("Requires-Dist") or []]


def _installed(image: Image) -> list[dict[str, str | None]]:
    """The image's install line, run here in a fresh environment of its Python with what the Dockerfile copies alone."""
    interpreter = _interpreter(image.python)
    if interpreter is None:
        return []
    steps: list[dict[str, str | None]] = []
    with tempfile.TemporaryDirectory(prefix="wenet-install-") as folder:
        source, venv = Path(folder) / "src", Path(folder) / "venv"
        source.mkdir()
        for name in ("pyproject.toml", "README.md", "LICENSE", image.constraints.name):
            shutil.copy(ROOT / name, source)
        shutil.copytree(
            ROOT / "runtime", source / "runtime", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        )
        pip = [str(venv / "bin/pip"), "--disable-pip-version-check"]
        commands = {
            "venv": [interpreter, "-m", "venv", str(venv)],
            "pip": [*pip, "install", "--quiet", "--upgrade", "pip>=20.3,<25.1"],
            "install": [*pip, "install", "--quiet", "-c", image.constraints.name, "."],
            "check": [*pip, "check"],
            "version": [str(venv / "bin/wenet-runtime"), "--version"],
            "help": [str(venv / "bin/wenet-runtime"), "serve", "--help"],
        }
        for name, command in commands.items():
            steps.append({"step": name, "failure": _said(command, source)})
            if steps[-1]["failure"] is not None:
                break
    return steps


def _interpreter(python: str) -> str | None:
    """A Python of that version here, also one of pyenv's that is not on the PATH."""
    candidates = [f"python{python}", *map(str, Path.home().glob(f".pyenv/versions/{python}.*/bin/python{python}"))]
    for one in candidates:
        if shutil.which(one) and _said([one, "-c", "import venv, ensurepip"]) is None:
            return one
    return None


def _said(command: list[str], folder: Path = ROOT) -> str | None:
    """None if the command succeeded, else the last line that it wrote."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return lines[-1] if lines else f"exit code {done.returncode}"


if __name__ == "__main__":
    run("images", QUESTION, measure, needs_bundle=False)
