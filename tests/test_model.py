"""The published network, and what every network promises."""

import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from mnist_cnn.learning import model_file
from mnist_cnn.learning.backend import keras, legacy_keras
from mnist_cnn.learning.data import load_test
from mnist_cnn.learning.model import build, predict, scaled
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import CLASSIC, FAST, RECIPES


def test_classic_is_the_published_network():
    model = build(CLASSIC)
    assert model.count_params() == 159_254
    kinds = [type(layer).__name__ for layer in model.layers]
    assert kinds == [
        *("Conv2D", "MaxPooling2D", "Conv2D", "Conv2D", "MaxPooling2D"),
        *("Flatten", "Dense", "Dense"),
    ]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == [32, 64, 64]
    for layer in [*convolutions, model.layers[-2]]:
        assert layer.activation is keras.activations.relu
        assert isinstance(layer.kernel_initializer, keras.initializers.HeUniform)
    assert (CLASSIC.epochs, CLASSIC.batch_size) == (10, 32)
    assert (CLASSIC.learning_rate, CLASSIC.momentum, CLASSIC.nesterov) == (0.01, 0.9, False)


def test_parameters_are_as_many_as_the_readme_says():
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    for name, recipe in RECIPES.items():
        assert f"| `{name}` | {build(recipe).count_params():,} |" in readme


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_answers_are_probabilities(recipe):
    images = np.random.default_rng(0).integers(0, 256, (7, 28, 28, 1), np.uint8)
    probabilities = predict(build(recipe), images)
    assert probabilities.shape == (7, 10)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@pytest.mark.slow  # it measures time
def test_predicting_the_test_set_takes_less_than_half_of_classics_plain_evaluate():
    test = load_test("mnist")
    classic = build(CLASSIC)
    classic.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    images = scaled(test.x)
    fast = build(FAST)

    def seconds(work):
        work()  # traces
        started = time.perf_counter()
        work()
        return time.perf_counter() - started

    plain = seconds(lambda: classic.evaluate(images, test.y, verbose=0))
    assert seconds(lambda: predict(fast, test.x)) < plain / 2


def test_a_compiled_keras_2_file_is_loaded_and_another_class_is_refused(tmp_path):
    legacy = legacy_keras()

    class Own(legacy.Sequential):
        pass

    path = tmp_path / "own.keras"
    layers = [legacy.Input((4,)), legacy.layers.Dense(2)]
    for kind in (legacy.Sequential, Own):
        model = kind(layers)
        model.compile("adam", "mse")
        model.save(path)
        if kind is Own:
            with pytest.raises(UserError, match="is a Own, which may run code"):
                model_file.load(path)
        else:
            loaded = model_file.load(path)
            np.testing.assert_array_equal(loaded.get_weights()[0], model.get_weights()[0])


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_an_unreadable_keras_2_file_is_told_with_its_version(tmp_path):
    legacy = legacy_keras()
    model = legacy.Sequential([legacy.Input((4,)), legacy.layers.Dense(2, name="d")])
    model.save(tmp_path / "whole.h5")
    model.save_weights(tmp_path / "weights.h5")
    with h5py.File(tmp_path / "whole.h5", "a") as file:
        del file["model_weights/d/d/kernel:0"]
        file.attrs["keras_version"] = "2.3.1"
    for name, says in (("whole", "Keras 2.3.1 wrote it"), ("weights", "weights only (Keras 2.")):
        with pytest.raises(UserError) as refused:
            model_file.load(tmp_path / f"{name}.h5")
        assert says in str(refused.value)
        assert len(str(refused.value).splitlines()) == 1
        assert len(str(refused.value)) <= 300
