"""Bytes of binary tensors: nothing is copied that need not be, and no size is believed before it is checked."""

from typing import Any, List, Optional

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.runtime.fuzzing import examples
from wenet_runtime.manifest import TensorSpec
from wenet_runtime.service.problems import Problem
from wenet_runtime.service.v2binary import Tail, binary_tensor, split_bytes

FP32 = TensorSpec("input", "FP32", (-1, 3))


def test_bytes_are_handed_out_in_order_and_not_copied() -> None:
    data = bytes(range(10))
    tail = Tail(memoryview(data))
    first, second = tail.take("a", 4), tail.take("b", 6)
    assert (bytes(first), bytes(second)) == (data[:4], data[4:])
    assert first.obj is second.obj is data
    tail.check_empty()


@pytest.mark.parametrize("size", [-1, 1.0, "1", None, True, [1], 11, 2**31, 2**63, 2**64, 10**4000])
def test_a_size_that_cannot_be_is_malformed(size: Any) -> None:
    with pytest.raises(Problem) as caught:
        Tail(memoryview(bytes(10))).take("a", size)
    assert caught.value.slug == "malformed-request"
    assert len(caught.value.detail) < 200


def test_bytes_that_are_left_over_are_malformed() -> None:
    tail = Tail(memoryview(bytes(10)))
    tail.take("a", 9)
    with pytest.raises(Problem, match="1 bytes follow"):
        tail.check_empty()


def test_numbers_stay_where_they_are() -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    data = memoryview(values.tobytes())
    found = binary_tensor(FP32, "FP32", (2, 3), data)
    assert np.array_equal(found, values)
    assert np.shares_memory(found, np.frombuffer(data, np.uint8))


def test_numbers_at_an_odd_address_are_moved_to_an_even_one() -> None:
    values = np.arange(6, dtype="<f4").reshape(2, 3)
    data = memoryview(b"x" + values.tobytes())[1:]
    found = binary_tensor(FP32, "FP32", (2, 3), data)
    assert found.flags.aligned
    assert np.array_equal(found, values)


@pytest.mark.parametrize("size", [0, 23, 25, 48])
def test_another_number_of_bytes_is_malformed(size: int) -> None:
    with pytest.raises(Problem, match=rf"has {size} bytes, FP32 of shape \[2, 3\] has 24"):
        binary_tensor(FP32, "FP32", (2, 3), memoryview(bytes(size)))


def test_half_floats_are_widened_exactly() -> None:
    half = np.array([[1.0, -2.5, 65504.0], [6e-8, np.inf, 0.0]], "<f2")
    found = binary_tensor(FP32, "FP16", (2, 3), memoryview(half.tobytes()))
    assert found.dtype == np.float32
    assert np.array_equal(found, half.astype(np.float32))


def test_bfloats_are_widened_exactly() -> None:
    wide = np.array([[1.0, -2.5, 3.0e38], [1e-40, np.inf, -0.0]], np.float32)
    upper = (wide.view(np.uint32) >> 16).astype("<u2")
    found = binary_tensor(FP32, "BF16", (2, 3), memoryview(upper.tobytes()))
    assert found.dtype == np.float32
    assert np.array_equal(found.view(np.uint32), wide.view(np.uint32) & 0xFFFF0000)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_of_another_length_are_malformed(datatype: str) -> None:
    with pytest.raises(Problem, match="has 24 bytes"):
        binary_tensor(FP32, datatype, (2, 3), memoryview(bytes(24)))


def framed(*elements: bytes) -> bytes:
    return b"".join(len(one).to_bytes(4, "little") + one for one in elements)


def test_elements_stand_behind_their_lengths() -> None:
    found = split_bytes("input", memoryview(framed(b"abc", b"", b"de")), 3)
    assert [bytes(one) for one in found] == [b"abc", b"", b"de"]


@pytest.mark.parametrize(
    ("data", "count", "said"),
    [
        (b"", 1, "ends before element 0"),
        (framed(b"abc"), 2, "ends before element 1"),
        (framed(b"abc") + b"\x01\x00\x00", 2, "ends before element 1"),
        (b"\x04\x00\x00\x00abc", 1, "has 4 bytes, 3 are left"),
        (b"\xff\xff\xff\xffabc", 1, "has 4294967295 bytes, 3 are left"),
        (framed(b"abc", b"de"), 1, "6 bytes follow"),
    ],
)
def test_lengths_that_do_not_add_up_are_malformed(data: bytes, count: int, said: str) -> None:
    with pytest.raises(Problem, match=said) as caught:
        split_bytes("input", memoryview(data), count)
    assert caught.value.slug == "malformed-request"


@examples()
@given(elements=st.lists(st.binary(max_size=40), max_size=8), cut=st.integers(0, 400), count=st.integers(0, 9))
def test_any_framing_is_split_as_it_was_joined_or_refused(elements: List[bytes], cut: int, count: int) -> None:
    data = framed(*elements)
    whole = cut >= len(data) and count == len(elements)
    found: Optional[List[bytes]] = None
    try:
        found = [bytes(one) for one in split_bytes("input", memoryview(data[:cut]), count)]
    except Problem as problem:
        assert problem.slug == "malformed-request"  # noqa: PT017 - valid framings are drawn, too
    if whole:
        assert found == elements
    elif found is not None:
        assert framed(*found) == data[:cut]
