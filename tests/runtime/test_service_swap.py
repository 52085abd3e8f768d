"""Changing the bundle that is served, while it is served."""

import asyncio
import contextlib
import gc
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any, Awaitable, Callable, Dict, Iterator, List, Tuple

import numpy as np
import pytest

from tests.runtime.fakes import PATIENCE_S, SLOW_MS, Client, SettableBackend, check_problem, make_service, ones, v2_body
from tests.supernets import write_test_bundle
from wenet_runtime.bundle import GOLDEN, Bundle
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.service.app import create_app
from wenet_runtime.service.daemon import Daemon, open_daemon
from wenet_runtime.service.inference import Service
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.serving import Serving
from wenet_runtime.service.swap import Bundles
from wenet_runtime.service.tally import KEPT
from wenet_runtime.settings import Settings


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bundles side by side: a with three modes, b with two, and some that are damaged."""
    root = tmp_path_factory.mktemp("bundles")
    write_test_bundle(root / "a")
    write_test_bundle(root / "b", seed=1, levels=(16, 1))
    shutil.copytree(str(root / "b"), str(root / "damaged"))
    with (root / "damaged" / GOLDEN).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    return root


@pytest.fixture
def daemon(root: Path, tmp_path: Path) -> Iterator[Daemon]:
    one = open_daemon(Settings(bundle=root / "a", engine="sim", cache_dir=tmp_path / "cache", profile_rounds=10))
    yield one
    one.close(PATIENCE_S)


def sums(root: Path) -> Tuple[str, str]:
    return Bundle(root / "a").sha256, Bundle(root / "b").sha256


async def until(reached: Callable[[], bool]) -> None:
    for _ in range(int(PATIENCE_S * 200)):
        if reached():
            return
        await asyncio.sleep(0.005)
    raise AssertionError("it did not come")


def test_another_bundle_is_served_and_the_one_before_again(daemon: Daemon, root: Path) -> None:
    a, b = sums(root)
    client = Client(daemon.app)

    async def changed() -> None:
        assert await daemon.bundles.swap("b") == (b, a)
        modes = (await client.arequest("GET", "/modes")).json()
        assert (modes["bundle_sha256"], [one["id"] for one in modes["modes"]]) == (b, ["m1", "m0"])
        assert (await client.arequest("POST", "/infer", json=v2_body(ones()))).status_code == 200
        assert await daemon.bundles.rollback() == (a, b)
        modes = (await client.arequest("GET", "/modes")).json()
        assert (modes["bundle_sha256"], len(modes["modes"])) == (a, 3)
        assert (await client.arequest("POST", "/infer", json=v2_body(ones()))).status_code == 200

    asyncio.run(changed())
    text = daemon.service.metrics.render().decode()
    assert 'wenet_bundle_swaps_total{outcome="done"} 1.0' in text
    assert 'wenet_bundle_swaps_total{outcome="rolled_back"} 1.0' in text
    assert f'wenet_bundle_info{{sha256="{a}"}} 1.0' in text
    assert b not in text


def test_what_was_gone_back_from_is_freed_and_there_is_nothing_more_to_go_back_to(daemon: Daemon) -> None:
    async def changed() -> Serving:
        await daemon.bundles.swap("b")
        new = daemon.service.active
        await daemon.bundles.rollback()
        with pytest.raises(Problem, match="is being changed"):
            await daemon.bundles.rollback()
        await until(lambda: not daemon.bundles.state["changing"])
        with pytest.raises(Problem, match="no bundle to go back to"):
            await daemon.bundles.rollback()
        return new

    new = asyncio.run(changed())
    assert not new.runtime.alive
    assert not new.runtime.pool.resident
    assert daemon.runtime.alive


def test_an_event_loop_that_ends_at_once_after_going_back_is_not_warned_of(daemon: Daemon) -> None:
    async def changed() -> None:
        await daemon.bundles.swap("b")
        await daemon.bundles.rollback()
        assert daemon.bundles._at_work is not None
        daemon.bundles._at_work.cancel()  # before it has begun

    asyncio.run(changed())
    gc.collect()  # a coroutine that nobody awaited is told of here


def test_the_bundle_before_is_kept_whole_until_the_next_one_comes(daemon: Daemon) -> None:
    async def changed() -> None:
        first = daemon.service.active
        await daemon.bundles.swap("b")
        assert first.runtime.alive
        assert len(first.runtime.pool.resident) == 3
        await daemon.bundles.swap("a")
        assert not first.runtime.alive
        assert not first.runtime.pool.resident

    asyncio.run(changed())


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("damaged", "the file was changed"),
        ("nowhere", "there is no bundle"),
        ("../a", "not inside the folder"),
    ],
)
def test_what_is_no_sound_bundle_changes_nothing(
    daemon: Daemon, root: Path, path: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, threads = daemon.service.active, names()

    async def refused() -> None:
        with pytest.raises(Problem, match=said) as caught:
            await daemon.bundles.swap(path)
        assert caught.value.slug == "bundle-invalid"
        assert str(root) not in caught.value.detail

    asyncio.run(refused())
    assert daemon.service.active is before
    assert names() == threads
    assert Client(daemon.app).infer().status_code == 200
    assert 'wenet_bundle_swaps_total{outcome="failed"} 1.0' in daemon.service.metrics.render().decode()


def test_a_damaged_bundle_costs_not_even_the_one_before(daemon: Daemon) -> None:
    async def refused() -> None:
        first = daemon.service.active
        await daemon.bundles.swap("b")
        with pytest.raises(Problem, match="the file was changed"):
            await daemon.bundles.swap("damaged")
        await daemon.bundles.rollback()
        assert daemon.service.active is first

    asyncio.run(refused())


class Defect(Exception):
    """What goes wrong where nothing was foreseen."""


@pytest.mark.parametrize(
    "where",
    [
        "wenet_runtime.service.opening.Costs.known_or_measured",
        "wenet_runtime.service.opening._backend",
        "wenet_runtime.service.assembly.Controller.__init__",
        "wenet_runtime.service.assembly.check_feasible",
        "wenet_runtime.service.assembly.make_scheduler",
        "wenet_runtime.service.assembly.Decisions.__init__",
        "wenet_runtime.pool.Canary.check",
    ],
)
@pytest.mark.parametrize("error", [EngineError, Defect])
def test_whatever_fails_leaves_the_old_one_serving_and_nothing_behind(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch, where: str, error: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*parts: Any, **how: Any) -> None:
        raise error("broken, see /srv/secret")

    before = daemon.service.active
    gc.collect()
    files, threads = open_files(), names()

    async def failed() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(where, fail)
            with pytest.raises(Problem if error is EngineError else Defect) as caught:
                await daemon.bundles.swap("b")
        assert error is Defect or "secret" not in str(caught.value)
        assert not daemon.bundles.state["changing"]

    asyncio.run(failed())
    assert daemon.service.active is before
    gc.collect()
    assert names() == threads
    assert open_files() == files
    assert Client(daemon.app).infer().status_code == 200


def names() -> List[str]:
    """Of the threads, but the framework's own for what may block, which it ends itself."""
    return sorted(one.name for one in threading.enumerate() if "AnyIO" not in one.name)


