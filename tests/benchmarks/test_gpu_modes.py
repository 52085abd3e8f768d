"""What can be tested of the GPU's benchmark without one: all but the GPU. Nothing here is a figure of any GPU."""

import contextlib
import copy
import functools
import itertools
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from benchmarks import gpu_modes
from benchmarks.common import Arguments, commit, reported
from benchmarks.gpu_energy import REST_S, Energies, measure
from benchmarks.gpu_graphs import InOrder, frozen
from benchmarks.gpu_summary import compared, energy_figures, interval_rank, ratio, sentences
from benchmarks.networks import make_torch
from tests.runtime.test_engines_ort_cuda import OnTheCpu as OrtOnTheCpu
from wenet_runtime.errors import EngineError, MeterError
from wenet_runtime.materialize import Supernet
from wenet_trainer.layers import ChannelShuffle, WeightEnabledLinear
from wenet_trainer.models import build
from wenet_trainer.norms import SwitchableBatchNorm2d
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import set_active
from wenet_trainer.topology import describe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """torch's threads wait for each other in turns: on a crowded machine that takes longer than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TestArguments:
    def test_without_a_gpu_it_says_so_and_writes_nothing(self, tmp_path: Path) -> None:
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
        out = tmp_path / "result.json"
        command = [sys.executable, "-m", "benchmarks.gpu_modes", "--quick", "--out", str(out)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 1
        assert "no NVIDIA GPU" in done.stderr
        assert "Traceback" not in done.stderr
        assert done.stdout == ""
        assert list(tmp_path.iterdir()) == []

    def test_a_network_that_it_does_not_know_is_refused(self) -> None:
        command = [sys.executable, "-m", "benchmarks.gpu_modes", "--network", "vgg16"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 2
        assert "resnet50" in done.stderr

    def test_a_machine_without_git_keeps_what_was_measured(
        self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert commit() == "unknown"


class TestFrozen:
    @pytest.mark.parametrize("seed", range(3))
    @pytest.mark.parametrize("name", ["digits_resnet", "mobilenet_v2"])
    def test_it_answers_as_the_trainer_s_network_in_any_configuration(self, name: str, seed: int) -> None:
        net = network(name)
        groups = configuration(net, seed)
        image = example(name)
        with torch.inference_mode():
            set_active(net, groups)
            wanted = net(image)
            found = frozen(net, groups, image[:1])(image)
            set_active(net, SearchSpace.of(net).full())
            other = net(image)
        scale = wanted.abs().max()
        assert (found - wanted).abs().max() <= 1e-4 * scale
        assert (found - other).abs().max() > 1e-2 * scale

    def test_nothing_in_it_has_a_choice_and_no_norm_behind_a_convolution_is_left(self) -> None:
        net = network("mobilenet_v2")
        plain = frozen(net, configuration(net, 0), example("mobilenet_v2"))
        kinds = {type(module) for module in plain.modules()}
        assert not {kind for kind in kinds if kind.__module__ == "wenet_trainer.layers"}
        assert not [module for module in plain.modules() if isinstance(module, nn.BatchNorm2d)]
        assert not [one for one in plain.parameters() if one.requires_grad]

    def test_the_network_it_is_cut_from_stays_as_it_is(self) -> None:
        net = network("digits_resnet")
        set_active(net, configuration(net, 1))
        before = {name: value.clone() for name, value in net.state_dict().items()}
        image = example("digits_resnet")
        wanted = net(image)
        frozen(net, configuration(net, 2), image)
        assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
        assert torch.equal(net(image), wanted)

    def test_dense_layers_and_norms_without_a_convolution_before_them_are_kept_right(self) -> None:
        torch.manual_seed(0)
        dense = WeightEnabledLinear(64, 32)
        dense.set_groups(8)
        norm = SwitchableBatchNorm2d(64, fed_by=dense)
        for _, one in norm.norms():
            nn.init.uniform_(one.weight, 0.5, 1.5)
            nn.init.uniform_(one.bias, -0.5, 0.5)
        net = nn.Sequential(norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense).eval()
        image = torch.randn(3, 64, 4, 4)
        for groups in (1, 8):
            set_active(net, {"4": groups})
            assert torch.allclose(frozen(net, {"4": groups}, image)(image), net(image), atol=1e-5)

    def test_a_shuffle_keeps_an_image_channels_last_and_its_values(self) -> None:
        shuffle = ChannelShuffle(64, 16)
        image = torch.randn(2, 64, 3, 5).to(memory_format=torch.channels_last)
        found = InOrder(shuffle.permutation)(image)
        assert torch.equal(found, shuffle(image))
        assert found.is_contiguous(memory_format=torch.channels_last)


class TestIntervals:
    @pytest.mark.parametrize(("pairs", "rank"), [(0, 0), (5, 0), (6, 1), (8, 1), (9, 2), (10, 2), (20, 6), (100, 40)])
    def test_ranks_are_those_of_a_fair_coin(self, pairs: int, rank: int) -> None:
        assert interval_rank(pairs) == rank

    @pytest.mark.parametrize("pairs", [6, 15, 60])
    def test_an_interval_holds_the_median_as_often_as_it_says(self, pairs: int) -> None:
        random = np.random.default_rng(0)
        ones = np.ones(pairs)
        found = [ratio(np.exp(random.standard_t(2, pairs)), ones) for _ in range(2000)]
        assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.94

    def test_what_differs_is_said_and_what_does_not_is_not(self) -> None:
        random = np.random.default_rng(1)
        slow = random.lognormal(0, 0.05, 50)
        assert ratio(slow * 0.8, slow).verdict == "less"
        assert ratio(slow * 1.25, slow).verdict == "more"
        assert ratio(slow, random.lognormal(0, 0.05, 50)).verdict == "not shown"
        assert ratio(slow * 0.8, slow).median == pytest.approx(0.8)

    def test_too_few_pairs_show_nothing(self) -> None:
        assert ratio(np.full(5, 0.1), np.ones(5)).verdict == "not shown"
        assert ratio(np.full(6, 0.1), np.ones(6)).verdict == "less"

    def test_drift_that_falls_on_both_of_a_pair_hides_nothing(self) -> None:
        drift = np.linspace(1, 10, 40)
        assert ratio(drift * 0.99, drift).verdict == "less"

    def test_every_mode_is_held_against_the_next_denser_one(self) -> None:
        samples = {"full": np.full(9, 4.0), "1/2": np.full(9, 2.0), "1/4": np.full(9, 3.0), "1/8": np.full(9, 3.0)}
        found = compared("x", samples, "pairs", {"less": "faster", "more": "slower"})
        assert {name: round(figure.value, 3) for name, figure in found.items()} == {
            "x: 1/2 over full": 0.5,
            "x: 1/4 over 1/2": 1.5,
            "x: 1/8 over 1/4": 1.0,
        }
        assert sentences({**found, "other": reported(1.0, "ms", "")}) == {
            "faster": ["x: 1/2 over full: 0.500"],
            "slower": ["x: 1/4 over 1/2: 1.500"],
            "no difference shown": ["x: 1/8 over 1/4: 1.000"],
        }


class Engine:
    """A double of an engine on a double of a GPU: runs take its time, at its power."""

    def __init__(self, gpu: "Gpu", seconds: float, watts: float) -> None:
        self._gpu, self._seconds, self._watts = gpu, seconds, watts

    def infer(self, inputs: Any) -> dict[str, Any]:
        self._gpu.spend(self._seconds, self._watts)
        return {}

    def close(self) -> None:
        pass


class Gpu:
    """A double of a GPU and of its meter, with a clock of its own."""

    source, idle_w = "double", None

    def __init__(self, idle_w: float = 50.0) -> None:
        self.now_s = 0.0
        self._idle_w = idle_w
        self._spent: list[tuple[float, float, float]] = []
        self.blind = False

    def spend(self, seconds: float, watts: float) -> None:
        self._spent.append((self.now_s, self.now_s + seconds, watts))
        self.now_s += seconds

    def sleep(self, seconds: float) -> None:
        self.spend(seconds, self._idle_w)

    def energy_mj(self, start_s: float, end_s: float) -> float | None:
        assert self.now_s >= end_s + REST_S - 1e-9, "the meter was not given time to read the window's end"
        if self.blind:
            return None
        overlaps = ((min(end, end_s) - max(start, start_s), watts) for start, end, watts in self._spent)
        return sum(seconds * watts * 1e3 for seconds, watts in overlaps if seconds > 0)

    def measure(self, engines: dict[str, Engine], **wanted: Any) -> Energies:
        return measure(engines, {}, self, clock=lambda: self.now_s, sleep=self.sleep, **wanted)  # type: ignore[arg-type]

    def close(self) -> None:
        pass


class TestEnergy:
    def test_an_inference_gets_its_share_of_a_window_with_idle_power_and_without(self) -> None:
        gpu = Gpu()
        found = gpu.measure({"full": Engine(gpu, 0.1, 300), "1/16": Engine(gpu, 0.02, 150)}, rounds=3)
        assert found.whole_mj["full"] == pytest.approx(np.full(3, 30_000))
        assert found.whole_mj["1/16"] == pytest.approx(np.full(3, 3_000))
        assert found.above_idle_mj["full"] == pytest.approx(np.full(3, 25_000))
        assert found.above_idle_mj["1/16"] == pytest.approx(np.full(3, 2_000))
        assert found.watts["full"] == pytest.approx(np.full(3, 300))
        assert found.idle_w == pytest.approx((50, 50))

    def test_windows_are_at_least_as_long_as_asked_and_as_many(self) -> None:
        gpu = Gpu()
        found = gpu.measure({"full": Engine(gpu, 0.3, 300)}, rounds=4, window_s=5.0)
        assert len(found.runs["full"]) == 4
        assert all(17 <= runs <= 18 for runs in found.runs["full"])

    def test_modes_take_turns_in_changing_order(self) -> None:
        gpu, order = Gpu(), []

        class Watched(Engine):
            def __init__(self, name: str) -> None:
                super().__init__(gpu, 10.0, 100)
                self._name = name

            def infer(self, inputs: Any) -> dict[str, Any]:
                order.append(self._name)
                return super().infer(inputs)

        gpu.measure({name: Watched(name) for name in "abc"}, rounds=8)
        rounds = ["".join(order[at : at + 3]) for at in range(0, 24, 3)]
        assert all(sorted(one) == list("abc") for one in rounds)
        assert len(set(rounds)) > 2

    def test_a_meter_that_does_not_answer_is_said(self) -> None:
        gpu = Gpu()
        gpu.blind = True
        with pytest.raises(MeterError, match="double does not answer"):
            gpu.measure({"full": Engine(gpu, 0.1, 300)}, rounds=1)

    def test_figures_are_of_an_image_and_say_which_mode_is_cheaper(self) -> None:
        gpu = Gpu()
        found = gpu.measure({"full": Engine(gpu, 0.1, 300), "1/2": Engine(gpu, 0.05, 320)}, rounds=6)
        figures = energy_figures("net", found, rows=10)
        assert figures["net: full, energy"].value == pytest.approx(3_000)
        assert figures["net: full, energy above idle"].value == pytest.approx(2_500)
        assert figures["energy, net: 1/2 over full"].how.startswith("cheaper")
        assert figures["net: idle before"].value == pytest.approx(50)

    def test_energies_below_idle_are_shown_and_not_compared(self) -> None:
        gpu = Gpu()
        found = gpu.measure({"full": Engine(gpu, 0.1, 300), "1/2": Engine(gpu, 0.05, 40)}, rounds=6)
        figures = energy_figures("net", found, rows=1)
        assert figures["net: 1/2, energy above idle"].value < 0
        assert not [name for name in figures if name.startswith("energy above idle")]


def test_switching_times_as_many_runs_of_both_kinds_and_leaves_switches_out_of_staying() -> None:
    calls: list[str] = []

    class Watched(Engine):
        def __init__(self, name: str) -> None:
            self.name = name

        def infer(self, inputs: Any) -> dict[str, Any]:
            calls.append(self.name)
            return {}

    alternating, staying = gpu_modes.switching({"a": Watched("a"), "b": Watched("b")}, {}, blocks=6, seed=0)
    assert len(alternating) == len(staying) == 120
    runs = [len(list(run)) for _, run in itertools.groupby(calls)]
    assert len(calls) == 120 + 6 * 22
    assert max(runs) <= 13
    assert sum(run >= 10 for run in runs) == 12


class OnTheCpu:
    """A double of `GraphedModule` that computes on the CPU in float."""

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        self._net, self._images = net, images
        self._answers = torch.empty(0)
        self.closed = False

    def infer(self, inputs: Any) -> dict[str, Any]:
        with torch.inference_mode():
            self._answers = self._net(self._images)
        return {}

    def answers(self) -> Tensor:
        return self._answers

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The benchmark with doubles for what a GPU is needed for, on small images."""

    def no_provider() -> Any:
        raise EngineError("no CUDAExecutionProvider")

    def quick_energy(engines: Any, inputs: Any, meter: Any, **wanted: Any) -> Energies:
        gpu = Gpu()
        doubles = {mode: Engine(gpu, 0.1 / (1 + number), 300) for number, mode in enumerate(engines)}
        return gpu.measure(doubles, rounds=wanted["rounds"])

    monkeypatch.setattr(gpu_modes, "require_gpu", lambda: None)
    monkeypatch.setattr(gpu_modes, "GraphedModule", OnTheCpu)
    monkeypatch.setattr(gpu_modes, "NvmlMeter", Gpu)
    monkeypatch.setattr(gpu_modes, "open_ort_cuda", no_provider)
    monkeypatch.setattr(gpu_modes, "measure_energy", quick_energy)
    monkeypatch.setattr(gpu_modes, "make_torch", lambda name, seed: network(name))
    monkeypatch.setattr(gpu_modes, "describe", lambda net, shape: described())
    monkeypatch.setattr(gpu_modes, "SHAPE", (1, 16, 16))
    monkeypatch.setattr(gpu_modes, "ROUNDS_QUICK", 6)
    monkeypatch.setattr(gpu_modes, "WARMUP", 1)
    monkeypatch.setattr(gpu_modes, "BLOCKS_QUICK", 1)
    monkeypatch.setattr(gpu_modes, "BATCHES", (1, 2))
    monkeypatch.setattr(gpu_modes, "ENERGY_BATCHES", (1, 2))
    monkeypatch.setattr(gpu_modes, "NETWORKS", ("digits_resnet",))
    monkeypatch.setattr(gpu_modes, "MODES", {"full": 1, "1/4": 4, "1/16": 16})
    with contextlib.ExitStack() as stack:
        benchmark = torch.backends.cudnn.benchmark
        stack.callback(lambda: setattr(torch.backends.cudnn, "benchmark", benchmark))
        yield


