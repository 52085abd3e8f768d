import io
import re
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.supernets import write_test_bundle
from tests.trainer.bundles import changed, reference
from wenet_runtime.bundle import Bundle
from wenet_runtime.service.images import decode_image
from wenet_trainer.standalone import export_standalone


@pytest.fixture
def bundle(tmp_path):
    write_test_bundle(tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


def test_the_readmes_code_runs_and_prepares_an_image_as_the_runtime_does(bundle, tmp_path):
    labels = tuple("abcdefghij")
    export_standalone(changed(bundle, tmp_path / "lettered", labels=labels), tmp_path / "out", quiet=True)
    blank = reference(bundle, bundle.mode("m2"), np.full((1, 1, 8, 8), -2, np.float32))  # (0 - 0.5) / 0.25
    assert run_readme(tmp_path / "out") == f"['{labels[blank.argmax()]}']\n"
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    inputs = decode_image(png.getvalue(), bundle.manifest.preprocess)
    answers = reference(bundle, bundle.mode("m2"), inputs)
    np.save(tmp_path / "pixels.npy", pixels[None, :, :, None])
    output = run_readme(tmp_path / "out", blank="np.zeros((1, 8, 8, 1), np.uint8)", by='np.load("../pixels.npy")')
    assert output == f"['{labels[answers.argmax()]}']\n"
    found = np.load(tmp_path / "answers.npy")
    assert np.abs(found - answers).max() <= 1e-5 * np.abs(answers).max()


def test_the_readmes_code_runs_without_preprocessing_and_labels(bundle, tmp_path):
    export_standalone(changed(bundle, tmp_path / "bare", preprocess=None, labels=()), tmp_path / "out", quiet=True)
    assert run_readme(tmp_path / "out").startswith("[[")
    assert "does not say how it is made" in (tmp_path / "out/README.md").read_text()
    assert not list((tmp_path / "out").rglob("labels.txt"))


def run_readme(folder, blank="", by=""):
    """Run the README's code in its folder as it stands, or with other pixels; gives what it prints."""
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert blank in code
    code = code.replace(blank, by) + 'np.save("../answers.npy", answers)\n'
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
