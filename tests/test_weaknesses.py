"""Corruptions against the libraries of MNIST-C, and slices and behaviour of known answers."""

from concurrent.futures import CancelledError

import numpy as np
import pytest
from skimage import transform

from mnist_cnn.evaluation.corruptions import CORRUPTIONS, MNIST_C, corrupted
from mnist_cnn.evaluation.metrics import accuracy
from mnist_cnn.evaluation.robustness import (
    adversarial,
    attacks,
    behaviour,
    corruptions,
    slices,
    under_corruption,
)
from mnist_cnn.learning.backend import keras, tf
from mnist_cnn.learning.data import Split, load_training
from mnist_cnn.learning.model import scaled


@pytest.fixture(scope="module")
def digits(small):
    train = load_training(str(small)).train
    return Split(train.x[:200], train.y[:200])


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_same_images_same_corruption_and_stronger_is_further_away(digits, kind):
    weak, strong = (corrupted(kind, digits.x, strength) for strength in (1, 5))
    assert weak.dtype == np.uint8
    assert weak.shape == digits.x.shape
    np.testing.assert_array_equal(strong, corrupted(kind, digits.x, 5))
    distances = [
        np.abs(bad.astype(float) - digits.x).mean() for bad in (np.array(digits.x), weak, strong)
    ]
    # Edges of a blurrier image are fewer, not more.
    assert distances[0] == 0 < distances[1]
    assert kind == "canny_edges" or distances[1] < distances[2]
    published = corrupted(kind, digits.x)
    np.testing.assert_array_equal(published, corrupted(kind, digits.x, CORRUPTIONS[kind].published))


def by_scikit_image(image, linear, moved=(0.0, 0.0)):
    """The pixel at p comes from linear (p - middle) + middle + moved, by skimage's own warp."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = 13.5 - np.asarray(linear).sum(axis=1) * 13.5 + moved
    return transform.warp(image[..., 0] / 255.0, transform.AffineTransform(matrix))


@pytest.mark.parametrize(
    ("kind", "ways"),
    {
        "scale": [(np.eye(2) / 0.7,)],
        "rotate": [([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]],) for a in (0.4, -0.4)],
        "shear": [([[1, -np.sin(a)], [0, np.cos(a)]],) for a in (0.4, -0.4)],
        "translate": [(np.eye(2), (3 * a, 3 * b)) for a in (-1, 1) for b in (-1, 1)],
    }.items(),
)
def test_geometry_is_scikit_images(digits, kind, ways):
    """Each image is one of the ways in which MNIST-C's code may warp it, and all ways occur."""
    bad = corrupted(kind, digits.x[:40])[..., 0] / 255.0
    used = set()
    for image, mine in zip(digits.x[:40], bad, strict=True):
        errors = [np.abs(by_scikit_image(image, *way) - mine).max() for way in ways]
        assert min(errors) < 0.01
        used.add(int(np.argmin(errors)))
    assert len(used) == len(ways)


def test_noise_has_the_published_amount(digits):
    black = np.zeros((200, 28, 28, 1), np.uint8)
    noisy = corrupted("impulse_noise", black, 4)
    assert (noisy == 255).mean() == pytest.approx(0.17 / 2, rel=0.05)
    grey = np.full_like(black, 128)
    shot = corrupted("shot_noise", grey, 5) / 255
    assert np.unique(np.rint(shot * 3)).tolist() == [0, 1, 2, 3], "three photons at most"
    assert (corrupted("brightness", black) == 128).all()
    assert (corrupted("stripe", black)[:, :, [0, 6, 21, 27]] == 255).all()
    assert (corrupted("stripe", black)[:, :, 7:21] == 0).all()


def test_figures_are_means_over_the_kinds_of_mnist_c(digits):
    """A classifier that is right only where nothing is inverted or moved."""
    right = np.eye(10)[digits.y]
    with corruptions(digits.x) as bad:
        table, figures = under_corruption(lambda x: right * (x.mean() < 60), digits.y, bad)
    in_mnist_c = [figures[f"robust/{name}"] for name in MNIST_C]
    assert len(in_mnist_c) == 15
    assert figures["robust_accuracy"] == pytest.approx(np.mean(in_mnist_c))
    assert table.accuracy.tolist() == [figures[f"robust/{name}"] for name in CORRUPTIONS]
    assert figures["robust/inversion"] < 0.2 < figures["robust/rotate"] == 1.0


def test_the_interval_of_the_mean_knows_that_the_same_images_are_hard_in_every_look(digits):
    hard = np.arange(200) < 50
    wrong = np.where(hard, (digits.y + 1) % 10, digits.y)
    with corruptions(digits.x) as bad:
        table, figures = under_corruption(lambda x: np.eye(10)[wrong], digits.y, bad)
    _, *wilson = accuracy(~hard)
    found = [figures[f"interval/robust_accuracy_{end}"] for end in ("low", "high")]
    assert found == pytest.approx(wilson, abs=0.01), "fifteen looks at 200 images are not 3,000"
    np.testing.assert_allclose(table[["low", "high"]], [wilson] * len(CORRUPTIONS))