def arguments(**own: Any) -> Arguments:
    return Arguments(quick=True, out=None, bundle=Path(), seed=0, own=own)


@pytest.mark.usefixtures("small")
class TestWhole:
    """Everything but the GPU, with doubles in its place."""

    def test_every_figure_is_there_and_what_is_missing_is_named(self) -> None:
        figures, samples = gpu_modes.measure(arguments())
        for rows in (1, 2):
            what = f"digits_resnet, batch {rows}, {gpu_modes.TORCH}"
            for mode in ("full", "1/4", "1/16"):
                assert figures[f"{what}: {mode}, p50"].value > 0
                assert figures[f"{what}: {mode}, deviation"].met
            for pair in ("1/4 over full", "1/16 over 1/4"):
                assert f"latency, {what}: {pair}" in figures
        assert f"digits_resnet, batch 1, {gpu_modes.TORCH}: a switch adds" in figures
        assert f"energy, digits_resnet, batch 2, {gpu_modes.TORCH}: 1/4 over full" in figures
        assert samples["left_out"] == {gpu_modes.ORT: "no CUDAExecutionProvider"}
        assert samples["verdicts"]

    def test_the_runtime_s_engine_is_measured_beside_it_where_its_provider_loads(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(gpu_modes, "open_ort_cuda", OrtOnTheCpu)
        figures, samples = gpu_modes.measure(arguments())
        assert samples["left_out"] == {}
        for rows, mode in itertools.product((1, 2), ("full", "1/4", "1/16")):
            what = f"digits_resnet, batch {rows}, {gpu_modes.ORT}: {mode}"
            assert figures[f"{what}, p50"].value > 0
            assert figures[f"{what}, deviation"].met

    def test_an_engine_that_fails_costs_no_more_than_its_own_figures(self, monkeypatch: pytest.MonkeyPatch) -> None:
        real = gpu_modes.GraphedModule

        def graphed(net: nn.Module, images: Tensor) -> Any:
            if len(images) == 2:
                raise RuntimeError("CUDA out of memory")
            return real(net, images)

        monkeypatch.setattr(gpu_modes, "GraphedModule", graphed)
        figures, samples = gpu_modes.measure(arguments())
        assert not [name for name in figures if "batch 2" in name]
        assert [name for name in figures if "batch 1" in name]
        assert "out of memory" in samples["left_out"][f"digits_resnet, batch 2, {gpu_modes.TORCH}"]

    def test_without_a_meter_energy_is_left_out_and_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_meter() -> Any:
            raise MeterError("no NVIDIA driver answers")

        monkeypatch.setattr(gpu_modes, "NvmlMeter", no_meter)
        figures, samples = gpu_modes.measure(arguments())
        assert samples["left_out"]["energy"] == "no NVIDIA driver answers"
        assert not [name for name in figures if "energy" in name]

    def test_a_wrong_mode_is_seen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(
            gpu_modes, "frozen", lambda net, groups, image: frozen(net, dict.fromkeys(groups, 1), image)
        )
        figures, _ = gpu_modes.measure(arguments())
        met = {name: figure.met for name, figure in figures.items() if name.endswith("deviation")}
        assert {met[name] for name in met if " full," in name} == {True}
        assert {met[name] for name in met if " 1/16," in name} == {False}


def network(name: str) -> nn.Module:
    """A supernet of its own for each test; the large one is made once, which takes seconds."""
    return copy.deepcopy(made(name))


@functools.lru_cache
def made(name: str) -> nn.Module:
    if name == "digits_resnet":
        torch.manual_seed(0)
        net = build(name).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.3, 0.3)
        return net
    return make_torch(name)


@functools.lru_cache
def described() -> Supernet:
    return describe(network("digits_resnet"), (1, 16, 16))


def example(name: str) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = (2, 1, 16, 16) if name == "digits_resnet" else (2, 3, 64, 64)
    return torch.randn(shape, generator=generator)


def configuration(net: nn.Module, seed: int) -> dict[str, int]:
    return dict(SearchSpace.of(net).sample(random.Random(seed)))
