"""What modes take together, and which of them go for another: shared numbers once."""

from typing import Dict, List, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wenet_runtime.engines.base import Artifact
from wenet_runtime.memory import Footprint, added, evicted_for, footprint_of, together

# Four modes of 10, 20, 30 and 40 bytes, each with 5 that all of them share.
MODES = {f"m{size}": Footprint({0: 5, size: size - 6}, 1) for size in (10, 20, 30, 40)}


def test_a_mode_takes_its_numbers_and_its_model() -> None:
    values = np.zeros(100, np.float32)
    one = footprint_of(Artifact(b"model", {"a": values, "again": values, "b": np.zeros(3, np.int64)}))
    assert one.own == 5
    assert one.alone == 5 + 400 + 24


def test_what_is_shared_is_counted_once() -> None:
    assert MODES["m10"].alone == 10
    assert together([MODES["m10"], MODES["m20"]]) == 25
    assert added(MODES["m20"], [MODES["m10"]]) == 15
    assert added(MODES["m20"], []) == 20
    assert together([]) == 0


@pytest.mark.parametrize(
    ("coming", "going", "staying", "limit", "evicted"),
    [
        ("m10", [], [], 10, []),
        ("m10", [], [], 9.5, None),
        ("m20", [], ["m10"], 25, []),
        ("m20", [], ["m10"], 24, None),
        ("m20", ["m30", "m40"], ["m10"], 85, []),  # all four fit
        ("m20", ["m30", "m40"], ["m10"], 84, ["m30"]),
        ("m20", ["m40", "m30"], ["m10"], 84, ["m40"]),
        ("m20", ["m30", "m40"], ["m10"], 59, ["m30", "m40"]),
        ("m20", ["m30", "m40"], ["m10"], 24, None),
    ],
)
def test_as_few_as_will_do_go_in_their_order(
    coming: str, going: List[str], staying: List[str], limit: float, evicted: Optional[List[str]]
) -> None:
    assert evicted_for(coming, going, staying, MODES, limit) == evicted


sizes = st.dictionaries(st.integers(0, 5), st.integers(1, 50), max_size=4)


@given(
    modes=st.lists(st.tuples(sizes, st.integers(0, 20)), min_size=1, max_size=5),
    limit=st.integers(1, 300),
    staying=st.integers(0, 4),
)
def test_what_is_left_fits_and_one_fewer_would_not(modes: List[object], limit: int, staying: int) -> None:
    places: Dict[int, int] = {}
    footprints: Dict[str, Footprint] = {}
    for number, (shared, own) in enumerate(modes):  # type: ignore[misc]
        for place, size in shared.items():  # the same place is of the same size in every mode
            places.setdefault(place, size)
        footprints[str(number)] = Footprint({place: places[place] for place in shared}, own)
    coming, *there = footprints
    stay, go = there[:staying], there[staying:]
    evicted = evicted_for(coming, go, stay, footprints, limit)

    def fits(count: int) -> bool:
        return together(footprints[one] for one in [coming, *stay, *go[count:]]) <= limit

    if evicted is None:
        assert not fits(len(go))
    else:
        assert evicted == go[: len(evicted)]
        assert fits(len(evicted))
        assert not evicted or not fits(len(evicted) - 1)
