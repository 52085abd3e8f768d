"""How many threads a mode should have: what is measured decides, and a small gain is no reason for more."""

from typing import Any, Dict, List

import numpy as np
import pytest

from tests.runtime.fakes import ones
from wenet_runtime.engines.base import Tensors
from wenet_runtime.errors import EngineError
from wenet_runtime.threads import quickest, thread_counts, tuned


@pytest.mark.parametrize(
    ("cores", "counts"),
    [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 4]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])],
)
def test_powers_of_two_and_all_cores_are_tried(cores: int, counts: List[int]) -> None:
    assert thread_counts(cores) == counts


@pytest.mark.parametrize(
    ("medians_ms", "best"),
    [
        ({1: 10.0}, 1),
        ({1: 10.0, 2: 6.0, 4: 4.0}, 4),
        ({1: 10.0, 2: 9.6, 4: 9.4}, 4),  # 6 % over one thread
        ({1: 10.0, 2: 9.6, 4: 9.6}, 1),
        ({1: 10.0, 2: 6.0, 4: 5.8}, 2),
        ({1: 10.0, 2: 12.0, 4: 14.0}, 1),
        ({1: 10.0, 2: 12.0, 4: 5.0}, 4),
        ({4: 5.0, 2: 6.0, 1: 10.0}, 4),  # in whatever order
    ],
)
def test_more_threads_must_be_worth_it(medians_ms: Dict[int, float], best: int) -> None:
    assert quickest({count: np.array([median, median, 50.0]) for count, median in medians_ms.items()}) == best


class Counted:
    """An engine that notes its runs."""

    def __init__(self, threads: int, seen: List[Any], fail: bool = False) -> None:
        self._threads, self._seen, self._fail = threads, seen, fail

    def infer(self, inputs: Tensors) -> Dict[str, Any]:
        if self._fail:
            raise EngineError("no such number of threads")
        self._seen.append(self._threads)
        return {}

    def close(self) -> None:
        self._seen.append(f"closed {self._threads}")


def test_all_are_measured_in_turns_and_closed() -> None:
    seen: List[Any] = []
    assert tuned(lambda count: Counted(count, seen), {"input": ones()}, cores=3, rounds=10) in (1, 2, 3)
    runs = [one for one in seen if isinstance(one, int)]
    assert [runs.count(count) for count in (1, 2, 3)] == [13] * 3  # with the warm-up
    assert {tuple(sorted(runs[at : at + 3])) for at in range(9, 39, 3)} == {(1, 2, 3)}
    assert sorted(seen[-3:]) == ["closed 1", "closed 2", "closed 3"]


def test_what_was_opened_is_closed_when_one_fails() -> None:
    seen: List[Any] = []
    with pytest.raises(EngineError):
        tuned(lambda count: Counted(count, seen, fail=count == 2), {"input": ones()}, cores=2, rounds=10)
    assert {"closed 1", "closed 2"} <= set(seen)
