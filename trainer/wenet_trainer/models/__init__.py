"""The table of supernets: name → import string. A new model is one file and one line here."""

from collections.abc import Mapping

from torch import nn

from wenet_runtime.registry import load
from wenet_trainer.errors import NetworkError

MODELS: Mapping[str, str] = {
    "digits_mlp": "wenet_trainer.models.digits_mlp:DigitsMlp",
    "digits_resnet": "wenet_trainer.models.digits_resnet:DigitsResNet",
    "efficientnet_b0": "wenet_trainer.models.efficientnet:EfficientNetB0",
    "mobilenet_v2": "wenet_trainer.models.mobilenet_v2:MobileNetV2",
    "resnet50": "wenet_trainer.models.resnet:ResNet50",
    "small_resnet": "wenet_trainer.models.small_resnet:SmallResNet",
    "tiny": "wenet_trainer.models.tiny:TinyNet",
}


def build(name: str, arguments: Mapping[str, int] | None = None) -> nn.Module:
    """A new supernet with freshly initialised weights.

    Args:
        name: a name of the table, or "package.module:Class".
        arguments: keyword arguments of its constructor.

    Raises:
        NetworkError: the constructor refuses the arguments.
    """
    constructor = load(MODELS, name, kind="model", error=NetworkError)
    try:
        net = constructor(**(arguments or {}))
    except TypeError as error:
        raise NetworkError(f"model '{name}' does not take {dict(arguments or {})}: {error}") from None
    if not isinstance(net, nn.Module):
        raise NetworkError(f"model '{name}' is {type(net).__name__}, not a torch module: name a module's class")
    return net
