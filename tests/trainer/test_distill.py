import copy

import pytest
import torch
from torch import nn

from wenet_trainer.distill import EmaTeacher, InplaceTeacher, NoTeacher, open_teacher
from wenet_trainer.errors import CheckpointError
from wenet_trainer.optimizer import open_optimizer
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace
from wenet_trainer.step import Step
from wenet_trainer.supernet import set_active


def test_nobody_teaches_by_default_of_the_paper():
    assert NoTeacher().answers(torch.zeros(1, 3), torch.zeros(1, 3)) is None


def test_in_place_the_full_network_s_own_answers_teach():
    answers = InplaceTeacher().answers(torch.zeros(2, 1), torch.tensor([[0.0, 0.0], [3.0, 0.0]]))
    assert answers is not None
    assert answers[0].tolist() == [0.5, 0.5]
    assert answers[1].sum() == pytest.approx(1.0)


def test_the_average_answers_as_the_full_network_at_first_and_follows_it_slowly(tiny):
    x = torch.randn(8, 1, 32, 32)
    space = SearchSpace.of(tiny)
    set_active(tiny, space.smallest())
    teacher = EmaTeacher(tiny, 0.9)
    own = copy.deepcopy(tiny).train()
    set_active(own, space.full())
    assert torch.allclose(teacher.answers(x, torch.zeros(1)), own(x).softmax(1), atol=1e-6)
    first = tiny.conv.weight.detach().clone()
    with torch.no_grad():
        tiny.conv.weight += 1.0
    for _ in range(40):
        teacher.follow(tiny)
    moved = teacher.state()["conv.weight"] - first
    assert 0.5 < float(moved.mean()) < 1.0  # a plain copy would be at 1
    assert int(teacher.state()["steps"]) == 40


def test_the_average_has_no_gradients_and_leaves_the_network_s_statistics(tiny):
    teacher = EmaTeacher(tiny, 0.9)
    before = tiny.stem_bn.running_mean.clone()
    answers = teacher.answers(torch.randn(4, 1, 32, 32), torch.zeros(1))
    assert not answers.requires_grad
    assert torch.equal(before, tiny.stem_bn.running_mean)


def test_dropout_does_not_disturb_the_average():
    net = nn.Sequential(nn.Dropout(0.9), nn.Linear(4, 2))
    net.levels = {"one": (1,)}
    net.activate = lambda config: None
    net.norms_in_use = dict
    net.macs = lambda config, shape: 0
    teacher = EmaTeacher(net, 0.9)
    x = torch.ones(1, 4)
    assert torch.equal(teacher.answers(x, torch.zeros(1)), net.eval()(x).softmax(1))


def test_a_teacher_s_state_survives_a_kill_and_is_refused_by_another(tiny):
    one, other = EmaTeacher(tiny, 0.5), EmaTeacher(tiny, 0.5)
    with torch.no_grad():
        tiny.conv.weight += 1.0
    one.follow(tiny)
    other.restore({name: value.clone() for name, value in one.state().items()})
    assert all(torch.equal(other.state()[name], value) for name, value in one.state().items())
    with pytest.raises(CheckpointError, match="another teacher's state"):
        NoTeacher().restore(one.state())
    with pytest.raises(CheckpointError, match="another teacher's state"):
        one.restore({})


@pytest.mark.parametrize("name", ["none", "inplace", "ema"])
def test_the_first_network_learns_from_labels_and_the_others_from_the_teacher(tiny, name):
    tiny.train()
    space = SearchSpace.of(tiny)
    x, labels = torch.randn(8, 1, 32, 32), torch.arange(8)
    recipe = Recipe(teacher_share=1.0)
    step = Step(tiny, open_optimizer(tiny, recipe), recipe, teacher=open_teacher(name, tiny, 0.9))
    full, same = step.gradients(x, labels, [space.full(), space.full()])
    set_active(tiny, space.full())
    logits = tiny(x).detach()
    assert full == pytest.approx(float(nn.functional.cross_entropy(logits, labels)), rel=1e-4)
    expected = labels if name == "none" else logits.softmax(1)
    assert same == pytest.approx(float(nn.functional.cross_entropy(logits, expected)), rel=1e-4)


def test_labels_and_teacher_share_the_loss(tiny):
    tiny.train()
    full = SearchSpace.of(tiny).full()
    x, labels = torch.randn(8, 1, 32, 32), torch.arange(8)
    losses = {}
    for share in (0.0, 0.25, 1.0):
        recipe = Recipe(teacher_share=share)
        step = Step(tiny, open_optimizer(tiny, recipe), recipe, teacher=InplaceTeacher())
        losses[share] = step.gradients(x, labels, [full, full])[1]
    assert losses[0.0] != losses[1.0]
    assert losses[0.25] == pytest.approx(0.75 * losses[0.0] + 0.25 * losses[1.0], rel=1e-4)
