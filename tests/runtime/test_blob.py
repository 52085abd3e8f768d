"""The file of numbers: equal ones once, each where it can be read without a copy."""

import hashlib
import io
from typing import List

import numpy as np

from wenet_runtime.blob import ALIGNMENT, BlobWriter


def test_every_array_is_found_where_it_was_put() -> None:
    file = io.BytesIO()
    blob = BlobWriter(file)
    arrays = [np.arange(count, dtype=kind) for count in (1, 7, 100) for kind in (np.float32, np.int64, np.uint8)]
    places = [blob.add(value) for value in arrays]
    for value, at in zip(arrays, places):
        assert at % ALIGNMENT == 0
        assert np.array_equal(np.frombuffer(file.getvalue(), value.dtype, len(value), at), value)


def test_equal_bytes_lie_there_once_whatever_they_are_called_or_shaped() -> None:
    file = io.BytesIO()
    blob = BlobWriter(file)
    one = np.arange(64, dtype=np.float32)
    places: List[int] = [blob.add(value) for value in (one, one.copy(), one.reshape(8, 8), one[::-1][::-1])]
    assert len(set(places)) == 1
    assert blob.size == len(file.getvalue()) == one.nbytes


def test_other_bytes_lie_elsewhere() -> None:
    blob = BlobWriter(io.BytesIO())
    one = np.zeros(64, np.float32)
    other = one.copy()
    other[-1] = 1e-30
    assert len({blob.add(one), blob.add(other), blob.add(one[:63]), blob.add(-one)}) == 4  # -0 is another number


def test_what_does_not_lie_in_a_row_is_written_in_its_order() -> None:
    file = io.BytesIO()
    value = np.arange(12, dtype=np.float32).reshape(3, 4).T
    BlobWriter(file).add(value)
    assert np.array_equal(np.frombuffer(file.getvalue(), np.float32).reshape(4, 3), value)


def test_an_array_of_nothing_takes_no_room() -> None:
    blob = BlobWriter(io.BytesIO())
    assert blob.add(np.empty((0, 3), np.float32)) == 0
    assert blob.size == 0


def test_the_hash_is_that_of_the_file() -> None:
    file = io.BytesIO()
    blob = BlobWriter(file)
    for count in (3, 5):
        blob.add(np.full(count, count, np.float32))
    assert blob.sha256 == hashlib.sha256(file.getvalue()).hexdigest()
