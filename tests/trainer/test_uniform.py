import numpy as np
import pytest

from tests.trainer.few_digits import FEW, FewDigits
from wenet_runtime.builder import DeviceCache
from wenet_runtime.bundle import Bundle
from wenet_runtime.device import this_device
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.pool import Pool
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.cost import measure_costs
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import ExportError
from wenet_trainer.evaluate import logits, recalibrated
from wenet_trainer.explore.images import calibration
from wenet_trainer.network import make_network
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.uniform import export_uniform, uniform_modes


@pytest.fixture
def checkpoint(tiny):
    return Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), tiny.state_dict(), {})


def test_every_uniform_mode_is_in_the_bundle_with_its_own_figures_and_is_served(checkpoint, tmp_path):
    sha256 = export_uniform(checkpoint, tmp_path / "bundle", quiet=True)
    bundle, net = Bundle(tmp_path / "bundle"), checkpoint.network()
    assert bundle.sha256 == sha256
    costs = measure_costs(net, (1, 32, 32))
    space, modes = SearchSpace.of(net), bundle.manifest.modes
    assert [mode.id for mode in modes] == ["g1", "g2", "g4", "g8", "g16"]
    for mode, config in zip(modes, space.uniforms(), strict=True):
        assert (mode.groups, mode.precision, mode.found_by) == (dict(config), "fp32", "uniform")
        assert (mode.macs, mode.params) == (costs.macs(config), costs.params(config))
    backend = OrtBackend()
    cache = DeviceCache(tmp_path / "cache", bundle, this_device(backend.name, backend.version, 1), backend)
    Pool(bundle, backend, cache.artifact).close()


def test_accuracies_are_those_of_all_validation_images_with_recalibrated_statistics(checkpoint):
    source, net = FewDigits(), checkpoint.network()
    images = source.validation()
    for mode in uniform_modes(net, source, quiet=True):
        with recalibrated(net, mode.groups, calibration(source)):
            answers = logits(net, normalise(images.pixels, source.preprocess)).argmax(1).numpy()
        assert mode.accuracy.images == len(images) == 96
        assert mode.accuracy.value == pytest.approx(np.mean(answers == images.labels))


def test_a_network_of_another_kind_is_refused(tmp_path):
    recipe = Recipe(data=FEW, model="wenet_trainer.peers.networks:early_exit_digits_resnet")
    checkpoint = Checkpoint(recipe, 1, (), make_network(recipe).state_dict(), {})
    with pytest.raises(ExportError, match="early_exit_digits_resnet' has no weight-enabled layers"):
        export_uniform(checkpoint, tmp_path / "bundle", quiet=True)
    assert not (tmp_path / "bundle").exists()
