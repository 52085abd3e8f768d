import dataclasses

import numpy as np
import pytest

from wenet_trainer.cost import Costs, LayerCost
from wenet_trainer.errors import ExploreError
from wenet_trainer.evaluate import wilson
from wenet_trainer.explore.finalists import Finalist, chosen, named
from wenet_trainer.explore.finals import (
    Measured,
    check_kept,
    dropped_of,
    keep_for_all,
    keep_here,
    modes_of,
    notes,
    ordered,
)
from wenet_trainer.explore.problem import Cost, Found, Limits, Seen
from wenet_trainer.space import GroupConfig

COSTS = Costs({"a": LayerCost(4, 256, 16), "b": LayerCost(4, 256, 16)}, 100, 10)


def finalist(name, groups, accuracy, precision="fp32", **predicted):
    def never():
        raise AssertionError("nothing is opened here")

    config = GroupConfig({"a": groups, "b": groups})
    return Finalist(name, config, precision, wilson(round(1000 * accuracy), 1000), never, "programme", predicted)


def measured(**times):
    rng = np.random.default_rng(0)
    noise = 1 + 0.001 * rng.random(100)
    return {name: Measured(time * noise * (1 + 0.001 * rng.random(100)), None) for name, time in times.items()}


def test_a_mode_hardly_faster_than_a_more_accurate_one_is_dropped_by_name():
    found = [finalist("c0", 1, 0.95), finalist("c1", 2, 0.94), finalist("c2", 4, 0.9)]
    times = measured(c0=10.0, c1=9.9, c2=5.0)
    kept, left = keep_here(found, times, Limits(), 8)
    assert [one.id for one in kept] == ["c0", "c2"]
    ((one, why),) = left
    assert one.id == "c1"
    modes = modes_of(kept, times, COSTS, "none")
    assert [mode.id for mode in modes] == ["m0", "m1"]
    assert modes[0].groups == {"a": 4, "b": 4}
    assert (modes[0].macs, modes[0].params) == (100 + 2 * 4 * 64, 10 + 2 * (64 + 16))
    names = {one.id: mode.id for one, mode in zip(ordered(kept, times), modes, strict=True)}
    (dropped,) = dropped_of(left, times, names)
    assert "than m1, which is more accurate (0.9500 against 0.9400)" in dropped.why
    assert why != dropped.why


def test_limits_are_kept_by_all_but_the_full_network():
    found = [finalist("c0", 1, 0.95), finalist("c1", 2, 0.94), finalist("c2", 4, 0.9), finalist("c3", 8, 0.7)]
    times = measured(c0=10.0, c1=8.0, c2=5.0, c3=2.0)
    kept, left = keep_here(found, times, Limits(max_ms=6.0, min_accuracy=0.8), 8)
    assert [one.id for one in kept] == ["c0", "c2"]
    reasons = {one.id: why for one, why in left}
    assert "above --max-ms 6" in reasons["c1"]
    assert "below --min-accuracy 0.8000" in reasons["c3"]
    check_kept(kept, left, Limits(max_ms=6.0, min_accuracy=0.8))


def test_limits_that_only_the_full_network_is_left_by_are_refused():
    found = [finalist("c0", 1, 0.95), finalist("c1", 2, 0.94)]
    kept, left = keep_here(found, measured(c0=10.0, c1=8.0), Limits(max_ms=1.0), 8)
    with pytest.raises(
        ExploreError, match=r"no mode but the full network keeps the limits; of 1 measured.*8\.\d* ms, above --max-ms 1"
    ):
        check_kept(kept, left, Limits(max_ms=1.0))
    with pytest.raises(ExploreError, match=r"no mode but the full network keeps the limits\. Ask for less"):
        check_kept(kept[:1], [], Limits(min_accuracy=0.9))  # the search left none within them
    check_kept(kept[:1], [], Limits())  # no limit: nothing was better than the full network


def test_the_full_network_stays_whatever_is_measured_and_a_note_says_so():
    full = finalist("c0", 1, 0.7)
    kept, left = keep_here([full, finalist("c1", 2, 0.9)], measured(c0=10.0, c1=8.0), Limits(min_accuracy=0.8), 8)
    assert {one.id for one in kept} == {"c0", "c1"}
    assert left == []
    (note,) = notes(kept, Limits(min_accuracy=0.8))
    assert "the full network is kept" in note
    assert notes(kept, Limits()) == ()


