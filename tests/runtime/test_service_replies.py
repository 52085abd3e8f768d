"""Replies: the form that was asked for, the same numbers in each, labels best first."""

import io
import json
from typing import Any, Dict

import numpy as np
import pytest

from tests.runtime.fakes import Client, check_problem, ones, v2_body
from tests.supernets import images
from wenet_runtime.service.replies import top_k

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


def test_non_finite_outputs_are_null(held_client: Client, backend: Any) -> None:
    def run(mode_id: str, answer: Any, inputs: Any) -> Dict[str, Any]:
        return {"logits": np.full((1, 10), np.nan, np.float32)}

    backend.run = run
    assert held_client.infer().json()["outputs"][0]["data"] == [None] * 10
