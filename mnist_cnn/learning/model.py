"""The networks: float32 images (n, 28, 28, 1) in [0, 1] to float32 probabilities (n, 10)."""

from __future__ import annotations

import numpy as np

from mnist_cnn.learning.backend import keras, tf, without_autotune
from mnist_cnn.recipes import Recipe

layers = keras.layers


def build(recipe: Recipe, images: np.ndarray | None = None) -> keras.Model:
    """The uncompiled network of `recipe`, initialised from Keras's global seed.

    Filters that do not learn are taken from `images`, uint8 (n, 28, 28, 1), if they are given.
    """
    networks = {"classic": _classic, "compact": _compact, "deep": _deep}
    stack = [layers.Input((28, 28, 1)), *networks[recipe.network](recipe)]
    model = keras.Sequential(stack, name=recipe.name)
    if images is not None:
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D) and not layer.trainable:
                layer.set_weights([principal_filters(images, layer.get_weights()[0])])
    return model


def principal_filters(images: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Filters float32 like `others` (size, size, 1, count): principal components of patches.

    Of patches at every second pixel of the first 1,000 images: the strongest, whitened, each with
    its negative, for a ReLU follows. Where those are fewer than `count`, others stay as they are.
    """
    size, _, _, count = others.shape
    pixels = images[:1000, ..., 0].astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (size, size), axis=(1, 2))
    patches = windows[:, ::2, ::2].reshape(-1, size * size)
    # Sums of whole numbers are exact in float64, in any order.
    values, vectors = np.linalg.eigh(patches.T @ patches / (len(patches) * 255.0**2))
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.sign(vectors[largest, range(len(largest))]) / np.sqrt(values + 1e-3)
    half = vectors[:, : -(-count // 2)]
    found = np.concatenate([half, -half], axis=1)[:, :count]
    rest = others.reshape(size * size, count)[:, found.shape[1] :]
    return np.concatenate([found, rest], axis=1).reshape(others.shape).astype(np.float32)


def _classic(recipe: Recipe) -> list[keras.Layer]:
    """The published network: 159,254 parameters with its filters 32, 64, 64."""

    def conv(filters: int) -> keras.Layer:
        return layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_uniform")

    first, second, third = recipe.filters
    return [
        conv(first),
        layers.MaxPooling2D(2),
        conv(second),
        conv(third),
        layers.MaxPooling2D(2),
        layers.Flatten(),
        layers.Dense(100, activation="relu", kernel_initializer="he_uniform"),
        layers.Dense(10, activation="softmax"),
    ]


def _compact(recipe: Recipe) -> list[keras.Layer]:
    """Three convolutions; the first halves the image, and does not learn.

    So it takes no gradient, and the second none for its input: a quarter of the arithmetic.
    """
    first, second, third = recipe.filters
    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    return [
        layers.Conv2D(first, 5, strides=2, use_bias=False, trainable=False, **relu),
        layers.Conv2D(second, 3, **relu),
        layers.MaxPooling2D(2),
        # BatchNorm's own shift makes a bias useless.
        layers.Conv2D(third, 3, use_bias=False, kernel_initializer="he_uniform"),
        # Its averages must settle within a few hundred steps, hence 0.9 and not Keras's 0.99.
        layers.BatchNormalization(momentum=0.9),
        layers.ReLU(),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]


def _deep(recipe: Recipe) -> list[keras.Layer]:
    """Two pairs of convolutions, at the full and at half the resolution, and perhaps one behind.

    BatchNorm stands behind the pooling where there is one and not behind the first convolution:
    an epoch is a quarter shorter than with one behind every convolution (docs/search.md).
    """

    def conv(filters: int) -> keras.Layer:
        return layers.Conv2D(filters, 3, use_bias=False, kernel_initializer="he_uniform")

    def normalised() -> list[keras.Layer]:
        return [layers.BatchNormalization(momentum=0.9), layers.ReLU()]

    first, second, third, fourth, *fifth = recipe.filters
    return [
        layers.Conv2D(first, 3, activation="relu", kernel_initializer="he_uniform"),
        conv(second),
        layers.MaxPooling2D(2),
        *normalised(),
        conv(third),
        *normalised(),
        conv(fourth),
        layers.MaxPooling2D(2),
        *normalised(),
        *(layer for filters in fifth for layer in (conv(filters), *normalised())),
        layers.Flatten(),
        layers.Dense(10, activation="softmax"),
    ]


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities float32 (n, 10) of images uint8 (n, 28, 28, 1)."""
    # Large batches: few calls, and up to a quarter less time than with 500.
    batches = tf.data.Dataset.from_tensor_slices(scaled(images)).batch(2000)
    return model.predict(without_autotune(batches), verbose=0)


def scaled(images: np.ndarray) -> np.ndarray:
    """Images uint8 as the networks take them: float32 in [0, 1]."""
    return images.astype(np.float32) / 255.0
