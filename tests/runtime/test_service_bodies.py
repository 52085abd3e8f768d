"""Bodies: every format says the same, and whatever is wrong with one is the client's error, said clearly."""

import base64
import dataclasses
import io
import json
import warnings
from typing import Any, AsyncIterator, Dict, List

import httpx
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.runtime.fakes import Client, check_problem, ones, v2_body
from tests.runtime.fuzzing import examples
from tests.supernets import images, run
from wenet_runtime.bundle import Bundle
from wenet_runtime.materialize import Supernet, materialize
from wenet_runtime.service.bodies import decode
from wenet_runtime.service.problems import PROBLEMS, Problem

NPY = {"Content-Type": "application/x-npy"}
JSON = {"Content-Type": "application/json"}
RAW = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": "0"}
PNG = {"Content-Type": "image/png"}
JPEG = {"Content-Type": "image/jpeg"}


def npy(values: Any, **how: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, **how)
    return file.getvalue()


def npy_header(text: str) -> bytes:
    """A .npy head that says anything, followed by 256 bytes of numbers."""
    padded = text.encode("latin-1") + b"\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded + bytes(256)


def image_file(pixels: Any, kind: str = "PNG", **how: Any) -> bytes:
    file = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(file, kind, **how)
    return file.getvalue()


GREY = np.random.default_rng(0).integers(0, 256, (8, 8)).astype(np.uint8)


def prepared(pixels: Any = GREY) -> Any:
    """What the test bundle says an 8×8 grey image becomes: mean 0.5, standard deviation 0.25."""
    return ((pixels.astype(np.float32) / 255 - 0.5) / 0.25)[None, None]


@pytest.fixture(scope="module")
def session_run(bundle: Bundle) -> Any:
    """The answers of a mode's own model, by mode."""
    supernet = Supernet.of(bundle)
    models = {mode.id: materialize(supernet, mode.groups, bundle.statistics(mode)) for mode in bundle.modes}
    return lambda mode_id, x: run(models[mode_id], np.ascontiguousarray(x))


def logits(response: httpx.Response) -> Any:
    """The numbers of a JSON answer."""
    assert response.status_code == 200, response.text
    (output,) = response.json()["outputs"]
    assert (output["name"], output["datatype"]) == ("logits", "FP32")
    return np.array(output["data"], np.float32).reshape(output["shape"])


def still_serves(client: Client) -> bool:
    return client.infer().status_code == 200


@pytest.mark.parametrize("mode", ["m0", "m1", "m2"])
@pytest.mark.parametrize("rows", [1, 5])
def test_json_and_npy_answer_what_the_mode_s_model_answers(
    client: Client, session_run: Any, mode: str, rows: int
) -> None:
    x = images(rows)
    wanted = session_run(mode, x)
    pin = {"WeNet-Mode": mode}
    flat = client.infer(json=v2_body(x), headers=pin)
    nested_body = v2_body(x)
    nested_body["inputs"][0]["data"] = x.tolist()
    nested = client.infer(json=nested_body, headers=pin)
    for response in (flat, nested, client.infer(content=npy(x), headers={**NPY, **pin})):
        assert np.allclose(logits(response), wanted, atol=1e-5)
        assert response.headers["wenet-mode"] == mode


def test_npy_2_0_and_a_media_type_with_parameters_are_taken(client: Client, session_run: Any) -> None:
    x = images(1)
    headers = {"Content-Type": "Application/X-NPY; charset=binary"}
    response = client.infer(content=npy(x, version=(2, 0)), headers=headers)
    assert np.allclose(logits(response), session_run("m2", x), atol=1e-5)


def test_a_raw_tensor_is_answered_in_binary(client: Client, session_run: Any) -> None:
    x = images(1)
    response = client.infer(content=x.tobytes(), headers=RAW)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/octet-stream"
    length = int(response.headers["inference-header-content-length"])
    head = json.loads(response.content[:length])
    assert head["outputs"] == [
        {"name": "logits", "datatype": "FP32", "shape": [1, 10], "parameters": {"binary_data_size": 40}}
    ]
    assert np.allclose(np.frombuffer(response.content[length:], "<f4"), session_run("m2", x)[0], atol=1e-5)


