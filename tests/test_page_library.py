"""What of TensorFlow.js a page carries, and what it answers; types and linter of our part."""

import json

import numpy as np
import pytest

from mnist_cnn.browser import node, tfjs
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.model import build
from mnist_cnn.recipes import FAST, RECIPES
from tests.conftest import ROOT
from tests.page import look, served, write_page


def test_bytes_and_licences(tmp_path):
    """Of `fast` with its weights in float32."""
    written = write_page(build(FAST), tmp_path / "page")
    assert (written / "digits.html").stat().st_size <= 360_000
    for text in ((written / name).read_text() for name in ("THIRD_PARTY.txt", "digits.html")):
        for words in ("tfjs-core 4.22.0: Apache-2.0", "Google LLC", "Apache License"):
            assert words in text


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_light_library_answers_as_the_whole_one(tmp_path, recipe):
    keras.utils.set_random_seed(0)
    model = build(RECIPES[recipe])
    rng = np.random.default_rng(0)
    for layer in model.layers:  # or biases and normalisations do nothing
        weights = layer.get_weights()
        layer.set_weights([rng.uniform(0.5, 1.5, w.shape) if w.ndim == 1 else w for w in weights])
    folder = write_page(model, tmp_path / "page")
    assert (folder / "index.html").read_bytes() == (folder / "digits.html").read_bytes()
    weights = sum(path.stat().st_size for path in folder.glob("*.bin"))
    assert (folder / "digits.html").stat().st_size - 4 / 3 * weights < 130_000
    images = (rng.random((20, 28, 28, 1)) * (rng.random((20, 28, 28, 1)) < 0.3)).astype("float32")
    values = json.dumps(images.ravel().tolist())
    script = f"Array.from(ask(reader.model, tf.tensor({values}, [20, 28, 28, 1])))"
    (whole,) = tfjs.answers([(folder, [images])])
    (found,) = look(folder, ("eval", script))
    np.testing.assert_allclose(np.reshape(found, (20, 10)), whole["outputs"][0], atol=1e-4)


def test_another_model_has_the_whole_library(tmp_path):
    layers = keras.layers
    other = [
        layers.Input((28, 28, 1)),
        layers.ReLU(max_value=0.9),
        layers.Flatten(),
        layers.Dense(10, "softmax"),
    ]
    folder = write_page(keras.Sequential(other), tmp_path / "page")
    assert (folder / "digits.html").stat().st_size > 1_000_000
    with served(folder) as address:
        for url, backend in ((folder, "cpu"), (address, "wasm")):
            steps = [
                ("data", "#answer"),
                ("eval", "reader.read([new Float32Array(784)])[0].shares"),
            ]
            answer, shares = look(url, *steps)
            assert answer["backend"] == backend
            assert shares == pytest.approx([0.1] * 10)


def test_types_of_the_page():
    tsc = node.modules(ROOT / "tests" / "js") / "node_modules/typescript/bin/tsc"
    assert node.run(tsc, "-p", str(ROOT / "tests" / "js")) == ""


def test_the_linter_finds_nothing():
    oxlint = node.modules(ROOT / "tests" / "js") / "node_modules/oxlint/bin/oxlint"
    config, ours = ROOT / "tests" / "js" / ".oxlintrc.json", ROOT / "mnist_cnn" / "browser"
    node.run(oxlint, "-c", str(config), "--deny-warnings", str(ours), str(config.parent))
