import copy
import errno
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from tests.trainer.few_digits import FEW, FewDigits
from wenet_trainer.checkpoint import FILE, read_checkpoint
from wenet_trainer.errors import CheckpointError, TrainingError
from wenet_trainer.optimizer import open_optimizer, schedule
from wenet_trainer.options import Options
from wenet_trainer.parallel import Workers
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.step import Step
from wenet_trainer.supernet import set_active
from wenet_trainer.train import train

RECIPE = Recipe(data=FEW, model="tiny", epochs=2, batch=32, learning_rate=5e-3)


def test_a_step_adds_up_the_gradients_of_every_sub_network(tiny):
    tiny.train()
    space = SearchSpace.of(tiny)
    configs = [space.full(), space.smallest(), space.uniform(2), {**space.full(), "conv": 8}]
    x, labels = torch.randn(8, 1, 32, 32), torch.arange(8)
    expected: dict[str, torch.Tensor] = {}
    for config in configs:
        alone = copy.deepcopy(tiny)
        set_active(alone, config)
        F.cross_entropy(alone(x), labels).backward()
        for name, parameter in alone.named_parameters():
            if parameter.grad is not None:
                expected[name] = expected.get(name, torch.zeros_like(parameter)) + parameter.grad
    losses = Step(tiny, torch.optim.SGD(tiny.parameters(), lr=0.0), RECIPE).gradients(x, labels, configs)
    assert len(losses) == 4
    for name, parameter in tiny.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-6)
        else:
            assert parameter.grad is None, name
    assert "block.expand_bn.patterns.4.weight" not in expected


def test_training_lowers_the_loss_and_follows_the_seed(tmp_path):
    one = train(RECIPE, tmp_path / "one", quiet=True)
    two = train(RECIPE, tmp_path / "two", quiet=True)
    assert one.history[1]["loss_full"] < one.history[0]["loss_full"]
    assert one.weights.keys() == two.weights.keys()
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    other = train(Recipe(**{**RECIPE.to_json(), "seed": 1}), tmp_path / "other", quiet=True)
    assert any(not torch.equal(one.weights[name], other.weights[name]) for name in one.weights)


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    straight = train(RECIPE, tmp_path / "straight", quiet=True)
    train(RECIPE, tmp_path / "killed", stop_after=1, quiet=True)
    assert read_checkpoint(tmp_path / "killed").epochs_done == 1
    torch.rand(100)  # whatever the new process did before
    resumed = train(RECIPE, tmp_path / "killed", quiet=True)
    assert resumed.epochs_done == 2
    assert all(torch.equal(straight.weights[name], resumed.weights[name]) for name in straight.weights)
    assert all(torch.equal(straight.optimizer[name], resumed.optimizer[name]) for name in straight.optimizer)
    assert len(resumed.history) == 2


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(RECIPE, tmp_path, quiet=True)
    stamp = (tmp_path / FILE).stat().st_mtime_ns
    again = train(RECIPE, tmp_path, quiet=True)
    assert (tmp_path / FILE).stat().st_mtime_ns == stamp
    assert again.history == first.history


def test_a_run_with_other_settings_is_refused_and_named(tmp_path):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    other = Recipe(**{**RECIPE.to_json(), "batch": 16})
    with pytest.raises(TrainingError, match=r"batch is 32 there, 16 here.*choose another --out"):
        train(other, tmp_path, quiet=True)


def test_a_loss_that_is_no_number_stops_training_and_keeps_the_checkpoint(tmp_path):
    wild = Recipe(**{**RECIPE.to_json(), "model": "tests.trainer.broken_net:BrokenNet"})
    with pytest.raises(TrainingError, match=r"the loss became .*nan.* lower --learning-rate") as caught:
        train(wild, tmp_path, quiet=True)
    assert not (tmp_path / FILE).exists()
    (saved,) = tmp_path.glob("failed-batch-*")
    assert str(saved) in str(caught.value)


def test_a_late_loss_that_is_no_number_keeps_the_checkpoint_of_the_epoch_before(tmp_path, monkeypatch):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    before = (tmp_path / FILE).read_bytes()
    monkeypatch.setattr(Step, "gradients", lambda *_: [float("nan")])
    with pytest.raises(TrainingError, match="epoch 2, step 1"):
        train(RECIPE, tmp_path, quiet=True)
    assert (tmp_path / FILE).read_bytes() == before


