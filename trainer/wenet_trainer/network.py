"""From a recipe to its network, as training starts it and as a checkpoint rebuilds it."""

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from wenet_trainer.convert import convert
from wenet_trainer.errors import NetworkError
from wenet_trainer.models import build
from wenet_trainer.models.pretrained import load_full, read_pretrained
from wenet_trainer.recipe import Recipe


def start_network(recipe: Recipe, say: Callable[[str], None]) -> nn.Module:
    """The network that a training starts with: freshly initialised, or from a plain network's numbers.

    Args:
        recipe: names the network and the file of numbers.
        say: told what a conversion changed and left alone.

    Raises:
        NetworkError: as `make_network`; or the numbers cannot be read, or are another network's.
    """
    return make_network(recipe, read_pretrained(Path(recipe.pretrained)) if recipe.pretrained else None, say)


def make_network(
    recipe: Recipe, plain: Mapping[str, Tensor] | None = None, say: Callable[[str], None] = lambda _line: None
) -> nn.Module:
    """The recipe's network.

    Args:
        recipe: names the network.
        plain: state dict of the plain network, which becomes the full network's; freshly initialised without.
        say: told what a conversion changed and left alone.

    Raises:
        NetworkError: the table has no such model, its constructor refuses the arguments, it cannot be
            converted, or `plain` does not fit it.
    """
    arguments = dict(recipe.model_arguments)
    if recipe.classifier == "grouped":
        arguments["grouped_classifier"] = 1
    net = build(recipe.model, arguments)
    if recipe.convert:
        if plain is not None:
            _load(net, plain)
        conversion = convert(net)
        say(str(conversion))
        return conversion.net
    if plain is not None:
        load_full(net, plain)
    return net


def _load(net: nn.Module, plain: Mapping[str, Tensor]) -> None:
    try:
        net.load_state_dict(dict(plain))
    except RuntimeError as error:
        raise NetworkError(f"the numbers to start from do not fit the network: {error}") from None
