"""`config.pbtxt` is read here as Triton reads it: strictly, as protobuf text of a message with declared fields."""

import dataclasses
import json

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from tests.supernets import write_test_bundle
from wenet_runtime.bundle import Bundle, TensorSpec
from wenet_trainer import triton
from wenet_trainer.standalone import export_standalone
from wenet_trainer.standalone_model import facts

FIELD = descriptor_pb2.FieldDescriptorProto
# The fields and types of Triton's ModelConfig that are written; their numbers do not matter to text.
MESSAGES = {
    "Parameter": {"string_value": "string"},
    "Entry": {"key": "string", "value": "Parameter"},
    "Input": {"name": "string", "data_type": "DataType", "dims": ["int64"]},
    "Output": {"name": "string", "data_type": "DataType", "dims": ["int64"], "label_filename": "string"},
    "ModelConfig": {
        "name": "string",
        "platform": "string",
        "max_batch_size": "int32",
        "input": ["Input"],
        "output": ["Output"],
        "parameters": ["Entry"],
    },
}
DATA_TYPES = ("INVALID", "BOOL", "UINT8", "INT32", "INT64", "FP16", "FP32", "FP64")


def model_config():
    """An empty message of the kind that `config.pbtxt` is."""
    file = descriptor_pb2.FileDescriptorProto(name="model_config.proto", package="triton")
    kinds = file.enum_type.add(name="DataType")
    for number, name in enumerate(DATA_TYPES):
        kinds.value.add(name=f"TYPE_{name}", number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields.items(), start=1):
            label = FIELD.LABEL_REPEATED if isinstance(kind, list) else FIELD.LABEL_OPTIONAL
            kind = kind[0] if isinstance(kind, list) else kind
            added = message.field.add(name=field, number=number, label=label)
            if kind in MESSAGES or kind == "DataType":
                added.type_name = f".triton.{kind}"
                added.type = FIELD.TYPE_ENUM if kind == "DataType" else FIELD.TYPE_MESSAGE
            else:
                added.type = getattr(FIELD, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("triton.ModelConfig"))()


def parsed(text):
    return text_format.Parse(text, model_config())


@pytest.fixture
def bundle(tmp_path):
    write_test_bundle(tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


def test_every_models_directory_holds_what_its_config_says(bundle, tmp_path):
    export_standalone(bundle, tmp_path / "out", quiet=True)
    for mode in bundle.modes:
        folder = tmp_path / "out/triton" / f"tiny_{mode.id}"
        config = parsed((folder / "config.pbtxt").read_text())
        assert config.name == folder.name
        assert config.platform == "onnxruntime_onnx"
        assert config.max_batch_size == bundle.manifest.max_batch
        (image,), (logits,) = config.input, config.output
        assert (image.name, list(image.dims), DATA_TYPES[image.data_type]) == ("input", [1, 8, 8], "FP32")
        assert (logits.name, list(logits.dims), DATA_TYPES[logits.data_type]) == ("logits", [10], "FP32")
        assert (folder / logits.label_filename).read_text().splitlines() == list(bundle.manifest.labels)
        assert [path.name for path in (folder / "1").iterdir()] == ["model.onnx"]
        said = {entry.key: entry.value.string_value for entry in config.parameters}
        assert said == facts(bundle, mode)
        assert said["wenet_mode"] == mode.id
        assert float(said["wenet_accuracy"]) == mode.accuracy.value
        assert json.loads(said["wenet_preprocess"])["std"] == [0.25]


def test_several_tensors_of_any_type_are_written_and_only_the_first_output_has_labels(bundle):
    inputs = tuple(TensorSpec(kind, kind, (-1, 2, 3)) for kind in ("FP32", "FP64", "INT64", "INT32", "UINT8"))
    outputs = (TensorSpec("a", "FP32", (-1, 10)), TensorSpec("b", "INT64", (-1, 4, 1)))
    manifest = dataclasses.replace(bundle.manifest, inputs=inputs, outputs=outputs, preprocess=None)
    config = parsed(triton.config(manifest, bundle.mode("m0"), {}))
    assert [DATA_TYPES[one.data_type] for one in config.input] == [one.name for one in config.input]
    assert [list(one.dims) for one in config.output] == [[10], [4, 1]]
    assert [one.label_filename for one in config.output] == ["labels.txt", ""]
    bare = dataclasses.replace(manifest, labels=())
    assert [one.label_filename for one in parsed(triton.config(bare, bundle.mode("m0"), {})).output] == ["", ""]


@pytest.mark.parametrize("text", ['say "no"', "back\\slash\\n", "two\nlines\t", "naïve 漢字 \x01", "7\\" + "7", ""])
def test_any_text_comes_out_as_it_went_in(bundle, text):
    config = parsed(triton.config(bundle.manifest, bundle.mode("m0"), {"key": text, text: "value"}))
    assert [(entry.key, entry.value.string_value) for entry in config.parameters] == [("key", text), (text, "value")]


def test_a_models_name_fits_into_a_path_and_an_address(bundle):
    manifest = dataclasses.replace(bundle.manifest, model="my.nets:Big/Net v2")
    assert triton.model_name(manifest, bundle.mode("m0")) == "my_nets_Big_Net_v2_m0"


def test_a_label_stays_on_its_line(bundle):
    manifest = dataclasses.replace(bundle.manifest, labels=("a\nb", "c", "", "d\r\ne"))
    assert triton.label_file(manifest) == "a b\nc\n\nd e\n"


def test_the_reader_refuses_what_triton_would(bundle):
    text = triton.config(bundle.manifest, bundle.mode("m0"), {})
    for wrong in (
        text.replace("platform", "plattform"),
        text.replace("TYPE_FP32", "TYPE_FLOAT"),
        text.replace("]\noutput", "\noutput"),
    ):
        assert wrong != text
        with pytest.raises(text_format.ParseError):
            parsed(wrong)
