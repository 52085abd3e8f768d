"""Peers by name: a recipe says `wenet_trainer.peers.networks:<function>`, with whole numbers as arguments."""

from wenet_trainer.models.digits_resnet import DigitsResNet
from wenet_trainer.models.small_resnet import SmallResNet
from wenet_trainer.peers.early_exit import EarlyExit
from wenet_trainer.peers.slimmable import WIDTHS, Slimmable
from wenet_trainer.peers.slimmable_layers import FULL


def slimmable_small_resnet(
    classes: int = 24,
    width: int = 32,
    depth: int = 3,
    narrowest: int = WIDTHS[-1],
    divisor: int = 8,
    shared_affine: int = 0,
) -> Slimmable:
    """`SmallResNet` at every width from 16 sixteenths down to `narrowest`."""
    return Slimmable(SmallResNet(classes, width, depth), range(FULL, narrowest - 1, -1), divisor, shared_affine)


def slimmable_digits_resnet(
    width: int = 16,
    tail: int = 512,
    classes: int = 10,
    narrowest: int = WIDTHS[-1],
    divisor: int = 8,
    shared_affine: int = 0,
) -> Slimmable:
    """`DigitsResNet` at every width from 16 sixteenths down to `narrowest`."""
    return Slimmable(DigitsResNet(width, tail, classes), range(FULL, narrowest - 1, -1), divisor, shared_affine)


def early_exit_small_resnet(classes: int = 24, width: int = 32, depth: int = 3, hidden: int = 0) -> EarlyExit:
    """`SmallResNet` with an exit behind each bottleneck."""
    return EarlyExit(SmallResNet(classes, width, depth), (3, 32, 32), hidden)


def early_exit_digits_resnet(width: int = 16, tail: int = 512, classes: int = 10, hidden: int = 0) -> EarlyExit:
    """`DigitsResNet` with an exit behind each bottleneck."""
    return EarlyExit(DigitsResNet(width, tail, classes), (1, 32, 32), hidden)
