"""A device whose times are written down, and that computes nothing: what is found on it depends on no clock."""

import numpy as np
import pytest
from torch import nn

from wenet_runtime.additive import AdditiveCost
from wenet_trainer.explore import bench, finalists
from wenet_trainer.explore.bench import Bench
from wenet_trainer.explore.problem import Cost
from wenet_trainer.supernet import weight_enabled


class Stand:
    """An engine that is only timed, and only by what is written down."""

    def __init__(self, config):
        self.config = config

    def close(self):
        pass


def install(monkeypatch: pytest.MonkeyPatch, net: nn.Module) -> AdditiveCost:
    """Let every bench measure this device: grouping saves time, and more where it comes later."""
    terms = {
        name: {groups: -0.3 * (1 + place) * np.log2(groups) for groups in layer.groups_allowed}
        for place, (name, layer) in enumerate(weight_enabled(net).items())
    }
    latency = AdditiveCost(30.0, terms)

    def sample(engines, inputs, *, rounds, seed, **_):
        noise = 1 + 1e-4 * np.random.default_rng(seed).random((len(engines), rounds))
        return {
            name: latency.of(engine.config) * row for (name, engine), row in zip(engines.items(), noise, strict=True)
        }

    monkeypatch.setattr(Bench, "open", lambda _, config: Stand(config))
    monkeypatch.setattr(Bench, "cost", lambda _, config: Cost(latency.of(config)))
    monkeypatch.setattr(bench, "sample", sample)
    monkeypatch.setattr(finalists.precision, "precisions_of", lambda _: ())
    return latency
