"""Whatever a bundle is: refused with a reason, never with an error of the code."""

import warnings
from pathlib import Path

import pytest

from tests.fuzz.amount import cases
from tests.fuzz.bundles import MAKERS, fuzz, use
from tests.supernets import write_test_bundle


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("right") / "bundle"
    write_test_bundle(path)
    return path


def test_a_damaged_bundle_is_refused_and_never_fails_otherwise(right: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of NumPy, for numbers that are none
        outcome = fuzz(right, tmp_path, cases(3 * len(MAKERS)))
    assert outcome.failures == []


def test_an_undamaged_one_is_not(right: Path) -> None:
    use(right)
