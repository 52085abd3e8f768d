"""The quickest engine over all modes is chosen, and one that cannot run them is left out with its reason."""

import logging
from typing import Callable, Dict, List, Mapping, Optional, Sequence

import pytest

from wenet_runtime.bundle import Bundle, Mode
from wenet_runtime.engines import ENGINES
from wenet_runtime.engines.auto import AUTO, CANDIDATES, Selection, choose
from wenet_runtime.engines.base import Backend, Engine
from wenet_runtime.engines.sim import SimBackend
from wenet_runtime.errors import EngineError


class Host:
    """Engines whose times are said, and what became of each.

    Args:
        bundle: whose modes.
        times_ms: of each engine's modes, in order.
        absent: engines that are not installed.
        failing: engine → the mode that it cannot load.
        wrong: engine → the mode that it answers wrongly.
    """

    def __init__(
        self,
        bundle: Bundle,
        times_ms: Mapping[str, Sequence[float]],
        *,
        absent: Sequence[str] = (),
        failing: Optional[Mapping[str, str]] = None,
        wrong: Optional[Mapping[str, str]] = None,
    ) -> None:
        self._bundle = bundle
        self._times = times_ms
        self._absent = absent
        self._failing = failing or {}
        self._wrong = wrong or {}
        self.open: List[str] = []
        self.measured: List[List[str]] = []
        self.most_open = 0

    def choose(self) -> Selection:
        makers = {name: self._maker(name) for name in self._times}
        found = choose(makers, self._bundle.modes, load=self._load, check=self._check, measure=self._measure)
        assert self.open == []
        return found

    def _maker(self, name: str) -> Callable[[], Backend]:
        def make() -> Backend:
            if name in self._absent:
                raise EngineError(f"{name} is not installed")
            return Named(name, self._bundle, self.open)

        return make

    def _load(self, backend: Backend, mode: Mode) -> Engine:
        if self._failing.get(backend.name) == mode.id:
            raise EngineError(f"{backend.name} cannot load {mode.id}")
        self.open.append(f"{backend.name} {mode.id}")
        self.most_open = max(self.most_open, sum(" " in one for one in self.open))
        return Watched(f"{backend.name} {mode.id}", self.open)

    def _check(self, mode: Mode, engine: Engine) -> None:
        assert isinstance(engine, Watched)
        name, mode_id = engine.name.split()
        assert mode_id == mode.id
        if self._wrong.get(name) == mode.id:
            raise EngineError(f"{name} answers {mode.id} wrongly")

    def _measure(self, engines: Mapping[str, Engine]) -> Dict[str, float]:
        self.measured.append(list(engines))
        return {name: self._times[name][len(self.measured) - 1] for name in engines}


class Named(SimBackend):
    """A backend that says when it is closed."""

    def __init__(self, name: str, bundle: Bundle, opened: List[str]) -> None:
        super().__init__(bundle)
        self.name = name
        self._opened = opened
        opened.append(name)

    def close(self) -> None:
        self._opened.remove(self.name)


class Watched:
    """An engine that is never run."""

    def __init__(self, name: str, opened: List[str]) -> None:
        self.name = name
        self._opened = opened

    def infer(self, inputs: object) -> Dict[str, object]:
        raise AssertionError("run")

    def close(self) -> None:
        self._opened.remove(self.name)


def test_the_candidates_are_engines_and_auto_is_none() -> None:
    assert set(CANDIDATES) <= set(ENGINES)
    assert AUTO not in ENGINES
    assert "sim" not in CANDIDATES


def test_the_lowest_geometric_mean_wins_although_another_is_quicker_on_average(bundle: Bundle) -> None:
    host = Host(bundle, {"a": (100.0, 4.0, 4.0), "b": (90.0, 9.0, 9.0)})
    found = host.choose()
    assert found.engine == "a"
    assert found.mean_ms == {"a": pytest.approx(1600 ** (1 / 3)), "b": pytest.approx(7290 ** (1 / 3))}
    assert found.left_out == {}
    assert str(found) == "engine a chosen: a 11.7 ms, b 19.4 ms"


def test_of_equals_the_first_wins(bundle: Bundle) -> None:
    assert Host(bundle, {"b": (1.0, 2.0, 3.0), "a": (1.0, 2.0, 3.0)}).choose().engine == "b"


def test_every_mode_is_measured_on_all_engines_at_once_and_then_closed(bundle: Bundle) -> None:
    host = Host(bundle, {"a": (1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0)})
    host.choose()
    assert host.measured == [["a", "b"]] * len(bundle.modes)
    assert host.most_open == 2


def test_an_engine_that_is_not_installed_is_left_out_and_alone_nothing_is_measured(
    bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    host = Host(bundle, {"a": (1.0,), "b": (2.0,)}, absent=["a"])
    with caplog.at_level(logging.INFO):
        found = host.choose()
    assert found == Selection("b", {}, {"a": "a is not installed"})
    assert host.measured == []
    assert str(found) == "engine b chosen: no other is available; without a (a is not installed)"
    assert "engine a is left out: a is not installed" in caplog.text


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_engine_that_fails_a_mode_is_left_out_with_a_warning_however_quick_it_is(
    bundle: Bundle, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    failing = bundle.modes[at].id
    times = {"a": (3.0, 3.0, 3.0), "quick": (0.1, 0.1, 0.1), "b": (2.0, 2.0, 2.0)}
    found = Host(bundle, times, wrong={"quick": failing}).choose()
    assert found.engine == "b"
    assert found.mean_ms == {"a": pytest.approx(3.0), "b": pytest.approx(2.0)}
    assert found.left_out == {"quick": f"quick answers {failing} wrongly"}
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@pytest.mark.parametrize("at", [0, 1, 2])
def test_when_one_is_left_it_is_taken(bundle: Bundle, at: int) -> None:
    found = Host(bundle, {"a": (1.0, 1.0, 1.0), "b": (2.0, 2.0, 2.0)}, failing={"a": bundle.modes[at].id}).choose()
    assert (found.engine, found.mean_ms) == ("b", {})


def test_when_none_is_left_every_reason_is_named(bundle: Bundle) -> None:
    mode = bundle.modes[0].id
    with pytest.raises(EngineError, match=f"a cannot load {mode}; b answers {mode} wrongly"):
        Host(bundle, {"a": (1.0,), "b": (1.0,)}, failing={"a": mode}, wrong={"b": mode}).choose()
    with pytest.raises(EngineError, match="no engine can run this bundle here: a is not installed"):
        Host(bundle, {"a": (1.0,)}, absent=["a"]).choose()


def test_a_measurement_that_fails_closes_everything(bundle: Bundle) -> None:
    host = Host(bundle, {"a": (1.0,), "b": (1.0,)})  # times for one mode only
    with pytest.raises(IndexError):
        host.choose()
    assert host.open == []