def test_slices_find_the_slant_and_the_size(digits):
    upright = np.zeros((30, 28, 28, 1), np.uint8)
    upright[:, 6:22, 13:15] = 255
    leaning = upright.copy()
    for row in range(6, 22):
        leaning[:, row] = np.roll(upright[:, row], (14 - row) // 2, axis=1)
    thick = np.zeros_like(upright)
    thick[:, 4:24, 10:18] = 255
    images = np.concatenate([upright, leaning, thick])
    right = np.array([True] * 30 + [False] * 30 + [True] * 30)
    table = slices(Split(images, np.zeros(90, np.uint8)), right).set_index("slice")
    assert table.index[0] == "leaning right"
    assert table.accuracy["leaning right"] == 0.0
    assert (table.low <= table.accuracy).all()
    assert (table.accuracy <= table.high).all()


def test_behaviour_of_a_classifier_that_sees_only_the_left_edge(digits):
    def by_left_edge(x):
        """Digit 1 if there is ink in the left half of the picture's middle row, else digit 0."""
        return np.eye(10)[(x[:, 14, :14].max(axis=(1, 2)) > 0).astype(int)] * 0.6

    figures = behaviour(by_left_edge, digits)
    assert 0 < figures["behaviour/shift_invariance"] < 1
    assert figures["behaviour/blank_confidence"] == pytest.approx(0.6)
    assert figures["behaviour/noise_confidence"] == pytest.approx(0.6)
    always = behaviour(lambda x: np.full((len(x), 10), 0.1), digits)
    assert always["behaviour/shift_invariance"] == always["behaviour/thickness_invariance"] == 1.0


def test_behaviour_of_a_classifier_that_is_surer_the_more_ink_there_is(digits):
    def by_ink(x):
        """Digit 1 if more than a tenth is ink, else digit 0; its confidence is the share of ink."""
        ink = x.mean(axis=(1, 2, 3))[:, None] / 255
        return np.where(np.arange(10) == (ink > 0.1), ink, 0)

    figures = behaviour(by_ink, digits)
    assert figures["behaviour/thickness_invariance"] < 1
    assert figures["behaviour/shift_invariance"] == 1, "a shift within its margin keeps the ink"
    assert figures["behaviour/blank_confidence"] == 0
    assert figures["behaviour/noise_confidence"] == pytest.approx(0.5, abs=0.01)


@pytest.fixture(scope="module")
def reader(small):
    """A small network that reads most of the digits."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Flatten(), keras.layers.Dense(10, activation="softmax")]
    network = keras.Sequential([keras.layers.Input((28, 28, 1)), *layers])
    network.compile(keras.optimizers.SGD(0.1, 0.9), "sparse_categorical_crossentropy")
    train = load_training(str(small)).train
    network.fit(scaled(train.x), train.y, epochs=5, verbose=0)
    return network


def test_fgsm_is_the_one_by_hand(reader, digits):
    x = scaled(digits.x)
    with tf.GradientTape() as tape:
        pixels = tf.constant(x)
        tape.watch(pixels)
        loss = keras.losses.sparse_categorical_crossentropy(digits.y, reader(pixels))
    by_hand = np.clip(x + np.float32(0.1) * np.sign(tape.gradient(loss, pixels)), 0, 1)
    np.testing.assert_allclose(
        adversarial(reader, x, digits.y, 0.1)["fgsm_0.1"], by_hand, atol=1e-6
    )


def test_pgd_stays_within_its_bound_and_does_the_same_twice(reader, digits):
    x = scaled(digits.x)
    bad = adversarial(reader, x, digits.y, 0.1)["pgd_0.1"]
    assert 0.09 < np.abs(bad - x).max() < 0.1001
    assert (bad.min(), bad.max()) == (0, 1)
    np.testing.assert_array_equal(bad, adversarial(reader, x, digits.y, 0.1)["pgd_0.1"])
    still = adversarial(reader, x, digits.y, 0.0)
    np.testing.assert_array_equal(still["pgd_0.0"], x)


def test_a_stronger_attack_leaves_less(reader, digits):
    figures = attacks(reader, digits)
    clean = (reader.predict(scaled(digits.x), verbose=0).argmax(1) == digits.y).mean()
    assert clean > 0.9
    assert figures["attack/pgd_0.1"] <= figures["attack/fgsm_0.1"] < clean
    assert figures["interval/fgsm_0.1_low"] < figures["attack/fgsm_0.1"]
    assert figures["attack/pgd_0.3"] <= figures["attack/fgsm_0.3"] <= figures["attack/fgsm_0.1"]


def test_an_error_meanwhile_does_not_wait_for_every_corruption(digits):
    with pytest.raises(KeyboardInterrupt), corruptions(digits.x, full=True) as bad:
        assert next(bad)[:2] == ("shot_noise", 1)
        raise KeyboardInterrupt
    with pytest.raises(CancelledError):
        list(bad)