def test_a_body_without_a_media_type_is_json_or_a_raw_tensor(client: Client) -> None:
    assert logits(client.infer(content=json.dumps(v2_body(ones())).encode())).shape == (1, 10)
    length = {"Inference-Header-Content-Length": "0"}
    response = client.infer(content=ones().tobytes(), headers={**length, "Accept": "application/json"})
    assert logits(response).shape == (1, 10)


def test_png_and_base64_answer_what_their_pixels_answer(client: Client, session_run: Any) -> None:
    wanted = session_run("m2", prepared())
    file = image_file(GREY)
    assert np.allclose(logits(client.infer(content=file, headers=PNG)), wanted, atol=1e-5)
    body = {"image_b64": base64.b64encode(file).decode()}
    assert np.allclose(logits(client.infer(json=body)), wanted, atol=1e-5)


def test_a_base64_image_s_own_parameters_and_id_count(client: Client) -> None:
    body = {"image_b64": base64.b64encode(image_file(GREY)).decode(), "id": "7", "parameters": {"wenet_mode": "m0"}}
    answer = client.infer(json=body).json()
    assert (answer["id"], answer["model_version"]) == ("7", "m0")


def test_a_base64_image_s_outputs_and_their_form_count(client: Client) -> None:
    body = {"image_b64": base64.b64encode(image_file(GREY)).decode()}
    response = client.infer(json={**body, "parameters": {"binary_data_output": True}})
    assert response.headers["content-type"] == "application/octet-stream"
    check_problem(client.infer(json={**body, "outputs": [{"name": "nope"}]}), "invalid-tensor", 422)


def test_jpeg_answers_what_its_decoded_pixels_answer(client: Client, session_run: Any) -> None:
    file = image_file(GREY, "JPEG", quality=95)
    pixels = np.asarray(Image.open(io.BytesIO(file)))
    assert np.allclose(logits(client.infer(content=file, headers=JPEG)), session_run("m2", prepared(pixels)), atol=1e-5)


WRONG_JSON = [
    (b"", "malformed-request"),
    (b"{", "malformed-request"),
    (b"\xff\xfe\xfa", "malformed-request"),
    (b"nonsense", "malformed-request"),
    (b"[]", "malformed-request"),
    (b"3", "malformed-request"),
    (b"null", "malformed-request"),
    (b"{}", "malformed-request"),
    (b'{"inputs": []}', "malformed-request"),
    (b'{"inputs": {}}', "malformed-request"),
    (b'{"inputs": [3]}', "malformed-request"),
    (b'{"inputs": [{}]}', "malformed-request"),
    (b'{"inputs": [{"name": 5}]}', "malformed-request"),
    (b'{"image_b64": 5}', "malformed-request"),
    (b'{"image_b64": "!!!"}', "malformed-request"),
    (b'{"image_b64": "\xc3\xa9"}', "malformed-request"),
    (b'{"image_b64": ""}', "malformed-request"),
    (b'{"a": NaN}', "malformed-request"),
    (b'{"a": Infinity}', "malformed-request"),
    (b'{"a": -Infinity}', "malformed-request"),
    (b'{"a": ' + b"9" * 5000 + b"}", "malformed-request"),
    (b"[" * 33 + b"]" * 33, "malformed-request"),
    (b"[" * 100_000, "malformed-request"),
    (b'{"a":' * 1000, "malformed-request"),
]


@pytest.mark.parametrize(("body", "slug"), WRONG_JSON)
def test_json_that_is_none_or_says_nothing_is_malformed(client: Client, body: bytes, slug: str) -> None:
    check_problem(client.infer(content=body, headers=JSON), slug, 400)
    assert still_serves(client)


def tensor(**changes: Any) -> Dict[str, Any]:
    """One valid input with members replaced, or removed (...)."""
    one = {**v2_body(ones())["inputs"][0], **changes}
    return {name: value for name, value in one.items() if value is not ...}


