"""What a layer of TensorRT is called by whoever wants it in fp32; how it is built is in `test_engines_trt`."""

from typing import Dict, List

import pytest

from wenet_runtime.engines.trt_build import names_of


@pytest.mark.parametrize(
    ("layer", "aliases", "wanted"),
    [
        ("conv", {}, ["conv"]),
        ("conv", {"conv": "features.conv"}, ["conv", "features.conv"]),
        ("conv_12", {}, ["conv_12", "conv"]),
        ("conv_12", {"conv": "features.conv"}, ["conv_12", "conv", "features.conv"]),
        ("conv_12", {"conv_12": "its own"}, ["conv_12", "conv", "its own"]),
        ("conv_a", {}, ["conv_a"]),
        ("(Unnamed Layer* 3) [Shuffle]", {}, ["(Unnamed Layer* 3) [Shuffle]"]),
    ],
)
def test_a_layer_goes_by_its_own_name_its_node_s_and_the_bundle_s(
    layer: str, aliases: Dict[str, str], wanted: List[str]
) -> None:
    assert names_of(layer, aliases) == wanted
