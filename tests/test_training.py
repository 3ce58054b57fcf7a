"""Real training, shrunken: it learns, it repeats itself bit for bit, it is the published loop."""

import subprocess
import sys
import time
from dataclasses import replace

import mlflow
import numpy as np
import pytest

from mnist_cnn.learning import handwriting
from mnist_cnn.learning.augment import distorted, disturbed
from mnist_cnn.learning.backend import keras, tf
from mnist_cnn.learning.data import Split, load_training
from mnist_cnn.learning.fit import Muon, _Learner, fit, orthogonalized, oversample_hard
from mnist_cnn.learning.handwriting import generated
from mnist_cnn.learning.model import build, fuse_norms, predict, scaled
from mnist_cnn.recipes import CLASSIC, FAST, RECIPES
from mnist_cnn.train import LogEpochs


@pytest.fixture(scope="module")
def training(small):
    return load_training(str(small))


def of_epoch(epoch, recipe, split, sample_losses=None):
    """Images, labels and places of each batch of one epoch, as `fit` with seed 0 learns them."""
    learner = _Learner(build(recipe), recipe, 0, split)
    learner.epoch.assign(epoch)
    if sample_losses is not None:
        learner.sample_losses.assign(sample_losses)
    return [(*learner.batch(step, places), places) for step, places in learner.batches()]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_it_learns_and_the_same_seed_gives_the_same_weights_bit_for_bit(training, recipe):
    recipe = replace(recipe, epochs=2, batch_size=32)
    few = replace(training, train=Split(training.train.x[:600], training.train.y[:600]))
    fitted, again = (fit(recipe, few, seed=0) for _ in range(2))
    history = fitted.history
    assert history["loss"][1] < history["loss"][0]
    assert history["val_accuracy"][-1] > 0.3
    names = {"loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "epoch_seconds"}
    assert set(history) == names
    assert {len(values) for values in history.values()} == {2}
    assert fitted.train_seconds >= sum(history["epoch_seconds"])
    first, second = ([w.tobytes() for w in f.model.get_weights()] for f in (fitted, again))
    assert first == second


def test_another_seed_gives_other_weights(training):
    one, other = (fit(FAST, training, seed).model.get_weights() for seed in (3, 4))
    assert not np.array_equal(one[-1], other[-1])


def test_drawings_are_a_part_of_an_epoch_that_is_no_longer(training):
    """No digit is learnt as all ten alike, and no drawing is oversampled."""
    recipe = replace(FAST, drawn=0.5, outliers=0.4, batch_size=100, emphasis=3.0)
    drawings = Split(*generated(550, 0, recipe.outliers))
    learner = _Learner(build(recipe, training.train.x), recipe, 0, training.train, drawings)
    batches = [(*learner.batch(step, at), at.numpy()) for step, at in learner.batches()]
    assert len(batches) == -(-len(training.train) // 100)
    places, y = np.concatenate([b[2] for b in batches]), np.concatenate([b[1] for b in batches])
    none = np.isin(places - len(training.train), np.flatnonzero(drawings.y < 0))
    assert 0.08 < none.mean() < 0.2
    np.testing.assert_allclose(y[none], 0.1, atol=1e-6)
    assert (y[~none].max(axis=1) == 1).all()
    learner.compile("sgd", "categorical_crossentropy")
    for batch in learner.batches():
        learner.train_step(batch)
    losses = learner.sample_losses.numpy()
    assert (losses[len(training.train) :] == 0).all()
    assert losses.any()


def test_fit_learns_from_drawings_of_mnist_only_and_repeats_itself(training):
    as_mnist = replace(training, name="mnist")
    recipe = replace(FAST, drawn=0.5)

    def predictions(recipe, data):
        return predict(fit(recipe, data, 0).model, training.validation.x)

    once = predictions(recipe, as_mnist)
    np.testing.assert_array_equal(once, predictions(recipe, as_mnist))
    without = predictions(replace(recipe, drawn=0.0), as_mnist)
    assert (once != without).any()
    np.testing.assert_array_equal(predictions(recipe, training), without)


def test_drawings_are_kept_in_the_cache_and_made_anew_where_it_is_damaged(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "mnist_cnn" / "drawings"
    expected = generated(200, 3, 0.3)
    made = []
    monkeypatch.setattr(handwriting, "generated", lambda *how: made.append(how) or expected)

    def given(*how):
        found = handwriting.kept(*how)
        for ours, theirs in zip(found, expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        return len(made)

    assert (given(200, 3, 0.3), given(200, 3, 0.3)) == (1, 1)
    (path,) = folder.iterdir()
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    for number, damaged in enumerate((b"", content[:1000], content[:-30], bytes(flipped), b"x")):
        path.write_bytes(damaged)
        assert given(200, 3, 0.3) == 2 + number
        assert path.read_bytes() == content
    for seed in range(20):
        given(200, seed, 0.3)
    assert len(list(folder.iterdir())) == handwriting.KEPT
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null/nowhere")
    given(200, 3, 0.3)


def test_distortion_moves_every_image_differently_and_no_further_than_it_says(training):
    images = tf.constant(training.train.x[:200])
    again, other, none = (
        distorted(images, strength, seed).numpy()
        for strength, seed in ((1.0, [1, 2]), (1.0, [1, 3]), (0.0, [1, 2]))
    )
    once = distorted(images, 1.0, [1, 2]).numpy()
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    np.testing.assert_array_equal(none, images)
    # Ink is kept but for its size, ±10 % in each direction, and its centre moves by 2 pixels
    # and what slant and size add around the middle of the image.
    ink = once.sum(axis=(1, 2, 3)) / images.numpy().sum(axis=(1, 2, 3))
    assert 0.75 < ink.min() < 0.95 < 1.05 < ink.max() < 1.3

    def centres(stack):
        weights = stack[..., 0] / stack.sum(axis=(1, 2, 3))[:, None, None]
        return np.stack(
            [
                (weights * np.arange(28)).sum((1, 2)),
                (weights.transpose(0, 2, 1) * np.arange(28)).sum((1, 2)),
            ]
        )

    moved = np.abs(centres(once) - centres(images.numpy()))
    assert 1.5 < moved.max() < 3.5


def test_another_look_is_for_a_share_of_the_images_and_falls_to_none(training):
    images = tf.constant(scaled(training.train.x[:400]))
    once, again, other = (disturbed(images, 0.5, seed).numpy() for seed in ([1, 2], [1, 2], [1, 3]))
    np.testing.assert_array_equal(once, again)
    assert (once != other).any()
    assert once.min() >= 0
    assert once.max() <= 1
    changed = (once != images.numpy()).any(axis=(1, 2, 3))
    assert 0.4 < changed.mean() < 0.6
    np.testing.assert_array_equal(disturbed(images, 0.0, [1, 2]), images)
    alone = [disturbed(images[:1], 0.5, [0, i]).numpy() != images[:1].numpy() for i in range(40)]
    assert 0.2 < np.mean([each.any() for each in alone]) < 0.8, "the share of small batches too"
    # Dark on light as often as not: the mean pixel of a digit on black is 0.1.
    assert 0.3 < once[changed].mean() < 0.7

    recipe = replace(CLASSIC, epochs=2, batch_size=100, disturb=1.0)
    shares = [
        (ours.numpy() != theirs.numpy()).any(axis=(1, 2, 3)).mean()
        for epoch in (0, 1)
        for (ours, *_), (theirs, *_) in zip(
            of_epoch(epoch, recipe, training.train),
            of_epoch(epoch, replace(recipe, disturb=0.0), training.train),
            strict=True,
        )
    ]
    assert shares[0] == 1
    assert 0.3 < shares[len(shares) // 2] < 0.7
    assert shares[-1] < 0.15


def test_nothing_is_tuned_by_tf_data(training, monkeypatch):
    """The tuner held up the end of a fit by seconds, and doubled a prediction: docs/search.md."""
    given = []

    def spied(real):
        def spy(model, batches, **options):
            given.extend([batches, options.get("validation_data", batches)])
            return real(model, batches, **options)

        return spy

    for verb in ("fit", "predict"):
        monkeypatch.setattr(keras.Model, verb, spied(getattr(keras.Model, verb)))
    recipe = replace(FAST, batch_size=50)  # 22 steps, two at once
    model = fit(recipe, training, 0).model
    predict(model, training.validation.x)
    assert [batches.options().autotune.enabled for batches in given] == [False] * 4


def test_every_epoch_takes_every_image_once_in_an_order_of_its_own(training):
    recipe = replace(CLASSIC, epochs=2, batch_size=100)
    epochs = [
        np.concatenate([images for images, *_ in of_epoch(epoch, recipe, training.train)])
        for epoch in (0, 1)
    ]
    expected = np.sort(scaled(training.train.x).sum(axis=(1, 2, 3)))
    for images in epochs:
        np.testing.assert_allclose(np.sort(images.sum(axis=(1, 2, 3))), expected, rtol=1e-5)
    assert not np.array_equal(*epochs)


def test_emphasis_shows_the_hardest_fifth_so_many_times_as_often(training):
    split = training.train
    sample_losses = tf.Variable(np.random.default_rng(0).permutation(len(split)).astype(np.float32))
    hard = sample_losses.numpy() >= len(split) * 0.8
    recipe = replace(CLASSIC, batch_size=100, emphasis=3.0)
    batches = of_epoch(0, recipe, split, sample_losses)
    for images, labels, places in batches:
        np.testing.assert_array_equal(images, scaled(split.x[places.numpy()]))
        np.testing.assert_array_equal(labels.numpy().argmax(1), split.y[places.numpy()])
    shown = np.bincount(np.concatenate([places for *_, places in batches]), minlength=len(split))
    assert shown.sum() == len(split), "an epoch stays as long"
    assert shown[hard].mean() / shown[~hard].mean() == pytest.approx(3, rel=0.05)
    assert shown[hard].min() >= 2, "2.14 times each: 2 or 3"

    alike = np.sort(oversample_hard(tf.zeros(1000), 3.0, [0, 1]))
    np.testing.assert_array_equal(alike, np.arange(1000), "before the first loss is sample_losses")
    one, other = (oversample_hard(sample_losses, 3.0, [0, epoch]).numpy() for epoch in (1, 2))
    assert (one != other).any(), "or the same easy images would never be shown"


def test_sample_losses_are_those_of_the_images_learnt_from(training):
    keras.utils.set_random_seed(0)
    recipe = replace(CLASSIC, emphasis=3.0)
    learner = _Learner(build(recipe), recipe, 0, training.train)
    learner.compile(keras.optimizers.SGD(0.1), keras.losses.CategoricalCrossentropy())
    learner.sample_losses.assign(tf.ones(len(training.train)))
    places = np.array([7, 400, 3, 99], np.int32)
    x, y = learner.batch(0, places)
    losses = keras.losses.categorical_crossentropy(y, learner.network(x))

    validation = tf.data.Dataset.from_tensors((x, y))
    batch = tf.data.Dataset.from_tensors((0, places))
    learner.fit(batch, validation_data=validation, shuffle=False, verbose=0)
    expected = np.ones(len(training.train), np.float32)
    expected[places] = (1 + losses.numpy()) / 2
    np.testing.assert_allclose(learner.sample_losses.numpy(), expected, rtol=1e-4)


def test_muon_steps_of_a_kernel_are_nearly_orthogonal_and_the_rest_is_sgd():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(90, 20)).astype(np.float32)
    singular = np.linalg.svd(orthogonalized(tf.constant(wide)).numpy(), compute_uv=False)
    assert singular.min() > 0.6
    assert singular.max() < 1.3

    kernel, bias = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 3, 10, 20), (20,)))
    ours, plain = (
        (keras.Variable(kernel), keras.Variable(bias), optimizer(0.1, 0.9, nesterov=True))
        for optimizer in (Muon, keras.optimizers.SGD)
    )
    for _ in range(2):
        for *variables, optimizer in (ours, plain):
            optimizer.apply([tf.constant(kernel), tf.constant(bias)], variables)
    np.testing.assert_array_equal(ours[1].numpy(), plain[1].numpy())
    moved = (kernel - ours[0].numpy()).reshape(90, 20) / 0.2
    expected = orthogonalized(tf.constant(kernel.reshape(90, 20))).numpy()
    np.testing.assert_allclose(moved, expected, atol=1e-4)  # the gradient was the same twice

    still = keras.Variable(kernel)
    Muon(0.2, momentum=0.0).apply([tf.constant(kernel)], [still])
    np.testing.assert_allclose(still.numpy(), ours[0].numpy(), atol=1e-4)


def test_filters_that_do_not_learn_are_principal_components_of_patches(training):
    model = fit(FAST, training, 0).model
    filters = model.layers[0].get_weights()[0].reshape(25, 20)
    np.testing.assert_allclose(filters[:, :10], -filters[:, 10:])
    pixels = scaled(training.train.x[:1000])
    patches = np.stack(
        [pixels[:, i : i + 23 : 2, j : j + 23 : 2, 0] for i in range(5) for j in range(5)], axis=-1
    ).reshape(-1, 25)
    # Whitened and orthogonal: what the filters see has a second moment of nearly 1 each.
    seen = patches @ filters[:, :10]
    moment = seen.T @ seen / len(seen)
    np.testing.assert_allclose(moment, np.diag(np.diag(moment)), atol=1e-3)
    assert 0.8 < np.diag(moment).min() <= np.diag(moment).max() <= 1
    many = build(replace(FAST, filters=(64, 8, 8)), training.train.x).layers[0].get_weights()[0]
    assert np.isfinite(many).all()
    assert len(np.unique(many.reshape(25, 64), axis=1).T) == 64


def test_a_fused_normalization_learns_and_answers_as_keras_own_does():
    x = np.random.default_rng(0).normal(3, 2, (500, 4, 4, 2)).astype(np.float32)
    own, fused = (keras.Sequential([keras.layers.BatchNormalization(momentum=0.9)]) for _ in "12")
    for model in (own, fused):
        model.build(x.shape)
    fuse_norms(fused)
    for training in (True, False):
        np.testing.assert_allclose(
            own(x, training=training), fused(x, training=training), atol=1e-3
        )
    for mine, theirs in zip(fused.get_weights(), own.get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-6)
    assert (fused.get_weights()[2] > 0.2).all(), "its mean moved"
    assert fused.layers[0].get_config().keys() == own.layers[0].get_config().keys()


class Steps(keras.callbacks.Callback):
    """The steps taken at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.taken = []

    def on_epoch_end(self, epoch, logs=None):
        self.taken.append(int(self.model.optimizer.iterations))


@pytest.mark.parametrize("batch_size", [100, 48, 33])  # 11, 23 and 34 steps an epoch
def test_an_epoch_ends_where_its_images_end(training, batch_size):
    counter = Steps()
    fit(replace(FAST, epochs=3, batch_size=batch_size), training, 0, [counter])
    steps = -(-len(training.train) // batch_size)
    assert counter.taken == [steps, 2 * steps, 3 * steps]


def test_classic_is_plain_keras(training):
    """The same batches through a loop of bare Keras, without our plumbing, give the same loss."""
    recipe = replace(CLASSIC, epochs=1)
    ours = fit(recipe, training, seed=0).history["loss"][0]

    keras.utils.set_random_seed(0)
    model = build(recipe)
    model.compile(keras.optimizers.SGD(0.01, 0.9), "categorical_crossentropy", metrics=["accuracy"])
    learner = _Learner(build(recipe), recipe, 0, training.train)
    batches = learner.batches().map(learner.batch)
    plain = model.fit(batches, epochs=1, shuffle=False, verbose=0).history["loss"][0]
    assert ours == pytest.approx(plain, rel=1e-4)


def test_train_imports_nothing_that_it_does_not_use():
    """Keras and TensorFlow would import these; whoever needs one imports it as ever, after them."""
    program = """
import sys, mnist_cnn.train
unused = "jax sklearn matplotlib.pyplot skimage scipy.stats art optuna plotly tf_keras".split()
print([name for name in unused if name in sys.modules])
import jax, matplotlib.pyplot, sklearn.metrics
"""
    assert subprocess.check_output([sys.executable, "-c", program], text=True) == "[]\n"


@pytest.mark.slow
def test_tracking_costs_less_than_3_percent_of_fit(store, monkeypatch):
    """The share of `fast`, the shortest fit, that is spent in the callback that logs.

    Not two fits compared: they differ by more than that on a machine that does other things too.
    """
    spent = []

    def timed(method):
        def call(*arguments, **logs):
            started = time.perf_counter()
            method(*arguments, **logs)
            spent.append(time.perf_counter() - started)

        return call

    for name in ("on_train_batch_end", "on_epoch_end"):
        monkeypatch.setattr(LogEpochs, name, timed(getattr(LogEpochs, name)))
    data, epochs = load_training("mnist"), LogEpochs()
    with mlflow.start_run():
        seconds = fit(FAST, data, 0, [epochs]).train_seconds
        timed(epochs.deliver)()
    *within, after = spent
    print(f"{sum(within):.3f} s of {seconds:.2f} s of fit, {after:.3f} s after it")
    assert len(epochs.metrics) > 3 * 40
    assert sum(within) < 0.03 * seconds
