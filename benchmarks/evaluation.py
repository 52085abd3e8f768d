"""How much quicker are a search's accuracies when configurations share what they agree on?"""

import copy
import io
import math
import random
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.accuracy import BASE
from benchmarks.common import Arguments, Figure, Measured, at_least, reported, run
from wenet_runtime.additive import AdditiveCost
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.profiler import load_graph
from wenet_runtime.registry import load
from wenet_trainer.cost import Costs, measure_costs
from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, Source, input_shape
from wenet_trainer.enabling import block_diagonal
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import input_batches, logits, recalibrated
from wenet_trainer.explore import SEARCHES
from wenet_trainer.explore.cuts import cut
from wenet_trainer.explore.evaluator import Evaluator
from wenet_trainer.explore.images import calibration
from wenet_trainer.explore.problem import Cost, Problem, Search
from wenet_trainer.layers import WeightEnabledConv2d
from wenet_trainer.models import build
from wenet_trainer.network import make_network
from wenet_trainer.norms import SwitchableBatchNorm
from wenet_trainer.space import GroupConfig, SearchSpace
from wenet_trainer.supernet import set_active
from wenet_trainer.topology import INPUT, OPSET, OUTPUT, describe

QUESTION = "How much quicker are a search's accuracies when configurations share what they agree on?"
IMAGES, EVALUATIONS, CANDIDATES = 1_000, 250, 5
PAPER_NETWORKS = ("resnet50", "mobilenet_v2")

Calls = Sequence[Sequence[GroupConfig]]


def measure(arguments: Arguments) -> Measured:
    """The accuracy benchmark's network with random weights, which cost what trained ones cost; one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    source = open_source(BASE.data, arguments.seed)
    net = make_network(BASE).eval()
    calls = asked(net, input_shape(source), 20 if arguments.quick else EVALUATIONS, arguments.seed)
    figures, samples = _shared(net, source, calls, images=64 if arguments.quick else IMAGES)
    found, times = _candidates(net, describe(net, input_shape(source)), calls, rounds=1 if arguments.quick else 7)
    paper = {
        f"{name}: arithmetic one at a time over shared": _arithmetic(name, arguments.seed)
        for name in (() if arguments.quick else PAPER_NETWORKS)
    }
    return {**figures, **paper, **found}, {**samples, **times, "threads": 1}


def asked(net: nn.Module, shape: tuple[int, ...], evaluations: int, seed: int, granularity: str = "layer") -> Calls:
    """What the default search asks for, call by call, without what it asked before.

    Its accuracies are made up: each layer loses a random amount per doubling of its groups. Costs are
    multiply-accumulates.
    """
    space, costs = SearchSpace.of(net, granularity), measure_costs(net, shape)
    rng = random.Random(seed)
    losses = {name: rng.lognormvariate(-2.5, 0.7) for name in space.allowed}
    calls: list[list[GroupConfig]] = []
    known: set[GroupConfig] = set()

    def accuracies(configs: Sequence[GroupConfig]) -> list[float]:
        calls.append([config for config in dict.fromkeys(configs) if config not in known])
        known.update(configs)
        lost = (sum(losses[name] * math.log2(groups) for name, groups in config.items()) for config in configs)
        return [0.75 - 0.15 * math.tanh(one) for one in lost]

    table = _table(space, costs)
    search: Search = load(SEARCHES, "table", kind="search", error=ExploreError)
    search(Problem(space, accuracies, lambda config: Cost(table.of(config)), table, evaluations=evaluations, seed=seed))
    return [call for call in calls if call]


def _table(space: SearchSpace, costs: Costs) -> AdditiveCost:
    full = space.full()
    terms = {
        name: {groups: (costs.macs({**full, name: groups}) - costs.macs(full)) / 1e6 for groups in levels}
        for name, levels in space.allowed.items()
    }
    return AdditiveCost(costs.macs(full) / 1e6, terms)


def _shared(net: nn.Module, source: Source, calls: Calls, images: int) -> Measured:
    """Each call of the search, shared and then one at a time."""
    shown, statistics = source.validation().first(images), calibration(source)
    taken: dict[str, list[float]] = {"shared": [], "alone": []}
    equal = 0
    with tempfile.TemporaryDirectory(prefix="wenet-evaluation-") as folder:
        evaluator = Evaluator(net, shown, source.preprocess, statistics, journal=Path(folder) / "answers.jsonl")
        _alone(net, calls[0][0], statistics, shown, source)  # warms up
        for call in calls:
            started = time.process_time()
            together = evaluator.right(call)
            taken["shared"].append(time.process_time() - started)
            started = time.process_time()
            alone = [_alone(net, config, statistics, shown, source) for config in call]
            taken["alone"].append(time.process_time() - started)
            equal += sum(int((one == other).all()) for one, other in zip(together, alone, strict=True))
    sizes = [len(call) for call in calls]
    count, (shared_s, alone_s) = sum(sizes), (sum(taken[name]) for name in ("shared", "alone"))
    how = (
        f"processor time, {count} configurations as the default search asks for them in {len(calls)} calls, "
        f"{images} images and {len(statistics)} for the statistics, both ways after each other in each call"
    )
    figures = {
        "one at a time over shared": at_least(alone_s / shared_s, 2.0, "x", how),
        "configurations whose every answer is equal": at_least(equal / count, 1.0, "", how),
        "shared": reported(count / shared_s, "configurations/s", how),
        "one at a time": reported(count / alone_s, "configurations/s", how),
    }
    return figures, {"calls": sizes, "seconds": taken}


def _alone(
    net: nn.Module, config: GroupConfig, statistics: Tensor, images: Images, source: Source
) -> NDArray[np.bool_]:
    """One configuration as `recalibrated` and `accuracy_on` evaluate it."""
    with recalibrated(net, config, statistics):
        answers = [logits(net, batch) for batch in input_batches(images, source.preprocess)]
    right: NDArray[np.bool_] = torch.cat(answers).argmax(1).numpy() == images.labels
    return right


def _arithmetic(name: str, seed: int) -> Figure:
    """What sharing would save of a paper's network, block by block; computed, not run."""
    net, shape = build(name).eval(), (3, 224, 224)
    calls, costs = asked(net, shape, EVALUATIONS, seed, "block"), measure_costs(net, shape)
    order = cut(net, torch.randn(2, 3, 64, 64)).order
    alone = shared = 0
    for call in calls:
        alone += sum(costs.macs(config) for config in call)
        shared += costs.fixed_macs
        prefixes = {tuple(config[layer] for layer in order[:depth]) for config in call for depth in _depths(order)}
        for prefix in prefixes:
            layer = costs.layers[order[len(prefix) - 1]]
            shared += layer.positions * layer.weights // prefix[-1]
    how = f"multiply-accumulates of {sum(map(len, calls))} configurations, calls as the default search makes them"
    return reported(alone / shared, "x", f"computed: {how}")


