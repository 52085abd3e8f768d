"""An unmodified `tritonclient[http]` against the daemon as a process of its own: it needs to know nothing of WeNet."""

import io
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.supernets import images, write_test_bundle
from wenet_runtime.service.metadata import EXTENSIONS

http = pytest.importorskip(
    "tritonclient.http", reason="tritonclient[http] is not installed: `pip install -e '.[test]'`"
)
TritonError = pytest.importorskip("tritonclient.utils").InferenceServerException

ROOT = Path(__file__).resolve().parents[2]
START_S = 60.0


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a daemon that serves the test bundle."""
    folder = tmp_path_factory.mktemp("triton")
    write_test_bundle(folder / "bundle")
    log = folder / "daemon.log"
    command = [sys.executable, "-m", "wenet_runtime.cli", "--bundle", str(folder / "bundle"), "--port", "0"]
    command += ["--cache-dir", str(folder / "cache"), "--profile-rounds", "20", "--meter", "none"]
    with log.open("wb") as file:
        process = subprocess.Popen(command, stderr=file, cwd=ROOT)
    try:
        yield port_of(process, log)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
        process.wait()


def port_of(process: "subprocess.Popen[bytes]", log: Path) -> int:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        found = re.search(r"serving .*:(\d+) ", log.read_text())
        if found:
            return int(found.group(1))
        time.sleep(0.05)
    raise AssertionError(log.read_text())


@pytest.fixture
def client(port: int) -> Iterator[Any]:
    with http.InferenceServerClient(f"127.0.0.1:{port}") as one:
        yield one


def given(values: Any, datatype: str = "FP32", *, binary: bool = True) -> Any:
    one = http.InferInput("input", list(values.shape), datatype)
    one.set_data_from_numpy(values, binary_data=binary)
    return one


def encoded(pixels: Any, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


def test_it_lives_and_is_ready(client: Any) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "m0")
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("tiny", "m9")


def test_it_says_what_it_is_and_what_the_model_takes(client: Any) -> None:
    assert client.get_server_metadata()["extensions"] == list(EXTENSIONS)
    for version in ("", "m1"):
        found = client.get_model_metadata("tiny", version)
        assert found["versions"] == ["m2", "m1", "m0"]
        assert found["inputs"] == [{"name": "input", "datatype": "FP32", "shape": [-1, 1, 8, 8]}]


@pytest.mark.parametrize("rows", [1, 3])
def test_json_and_bytes_answer_the_same_in_either_form(client: Any, rows: int) -> None:
    x = images(rows)
    found = []
    for binary in (True, False):
        for asked in (None, [http.InferRequestedOutput("logits", binary_data=False)]):
            found.append(client.infer("tiny", [given(x, binary=binary)], outputs=asked).as_numpy("logits"))
    assert found[0].shape == (rows, 10)
    assert found[0].dtype == np.float32
    for other in found[1:]:
        assert np.allclose(found[0], other, atol=1e-6)


def test_a_version_is_a_mode_and_each_answers_for_itself(client: Any) -> None:
    x = images(1)
    answers = {}
    for mode in ("m0", "m1", "m2"):
        result = client.infer("tiny", [given(x)], model_version=mode, request_id=f"r-{mode}")
        said = result.get_response()
        assert (said["model_name"], said["model_version"], said["id"]) == ("tiny", mode, f"r-{mode}")
        answers[mode] = result.as_numpy("logits")
    assert not np.allclose(answers["m0"], answers["m2"])


def test_half_floats_are_answered_as_what_they_are(client: Any) -> None:
    half = images(1).astype(np.float16)
    wanted = client.infer("tiny", [given(half.astype(np.float32))]).as_numpy("logits")
    assert np.array_equal(client.infer("tiny", [given(half, "FP16")]).as_numpy("logits"), wanted)


def test_encoded_images_go_as_bytes(client: Any) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (8, 8)).astype(np.uint8)
    files = np.array([encoded(pixels, "PNG"), encoded(pixels, "JPEG")], dtype=object)
    found = client.infer("tiny", [given(files, "BYTES")]).as_numpy("logits")
    prepared = ((pixels.astype(np.float32) / 255 - 0.5) / 0.25)[None, None]
    wanted = client.infer("tiny", [given(prepared)]).as_numpy("logits")
    assert found.shape == (2, 10)
    assert np.allclose(found[0], wanted[0], atol=1e-5)


def test_headers_and_parameters_carry_the_budget(client: Any) -> None:
    x = given(images(1))
    by_header = client.infer("tiny", [x], headers={"WeNet-Budget-Ms": "5000"}).get_response()["parameters"]
    by_parameter = client.infer("tiny", [x], parameters={"wenet_budget_ms": 5000.0}).get_response()["parameters"]
    by_timeout = client.infer("tiny", [x], timeout=5_000_000, priority=1).get_response()["parameters"]
    for said in (by_header, by_parameter, by_timeout):
        assert said["wenet_budget_met"] is True
        assert said["wenet_latency_ms"] > 0
    pinned = client.infer("tiny", [x], parameters={"wenet_mode": "m0"}).get_response()
    assert pinned["model_version"] == "m0"


def test_the_best_labels_can_be_asked_for(client: Any) -> None:
    result = client.infer("tiny", [given(images(2))], query_params={"top_k": 3})
    best = result.get_response()["top_k"]
    assert [row[0]["index"] for row in best] == result.as_numpy("logits").argmax(axis=1).tolist()


def test_several_requests_may_be_under_way(port: int) -> None:
    with http.InferenceServerClient(f"127.0.0.1:{port}", concurrency=4) as client:
        x = images(1)
        waiting = [client.async_infer("tiny", [given(x)], model_version="m1") for _ in range(12)]
        found = [one.get_result().as_numpy("logits") for one in waiting]
    assert all(np.array_equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ({"model_name": "other"}, "404", "no model 'other'"),
        ({"model_version": "m9"}, "404", "no mode 'm9'"),
        ({"headers": {"WeNet-Budget-Ms": "0.001"}}, "422", "0.001"),
        ({"timeout": 1}, "422", "0.001"),
        ({"headers": {"WeNet-Budget-Ms": "soon"}}, "400", "give a decimal number"),
        ({"parameters": {"wenet_colour": "red"}}, "400", "unknown parameter"),
        ({"model_version": "m0", "headers": {"WeNet-Mode": "m1"}}, "422", "pin one"),
        ({"inputs": [given(images(9))]}, "422", "at most 8"),
        ({"request_compression_algorithm": "gzip"}, "415", "Content-Encoding"),
    ],
)
def test_an_error_reaches_its_user_in_words(client: Any, how: dict[str, Any], status: str, said: str) -> None:
    with pytest.raises(TritonError) as caught:
        client.infer(**{"model_name": "tiny", "inputs": [given(images(1))], **how})
    assert caught.value.status() == status
    assert said in caught.value.message()


def test_what_the_server_does_not_have_is_said_to_be_missing(client: Any) -> None:
    for ask in (
        lambda: client.get_model_config("tiny"),
        client.get_model_repository_index,
        client.get_system_shared_memory_status,
        client.get_log_settings,
    ):
        with pytest.raises(TritonError) as caught:
            ask()
        assert caught.value.status() == "404"


def test_statistics_have_the_shape_that_the_client_knows(client: Any) -> None:
    before = count(client)
    for _ in range(3):
        client.infer("tiny", [given(images(2))], model_version="m1")
    assert count(client) - before == 6
    (one,) = client.get_inference_statistics("tiny", "m1")["model_stats"]
    assert set(one["inference_stats"]) >= {
        "success",
        "fail",
        "queue",
        "compute_input",
        "compute_infer",
        "compute_output",
    }
    assert 2 in [batch["batch_size"] for batch in one["batch_stats"]]
    assert [entry["version"] for entry in client.get_inference_statistics()["model_stats"]] == ["m2", "m1", "m0"]


def count(client: Any) -> int:
    (one,) = client.get_inference_statistics("tiny", "m1")["model_stats"]
    assert isinstance(one["inference_count"], int)
    return int(one["inference_count"])
