"""Fit a recipe's network to training images. Knows Keras, and nothing of MLflow."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mnist_cnn.backend import keras, tf, untuned
from mnist_cnn.data import Split, Training
from mnist_cnn.model import build, scaled
from mnist_cnn.parameters import UserError
from mnist_cnn.recipes import Recipe


class Diverged(UserError):
    """The loss is no number any more: the weights are lost."""


@dataclass(frozen=True)
class Fitted:
    """A trained network, its metrics per epoch (lists of equal length) and the seconds of fit."""

    model: keras.Model
    history: dict[str, list[float]]
    train_seconds: float


def fit(
    recipe: Recipe,
    data: Training,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    quiet: bool = False,
) -> Fitted:
    """Train the network of `recipe` from `seed`; the same seed gives the same weights.

    The metrics per epoch are those of `compile`, their `val_` forms, `learning_rate` as it
    stands after the epoch, and `epoch_seconds` (validation included). Raises Diverged.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    model = build(recipe)
    steps = -(-len(data.train) // recipe.batch_size)
    model.compile(
        _optimizer(recipe, steps),
        keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
        steps_per_execution=_steps_per_execution(steps),
    )

    started = time.perf_counter()
    history = model.fit(
        untuned(_batches(recipe, data.train, seed)),
        epochs=recipe.epochs,
        steps_per_epoch=steps,
        validation_data=untuned(_in_order(data.validation)),
        callbacks=[_EpochMetrics(recipe), *callbacks],
        shuffle=False,  # _batches has shuffled
        verbose=0 if quiet else 1 if sys.stdout.isatty() else 2,
    )
    seconds = time.perf_counter() - started
    model.steps_per_execution = 1  # or a prediction is traced for so many batches at once
    return Fitted(model, history.history, seconds)


def _steps_per_execution(steps: int) -> int:
    """Steps in one call: few calls keep Python out of the way, ten or more the progress bar alive.

    A divisor of the steps of an epoch, for Keras would take the rest from the next epoch.
    """
    calls = next((n for n in range(10, steps) if steps % n == 0), steps)
    return steps // calls


def _in_order(split: Split) -> tf.data.Dataset:
    labels = np.eye(10, dtype=np.float32)[split.y]
    return tf.data.Dataset.from_tensor_slices((scaled(split.x), labels)).batch(1000)


def _optimizer(recipe: Recipe, steps: int) -> keras.optimizers.Optimizer:
    rate: float | keras.optimizers.schedules.LearningRateSchedule = recipe.learning_rate
    if recipe.schedule == "one_cycle":
        total = steps * recipe.epochs
        warmup = total // 4
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, total - warmup, warmup_target=recipe.learning_rate, warmup_steps=warmup
        )
    optimizer = keras.optimizers.SGD(
        rate, recipe.momentum, recipe.nesterov, weight_decay=recipe.weight_decay or None
    )
    if recipe.weight_decay:
        # Scales and shifts have no reason to be small.
        optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _batches(recipe: Recipe, split: Split, seed: int) -> tf.data.Dataset:
    """All batches of all epochs, each epoch in an order of its own.

    The images stay in memory as bytes and a step gathers its batch from them: no work per image.
    Every random choice is a function of (seed, epoch or step) alone, so threads cannot reorder it.
    """
    pixels = 2 * recipe.shift
    margin = (recipe.shift, recipe.shift)
    images = tf.constant(np.pad(split.x, ((0, 0), margin, margin, (0, 0))))
    labels = tf.constant(split.y)
    steps = recipe.epochs * -(-len(split) // recipe.batch_size)

    def order(epoch: tf.Tensor) -> tf.data.Dataset:
        shuffled = tf.random.experimental.stateless_shuffle(
            tf.range(len(split)), seed=[seed, tf.cast(epoch, tf.int32)]
        )
        return tf.data.Dataset.from_tensor_slices(shuffled).batch(recipe.batch_size)

    def batch(step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        x = tf.gather(images, chosen)
        here = [seed, tf.cast(step, tf.int32)]
        if recipe.shift:
            at = tf.random.stateless_uniform([2], here, 0, pixels + 1, tf.int32)
            x = tf.slice(x, [0, at[0], at[1], 0], [-1, 28, 28, 1])
        if recipe.distort:
            x = distorted(x, recipe.distort, here)
        x = tf.cast(x, tf.float32) / 255.0
        if recipe.disturb:
            left = 1.0 - tf.cast(step, tf.float32) / steps
            x = disturbed(x, recipe.disturb * left, here)
        return x, tf.one_hot(tf.gather(labels, chosen), 10)

    epochs = tf.data.Dataset.range(recipe.epochs)
    return epochs.flat_map(order).enumerate().map(batch, num_parallel_calls=1).prefetch(4)


def distorted(images: tf.Tensor, strength: float, seed: list) -> tf.Tensor:
    """Images uint8 (n, 28, 28, 1), each turned, sized, slanted and moved at random.

    At strength 1: up to 10 degrees, exp(±0.1) in width and in height, 0.1 of slant, 2 pixels.
    One native operation for the whole batch.
    """
    random = tf.random.stateless_uniform([6, tf.shape(images)[0]], seed, -strength, strength)
    turn, width, height, slant, right, down = tf.unstack(random)
    cos, sin = tf.cos(turn * np.pi / 18), tf.sin(turn * np.pi / 18)
    width, height, slant = tf.exp(0.1 * width), tf.exp(0.1 * height), 0.1 * slant

    # Where each pixel of the result comes from: x' = a x + b y + c, y' = d x + e y + f.
    a, b = cos * width, (cos * slant - sin) * height
    d, e = sin * width, (sin * slant + cos) * height
    middle = 13.5
    c = middle + 2 * right - (a + b) * middle
    f = middle + 2 * down - (d + e) * middle
    zero = tf.zeros_like(a)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, c, d, e, f, zero, zero], axis=1),
        output_shape=[28, 28],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    )


