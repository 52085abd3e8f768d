"""Mapped safetensors: the same numbers as the library reads, and nothing believed that the file cannot hold."""

import contextlib
import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from wenet_runtime.errors import BundleError
from wenet_runtime.tensors import DTYPES, map_tensors

TENSORS = {
    "weight": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "index": np.arange(5, dtype=np.int64),
    "scalar": np.array(2.5, np.float64),
    "nothing": np.empty((0, 3), np.float32),
    "byte": np.array([7], np.uint8),
}


def file_of(path: Path, header: Any, numbers: bytes = bytes(64)) -> Path:
    """A file with this header, as text or as what JSON makes of it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + numbers)
    return path


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> Dict[str, Any]:
    return {"a": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_it_reads_what_the_library_reads(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(TENSORS, metadata={"made": "by a test"}))
    wanted, found = load_file(str(path)), map_tensors(path)
    assert set(found) == set(wanted)
    for name, value in wanted.items():
        assert found[name].dtype == value.dtype
        assert found[name].shape == value.shape
        assert np.array_equal(found[name], value)


@pytest.mark.parametrize("name", sorted(DTYPES))
def test_every_datatype_is_the_library_s(name: str, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": np.ones(3, DTYPES[name])}))
    assert json.loads(path.read_bytes()[8:-3].split(b"}}")[0] + b"}}")["a"]["dtype"] == name
    assert map_tensors(path)["a"].dtype == DTYPES[name]


def test_nothing_is_copied_and_nobody_can_write(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(save(TENSORS))
    found = map_tensors(path)
    with pytest.raises(ValueError, match="read-only"):
        found["weight"][0] = 1
    with path.open("r+b") as file:  # seen through the mapping: it is the file, not a copy of it
        file.seek(-TENSORS["byte"].nbytes, 2)
        file.write(b"\x09")
    assert found["byte"][0] == 9


def test_overlapping_tensors_are_read_as_they_lie(tmp_path: Path) -> None:
    header = {**entry(), "b": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]}}
    numbers = np.arange(4, dtype=np.float32).tobytes()
    assert map_tensors(file_of(tmp_path / "x", header, numbers))["b"].tolist() == [2, 3]


@pytest.mark.parametrize("length", [0, 1, 7])
def test_a_file_too_short_for_its_length_is_refused(length: int, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(bytes(length))
    with pytest.raises(BundleError, match=r"x\.safetensors is no readable safetensors file"):
        map_tensors(tmp_path / "x.safetensors")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="gone is no readable"):
        map_tensors(tmp_path / "gone")


@pytest.mark.parametrize("length", [57, 1 << 31, (1 << 64) - 1])
def test_a_header_longer_than_its_file_is_refused_before_it_is_read(length: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(length.to_bytes(8, "little") + b"{" * 56)
    with pytest.raises(BundleError, match=f"a header of {length} bytes in a file of 64"):
        map_tensors(tmp_path / "x")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (b"", "Expecting value"),
        (b"[]", "the header is no object"),
        (b"3", "the header is no object"),
        (b"\xff\xfe", "decode"),
        (b"[" * 100_000, "recursion"),
        (b'{"a": NaN}', "NaN is no number"),
        (b'{"a": {}, "a": {}}', "names something twice"),
        ({"a": []}, "'a' has not dtype, shape and data_offsets"),
        ({"a": {"dtype": "F32"}}, "'a' has not dtype"),
        ({"a": {**entry()["a"], "more": 1}}, "'a' has not dtype"),
        (entry(dtype="F4"), "of dtype F4"),
        (entry(dtype=["F32"]), "of dtype"),
        (entry(dtype=None), "of dtype"),
        (entry(shape="4"), "impossible shape or place"),
        (entry(shape=[-4]), "impossible shape or place"),
        (entry(shape=[4.0]), "impossible shape or place"),
        (entry(shape=[True]), "impossible shape or place"),
        (entry(offsets=[0]), "impossible shape or place"),
        (entry(offsets=[0, 8, 16]), "impossible shape or place"),
        (entry(offsets=[-16, 0]), "impossible shape or place"),
        (entry(offsets=["0", "16"]), "impossible shape or place"),
        (entry(offsets=None), "impossible shape or place"),
        (entry(offsets=[16, 0]), "lies at 16 to 0"),
        (entry(offsets=[0, 15]), "lies at 0 to 15"),
        (entry(offsets=[56, 72]), "lies at 56 to 72 of 64"),
        (entry(shape=[5]), "of shape"),
        (entry(shape=[1 << 32, 1 << 32]), "of shape"),
        (entry(shape=[0, 10**40], offsets=[0, 0]), "no readable safetensors file"),
        (entry(shape=[1] * 100, offsets=[0, 4]), "no readable safetensors file"),
    ],
)
def test_an_impossible_header_is_refused_with_what_is_wrong(header: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=said):
        map_tensors(file_of(tmp_path / "x", header))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6), cut=st.integers(0, 400))
def test_whatever_is_changed_it_is_read_inside_the_file_or_refused(tmp_path: Path, changes: Any, cut: int) -> None:
    data = bytearray(save(TENSORS))
    for at, value in changes:
        data[at % len(data)] = value
    path = tmp_path / "x"
    path.write_bytes(bytes(data[: max(0, len(data) - cut)]))
    found: List[Any] = []
    with contextlib.suppress(BundleError):
        found = list(map_tensors(path).values())
    assert all(len(value.tobytes()) == value.nbytes for value in found)  # outside the file a touch would be the end
