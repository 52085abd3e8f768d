"""The dashboard and the alerts of deploy/: they ask for nothing that the daemon does not tell."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.runtime.fakes import Client, SettableBackend, make_service
from tests.supernets import write_test_bundle
from tests.test_repository import ROOT
from wenet_runtime.bundle import Bundle
from wenet_runtime.meters.sim import SimMeter
from wenet_runtime.service.app import create_app
from wenet_runtime.service.device_watch import Callbacks, DeviceWatch
from wenet_runtime.service.metrics import Metrics
from wenet_runtime.thermal import ThermalTrend

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/wenet-runtime.json"
ALERTS = {"WeNetBudgetMissed", "WeNetPowerStale", "WeNetPredictionOff", "WeNetRestarting"}
OF_THE_SCRAPE = {"job", "instance", "le"}
NEVER_HERE = {"kind"}  # of wenet_mode_faults_total: no mode fails in these tests


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What a daemon tells after some requests."""
    place = tmp_path_factory.mktemp("monitoring") / "bundle"
    write_test_bundle(place)
    bundle = Bundle(place)
    service = make_service(bundle, SettableBackend(bundle), meter=SimMeter(busy_w=3.0))
    watch = DeviceWatch(Callbacks(), limits={})
    watch.throttled = False
    watch.trends = {"CPU-therm": ThermalTrend()}
    watch.trends["CPU-therm"].observe(50.0, 1.0)
    service.metrics = Metrics(bundle, service.runtime, watch=watch)
    client = Client(create_app(service))
    client.infer(headers={"WeNet-Budget-Ms": "5000"})
    client.infer(headers={"WeNet-Mode": "m0"})
    text = service.metrics.render().decode()
    service.runtime.close()
    return text


@pytest.fixture(scope="module")
def names(told: str) -> set[str]:
    """The names that may be asked for."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", told, re.MULTILINE):
        ends = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        found |= {name + end for end in ends}
    return found


@pytest.fixture(scope="module")
def labels(told: str) -> set[str]:
    """The labels that they may be asked for by."""
    return {
        one for inside in re.findall(r"^\w+\{(.*)\} ", told, re.MULTILINE) for one in re.findall(r'(\w+)="', inside)
    }


def yaml_of(path: Path) -> Any:
    yaml = pytest.importorskip("yaml", reason="no YAML reader here")
    return yaml.safe_load(path.read_text())


def asked_names(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:wenet|process)_\w+", expression))


def asked_labels(expression: str) -> set[str]:
    """In selectors, groupings and legends."""
    grouped = re.findall(r"(?:by|without|ignoring|on) ?\(([^)]*)\)", expression)
    found = {one.strip() for group in grouped for one in group.split(",")}
    return found | set(re.findall(r"(\w+)(?:=~|!=|=)\"", expression)) | set(re.findall(r"\{\{(\w+)\}\}", expression))


def expressions() -> list[str]:
    """Every expression of the dashboard, with its legend."""
    board = json.loads(DASHBOARD.read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    shown = [f"{target['expr']} {target['legendFormat']}" for target in targets]
    return [*shown, *(f"{one['expr']} {one['titleFormat']}" for one in board["annotations"]["list"])]


def rules() -> list[dict[str, Any]]:
    (group,) = yaml_of(PROMETHEUS / "alerts.yml")["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


def test_the_dashboard_asks_for_metrics_that_there_are_by_labels_that_they_have(
    names: set[str], labels: set[str]
) -> None:
    for expression in expressions():
        assert asked_names(expression), expression
        assert asked_names(expression) <= names, expression
        assert asked_labels(expression) <= labels | OF_THE_SCRAPE | NEVER_HERE, expression


def test_the_dashboard_leaves_the_data_source_and_the_daemon_to_whoever_looks() -> None:
    board = json.loads(DASHBOARD.read_text())
    variables = {one["name"]: one for one in board["templating"]["list"]}
    assert [*variables] == ["datasource", "job", "instance"]
    assert asked_names(variables["job"]["query"]["query"]) == {"wenet_build_info"}
    for panel in board["panels"]:
        assert {panel["datasource"]["uid"], *(one["datasource"]["uid"] for one in panel["targets"])} == {
            "${datasource}"
        }
        for target in panel["targets"]:
            metrics = len(re.findall(r"\b(?:wenet|process)_\w+", target["expr"]))
            assert target["expr"].count('{job=~"$job",instance=~"$instance"') == metrics, target["expr"]


def test_no_two_panels_of_the_dashboard_lie_on_each_other() -> None:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert max(x for x, _ in cells) < 24
        assert not cells & taken, panel["title"]
        taken |= cells


def test_the_alerts_are_the_four_and_complete(names: set[str], labels: set[str]) -> None:
    assert {one["alert"] for one in rules()} == ALERTS
    for rule in rules():
        assert asked_names(rule["expr"]) <= names, rule["expr"]
        assert asked_labels(rule["expr"]) <= labels | OF_THE_SCRAPE, rule["expr"]
        assert re.fullmatch(r"\d+[ms]", rule["for"])
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert {"summary", "description"} == set(rule["annotations"])


def test_the_example_asks_for_what_the_alerts_name() -> None:
    config = yaml_of(PROMETHEUS / "prometheus.yml")
    (job,) = config["scrape_configs"]
    assert {named for rule in rules() for named in re.findall(r'job="(\w+)"', rule["expr"])} == {job["job_name"]}
    assert all((PROMETHEUS / one).is_file() for one in config["rule_files"])
    assert job["authorization"]["credentials_file"]
    assert "metrics_path" not in job  # Prometheus asks for /metrics by itself


def test_the_alerts_sound_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("no promtool here: it comes with Prometheus")
    for words in (["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]):
        done = subprocess.run([promtool, *words], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
