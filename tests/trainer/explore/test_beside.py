from dataclasses import replace

import pytest
import torch

from tests.trainer.explore.made_up import frontier
from tests.trainer.few_digits import FEW, FewDigits
from tests.trainer.peers.narrow import enliven
from wenet_runtime.engines.base import Artifact
from wenet_runtime.engines.ort import OrtBackend
from wenet_trainer.checkpoint import FILE, Checkpoint, read_checkpoint, write_checkpoint
from wenet_trainer.cost import macs_of
from wenet_trainer.data.base import normalise
from wenet_trainer.errors import CheckpointError, ExploreError
from wenet_trainer.evaluate import accuracy, recalibrated
from wenet_trainer.explore.beside import Yardstick, check_beside, peer_curve, peer_curves
from wenet_trainer.explore.images import apart
from wenet_trainer.network import make_network
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.topology import INPUT, OUTPUT

OURS = Recipe(data=FEW, model="tiny")
PEER = "wenet_trainer.peers.networks:slimmable_digits_resnet"
THEIRS = Recipe(data=FEW, model=PEER, model_arguments={"width": 16, "tail": 32, "divisor": 4, "narrowest": 12})


class Clock:
    """Time that passes only when an engine runs."""

    def __init__(self):
        self.seconds = 0.0

    def perf_counter(self):
        return self.seconds


class TimedEngine:
    def __init__(self, clock, ms):
        self.clock, self.ms, self.closed = clock, ms, False

    def infer(self, inputs):
        assert not self.closed
        assert inputs[INPUT].shape == (1, 1, 32, 32)
        self.clock.seconds += self.ms / 1e3
        return {OUTPUT: None}

    def close(self):
        self.closed = True


class TimedBackend:
    """Each model takes a tenth of a microsecond per number in it."""

    name, version = "timed", "0"

    def __init__(self, clock):
        self.clock, self.engines = clock, []

    def build(self, graph, name):
        del name
        return Artifact(b"", graph.numbers)

    def load(self, mode, artifact, *, threads=None):
        del mode, threads
        self.engines.append(TimedEngine(self.clock, 1e-4 * sum(value.size for value in artifact().numbers.values())))
        return self.engines[-1]

    def close(self):
        pass


def write_run(folder, recipe):
    torch.manual_seed(0)
    net = enliven(make_network(recipe))
    folder.mkdir()
    write_checkpoint(folder / FILE, Checkpoint(recipe, 1, ({"loss_full": 1.0},), net.state_dict(), {}))
    return net


@pytest.fixture
def by(monkeypatch):
    clock, source = Clock(), FewDigits(0)
    monkeypatch.setattr("wenet_runtime.profiler.time.perf_counter", clock.perf_counter)
    calibration = normalise(source.train(0).first(64).pixels, source.preprocess)
    images = source.validation().first(48)
    return Yardstick(OURS, source, images, calibration, TimedBackend(clock), TimedEngine(clock, 8.0), 2.0, rounds=3)


def test_every_width_has_its_time_relative_to_the_full_network_and_its_own_statistics(tmp_path, by):
    net, seen = write_run(tmp_path / "us-net", THEIRS), []
    curve = peer_curve(tmp_path / "us-net", by, observe=lambda: seen.append(None))
    assert curve.name == "us-net"
    assert [point.level for point in curve.points] == list(net.levels["width"])
    assert len(seen) == len(curve.points) > 2
    inputs = normalise(by.images.pixels, by.source.preprocess)
    for point, engine in zip(curve.points, by.backend.engines, strict=True):
        config = {"width": point.level}
        assert point.latency_ms == pytest.approx(engine.ms / 8.0 * 2.0)
        assert point.macs == macs_of(net, config, (1, 32, 32))
        with recalibrated(net, config, by.calibration):
            assert point.accuracy == accuracy(net, config, inputs, by.images.labels, by.images.origins)
    times = [point.latency_ms for point in curve.points]
    assert times == sorted(times, reverse=True)
    assert all(engine.closed for engine in by.backend.engines)
    assert not by.full.closed


def test_a_network_trained_at_one_width_has_one_point(tmp_path, by):
    write_run(tmp_path / "narrow", replace(THEIRS, sampling="fixed", groups=2))
    assert [point.level for point in peer_curve(tmp_path / "narrow", by).points] == [2]


def test_a_real_engine_takes_a_width_as_it_takes_a_mode(tmp_path, by):
    write_run(tmp_path / "us-net", replace(THEIRS, sampling="fixed", groups=3))
    real = replace(by, backend=OrtBackend(None, 1))
    (point,) = peer_curve(tmp_path / "us-net", real).points
    assert point.latency_ms == 0.0  # the engine ran, but the clock of this test stood still


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": "digits"}, "data is 'digits' there"),
        ({"seed": 1}, "seed is 1 there, 0 here"),
        ({"image_size": 16}, "image_size is 16 there"),
    ],
)
def test_a_run_of_other_images_is_refused_by_name(tmp_path, by, change, named):
    write_run(tmp_path / "other", replace(THEIRS, **change))
    for refused in (lambda: peer_curve(tmp_path / "other", by), lambda: check_beside(tmp_path / "other", OURS)):
        with pytest.raises(ExploreError, match=named):
            refused()
    assert by.backend.engines == []


def test_a_run_that_is_not_slimmable_or_not_there_is_refused(tmp_path):
    write_run(tmp_path / "wenet", OURS)
    with pytest.raises(ExploreError, match="'tiny', which is no slimmable network"):
        check_beside(tmp_path / "wenet", OURS)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        check_beside(tmp_path / "nothing", OURS)
    write_run(tmp_path / "us-net", THEIRS)
    check_beside(tmp_path / "us-net", OURS)


def test_the_curves_of_a_frontier_are_of_its_final_images_and_refer_to_its_full_network(tmp_path):
    tiny = write_run(tmp_path / "wenet", OURS)
    write_run(tmp_path / "us-net", replace(THEIRS, sampling="fixed", groups=2))
    checkpoint, found = read_checkpoint(tmp_path / "wenet"), frontier(modes=1)
    (mode,) = found.modes
    full = replace(found, modes=(replace(mode, groups=dict(SearchSpace.of(tiny).full())),))
    (curve,) = peer_curves([tmp_path / "us-net"], checkpoint, full, search_images=32)
    (point,) = curve.points
    assert point.accuracy.images == len(apart(FewDigits(0), 32)[1])
    assert point.latency_ms > 0
    assert peer_curves([], checkpoint, full) == []
    with pytest.raises(ExploreError, match="no full network"):
        peer_curves([tmp_path / "us-net"], checkpoint, replace(full, modes=(replace(mode, precision="int8"),)))