@pytest.mark.parametrize(
    ("inputs", "slug", "status"),
    [
        ([tensor(name="other")], "invalid-tensor", 422),
        ([tensor(), tensor()], "invalid-tensor", 422),
        ([tensor(datatype="FP64")], "invalid-tensor", 422),
        ([tensor(datatype="BYTES")], "invalid-tensor", 422),
        ([tensor(datatype=...)], "invalid-tensor", 422),
        ([tensor(shape=...)], "malformed-request", 400),
        ([tensor(shape="1")], "malformed-request", 400),
        ([tensor(shape=[1, 1, 8, "8"])], "malformed-request", 400),
        ([tensor(shape=[1.0, 1, 8, 8])], "malformed-request", 400),
        ([tensor(shape=[True, 1, 8, 8])], "malformed-request", 400),
        ([tensor(shape=[1, 1, 8, 9])], "invalid-tensor", 422),
        ([tensor(shape=[64])], "invalid-tensor", 422),
        ([tensor(shape=[])], "invalid-tensor", 422),
        ([tensor(shape=[0, 1, 8, 8], data=[])], "invalid-tensor", 422),
        ([tensor(shape=[-1, 1, 8, 8])], "invalid-tensor", 422),
        ([tensor(shape=[9, 1, 8, 8], data=[0.0] * 576)], "invalid-tensor", 422),
        ([tensor(shape=[2**63, 1, 8, 8])], "invalid-tensor", 422),
        ([tensor(shape=[10**400, 2**64, 2**64, 2**64])], "invalid-tensor", 422),
        ([tensor(shape=[1] * 10_000)], "invalid-tensor", 422),
        ([tensor(data=...)], "malformed-request", 400),
        ([tensor(data="AAAA")], "malformed-request", 400),
        ([tensor(data=[0.0] * 63)], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 65)], "invalid-tensor", 422),
        ([tensor(data=[])], "invalid-tensor", 422),
        ([tensor(data=[[0.0] * 32, [0.0] * 31, [0.0]])], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + [[0.0]])], "invalid-tensor", 422),
        ([tensor(data=["0"] * 64)], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + ["0"])], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + [None])], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + [True])], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + [{}])], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + [10**400])], "invalid-tensor", 422),
        ([tensor(data=[0.0] * 63 + [1e39])], "invalid-tensor", 422),
    ],
)
def test_a_tensor_that_does_not_fit_is_the_client_s_error(
    client: Client, inputs: List[Any], slug: str, status: int
) -> None:
    check_problem(client.infer(content=json.dumps({"inputs": inputs}).encode(), headers=JSON), slug, status)
    assert still_serves(client)


def test_a_number_beyond_every_float_is_refused(client: Client) -> None:
    body = json.dumps({"inputs": [tensor(data=[0.0] * 64)]}).replace("0.0]", "1e999]").encode()
    check_problem(client.infer(content=body, headers=JSON), "invalid-tensor", 422)


@pytest.mark.parametrize(
    ("members", "slug", "status"),
    [
        ({"id": 5}, "malformed-request", 400),
        ({"parameters": []}, "malformed-request", 400),
        ({"outputs": "logits"}, "malformed-request", 400),
        ({"outputs": ["logits"]}, "malformed-request", 400),
        ({"outputs": [{"name": "other"}]}, "invalid-tensor", 422),
        ({"outputs": [{}]}, "invalid-tensor", 422),
        ({"outputs": [{"name": []}]}, "invalid-tensor", 422),
        ({"outputs": [{"name": "logits"}, {"name": "logits"}]}, "invalid-tensor", 422),
    ],
)
def test_a_request_s_other_members_are_checked_too(
    client: Client, members: Dict[str, Any], slug: str, status: int
) -> None:
    check_problem(client.infer(json=v2_body(ones(), **members)), slug, status)


def test_strings_of_any_length_among_the_numbers_cost_nothing(client: Client) -> None:
    data: List[Any] = ["x" * 2_000_000] + ["y"] * 20_000  # as one NumPy array of strings: 160 GB
    check_problem(client.infer(json={"inputs": [tensor(data=data)]}), "invalid-tensor", 422)


