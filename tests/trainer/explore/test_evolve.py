import builtins

import pytest

from tests.trainer.explore.toys import Toy
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.evolve import evolve, explore
from wenet_trainer.explore.problem import Limits

pytest.importorskip("pymoo")


def dominated(one, others):
    return any(
        other.accuracy >= one.accuracy
        and other.cost.latency_ms <= one.cost.latency_ms
        and (other.accuracy, other.cost.latency_ms) != (one.accuracy, one.cost.latency_ms)
        for other in others
    )


def test_generations_improve_on_the_first_population():
    toy = Toy(evaluations=200)
    seen = explore(toy.problem()).seen
    assert {one.found_by for one in seen} == {"uniform", "evolution"}
    first, later = seen[:20], seen[20:]
    assert sum(dominated(one, later) for one in first) > sum(dominated(one, first) for one in later[-20:])
    assert any(not dominated(one, first) for one in later)


@pytest.mark.parametrize("evaluations", [2, 30, 150])
def test_no_more_is_evaluated_than_allowed_and_nothing_twice(evaluations):
    toy = Toy(evaluations=evaluations)
    found = explore(toy.problem())
    asked = [config for call in toy.calls for config in call]
    assert len(asked) == len(set(asked)) == len(found.seen) == evaluations


def test_the_same_seed_asks_the_same_and_another_does_not():
    first, second, third = (explore(Toy(seed=seed, evaluations=80).problem()).seen for seed in (5, 5, 6))
    assert first == second
    assert first != third


def test_a_small_space_is_exhausted_and_the_search_ends():
    assert len(explore(Toy(shape=(2, 2), evaluations=50).problem()).seen) == 4


def test_energy_is_an_objective_and_limits_are_kept_to():
    limits = Limits(max_ms=17.0, max_mj=45.0, min_accuracy=0.75)
    toy = Toy(with_energy=True, limits=limits, evaluations=200)
    late = explore(toy.problem()).seen[-50:]
    kept = [one for one in late if one.cost.latency_ms <= 17.0 and one.cost.energy_mj <= 45.0 and one.accuracy >= 0.75]
    assert len(kept) > 25


def test_seeds_are_in_the_first_population():
    toy = Toy(evaluations=60)
    seed = toy.space.config([1, 2, 0, 3, 1, 2])
    evolve(toy.problem(), [seed])
    assert seed in toy.calls[1]


def test_without_pymoo_it_says_what_to_install(monkeypatch):
    plain = builtins.__import__

    def without(name, *rest, **named):
        if name.startswith("pymoo"):
            raise ImportError("No module named 'pymoo'")
        return plain(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ExploreError, match=r"pip install 'wenet-trainer\[search\]'"):
        explore(Toy().problem())