def test_weights_that_are_no_numbers_do_not_replace_the_last_good_checkpoint(tmp_path, monkeypatch):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    before = (tmp_path / FILE).read_bytes()
    update = Step.update

    def spoil(step):
        for parameter in step._net.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(float("nan"))
        update(step)

    calls = []
    monkeypatch.setattr(Step, "update", lambda step: spoil(step) if len(calls) == 3 else calls.append(update(step)))
    with pytest.raises(TrainingError, match=r"after epoch 2 \d+ tensors are no numbers any more.* before is kept"):
        train(RECIPE, tmp_path, quiet=True)  # four steps an epoch: the last one is spoilt
    assert (tmp_path / FILE).read_bytes() == before


def test_a_run_whose_model_s_code_changed_is_refused(tmp_path, monkeypatch):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    monkeypatch.setattr("wenet_trainer.checkpoint.make_network", lambda recipe: torch.nn.Linear(2, 2))
    with pytest.raises(CheckpointError, match="was the model's code changed since"):
        train(RECIPE, tmp_path, quiet=True)


def test_a_run_that_goes_on_with_another_number_of_processes_says_so(tmp_path, monkeypatch):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    monkeypatch.setattr("wenet_trainer.train.workers", lambda _device: nullcontext(Workers(0, 2)))
    monkeypatch.setattr(Workers, "check_same", lambda *_: None)
    said = []
    train(RECIPE, tmp_path, stop_after=0, quiet=True, say=said.append)
    assert "this run began with 1 processes and goes on with 2" in said[0]


def test_data_is_checked_by_one_process_alone(tmp_path, monkeypatch):
    said = []
    train(RECIPE, tmp_path, stop_after=0, options=Options(check_data=True), quiet=True, say=said.append)
    assert said[-1].endswith("images can be read")
    monkeypatch.setattr("wenet_trainer.train.workers", lambda _device: nullcontext(Workers(0, 2)))
    with pytest.raises(TrainingError, match=r"--check-data .* run it alone"):
        train(RECIPE, tmp_path, options=Options(check_data=True), quiet=True)


def test_a_full_disk_keeps_the_checkpoint_of_the_epoch_before(tmp_path, monkeypatch):
    train(RECIPE, tmp_path, stop_after=1, quiet=True)
    before = (tmp_path / FILE).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"checkpoint\.safetensors .No space left on device.*make room"):
        train(RECIPE, tmp_path, quiet=True)
    monkeypatch.undo()
    assert (tmp_path / FILE).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert train(RECIPE, tmp_path, quiet=True).epochs_done == 2


def test_a_disk_that_is_too_small_is_said_before_the_first_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(CheckpointError, match=r"0 MB free, but two checkpoints take"):
        train(RECIPE, tmp_path / "new" / "run", quiet=True)
    assert not (tmp_path / "new").exists()


def test_a_network_for_another_number_of_classes_is_refused(tmp_path):
    wrong = Recipe(**{**RECIPE.to_json(), "model_arguments": {"classes": 7}})
    with pytest.raises(TrainingError, match=r"answers \(1, 7\), but the data has 10 classes: .*classes=10"):
        train(wrong, tmp_path, quiet=True)


def test_one_class_alone_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="only one class"):
        train(Recipe(**{**RECIPE.to_json(), "data": "tests.trainer.test_train:one_class"}), tmp_path, quiet=True)


@pytest.mark.parametrize("changes", [
    {"sampling": "progressive"}, {"channels_last": True}, {"teacher": "none"}, {"augment": "flip"},
    {"optimizer": "sgd", "clip_norm": 1.0},
])  # fmt: skip
def test_every_kind_of_state_survives_a_kill(tmp_path, changes):
    options = Options(channels_last=changes.pop("channels_last", False), validate_images=0)
    recipe = Recipe(**{**RECIPE.to_json(), **changes})
    straight = train(recipe, tmp_path / "straight", options=options, quiet=True)
    train(recipe, tmp_path / "killed", stop_after=1, options=options, quiet=True)
    torch.rand(10)
    resumed = train(recipe, tmp_path / "killed", options=options, quiet=True)
    assert all(torch.equal(straight.weights[name], resumed.weights[name]) for name in straight.weights)
    assert dict(straight.sampler) == dict(resumed.sampler)


