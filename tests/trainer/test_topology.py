import onnx
import pytest
import torch
from torch import nn

from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import materialize
from wenet_trainer.errors import ExportError
from wenet_trainer.evaluate import recalibrated
from wenet_trainer.layers import WeightEnabledLinear
from wenet_trainer.models.tiny import TinyNet
from wenet_trainer.space import SearchSpace
from wenet_trainer.supernet import fixed_norms, shuffles, switchable_norms, weight_enabled
from wenet_trainer.topology import describe


def test_the_topology_holds_no_numbers_and_fits_old_runtimes(supernet):
    described = describe(supernet, (1, 32, 32))
    model = onnx.load_from_string(described.topology)
    assert len(described.topology) < 100_000
    assert model.ir_version <= 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 13)]
    assert sum(tensor.ByteSize() for tensor in model.graph.initializer) < 1000
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    assert b"/home" not in described.topology
    assert b".py" not in described.topology


def test_every_layer_norm_and_shuffle_has_its_own_node(supernet):
    described = describe(supernet, (1, 32, 32))
    nodes = {node.name: node for node in onnx.load_from_string(described.topology).graph.node}
    assert [layer.name for layer in described.layers] == list(weight_enabled(supernet))
    for layer in described.layers:
        assert nodes[layer.node].input[1] == layer.weight
    assert len(described.norms) == len(switchable_norms(supernet)) + len(fixed_norms(supernet))
    assert len({norm.node for norm in described.norms}) == len(described.norms)
    assert len({shuffle.node for shuffle in described.shuffles}) == len(shuffles(supernet))
    assert all(nodes[shuffle.node].op_type == "Gather" for shuffle in described.shuffles)


def test_a_norm_is_switched_by_the_layer_it_names(tiny):
    described = describe(tiny, (1, 32, 32))
    by_weight = {norm.patterns[1].weight: norm for norm in described.norms}
    depthwise = by_weight["block.depthwise_bn.weight"]
    assert depthwise.layer == "block.expand"
    assert set(depthwise.patterns) == {1, 2, 4, 8, 16}
    assert depthwise.patterns[4].mean == "block.depthwise_bn.patterns.4.running_mean"
    assert by_weight["stem_bn.weight"].layer is None
    assert set(by_weight["stem_bn.weight"].patterns) == {1}


def test_equal_tensors_are_not_merged_by_the_exporter():
    # Fresh batch norms are all ones and zeros, which the exporter would take for one tensor.
    described = describe(TinyNet(), (1, 32, 32))
    assert len({norm.node for norm in described.norms}) == 5


def test_describing_leaves_the_network_as_it_was(tiny):
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    permutation = tiny.block.shuffle.permutation.clone()
    tiny.conv.set_groups(4)
    describe(tiny, (1, 32, 32))
    assert tiny.conv.active_groups == 4
    assert tiny.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    assert torch.equal(tiny.block.shuffle.permutation, permutation)


def test_a_layer_that_runs_twice_is_refused():
    class Twice(TinyNet):
        def forward(self, x):
            return super().forward(x) + super().forward(-x)

    with pytest.raises(ExportError, match=r"should be read by exactly one Conv"):
        describe(Twice(), (1, 32, 32))


def test_a_network_torch_cannot_export_is_refused():
    class Odd(TinyNet):
        def forward(self, x):
            return super().forward(x) + torch.linalg.svdvals(x[:, 0])[:, :10]

    with pytest.raises(ExportError, match="torch cannot export"):
        describe(Odd(), (1, 32, 32))


def test_a_weight_enabled_layer_that_never_runs_is_refused():
    class Idle(TinyNet):
        def __init__(self):
            super().__init__()
            self.hidden, self.idle = nn.Identity(), self.hidden

    with pytest.raises(ExportError, match=r"'idle.weight' .* but is by no node"):
        describe(Idle(), (1, 32, 32))


class Dense(nn.Module):
    """Linear layers with and without bias on (N, 4, 256), or on (N, 1024)."""

    def __init__(self, *, tokens=False):
        super().__init__()
        inputs = 256 if tokens else 1024
        self.start = 2 if tokens else 1
        self.first = WeightEnabledLinear(inputs, 32, bias=False)
        self.second = WeightEnabledLinear(32, 32)
        self.head = nn.Linear(32, 10, bias=False)

    def forward(self, x):
        x = x.view(-1, 4, 256) if self.start == 2 else x.flatten(1)
        x = self.head(torch.relu(self.second(torch.relu(self.first(x)))))
        return x.mean(1) if self.start == 2 else x


def test_a_dense_layer_without_bias_is_one_matrix_product_that_reads_its_weight():
    torch.manual_seed(0)
    net = Dense()
    described = describe(net, (1, 32, 32))
    model = onnx.load_from_string(described.topology)
    assert [node.op_type for node in model.graph.node] == ["Flatten", "Gemm", "Relu", "Gemm", "Relu", "Gemm"]
    images = torch.randn(3, 1, 32, 32)
    for groups in ({"first": 1, "second": 1}, {"first": 8, "second": 2}):
        net.first.set_groups(groups["first"])
        net.second.set_groups(groups["second"])
        engine = OrtBackend().load_bytes(materialize(described, groups), name="test")
        found = torch.from_numpy(engine.infer({"image": images.numpy()})["logits"])
        assert torch.allclose(found, net(images).detach(), rtol=0, atol=1e-5)
        net.second.set_groups(32 // groups["second"] // 4)
        assert not torch.allclose(found, net(images).detach(), rtol=0, atol=1e-2)


def test_a_dense_layer_over_tokens_is_refused():
    with pytest.raises(
        ExportError, match=r"'first.weight' should be read by exactly one Gemm .* but is by .*Transpose"
    ):
        describe(Dense(tokens=True), (1, 32, 32))


class WithHelper(TinyNet):
    """A second head that only training runs, as GoogLeNet's."""

    def __init__(self) -> None:
        super().__init__()
        self.helper_bn = nn.BatchNorm2d(32)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.helper_bn(self.stem(x))
        return super().forward(x)


def test_a_norm_that_only_training_runs_is_no_part_of_the_topology():
    net = WithHelper().eval()
    described = describe(net, (1, 32, 32))
    assert all("helper" not in pattern.weight for norm in described.norms for pattern in norm.patterns.values())
    assert len(described.norms) == len(describe(TinyNet(), (1, 32, 32)).norms)
    with recalibrated(net, SearchSpace.of(net).full(), torch.randn(8, 1, 32, 32)) as statistics:
        assert not any("helper" in name for name in statistics)
        assert "stem_bn.running_mean" in statistics
