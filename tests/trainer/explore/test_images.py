import numpy as np
import pytest

from tests.trainer.few_digits import FewDigits
from wenet_trainer.data.base import Images
from wenet_trainer.errors import ExploreError
from wenet_trainer.explore.images import apart, calibration


class Views(FewDigits):
    """Images whose pixels say which original they show; originals come in a jumble."""

    def validation(self):
        origins = np.array([3, 1, 3, 0, 1, 2, 0, 2, 4, 4], np.int64)
        return Images(np.zeros((10, 1, 32, 32), np.uint8) + origins.astype(np.uint8)[:, None, None, None], origins)


class WithOrigins(Views):
    def validation(self):
        images = super().validation()
        return Images(images.pixels, images.labels, images.labels)


def test_calibration_shows_views_that_no_training_epoch_shows():
    source = FewDigits()
    assert calibration(source).shape == (128, 1, 32, 32)
    assert (source.train(1_000_000).pixels != source.train(0).pixels).any()


def test_images_for_the_search_and_for_the_accuracies_are_apart_and_together_all():
    search, final = apart(Views())  # a third of ten
    assert (len(search), len(final)) == (3, 7)
    assert [*search.labels, *final.labels] == [3, 1, 3, 0, 1, 2, 0, 2, 4, 4]


def test_views_of_one_original_stay_together():
    search, final = apart(WithOrigins(), 3)
    assert not set(search.origins) & set(final.origins)
    assert len(search) >= 3
    assert len(search) + len(final) == 10
    assert list(search.origins) == [3, 1, 3, 1]  # the originals that appear first


def test_more_images_for_the_search_than_leave_some_for_the_accuracies_are_refused():
    with pytest.raises(ExploreError, match="10 of 10 validation images for the search leave none"):
        apart(Views(), 10)
    with pytest.raises(ExploreError, match="0 of 10"):
        apart(Views(), 0)