def test_modes_for_several_devices_are_those_that_any_of_them_would_keep():
    found = [
        finalist("c0", 1, 0.95, nano=100.0, orin=10.0),
        finalist("c1", 2, 0.94, nano=60.0, orin=9.9),  # worth it on the one
        finalist("c2", 4, 0.93, nano=60.0, orin=6.0),  # and on the other
        finalist("c3", 8, 0.90, nano=59.9, orin=5.99),  # on neither
        finalist("c1 int8", 2, 0.935, "int8", nano=60.0, orin=9.9),
        finalist("c3 int8", 8, 0.89, "int8", nano=59.9, orin=5.99),
    ]
    kept, left = keep_for_all(found, ["nano", "orin"], Limits(), 8)
    assert {one.id for one in kept} == {"c0", "c1", "c2", "c1 int8"}
    reasons = {one.id: why for one, why in left}
    assert set(reasons) == {"c3", "c3 int8"}
    assert "on nano: not measurably faster" in reasons["c3"]
    assert "; on orin: " in reasons["c3"]
    assert "its configuration is not kept in fp32" in reasons["c3 int8"]


def test_a_predicted_energy_above_the_limit_is_not_kept():
    frugal, hungry = finalist("c1", 2, 0.94, nano=60.0), finalist("c2", 4, 0.93, nano=30.0)
    full = finalist("c0", 1, 0.95, nano=100.0)
    found = [
        dataclasses.replace(one, predicted_mj={"nano": energy})
        for one, energy in ((full, 90.0), (frugal, 50.0), (hungry, 80.0))
    ]
    kept, left = keep_for_all(found, ["nano"], Limits(max_mj=60.0), 8)
    assert [one.id for one in kept] == ["c0", "c1"]
    assert [(one.id, why) for one, why in left] == [("c2", "on nano: it is predicted to take 80 mJ, above --max-mj 60")]


def test_names_say_all_that_finalists_differ_in():
    config = GroupConfig({"a": 1, "b": 1, "c": 8})
    assert named(config, "int8") == "1×2 8×1 int8"
    assert len({named(GroupConfig({"a": x, "b": y}), k) for x in (1, 2) for y in (1, 2) for k in ("fp32", "int8")}) == 8


def seen(groups, accuracy, latency_ms, energy_mj=None):
    config = GroupConfig({"a": groups[0], "b": groups[1]})
    return Seen(config, accuracy, Cost(latency_ms, energy_mj), "programme")


def test_finalists_are_the_front_within_the_limits_the_full_network_and_the_searchs_result():
    full, good, beaten, slow = seen((1, 1), 0.9, 10), seen((2, 2), 0.85, 5), seen((4, 2), 0.8, 6), seen((2, 1), 0.88, 9)
    low = seen((8, 8), 0.5, 1)
    found = Found((good, beaten, full, slow, low), result=beaten.groups)
    picked = chosen(found, full.groups, Limits(max_ms=8, min_accuracy=0.6), 16)
    assert {one.groups for one in picked} == {full.groups, good.groups, beaten.groups}
    assert len(chosen(found, full.groups, Limits(), 16)) == 5
    assert {one.groups for one in chosen(found, full.groups, Limits(), 2)} == {full.groups, beaten.groups}


def test_energy_that_only_some_tell_decides_nothing():
    full, slow = seen((1, 1), 0.9, 10, 10), seen((4, 4), 0.8, 11)
    picked = chosen(Found((full, slow)), full.groups, Limits(), 16)
    assert [one.groups for one in picked] == [full.groups]


def test_a_frugal_configuration_is_a_finalist_though_it_is_slower():
    full, fast, frugal = seen((1, 1), 0.9, 10, 10), seen((2, 2), 0.85, 5, 9), seen((4, 4), 0.8, 6, 2)
    picked = chosen(Found((full, fast, frugal)), full.groups, Limits(), 16)
    assert {one.groups for one in picked} == {full.groups, fast.groups, frugal.groups}
