"""Whether a manifest is possible: refused here, it cannot fail a request later."""

import math
import re
from typing import Optional

from wenet_runtime.errors import BundleError
from wenet_runtime.manifest import DTYPES, PRECISIONS, SCORES, Manifest, Rule

# A mode's id names files in the cache and stands in headers and in paths.
_MODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
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
    _check_cascade(manifest)


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


def _check_cascade(manifest: Manifest) -> None:
    if not manifest.cascade:
        return
    scores = manifest.outputs[0]
    if len(scores.shape) != 2 or scores.shape[1] < 2 or scores.datatype not in ("FP32", "FP64"):
        raise BundleError(
            f"the bundle has a cascade, but its first output '{scores.name}' is {scores.datatype} {scores.shape}, "
            "not one score for each of several classes: export it again without a cascade"
        )
    modes, pairs = {mode.id for mode in manifest.modes}, set()
    for rule in manifest.cascade:
        pair = (rule.first, rule.then)
        wrong = _wrong(rule)
        unknown = sorted(set(pair) - modes)
        if unknown:
            wrong = f"the bundle has no mode {', '.join(unknown)}"
        elif pair in pairs:
            wrong = "it is there twice"
        if wrong is not None:
            raise BundleError(f"the cascade's rule from '{rule.first}' to '{rule.then}': {wrong}: calibrate it again")
        pairs.add(pair)


def _wrong(rule: Rule) -> Optional[str]:
    """What is impossible about a rule by itself; None if nothing is."""
    if rule.first == rule.then:
        return "both are the same mode"
    if rule.score not in SCORES:
        return f"its score is {rule.score!r}, known are {', '.join(SCORES)}"
    for name, value, low, high in (
        ("threshold", rule.threshold, 0.0, math.inf),
        ("escalated", rule.escalated, 0.0, 1.0),
        ("loss", rule.loss, -1.0, 1.0),
    ):
        if not math.isfinite(value) or not low <= value <= high:
            return f"its {name} is {value}, wanted a number from {low:g} to {high:g}"
    for name, value in (("epsilon", rule.epsilon), ("delta", rule.delta)):
        if not 0 < value < 1:
            return f"its {name} is {value}, wanted a number above 0 and below 1"
    if rule.loss > rule.epsilon:
        return f"it lost {rule.loss} where at most {rule.epsilon} was to be certified"
    if rule.images < 1:
        return f"it was certified on {rule.images} images"
    if not _SHA256.fullmatch(rule.data_sha256):
        return f"{rule.data_sha256!r} is no SHA-256"
    return None
