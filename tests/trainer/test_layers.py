import copy

import pytest
import torch
import torch.nn.functional as F

from wenet_trainer.enabling import block_diagonal
from wenet_trainer.errors import NetworkError
from wenet_trainer.layers import (
    ChannelShuffle,
    WeightEnabledConv2d,
    WeightEnabledLinear,
    allowed_groups,
)
from wenet_trainer.norms import SwitchableBatchNorm2d


def mask_of(out_channels: int, in_channels: int, groups: int) -> torch.Tensor:
    """1 where a weight is enabled: output group j sees input group j (written out, not computed as the layer does)."""
    mask = torch.zeros(out_channels, in_channels)
    for o in range(out_channels):
        for i in range(in_channels):
            mask[o, i] = float(o * groups // out_channels == i * groups // in_channels)
    return mask


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 2)])
def test_a_grouped_convolution_equals_the_dense_one_with_disabled_weights_at_zero(groups, kernel, stride):
    layer = WeightEnabledConv2d(32, 48, kernel, stride=stride, padding=kernel // 2, bias=True)
    layer.set_groups(groups)
    x = torch.randn(2, 32, 7, 7)
    masked = layer.weight * mask_of(48, 32, groups)[:, :, None, None]
    torch.testing.assert_close(layer(x), F.conv2d(x, masked, layer.bias, stride, kernel // 2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 16])
@pytest.mark.parametrize("bias", [True, False])
def test_a_grouped_linear_equals_the_dense_one_with_disabled_weights_at_zero(groups, bias):
    layer = WeightEnabledLinear(32, 48, bias=bias)
    layer.set_groups(groups)
    x = torch.randn(5, 3, 32)
    expected = F.linear(x, layer.weight * mask_of(48, 32, groups), layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", [WeightEnabledConv2d(16, 32, 1), WeightEnabledLinear(16, 32)])
def test_gradients_reach_enabled_weights_and_no_others(layer):
    layer.set_groups(4)
    layer(torch.randn(3, 16, 2, 2) if layer.weight.dim() == 4 else torch.randn(3, 16)).square().sum().backward()
    enabled = mask_of(32, 16, 4).bool()
    gradient = layer.weight.grad.flatten(1) if layer.weight.dim() == 2 else layer.weight.grad[:, :, 0, 0]
    assert (gradient[~enabled] == 0).all()
    assert (gradient[enabled] != 0).all()


def test_the_enabled_part_is_a_group_count_smaller_than_the_full_weight():
    assert block_diagonal(torch.randn(32, 16, 3, 3), 4).shape == (4, 8, 4, 3, 3)


@pytest.mark.parametrize(
    ("channels", "allowed"),
    [((64, 64), (1, 2, 4, 8, 16)), ((24, 144), (1, 2, 4, 8)), ((1, 64), (1,)), ((48, 1000), (1, 2, 4, 8))],
)
def test_allowed_groups_divide_both_channel_counts(channels, allowed):
    assert allowed_groups(*channels) == allowed


def test_groups_are_clipped_to_the_largest_allowed_one_below():
    layer = WeightEnabledConv2d(24, 24, 1)
    layer.set_groups(16)
    assert layer.active_groups == 8
    layer.set_groups(3)
    assert layer.active_groups == 2
    with pytest.raises(NetworkError, match="at least 1, got 0"):
        layer.set_groups(0)


def test_a_shuffle_is_reshape_transpose_flatten():
    x = torch.randn(2, 48, 3, 3)
    expected = x.view(2, 16, 3, 3, 3).transpose(1, 2).reshape(2, 48, 3, 3)
    assert torch.equal(ChannelShuffle(48, 16)(x), expected)
    assert not torch.equal(ChannelShuffle(48, 16)(x), x)


def test_a_shuffle_is_no_number_of_the_checkpoint():
    assert ChannelShuffle(32).state_dict() == {}


def test_channels_that_the_groups_do_not_divide_are_refused():
    with pytest.raises(NetworkError, match="24 channels cannot be shuffled in 16 groups"):
        ChannelShuffle(24, 16)


def test_a_switchable_norm_keeps_statistics_per_pattern():
    feeder = WeightEnabledConv2d(16, 16, 1)
    norm = SwitchableBatchNorm2d(16, fed_by=feeder).train()
    feeder.set_groups(4)
    norm(torch.randn(8, 16, 4, 4) + 5)
    assert (norm.patterns["4"].running_mean > 0.3).all()
    assert (norm.running_mean == 0).all()
    assert (norm.patterns["2"].running_mean == 0).all()
    assert norm.active_norm() is norm.patterns["4"]
    feeder.set_groups(1)
    assert norm.active_norm() is norm


def test_the_full_networks_parameter_names_are_those_of_a_plain_norm():
    norm = SwitchableBatchNorm2d(16, fed_by=WeightEnabledConv2d(16, 16, 1))
    plain = set(torch.nn.BatchNorm2d(16).state_dict())
    assert {name for name in norm.state_dict() if not name.startswith("patterns.")} == plain
    assert not any("fed_by" in name for name, _ in norm.named_modules())


def test_a_norm_behind_a_depthwise_convolution_follows_the_layer_it_names(tiny):
    tiny.train()
    tiny.block.expand.set_groups(8)
    before = tiny.block.depthwise_bn.patterns["8"].running_mean.clone()
    tiny(torch.randn(4, 1, 32, 32))
    assert not torch.equal(tiny.block.depthwise_bn.patterns["8"].running_mean, before)


def test_a_copied_network_switches_its_own_norms(tiny):
    twin = copy.deepcopy(tiny)
    twin.block.expand.set_groups(16)
    assert twin.block.depthwise_bn.fed_by is twin.block.expand
    assert twin.block.depthwise_bn.active_norm() is twin.block.depthwise_bn.patterns["16"]
    assert tiny.block.depthwise_bn.active_norm() is tiny.block.depthwise_bn
