"""The networks: float32 images (n, 28, 28, 1) in [0, 1] to float32 probabilities (n, 10)."""

from __future__ import annotations

import numpy as np

from mnist_cnn.learning.backend import keras, tf, without_autotune
from mnist_cnn.recipes import Recipe

layers = keras.layers


def build(recipe: Recipe) -> keras.Model:
    """The uncompiled network of `recipe`, initialised from Keras's global seed."""
    networks = {"classic": _classic, "compact": _compact, "deep": _deep}
    stack = [layers.Input((28, 28, 1)), *networks[recipe.network](recipe)]
    return keras.Sequential(stack, name=recipe.name)


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
    """Three convolutions; the first halves the image before the work begins.

    BatchNorm stands where the image is smallest: on 14 x 14 it took a third of the time, for
    Keras does not fuse it, and gave nothing.
    """
    first, second, third = recipe.filters
    relu = {"activation": "relu", "kernel_initializer": "he_uniform"}
    return [
        layers.Conv2D(first, 5, strides=2, padding="same", **relu),
        layers.Conv2D(second, 3, padding="same", **relu),
        layers.MaxPooling2D(2),
        layers.Conv2D(third, 3, use_bias=False),  # BatchNorm's own shift makes a bias useless
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
