"""What whoever runs the server may ask of it while it runs."""

import asyncio
from pathlib import Path
from typing import Any, Dict, Iterator

import pytest

from tests.runtime.fakes import PATIENCE_S, Client, check_problem
from tests.supernets import write_test_bundle
from wenet_runtime.service.daemon import Daemon, open_daemon
from wenet_runtime.settings import Settings

TOKEN, OTHER = "a" * 32, "b" * 32
BEARER = {"authorization": f"Bearer {TOKEN}"}
POLICY = {"budget_ms": 5000.0, "budget_mj": None, "min_accuracy": 0.82, "mode": "m1", "on_miss": "late"}
NO_POLICY = {"budget_ms": None, "budget_mj": None, "min_accuracy": None, "mode": None, "on_miss": "degrade"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    write_test_bundle(root / "a")
    write_test_bundle(root / "b", seed=1, levels=(16, 1))
    tokens = root / "tokens"
    tokens.write_text(f"{TOKEN}\ninfer:{OTHER}\n")
    tokens.chmod(0o600)
    return root


@pytest.fixture
def daemon(root: Path, tmp_path: Path) -> Iterator[Daemon]:
    one = open_daemon(
        Settings(
            bundle=root / "a", engine="sim", cache_dir=tmp_path / "cache", profile_rounds=10, token_file=root / "tokens"
        )
    )
    yield one
    one.close(PATIENCE_S)


@pytest.fixture
def admin(daemon: Daemon) -> Client:
    return Client(daemon.app)


def test_the_policy_is_read_and_replaced_as_a_whole(admin: Client) -> None:
    assert admin.get("/admin/policy", headers=BEARER).json() == NO_POLICY
    response = admin.request("PUT", "/admin/policy", json=POLICY, headers=BEARER)
    assert (response.status_code, response.json()) == (200, POLICY)
    assert admin.get("/admin/policy", headers=BEARER).json() == POLICY
    assert admin.get("/modes", headers=BEARER).json()["policy"] == POLICY
    reply = admin.infer(headers=BEARER)
    assert (reply.headers["wenet-mode"], reply.headers["wenet-budget-met"]) == ("m1", "true")
    reply = admin.infer(headers={**BEARER, "wenet-mode": "m2", "wenet-min-accuracy": "0"})
    assert reply.headers["wenet-mode"] == "m2"  # a request's own options come first
    assert admin.request("PUT", "/admin/policy", json=NO_POLICY, headers=BEARER).json() == NO_POLICY
    assert "wenet-budget-met" not in admin.infer(headers=BEARER).headers


@pytest.mark.parametrize(
    ("body", "slug", "status", "said"),
    [
        ({**POLICY, "priority": 1}, "malformed-request", 400, "unknown member 'priority'"),
        ({"budget_ms": 5}, "malformed-request", 400, "member 'budget_mj' is missing"),
        ([1], "malformed-request", 400, "no JSON object"),
        ({**POLICY, "budget_ms": 0}, "malformed-request", 400, "budget_ms is 0.0: give a number from 0.001"),
        ({**POLICY, "budget_ms": 600_001}, "malformed-request", 400, "budget_ms"),
        ({**POLICY, "budget_mj": -1}, "malformed-request", 400, "budget_mj"),
        ({**POLICY, "min_accuracy": 1.5}, "malformed-request", 400, "min_accuracy"),
        ({**POLICY, "min_accuracy": True}, "malformed-request", 400, "neither a number nor null"),
        ({**POLICY, "budget_ms": "5"}, "malformed-request", 400, "neither a number nor null"),
        ({**POLICY, "budget_ms": 10**400}, "malformed-request", 400, ""),
        ({**POLICY, "mode": 1}, "malformed-request", 400, "'mode'"),
        ({**POLICY, "on_miss": None}, "malformed-request", 400, "'on_miss'"),
        ({**POLICY, "on_miss": "never"}, "malformed-request", 400, "on_miss is 'never'"),
        ({**POLICY, "mode": "m9"}, "unknown-mode", 404, "m9"),
        ({**NO_POLICY, "min_accuracy": 0.99}, "budget-impossible", 422, "accuracy 0.99"),
        ({**NO_POLICY, "budget_ms": 0.001}, "budget-impossible", 422, "0.001"),
        ({**NO_POLICY, "budget_mj": 5}, "energy-unavailable", 422, "source of energy"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_and_the_one_before_stays(
    admin: Client, body: Any, slug: str, status: int, said: str
) -> None:
    assert (
        said in check_problem(admin.request("PUT", "/admin/policy", json=body, headers=BEARER), slug, status)["detail"]
    )
    assert admin.get("/admin/policy", headers=BEARER).json() == NO_POLICY


@pytest.mark.parametrize(
    ("content", "media", "slug", "status"),
    [
        (b"{", "application/json", "malformed-request", 400),
        (b"", "application/json", "malformed-request", 400),
        (b'{"path": NaN}', "application/json", "malformed-request", 400),
        (b'{"path": "b", "path": "a"}', "application/json", "malformed-request", 400),
        (b'{"path": 1}', "application/json", "malformed-request", 400),
        (b'{"path": "b", "force": true}', "application/json", "malformed-request", 400),
        (b'{"path": "b"}', "application/octet-stream", "unsupported-media", 415),
        (b'{"path": "' + b"x" * (65 << 10) + b'"}', "application/json", "too-large", 413),
        (b'{"path": "nowhere"}', "application/json", "bundle-invalid", 422),
        (b'{"path": "../b"}', "application/json", "bundle-invalid", 422),
        (b'{"path": "\\ud800"}', "application/json", "bundle-invalid", 422),
    ],
)
def test_a_request_for_another_bundle_that_cannot_be_is_refused(
    admin: Client, content: bytes, media: str, slug: str, status: int
) -> None:
    headers = {**BEARER, "content-type": media}
    check_problem(admin.request("POST", "/admin/bundle", content=content, headers=headers), slug, status)


def test_another_bundle_and_back(admin: Client, daemon: Daemon) -> None:
    a = daemon.bundle.sha256

    async def changed() -> None:
        response = await admin.arequest("POST", "/admin/bundle", json={"path": "b"}, headers=BEARER)
        assert response.status_code == 200
        b = response.json()["bundle_sha256"]
        assert response.json() == {"bundle_sha256": b, "previous_sha256": a} != {"bundle_sha256": a}
        health = (await admin.arequest("GET", "/v2/health", headers=BEARER)).json()["bundle"]
        assert (health["sha256"], health["previous_sha256"], health["rolled_back"]) == (b, a, None)
        response = await admin.arequest("POST", "/admin/rollback", headers=BEARER)
        assert response.json() == {"bundle_sha256": a, "previous_sha256": b}
        health = (await admin.arequest("GET", "/v2/health", headers=BEARER)).json()["bundle"]
        assert health["rolled_back"] == {"sha256": b, "reason": "somebody asked for it"}

    asyncio.run(changed())


def test_there_may_be_nothing_to_go_back_to(admin: Client) -> None:
    check_problem(admin.request("POST", "/admin/rollback", headers=BEARER), "conflict", 409)


def test_the_server_is_stopped_once(admin: Client, daemon: Daemon) -> None:
    response = admin.request("POST", "/admin/drain", headers=BEARER)
    assert (response.status_code, response.json()) == (202, {"draining": True})
    check_problem(admin.get("/v2/health/ready"), "draining", 503)
    for method, path, body in (
        ("POST", "/admin/drain", None),
        ("POST", "/admin/bundle", {"path": "b"}),
        ("POST", "/admin/rollback", None),
        ("POST", "/admin/recalibrate", None),
        ("PUT", "/admin/policy", NO_POLICY),
    ):
        check_problem(admin.request(method, path, headers=BEARER, json=body), "conflict", 409)


def test_the_modes_are_measured_again(admin: Client, daemon: Daemon) -> None:
    before = dict(daemon.runtime.controller.profiles)

    async def measured() -> None:
        response = await admin.arequest("POST", "/admin/recalibrate", headers=BEARER)
        assert (response.status_code, response.json()) == (202, {"recalibrating": True})
        again = await admin.arequest("POST", "/admin/recalibrate", headers=BEARER)
        check_problem(again, "conflict", 409)
        for _ in range(int(PATIENCE_S * 100)):
            if not daemon.bundles.state["changing"]:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it never ended")

    asyncio.run(measured())
    after = daemon.runtime.controller.profiles
    assert {one.runs for one in after.values()} == {50} != {one.runs for one in before.values()}


@pytest.mark.parametrize("path", ["/admin/drain", "/admin/recalibrate", "/admin/rollback"])
def test_what_takes_no_members_takes_none(admin: Client, path: str) -> None:
    check_problem(admin.request("POST", path, json={"now": True}, headers=BEARER), "malformed-request", 400)


ENDPOINTS = {
    "/admin/policy": ("GET", "PUT"),
    "/admin/bundle": ("POST",),
    "/admin/rollback": ("POST",),
    "/admin/drain": ("POST",),
    "/admin/recalibrate": ("POST",),
}


@pytest.mark.parametrize("path", ENDPOINTS)
def test_whoever_has_no_unrestricted_token_is_kept_out(admin: Client, path: str) -> None:
    for method in ENDPOINTS[path]:
        check_problem(admin.request(method, path), "unauthorized", 401)
        restricted = {"authorization": f"Bearer {OTHER}"}
        check_problem(admin.request(method, path, headers=restricted), "forbidden", 403)
    response = admin.request("DELETE", path, headers=BEARER)
    check_problem(response, "method-not-allowed", 405)
    assert set(ENDPOINTS[path]) == set(response.headers["allow"].split(", ")) - {"HEAD"}


def test_without_a_token_file_admin_is_closed(root: Path, tmp_path: Path) -> None:
    daemon = open_daemon(Settings(bundle=root / "a", engine="sim", cache_dir=tmp_path / "cache", profile_rounds=10))
    for path, methods in ENDPOINTS.items():
        for method in methods:
            check_problem(Client(daemon.app).request(method, path), "forbidden", 403)
    daemon.close(PATIENCE_S)


def test_bundles_come_from_another_folder_if_that_is_named(root: Path, tmp_path: Path) -> None:
    (tmp_path / "inbox").mkdir()
    write_test_bundle(tmp_path / "inbox" / "c", seed=2)
    more: Dict[str, Any] = {"bundle_root": tmp_path / "inbox", "token_file": root / "tokens"}
    daemon = open_daemon(
        Settings(bundle=root / "a", engine="sim", cache_dir=tmp_path / "cache", profile_rounds=10, **more)
    )
    client = Client(daemon.app)
    for path, status in ((str(root / "b"), 422), ("c", 200)):
        assert client.request("POST", "/admin/bundle", json={"path": path}, headers=BEARER).status_code == status
    daemon.close(PATIENCE_S)
