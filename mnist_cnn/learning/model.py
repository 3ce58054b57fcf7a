"""The networks: float32 images (n, 28, 28, 1) in [0, 1] to float32 probabilities (n, 10)."""

from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np

from mnist_cnn.learning.backend import keras, tf, without_autotune
from mnist_cnn.recipes import Recipe

layers = keras.layers


def build(recipe: Recipe, images: np.ndarray | None = None) -> keras.Model:
    """The uncompiled network of `recipe`, initialised from Keras's global seed.

    Filters that do not learn are taken from `images`, uint8 (n, 28, 28, 1), if they are given.
    """
    filters, he = iter(recipe.filters), {"kernel_initializer": "he_uniform"}

    def convolution(size: int, **how: Any) -> list[keras.Layer]:
        return [layers.Conv2D(next(filters), size, **he, **how)]

    relu, unbiased = {"activation": "relu"}, {"use_bias": False}
    kinds: dict[str, Callable[[], list[keras.Layer]]] = {  # the words of `Recipe.network`
        "relu": lambda: convolution(3, **relu),
        # Before a BatchNorm, whose own shift makes a bias useless.
        "conv": lambda: convolution(3, **unbiased),
        # It takes no gradient, and what follows none for its input.
        "frozen": lambda: convolution(5, strides=2, trainable=False, **relu, **unbiased),
        # Its averages must settle within a few hundred steps, hence 0.9 and not Keras's 0.99.
        "norm": lambda: [layers.BatchNormalization(momentum=0.9), layers.ReLU()],
        "pool": lambda: [layers.MaxPooling2D(2)],
        "hidden": lambda: [layers.Dense(100, **relu, **he)],
        "flatten": lambda: [layers.Flatten()],
        "digits": lambda: [layers.Dense(10, activation="softmax")],
    }
    stack = [layer for word in recipe.network.split() for layer in kinds[word]()]
    model = keras.Sequential([layers.Input((28, 28, 1)), *stack], name=recipe.name)
    for layer in stack:
        if images is not None and isinstance(layer, layers.Conv2D) and not layer.trainable:
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


def fuse_norms(model: keras.Model) -> None:
    """Let BatchNormalization learn by one operation, not Keras 3's twenty; saved as before."""

    def call(self: Any, x: tf.Tensor, training: bool = False, mask: Any = None) -> tf.Tensor:
        if not training:
            return type(self).call(self, x)
        fused, moving = tf.compat.v1.nn.fused_batch_norm, (self.moving_mean, self.moving_variance)
        y, *batch = fused(x, self.gamma, self.beta, epsilon=self.epsilon)
        for old, new in zip(moving, batch, strict=True):
            old.assign(self.momentum * old + (1 - self.momentum) * new)
        return y

    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.call = MethodType(call, layer)


def predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Probabilities float32 (n, 10) of images uint8 (n, 28, 28, 1)."""
    batches = tf.data.Dataset.from_tensor_slices(scaled(images)).batch(2000)  # in few calls
    return model.predict(without_autotune(batches), verbose=0)


def scaled(images: np.ndarray) -> np.ndarray:
    """Images uint8 as the networks take them: float32 in [0, 1]."""
    return images.astype(np.float32) / 255.0
