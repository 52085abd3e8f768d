"""A layer table is read as it was written, and refused with a reason when it is damaged or does not fit."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Callable, Dict

import onnx
import pytest

from tests.supernets import bottlenecks, make_supernet, uniform
from wenet_runtime.additive import AdditiveCost, PairTerm
from wenet_runtime.conditions import Conditions
from wenet_runtime.device import this_device
from wenet_runtime.errors import BundleError, EngineError
from wenet_runtime.layer_table import LayerTable, check_table, read_table, supernet_id, write_table
from wenet_runtime.materialize import Supernet
from wenet_runtime.table_bench import TIMING
from wenet_runtime.table_rows import Row, TableError

SUPERNET = bottlenecks(32)
DEVICE = this_device("ort", "1", 1)


def table_of(supernet: Supernet = SUPERNET, **changes: Any) -> LayerTable:
    """A table with round figures: every halving of a layer's arithmetic saves a millisecond."""
    terms = {layer.name: {count: -float(count.bit_length() - 1) for count in layer.groups} for layer in supernet.layers}
    names = list(terms)
    cost = AdditiveCost(10.0, terms, (PairTerm(names[0], names[1], {"4.16": 0.5}),))
    whole = LayerTable(
        supernet_id=supernet_id(supernet),
        model="little",
        inputs=supernet.inputs,
        device=DEVICE,
        started_at="2026-01-01T00:00:00+00:00",
        measured_at="2026-01-01T00:01:00+00:00",
        conditions_at_start=Conditions({"cpu0": 1479.0}, {"CPU-therm": 41.5}),
        conditions_at_end=Conditions(),
        full_ms=10.0,
        latency=cost,
        energy=None,
        energy_source="none",
        error=TableError(0.01, 0.02, 0.015, 1),
        energy_error=None,
        drift=0.01,
        rows=(Row(uniform(supernet, 4), 0.6, 6.0, 10.0, 9.8, 15, 30.0, 50.0),),
        timing=TIMING,
        plan_id="tuned",
        seed=0,
        finished=True,
    )
    return dataclasses.replace(whole, **changes)


def test_a_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    table = table_of(warning="it was hot", energy=table_of().latency, energy_source="rail:VDD_IN")
    write_table(tmp_path / "new" / "layers.json", table)
    assert read_table(tmp_path / "new" / "layers.json") == table
    assert table.threads == 1


def test_a_prediction_is_the_full_network_and_its_terms() -> None:
    table = table_of()
    assert table.latency_ms({"0.a": 1, "0.b": 1}) == 10.0
    assert table.latency_ms({"0.a": 2, "0.b": 1}) == 9.0
    assert table.latency_ms({"0.a": 4, "0.b": 16}) == 10.0 - 2 - 4 + 0.5
    assert table.energy_mj({"0.a": 1, "0.b": 1}) is None
    assert table_of(energy=table.latency).energy_mj({"0.a": 2, "0.b": 2}) == 8.0


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ({"0.a": 1}, "'0.b'"),
        ({"0.a": 3, "0.b": 1}, r"'0.a' at \[1, 2, 4, 8, 16\] groups, not at 3"),
        ({"0.a": 1, "0.b": 1, "1.a": 2}, "'1.a'"),
    ],
)
def test_a_configuration_of_other_layers_is_refused_by_name(groups: Dict[str, int], said: str) -> None:
    with pytest.raises(BundleError, match=said):
        table_of().latency_ms(groups)


def test_a_networks_identity_follows_from_its_shape_and_not_from_its_weights() -> None:
    weights = {name: value + 1 for name, value in SUPERNET.weights.items()}
    assert supernet_id(dataclasses.replace(SUPERNET, weights=weights)) == supernet_id(SUPERNET)
    changed = [
        bottlenecks(48),
        dataclasses.replace(SUPERNET, shuffles=()),
        dataclasses.replace(SUPERNET, layers=SUPERNET.layers[:1]),
        dataclasses.replace(SUPERNET, inputs=(dataclasses.replace(SUPERNET.inputs[0], shape=(-1, 1, 16, 16)),)),
    ]
    assert len({supernet_id(one) for one in (SUPERNET, *changed)}) == 5


def test_a_networks_identity_does_not_tell_who_exported_it() -> None:
    model = onnx.load_from_string(SUPERNET.topology)
    model.producer_version = "another"
    same = dataclasses.replace(SUPERNET, topology=model.SerializeToString())
    model.graph.node[0].attribute[0].i += 1
    other = dataclasses.replace(SUPERNET, topology=model.SerializeToString())
    assert supernet_id(same) == supernet_id(SUPERNET) != supernet_id(other)


def test_a_table_of_this_network_and_device_is_taken() -> None:
    check_table(table_of(), SUPERNET)
    check_table(table_of(), SUPERNET, DEVICE)


def test_a_table_of_another_network_says_what_differs() -> None:
    with pytest.raises(BundleError, match=r"the table lacks layers '1.a', '1.b'.*--layers"):
        check_table(table_of(), bottlenecks(32, 32))
    with pytest.raises(BundleError, match=r"it has layers '0.a', '0.b', which this network lacks"):
        check_table(table_of(), make_supernet())
    with pytest.raises(BundleError, match=r"layer '0.a' has groups"):
        check_table(table_of(), bottlenecks(24))
    with pytest.raises(BundleError, match="shapes or connections differ"):
        check_table(table_of(), bottlenecks(48))
    larger = dataclasses.replace(SUPERNET, inputs=(dataclasses.replace(SUPERNET.inputs[0], shape=(-1, 1, 16, 16)),))
    with pytest.raises(BundleError, match=r"its input is 1 × 8 × 8, this network's is 1 × 16 × 16"):
        check_table(table_of(), larger)


