"""The trainer's modules as they would be run on an NVIDIA GPU: one mode cut out, fp16, channels-last, a CUDA graph."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wenet_runtime.engines.base import Tensors
from wenet_trainer.enabling import enabled
from wenet_trainer.layers import ChannelShuffle, WeightEnabledConv2d, WeightEnabledLinear
from wenet_trainer.norms import BatchNorm, SwitchableBatchNorm
from wenet_trainer.supernet import set_active

WARMUP = 3  # runs before a capture: algorithms are tried and memory is taken in them


class InOrder(nn.Module):
    """A channel shuffle that leaves a channels-last image channels-last."""

    permutation: Tensor

    def __init__(self, permutation: Tensor) -> None:
        super().__init__()
        self.register_buffer("permutation", permutation)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, …) → the same with channels permuted."""
        return x.movedim(1, -1).index_select(-1, self.permutation).movedim(-1, 1)


def frozen(net: nn.Module, groups: Mapping[str, int], image: Tensor) -> nn.Module:
    """One configuration as a network of plain layers: weights cut out once, norms folded into convolutions.

    What is computed is what the trainer's network computes; nothing of the lowering that makes a bundle's graphs is
    in it, so shuffles stay.

    Args:
        net: the supernet; not changed.
        groups: of each weight-enabled layer.
        image: (1, C, H, W), any that the network takes: it is run once to see which norm follows which convolution.
    """
    own = copy.deepcopy(net).eval()
    set_active(own, groups)
    _replace(own, _plain)
    _fold(own, image)
    return own.requires_grad_(False)


class GraphedModule:
    """A network as an engine: captured once for one batch in device memory, replayed from then on.

    Nothing is copied to or from the host: a run is what the GPU computes and what it takes to start and await it.

    Args:
        net: plain layers, in float; copied to the GPU in fp16.
        images: (N, C, H, W) float, what every run computes.
    """

    def __init__(self, net: nn.Module, images: Tensor) -> None:
        own: Any = copy.deepcopy(net)
        self._net = own.to("cuda", torch.float16, memory_format=torch.channels_last)
        self._images = images.to("cuda", torch.float16, memory_format=torch.channels_last)
        self._graph = torch.cuda.CUDAGraph()
        beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        beside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            with torch.cuda.stream(beside):
                for _ in range(WARMUP):
                    self._net(self._images)
            torch.cuda.current_stream().wait_stream(beside)
            with torch.cuda.graph(self._graph):
                self._answers: Any = self._net(self._images)

    def infer(self, inputs: Tensors) -> dict[str, Any]:
        """Compute the images it was made with; `inputs` are not looked at, and answers stay where they are."""
        del inputs
        self._graph.replay()
        torch.cuda.synchronize()
        return {}

    def answers(self) -> Tensor:
        """What the last run answered, in float, on the host."""
        answers: Tensor = self._answers.float().cpu()
        return answers

    def close(self) -> None:
        """Free what it holds on the device."""
        self._graph.reset()
        self._net = self._answers = None
        self._images = torch.empty(0)


def device() -> dict[str, Any]:
    """The GPU as it is at this moment."""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    found: dict[str, Any] = {"torch_cuda": torch.version.cuda, "cudnn": cudnn}
    if torch.cuda.is_available():
        found["name"] = torch.cuda.get_device_name(0)
        found["capability"] = list(torch.cuda.get_device_capability(0))
        for key, ask in (("sm_mhz", torch.cuda.clock_rate), ("celsius", torch.cuda.temperature)):
            try:
                found[key] = ask(0)
            except (RuntimeError, ModuleNotFoundError, AttributeError) as error:
                found[key] = f"unknown ({error})"
    return found


def _replace(net: nn.Module, by: Any) -> None:
    for name, child in net.named_children():
        other = by(child)
        if other is child:
            _replace(child, by)
        else:
            setattr(net, name, other)


def _plain(module: nn.Module) -> nn.Module:
    """The same module without a choice."""
    if isinstance(module, WeightEnabledConv2d):
        return _plain_convolution(module)
    if isinstance(module, WeightEnabledLinear):
        return _plain_linear(module)
    if isinstance(module, SwitchableBatchNorm):
        norm = module.active_norm()
        return copy.deepcopy(norm) if norm is not module else _first_of(module)
    return InOrder(module.permutation) if isinstance(module, ChannelShuffle) else module


def _plain_convolution(module: WeightEnabledConv2d) -> nn.Module:
    groups = module.active_groups
    plain = nn.Conv2d(
        module.in_channels,
        module.out_channels,
        module.kernel_size,  # type: ignore[arg-type] # torch says a tuple of any length
        module.stride,  # type: ignore[arg-type]
        module.padding,  # type: ignore[arg-type]
        module.dilation,  # type: ignore[arg-type]
        groups,
        bias=module.bias is not None,
    )
    with torch.no_grad():
        plain.weight.copy_(enabled(module.weight, groups).flatten(0, 1))
        if module.bias is not None and plain.bias is not None:
            plain.bias.copy_(module.bias)
    return plain


def _plain_linear(module: WeightEnabledLinear) -> nn.Module:
    """Its blocks on the diagonal of a dense weight: a dense product of this size is quicker than a few small ones."""
    plain = nn.Linear(module.in_features, module.out_features, bias=module.bias is not None)
    with torch.no_grad():
        plain.weight.copy_(enabled(module.weight, module.active_groups, 1)[0])
        if module.bias is not None:
            plain.bias.copy_(module.bias)
    return plain


def _first_of(switch: SwitchableBatchNorm) -> nn.Module:
    """The norm of pattern 1, which is the switch itself, without the others."""
    norm = switch.plain(switch.num_features, switch.eps)
    norm.load_state_dict({name: value for name, value in switch.state_dict().items() if "patterns" not in name})
    return norm.eval()


def _fold(net: nn.Module, image: Tensor) -> None:
    """Write each norm that alone reads a convolution's result into that convolution."""
    made_by: dict[int, nn.Conv2d] = {}
    pairs: dict[BatchNorm, nn.Conv2d] = {}
    alive: list[Tensor] = []  # or another tensor would get a dead one's identity

    def made(module: nn.Module, inputs: Any, output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        made_by[id(output)] = module
        alive.append(output)

    def read(module: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(module, BatchNorm)
        if id(inputs[0]) in made_by:
            pairs[module] = made_by[id(inputs[0])]

    hooks = [one.register_forward_hook(made) for one in net.modules() if isinstance(one, nn.Conv2d)]
    hooks += [one.register_forward_pre_hook(read) for one in net.modules() if isinstance(one, BatchNorm)]
    with torch.inference_mode():
        net(image)
    for hook in hooks:
        hook.remove()
    for norm, convolution in pairs.items():
        fused: Any = torch.nn.utils.fusion.fuse_conv_bn_weights(
            convolution.weight,
            convolution.bias,
            norm.running_mean,  # type: ignore[arg-type] # a norm in evaluation has statistics
            norm.running_var,  # type: ignore[arg-type]
            norm.eps,
            norm.weight,
            norm.bias,
        )
        convolution.weight, convolution.bias = fused
    _replace(net, lambda module: nn.Identity() if module in pairs else module)
