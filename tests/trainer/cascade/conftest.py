"""A bundle of a small network's uniform modes, exported once."""

import shutil

import pytest

from tests.trainer.conftest import lively
from tests.trainer.few_digits import FEW
from wenet_runtime.bundle import Bundle
from wenet_trainer.cascade.answers import opened
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.recipe import Recipe
from wenet_trainer.uniform import export_uniform


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory):
    path = tmp_path_factory.mktemp("cascade") / "bundle"
    checkpoint = Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), lively("tiny").state_dict(), {})
    export_uniform(checkpoint, path, quiet=True)
    return Bundle(path)


@pytest.fixture(scope="session")
def engines(shared_bundle):
    with opened(shared_bundle) as found:
        yield found


@pytest.fixture
def bundle(shared_bundle, tmp_path):
    """A copy that a test may change."""
    return Bundle(shutil.copytree(shared_bundle.path, tmp_path / "bundle"))