def test_layers_and_group_counts_are_compared_whatever_the_identity_says() -> None:
    table = table_of()
    for change, said in (
        ({"0.a": {1: 0.0, 2: -1.0}, "0.b": table.latency.terms["0.b"]}, r"layer '0.a' has groups .* and not \(1, 2\)"),
        ({"0.b": table.latency.terms["0.b"]}, "the table lacks layer '0.a'"),
    ):
        cut = dataclasses.replace(table, latency=dataclasses.replace(table.latency, terms=change))
        with pytest.raises(BundleError, match=said):
            check_table(cut, SUPERNET)


def test_a_table_of_another_plan_is_refused_where_the_plan_counts() -> None:
    check_table(table_of(), SUPERNET, DEVICE, "tuned")
    check_table(table_of(plan_id="rule"), SUPERNET, DEVICE)
    with pytest.raises(EngineError, match="emitted as 'tuned', here they are 'rule': set --tune or --no-tune"):
        check_table(table_of(), SUPERNET, DEVICE, "rule")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(str(tmp_path / "pipe"))
    with pytest.raises(EngineError, match="pipe is no regular file"):
        read_table(tmp_path / "pipe")
    with pytest.raises(EngineError, match="no regular file"):
        read_table(Path("/dev/zero"))
    with pytest.raises(EngineError, match="cannot read"):
        read_table(tmp_path)


def test_energy_terms_of_other_groups_are_refused(tmp_path: Path) -> None:
    table = table_of()
    terms = {name: {1: 0.0} for name in table.latency.terms}
    write_table(tmp_path / "layers.json", table_of(energy=AdditiveCost(1.0, terms)))
    with pytest.raises(EngineError, match="different layers or groups"):
        read_table(tmp_path / "layers.json")


def test_a_table_of_another_device_says_what_differs() -> None:
    other = dataclasses.replace(DEVICE, threads=4, engine_version="2")
    with pytest.raises(EngineError, match=r"engine_version is 2 and not 1, threads is 4 and not 1"):
        check_table(table_of(), SUPERNET, other)


def test_an_unfinished_table_says_how_to_finish_it() -> None:
    with pytest.raises(EngineError, match="goes on where it ended"):
        check_table(table_of(finished=False), SUPERNET)


def damaged(change: Callable[[Dict[str, Any]], Any]) -> Callable[[bytes], bytes]:
    def apply(data: bytes) -> bytes:
        members = json.loads(data)
        change(members)
        return json.dumps(members).encode()

    return apply


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: data[: len(data) // 2], "not JSON"),
        (lambda data: b"", "not JSON"),
        (lambda data: b"\xff\xfe", "not JSON"),
        (lambda data: b"[" * 100_000, "not JSON"),
        (lambda data: b"[]", "no wenet-layer-table file"),
        (damaged(lambda table: table.update(format="wenet-frontier")), "no wenet-layer-table file"),
        (damaged(lambda table: table.update(format_version=9)), "format version 9"),
        (damaged(lambda table: table.update(format_version=1)), "format version 1"),
        (damaged(lambda table: table["rows"][0].update(ratio=10**400)), "layers.json"),
        (damaged(lambda table: table["latency"].update(full=10**400)), "layers.json"),
        (lambda data: data.replace(b'"drift": 0.01', b'"drift": Infinity'), "Infinity"),
        (damaged(lambda table: table["rows"][0].update(full_quiet_ms=0)), "row 0 holds a time"),
        (damaged(lambda table: table.pop("rows")), "'rows'"),
        (damaged(lambda table: table.update(rows=[])), "no row"),
        (damaged(lambda table: table["rows"][0].update(ratio="fast")), "'rows.0.ratio'"),
        (damaged(lambda table: table["rows"][0].update(ratio=-1)), "row 0 holds a time"),
        (damaged(lambda table: table["rows"][0].update(energy_mj=-1)), "row 0 holds an energy"),
        (damaged(lambda table: table["rows"][0].update(runs=0)), "row 0"),
        (damaged(lambda table: table["rows"][0]["groups"].pop("0.a")), "row 0 has other layers"),
        (damaged(lambda table: table["rows"][0]["groups"].update({"0.a": 5})), "row 0 has other layers or groups"),
        (damaged(lambda table: table["latency"]["terms"].update({"0.a": {"1": float("nan")}})), "NaN"),
        (damaged(lambda table: table["latency"].update(full=0)), "finite"),
        (damaged(lambda table: table["latency"]["pairs"][0].update(first="9.z")), "different layers"),
        (damaged(lambda table: table["latency"]["terms"].update({"0.a": {"x": 1}})), "terms"),
        (lambda data: data + b" " * (65 << 20), "larger"),
    ],
)
def test_a_damaged_table_is_refused_by_name_and_reason(
    damage: Callable[[bytes], bytes], said: str, tmp_path: Path
) -> None:
    path = tmp_path / "layers.json"
    write_table(path, table_of())
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(EngineError, match=said) as refused:
        read_table(path)
    assert str(path) in str(refused.value)


def test_a_missing_table_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="--layers"):
        read_table(tmp_path / "none.json")


def test_a_place_that_cannot_be_written_is_an_error_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(EngineError, match="cannot write"):
        write_table(tmp_path / "file" / "layers.json", table_of())
