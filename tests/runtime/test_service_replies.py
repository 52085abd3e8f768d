"""Replies: the form that was asked for, the same numbers in each, labels best first."""

import dataclasses
import io
import json
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
from starlette.requests import Request

from tests.runtime.fakes import Client, check_problem, ones, v2_body
from tests.supernets import images
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.replies import Wanted, encode, top_k, wanted_reply
from wenet_runtime.service.v2request import decode_v2

BINARY = "application/octet-stream"
NPY = "application/x-npy"


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/html, image/*", "application/json"),
        ("application/json", "application/json"),
        (NPY, NPY),
        ("Application/X-NPY;q=0.9", NPY),
        (f"text/html, {NPY}", NPY),
        (BINARY, BINARY),
        (",;,", "application/json"),
        (f"application/json;q=0, {NPY}", NPY),
        (f"application/json; q=0.2, {NPY} ; q = 0.7, {BINARY};q=0.70", NPY),
        (f"*/*;q=0.5, {NPY};q=0.4", "application/json"),
        (f"{NPY};q=0, text/html", "application/json"),
        ("application/*", "application/json"),
    ],
)
def test_the_reply_has_the_form_that_was_asked_for(client: Client, accept: str, media: str) -> None:
    response = client.infer(headers={"Accept": accept})
    assert (response.status_code, response.headers["content-type"]) == (200, media)


def test_every_form_holds_the_same_numbers(client: Client) -> None:
    body = v2_body(images(3))
    plain = client.infer(json=body)
    (output,) = plain.json()["outputs"]
    wanted = np.array(output["data"], np.float32).reshape(output["shape"])
    array = np.load(io.BytesIO(client.infer(json=body, headers={"Accept": NPY}).content), allow_pickle=False)
    assert (array.dtype, array.shape) == (np.float32, (3, 10))
    binary = client.infer(json=body, headers={"Accept": BINARY})
    length = int(binary.headers["inference-header-content-length"])
    (described,) = json.loads(binary.content[:length])["outputs"]
    assert described["parameters"]["binary_data_size"] == len(binary.content) - length == 120
    assert np.array_equal(array, wanted)
    assert np.array_equal(np.frombuffer(binary.content[length:], "<f4").reshape(3, 10), wanted)


def test_a_raw_tensor_may_be_answered_in_json_and_npy(client: Client) -> None:
    headers = {"Content-Type": BINARY, "Inference-Header-Content-Length": "0"}
    for accept in ("application/json", NPY):
        response = client.infer(content=ones().tobytes(), headers={**headers, "Accept": accept})
        assert (response.status_code, response.headers["content-type"]) == (200, accept)


@pytest.mark.parametrize(
    ("accept", "media"),
    [
        ([], BINARY),
        (["*/*"], BINARY),
        (["text/html, application/*;q=0.1"], BINARY),
        (["text/html"], "application/json"),
        (["image/png", NPY], NPY),
        (["text/html", "application/json"], "application/json"),
    ],
)
def test_a_raw_tensor_is_answered_in_binary_where_that_is_taken(client: Client, accept: List[str], media: str) -> None:
    fields = [("Content-Type", BINARY), ("Inference-Header-Content-Length", "0"), *(("Accept", one) for one in accept)]
    response = client.infer(content=ones().tobytes(), headers=fields)
    assert (response.status_code, response.headers["content-type"]) == (200, media)


def test_an_output_may_be_asked_for_by_name(client: Client) -> None:
    response = client.infer(json=v2_body(ones(), outputs=[{"name": "logits"}]))
    assert [one["name"] for one in response.json()["outputs"]] == ["logits"]


def test_no_id_gives_no_id(client: Client) -> None:
    assert "id" not in client.infer().json()


@pytest.mark.parametrize("count", [1, 3, 100])
def test_the_best_labels_come_first_with_their_shares(client: Client, count: int) -> None:
    body = client.infer(path=f"/infer?top_k={count}", json=v2_body(images(2))).json()
    rows = np.array(body["outputs"][0]["data"]).reshape(2, 10)
    shares = np.exp(rows) / np.exp(rows).sum(axis=1, keepdims=True)
    for row, best in enumerate(body["top_k"]):
        assert len(best) == min(count, 10)
        order = np.argsort(-rows[row])[:count]
        assert [one["index"] for one in best] == order.tolist()
        assert [one["label"] for one in best] == [str(index) for index in order]
        assert np.allclose([one["score"] for one in best], shares[row][order], atol=1e-5)


@pytest.mark.parametrize("text", ["0", "101", "-1", "x", "", "1.5", "%C2%B2", "%D9%A3", "9" * 5000, "1e1"])
def test_an_impossible_count_of_labels_is_refused(client: Client, text: str) -> None:
    check_problem(client.infer(path=f"/infer?top_k={text}"), "malformed-request", 400)


