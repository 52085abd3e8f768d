"""V2's inference object with bytes behind it: mixed forms, encoded images, and everything that can be wrong."""

import dataclasses
import io
import json
from typing import Any, Dict, Tuple

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.runtime.fakes import Client, check_problem, ones
from tests.runtime.fuzzing import examples
from tests.supernets import images
from wenet_runtime.bundle import Bundle, Manifest
from wenet_runtime.service.bodies import decode, decodes_quickly
from wenet_runtime.service.images import decode_image
from wenet_runtime.service.problems import PROBLEMS, Problem
from wenet_runtime.service.v2binary import MAX_HEADER_BYTES
from wenet_runtime.service.v2request import Decoded

OCTETS = "application/octet-stream"


def message(head: Any, *tensors: bytes) -> Tuple[bytes, Dict[str, str]]:
    """A body and its headers."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    headers = {"Content-Type": OCTETS, "Inference-Header-Content-Length": str(len(text))}
    return b"".join([text, *tensors]), headers


def tensor(values: Any, datatype: str = "FP32", name: str = "input", **changes: Any) -> Dict[str, Any]:
    """How an input of bytes is described; members of value ... are left out."""
    data = values if isinstance(values, bytes) else values.tobytes()
    one = {
        "name": name,
        "datatype": datatype,
        "shape": list(getattr(values, "shape", ())),
        "parameters": {"binary_data_size": len(data)},
        **changes,
    }
    return {member: value for member, value in one.items() if value is not ...}


def decoded(manifest: Manifest, head: Any, *tensors: bytes) -> Decoded:
    body, headers = message(head, *tensors)
    return decode(OCTETS, body, headers["Inference-Header-Content-Length"], manifest)


def problem(manifest: Manifest, head: Any, *tensors: bytes) -> Problem:
    with pytest.raises(Problem) as caught:
        decoded(manifest, head, *tensors)
    return caught.value


def framed(*files: bytes) -> bytes:
    return b"".join(len(one).to_bytes(4, "little") + one for one in files)


def file_of(size: Tuple[int, int] = (8, 8), kind: str = "PNG", shade: int = 77) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, shade).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("rows", [1, 5])
def test_a_binary_tensor_answers_what_json_answers(client: Client, rows: int) -> None:
    x = images(rows)
    body, headers = message({"inputs": [tensor(x)], "id": "b1"}, x.tobytes())
    found = client.infer(content=body, headers=headers).json()
    plain = {**tensor(x, parameters=...), "data": x.reshape(-1).tolist()}
    assert found["outputs"] == client.infer(json={"inputs": [plain]}).json()["outputs"]
    assert found["id"] == "b1"


def test_without_a_media_type_the_length_of_the_head_tells(client: Client) -> None:
    body, headers = message({"inputs": [tensor(ones())]}, ones().tobytes())
    del headers["Content-Type"]
    assert client.infer(content=body, headers=headers).status_code == 200


def test_an_input_s_numbers_are_a_view_of_the_body(bundle: Bundle) -> None:
    head = json.dumps({"inputs": [tensor(ones())]}).encode()
    head += b" " * (-len(head) % 16)
    body = head + ones().tobytes()
    found = decode(OCTETS, body, str(len(head)), bundle.manifest).inputs["input"]
    assert np.shares_memory(found, np.frombuffer(body, np.uint8))


def test_inputs_may_be_json_and_bytes_side_by_side_in_their_order(bundle: Bundle) -> None:
    spec = bundle.manifest.inputs[0]
    specs = tuple(dataclasses.replace(spec, name=name) for name in ("a", "b", "c"))
    manifest = dataclasses.replace(bundle.manifest, inputs=specs)
    first, last = ones(value=1.0), ones(value=3.0)
    middle = {**tensor(ones(), name="b", parameters=...), "data": [2.0] * 64}
    head = {"inputs": [tensor(last, name="c"), middle, tensor(first, name="a")]}
    found = decoded(manifest, head, last.tobytes(), first.tobytes()).inputs
    assert {name: float(values[0, 0, 0, 0]) for name, values in found.items()} == {"a": 1.0, "b": 2.0, "c": 3.0}


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_are_taken_in_binary_form_only(bundle: Bundle, datatype: str) -> None:
    half = np.full((1, 1, 8, 8), 1.5, "<f2")
    data = half.tobytes() if datatype == "FP16" else b"\xc0\x3f" * 64
    found = decoded(bundle.manifest, {"inputs": [tensor(half, datatype)]}, data).inputs["input"]
    assert (found.dtype, float(found.min()), float(found.max())) == (np.float32, 1.5, 1.5)
    as_json = {**tensor(half, datatype, parameters=...), "data": [1.5] * 64}
    assert "binary form only" in problem(bundle.manifest, {"inputs": [as_json]}).detail
    whole = dataclasses.replace(bundle.manifest.inputs[0], datatype="UINT8")
    other = dataclasses.replace(bundle.manifest, inputs=(whole,))
    assert problem(other, {"inputs": [tensor(half, datatype)]}, data).slug == "invalid-tensor"


X = ones()
DATA = X.tobytes()


@pytest.mark.parametrize(
    ("head", "data", "slug"),
    [
        ({"inputs": [tensor(X)]}, DATA[:-1], "malformed-request"),
        ({"inputs": [tensor(X)]}, DATA + b"x", "malformed-request"),
        ({"inputs": [tensor(X)]}, b"", "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": 0})]}, b"", "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": -256})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": 256.0})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": "256"})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": None})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": 2**64})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters={"binary_data_size": 10**400})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters=[])]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, parameters={})]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, data=[0.0] * 64)]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X, shape=...)]}, DATA, "malformed-request"),
        ({"inputs": [tensor(X), tensor(X)]}, DATA + DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, name="other")]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, "FP64")]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, "INT8")]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, shape=[1, 1, 8, 9])]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, shape=[-1, 1, 8, 8])]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, shape=[2**62, 1, 8, 8])]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, shape=[2**32, 2**32, 2**32, 8])]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X, shape=[10**4000, 1, 8, 8])]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X)], "outputs": [{"name": "x"}]}, DATA, "invalid-tensor"),
        ({"inputs": [tensor(X)], "outputs": [{"name": "logits"}] * 2}, DATA, "invalid-tensor"),
        (b"[" * 33 + b"]" * 33, DATA, "malformed-request"),
        (b"{", DATA, "malformed-request"),
        (b"[]", DATA, "malformed-request"),
        (b"\xff", DATA, "malformed-request"),
        (b'{"inputs": NaN}', DATA, "malformed-request"),
    ],
)
def test_a_head_or_bytes_that_do_not_fit_are_the_client_s_error(
    bundle: Bundle, head: Any, data: bytes, slug: str
) -> None:
    found = problem(bundle.manifest, head, data)
    assert found.slug == slug
    assert len(found.detail) < 300


def test_a_head_is_64_kib_at_most_and_within_the_body(client: Client, bundle: Bundle) -> None:
    head = json.dumps({"inputs": [tensor(X)]}).encode()
    fits = head + b" " * (MAX_HEADER_BYTES - len(head))
    body, headers = message(fits, DATA)
    assert client.infer(content=body, headers=headers).status_code == 200
    body, headers = message(fits + b" ", DATA)
    check_problem(client.infer(content=body, headers=headers), "too-large", 413)
    for length in ("1", str(len(body) + 1), "9" * 20):
        response = client.infer(content=body, headers={**headers, "Inference-Header-Content-Length": length})
        check_problem(response, "malformed-request", 400)


def test_a_size_in_json_alone_is_malformed(client: Client) -> None:
    check_problem(client.infer(json={"inputs": [tensor(X)]}), "malformed-request", 400)


def test_more_numbers_than_the_model_takes_are_refused_before_they_are_parsed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.service.bodies.parse_json", lambda body: pytest.fail("it was parsed"))
    body = b'{"inputs": [{"data": [' + b"0," * 3000 + b"0]}]}"
    response = client.infer(content=body, headers={"Content-Type": "application/json"})
    assert "at most take, 512" in check_problem(response, "invalid-tensor", 422)["detail"]


def batch(*files: bytes, count: Any = None, **changes: Any) -> Tuple[Dict[str, Any], bytes]:
    data = framed(*files)
    changes.setdefault("shape", [len(files) if count is None else count])
    return {"inputs": [tensor(data, "BYTES", **changes)]}, data


def test_encoded_images_answer_what_each_answers_alone(client: Client, bundle: Bundle) -> None:
    files = [file_of(shade=10), file_of((20, 9), "JPEG", 200), file_of(shade=90)]
    head, data = batch(*files)
    found = decoded(bundle.manifest, head, data).inputs["input"]
    assert bundle.manifest.preprocess is not None
    assert np.array_equal(found, np.concatenate([decode_image(one, bundle.manifest.preprocess) for one in files]))
    body, headers = message(head, data)
    assert client.infer(content=body, headers=headers).json()["outputs"][0]["shape"] == [3, 10]


@pytest.mark.parametrize(
    ("head", "data", "slug"),
    [
        (*batch(file_of(), count=2), "malformed-request"),
        (*batch(file_of(), file_of(), count=1), "malformed-request"),
        (*batch(*[file_of()] * 9), "invalid-tensor"),
        (*batch(count=0), "invalid-tensor"),
        (*batch(file_of(), count=-1), "invalid-tensor"),
        (*batch(file_of(), count=10**4000), "invalid-tensor"),
        (*batch(file_of(), shape=[1, 1]), "invalid-tensor"),
        (*batch(file_of(), shape=[]), "invalid-tensor"),
        (*batch(b""), "malformed-request"),
        (*batch(b"no image"), "malformed-request"),
        (*batch(file_of()[:-30]), "malformed-request"),
        (*batch(file_of(kind="GIF")), "malformed-request"),
        ({"inputs": [tensor(b"", "BYTES", shape=[1], parameters=..., data=["AAAA"])]}, b"", "invalid-tensor"),
    ],
)
def test_bytes_that_are_no_batch_of_images_are_the_client_s_error(
    bundle: Bundle, head: Any, data: bytes, slug: str
) -> None:
    assert problem(bundle.manifest, head, data).slug == slug


def test_images_for_a_model_without_preprocessing_or_with_several_inputs_do_not_fit(bundle: Bundle) -> None:
    head, data = batch(file_of())
    silent = dataclasses.replace(bundle.manifest, preprocess=None)
    second = dataclasses.replace(bundle.manifest.inputs[0], name="second")
    several = dataclasses.replace(bundle.manifest, inputs=(*bundle.manifest.inputs, second))
    for manifest in (silent, several):
        assert problem(manifest, head, data).slug == "invalid-tensor"


def test_the_pixels_of_a_batch_are_counted_before_any_is_decoded(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.service.images.MAX_BATCH_PIXELS", 3 * 64)
    head, data = batch(*[file_of()] * 3)
    assert decoded(bundle.manifest, head, data).inputs["input"].shape == (3, 1, 8, 8)
    monkeypatch.setattr("wenet_runtime.service.images._prepared", lambda *given: pytest.fail("it was decoded"))
    head, data = batch(*[file_of()] * 4)
    assert problem(bundle.manifest, head, data).slug == "too-large"


@pytest.mark.parametrize(
    ("media", "body", "length", "quickly"),
    [
        (OCTETS, DATA, "0", True),
        (OCTETS, b'{"inputs": []}' + bytes(1 << 20), "14", True),
        (OCTETS, b'{"a": "BYTES"}' + bytes(1 << 20), "14", False),
        (OCTETS, b'{"a": "BYT\\u0045S"}', "19", False),
        (OCTETS, b"{}" + b"BYTES", "2", True),
        (OCTETS, DATA, "x", True),
        (OCTETS, DATA, None, True),
        ("application/json", b"{}", None, True),
        ("application/json", b" " * 70_000, None, False),
        ("application/json", b'{"image_b64": ""}', None, False),
        ("application/x-npy", bytes(1 << 20), None, True),
        ("image/png", file_of((8, 8)), None, True),
        ("image/png", file_of((600, 600)), None, False),
    ],
)
def test_what_takes_long_is_decoded_beside_the_event_loop(media: str, body: bytes, length: Any, quickly: bool) -> None:
    assert decodes_quickly(media, body, length) == quickly


PARTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SIZES = st.sampled_from([0, 1, 2, 8, 64, 255, 256, 257, 2**31, 2**63, -1]) | PARTS
HEADS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=5) | PARTS,
        "inputs": st.lists(
            st.fixed_dictionaries(
                {"name": st.sampled_from(["input", "other"]) | PARTS},
                optional={
                    "datatype": st.sampled_from(["FP32", "FP16", "BF16", "BYTES", "INT64"]) | PARTS,
                    "shape": st.sampled_from([[1, 1, 8, 8], [2, 1, 8, 8], [1], [2]]) | st.lists(SIZES, max_size=5),
                    "data": st.just([0.0] * 64) | PARTS,
                    "parameters": st.fixed_dictionaries({"binary_data_size": SIZES}) | PARTS,
                },
            )
            | PARTS,
            max_size=3,
        )
        | PARTS,
        "outputs": st.lists(st.fixed_dictionaries({"name": st.just("logits")}, optional={"parameters": PARTS})) | PARTS,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_output", "timeout", "wenet_mode"]), PARTS) | PARTS,
    },
)


def check_parsed(manifest: Manifest, media: str, body: bytes, length: Any) -> None:
    """Whether a parser keeps its promise: tensors that fit the model, or a problem of the client's."""
    try:
        found = decode(media, body, length, manifest)
    except Problem as refusal:
        assert PROBLEMS[refusal.slug][0] < 500 and len(refusal.detail) < 2000  # noqa: PT017, PT018 - valid ones are drawn
        return
    values = found.inputs["input"]
    assert (values.dtype, values.shape[1:]) == (np.float32, (1, 8, 8))
    assert 1 <= values.shape[0] <= manifest.max_batch


