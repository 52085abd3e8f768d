import builtins

import pytest
import torch

from wenet_trainer.data.augment import AUGMENTATIONS, augmentation
from wenet_trainer.errors import DataError

DRAWN = ("flip", "standard", "strong")


def smooth(count: int, size: int, channels: int = 3) -> torch.Tensor:
    """Pictures without fine detail, each different, in 0–1."""
    coarse = torch.rand(count, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_images_keep_their_range_and_get_the_inputs_size(name, channels):
    augment = augmentation(name, 28)
    for size in (28, 32):
        images = smooth(6, size, channels)
        kept = images.clone()
        found = augment(images)
        assert found.shape == (6, channels, 28, 28)
        assert found.dtype == torch.float32
        assert 0 <= found.min() <= found.max() <= 1
        assert torch.equal(images, kept)  # the batch itself is left alone


@pytest.mark.parametrize("name", DRAWN)
def test_torchs_global_seed_decides_every_draw(name):
    augment, images = augmentation(name, 28), smooth(16, 32)
    torch.manual_seed(3)
    one, after = augment(images), torch.rand(1)
    again = augmentation(name, 28)
    torch.manual_seed(3)
    assert torch.equal(again(images), one)
    assert torch.equal(torch.rand(1), after)
    assert not torch.equal(augment(images), one)


@pytest.mark.parametrize("name", DRAWN)
def test_every_image_is_drawn_for_itself(name):
    torch.manual_seed(0)
    found = augmentation(name, 32)(smooth(1, 32).expand(24, -1, -1, -1).clone())
    assert len({image.numpy().tobytes() for image in found}) >= (2 if name == "flip" else 20)


def test_none_draws_nothing_and_changes_nothing_at_the_inputs_size():
    images = smooth(4, 32)
    before = torch.random.get_rng_state()
    assert torch.equal(augmentation("none", 32)(images), images)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_none_shows_a_training_image_as_validation_would():
    images = smooth(4, 64)
    shrunk = augmentation("none", 56)(images)
    assert (shrunk - smooth(4, 56)).abs().mean() < 0.02
    assert (images[:, :, 4:60, 4:60] - smooth(4, 56)).abs().mean() > 0.02  # a crop of the centre is nearer


def test_flipping_mirrors_some_images_and_leaves_the_others():
    torch.manual_seed(0)
    images = smooth(32, 32)
    found = augmentation("flip", 32)(images)
    mirrored = [torch.equal(a, b.flip(-1)) for a, b in zip(found, images, strict=True)]
    same = [torch.equal(a, b) for a, b in zip(found, images, strict=True)]
    assert all(m != s for m, s in zip(mirrored, same, strict=True))
    assert 5 < sum(mirrored) < 27


def test_both_ways_to_crop_show_the_same_parts():
    crop = augmentation("standard", 56)._steps[0]
    images = smooth(8, 64)
    torch.manual_seed(2)
    one = crop._one_by_one(images)
    torch.manual_seed(2)
    assert (crop._at_once(images) - one).abs().mean() < 0.02
    torch.manual_seed(4)
    assert (crop._at_once(images) - one).abs().mean() > 0.05


def test_strong_changes_colours_and_standard_does_not():
    torch.manual_seed(0)
    red = torch.tensor([0.9, 0.2, 0.1]).view(1, 3, 1, 1).expand(16, -1, 32, 32).clone()
    assert (augmentation("standard", 32)(red) - red).abs().max() < 1e-3
    assert (augmentation("strong", 32)(red) - red).abs().mean() > 0.02


def test_unknown_names_and_a_missing_library_are_refused(monkeypatch):
    with pytest.raises(DataError, match="unknown augmentation 'wild': known are none, flip, standard, strong"):
        augmentation("wild", 32)
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "kornia":
            raise ImportError("No module named 'kornia'")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(DataError, match=r"needs the package kornia .*pip install 'wenet-trainer\[data\]'"):
        augmentation("flip", 32)
    augmentation("none", 32)
