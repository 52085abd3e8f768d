"""What a layer table is measured with: the bundle's whole supernet, emitted as the modes that are served."""

from pathlib import Path
from typing import Any, List

import pytest

from wenet_runtime.bundle import Bundle
from wenet_runtime.errors import SettingsError
from wenet_runtime.layer_table import supernet_id
from wenet_runtime.materialize import Supernet
from wenet_runtime.plan import emitted_by_rule
from wenet_runtime.service.layer_bench import open_layer_bench
from wenet_runtime.service.opening import open_cache
from wenet_runtime.settings import Settings


def settings(bundle_path: Path, tmp_path: Path, **more: Any) -> Settings:
    return Settings(**{"bundle": bundle_path, "cache_dir": tmp_path / "cache", "profile_rounds": 10, **more})


def test_it_is_of_the_bundle_s_network_and_of_this_device(bundle_path: Path, tmp_path: Path) -> None:
    given = settings(bundle_path, tmp_path)
    bench, cache = open_layer_bench(given), open_cache(given)
    assert supernet_id(bench.supernet) == supernet_id(Supernet.of(Bundle(bundle_path)))
    assert (bench.model, bench.device, bench.path) == ("tiny", cache.device, cache.path / "layers.json")
    bench.close()


def test_what_is_measured_for_an_emission_is_measured_once(
    bundle_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: List[int] = []

    def quickest_ms(backend: Any, graphs: Any, **how: Any) -> List[float]:
        asked.append(len(graphs))
        return [float(number + 1) for number in range(len(graphs))]

    monkeypatch.setattr("wenet_runtime.service.layer_bench.quickest_ms", quickest_ms)
    given = settings(bundle_path, tmp_path)
    found, counts = [], []
    for _ in range(2):
        bench = open_layer_bench(given)
        groups = {layer.name: layer.groups[-1] for layer in bench.supernet.layers}
        found.append(bench.emitted(groups))
        bench.close()
        counts.append(sum(asked))
        asked.clear()
    assert found[0] == found[1]
    assert counts[0] > 0
    assert counts[1] == 0


def test_without_tuning_the_rule_decides_and_nothing_is_measured(bundle_path: Path, tmp_path: Path) -> None:
    bench = open_layer_bench(settings(bundle_path, tmp_path, tune=False))
    groups = {layer.name: layer.groups[-1] for layer in bench.supernet.layers}
    spatial = {one.name: bench.supernet.weights[one.weight].shape[2:3] > (1,) for one in bench.supernet.layers}
    assert bench.emitted(groups) == emitted_by_rule(bench.supernet.layers, groups, spatial)
    assert not list(tmp_path.glob("cache/plans/*"))
    bench.close()


@pytest.mark.parametrize(
    ("more", "error", "said"),
    [
        ({"engine": "sim"}, SettingsError, "--engine sim computes nothing"),
        ({"threads": 0}, SettingsError, "give --threads N"),
        ({"engine": "abacus"}, SettingsError, "unknown engine 'abacus'"),
        ({"meter": "thumb"}, SettingsError, "unknown meter 'thumb'"),
    ],
)
def test_what_no_layer_can_be_measured_with_is_refused(
    bundle_path: Path, tmp_path: Path, more: Any, error: Any, said: str
) -> None:
    with pytest.raises(error, match=said):
        open_layer_bench(settings(bundle_path, tmp_path, **more))