@pytest.mark.parametrize("text", [b'"' + b'\\"' * 500_000, b'"' + b"\\" * 1_000_001, b'["' * 1000 + b'\\"' * 500_000])
def test_unending_strings_are_refused_in_linear_time(client: Client, text: bytes) -> None:
    check_problem(client.infer(content=text, headers=JSON), "malformed-request", 400)


def test_brackets_inside_strings_are_not_depth(client: Client) -> None:
    request_id = "[{" * 50 + '\\"[' * 50 + "\\\\"
    body = json.dumps(v2_body(ones(), id=request_id)).encode()
    assert client.infer(content=body, headers=JSON).json()["id"] == request_id


def test_nesting_to_the_limit_is_taken(client: Client) -> None:
    inner: Any = 0
    for _ in range(30):
        inner = [inner]
    assert client.infer(json=v2_body(ones(), parameters={"other": inner})).status_code == 200
    check_problem(client.infer(json=v2_body(ones(), parameters={"other": [inner]})), "malformed-request", 400)


@pytest.mark.parametrize("name", ["id", "name"])
def test_half_a_surrogate_pair_breaks_nothing(client: Client, name: str) -> None:
    body = v2_body(ones(), id="\ud800") if name == "id" else {"inputs": [tensor(name="\ud800")]}
    response = client.infer(content=json.dumps(body).encode(), headers=JSON)
    assert response.status_code == (200 if name == "id" else 422)
    if name == "id":
        assert json.loads(response.content)["id"] == "\ud800"


@pytest.mark.parametrize(
    ("body", "slug", "status"),
    [
        (b"", "malformed-request", 400),
        (b"not npy", "malformed-request", 400),
        (b"PK\x03\x04 an .npz", "unsupported-media", 415),
        (b"\x93NUMPY\x03\x00", "malformed-request", 400),
        (b"\x93NUMPY\x01\x00", "malformed-request", 400),
        (npy(ones())[:-1], "malformed-request", 400),
        (npy(ones()) + b"x", "malformed-request", 400),
        (npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 8, 8)"), "malformed-request", 400),
        (npy_header("__import__('os').getcwd()"), "malformed-request", 400),
        (npy_header("(" * 3000), "malformed-request", 400),
        (npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 8, 8), }" + " " * 11_000), None, 400),
        (npy(ones().astype(np.float64)), "invalid-tensor", 422),
        (npy(ones().astype(">f4")), "invalid-tensor", 422),
        (npy(np.asfortranarray(images(2))), "invalid-tensor", 422),
        (npy(np.zeros((1, 1, 8, 9), np.float32)), "invalid-tensor", 422),
        (npy(np.zeros((9, 1, 8, 8), np.float32)), "invalid-tensor", 422),
        (npy(np.zeros((0, 1, 8, 8), np.float32)), "invalid-tensor", 422),
        (npy(np.array([[[[None] * 8] * 8]]), allow_pickle=True), "invalid-tensor", 422),
        (npy(np.zeros((1, 1, 8, 8), [("a", "<f4")])), "invalid-tensor", 422),
        (npy_header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 1, 8, 8), }"), "invalid-tensor", 422),
        (npy_header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({2**62}, 1, 8, 8), }}"), None, 422),
    ],
)
def test_a_npy_that_is_none_or_does_not_fit_is_the_client_s_error(
    client: Client, body: bytes, slug: Any, status: int
) -> None:
    expected = slug or {400: "malformed-request", 422: "invalid-tensor"}[status]
    check_problem(client.infer(content=body, headers=NPY), expected, status)
    assert still_serves(client)


@pytest.mark.parametrize("size", [0, 1, 255, 257, 512])
def test_a_raw_tensor_of_another_length_is_refused_with_both_lengths(client: Client, size: int) -> None:
    members = check_problem(client.infer(content=bytes(size), headers=RAW), "malformed-request", 400)
    assert f"{size} bytes" in members["detail"]
    assert "has 256" in members["detail"]


