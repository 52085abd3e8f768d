import numpy as np
import pytest

from tests.trainer.bundles import changed
from tests.trainer.cascade.sources import ManyDigits
from wenet_runtime.engines.ort import OrtBackend
from wenet_runtime.materialize import Supernet, materialize
from wenet_trainer.cascade.answers import answers_of, batches, times_ms
from wenet_trainer.cascade.errors import CalibrationError
from wenet_trainer.data.base import Images, normalise
from wenet_trainer.data.digits import Digits


def joined(parts):
    parts = list(parts)
    return np.concatenate([one.pixels for one in parts]), np.concatenate([one.labels for one in parts])


def test_answers_are_those_of_every_mode_run_plainly_on_all_images(shared_bundle, engines):
    bundle, images = shared_bundle, ManyDigits().validation()
    found, _ = answers_of(bundle, engines, batches([images], 0, None))
    assert set(times_ms(bundle, engines, rounds=2)) == {mode.id for mode in bundle.modes}
    inputs = {"image": normalise(images.pixels, bundle.manifest.preprocess).numpy()}
    for mode in bundle.modes:
        plain = materialize(Supernet.of(bundle), mode.groups, bundle.statistics(mode), fold=False)
        scores = np.sort(answered := OrtBackend().load_bytes(plain, name="plain").infer(inputs)["logits"], axis=1)
        margins = scores[:, -1] - scores[:, -2]
        np.testing.assert_allclose(found[mode.id].margins, margins, atol=1e-4 * np.abs(answered).max())
        sure = margins > 1e-4 * np.abs(answered).max()
        right = answered.argmax(axis=1) == images.labels
        np.testing.assert_array_equal(found[mode.id].right[sure], right[sure])


@pytest.mark.parametrize("skip", [0, 1, 40, 300, 500])
@pytest.mark.parametrize("most", [None, 1, 33, 150, 999])
def test_batches_are_the_images_in_order_without_the_first_ones(skip, most):
    views = [ManyDigits().validation(), ManyDigits().test()]
    pixels, labels = joined(views)
    wanted = slice(skip if skip < 300 else 300, None)
    found = list(batches(views, skip, most))
    kept = pixels[wanted][:most], labels[wanted][:most]
    np.testing.assert_array_equal(joined(found)[0], kept[0])
    np.testing.assert_array_equal(joined(found)[1], kept[1])


def test_of_several_views_of_an_original_one_is_taken():
    view = Digits().validation()
    found = list(batches([view], 0, None))
    assert sum(map(len, found)) == len(set(view.origins.tolist())) < len(view)
    origins = np.concatenate([one.origins for one in found])
    assert len(set(origins.tolist())) == len(origins)


def test_the_hash_tells_images_and_labels_from_others(shared_bundle, engines):
    images = ManyDigits().test()
    other = images.labels.copy()
    other[7] = (other[7] + 1) % 10
    first, again, relabelled = (
        answers_of(shared_bundle, engines, batches([one], 0, None))[1]
        for one in (images, images, Images(images.pixels, other))
    )
    assert first == again != relabelled


def test_images_that_the_network_was_not_made_for_are_refused(shared_bundle, engines):
    images = ManyDigits().test()
    colour = Images(np.repeat(images.pixels, 3, axis=1), images.labels)
    many = Images(images.pixels, images.labels + 5)
    for given, message in ((colour, "3 channels, the bundle's 1"), (many, "the bundle knows 10")):
        with pytest.raises(CalibrationError, match=message):
            answers_of(shared_bundle, engines, [given])
    with pytest.raises(CalibrationError, match="no images to calibrate on"):
        answers_of(shared_bundle, engines, [])


def test_a_bundle_that_does_not_say_how_images_are_fed_is_refused(shared_bundle, engines, tmp_path):
    blind = changed(shared_bundle, tmp_path / "blind", preprocess=None)
    with pytest.raises(CalibrationError, match="does not say how an image becomes its input"):
        answers_of(blind, engines, [ManyDigits().test()])