def disturbed(images: tf.Tensor, share: float | tf.Tensor, seed: list) -> tf.Tensor:
    """Images float32 (n, 28, 28, 1) in [0, 1], a `share` of them in another look.

    They are the first: a batch is in random order, and the rest then costs nothing.
    """
    wanted = share * tf.cast(tf.shape(images)[0], tf.float32)
    count = tf.cast(wanted + tf.random.stateless_uniform([], seed), tf.int32)  # right on average

    def some() -> tf.Tensor:
        return tf.concat([_in_another_look(images[:count], seed), images[count:]], axis=0)

    return tf.cond(count > 0, some, lambda: images)


def _in_another_look(images: tf.Tensor, seed: list) -> tf.Tensor:
    """Each image through a random filter (random convolutions, Xu et al. 2021), with a sign, a
    contrast and a level of its own, three patches (random erasing, Zhong et al. 2020) and noise.
    """
    count = tf.shape(images)[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 4))
    draws = tf.random.stateless_uniform([6, count, 1, 1, 1], seeds[0])
    amount, sign, contrast, level, noise, size = tf.unstack(draws)

    # A filter of 1, 3 or 5 pixels for each image: the images become the channels of one.
    taps = tf.abs(tf.range(-2.0, 3.0))
    reach = tf.maximum(taps[:, None], taps)[:, :, None, None]
    filters = tf.random.stateless_normal([5, 5, count, 1], seeds[1])
    filters *= tf.cast(reach <= tf.floor(3 * tf.reshape(size, [1, 1, count, 1])), tf.float32)
    channels = tf.transpose(images, [3, 1, 2, 0])
    seen = tf.nn.depthwise_conv2d(channels, filters, [1, 1, 1, 1], "SAME")
    seen = tf.transpose(seen, [3, 1, 2, 0])
    seen /= tf.reduce_max(tf.abs(seen), axis=(1, 2), keepdims=True) + 1e-6
    amount = 0.3 + 0.7 * amount  # enough of the image itself to be read
    seen = amount * tf.where(sign < 0.5, images, -images) + (1 - amount) * seen

    # At least 0.3 of the range from black to white, anywhere in it.
    low, high = (f(seen, axis=(1, 2), keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    contrast = 0.3 + 0.7 * contrast
    seen = contrast * (seen - low) / (high - low + 1e-6) + (1 - contrast) * level

    for patch in tf.unstack(tf.random.stateless_uniform([3, 6, count, 1, 1, 1], seeds[2])):
        seen = _patched(seen, *tf.unstack(patch))
    seen += 0.25 * noise**2 * tf.random.stateless_normal(tf.shape(images), seeds[3])
    return tf.clip_by_value(seen, 0.0, 1.0)


def _patched(
    images: tf.Tensor,
    across: tf.Tensor,
    down: tf.Tensor,
    width: tf.Tensor,
    height: tf.Tensor,
    look: tf.Tensor,
    kind: tf.Tensor,
) -> tf.Tensor:
    """Images with a rectangle or a bar in most of them, of one grey or turned to the negative.

    All draws are uniform in [0, 1), (n, 1, 1, 1).
    """
    places = tf.range(28.0)
    width, height = 1 + 9 * width**2, 1 + 9 * height**2
    height = tf.where(kind < 0.25, 28.0, height)
    width = tf.where((kind >= 0.25) & (kind < 0.5), 28.0, width)
    inside = tf.abs(places[:, None, None] - 30 * down + 1) < height / 2
    inside &= tf.abs(places[:, None] - 30 * across + 1) < width / 2
    patch = tf.where(look < 0.3, 1 - images, (look - 0.3) / 0.7)
    return tf.where(inside & (kind < 0.75), patch, images)


class _EpochMetrics(keras.callbacks.Callback):
    """Adds `learning_rate` and `epoch_seconds` to the metrics that other callbacks see."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)
            logs["epoch_seconds"] = time.perf_counter() - self.started
            if not np.isfinite(logs["loss"]):
                raise Diverged(
                    f"the loss is {logs['loss']} after epoch {epoch + 1}: learning_rate="
                    f"{self.recipe.learning_rate:g} is too high for this recipe."
                )
