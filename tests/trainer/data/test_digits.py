import numpy as np
import pytest
from PIL import Image

from wenet_trainer.data import open_source
from wenet_trainer.data.base import Images, normalise, write_pngs
from wenet_trainer.data.digits import SPLITS, Digits
from wenet_trainer.errors import DataError


def test_the_splits_share_no_digit_and_hold_all_of_them():
    digits = Digits(seed=3)
    sizes = [len(digits.scans(split)[1]) for split in SPLITS]
    assert sum(sizes) == 1797
    assert sizes[0] == 988
    from sklearn.datasets import load_digits

    # Scans may repeat in the data set itself, so membership is checked by counting copies.
    everything = sorted(scan.tobytes() for scan in (load_digits().data.reshape(-1, 8, 8) / 16).astype(np.float32))
    assert sorted(scan.tobytes() for split in SPLITS for scan in digits.scans(split)[0]) == everything


def test_every_split_has_every_class_in_proportion():
    for split in SPLITS:
        counts = np.bincount(Digits().scans(split)[1], minlength=10)
        assert counts.min() > 0.8 * counts.max() * 0.9


def test_views_follow_from_the_seed_the_epoch_and_nothing_else():
    one, two, other = Digits(seed=0), Digits(seed=0), Digits(seed=1)
    assert (one.train(2).pixels == two.train(2).pixels).all()
    assert (one.train(2).pixels != one.train(3).pixels).any()
    assert (one.test().pixels == two.test().pixels).all()
    assert (one.test().pixels != other.test().pixels).any()


def test_a_view_does_not_depend_on_how_many_are_drawn():
    few = Digits()._views("test", 0, 449, clean_share=0.0)
    assert few.pixels.shape == (449, 1, 32, 32)
    assert len(np.unique(few.pixels.reshape(449, -1), axis=0)) == 449


def test_every_view_names_the_digit_it_shows():
    digits = Digits()
    for images, split in ((digits.validation(), "validation"), (digits.test(), "test")):
        scans, labels = digits.scans(split)
        assert (np.bincount(images.origins) == digits.held_out_views).all()
        assert len(np.bincount(images.origins)) == len(scans)
        assert (labels[images.origins] == images.labels).all()
        assert (images.first(7).origins == images.origins[:7]).all()
    assert digits.test(clean=True).origins is None  # each digit once


def test_there_are_enough_held_out_views():
    digits = Digits()
    assert len(digits.validation()) >= 1400
    assert len(digits.test()) >= 1500
    assert len(digits.test(clean=True)) == len(digits.scans("test")[1])


def test_clean_views_have_a_plain_background_and_cluttered_ones_do_not():
    digits = Digits()
    corners = (slice(None), 0, slice(0, 3), slice(0, 3))
    assert (digits.test(clean=True).pixels[corners] == 0).all()
    assert (digits.test().pixels[corners] > 0).mean() > 0.2


def test_images_are_normalised_as_the_bundle_says():
    recipe = Digits().preprocess
    pixels = np.full((1, 1, 2, 2), 255, np.uint8)
    assert normalise(pixels, recipe).numpy() == pytest.approx((1 - recipe.mean[0]) / recipe.std[0])


def test_test_images_become_pngs_with_the_label_in_the_name(tmp_path):
    images = Digits().test().first(3)
    paths = write_pngs(images, tmp_path, 3)
    assert [path.name for path in paths] == [f"test-{i:04d}-label{images.labels[i]}.png" for i in range(3)]
    with Image.open(paths[1]) as image:
        assert image.mode == "L"
        assert (np.asarray(image) == images.pixels[1, 0]).all()


def test_unknown_names_are_refused_with_the_known_ones():
    with pytest.raises(DataError, match="unknown data source 'cats': known are digits"):
        open_source("cats", 0)
    with pytest.raises(DataError, match="unknown split 'all'"):
        Digits().scans("all")
    with pytest.raises(DataError, match="must be"):
        Images(np.zeros((1, 2), np.uint8), np.zeros(1, np.int64))
    with pytest.raises(DataError, match=r"one original per image, got shape \(3,\) for 2 images"):
        Images(np.zeros((2, 1, 4, 4), np.uint8), np.zeros(2, np.int64), np.zeros(3, np.int64))
