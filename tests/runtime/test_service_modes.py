"""GET /modes: what each mode costs and did, most accurate first."""

from pathlib import Path

import pytest

from tests.runtime.fakes import PATIENCE_S, Client, SettableBackend, make_service
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.app import create_app


def test_modes_says_what_each_costs_most_accurate_first(held_client: Client, bundle: Bundle) -> None:
    held_client.infer()
    held_client.infer(headers={"WeNet-Mode": "m0"})
    held_client.infer(headers={"WeNet-Mode": "m0"})
    found = held_client.get("/modes").json()
    assert (found["model"], found["bundle_sha256"], found["active"]) == ("tiny", bundle.sha256, "m0")
    assert found["policy"] == {
        "budget_ms": None, "budget_mj": None, "min_accuracy": None, "mode": None, "on_miss": "degrade",
    }  # fmt: skip
    assert [mode["id"] for mode in found["modes"]] == ["m2", "m1", "m0"]
    last = found["modes"][-1]
    assert set(last) == {
        "id", "groups", "precision", "macs", "params", "accuracy", "latency_ms", "predicted_ms", "energy_mj",
        "energy_source", "resident", "memory_mb", "load_ms", "served", "active_share", "out_of_service",
    }  # fmt: skip
    assert last["latency_ms"] == {"p50": 1.0, "p95": 1.05, "p99": 1.1}
    assert (last["energy_mj"], last["energy_source"], last["resident"]) == (None, "none", True)
    assert (last["served"], last["active_share"]) == (2, 0.6667)
    assert last["memory_mb"] == round(4 * bundle.mode("m0").params / 2**20, 4)
    assert last["load_ms"] > 0
    assert found["memory_mb"] == pytest.approx(sum(mode["memory_mb"] for mode in found["modes"]), abs=1e-3)
    assert last["groups"] == dict(bundle.mode("m0").groups)


def test_before_the_first_answer_no_mode_is_active(held_client: Client) -> None:
    found = held_client.get("/modes").json()
    assert found["active"] is None
    assert [mode["active_share"] for mode in found["modes"]] == [0.0] * 3


def test_why_a_mode_is_out_names_nobody_s_home(
    bundle: Bundle, backend: SettableBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "anna"))
    service = make_service(bundle, backend)
    service.runtime.pool.suspend("m1", f"{tmp_path}/anna/.cache/m1.onnx is gone")
    found = Client(create_app(service)).get("/modes").json()
    assert [mode["out_of_service"] for mode in found["modes"]] == [None, "~/.cache/m1.onnx is gone", None]
    service.runtime.close(timeout_s=PATIENCE_S)
