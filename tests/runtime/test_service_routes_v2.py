"""Open Inference Protocol V2 over HTTP: metadata, inference on its paths, pinned modes, statistics."""

import base64
import io
from typing import Any, Dict

import pytest
from PIL import Image

from tests.runtime.fakes import Client, SettableBackend, check_problem, make_service, ones, v2_body
from wenet_runtime import __version__
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import create_app
from wenet_runtime.service.options import Defaults

MODEL = "/v2/models/tiny"


def test_the_server_says_what_it_speaks(held_client: Client) -> None:
    assert held_client.get("/v2").json() == {
        "name": "wenet-runtime",
        "version": __version__,
        "extensions": ["binary_tensor_data", "parameters", "schedule_policy", "statistics", "wenet_budget"],
    }


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/m1"])
def test_a_model_s_versions_are_its_modes(held_client: Client, path: str) -> None:
    assert held_client.get(path).json() == {
        "name": "tiny",
        "versions": ["m2", "m1", "m0"],
        "platform": "wenet_onnx",
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]}],
        "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 10]}],
    }


@pytest.mark.parametrize("what", ["", "/ready", "/stats", "/infer"])
def test_another_model_or_mode_is_unknown_on_every_path(held_client: Client, what: str) -> None:
    method = "POST" if what == "/infer" else "GET"
    model = held_client.request(method, "/v2/models/other" + what)
    assert "'tiny'" in check_problem(model, "unknown-model", 404)["detail"]
    mode = held_client.request(method, f"{MODEL}/versions/m9" + what)
    assert "m0, m1, m2" in check_problem(mode, "unknown-mode", 404)["detail"]


def test_an_unknown_model_is_refused_before_its_body_is_read(held_client: Client) -> None:
    check_problem(held_client.infer(path="/v2/models/other/infer", content=b"nonsense"), "unknown-model", 404)


def test_v2_s_path_answers_as_infer_does(client: Client) -> None:
    body = v2_body(ones(2), id="7")
    plain, v2 = client.infer(json=body).json(), client.infer(path=f"{MODEL}/infer", json=body).json()
    assert (v2["outputs"], v2["id"], v2["model_name"]) == (plain["outputs"], "7", "tiny")


@pytest.mark.parametrize("mode", ["m0", "m1", "m2"])
def test_a_version_in_the_path_pins_that_mode(client: Client, mode: str) -> None:
    response = client.infer(path=f"{MODEL}/versions/{mode}/infer", headers={"WeNet-Mode": mode})
    assert (response.headers["wenet-mode"], response.headers["wenet-mode-reason"]) == (mode, "pinned")
    assert response.json()["model_version"] == mode


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"WeNet-Mode": "m1"}},
        {"json": v2_body(ones(), parameters={"wenet_mode": "m1"})},
    ],
)
def test_a_pin_that_differs_from_the_path_s_contradicts_it(client: Client, how: Dict[str, Any]) -> None:
    check_problem(client.infer(path=f"{MODEL}/versions/m0/infer", **how), "conflicting-options", 422)


def test_the_path_s_pin_goes_before_the_daemon_s(bundle: Bundle, backend: SettableBackend) -> None:
    service = make_service(bundle, backend, defaults=Defaults(mode="m2"))
    client = Client(create_app(service))
    assert client.infer(path=f"{MODEL}/infer").headers["wenet-mode"] == "m2"
    assert client.infer(path=f"{MODEL}/versions/m0/infer").headers["wenet-mode"] == "m0"
    service.runtime.close()


def test_images_in_base64_are_not_v2(client: Client) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "PNG")
    body = {"image_b64": base64.b64encode(file.getvalue()).decode()}
    assert client.infer(json=body).status_code == 200
    check_problem(client.infer(path=f"{MODEL}/infer", json=body), "malformed-request", 400)


@pytest.mark.parametrize("path", ["config", "versions/m0/config", "trace/setting", "../repository/index"])
def test_what_v2_has_and_this_server_not_is_not_found(held_client: Client, path: str) -> None:
    check_problem(held_client.get(f"{MODEL}/{path}"), "not-found", 404)


def stats(client: Client, path: str = MODEL) -> Dict[str, Any]:
    """Entries by mode."""
    return {one["version"]: one for one in client.get(f"{path}/stats").json()["model_stats"]}


def test_statistics_count_by_mode_what_was_answered_and_what_failed(held_client: Client) -> None:
    for _ in range(3):
        held_client.infer(json=v2_body(ones(2)), headers={"WeNet-Mode": "m1"})
    impossible = {"WeNet-Mode": "m2", "WeNet-Budget-Ms": "1", "WeNet-On-Miss": "reject"}
    check_problem(held_client.infer(headers=impossible), "budget-impossible", 422)
    found = stats(held_client)
    assert list(found) == ["m2", "m1", "m0"]
    one = found["m1"]
    assert (one["name"], one["inference_count"], one["execution_count"]) == ("tiny", 6, 3)
    assert one["inference_stats"]["success"]["count"] == 3
    assert one["inference_stats"]["success"]["ns"] > 0
    assert [batch["batch_size"] for batch in one["batch_stats"]] == [2]
    assert found["m2"]["inference_stats"]["fail"]["count"] == 1
    assert found["m0"]["last_inference"] == 0


def test_names_that_no_mode_has_are_not_counted_for_ever(held_client: Client) -> None:
    for number in range(20):
        headers = {"WeNet-Mode": f"made-up-{number}"}
        check_problem(held_client.infer(headers=headers), "unknown-mode", 404)
    assert held_client.service is not None
    assert set(held_client.service.active.statistics._modes) <= {"m0", "m1", "m2"}


def test_statistics_are_told_of_all_a_model_or_one_mode(held_client: Client) -> None:
    assert list(stats(held_client, "/v2/models")) == ["m2", "m1", "m0"]
    assert list(stats(held_client, f"{MODEL}/versions/m1")) == ["m1"]


def test_an_answer_that_came_too_late_is_its_mode_s_failure(
    held_client: Client, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.service.inference._must_be_timely", lambda *arguments: True)
    response = held_client.infer(headers={"WeNet-Mode": "m0", "WeNet-Budget-Ms": "60000"})
    check_problem(response, "deadline-exceeded", 504)
    counts = stats(held_client)["m0"]["inference_stats"]
    assert (counts["success"]["count"], counts["fail"]["count"]) == (0, 1)