def open_files(below: Path = Path("/")) -> List[str]:
    """Files that this process has open, of those below a folder."""
    found = []
    for one in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names of descriptors
        with contextlib.suppress(OSError):
            found.append(os.readlink(f"/proc/self/fd/{one}"))
    return sorted(one for one in found if one.startswith(str(below)) and not one.startswith(("/dev", "/proc", "/sys")))


def test_changes_again_and_again_leave_nothing_behind(root: Path, tmp_path: Path) -> None:
    """On a real engine, which maps what it has built."""
    daemon = open_daemon(Settings(bundle=root / "a", meter="none", cache_dir=tmp_path / "cache", profile_rounds=10))

    async def changed() -> List[Tuple[List[str], List[str]]]:
        found = []
        for _ in range(4):
            for path in ("b", "a"):
                await daemon.bundles.swap(path)
            # Below this test's own folder: other tests of the process may have left theirs to the collector.
            found.append((names(), open_files(tmp_path)))
        return found

    first, *others = asyncio.run(changed())
    assert len([one for one in first[1] if one.endswith("modes.bin")]) == 2
    assert others == [first] * 3
    daemon.close(PATIENCE_S)


def test_the_policy_is_held_against_the_new_bundle(daemon: Daemon) -> None:
    daemon.service.defaults = type(daemon.service.defaults)(mode="m2")

    async def refused() -> None:
        with pytest.raises(Problem, match="no mode 'm2'") as caught:
            await daemon.bundles.swap("b")
        assert caught.value.slug == "bundle-invalid"

    asyncio.run(refused())


