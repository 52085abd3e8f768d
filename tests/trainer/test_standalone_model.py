import dataclasses
import json

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.supernets import images, run, safetensors, write_test_bundle
from tests.trainer.bundles import changed, reference, with_golden
from wenet_runtime.bundle import GOLDEN, Bundle
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.lowering.ranges import as_statistics, observe
from wenet_runtime.manifest import PRECISIONS
from wenet_runtime.materialize import Supernet, lower
from wenet_trainer.errors import ExportError
from wenet_trainer.standalone import export_standalone
from wenet_trainer.standalone_model import TOLERANCE, feeding


@pytest.fixture
def bundle(tmp_path):
    write_test_bundle(tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


@pytest.mark.parametrize("rows", [1, 5])
def test_every_file_answers_as_its_mode_and_not_as_another(bundle, tmp_path, rows):
    files, inputs = export_standalone(bundle, tmp_path / "out", quiet=True), images(rows, seed=7)
    for at, (file, mode) in enumerate(zip(files, bundle.modes, strict=True)):
        answers, wanted = run(file.read_bytes(), inputs), reference(bundle, mode, inputs)
        other = reference(bundle, bundle.modes[at - 1], inputs)
        assert answers.shape == (rows, 10)
        assert np.abs(answers - wanted).max() <= 1e-5 * np.abs(wanted).max()
        assert np.abs(answers - other).max() > 1e-2 * np.abs(wanted).max()


def test_every_file_is_a_plain_onnx_model_of_the_bundles_inputs_and_outputs(bundle, tmp_path):
    for file in export_standalone(bundle, tmp_path / "out", quiet=True):
        model = onnx.load_model(file, load_external_data=False)
        onnx.checker.check_model(model, full_check=True)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
        assert model.ir_version <= 8
        assert not any(tensor.external_data for tensor in model.graph.initializer)
        assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        tensors = [*session.get_inputs(), *session.get_outputs()]
        assert [(one.name, one.type, one.shape) for one in tensors] == [
            ("input", "tensor(float)", ["batch", 1, 8, 8]),
            ("logits", "tensor(float)", ["batch", 10]),
        ]


def test_a_file_alone_says_what_it_is_and_how_it_is_fed(bundle, tmp_path):
    for file, mode in zip(export_standalone(bundle, tmp_path / "out", quiet=True), bundle.modes, strict=True):
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        facts = session.get_modelmeta().custom_metadata_map
        assert (facts["wenet_model"], facts["wenet_mode"]) == ("tiny", mode.id)
        assert json.loads(facts["wenet_groups"]) == mode.groups
        assert (facts["wenet_precision"], facts["wenet_bundle_sha256"]) == ("fp32", bundle.sha256)
        accuracy = [float(facts[f"wenet_accuracy{part}"]) for part in ("", "_ci_low", "_ci_high", "_images")]
        assert accuracy == list(dataclasses.astuple(mode.accuracy))
        assert (int(facts["wenet_macs"]), int(facts["wenet_params"])) == (mode.macs, mode.params)
        assert json.loads(facts["wenet_preprocess"])["mean"] == [0.5]
        assert json.loads(facts["wenet_labels"]) == list(bundle.manifest.labels)
        assert int(facts["wenet_max_batch"]) == bundle.manifest.max_batch
        assert session.get_modelmeta().description == feeding(bundle.manifest)
        assert "resize it to 8×8 pixels" in feeding(bundle.manifest)


def test_small_groups_over_neighbourhoods_are_joined_and_the_file_says_so(bundle, tmp_path):
    files = dict(zip(("m2", "m1", "m0"), export_standalone(bundle, tmp_path / "out", quiet=True), strict=True))
    model = onnx.load_model(files["m0"])
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(facts["wenet_groups"])["b.conv2"] == 16
    assert json.loads(facts["wenet_emitted"]) == {"b.conv2": 2}
    conv = next(node for node in model.graph.node if node.name == "b.conv2")
    assert next(entry.i for entry in conv.attribute if entry.name == "group") == 2


def test_the_same_bundle_gives_the_same_bytes(bundle, tmp_path):
    first = export_standalone(bundle, tmp_path / "a", quiet=True)
    second = export_standalone(bundle, tmp_path / "b", quiet=True)
    assert [file.read_bytes() for file in first] == [file.read_bytes() for file in second]


def test_answers_within_the_tolerance_pass(bundle, tmp_path):
    def shift(golden):
        golden["m1.logits"] = golden["m1.logits"] + 0.5 * TOLERANCE * np.abs(golden["m1.logits"]).max()

    assert len(export_standalone(with_golden(bundle, tmp_path / "near", shift), tmp_path / "out", quiet=True)) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda golden: golden.pop("m0.logits"), "mode 'm0' .* golden file lacks 'm0.logits'"),
        (lambda golden: golden.pop("input.input"), "mode 'm2' .* golden file lacks 'input.input'"),
        (lambda golden: golden.update({"m0.logits": golden["m0.logits"][:, :5].copy()}), r"mode 'm0' .*\(2, 5\)"),
        (lambda golden: golden.update({"m0.logits": golden["m0.logits"] * np.float32("nan")}), "mode 'm0' .* nan"),
    ],
)
def test_golden_answers_that_say_nothing_fail_the_export(bundle, tmp_path, change, message):
    with pytest.raises(ExportError, match=message):
        export_standalone(with_golden(bundle, tmp_path / "wrong", change), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_a_topology_of_other_outputs_is_refused(bundle, tmp_path):
    outputs = (dataclasses.replace(bundle.manifest.outputs[0], name="scores"),)
    with pytest.raises(ExportError, match=r"mode 'm2' .* has \['logits'\] where the manifest says \['scores'\]"):
        export_standalone(changed(bundle, tmp_path / "wrong", outputs=outputs), tmp_path / "out", quiet=True)
    outputs = (dataclasses.replace(bundle.manifest.outputs[0], shape=(-1, 9)),)
    with pytest.raises(ExportError, match="mode 'm2' cannot become an ONNX file"):
        export_standalone(changed(bundle, tmp_path / "odd", outputs=outputs, labels=()), tmp_path / "out", quiet=True)


def test_a_mode_is_written_in_its_precision(bundle, tmp_path):
    modes = tuple(dataclasses.replace(mode, precision="fp16") for mode in bundle.manifest.modes)
    half = changed(bundle, tmp_path / "half", modes=modes)
    for file in export_standalone(half, tmp_path / "out", quiet=True):
        model = onnx.load_model(file)
        kinds = {tensor.data_type for tensor in model.graph.initializer}
        assert onnx.TensorProto.FLOAT16 in kinds
        assert onnx.TensorProto.FLOAT not in kinds
        assert {entry.key: entry.value for entry in model.metadata_props}["wenet_precision"] == "fp16"
        assert run(file.read_bytes(), images(3)).dtype == np.float32
    modes = tuple(dataclasses.replace(mode, precision="int8") for mode in bundle.manifest.modes)
    with pytest.raises(ExportError, match=r"mode 'm2' .* int8 mode needs the ranges"):
        export_standalone(changed(bundle, tmp_path / "int8", modes=modes), tmp_path / "out8", quiet=True)


def test_an_int8_file_has_weights_of_7_bits_and_says_so_in_the_guide(bundle, tmp_path):
    assert "7 bits" not in guide_of(bundle, tmp_path / "float")
    whole = in_int8(bundle, tmp_path / "int8")
    assert "7 bits" in guide_of(whole, tmp_path / "out")
    for mode in whole.modes:
        model = onnx.load_model(tmp_path / "out" / f"{mode.id}.onnx")
        numbers = [onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
        assert max(np.abs(one.astype(int)).max() for one in numbers if one.dtype == np.int8) == 64
        answers, wanted = run(model.SerializeToString(), images(4)), reference(bundle, mode, images(4))
        assert 1e-4 < np.abs(answers - wanted).max() / np.abs(wanted).max() < PRECISIONS["int8"]


def guide_of(bundle, out):
    export_standalone(bundle, out, quiet=True)
    return (out / "README.md").read_text()


def in_int8(bundle, path):
    """The bundle with every mode in int8, ranges and golden answers with it."""
    supernet, files, golden = Supernet.of(bundle), {}, bundle.golden()
    for mode in bundle.modes:
        statistics = bundle.statistics(mode)
        ranges = observe(lower(supernet, mode.groups, statistics), all_outputs, [{"input": images(8)}])
        statistics.update(as_statistics(ranges))
        files[mode.statistics] = safetensors(statistics)
        model = lower(supernet, mode.groups, statistics, precision="int8", reduce_range=True).to_bytes()
        golden[f"{mode.id}.logits"] = run(model, golden["input.input"])
    modes = tuple(dataclasses.replace(mode, precision="int8") for mode in bundle.manifest.modes)
    return changed(bundle, path, {**files, GOLDEN: safetensors(golden)}, modes=modes)


def all_outputs(model, inputs):
    return OrtBackend().load_bytes(model, name="test").infer(inputs)
