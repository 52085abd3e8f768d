"""`wenet-runtime infer`: what it sends, what it tells a person and a programme, and how it ends."""

import json
from pathlib import Path
from typing import Any, Iterator, List

import pytest

from tests.runtime.http_doubles import Asked, Scripted, ScriptedServer, json_reply, problem

HEADERS = {
    "WeNet-Mode": "m3",
    "WeNet-Mode-Reason": "fits",
    "WeNet-Predicted-Ms": "29.8",
    "WeNet-Latency-Ms": "31.4",
    "WeNet-Budget-Met": "true",
    "WeNet-Energy-Mj": "131.25",
    "WeNet-Energy-Source": "rail:VDD_IN",
}
ROW = [{"index": 7, "label": "tabby", "score": 0.713}, {"index": 8, "label": "lynx", "score": 0.12}]


def good(asked: Asked) -> Scripted:
    return json_reply({"model_name": "net", "model_version": "m3", "top_k": [ROW], "outputs": []}, headers=HEADERS)


@pytest.fixture
def serve() -> Iterator[Any]:
    started: List[ScriptedServer] = []

    def start(answer: Any = good) -> ScriptedServer:
        started.append(ScriptedServer(answer))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    (tmp_path / "cat.jpg").write_bytes(b"\xff\xd8\xffcat")
    return tmp_path / "cat.jpg"


def test_it_tells_labels_mode_time_budget_and_energy(command: Any, serve: Any, image: Path) -> None:
    found = command("infer", "cat.jpg", "--url", serve().url, "--budget-ms", "50")
    assert (found.exit_code, found.stderr) == (0, "")
    assert found.stdout.splitlines() == [
        "cat.jpg: tabby 71.3%, lynx 12.0%",
        "  mode m3 (fits: the most accurate allowed mode that fits)",
        "  31.4 ms, predicted 29.8 ms, budget of 50 ms met",
        "  131.2 mJ by rail:VDD_IN",
    ]


def test_every_option_goes_as_its_header(command: Any, serve: Any, image: Path, tmp_path: Path) -> None:
    server = serve()
    (tmp_path / "token").write_text("a-token-of-some-length\n")
    command(
        "infer", image, "--url", server.url, "--budget-ms", 20, "--budget-mj", "7.5", "--min-accuracy", "0.6",
        "--mode", "m1", "--on-miss", "reject", "--priority", 1, "--top-k", 3, "--token-file", "token",
    )  # fmt: skip
    (asked,) = server.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/infer?top_k=3", image.read_bytes())
    sent = {name: value for name, value in asked.headers.items() if name.startswith("wenet-")}
    assert sent == {
        "wenet-budget-ms": "20",
        "wenet-budget-mj": "7.5",
        "wenet-min-accuracy": "0.6",
        "wenet-mode": "m1",
        "wenet-on-miss": "reject",
        "wenet-priority": "1",
    }
    assert asked.headers["content-type"] == "image/jpeg"
    assert asked.headers["authorization"] == "Bearer a-token-of-some-length"


def test_what_is_not_given_is_left_to_the_server(command: Any, serve: Any, image: Path) -> None:
    server = serve()
    command("infer", image, "--url", server.url)
    assert not [name for name in server.asked[0].headers if name.startswith("wenet-") or name == "authorization"]


def test_json_is_the_reply_with_its_headers_one_line_each(command: Any, serve: Any, image: Path) -> None:
    found = command("infer", image, image, "--url", serve().url, "--json")
    first, second = (json.loads(line) for line in found.stdout.splitlines())
    assert first == second
    assert (first["file"], first["status"], first["top_k"]) == (str(image), 200, [ROW])
    assert first["headers"]["wenet-mode"] == "m3"
    assert set(first["headers"]) == {name.lower() for name in HEADERS}


def test_an_impossible_budget_exits_4_and_the_others_are_asked_all_the_same(
    command: Any, serve: Any, image: Path
) -> None:
    def answer(asked: Asked) -> Scripted:
        return problem("budget-impossible", 422, "m0 takes 3 ms") if len(server.asked) == 1 else good(asked)

    server = serve(answer)
    found = command("infer", image, image, "--url", server.url)
    assert found.exit_code == 4
    assert found.stderr == f"wenet-runtime: {image}: budget-impossible: m0 takes 3 ms\n"
    assert found.stdout.startswith(f"{image}: tabby")


