import ctypes

import pytest
import torch

from wenet_trainer import heap, step
from wenet_trainer.optimizer import open_optimizer
from wenet_trainer.recipe import Recipe
from wenet_trainer.space import SearchSpace


@pytest.fixture
def given(monkeypatch):
    calls = []
    monkeypatch.setattr(heap, "give_back", lambda: calls.append(1))
    return calls


def test_what_is_freed_is_counted():
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallinfo2"):
        pytest.skip("this C library does not tell what is free")
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, (ctypes.c_void_p,)
    pieces = [libc.malloc(100_000) for _ in range(200)]  # below the size that is always mapped
    before = heap.free_bytes()
    for piece in pieces[:-1]:  # the last one keeps the heap's top where it is
        libc.free(piece)
    assert heap.free_bytes() > before + 10_000_000
    libc.free(pieces[-1])


def test_much_is_given_back_and_little_is_kept(monkeypatch, given):
    monkeypatch.setattr(heap, "free_bytes", lambda: heap.SURPLUS_BYTES)
    heap.give_back_surplus()
    assert given == []
    monkeypatch.setattr(heap, "free_bytes", lambda: heap.SURPLUS_BYTES + 1)
    heap.give_back_surplus()
    assert given == [1]


def test_a_c_library_that_does_not_tell_is_left_alone(monkeypatch, given):
    monkeypatch.setattr(heap.ctypes, "CDLL", lambda _: object())
    assert heap.free_bytes() == 0
    heap.give_back_surplus()
    assert given == []


def test_a_step_asks_after_every_sub_network(tiny, monkeypatch):
    asked = []
    monkeypatch.setattr(step, "give_back_surplus", lambda: asked.append(1))
    recipe = Recipe(batch=4, teacher="none")
    space = SearchSpace.of(tiny.train())
    one = step.Step(tiny, open_optimizer(tiny, recipe), recipe)
    one.gradients(torch.zeros(4, 1, 32, 32), torch.zeros(4, dtype=torch.long), [space.full(), space.smallest()])
    assert len(asked) == 2
