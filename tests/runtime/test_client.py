"""The client's parts: addresses, tokens, payloads, replies, readings of /metrics."""

import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any, Iterator, List

import numpy as np
import pytest

from tests.runtime.fakes import PATIENCE_S
from tests.runtime.http_doubles import ScriptedServer, json_reply
from wenet_runtime.client.address import address_of, read_token
from wenet_runtime.client.exchange import Client, Reply, Unreachable
from wenet_runtime.client.payload import MAX_BODY_BYTES, file_payload, option_headers, random_payload
from wenet_runtime.client.readings import Watch, reading_of
from wenet_runtime.errors import SettingsError

SECRET = "sesame-open-up-now"


@pytest.fixture
def servers() -> Iterator[List[ScriptedServer]]:
    started: List[ScriptedServer] = []
    yield started
    for one in started:
        one.close()


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("board:9000", "http://board:9000"),
        ("https://board", "https://board"),
        ("http://[::1]:81/behind/a/proxy/", "http://[::1]:81/behind/a/proxy"),
    ],
)
def test_an_address_is_taken_apart_and_put_together(url: str, found: str) -> None:
    assert address_of(url).url == found


@pytest.mark.parametrize(
    "url", ["", "ftp://board", "http://", "http://board:0", "http://board:99999", "http://b/?x=1", "http://b/#a", "a b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="--url is"):
        address_of(url)


def test_a_password_in_the_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(SettingsError, match="--token-file") as refused:
        address_of(f"http://me:{SECRET}@board")
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("text", [f"{SECRET}\n", f"# mine\n\ninfer:{SECRET}\nanother-token-of-it\n"])
def test_the_first_token_of_a_file_is_sent(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    assert read_token(path) == SECRET


@pytest.mark.parametrize("text", ["", "# nothing\n", f"{SECRET} {SECRET}\n", f"{SECRET}\x07\n", f"{SECRET}é\n"])
def test_a_file_without_a_token_is_refused_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text)
    with pytest.raises(SettingsError, match="holds no token") as refused:
        read_token(path)
    assert SECRET not in str(refused.value)


def test_a_token_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"nowhere' cannot be read \(No such file"):
        read_token(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("name", "data", "media"),
    [
        ("a.jpg", b"\xff\xd8\xff\xe0rest", "image/jpeg"),
        ("a.png", b"\x89PNG\r\n\x1a\nrest", "image/png"),
        ("png.jpg", b"\x89PNG\r\n\x1a\nrest", "image/png"),  # what is inside counts
        ("a.npy", b"\x93NUMPY\x01\x00rest", "application/x-npy"),
        ("v2.json", b"{}", "application/json"),
        ("x.f32", b"\x00\x00\x80\x3f", "application/octet-stream"),
    ],
)
def test_a_file_is_sent_as_what_it_is(tmp_path: Path, name: str, data: bytes, media: str) -> None:
    (tmp_path / name).write_bytes(data)
    found = file_payload(tmp_path / name)
    assert (found.body, found.headers["Content-Type"]) == (data, media)
    assert (found.headers.get("Inference-Header-Content-Length") == "0") == (media == "application/octet-stream")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jpg", b"not one", "no JPEG, PNG or .npy"),
        ("a.webp", b"RIFF", "no JPEG, PNG or .npy"),
        ("a.raw", b"", "is empty"),
        ("a.raw", bytes(MAX_BODY_BYTES + 1), "is larger than 16777216 bytes"),
    ],
)
def test_a_file_that_the_server_would_refuse_is_refused_here(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SettingsError, match=said):
        file_payload(tmp_path / name)


def test_random_numbers_fill_the_model_s_input() -> None:
    metadata = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 3, 4, 4]}]}
    found = random_payload(metadata, seed=1)
    values = np.frombuffer(found.body, "<f4")
    assert values.size == 48
    assert np.isfinite(values).all()
    assert found == random_payload(metadata, seed=1) != random_payload(metadata, seed=2)
    pixels = random_payload({"inputs": [{"name": "i", "datatype": "UINT8", "shape": [-1, 5]}]}, seed=1)
    assert len(pixels.body) == 5


@pytest.mark.parametrize(
    "inputs",
    [
        None,
        [],
        [{"name": "a", "datatype": "FP32", "shape": [1, 2]}] * 2,
        [{"name": "a", "datatype": "BYTES", "shape": [1]}],
        [{"name": "a", "datatype": "FP32", "shape": [1, -1]}],
        [{"name": "a", "datatype": "FP32", "shape": [1, 1 << 40]}],
        [{"name": "a", "datatype": "FP32"}],
    ],
)
def test_a_model_that_numbers_do_not_fill_asks_for_a_file(inputs: Any) -> None:
    with pytest.raises(SettingsError, match="name a file"):
        random_payload({"inputs": inputs}, seed=0)


