"""A bundle is read only when it is whole, and every refusal says what was wrong and what to do."""

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict, List

import numpy as np
import pytest

from tests.supernets import safetensors, write_test_bundle
from wenet_runtime.bundle import (
    GOLDEN,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    TOPOLOGY,
    WEIGHTS,
    Bundle,
    decode_manifest,
    encode_manifest,
    load_tensors,
)
from wenet_runtime.errors import BundleError, UnknownMode


def read(path: Path) -> Dict[str, Any]:
    members: Dict[str, Any] = json.loads((path / MANIFEST).read_text())
    return members


def change(path: Path, edit: Callable[[Dict[str, Any]], None]) -> None:
    """Edit the manifest of a bundle."""
    members = read(path)
    edit(members)
    (path / MANIFEST).write_text(json.dumps(members))


def promise(path: Path, name: str, data: bytes) -> None:
    """Put a file in place with a manifest that agrees with it."""
    (path / name).write_bytes(data)
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
    change(path, lambda members: members["files"].update({name: entry}))


def refusal(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle(path)
    return str(caught.value)


def test_a_whole_bundle_gives_its_modes_most_accurate_first(bundle: Bundle) -> None:
    assert [mode.id for mode in bundle.modes] == ["m2", "m1", "m0"]
    assert bundle.manifest.model == "tiny"
    assert set(bundle.golden()) == {"input.input", "m0.logits", "m1.logits", "m2.logits"}
    assert set(bundle.statistics(bundle.mode("m1"))) <= set(bundle.weights())
    assert bundle.topology()[:1] == b"\x08"  # an ONNX model begins with its IR version


def test_its_identity_is_the_hash_of_its_manifest(bundle: Bundle, bundle_path: Path) -> None:
    assert bundle.sha256 == hashlib.sha256((bundle_path / MANIFEST).read_bytes()).hexdigest()


def test_a_mode_without_statistics_of_its_own_has_none(bundle: Bundle) -> None:
    plain = dataclasses.replace(bundle.mode("m0"), statistics=None)
    assert bundle.statistics(plain) == {}


def test_an_unknown_mode_is_refused_with_the_known_ones(bundle: Bundle) -> None:
    with pytest.raises(UnknownMode, match=r"no mode 'm9'.*m0, m1, m2"):
        bundle.mode("m9")


def test_a_manifest_survives_encoding_and_decoding(bundle: Bundle) -> None:
    assert decode_manifest(encode_manifest(bundle.manifest), where="there") == bundle.manifest


@pytest.mark.parametrize("name", [TOPOLOGY, WEIGHTS, GOLDEN, "modes/m1.safetensors"])
def test_a_changed_byte_is_refused_by_the_file_s_name(own_bundle: Path, name: str) -> None:
    file = own_bundle / name
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))
    assert name in refusal(own_bundle)
    assert "was changed; copy or export the bundle again" in refusal(own_bundle)


def test_a_missing_file_is_refused_by_its_name(own_bundle: Path) -> None:
    (own_bundle / WEIGHTS).unlink()
    assert f"'{WEIGHTS}' is missing: copy or export" in refusal(own_bundle)


def test_a_file_of_the_wrong_size_is_refused_with_both_sizes(own_bundle: Path) -> None:
    size = (own_bundle / WEIGHTS).stat().st_size
    with (own_bundle / WEIGHTS).open("ab") as file:
        file.write(b"x")
    assert f"has {size + 1} bytes, the manifest says {size}" in refusal(own_bundle)


def test_a_directory_in_place_of_a_file_is_refused(own_bundle: Path) -> None:
    (own_bundle / TOPOLOGY).unlink()
    (own_bundle / TOPOLOGY).mkdir()
    assert "not a plain file" in refusal(own_bundle)