@pytest.mark.parametrize("length", ["-1", "x", "", "1.5", "0x10", "9" * 30])
def test_a_header_length_that_is_no_number_is_malformed(client: Client, length: str) -> None:
    headers = {**RAW, "Inference-Header-Content-Length": length}
    check_problem(client.infer(content=b"", headers=headers), "malformed-request", 400)


def test_octets_that_do_not_say_what_they_are_are_malformed(client: Client) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    check_problem(client.infer(content=ones().tobytes(), headers=headers), "malformed-request", 400)


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "image/gif"},
        {"Content-Type": "application/x-npz"},
        {"Content-Type": "multipart/form-data; boundary=x"},
        {"Content-Type": ""},
        {"Content-Type": "application/json", "Content-Encoding": "gzip"},
        {"Content-Type": "application/json", "Content-Encoding": "br"},
    ],
)
def test_other_media_and_encodings_are_unsupported(client: Client, headers: Dict[str, str]) -> None:
    check_problem(client.infer(content=b"{}", headers=headers), "unsupported-media", 415)
    assert still_serves(client)


def test_the_identity_encoding_is_none(client: Client) -> None:
    headers = {**JSON, "Content-Encoding": "Identity"}
    assert client.infer(content=json.dumps(v2_body(ones())).encode(), headers=headers).status_code == 200


def test_images_for_a_model_that_does_not_say_how_are_unsupported(bundle: Bundle) -> None:
    silent = dataclasses.replace(bundle.manifest, preprocess=None)
    with pytest.raises(Problem) as caught:
        decode("image/png", image_file(GREY), None, silent)
    assert caught.value.slug == "unsupported-media"


@pytest.mark.parametrize("media", ["image/png", "application/x-npy", "application/octet-stream"])
def test_a_model_of_several_inputs_takes_v2_alone(bundle: Bundle, media: str) -> None:
    second = dataclasses.replace(bundle.manifest.inputs[0], name="second")
    manifest = dataclasses.replace(bundle.manifest, inputs=(*bundle.manifest.inputs, second))
    with pytest.raises(Problem) as caught:
        decode(media, b"", "0", manifest)
    assert caught.value.slug == "unsupported-media"
    both = {"inputs": [tensor(), tensor(name="second")]}
    assert set(decode("application/json", json.dumps(both).encode(), None, manifest).inputs) == {"input", "second"}
    for inputs, said in (
        ([tensor()], "'second' is missing"),
        ([tensor(), tensor(name="second", shape=[2, 1, 8, 8], data=[0] * 128)], "batches differ"),
    ):
        with pytest.raises(Problem, match=said) as caught:
            decode("application/json", json.dumps({"inputs": inputs}).encode(), None, manifest)
        assert caught.value.slug == "invalid-tensor"


@pytest.mark.parametrize("value", [0.5, 2**70, -(2**70)])
def test_whole_number_inputs_take_only_numbers_that_fit(bundle: Bundle, value: Any) -> None:
    spec = dataclasses.replace(bundle.manifest.inputs[0], datatype="UINT8")
    manifest = dataclasses.replace(bundle.manifest, inputs=(spec,))
    for bad in (value, 256, -1):
        body = json.dumps({"inputs": [tensor(datatype="UINT8", data=[0] * 63 + [bad])]}).encode()
        with pytest.raises(Problem) as caught:
            decode("application/json", body, None, manifest)
        assert caught.value.slug == "invalid-tensor"
    good = json.dumps({"inputs": [tensor(datatype="UINT8", data=[255] * 64)]}).encode()
    assert decode("application/json", good, None, manifest).inputs["input"].dtype == np.uint8


LIMIT = 16 << 20