def test_options_become_the_headers_of_the_api() -> None:
    found = option_headers({"budget_ms": 20.0, "budget_mj": 0.00001, "mode": "m1", "priority": None, "on_miss": "late"})
    assert found == {
        "WeNet-Budget-Ms": "20",
        "WeNet-Budget-Mj": "0.00001",
        "WeNet-Mode": "m1",
        "WeNet-On-Miss": "late",
    }


def test_a_request_carries_the_token_and_the_prefix(servers: List[ScriptedServer]) -> None:
    servers.append(ScriptedServer(lambda asked: json_reply({"a": 1})))
    reply = Client(address_of(servers[0].url + "/behind"), SECRET).request("POST", "/infer", body=b"x")
    assert (reply.status, reply.members()) == (200, {"a": 1})
    (asked,) = servers[0].asked
    assert (asked.path, asked.body, asked.headers["authorization"]) == ("/behind/infer", b"x", f"Bearer {SECRET}")


def test_where_nothing_listens_it_says_what_to_start() -> None:
    with pytest.raises(Unreachable, match=r"nothing listens on http://127.0.0.1:1: start it with `wenet-runtime"):
        Client(address_of("http://127.0.0.1:1")).request("GET", "/modes")


def test_a_certificate_that_is_not_trusted_says_where_its_issuer_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*parts: Any, **how: Any) -> None:
        raise ssl.SSLCertVerificationError("self-signed certificate")

    monkeypatch.setattr("http.client.HTTPSConnection.request", refuse)
    with pytest.raises(Unreachable, match="of https://board is not trusted here: name its issuer's file"):
        Client(address_of("https://board")).request("GET", "/modes")


def test_a_server_that_never_answers_ends_with_the_time_that_it_was_given() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = address_of(f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(Unreachable, match=r"did not answer within 0\.05 s"):
            Client(where, timeout_s=0.05).request("GET", "/modes")


def test_what_does_not_speak_http_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def speak() -> None:
            peer, _ = odd.accept()
            peer.recv(4096)
            peer.sendall(b"220 mail ready\r\n")
            peer.close()

        speaker = threading.Thread(target=speak)
        speaker.start()
        with pytest.raises(Unreachable, match="does not answer in HTTP"):
            Client(address_of(f"http://127.0.0.1:{odd.getsockname()[1]}")).request("GET", "/modes")
        speaker.join(PATIENCE_S)


@pytest.mark.parametrize("body", [b"", b"[]", b"\xff", b"[" * 100_000, b'{"type": 7, "detail": 8}'])
def test_an_error_without_a_problem_is_told_by_its_status(body: bytes) -> None:
    assert Reply(502, {}, body).complaint == "HTTP 502: the server says no more"


def test_a_problem_cannot_drive_the_terminal() -> None:
    found = Reply(400, {}, json.dumps({"type": "urn:x:bad\x1b[2J", "detail": "a\n\x1b[31mb"}).encode()).complaint
    assert found == "bad [2J: a  [31mb"


METRICS = """\
# TYPE wenet_power_watts gauge
wenet_power_watts{rail="VDD_IN"} 5.25
# TYPE wenet_temperature_celsius gauge
wenet_temperature_celsius{zone="GPU-therm"} 41.5
# TYPE wenet_meter_up gauge
wenet_meter_up{source="rail:VDD_IN"} 1.0
# TYPE wenet_energy_joules counter
wenet_energy_joules_total{rail="a"} 0.25
wenet_energy_joules_total{rail="b"} 0.5
"""


def test_a_reading_holds_power_heat_and_energy() -> None:
    found = reading_of(METRICS, at_s=3.0)
    assert found.at_s == 3.0
    assert found.power_w == {"VDD_IN": 5.25}
    assert found.temperature_c == {"GPU-therm": 41.5}
    assert (found.source, found.energy_mj) == ("rail:VDD_IN", 750.0)


def test_what_the_metrics_do_not_say_is_unknown_and_not_nought() -> None:
    found = reading_of('# TYPE wenet_meter_up gauge\nwenet_meter_up{source="none"} 0.0\n', at_s=0.0)
    assert (found.power_w, found.temperature_c, found.source, found.energy_mj) == ({}, {}, None, None)


def test_readings_go_on_when_some_fail(servers: List[ScriptedServer]) -> None:
    enough = threading.Event()
    bodies = [(200, METRICS), (500, ""), (200, "no metrics {"), (200, METRICS)]

    def answer(asked: Any) -> Any:
        number = len(servers[0].asked) - 1
        status, text = bodies[min(number, 3)]
        if number == 4:
            enough.set()
        return status, {}, text.encode()

    servers.append(ScriptedServer(answer))
    watch = Watch(Client(address_of(servers[0].url)), start_s=0.0, every_s=0.001)
    watch.start()
    assert enough.wait(PATIENCE_S)
    found = watch.stop()
    assert len(found) >= 2
    assert all(one.power_w == {"VDD_IN": 5.25} for one in found)
    assert [one.at_s for one in found] == sorted(one.at_s for one in found)
