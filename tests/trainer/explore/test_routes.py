import dataclasses

import numpy as np
import pytest

from tests.trainer.conftest import lively
from tests.trainer.few_digits import FEW
from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import WeNetError
from wenet_runtime.layer_profiler import profile_layers
from wenet_runtime.layer_table import supernet_id, write_table
from wenet_runtime.materialize import Supernet
from wenet_runtime.meters.none import NoMeter
from wenet_trainer.checkpoint import Checkpoint
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.routes import by_files, by_table
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import describe
from wenet_trainer.uniform import export_uniform


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A network and a table of it, from a few rows."""
    folder = tmp_path_factory.mktemp("bench")
    supernet = describe(lively("tiny"), (1, 32, 32))
    bench = Bench(supernet, np.zeros((1, 1, 32, 32), np.float32), folder, NoMeter(), threads=1, seed=0)
    table = profile_layers(
        supernet, bench.backend, emitted=dict, device=bench.device, path=folder / "t.json", most_rows=8, rounds=2
    )
    bench.close()
    return supernet, table


def test_every_table_is_a_device_of_its_own(measured, tmp_path):
    supernet, table = measured
    board = dataclasses.replace(table, device=dataclasses.replace(table.device, processor="board"))
    write_table(tmp_path / "here.json", table)
    write_table(tmp_path / "board.json", board)
    here, there = by_files((tmp_path / "here.json", tmp_path / "board.json"), supernet)
    assert here.device.startswith("here: ")
    assert there.device == f"board: board, 1 thread, ort {table.device.engine_version}"
    config = SearchSpace.of(lively("tiny")).uniform(4)
    assert there.cost(config).latency_ms == pytest.approx(table.latency_ms(config))
    assert there.cost(config).energy_mj is None
    assert there.latency == table.latency


def test_one_device_given_twice_or_a_table_of_another_network_is_refused(measured, tmp_path):
    supernet, table = measured
    path, copy = tmp_path / "here.json", tmp_path / "copy.json"
    write_table(path, table)
    write_table(copy, table)
    with pytest.raises(ExploreError, match=r"copy.json is of the same device as .*here.json: give one"):
        by_files((path, copy), supernet)
    twin = tmp_path / "other" / "here.json"
    twin.parent.mkdir()
    write_table(twin, dataclasses.replace(table, device=dataclasses.replace(table.device, features="other")))
    with pytest.raises(ExploreError, match="both called 'here': rename one"):
        by_files((path, twin), supernet)
    other = describe(lively("digits_resnet"), (1, 32, 32))
    with pytest.raises(WeNetError, match=r"another network|other"):
        by_files((path,), other)
    with pytest.raises(WeNetError, match="nowhere"):
        by_files((tmp_path / "nowhere.json",), supernet)


def test_a_table_measured_on_a_bundle_fits_the_checkpoint_it_was_exported_from(tmp_path):
    net = lively("tiny")
    checkpoint = Checkpoint(Recipe(data=FEW, model="tiny"), 1, (), net.state_dict(), {})
    export_uniform(checkpoint, tmp_path / "bundle", quiet=True)
    exported = Supernet.of(Bundle(tmp_path / "bundle"))
    assert supernet_id(exported) == supernet_id(describe(net, (1, 32, 32)))


def test_a_table_with_energy_tells_it(measured):
    _, table = measured
    energetic = dataclasses.replace(table, energy=dataclasses.replace(table.latency, full=5.0))
    config = SearchSpace.of(lively("tiny")).full()
    assert by_table(energetic, "board").cost(config).energy_mj == pytest.approx(5.0)
