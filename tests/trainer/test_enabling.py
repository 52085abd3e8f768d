"""The enabled blocks and their gradients, against full-size masked weights."""

import pytest
import torch
import torch.nn.functional as F

from wenet_trainer.enabling import block_diagonal, enabled
from wenet_trainer.layers import WeightEnabledConv2d, WeightEnabledLinear


def mask(weight: torch.Tensor, groups: int) -> torch.Tensor:
    """1 where the weight is enabled, by the definition: output and input are of one group."""
    outs = torch.arange(weight.shape[0]) // (weight.shape[0] // groups)
    ins = torch.arange(weight.shape[1]) // (weight.shape[1] // groups)
    return (outs[:, None] == ins[None]).to(weight.dtype).view(*weight.shape[:2], *(1 for _ in weight.shape[2:]))


@pytest.mark.parametrize("groups", [1, 2, 4, 8, 16])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "side"),
    [(1, 1, 0, 12), (1, 1, 0, 3), (1, 2, 0, 12), (3, 1, 1, 12), (3, 2, 1, 7), (1, 1, 1, 12), ((1, 3), 1, (0, 1), 9)],
)
def test_a_convolution_and_its_gradients_equal_the_masked_full_one(groups, kernel, stride, padding, side):
    torch.manual_seed(groups)
    conv = WeightEnabledConv2d(32, 48, kernel, stride=stride, padding=padding, bias=True)
    conv.set_groups(groups)
    x = torch.randn(3, 32, side, side, requires_grad=True)
    out = conv(x)
    other, weight = x.detach().clone().requires_grad_(), conv.weight.detach().clone().requires_grad_()
    expected = F.conv2d(other, weight * mask(weight, groups), conv.bias, stride, padding)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(conv.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-5)
    if groups > 1:  # the control: another pattern is another function
        conv.set_groups(groups // 2)
        assert not torch.allclose(conv(x), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(("ins", "outs"), [(96, 192), (48, 48), (64, 16), (16, 64), (32, 32)])
@pytest.mark.parametrize("groups", [2, 4, 8, 16])
def test_groups_that_fill_no_vector_are_run_together_and_give_the_same(ins, outs, groups):
    torch.manual_seed(0)
    conv = WeightEnabledConv2d(ins, outs, 3, padding=1)
    conv.set_groups(groups)
    x = torch.randn(2, ins, 4, 4, requires_grad=True)
    out = conv(x)
    other, weight = x.detach().clone().requires_grad_(), conv.weight.detach().clone().requires_grad_()
    expected = F.conv2d(other, weight * mask(weight, groups), None, 1, 1)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn_like(out)
    out.backward(gradient)
    expected.backward(gradient)
    torch.testing.assert_close(conv.weight.grad, weight.grad * mask(weight, groups), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(x.grad, other.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("emitted", [1, 2, 4, 8])
def test_blocks_run_together_stand_on_a_diagonal_between_zeros(emitted):
    weight = torch.randn(32, 16, 3, 3)
    merged = enabled(weight, 8, emitted)
    assert merged.shape == (emitted, 32 // emitted, 16 // emitted, 3, 3)
    masked = block_diagonal(weight * mask(weight, 8), emitted)
    assert torch.equal(merged, masked)


@pytest.mark.parametrize("groups", [1, 2, 16])
def test_a_dense_layer_and_its_gradients_equal_the_masked_full_one(groups):
    torch.manual_seed(groups)
    layer = WeightEnabledLinear(32, 48)
    layer.set_groups(groups)
    x = torch.randn(5, 32)
    layer(x).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    F.linear(x, weight * mask(weight, groups), layer.bias).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad, rtol=1e-4, atol=1e-4)


def test_gradients_of_several_patterns_add_up_in_the_full_weight():
    weight = torch.nn.Parameter(torch.randn(16, 16))
    for groups in (1, 2, 4):
        blocks = enabled(weight, groups) if groups > 1 else weight
        blocks.square().sum().backward()
    expected = sum(2 * weight.detach() * mask(weight, groups) for groups in (1, 2, 4))
    torch.testing.assert_close(weight.grad, expected)


def test_a_weight_that_stands_still_gets_no_gradient_while_the_input_does():
    conv = WeightEnabledConv2d(16, 16, 1)
    conv.weight.requires_grad_(requires_grad=False)
    conv.set_groups(4)
    x = torch.randn(1, 16, 8, 8, requires_grad=True)
    conv(x).sum().backward()
    assert conv.weight.grad is None
    assert x.grad is not None


def test_a_weight_computed_from_others_goes_through_autograd():
    source = torch.randn(16, 16, requires_grad=True)
    enabled(source * 2, 4).sum().backward()
    torch.testing.assert_close(source.grad, 2 * mask(source, 4))


def test_blocks_are_a_copy_and_the_view_is_none():
    weight = torch.randn(8, 8)
    assert enabled(weight, 2).is_contiguous()
    enabled(weight, 2).zero_()
    assert weight.abs().sum() > 0
    block_diagonal(weight, 2).zero_()
    assert torch.equal(weight * mask(weight, 2), torch.zeros(8, 8))


def test_mixed_precision_and_channels_last_give_the_same_gradients():
    torch.manual_seed(0)
    conv = WeightEnabledConv2d(32, 32, 1)
    conv.set_groups(8)
    x = torch.randn(2, 32, 16, 16)
    conv(x).square().mean().backward()
    plain = conv.weight.grad.clone()
    conv.weight.grad = None
    conv.to(memory_format=torch.channels_last)(
        x.contiguous(memory_format=torch.channels_last)
    ).square().mean().backward()
    torch.testing.assert_close(conv.weight.grad, plain, rtol=1e-4, atol=1e-6)
    conv.weight.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        out = conv(x)
    assert out.dtype == torch.bfloat16
    out.float().square().mean().backward()
    assert conv.weight.grad.dtype == torch.float32
    assert float((conv.weight.grad - plain).norm() / plain.norm()) < 0.02