@pytest.mark.parametrize(("slug", "status"), [("queue-full", 503), ("unauthorized", 401), ("internal", 500)])
def test_any_other_problem_is_one_line_and_exits_1(
    command: Any, serve: Any, image: Path, slug: str, status: int
) -> None:
    found = command("infer", image, "--url", serve(lambda asked: problem(slug, status)).url)
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == f"wenet-runtime: {image}: {slug}: it cannot be\n"


def test_a_problem_is_json_too(command: Any, serve: Any, image: Path) -> None:
    found = command("infer", image, "--url", serve(lambda asked: problem("draining", 503)).url, "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["type"] == "urn:wenet:problem:draining"


def test_without_a_server_it_says_what_to_start(command: Any, image: Path) -> None:
    found = command("infer", image, "--url", "http://127.0.0.1:1")
    assert (found.exit_code, found.stdout) == (1, "")
    assert "nothing listens on http://127.0.0.1:1: start it with `wenet-runtime --bundle DIR`" in found.stderr


def test_the_address_may_come_from_the_environment(
    command: Any, serve: Any, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WENET_URL", serve().url)
    assert command("infer", image).exit_code == 0


@pytest.mark.parametrize(
    "words", [[], ["nowhere.jpg"], ["cat.jpg", "--url", "ftp://x"], ["cat.jpg", "--token-file", "none"]]
)
def test_bad_usage_exits_2_before_anything_is_sent(command: Any, image: Path, words: List[str]) -> None:
    found = command("infer", *words)
    assert (found.exit_code, found.stdout) == (2, "")


def test_a_misspelt_file_is_told_before_the_others_are_sent(command: Any, serve: Any, image: Path) -> None:
    server = serve()
    assert command("infer", image, "nowhere.jpg", "--url", server.url).exit_code == 2
    assert server.asked == []


def test_what_is_made_up_or_unknown_says_so(command: Any, serve: Any, image: Path) -> None:
    made_up = {**HEADERS, "WeNet-Energy-Source": "sim", "WeNet-Budget-Met": "false"}
    found = command("infer", image, "--url", serve(lambda asked: json_reply({"top_k": [ROW]}, headers=made_up)).url)
    assert "mJ by sim (SIMULATED)" in found.stdout
    assert "budget NOT met" in found.stdout
    odd = {"WeNet-Latency-Ms": "soon", "WeNet-Energy-Mj": "much"}
    found = command("infer", image, "--url", serve(lambda asked: json_reply({}, headers=odd)).url)
    assert found.stdout.splitlines()[1:] == ["  mode ? ()", "  unknown, predicted unknown", "  energy unknown"]


def test_a_label_cannot_drive_the_terminal(command: Any, serve: Any, image: Path) -> None:
    rows = [[{"index": 0, "label": "\x1b[2Jcat", "score": None}], [{"index": 1, "label": "dog", "score": 1.0}]]
    found = command("infer", image, "--url", serve(lambda asked: json_reply({"top_k": rows}, headers=HEADERS)).url)
    assert found.stdout.splitlines()[:2] == [f"{image} row 0:  [2Jcat ?", f"{image} row 1: dog 100.0%"]


@pytest.mark.parametrize(
    ("slug", "code"),
    [("energy-unavailable", 5), ("unknown-mode", 2), ("bad-header", 2), ("conflicting-options", 2)],
)
def test_what_is_refused_has_the_code_it_has_on_the_device(
    command: Any, serve: Any, image: Path, slug: str, code: int
) -> None:
    assert command("infer", image, "--url", serve(lambda asked: problem(slug, 422)).url).exit_code == code


@pytest.mark.parametrize(
    ("flag", "value", "told"),
    [
        ("--budget-ms", "nan", "--budget-ms is nan: give a number from 0.001 to 600000"),
        ("--budget-ms", "1e300", "--budget-ms is 1e+300: give"),
        ("--budget-mj", "0", "--budget-mj is 0.0: give"),
        ("--min-accuracy", "1.5", "--min-accuracy is 1.5: give a number from 0 to 1"),
        ("--on-miss", "x", "--on-miss is 'x': give one of degrade, reject, late"),
        ("--priority", "9", "--priority is 9: give 1 (first), 2 or 3"),
    ],
)
def test_an_impossible_option_is_told_before_anything_is_sent(
    command: Any, serve: Any, image: Path, flag: str, value: str, told: str
) -> None:
    server = serve()
    found = command("infer", image, "--url", server.url, flag, value)
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith(f"wenet-runtime: {told}")
    assert server.asked == []
