"""Digit models of other makers: other ranges, shapes and outputs are found, and evaluated."""

from dataclasses import replace

import mlflow
import pytest

from mnist_cnn import cli
from mnist_cnn.learning.adapter import fitted
from mnist_cnn.learning.backend import keras
from mnist_cnn.learning.data import load_test, load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import predict
from mnist_cnn.recipes import RECIPES

L = keras.layers


@pytest.fixture(scope="module")
def network(small):
    recipe = replace(RECIPES["fast"], epochs=3, batch_size=32)
    return fit(recipe, load_training(str(small)), 0).model


def logits(network):
    last = L.Dense(10)
    body = keras.Sequential([L.Input((28, 28, 1)), *network.layers[:-1], last])
    last.set_weights(network.layers[-1].get_weights())
    return body


# What a model of another maker takes and answers, around a network that takes 0 to 1.
MAKERS = {
    "pixels from 0 to 255, flat": lambda n: [
        L.Input((784,)),
        L.Reshape((28, 28, 1)),
        L.Rescaling(1 / 255),
        n,
    ],
    "pixels from -1 to 1, without channel": lambda n: [
        L.Input((28, 28)),
        L.Reshape((28, 28, 1)),
        L.Rescaling(0.5, 0.5),
        n,
    ],
    "black on white, logits": lambda n: [L.Input((28, 28, 1)), L.Rescaling(-1, 1), logits(n)],
    "sigmoids": lambda n: [L.Input((28, 28, 1)), logits(n), L.Activation("sigmoid")],
}


@pytest.fixture(scope="module")
def right(network, small):
    """Which test images the network reads rightly."""
    test = load_test(str(small))
    return predict(network, test.x).argmax(1) == test.y


@pytest.mark.parametrize("maker", MAKERS)
def test_it_is_read_as_its_maker_meant_it(maker, network, small, right):
    theirs, test = keras.Sequential(MAKERS[maker](network)), load_test(str(small))
    ours = fitted(theirs, load_training(str(small)).validation).as_ours(theirs)
    assert ((predict(ours, test.x).argmax(1) == test.y) == right).all()


def test_it_is_evaluated_as_its_maker_meant_it(network, small, right, store):
    keras.Sequential(MAKERS["pixels from 0 to 255, flat"](network)).save("theirs.keras")
    assert cli.run(["evaluate", "--model", "theirs.keras", "--dataset", str(small)]) == 0
    found = mlflow.search_runs(filter_string="tags.verb = 'evaluate'").iloc[0]
    assert found["metrics.test_accuracy"] == pytest.approx(right.mean(), abs=1e-6)


def test_channels_first_is_refused_and_chance_is_not(network, small, store):
    first = keras.Sequential([L.Input((1, 28, 28)), L.Reshape((28, 28, 1)), network])
    first.save(store / "first.keras")
    command = ["evaluate", "--dataset", str(small), "--model"]
    assert cli.run([*command, str(store / "first.keras")]) == 1
    run = mlflow.search_runs(filter_string="tags.verb = 'evaluate'").iloc[0]
    assert "maps [(None, 1, 28, 28)] to [(None, 10)]; allowed are" in run["tags.failure"]
    chance = keras.Sequential([L.Input((28, 28, 1)), L.Flatten(), L.Dense(10, "softmax")])
    chance.save(store / "chance.keras")
    assert cli.run([*command, str(store / "chance.keras")]) == 0