async def chunks(size: int, taken: List[int]) -> AsyncIterator[bytes]:
    for _ in range(size // 65_536):
        taken.append(65_536)
        yield bytes(65_536)


def test_a_declared_body_over_the_limit_is_refused_unread(client: Client) -> None:
    response = client.infer(content=b"x", headers={**JSON, "Content-Length": str(LIMIT + 1)})
    check_problem(response, "too-large", 413)
    assert response.headers["connection"] == "close"


def test_a_streamed_body_over_the_limit_is_refused_without_taking_the_rest(client: Client) -> None:
    taken: List[int] = []
    check_problem(client.infer(content=chunks(4 * LIMIT, taken), headers=JSON), "too-large", 413)
    assert LIMIT < sum(taken) <= LIMIT + 2 * 65_536
    assert still_serves(client)


def test_a_body_of_exactly_the_limit_is_read(client: Client) -> None:
    body = json.dumps(v2_body(ones())).encode()
    response = client.infer(content=body + b" " * (LIMIT - len(body)), headers=JSON)
    assert response.status_code == 200


@pytest.mark.parametrize("length", ["²", "-1", "x", "9" * 6000])
def test_a_content_length_that_is_no_number_is_the_client_s_error(client: Client, length: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", length.encode("latin-1"))]
    assert client.infer(content=b"{}", headers=headers).status_code in (400, 413)


VALID = {
    "application/json": json.dumps(v2_body(ones())).encode(),
    "application/x-npy": npy(ones()),
    "application/octet-stream": ones().tobytes(),
    "image/png": image_file(GREY),
    "image/jpeg": image_file(GREY, "JPEG"),
}


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(media=st.sampled_from(sorted(VALID)), data=st.data())
def test_no_body_is_the_server_s_fault(client: Client, media: str, data: st.DataObject) -> None:
    valid = VALID[media]
    kind = data.draw(st.sampled_from(["changed", "cut", "random", "spliced"]))
    if kind == "changed":
        body = bytearray(valid)
        for _ in range(data.draw(st.integers(1, 8))):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    elif kind == "cut":
        body = bytearray(valid[: data.draw(st.integers(0, len(valid)))])
    elif kind == "random":
        body = bytearray(data.draw(st.binary(max_size=200)))
    else:
        at = data.draw(st.integers(0, len(valid)))
        body = bytearray(valid[:at] + data.draw(st.binary(max_size=50)) + valid[at:])
    headers = {"Content-Type": media}
    if media == "application/octet-stream":
        headers["Inference-Header-Content-Length"] = "0"
    response = client.infer(content=bytes(body), headers=headers)
    assert response.status_code < 500, response.text


NPY_HEADS = [
    "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 1, 8, 8), }",
    "{'descr': '<f4', 'fortran_order': True, 'shape': (1, 1, 8, 8), }",
    "{'descr': '|O', 'fortran_order': False, 'shape': (9999999999, True), }",
]


@examples()
@given(
    head=st.sampled_from(NPY_HEADS),
    at=st.integers(0, 90),
    new=st.text(max_size=6),
    cut=st.integers(0, 6),
    data=st.binary(max_size=300),
)
def test_no_npy_is_more_than_refused(bundle: Bundle, head: str, at: int, new: str, cut: int, data: bytes) -> None:
    text = (head[:at] + new + head[at + cut :]).encode("latin-1", "replace")
    body = b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + (data or bytes(256))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python about what such a header says
        try:
            values = decode("application/x-npy", body, None, bundle.manifest).inputs["input"]
        except Problem as problem:
            assert PROBLEMS[problem.slug][0] < 500  # noqa: PT017 - valid ones are drawn, too
            return
    assert (values.dtype, values.shape) == (np.float32, (1, 1, 8, 8))


JSON_TEXTS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["inputs", "image_b64", "a"]), inner),
    max_leaves=12,
)


@examples()
@given(members=JSON_TEXTS, at=st.integers(0, 60), new=st.binary(max_size=5))
def test_no_json_is_more_than_refused(bundle: Bundle, members: Any, at: int, new: bytes) -> None:
    text = json.dumps(members).encode()
    with pytest.raises(Problem) as caught:  # none of these is a whole request
        decode("application/json", text[:at] + new + text[at:], None, bundle.manifest)
    assert PROBLEMS[caught.value.slug][0] < 500


def test_after_all_that_it_still_serves(client: Client) -> None:
    assert still_serves(client)
