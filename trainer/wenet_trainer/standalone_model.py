"""One mode as an ordinary ONNX file: it says itself how it is fed, and is checked before anybody sees it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from wenet_runtime.bundle import Bundle, Manifest, Mode, TensorSpec
from wenet_runtime.engines.ort import OrtBackend, OrtEngine
from wenet_runtime.errors import WeNetError
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, lower
from wenet_runtime.plan import Plan
from wenet_trainer.errors import ExportError

TOLERANCE = 1e-4  # of the largest answer, for fp32; other precisions may be off by what `PRECISIONS` allows them

Arrays = Mapping[str, NDArray[Any]]


class ModelWriter:
    """Makes the ONNX files of one bundle's modes.

    Args:
        bundle: the verified bundle; its weights are mapped once for all modes.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._supernet = Supernet.of(bundle)
        self._plan = Plan(self._supernet)
        self._golden = bundle.golden()

    def model(self, mode: Mode) -> bytes:
        """The mode as ONNX bytes: opset 13, IR version 7, no external data, any batch.

        Layers are emitted by the rule for hosts that nothing was measured on: some with fewer groups and zeros
        between the blocks, which the metadata's `wenet_emitted` names. int8 weights have 7 bits, because products of
        8 overflow on some processors.

        Raises:
            ExportError: the mode cannot be made, is no valid ONNX, or ONNX Runtime's answers to the bundle's
                golden inputs are others than the bundle's.
        """
        manifest = self._bundle.manifest
        emitted = self._plan.by_rule(mode.groups)
        try:
            plain = lower(
                self._supernet,
                mode.groups,
                self._bundle.statistics(mode),
                emitted=emitted,
                precision=mode.precision,
                reduce_range=True,  # nobody knows on which processor the file will run
            )
            model = onnx.load_model_from_string(plain.to_bytes())
            model.doc_string = feeding(manifest)
            helper.set_model_props(model, metadata(self._bundle, mode, emitted))
            _describe(model.graph.input, manifest.inputs)
            _describe(model.graph.output, manifest.outputs)
            onnx.checker.check_model(model, full_check=True)
            data: bytes = model.SerializeToString()
            self._check_answers(data, mode)
        except (WeNetError, onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"mode '{mode.id}' cannot become an ONNX file, nothing was written: {error}") from error
        return data

    def _check_answers(self, model: bytes, mode: Mode) -> None:
        """Compare ONNX Runtime's answers with the golden ones, for all inputs at once and for the first alone."""
        manifest = self._bundle.manifest
        inputs = {spec.name: self._known(f"input.{spec.name}") for spec in manifest.inputs}
        wanted = {spec.name: self._known(f"{mode.id}.{spec.name}") for spec in manifest.outputs}
        tolerance = TOLERANCE if mode.precision == "fp32" else PRECISIONS[mode.precision]
        engine = OrtBackend(None, 1).load_bytes(model, name=mode.id)
        try:
            for rows in (slice(None), slice(1)):
                _compare(engine, _part(inputs, rows), _part(wanted, rows), tolerance)
        finally:
            engine.close()

    def _known(self, name: str) -> NDArray[Any]:
        if name not in self._golden:
            raise ExportError(f"the bundle's golden file lacks '{name}', so nothing can be checked: export it again")
        return self._golden[name]


def facts(bundle: Bundle, mode: Mode) -> dict[str, str]:
    """What is to be known of a mode: numbers as decimal text, everything with parts as JSON."""
    manifest, accuracy = bundle.manifest, mode.accuracy
    return {
        "wenet_model": manifest.model,
        "wenet_mode": mode.id,
        "wenet_precision": mode.precision,
        "wenet_accuracy": str(accuracy.value),
        "wenet_accuracy_ci_low": str(accuracy.ci_low),
        "wenet_accuracy_ci_high": str(accuracy.ci_high),
        "wenet_accuracy_images": str(accuracy.images),
        "wenet_macs": str(mode.macs),
        "wenet_params": str(mode.params),
        "wenet_bundle_sha256": bundle.sha256,
        "wenet_preprocess": json.dumps(None if manifest.preprocess is None else asdict(manifest.preprocess)),
    }


def metadata(bundle: Bundle, mode: Mode, emitted: Mapping[str, int]) -> dict[str, str]:
    """What the file says of itself: the facts, and what would be lost without a bundle.

    Args:
        bundle: where the mode comes from.
        mode: the mode.
        emitted: layers that the file computes with fewer groups than the mode has, by name.
    """
    manifest = bundle.manifest
    return {
        **facts(bundle, mode),
        "wenet_groups": json.dumps(dict(mode.groups)),
        "wenet_emitted": json.dumps(dict(emitted)),
        "wenet_labels": json.dumps(manifest.labels, ensure_ascii=False),
        "wenet_max_batch": str(manifest.max_batch),
    }


def feeding(manifest: Manifest) -> str:
    """How an input is made, in words for a person."""
    shapes = ", ".join(f"{spec.name} is (batch, {_sizes(spec)}) {spec.dtype}" for spec in manifest.inputs)
    recipe = manifest.preprocess
    if recipe is None:
        return f"Input: {shapes}. The bundle does not say how it is made from images."
    return (
        f"Input: {shapes}. Decode an image to 8 bits of Pillow's mode {recipe.color} (of 16-bit grey take the upper 8 "
        f"bits), resize it to {recipe.width}×{recipe.height} pixels (width×height, bilinear with antialiasing as "
        "Pillow's Image.Resampling.BILINEAR), divide by 255, then per channel subtract "
        f"{list(recipe.mean)} and divide by {list(recipe.std)}; channels come before rows and columns."
    )


def _sizes(spec: TensorSpec) -> str:
    return ", ".join(str(size) for size in spec.shape[1:])


def _describe(values: Any, specs: Sequence[TensorSpec]) -> None:
    """Give the graph's inputs or outputs the manifest's order, types and shapes, the batch left open."""
    found, wanted = {value.name for value in values}, {spec.name for spec in specs}
    if found != wanted:
        raise ExportError(f"the topology has {sorted(found)} where the manifest says {sorted(wanted)}: export it again")
    del values[:]
    for spec in specs:
        kind = helper.np_dtype_to_tensor_dtype(spec.dtype)
        values.append(helper.make_tensor_value_info(spec.name, kind, ["batch", *spec.shape[1:]]))


def _part(arrays: Arrays, rows: slice) -> dict[str, NDArray[Any]]:
    return {name: np.ascontiguousarray(value[rows]) for name, value in arrays.items()}


def _compare(engine: OrtEngine, inputs: Arrays, wanted: Arrays, tolerance: float) -> None:
    answers = engine.infer(inputs)
    for name, reference in wanted.items():
        found = answers[name]
        if found.shape != reference.shape:
            raise ExportError(f"output '{name}' is {found.shape}, the bundle's golden answer {reference.shape}")
        largest = float(np.abs(reference).max())
        deviation = float(np.abs(found - reference).max())
        if not deviation <= tolerance * largest:
            raise ExportError(
                f"output '{name}' deviates from the bundle's golden answer by {deviation:.2e} where at most "
                f"{tolerance:.0e} of {largest:.2e} is allowed: export the bundle again"
            )