def _depths(order: Sequence[str]) -> range:
    return range(1, len(order) + 1)


def _candidates(net: nn.Module, supernet: Supernet, calls: Calls, rounds: int) -> Measured:
    """A candidate's way from torch to a session: materialized, and exported."""
    configs = random.Random(0).sample([config for call in calls for config in call], CANDIDATES)
    backend = OrtBackend(None, 1)
    taken: dict[str, list[float]] = {"materialize": [], "export": [], "open the export": []}
    for _ in range(rounds):
        for config in configs:
            started = time.perf_counter()
            load_graph(backend, lower(supernet, config), "it").close()
            made = time.perf_counter()
            plain = _plain(net, config)
            ready = time.perf_counter()
            model = _exported(plain, supernet.inputs[0].shape[1:])
            exported = time.perf_counter()
            backend.load_bytes(model, name="it").close()
            ended = time.perf_counter()
            for key, seconds in zip(taken, (made - started, exported - ready, ended - exported), strict=True):
                taken[key].append(1000 * seconds)
    middle: Mapping[str, float] = {key: float(np.median(values)) for key, values in taken.items()}
    how = f"median of {rounds} rounds over {CANDIDATES} configurations, one thread"
    figures = {
        "materialize and open a session": reported(middle["materialize"], "ms", how),
        "torch.onnx export": reported(middle["export"], "ms", f"{how}; TorchScript, of a plain copy made before"),
        "open a session of the export": reported(middle["open the export"], "ms", how),
        "export and open over materialize and open": reported(
            (middle["export"] + middle["open the export"]) / middle["materialize"], "x", how
        ),
    }
    return figures, {"candidates_ms": taken}


def _plain(net: nn.Module, config: GroupConfig) -> nn.Module:
    """A configuration as a network of torch's own layers, which torch can export."""
    net = copy.deepcopy(net)
    set_active(net, config)
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, WeightEnabledConv2d):
                groups = child.active_groups
                size, stride, padding = (cast(Any, one) for one in (child.kernel_size, child.stride, child.padding))
                plain = nn.Conv2d(
                    child.in_channels, child.out_channels, size, stride, padding, groups=groups, bias=False
                )
                plain.weight.data = block_diagonal(child.weight.detach(), groups).flatten(0, 1).clone()
                setattr(parent, name, plain)
            elif isinstance(child, SwitchableBatchNorm):
                norm = child.active_norm()
                if norm is child:
                    child.patterns = nn.ModuleDict()
                else:
                    setattr(parent, name, norm)
    return net.eval()


def _exported(plain: nn.Module, shape: Sequence[int]) -> bytes:
    buffer: Any = io.BytesIO()  # works, though torch declares paths only
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it advises the other exporter, which takes several times as long
        torch.onnx.export(
            plain,
            (torch.zeros(1, *shape),),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
        )
    data: bytes = buffer.getvalue()
    return data


if __name__ == "__main__":
    run("evaluation", QUESTION, measure, needs_bundle=False)
