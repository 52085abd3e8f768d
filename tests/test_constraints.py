"""The versions of the two Jetson images: what can be said of them without a package index."""

import pytest
import tomllib
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.images import COMPILED, IMAGES, Image, lacking, pins, roots
from tests.test_repository import ROOT

NANO, ORIN = IMAGES
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def applies(requirement: Requirement, image: Image) -> bool:
    return requirement.marker is None or requirement.marker.evaluate(image.environment())


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(image.name))
def test_every_requirement_of_the_runtime_is_pinned_to_a_version_that_it_allows(image: Image) -> None:
    pinned = pins(image.constraints.read_text())
    for text in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["jetson"]]:
        requirement = Requirement(text)
        if applies(requirement, image):
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)], prereleases=True), text


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: str(image.name))
def test_what_is_compiled_in_the_image_is_known_with_what_it_needs(image: Image) -> None:
    pinned = pins(image.constraints.read_text())
    needs = COMPILED[f"pycuda=={pinned['pycuda']}"]
    assert lacking([Requirement(text) for text in needs], pinned, {}, image)[0] == []


def test_the_nano_pins_what_the_facts_say_has_wheels_for_glibc_2_27() -> None:
    found = pins(NANO.constraints.read_text())
    known = {
        "numpy": "1.24.4",
        "onnxruntime": "1.19.2",
        "onnx": "1.17.0",
        "pydantic-core": "2.27.2",
        "uvloop": "0.21.0",
    }
    assert {name: found[name] for name in known} == known
    assert found["pycuda"] == "2022.1"  # the last known to fit CUDA 10.2


def test_numpy_on_an_orin_is_one_that_tensorrt_10_3_knows() -> None:
    assert pins(ORIN.constraints.read_text())["numpy"].startswith("1.26.")


def test_the_nano_job_tests_the_versions_of_the_image() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "-c constraints-py38.txt -e '.[test]'" in makefile
    assert NANO.constraints.name == "constraints-py38.txt"


@pytest.mark.parametrize("line", ["numpy", "numpy>=1", "numpy==1\nNumPy==2", "-r other.txt", "numpy @ file:///x"])
def test_a_constraint_is_a_name_and_one_version(line: str) -> None:
    with pytest.raises(ValueError, match="is no name==version"):
        pins(line)


def test_what_a_pin_needs_is_looked_for_with_the_board_s_markers_and_extras() -> None:
    pinned = {"one": "1.0", "two": "2.0", "three": "3.0"}
    needs = {
        "one": [
            Requirement("two<2"),
            Requirement("four; python_version < '3.9'"),
            Requirement("five; platform_machine == 'x86_64'"),
            Requirement("three; extra == 'more'"),
            Requirement("six; extra == 'other'"),
        ]
    }
    problems, reached = lacking([Requirement("one[more]")], pinned, needs, NANO)
    assert problems == [
        'one 1.0 needs four; python_version < "3.9", which is not pinned',
        "one 1.0 needs two<2, and 2.0 is pinned",
    ]
    assert reached == {"one", "two", "three"}
    assert lacking([Requirement("one")], pinned, needs, ORIN) == (
        ["one 1.0 needs two<2, and 2.0 is pinned"],
        {"one", "two"},
    )


def test_the_roots_are_the_runtime_s_and_those_of_the_nano_the_tests_too() -> None:
    names = {image.name: {requirement.name for requirement in roots(image)} for image in IMAGES}
    assert {"numpy", "starlette", "pycuda"} <= names["orin"]
    assert "pytest" in names["nano"] - names["orin"]
