"""Whether a manifest is possible: refused here, it cannot fail a request later."""

import math
import re

from wenet_runtime.errors import BundleError
from wenet_runtime.manifest import DTYPES, PRECISIONS, Manifest

# A mode's id names files in the cache and stands in headers and in paths.
_MODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_CHANNELS = {"L": 1, "RGB": 3}


def check_manifest(manifest: Manifest) -> None:
    """What the manifest says must be possible, and what one part says of another must be so.

    Raises:
        BundleError: the first thing that is not.
    """
    _check_tensors(manifest)
    _check_preprocess(manifest)
    _check_modes(manifest)
    _check_norms(manifest)


def _check_modes(manifest: Manifest) -> None:
    layers = {layer.name: layer for layer in manifest.layers}
    if not manifest.modes:
        raise BundleError("the bundle has no modes: export it again")
    if len({mode.id for mode in manifest.modes}) != len(manifest.modes):
        raise BundleError("two modes of the bundle share an id: export it again")
    for mode in manifest.modes:
        if not _MODE_ID.fullmatch(mode.id):
            raise BundleError(f"{mode.id!r} is no mode id: take letters, digits and . _ -, a letter or digit first")
        if set(mode.groups) != set(layers):
            raise BundleError(f"mode '{mode.id}' does not give groups for exactly the bundle's layers")
        for name, groups in mode.groups.items():
            if groups not in layers[name].groups:
                raise BundleError(f"mode '{mode.id}': layer '{name}' allows {layers[name].groups}, not {groups}")
        if mode.statistics is not None and mode.statistics not in manifest.files:
            raise BundleError(f"mode '{mode.id}' names '{mode.statistics}', which the manifest does not list")
        if mode.precision not in PRECISIONS:
            raise BundleError(
                f"mode '{mode.id}' has unknown precision {mode.precision!r}: known are {', '.join(PRECISIONS)}"
            )
        if mode.precision == "int8" and mode.statistics is None:
            raise BundleError(f"mode '{mode.id}' is int8 and names no statistics to hold its ranges: export it again")
        accuracy = mode.accuracy
        if not 0 <= accuracy.ci_low <= accuracy.value <= accuracy.ci_high <= 1 or accuracy.images < 1:
            raise BundleError(f"mode '{mode.id}' has an impossible accuracy {accuracy}: export the bundle again")
        if mode.macs < 1 or mode.params < 1:
            raise BundleError(f"mode '{mode.id}' has {mode.macs} MACs and {mode.params} parameters: export it again")


def _check_norms(manifest: Manifest) -> None:
    layers = {layer.name: layer for layer in manifest.layers}
    for norm in manifest.norms:
        wanted = set(layers[norm.layer].groups) if norm.layer in layers else {1}
        if norm.layer is not None and norm.layer not in layers:
            raise BundleError(f"batch norm '{norm.node}' is switched by unknown layer '{norm.layer}'")
        if set(norm.patterns) != wanted:
            raise BundleError(f"batch norm '{norm.node}' has patterns {sorted(norm.patterns)}, wanted {sorted(wanted)}")


def _check_tensors(manifest: Manifest) -> None:
    if not manifest.inputs or not manifest.outputs or manifest.max_batch < 1:
        raise BundleError("the bundle has no inputs, no outputs or no batch size: export it again")
    specs = manifest.inputs + manifest.outputs
    if len({spec.name for spec in manifest.inputs}) + len({spec.name for spec in manifest.outputs}) != len(specs):
        raise BundleError("two tensors of the bundle share a name: export it again")
    for spec in specs:
        if spec.datatype not in DTYPES:
            raise BundleError(f"tensor '{spec.name}' has unknown datatype '{spec.datatype}': known are {list(DTYPES)}")
        if len(spec.shape) < 2 or spec.shape[0] != -1 or any(size < 1 for size in spec.shape[1:]):
            raise BundleError(f"tensor '{spec.name}' has shape {spec.shape}, wanted (-1, …): export the bundle again")
    classes = manifest.outputs[0].shape[-1]
    if manifest.labels and len(manifest.labels) != classes:
        raise BundleError(f"the bundle has {len(manifest.labels)} labels for {classes} classes: export it again")


def _check_preprocess(manifest: Manifest) -> None:
    recipe = manifest.preprocess
    if recipe is None:
        return
    if recipe.color not in _CHANNELS:
        raise BundleError(f"images of colour '{recipe.color}' are not known: known are {', '.join(_CHANNELS)}")
    channels = _CHANNELS[recipe.color]
    wanted = (-1, channels, recipe.height, recipe.width)
    if len(manifest.inputs) != 1 or manifest.inputs[0].shape != wanted or manifest.inputs[0].datatype != "FP32":
        raise BundleError(f"images become (batch, {channels}, {recipe.height}, {recipe.width}), the input is another")
    if len(recipe.mean) != channels or len(recipe.std) != channels:
        raise BundleError(f"mean and std have {len(recipe.mean)} and {len(recipe.std)} numbers for {channels} channels")
    if not all(math.isfinite(value) for value in recipe.mean + recipe.std) or not all(
        value > 0 for value in recipe.std
    ):
        raise BundleError(f"mean {recipe.mean} or std {recipe.std} is impossible: export the bundle again")
