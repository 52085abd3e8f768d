"""Numbers as JSON, .npy and bytes."""

import io
import json

import numpy as np
import pytest

from wenet_runtime.service.encoding import flat_list, json_bytes, npy_bytes, raw_bytes


def test_json_is_compact_and_keeps_letters() -> None:
    assert json_bytes({"a": [1, 2.5], "b": "é"}) == '{"a":[1,2.5],"b":"é"}'.encode()


def test_json_keeps_half_a_surrogate_pair_as_an_escape() -> None:
    assert json.loads(json_bytes({"id": "a\ud800b"})) == {"id": "a\ud800b"}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_never_holds_what_is_no_number(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        json_bytes([value])


def test_non_finite_numbers_of_a_tensor_become_null() -> None:
    values = np.array([[1.0, np.nan], [np.inf, -np.inf]], np.float32)
    assert flat_list(values) == [1.0, None, None, None]
    assert flat_list(np.array([[1, 2], [3, 4]])) == [1, 2, 3, 4]


def test_npy_is_read_back_as_it_was() -> None:
    values = np.arange(6, dtype=np.float32).reshape(2, 3).T
    data = npy_bytes(values)
    assert data[:8] == b"\x93NUMPY\x01\x00"
    assert np.array_equal(np.load(io.BytesIO(data), allow_pickle=False), values)


def test_raw_bytes_are_little_endian_and_row_major() -> None:
    values = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert raw_bytes(values) == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()