def test_one_change_at_a_time(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    let, verify = threading.Event(), daemon.bundles._preparing.verify

    def slow(place: Path) -> Bundle:
        assert let.wait(PATIENCE_S)
        return verify(place)

    monkeypatch.setattr(daemon.bundles._preparing, "verify", slow)

    async def twice() -> None:
        first = asyncio.ensure_future(daemon.bundles.swap("b"))
        await until(lambda: bool(daemon.bundles.state["changing"]))
        for other in (daemon.bundles.swap("a"), daemon.bundles.rollback()):
            with pytest.raises(Problem) as caught:
                await other
            assert caught.value.slug == "conflict"
        assert (await Client(daemon.app).arequest("POST", "/infer", json=v2_body(ones()))).status_code == 200
        let.set()
        await first

    asyncio.run(twice())


def test_no_change_begins_or_ends_while_the_server_stops(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    before, opened = daemon.service.active, []
    open_next = daemon.bundles._preparing.open_next

    def meanwhile(bundle: Bundle) -> Serving:
        opened.append(open_next(bundle))
        daemon.bundles.drain()
        return opened[0]

    monkeypatch.setattr(daemon.bundles._preparing, "open_next", meanwhile)

    async def stopped() -> None:
        for change in (daemon.bundles.swap, lambda path: daemon.bundles.rollback()):
            with pytest.raises(Problem, match="shutting down") as caught:
                await change("b")
            assert caught.value.slug == "conflict"

    asyncio.run(stopped())
    assert daemon.service.active is before
    assert not opened[0].runtime.alive


def test_a_long_opening_ends_of_itself_once_the_server_stops(daemon: Daemon, root: Path) -> None:
    daemon.bundles.drain()
    with pytest.raises(Problem, match="shutting down"):
        daemon.bundles._preparing.open_next(Bundle(root / "b"))


class Rig:
    """Bundles on engines that a test holds: what is opened next is what it says."""

    def __init__(self, bundle: Bundle, **how: Any) -> None:
        self.bundle = bundle
        self.backends: List[SettableBackend] = []
        self.servings: List[Serving] = []
        self.service = self._made()
        self.bundles = Bundles(
            self.service,
            verify=lambda place: bundle,
            open_next=lambda verified: self._made().active,
            root=bundle.path.parent,
            look_s=0.001,
            **how,
        )
        self.client = Client(create_app(self.service), self.service)

    def _made(self) -> Service:
        self.backends.append(SettableBackend(self.bundle))
        service = make_service(self.bundle, self.backends[-1], medians_ms=SLOW_MS)
        self.servings.append(service.active)
        return service

    async def swap(self) -> None:
        await self.bundles.swap(self.bundle.path.name)

    def ask(self, value: float, **headers: str) -> "asyncio.Future[Any]":
        body = v2_body(ones(value=value))
        return asyncio.ensure_future(self.client.arequest("POST", "/infer", json=body, headers=headers))

    def close(self) -> None:
        for backend in self.backends:
            backend.release()
        for serving in self.servings:
            serving.close(PATIENCE_S)


def driven(bundle: Bundle, story: Callable[[Rig], Awaitable[None]], **how: Any) -> Rig:
    """Run a story in one event loop."""

    async def told() -> Rig:
        rig = Rig(bundle, **how)
        try:
            await story(rig)
        finally:
            rig.close()
        return rig

    return asyncio.run(told())


def test_requests_finish_on_the_bundle_that_admitted_them_and_it_is_freed_after_the_last(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        rig.backends[0].hold()
        waiting = [rig.ask(value) for value in (1.0, 2.0, 3.0)]
        await until(lambda: rig.service.runtime.pending == 3)
        await rig.swap()
        assert rig.bundles.pending == 3
        assert (await rig.ask(4.0)).status_code == 200
        third = asyncio.ensure_future(rig.swap())  # it needs the first one's memory
        await asyncio.sleep(0.05)
        assert not third.done()
        assert rig.servings[0].runtime.alive
        rig.backends[0].release()
        assert [one.status_code for one in await asyncio.gather(*waiting)] == [200] * 3
        await third
        assert not rig.servings[0].runtime.alive

    rig = driven(bundle, story)
    assert sorted(rig.backends[0].first_numbers) == [1.0, 2.0, 3.0]
    assert rig.backends[1].first_numbers == [4.0]


def test_a_request_whose_body_is_still_on_its_way_is_answered_by_the_bundle_that_it_began_with(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        content = json.dumps(v2_body(ones(value=7.0))).encode()
        go = asyncio.Event()

        async def slowly() -> Any:
            yield content[:10]
            await go.wait()
            yield content[10:]

        # What httpx gives an application comes piece by piece.
        slow = asyncio.ensure_future(
            rig.client.arequest("POST", "/infer", content=slowly(), headers={"content-type": "application/json"})
        )
        await until(lambda: rig.servings[0].tally.open == 1)
        await rig.swap()
        go.set()
        assert (await slow).status_code == 200

    assert driven(bundle, story).backends[0].first_numbers == [7.0]


def test_a_bundle_whose_requests_do_not_end_is_not_closed_under_them(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wenet_runtime.service.swap.LEAVE_S", 0.05)

    async def story(rig: Rig) -> None:
        rig.backends[0].hold()
        waiting = rig.ask(1.0)
        await until(lambda: rig.service.runtime.pending == 1)
        await rig.swap()
        with pytest.raises(Problem, match="still under way") as caught:
            await rig.swap()
        assert caught.value.slug == "conflict"
        rig.backends[0].release()
        assert (await waiting).status_code == 200

    driven(bundle, story)


def test_requests_of_a_bundle_that_was_gone_back_from_are_waited_for(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        await rig.swap()
        rig.backends[1].hold()
        waiting = rig.ask(1.0)
        await until(lambda: rig.service.runtime.pending == 1)
        await rig.bundles.rollback()
        rig.bundles.drain()
        assert rig.bundles.pending == 1
        assert rig.servings[1].runtime.draining
        rig.backends[1].release()
        assert (await waiting).status_code == 200
        await until(lambda: not rig.servings[1].runtime.alive)

    driven(bundle, story)


@pytest.mark.parametrize("what", ["verify", "open_next"])
def test_what_is_opened_is_not_waited_for_once_no_work_is_taken_and_is_closed_when_it_is_there(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    async def story(rig: Rig) -> None:
        entered, let, usual = threading.Event(), threading.Event(), getattr(rig.bundles._preparing, what)

        def slow(given: Any) -> Any:
            entered.set()
            assert let.wait(PATIENCE_S)
            return usual(given)

        monkeypatch.setattr(rig.bundles._preparing, what, slow)
        asked = asyncio.ensure_future(rig.client.arequest("GET", "/v2/health/live"))
        changing = asyncio.ensure_future(rig.swap())
        await until(entered.is_set)
        rig.bundles.refuse()
        with pytest.raises(Problem, match="shutting down") as caught:
            await changing
        assert (caught.value.slug, let.is_set(), rig.bundles._busy) == ("conflict", False, False)
        monkeypatch.setattr("wenet_runtime.service.preparing.STOP_S", 0.01)
        assert not rig.bundles._preparing.join()
        let.set()
        monkeypatch.setattr("wenet_runtime.service.preparing.STOP_S", PATIENCE_S)
        assert rig.bundles._preparing.join()
        assert (await asked).status_code == 200
        assert rig.service.active is rig.servings[0]
        assert [one.runtime.alive for one in rig.servings[1:]] == [False] * (what == "open_next")

    rig = driven(bundle, story)
    assert 'wenet_bundle_swaps_total{outcome="failed"} 1.0' in rig.service.metrics.render().decode()


def hits(rig: Rig, at: int, met: int, missed: int) -> None:
    for verdict in [True] * met + [False] * missed:
        rig.servings[at].tally.answered(verdict)


def test_a_bundle_that_misses_more_budgets_than_the_one_before_is_given_up(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(rig: Rig) -> None:
        hits(rig, 0, KEPT, 0)
        await rig.swap()
        assert rig.bundles.state["watched"]
        hits(rig, 1, 30, 30)
        await until(lambda: rig.service.active is rig.servings[0])
        state = (await rig.client.arequest("GET", "/v2/health")).json()["bundle"]
        assert state["rolled_back"]["reason"] == "budgets held in 50.0% of 60 requests, and in 100.0% of 1000 before"
        assert state["previous_sha256"] is None
        assert not state["watched"]
        await until(lambda: not rig.servings[1].runtime.alive)
        assert (await rig.ask(1.0)).status_code == 200

    rig = driven(bundle, story)
    assert 'wenet_bundle_swaps_total{outcome="rolled_back"} 1.0' in rig.service.metrics.render().decode()
    assert [one.levelname for one in caplog.records if "is served again" in one.message] == ["WARNING"]


def test_a_bundle_whose_engine_fails_is_given_up(bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    async def story(rig: Rig) -> None:
        await rig.swap()
        for _ in range(3):
            rig.servings[1].tally.failed("internal", None)
        await until(lambda: rig.service.active is rig.servings[0])

    driven(bundle, story)


def test_a_bundle_that_does_as_well_is_watched_for_a_time_and_stays(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        hits(rig, 0, KEPT, 0)
        await rig.swap()
        hits(rig, 1, 60, 0)
        await until(lambda: not rig.bundles.state["watched"])
        hits(rig, 1, 0, 500)  # later trouble is no longer that of a change
        await asyncio.sleep(0.02)
        assert rig.service.active is rig.servings[1]

    driven(bundle, story, window_s=0.05)


def test_a_new_bundle_is_watched_only_until_the_next_one(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        hits(rig, 0, KEPT, 0)
        await rig.swap()
        await rig.swap()
        hits(rig, 1, 0, 500)
        await asyncio.sleep(0.02)
        assert rig.service.active is rig.servings[2]

    driven(bundle, story)


def test_stopping_reaches_both_bundles(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        await rig.swap()
        rig.bundles.drain()
        assert [one.runtime.draining for one in rig.servings] == [True, True]
        rig.bundles.refuse()
        check_problem(await rig.ask(1.0), "draining", 503)
        with pytest.raises(Problem, match="shutting down"):
            rig.bundles.end()

    driven(bundle, story)


def test_what_the_device_does_is_told_to_both_bundles(daemon: Daemon) -> None:
    async def changed() -> None:
        daemon.runtime.controller.throttled = True
        await daemon.bundles.swap("b")

    asyncio.run(changed())
    assert daemon.runtime.controller.throttled
    daemon.watch._told.throttled(False)
    assert [one.controller.throttled for one in daemon.bundles.runtimes] == [False, False]
    factors: Dict[int, float] = {}
    for number, runtime in enumerate(daemon.bundles.runtimes):
        factors[number] = runtime.forecast().medians_ms[0]
    daemon.watch._told.clock_changed(0.5)
    for number, runtime in enumerate(daemon.bundles.runtimes):
        assert runtime.forecast().medians_ms[0] > factors[number]


def test_closing_closes_both_bundles_and_the_meter_that_they_share(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = open_daemon(
        Settings(bundle=root / "a", engine="sim", meter="sim", cache_dir=tmp_path / "cache", profile_rounds=10)
    )
    closed: List[str] = []
    monkeypatch.setattr(daemon.meter, "close", lambda: closed.append("meter"))

    async def changed() -> None:
        await daemon.bundles.swap("b")
        await daemon.bundles.swap("a")

    asyncio.run(changed())
    assert closed == []
    assert daemon.runtime.meter.source == "sim"
    runtimes = daemon.bundles.runtimes
    assert len(runtimes) == 2
    assert daemon.close(PATIENCE_S)
    assert closed == ["meter"]
    assert not any(one.alive or one.pool.resident for one in runtimes)


def test_a_bundle_error_is_told_without_its_path(bundle: Bundle) -> None:
    async def story(rig: Rig) -> None:
        def refuse(place: Path) -> Bundle:
            raise BundleError(f"{place} is a symbolic link: refused")

        rig.bundles._preparing.verify = refuse
        with pytest.raises(Problem) as caught:
            await rig.swap()
        assert caught.value.detail == "… is a symbolic link: refused"

    driven(bundle, story)


def test_no_request_fails_while_the_bundle_changes_and_each_answer_is_that_of_its_bundle(
    root: Path, tmp_path: Path
) -> None:
    """On the real engine, with clients that never pause."""
    daemon = open_daemon(Settings(bundle=root / "a", meter="none", cache_dir=tmp_path / "cache", profile_rounds=10))
    client, golden = Client(daemon.app), {name: Bundle(root / name).golden() for name in ("a", "b")}
    body = {name: v2_body(one["input.input"][:1]) for name, one in golden.items()}
    answers: List[Tuple[str, Any]] = []

    async def ask(name: str, done: asyncio.Event) -> None:
        while not done.is_set():
            answers.append((name, await client.arequest("POST", "/infer", json=body[name])))

    async def changed() -> None:
        done = asyncio.Event()
        asking = [asyncio.ensure_future(ask(name, done)) for name in ("a", "b", "a", "b")]
        for path in ("b", "a", "b"):
            await daemon.bundles.swap(path)
        done.set()
        await asyncio.gather(*asking)

    asyncio.run(changed())
    assert {reply.status_code for _, reply in answers} == {200}
    own = 0
    for name, reply in answers:
        found = np.array(reply.json()["outputs"][0]["data"])
        key = f"{reply.headers['wenet-mode']}.logits"
        # Its own bundle's golden answer, or one of the other bundle, which nothing is recorded for.
        own += np.allclose(found, golden[name][key][0], rtol=1e-3, atol=1e-4) if key in golden[name] else 0
    assert 0 < own < len(answers)
    daemon.close(PATIENCE_S)