def test_a_symbolic_link_is_refused(own_bundle: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    (own_bundle / WEIGHTS).rename(outside)
    (own_bundle / WEIGHTS).symlink_to(outside)
    assert "symbolic link" in refusal(own_bundle)


def test_a_symbolic_link_among_the_directories_is_refused(own_bundle: Path, tmp_path: Path) -> None:
    (own_bundle / "modes").rename(tmp_path / "modes")
    (own_bundle / "modes").symlink_to(tmp_path / "modes")
    assert "symbolic link" in refusal(own_bundle)


def test_a_manifest_that_is_a_symbolic_link_is_refused(own_bundle: Path, tmp_path: Path) -> None:
    (own_bundle / MANIFEST).rename(tmp_path / "elsewhere.json")
    (own_bundle / MANIFEST).symlink_to(tmp_path / "elsewhere.json")
    assert "symbolic link" in refusal(own_bundle)


def test_a_hard_link_is_refused(own_bundle: Path, tmp_path: Path) -> None:
    os.link(str(own_bundle / WEIGHTS), str(tmp_path / "second"))
    assert "one link" in refusal(own_bundle)


@pytest.mark.parametrize(
    "name", ["../outside", "/etc/passwd", "a/../../outside", "..", "", "a\\b", "nul\0byte", "\ud800", "x" * 5000]
)
def test_a_name_that_leaves_the_bundle_or_is_none_is_refused(own_bundle: Path, name: str) -> None:
    (own_bundle.parent / "outside").write_bytes(b"")
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    change(own_bundle, lambda members: members["files"].update({name: entry}))
    assert refusal(own_bundle)


def test_a_name_below_a_plain_file_is_refused(own_bundle: Path) -> None:
    entry = {"sha256": hashlib.sha256(b"").hexdigest(), "size": 0}
    change(own_bundle, lambda members: members["files"].update({f"{MANIFEST}/below": entry}))
    assert "missing" in refusal(own_bundle)


def test_no_directory_is_refused_with_what_makes_one(tmp_path: Path) -> None:
    assert "wenet-trainer export" in refusal(tmp_path / "nowhere")


def test_a_directory_without_a_manifest_is_no_bundle(tmp_path: Path) -> None:
    assert f"holds no {MANIFEST}" in refusal(tmp_path)


@pytest.mark.parametrize("text", [b"{", b"\xff\xfe\xfa", b"", b"[" * 100_000])
def test_a_manifest_that_is_no_json_is_refused(own_bundle: Path, text: bytes) -> None:
    (own_bundle / MANIFEST).write_bytes(text)
    assert "is not JSON" in refusal(own_bundle)


def test_a_manifest_beyond_its_size_is_refused_unread(own_bundle: Path) -> None:
    with (own_bundle / MANIFEST).open("ab") as file:
        file.truncate(MAX_MANIFEST_BYTES + 1)
    assert "larger than" in refusal(own_bundle)


@pytest.mark.parametrize("text", ["[]", '"x"', '{"format": "other"}'])
def test_json_of_another_kind_is_no_manifest(own_bundle: Path, text: str) -> None:
    (own_bundle / MANIFEST).write_text(text)
    assert "is not a wenet-bundle manifest" in refusal(own_bundle)


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_an_unknown_format_version_is_refused_with_both_versions(own_bundle: Path, version: Any) -> None:
    change(own_bundle, lambda members: members.update(format_version=version))
    assert f"format version {version!r}, this runtime reads 1" in refusal(own_bundle)


def test_an_unknown_member_is_refused_by_name(own_bundle: Path) -> None:
    change(own_bundle, lambda members: members.update(surprise=1))
    assert "unknown members ['surprise']" in refusal(own_bundle)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda members: members.update(max_batch="many"), "max_batch"),
        (lambda members: members.pop("model"), "model"),
        (lambda members: members["modes"][0].update(accuracy=3), "modes.0.accuracy"),
        (lambda members: members["layers"][0].pop("weight"), "layers.0.weight"),
        (lambda members: members["files"][TOPOLOGY].pop("size"), "files.topology.onnx.size"),
    ],
)
def test_a_member_of_the_wrong_type_or_missing_is_named(
    own_bundle: Path, edit: Callable[[Dict[str, Any]], None], named: str
) -> None:
    change(own_bundle, edit)
    assert f"'{named}'" in refusal(own_bundle)


@pytest.mark.parametrize("name", [TOPOLOGY, WEIGHTS, GOLDEN])
def test_a_manifest_that_lists_no_such_file_is_refused(own_bundle: Path, name: str) -> None:
    change(own_bundle, lambda members: members["files"].pop(name))
    assert f"lists no '{name}'" in refusal(own_bundle)


