"""A width of a slimmable network as an ordinary ONNX model, so that an engine can time it beside WeNet's modes."""

import copy
import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wenet_trainer.errors import NetworkError
from wenet_trainer.peers.slimmable import KNOB, Slimmable
from wenet_trainer.peers.slimmable_layers import SlimmableConv2d, SlimmableLinear
from wenet_trainer.peers.slimmable_norms import SlimmableBatchNorm
from wenet_trainer.topology import INPUT, OPSET, OUTPUT


def plain_network(net: Slimmable, level: int) -> nn.Module:
    """One width with torch's own layers, whose weights are copies of the slices, in evaluation mode.

    The statistics that are loaded now go with it, so within `recalibrated` those are its own.

    Args:
        net: stays as it is.
        level: the width level.

    Raises:
        NetworkError: the network has no such level.
    """
    chosen = copy.deepcopy(net).cpu()
    chosen.activate({KNOB: level})
    root = nn.ModuleDict({"net": chosen.net})  # so that a network that is one layer can be replaced too
    made: dict[nn.Module, nn.Module] = {}
    for path, module in list(root.named_modules(remove_duplicate=False)):
        if isinstance(module, SlimmableConv2d | SlimmableLinear | SlimmableBatchNorm):
            made[module] = made.get(module) or _plain(module)
            parent, _, name = path.rpartition(".")
            setattr(root.get_submodule(parent), name, made[module])
    return root["net"].eval()


def width_model(net: Slimmable, level: int, input_shape: tuple[int, int, int]) -> bytes:
    """One width as an ONNX model with every number inside and batch norms folded, any batch.

    Args:
        net: stays as it is.
        level: the width level.
        input_shape: (C, H, W).

    Raises:
        NetworkError: the network has no such level, or torch cannot export it.
    """
    plain, buffer = plain_network(net, level), io.BytesIO()
    written: Any = buffer  # works, though torch declares paths only
    with _without_advice():
        try:
            torch.onnx.export(
                plain,
                (torch.zeros(1, *input_shape),),
                written,
                dynamo=False,  # the other exporter cannot write this opset
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes={INPUT: {0: "batch"}, OUTPUT: {0: "batch"}},
            )
        except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
            raise NetworkError(f"torch cannot export width level {level} to ONNX opset {OPSET}: {error}") from error
    return buffer.getvalue()


def _plain(module: SlimmableConv2d | SlimmableLinear | SlimmableBatchNorm) -> nn.Module:
    if isinstance(module, SlimmableBatchNorm):
        return _norm(module)
    weight, bias = module.active()
    numbers = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    made: nn.Module
    if isinstance(module, SlimmableLinear):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias is not None)
    else:
        out, depthwise = weight.shape[0], module.groups > 1
        kernel, stride, dilation = ((pair[0], pair[1]) for pair in (module.kernel_size, module.stride, module.dilation))
        padding = module.padding if isinstance(module.padding, str) else (module.padding[0], module.padding[1])
        made = nn.Conv2d(
            out if depthwise else weight.shape[1], out, kernel, stride, padding, dilation,
            out if depthwise else 1, bias is not None,
        )  # fmt: skip
    made.load_state_dict(numbers)
    return made


def _norm(module: SlimmableBatchNorm) -> nn.Module:
    norm = module.active()
    affine = module.affine_in_use()
    numbers: dict[str, Tensor] = dict(zip(("weight", "bias"), affine, strict=False))
    if norm.running_mean is None or norm.running_var is None:
        raise NetworkError("a batch norm keeps no running statistics: build it with track_running_stats=True")
    numbers |= {"running_mean": norm.running_mean, "running_var": norm.running_var}
    kind = type(module.widths["1"])  # a width that shares γ and β is of a class of its own
    made: nn.Module = kind(norm.num_features, eps=norm.eps, affine=bool(affine))
    made.load_state_dict(numbers, strict=False)  # the count of batches plays no part in evaluation
    return made


@contextmanager
def _without_advice() -> Iterator[None]:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it advises the other exporter
            yield
    finally:
        logger.setLevel(level)