@examples()
@given(head=HEADS, data=st.sampled_from([b"", DATA, DATA * 2, framed(file_of())]) | st.binary(max_size=300))
def test_no_head_and_no_bytes_are_more_than_refused(bundle: Bundle, head: Any, data: bytes) -> None:
    text = json.dumps(head).encode()
    check_parsed(bundle.manifest, OCTETS, text + data, str(len(text)))


VALID = message({"inputs": [tensor(X)], "id": "1", "outputs": [{"name": "logits"}]}, DATA)[0]
HEAD = len(VALID) - len(DATA)
IMAGES_HEAD, IMAGES_DATA = batch(file_of(), file_of(kind="JPEG"))
IMAGES_VALID = json.dumps(IMAGES_HEAD).encode() + IMAGES_DATA


@examples()
@given(
    valid=st.sampled_from([(VALID, HEAD), (IMAGES_VALID, len(IMAGES_VALID) - len(IMAGES_DATA))]),
    at=st.integers(0, 2000),
    new=st.binary(max_size=12),
    cut=st.integers(0, 12),
    off=st.integers(-3, 3),
)
def test_no_damage_to_a_valid_message_is_more_than_refused(
    bundle: Bundle, valid: Tuple[bytes, int], at: int, new: bytes, cut: int, off: int
) -> None:
    body, length = valid
    at %= len(body)
    check_parsed(bundle.manifest, OCTETS, body[:at] + new + body[at + cut :], str(max(1, length + off)))


@examples()
@example(length="0\x1f", body=b"")  # a blank to Python, and none to HTTP
@given(length=st.text(max_size=24) | st.integers(-5, 2**70).map(str), body=st.binary(max_size=400))
def test_no_length_of_a_head_is_more_than_refused(bundle: Bundle, length: str, body: bytes) -> None:
    check_parsed(bundle.manifest, OCTETS, body, length)


@examples(0.2)
@given(
    files=st.lists(st.sampled_from([file_of(), file_of(kind="JPEG")]) | st.binary(max_size=60), max_size=10),
    count=st.integers(-1, 11),
)
def test_no_batch_of_images_is_more_than_refused(bundle: Bundle, files: Any, count: int) -> None:
    head, data = batch(*files, count=count)
    text = json.dumps(head).encode()
    check_parsed(bundle.manifest, OCTETS, text + data, str(len(text)))
