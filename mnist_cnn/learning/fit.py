"""Fit a recipe's network to training images. Knows Keras, and nothing of MLflow."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mnist_cnn.learning.augment import distorted, disturbed
from mnist_cnn.learning.backend import keras, tf, without_autotune
from mnist_cnn.learning.data import Split, Training
from mnist_cnn.learning.handwriting import kept
from mnist_cnn.learning.model import build, fuse_norms, scaled
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe


@dataclass(frozen=True)
class Fitted:
    """A trained network, its metrics per epoch (lists of equal length) and the seconds of fit."""

    model: keras.Model
    history: dict[str, list[float]]
    train_seconds: float


def fit(recipe: Recipe, data: Training, seed: int, callbacks: Sequence[Any] = ()) -> Fitted:
    """Train the network of `recipe`; the same seed, machine and cores give the same weights.

    The metrics per epoch are those of `compile`, their `val_` forms, `learning_rate` as it
    stands after the epoch, and `epoch_seconds` (validation included). UserError if it diverges.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(recipe, data.train.x)
    fuse_norms(model)
    started = time.perf_counter()
    parts, drawn = [data.train], round(recipe.drawn * len(data.train))
    if drawn and data.name == "mnist":  # another dataset may hold anything
        parts.append(Split(*kept(drawn, 0, recipe.outliers)))  # for every seed the same
    drawing_seconds = time.perf_counter() - started
    learner = _Learner(model, recipe, seed, *parts)
    # Few calls of many steps keep Python out of the way; ten an epoch show the progress, forty in
    # all make a learning curve. Keras would take a rest of the steps from the next epoch.
    steps, enough = learner.steps, max(10, 40 // recipe.epochs)
    learner.compile(
        _optimizer(recipe, steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy("accuracy")],
        steps_per_execution=next((steps // n for n in range(enough, steps) if steps % n == 0), 1),
    )
    learner.optimizer.build(model.trainable_variables)  # or the first step is traced twice
    labels = np.eye(10, dtype=np.float32)[data.validation.y]
    validation = tf.data.Dataset.from_tensor_slices((scaled(data.validation.x), labels))

    started = time.perf_counter()
    history = learner.fit(
        without_autotune(learner.batches()),
        epochs=recipe.epochs,
        validation_data=without_autotune(validation.batch(1000)),
        callbacks=[_EpochMetrics(), *callbacks],
        shuffle=False,  # batches() are shuffled
        verbose=0,
    )
    return Fitted(model, history.history, drawing_seconds + time.perf_counter() - started)


class _Learner(keras.Model):
    """A network while it learns: a step is told places, and takes its images from memory.

    Every random choice is a function of (seed, epoch or step) alone. `sample_losses` float32
    (images,): of each image the mean of the value before and the loss when it was last learnt from.
    Drawings, labelled -1 for no digit, stand behind the images; an epoch takes a part of both.
    """

    def __init__(self, network: keras.Model, recipe: Recipe, seed: int, *parts: Split) -> None:
        super().__init__(name=network.name)
        self.network, self.recipe, self.seed = network, recipe, seed
        self.images = tf.constant(np.concatenate([part.x for part in parts]))
        self.labels = tf.constant(np.concatenate([part.y.astype(np.int32) for part in parts]))
        self.undrawn = len(parts[0])
        self.steps = -(-self.undrawn // recipe.batch_size)
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.sample_losses = tf.Variable(tf.zeros(len(self.images)), trainable=False)

    def call(self, x: tf.Tensor, training: bool | None = None) -> tf.Tensor:
        return self.network(x, training=training)

    def batches(self) -> tf.data.Dataset:
        """Batches (step, places int32 of its images) of the epoch that `epoch` counts, from 0."""

        def order(epoch: tf.Tensor) -> tf.data.Dataset:
            epoch_seed = [self.seed, tf.cast(epoch, tf.int32)]
            chosen = tf.range(len(self.images))
            if self.recipe.emphasis != 1:
                chosen = oversample_hard(self.sample_losses, self.recipe.emphasis, epoch_seed)
            shuffled = tf.random.experimental.stateless_shuffle(chosen, seed=epoch_seed)
            batches = tf.data.Dataset.from_tensor_slices(shuffled).batch(self.recipe.batch_size)
            return batches.take(self.steps).enumerate(epoch * self.steps)

        batches = tf.data.Dataset.range(1).map(lambda _: self.epoch).flat_map(order)
        return batches.apply(tf.data.experimental.assert_cardinality(self.steps))

    def batch(self, step: tf.Tensor, places: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Images float32 (n, 28, 28, 1) as this step shows them, and labels float32 (n, 10)."""
        recipe, step_seed = self.recipe, [self.seed, tf.cast(step, tf.int32)]
        x = tf.gather(self.images, places)
        if recipe.distort:
            x = distorted(x, recipe.distort, step_seed)
        x = tf.cast(x, tf.float32) / 255.0
        if recipe.disturb:
            left = 1.0 - tf.cast(step, tf.float32) / (recipe.epochs * self.steps)
            x = disturbed(x, recipe.disturb * left, step_seed)
        y = tf.one_hot(tf.gather(self.labels, places), 10)
        # No digit: all ten alike (outlier exposure, Hendrycks et al. 2019).
        return x, y + (1 - tf.reduce_sum(y, axis=1, keepdims=True)) / 10

    def train_step(self, data: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
        step, self.learnt = data
        return super().train_step(self.batch(step, self.learnt))

    def compute_loss(self, *given: tf.Tensor, training: bool = True) -> tf.Tensor:
        if training and self.recipe.emphasis != 1:
            losses = keras.losses.categorical_crossentropy(*given[1:3])
            means = (tf.gather(self.sample_losses, self.learnt) + losses) / 2
            means = tf.where(self.learnt < self.undrawn, means, 0.0)  # of drawings none is hard
            self.sample_losses.scatter_update(tf.IndexedSlices(means, self.learnt))
        return super().compute_loss(*given, training=training)


def _optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    rate: Any = recipe.learning_rate
    if recipe.schedule == "one_cycle":
        total, cosine = steps * recipe.epochs, keras.optimizers.schedules.CosineDecay
        rate = cosine(0.0, total - total // 4, warmup_target=rate, warmup_steps=total // 4)
    kind = Muon if recipe.optimizer == "muon" else keras.optimizers.SGD
    decay = recipe.weight_decay or None
    optimizer = kind(rate, recipe.momentum, recipe.nesterov, weight_decay=decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])  # need not be small
    return optimizer


class Muon(keras.optimizers.SGD):
    """SGD whose updates of convolution kernels are made nearly orthogonal, as matrices.

    Jordan et al. 2024 (kellerjordan.github.io/posts/muon): a step moves every direction of a kernel
    alike. Keras's own Muon leaves convolutions to Adam.
    """

    def update_step(self, gradient: tf.Tensor, variable: keras.Variable, rate: tf.Tensor) -> None:  # noqa: D102
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, rate)
            return
        update = gradient
        if self.momentum:
            momentum = self.momentums[self._get_variable_index(variable)]
            self.assign(momentum, self.momentum * momentum + gradient)
            update = self.momentum * momentum + gradient if self.nesterov else momentum.value
        matrix = tf.reshape(update, (-1, variable.shape[-1]))
        step = tf.reshape(orthogonalized(matrix), variable.shape)
        self.assign_sub(variable, tf.cast(rate, tf.float32) * step)


def orthogonalized(matrix: tf.Tensor) -> tf.Tensor:
    """`matrix` float32 (m, n) with its singular values brought near 1 (0.7 to 1.2)."""
    matrix /= tf.norm(matrix) + 1e-7
    for _ in range(3):
        gram = tf.matmul(matrix, matrix, transpose_a=True)
        matrix = 3.4445 * matrix + matrix @ (-4.775 * gram + 2.0315 * gram @ gram)
    return matrix


def oversample_hard(sample_losses: tf.Tensor, emphasis: float, seed: list) -> tf.Tensor:
    """Places int32 (n,) among n images, those of the hardest fifth `emphasis` times as often.

    Hard is what has a high loss in `sample_losses` (n,), and while all are equal each has one
    place: online batch selection (Loshchilov and Hutter 2015) with two ranks instead of a scale.
    """
    count = tf.shape(sample_losses)[0]
    hard = sample_losses >= tf.sort(sample_losses, direction="DESCENDING")[count // 5]
    often = tf.cumsum(tf.where(hard, tf.constant(emphasis, tf.float64), 1.0))
    # Evenly spaced, from a random start: every image comes as often as it should, or once more.
    start = tf.random.stateless_uniform([], seed, dtype=tf.float64)
    at = (tf.cast(tf.range(count), tf.float64) + start) / tf.cast(count, tf.float64)
    return tf.minimum(tf.searchsorted(often / often[-1], at, side="right"), count - 1)


class _EpochMetrics(keras.callbacks.Callback):
    """Adds `learning_rate` and `epoch_seconds` to the metrics that other callbacks see."""

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()
        self.model.epoch.assign(epoch)

    def on_epoch_end(self, epoch: int, logs: dict) -> None:
        logs["learning_rate"] = float(self.model.optimizer.learning_rate)
        logs["epoch_seconds"] = time.perf_counter() - self.started
        if not np.isfinite(logs["loss"]):
            rate = f"learning_rate={self.model.recipe.learning_rate:g} is too high"
            raise UserError(f"the loss is {logs['loss']} after epoch {epoch + 1}: {rate}.")