def first_mode(members: Dict[str, Any]) -> Dict[str, Any]:
    mode: Dict[str, Any] = members["modes"][0]
    return mode


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda members: first_mode(members)["groups"].update(nowhere=1), "exactly the bundle's layers"),
        (lambda members: first_mode(members)["groups"].pop("hidden"), "exactly the bundle's layers"),
        (lambda members: first_mode(members)["groups"].update(hidden=3), "layer 'hidden' allows (1, 2, 4, 8, 16)"),
        (lambda members: first_mode(members).update(statistics="modes/none"), "which the manifest does not list"),
        (lambda members: members.update(modes=[]), "has no modes"),
        (lambda members: first_mode(members).update(id="m1"), "share an id"),
        (lambda members: first_mode(members).update(id="../../m0"), "mode id"),
        (lambda members: first_mode(members).update(id="m\r\n0"), "mode id"),
        (lambda members: first_mode(members).update(id=""), "mode id"),
        (lambda members: members["inputs"][0].update(datatype="FP8"), "unknown datatype 'FP8'"),
        (lambda members: members["norms"][1].update(layer="nowhere"), "unknown layer 'nowhere'"),
        (lambda members: members["norms"][1]["patterns"].pop("4"), "has patterns [1, 2, 8, 16], wanted [1, 2, 4, 8"),
    ],
)
def test_references_that_do_not_hold_are_refused(
    own_bundle: Path, edit: Callable[[Dict[str, Any]], None], said: str
) -> None:
    change(own_bundle, edit)
    assert said in refusal(own_bundle)


def test_tensors_are_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(safetensors({"a": np.arange(3, dtype=np.float32)}))
    assert load_tensors(tmp_path / "x.safetensors")["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("data", [b"", b"not tensors", b"\xff" * 64])
def test_an_unreadable_tensor_file_is_refused_by_name(own_bundle: Path, data: bytes) -> None:
    promise(own_bundle, GOLDEN, data)
    whole = Bundle(own_bundle)
    with pytest.raises(BundleError, match=GOLDEN):
        whole.golden()


def test_datatypes_have_their_numpy_names(bundle: Bundle) -> None:
    names: List[str] = [spec.dtype.name for spec in bundle.manifest.inputs + bundle.manifest.outputs]
    assert names == ["float32", "float32"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["modes"][0]["accuracy"].update(value=1.5), "impossible accuracy"),
        (lambda m: m["modes"][0]["accuracy"].update(value=float("nan")), "NaN is no number"),
        (lambda m: m["modes"][0].update(macs=0), "0 MACs"),
        (
            lambda m: m["modes"][0].update(precision="int4"),
            "unknown precision 'int4': known are fp32, fp16, bf16, int8",
        ),
        (lambda m: m["modes"][0].update(precision="int8", statistics=None), "no statistics to hold its ranges"),
        (lambda m: m["preprocess"].update(height=28), "the input is another"),
        (lambda m: m["preprocess"].update(color="CMYK"), "colour 'CMYK'"),
        (lambda m: m["preprocess"].update(mean=[0.1, 0.2, 0.3]), "3 and 1 numbers for 1 channels"),
        (lambda m: m["preprocess"].update(std=[0.0]), "impossible"),
        (lambda m: m.update(max_batch=0), "no batch size"),
        (lambda m: m.update(outputs=[]), "no outputs"),
        (lambda m: m.update(labels=["one"]), "1 labels for 10 classes"),
        (lambda m: m["inputs"][0].update(shape=[-1]), "shape"),
        (lambda m: m["outputs"].append(m["outputs"][0]), "share a name"),
    ],
)
def test_a_manifest_that_is_not_possible_is_refused(tmp_path: Path, change: Any, said: str) -> None:
    write_test_bundle(tmp_path / "bundle")
    path = tmp_path / "bundle" / "manifest.json"
    members = json.loads(path.read_text())
    change(members)
    path.write_text(json.dumps(members))
    with pytest.raises(BundleError, match=said):
        Bundle(tmp_path / "bundle")
