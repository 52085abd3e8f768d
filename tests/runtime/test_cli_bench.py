"""`wenet-runtime bench`: what it sends, what it reports, what it refuses."""

import errno
import json
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List

import numpy as np
import pytest

from tests.runtime.http_doubles import Asked, Scripted, ScriptedServer, json_reply, problem
from wenet_runtime import __version__
from wenet_runtime.client.readings import Reading
from wenet_runtime.client.sender import Sender

MODES = [
    {"id": "m1", "accuracy": 0.9, "latency_ms": {"p50": 2.0, "p95": 2.1, "p99": 2.2}, "energy_mj": 5.0},
    {"id": "m0", "accuracy": 0.5, "latency_ms": {"p50": 1.0, "p95": 1.1, "p99": 1.2}, "energy_mj": None},
]
METADATA = {"inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2, 2]}]}
METRICS = b'# TYPE wenet_power_watts gauge\nwenet_power_watts{rail="VDD_IN"} 5.25\n'


def good(asked: Asked) -> Scripted:
    if asked.path == "/modes":
        return json_reply({"model": "a net", "bundle_sha256": "5" * 64, "modes": MODES})
    if asked.path == "/metrics":
        return 200, {}, METRICS
    if asked.path == "/v2/models/a%20net":
        return json_reply(METADATA)
    headers = {"WeNet-Mode": "m1", "WeNet-Mode-Reason": "fits", "WeNet-Latency-Ms": "1", "WeNet-Predicted-Ms": "2"}
    return 200, headers, b""


@pytest.fixture
def serve() -> Iterator[Any]:
    started: List[ScriptedServer] = []

    def start(answer: Any = good) -> ScriptedServer:
        started.append(ScriptedServer(answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


def short(server: ScriptedServer) -> List[Any]:
    """Flags of a load that is over soon."""
    return ["--url", server.url, "--rate", 20, "--seconds", "0.5", "--warm-up-s", "0.2", "--uniform"]


def posts(server: ScriptedServer) -> List[Asked]:
    return [one for one in server.asked if one.method == "POST"]


def test_random_numbers_are_sent_where_no_file_is_named_and_the_report_says_what_came(command: Any, serve: Any) -> None:
    server = serve()
    found = command("bench", *short(server), "--budget-ms", "5000,none", "--out", "report.json")
    assert found.exit_code == 0, found.stderr
    sent = posts(server)
    assert len(sent) == 14  # 4 to warm up and 10 that count
    assert {len(one.body) for one in sent} == {16}
    assert {one.headers["inference-header-content-length"] for one in sent} == {"0"}
    assert sorted(one.headers.get("wenet-budget-ms", "") for one in sent) == [""] * 7 + ["5000"] * 7
    assert "10 requests, 10 answered (20 a second)" in found.stdout
    assert "modes: m1 10 (100.0%)" in found.stdout
    assert "accuracy expected of these modes: 90.00%" in found.stdout
    assert "the first 0.2 s not counted" in found.stderr
    report: Dict[str, Any] = json.loads(Path("report.json").read_text())
    assert (report["model"], report["bundle_sha256"], report["budgets_ms"]) == ("a net", "5" * 64, [5000.0, None])
    assert report["load"]["arrivals"] == "uniform"
    assert report["sender"]["wenet_runtime"] == __version__
    assert report["sender"]["load_average"] >= 0
    samples = [dict(zip(report["sample_fields"], row)) for row in report["samples"]]
    assert [one["at_s"] for one in samples] == pytest.approx(np.arange(10) / 20)
    assert {one["status"] for one in samples} == {200}
    assert all(one["latency_ms"] >= one["late_ms"] >= 0 for one in samples)
    assert report["readings"][0]["power_w"] == {"VDD_IN": 5.25}
    assert report["modes"] == MODES


def test_readings_count_from_the_end_of_the_warm_up_as_samples_do(
    command: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Read:
        """Has read once, 3 s after the start."""

        def __init__(self, *parts: Any, **how: Any) -> None:
            self.start = lambda: None
            self.stop = lambda: [Reading(3.0)]

    monkeypatch.setattr("wenet_runtime.client.readings.Watch", Read)
    command("bench", *short(serve()), "--out", "report.json")
    assert json.loads(Path("report.json").read_text())["readings"][0]["at_s"] == pytest.approx(2.8)


def test_files_are_sent_in_turn_with_every_option(command: Any, serve: Any, tmp_path: Path) -> None:
    server = serve()
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xffa")
    np.save(str(tmp_path / "b.npy"), np.zeros(3, np.float32))
    (tmp_path / "token").write_text("a-token-of-some-length\n")
    found = command(
        "bench", "a.jpg", "b.npy", *short(server), "--mode", "m0", "--min-accuracy", "0.4", "--budget-mj", "9",
        "--on-miss", "late", "--priority", 3, "--token-file", "token", "--json",
    )  # fmt: skip
    assert found.exit_code == 0, found.stderr
    assert {one.headers["content-type"] for one in posts(server)} == {"image/jpeg", "application/x-npy"}
    sent = {name: value for name, value in posts(server)[0].headers.items() if name.startswith("wenet-")}
    assert sent == {
        "wenet-mode": "m0",
        "wenet-min-accuracy": "0.4",
        "wenet-budget-mj": "9",
        "wenet-on-miss": "late",
        "wenet-priority": "3",
    }
    assert {one.headers["authorization"] for one in server.asked} == {"Bearer a-token-of-some-length"}
    report = json.loads(found.stdout)
    assert report["summary"]["arrivals"] == 10
    assert "samples" not in report
    assert "a-token" not in found.stdout + found.stderr


def test_by_chance_the_seed_decides(command: Any, serve: Any) -> None:
    found = [
        json.loads(command("bench", *short(serve())[:-1], "--seed", seed, "--json").stdout)["summary"]["arrivals"]
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] > 0


def test_a_load_of_which_nothing_is_answered_exits_1_and_is_reported(command: Any, serve: Any) -> None:
    def answer(asked: Asked) -> Scripted:
        return problem("queue-full", 503) if asked.method == "POST" else good(asked)

    found = command("bench", *short(serve(answer)))
    assert found.exit_code == 1
    assert "problems: queue-full 10 (100.0%)" in found.stdout
    assert found.stderr.endswith("wenet-runtime: no request was answered: queue-full\n")


def test_a_server_that_tells_no_metadata_asks_for_a_file(command: Any, serve: Any) -> None:
    def answer(asked: Asked) -> Scripted:
        return problem("not-found", 404) if asked.path.startswith("/v2") else good(asked)

    found = command("bench", *short(serve(answer)))
    assert found.exit_code == 2
    assert "(not-found): name a file to be sent" in found.stderr


def test_a_server_that_tells_no_modes_is_told_in_one_line(command: Any, serve: Any) -> None:
    found = command("bench", "--url", serve(lambda asked: problem("unauthorized", 401, "a token is needed")).url)
    assert found.exit_code == 1
    assert "does not tell its modes: unauthorized: a token is needed" in found.stderr


def test_without_a_server_it_says_what_to_start(command: Any) -> None:
    found = command("bench", "--url", "http://127.0.0.1:1")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "start it with `wenet-runtime --bundle DIR`" in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["--budget-ms", "0"],
        ["--budget-ms", "fast"],
        ["--budget-ms", "20,nan"],
        ["--rate", "0"],
        ["--url", "https://board"],
        ["--out", "nowhere/report.json"],
        ["--out", "."],
        ["--budget-mj", "nan"],
        ["--min-accuracy", "1.5"],
        ["--on-miss", "x"],
        ["--priority", "9"],
        ["nowhere.jpg"],
    ],
)
def test_bad_usage_exits_2_before_any_load(command: Any, serve: Any, words: List[str]) -> None:
    server = serve()
    url = [] if "--url" in words else ["--url", server.url]
    found = command("bench", *words, *url)
    assert (found.exit_code, found.stdout) == (2, "")
    assert posts(server) == []


def test_a_folder_that_takes_no_file_is_told_before_any_load(
    command: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*parts: Any, **how: Any) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    server = serve()
    monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    found = command("bench", *short(server), "--out", "report.json")
    assert (found.exit_code, found.stdout) == (2, "")
    assert "nothing can be written to" in found.stderr
    assert "(Permission denied): name another" in found.stderr
    assert server.asked == []


def test_trying_the_folder_leaves_nothing_there(command: Any, tmp_path: Path) -> None:
    assert command("bench", "--url", "http://127.0.0.1:1", "--out", "report.json").exit_code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_report_that_cannot_be_written_after_all_is_printed_and_an_error(
    command: Any, serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: Any, **how: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("wenet_runtime.files.write_atomic", full)
    found = command("bench", *short(serve()), "--out", "report.json")
    assert found.exit_code == 1
    assert "10 requests, 10 answered" in found.stdout
    assert "--out 'report.json' cannot be written (No space left on device)" in found.stderr


@pytest.mark.parametrize(("slug", "code"), [("budget-impossible", 4), ("energy-unavailable", 5), ("unknown-mode", 2)])
def test_a_load_that_is_refused_for_one_reason_ends_with_its_code(
    command: Any, serve: Any, slug: str, code: int
) -> None:
    def answer(asked: Asked) -> Scripted:
        return problem(slug, 422) if asked.method == "POST" else good(asked)

    assert command("bench", *short(serve(answer))).exit_code == code


def test_a_load_that_is_refused_for_several_reasons_exits_1(command: Any, serve: Any) -> None:
    def answer(asked: Asked) -> Scripted:
        slug = "budget-impossible" if len(posts(server)) % 2 else "queue-full"
        return problem(slug, 422) if asked.method == "POST" else good(asked)

    server = serve(answer)
    assert command("bench", *short(server)).exit_code == 1


def interrupted(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Ctrl-C when this request is to be sent."""
    send = Sender._send

    def sent(self: Sender, at: int) -> None:
        if at == number:
            time.sleep(0.5)  # in which those before it are answered
            raise KeyboardInterrupt
        send(self, at)

    monkeypatch.setattr(Sender, "_send", sent)


def test_ctrl_c_keeps_what_was_measured(command: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 10)
    found = command("bench", *short(serve()), "--out", "report.json")
    assert found.exit_code == 130
    assert "interrupted: this is what was measured in" in found.stderr
    report = json.loads(Path("report.json").read_text())
    assert 1 <= len(report["samples"]) == report["summary"]["answered"] == report["summary"]["arrivals"] <= 6
    assert report["interrupted_after_s"] > 0
    assert "answered" in found.stdout


def test_ctrl_c_before_anything_counts_says_so(command: Any, serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(monkeypatch, 1)
    found = command("bench", *short(serve()), "--out", "report.json")
    assert (found.exit_code, found.stdout) == (130, "")
    assert found.stderr.endswith("interrupted before anything was measured\n")
    assert not Path("report.json").exists()