def test_labels_do_not_fit_an_array(client: Client) -> None:
    check_problem(client.infer(path="/infer?top_k=1", headers={"Accept": NPY}), "malformed-request", 400)


def test_labels_that_are_missing_are_numbers_and_scores_that_are_none_null() -> None:
    scores = np.array([[1.0, 3.0], [np.nan, 0.0]], np.float32)
    found: Any = top_k(scores, ("only",), 2)
    assert [one["label"] for one in found[0]] == ["1", "only"]
    assert {one["score"] for one in found[1]} == {None}


def reply(bundle: Bundle, values: Any, wanted: Wanted) -> Tuple[Any, Dict[str, str]]:
    """What `encode` makes of an answer, its JSON parsed."""
    content, fields = encode(
        dataclasses.make_dataclass("Answer", ["outputs", "mode_id"])({"logits": values}, "m0"),  # type: ignore[arg-type]
        wanted,
        bundle.manifest,
        {},
    )
    headers = dict(fields)
    length = int(headers.get(b"inference-header-content-length", len(content)))
    return json.loads(content[:length]), headers


def test_non_finite_outputs_are_null_in_json_and_themselves_in_binary(bundle: Bundle) -> None:
    values = np.array([[np.nan, np.inf, -np.inf, 1.5]], np.float32)
    members, _ = reply(bundle, values, Wanted("application/json", ("logits",), frozenset(), 2, None))
    assert members["outputs"][0]["data"] == [None, None, None, 1.5]
    assert [one["score"] for one in members["top_k"][0]] == [None, None]
    members, headers = reply(bundle, values, Wanted(BINARY, ("logits",), frozenset(("logits",)), 0, None))
    assert headers[b"content-type"] == BINARY.encode()
    assert members["outputs"][0]["parameters"] == {"binary_data_size": 16}


@pytest.mark.parametrize(
    ("asked", "accept", "binary"),
    [
        ({"parameters": {"binary_data_output": True}}, "", True),
        ({"parameters": {"binary_data_output": True}}, "application/json", True),
        ({"parameters": {"binary_data_output": True}}, NPY, True),
        ({"parameters": {"binary_data_output": False}}, BINARY, False),
        ({"parameters": {"binary_data_output": False}}, NPY, False),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": True}}]}, "application/json", True),
        ({"outputs": [{"name": "logits", "parameters": {"binary_data": False}}]}, BINARY, False),
        ({"outputs": [{"name": "logits", "parameters": {"classification": 3}}]}, BINARY, True),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "logits", "parameters": {"binary_data": False}}],
            },
            BINARY,
            False,
        ),
    ],
)
def test_v2_s_parameters_decide_the_form_before_accept(
    client: Client, asked: Dict[str, Any], accept: str, binary: bool
) -> None:
    response = client.infer(json=v2_body(ones(), **asked), headers={"Accept": accept})
    assert response.status_code == 200
    assert response.headers["content-type"] == (BINARY if binary else "application/json")
    assert ("inference-header-content-length" in response.headers) == binary


@pytest.mark.parametrize(
    "asked",
    [
        {"parameters": {"binary_data_output": 1}},
        {"parameters": {"binary_data_output": "true"}},
        {"outputs": [{"name": "logits", "parameters": {"binary_data": "yes"}}]},
        {"outputs": [{"name": "logits", "parameters": []}]},
    ],
)
def test_a_form_that_is_neither_true_nor_false_is_malformed(client: Client, asked: Dict[str, Any]) -> None:
    check_problem(client.infer(json=v2_body(ones(), **asked)), "malformed-request", 400)


def test_a_reply_may_mix_json_and_bytes_in_the_order_of_its_outputs(bundle: Bundle) -> None:
    logits = bundle.manifest.outputs[0]
    names = ("first", "logits", "last")
    specs = tuple(dataclasses.replace(logits, name=name) for name in names)
    manifest = dataclasses.replace(bundle.manifest, outputs=specs)
    outputs = [{"name": name} for name in names]
    outputs[1]["parameters"] = {"binary_data": False}  # type: ignore[assignment]
    body = v2_body(ones(), outputs=outputs, parameters={"binary_data_output": True})
    wanted = wanted_reply(
        Request({"type": "http", "headers": [], "query_string": b""}), manifest, decode_v2(body, manifest)
    )
    assert wanted.binary == {"first", "last"}
    values = {name: np.full((1, 2), number, np.float32) for number, name in enumerate(names)}
    answer = dataclasses.make_dataclass("Answer", ["outputs", "mode_id"])(values, "m0")
    content, fields = encode(answer, wanted, manifest, {})  # type: ignore[arg-type]
    length = int(dict(fields)[b"inference-header-content-length"])
    found = json.loads(content[:length])["outputs"]
    assert [one["name"] for one in found] == list(names)
    assert [one.get("data") for one in found] == [None, [1.0, 1.0], None]
    assert np.frombuffer(content[length:], "<f4").tolist() == [0.0, 0.0, 2.0, 2.0]