def test_the_record_of_an_epoch_has_the_accuracy_of_every_uniform_mode(tmp_path):
    told = []
    checkpoint = train(RECIPE, tmp_path, options=Options(validate_images=32), quiet=True, watch=told.append)
    assert [one.epochs_done for one in told] == [1, 2]
    for record in checkpoint.history:
        assert {f"accuracy_{groups}" for groups in (1, 2, 4, 8, 16)} <= set(record)
        assert all(0 <= record[f"accuracy_{groups}"] <= 1 for groups in (1, 16))


@pytest.mark.parametrize("sampling", ["target", "progressive"])
def test_what_is_watched_does_not_change_what_is_learned(tmp_path, sampling):
    recipe = Recipe(**{**RECIPE.to_json(), "sampling": sampling})
    one = train(recipe, tmp_path / "one", options=Options(validate_images=0), quiet=True)
    two = train(recipe, tmp_path / "two", options=Options(validate_images=64, recalibrate=64, workers=0), quiet=True)
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)


@pytest.mark.parametrize("amp", ["bf16"])
def test_mixed_precision_trains_to_about_the_same_loss(tmp_path, amp):
    plain = train(RECIPE, tmp_path / "plain", options=Options(validate_images=0), quiet=True)
    mixed = train(
        Recipe(**{**RECIPE.to_json(), "amp": amp}), tmp_path / "mixed",
        options=Options(validate_images=0, channels_last=True), quiet=True,
    )  # fmt: skip
    assert mixed.weights["conv.weight"].dtype == torch.float32
    assert mixed.history[-1]["loss_full"] == pytest.approx(plain.history[-1]["loss_full"], rel=0.1)
    assert not torch.equal(mixed.weights["conv.weight"], plain.weights["conv.weight"])


def test_fp16_without_a_gpu_is_refused(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(TrainingError, match="fp16 needs a CUDA device"):
        train(Recipe(**{**RECIPE.to_json(), "amp": "fp16"}), tmp_path, quiet=True)
    with pytest.raises(TrainingError, match="no CUDA device was found: train with --device cpu"):
        train(RECIPE, tmp_path, options=Options(device="cuda"), quiet=True)


def test_norms_and_biases_are_not_decayed(tiny):
    decayed, spared = open_optimizer(tiny, RECIPE).param_groups
    names = {id(parameter): name for name, parameter in tiny.named_parameters()}
    assert spared["weight_decay"] == 0
    assert decayed["weight_decay"] == RECIPE.weight_decay
    assert {"conv.weight", "head.weight", "stem.weight"} <= {names[id(p)] for p in decayed["params"]}
    spared_names = {names[id(p)] for p in spared["params"]}
    assert {"stem_bn.weight", "conv_bn.patterns.4.weight", "conv.bias", "head.bias"} <= spared_names
    assert len(decayed["params"]) + len(spared["params"]) == len(names)


def test_gradients_are_clipped_to_the_norm_that_is_asked_for(tiny):
    tiny.train()
    recipe = Recipe(clip_norm=0.01, optimizer="sgd")
    step = Step(tiny, open_optimizer(tiny, recipe), recipe)
    step.gradients(torch.randn(8, 1, 32, 32), torch.arange(8), [SearchSpace.of(tiny).full()])
    step.update()
    norms = [float(p.grad.norm()) for p in tiny.parameters() if p.grad is not None]
    assert sum(norm**2 for norm in norms) ** 0.5 == pytest.approx(0.01, rel=1e-3)


def test_too_few_images_for_a_batch_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="128 training images are fewer than one batch of 256"):
        train(Recipe(**{**RECIPE.to_json(), "batch": 256}), tmp_path, quiet=True)


def test_an_inplace_teacher_gives_other_weights_than_hard_labels(tmp_path):
    taught = train(Recipe(**{**RECIPE.to_json(), "teacher": "inplace", "epochs": 1}), tmp_path / "taught", quiet=True)
    plain = train(Recipe(**{**RECIPE.to_json(), "teacher": "none", "epochs": 1}), tmp_path / "plain", quiet=True)
    assert not torch.equal(taught.weights["conv.weight"], plain.weights["conv.weight"])


def test_the_learning_rate_warms_up_and_falls_to_nothing():
    rates = [schedule(step / 100, 0.15) for step in range(101)]
    assert 0 < rates[0] < 0.1
    assert max(rates) == pytest.approx(1.0, abs=0.01)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


class OneClass(FewDigits):
    """All digits are called the same."""

    @property
    def labels(self) -> tuple[str, ...]:
        return ("digit",)


def one_class(seed: int) -> OneClass:
    return OneClass(seed)
