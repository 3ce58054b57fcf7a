"""Whether the network and its pixels are worth it: points of docs/ml_test_score.md."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import SGDClassifier

from mnist_cnn.browser import drawings
from mnist_cnn.evaluation.metrics import mcnemar
from mnist_cnn.learning.data import load_training
from mnist_cnn.learning.fit import fit
from mnist_cnn.learning.model import predict
from mnist_cnn.recipes import FAST


@pytest.fixture(scope="module")
def mnist():
    data = load_training("mnist")
    some = type(data.train)(data.train.x[:6000], data.train.y[:6000])
    return replace(data, train=some)


@pytest.fixture(scope="module")
def reader(mnist):
    """`fast` after 6,000 images, four times."""
    return fit(replace(FAST, epochs=4), mnist, seed=0).model


@pytest.fixture(scope="module")
def right(mnist, reader):
    """Which validation images it reads rightly."""
    return predict(reader, mnist.validation.x).argmax(1) == mnist.validation.y


def test_a_linear_model_is_clearly_worse(mnist, right):
    """Logistic regression on the same images; fast itself has 39,754 parameters, it has 7,850."""
    simple = SGDClassifier(loss="log_loss", random_state=0, max_iter=20, tol=None)
    simple.fit(mnist.train.x.reshape(6000, -1) / 255, mnist.train.y)
    simple_right = simple.predict(mnist.validation.x.reshape(5000, -1) / 255) == mnist.validation.y
    assert simple_right.mean() > 0.85, "it is a fair rival"
    p_value, (_, low, _) = mcnemar(right, simple_right)
    assert p_value < 1e-6
    assert low > 0.04


def test_which_pixels_bring_something(mnist, reader, right):
    """Permutation importance (Breiman 2001) of the 16 blocks of 7 x 7 pixels, in points.

    All but the corners do; those are blank in nearly every image and cost what a rectangle costs.
    """
    rng = np.random.default_rng(0)
    loss = np.zeros((4, 4))
    for down, across in np.ndindex(4, 4):
        block = np.s_[:, 7 * down : 7 * down + 7, 7 * across : 7 * across + 7]
        mixed = mnist.validation.x.copy()
        mixed[block] = mixed[block][rng.permutation(len(mixed))]
        answers = predict(reader, mixed).argmax(1)
        loss[down, across] = 100 * (right.mean() - (answers == mnist.validation.y).mean())
    corners = loss[[0, 0, 3, 3], [0, 3, 0, 3]]
    assert abs(corners).max() < 0.3
    assert loss[1:3, 1:3].min() > 3, "the middle"
    assert loss[[0, 3], 1:3].min() > 0.5, "above and below"
    assert loss[1:3, [0, 3]].mean() > 0.1, "left and right"


def test_every_imagined_hand_is_read(reader):
    """Crossed sevens, open and closed fours, flagged ones, slants, pens: nobody's is left out."""
    drawn = drawings.read()
    read = reader.predict(drawn.images, verbose=0).argmax(1) == drawn.labels
    read = read[drawn.labels >= 0].reshape(12, 10)
    assert read.mean() > 0.9
    assert read.sum(axis=1).min() >= 7, read.sum(axis=1)


def test_a_drawing_comes_as_the_training_images_are(mnist):
    """What holds for MNIST holds for what the page's own JavaScript makes of drawings."""
    drawn = drawings.read()
    pictures = drawn.images[drawn.labels >= 0]
    assert (pictures.min(), pictures.max()) == (0, 1)
    known = mnist.train.x[:2000] / 255
    for measure in (_ink, _height, _width, _down, _across):
        low, high = np.quantile(measure(known), [0.001, 0.999])
        slack = 0.2 * (high - low)
        assert measure(pictures).min() > low - slack, measure
        assert measure(pictures).max() < high + slack, measure


def _ink(x):
    return x.mean(axis=(1, 2, 3))


def _height(x):
    return (x[..., 0] > 0.1).any(axis=2).sum(axis=1)


def _width(x):
    return (x[..., 0] > 0.1).any(axis=1).sum(axis=1)


def _down(x):
    return (x[..., 0].sum(axis=2) * np.arange(28)).sum(axis=1) / x.sum(axis=(1, 2, 3))


def _across(x):
    return (x[..., 0].sum(axis=1) * np.arange(28)).sum(axis=1) / x.sum(axis=(1, 2, 3))
