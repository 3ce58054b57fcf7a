"""Random changes to a batch of images while a network learns; each is a function of its seed."""

import numpy as np

from mnist_cnn.learning.backend import keras, tf


def distorted(images: tf.Tensor, strength: float, seed: list) -> tf.Tensor:
    """Images uint8 (n, 28, 28, 1), each turned, sized, slanted and moved at random.

    At strength 1: up to 10 degrees, exp(±0.1) in width and in height, 0.1 of slant, 2 pixels.
    """
    random = tf.random.stateless_uniform([6, tf.shape(images)[0]], seed, -strength, strength)
    turn, width, height, slant, right, down = tf.unstack(random)
    cos, sin = tf.cos(turn * np.pi / 18), tf.sin(turn * np.pi / 18)
    width, height, slant = tf.exp(0.1 * width), tf.exp(0.1 * height), 0.1 * slant

    # Where each pixel of the result comes from: x' = a x + b y + c, y' = d x + e y + f.
    a, b = cos * width, (cos * slant - sin) * height
    d, e = sin * width, (sin * slant + cos) * height
    c, f = 13.5 + 2 * right - (a + b) * 13.5, 13.5 + 2 * down - (d + e) * 13.5
    zero = tf.zeros_like(a)
    transforms = tf.stack([a, b, c, d, e, f, zero, zero], axis=1)
    return keras.ops.image.affine_transform(images, transforms, fill_value=0.0)


def disturbed(images: tf.Tensor, share: float | tf.Tensor, seed: list) -> tf.Tensor:
    """Images float32 (n, 28, 28, 1) in [0, 1], the first `share` of a batch in another look."""
    wanted = share * tf.cast(tf.shape(images)[0], tf.float32)
    count = tf.cast(wanted + tf.random.stateless_uniform([], seed), tf.int32)  # right on average
    some = images[:count]
    changed = tf.cond(count > 0, lambda: _in_another_look(some, seed), lambda: some)
    return tf.concat([changed, images[count:]], axis=0)


def _in_another_look(images: tf.Tensor, seed: list) -> tf.Tensor:
    """Each image, or its outline, through a random filter (random convolutions, Xu et al. 2021).

    Then with a sign, a contrast and a level of its own, three patches (random erasing, Zhong et al.
    2020), up to three lines across, and noise.
    """
    count = tf.shape(images)[0]
    seeds = tf.unstack(tf.random.experimental.stateless_split(seed, 6))
    draws = tf.random.stateless_uniform([8, count, 1, 1, 1], seeds[0])
    amount, sign, contrast, level, noise, size, outline, inner = tf.unstack(draws)

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
    shown = tf.where(outline < 0.3, _outlines(images, inner), images)
    seen = amount * tf.where(sign < 0.5, shown, -shown) + (1 - amount) * seen

    # At least 0.3 of the range from black to white, anywhere in it.
    low, high = (f(seen, axis=(1, 2), keepdims=True) for f in (tf.reduce_min, tf.reduce_max))
    contrast = 0.3 + 0.7 * contrast
    seen = contrast * (seen - low) / (high - low + 1e-6) + (1 - contrast) * level

    for patch in tf.unstack(tf.random.stateless_uniform([3, 6, count, 1, 1, 1], seeds[2])):
        seen = _patched(seen, patch)
    for line in tf.unstack(tf.random.stateless_uniform([3, 9, count, 1, 1, 1], seeds[3])):
        seen = tf.clip_by_value(seen + tf.where(sign < 0.5, _line(line), -_line(line)), 0.0, 1.0)
    seen += 0.25 * noise**2 * tf.random.stateless_normal(tf.shape(images), seeds[4])
    return tf.clip_by_value(seen, 0.0, 1.0)


def _outlines(images: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
    """Outlines of strokes (morphological gradient), up to 1: half a pixel or a whole one wide."""
    thick, thin = tf.nn.max_pool2d(images, 3, 1, "SAME"), -tf.nn.max_pool2d(-images, 3, 1, "SAME")
    edges = tf.where(inner < 0.5, images, thick) - thin
    return edges / (tf.reduce_max(edges, axis=(1, 2), keepdims=True) + 1e-6)


def _line(draws: tf.Tensor) -> tf.Tensor:
    """Ink (n, 28, 28, 1) of lines in 0.3 of the images; `draws`: uniform, (9, n, 1, 1, 1)."""
    turn, across, down, period, wave, height, dashes, width, shown = tf.unstack(draws)
    x, y = tf.range(28.0)[:, None] - 27 * across, tf.range(28.0)[:, None, None] - 27 * down
    cos, sin = tf.cos(np.pi * turn), tf.sin(np.pi * turn)
    along, aside = (x * cos + y * sin) / (3 + 9 * period), y * cos - x * sin
    triangle = 2 * tf.abs(along % 2 - 1) - 1
    aside += tf.where(wave < 0.5, 1 + 2 * height, 0.0) * triangle
    ink = tf.clip_by_value(1.5 - tf.abs(aside) * (0.6 + 0.8 * width), 0.0, 1.0)
    return tf.where((shown < 0.3) & ((dashes >= 0.4) | (2 * along % 2 < 1)), ink, 0.0)


def _patched(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Most with a rectangle or bar, grey or negative; `draws`: uniform, (6, n, 1, 1, 1)."""
    across, down, width, height, look, kind = tf.unstack(draws)
    places = tf.range(28.0)
    width, height = 1 + 9 * width**2, 1 + 9 * height**2
    height = tf.where(kind < 0.25, 28.0, height)
    width = tf.where((kind >= 0.25) & (kind < 0.5), 28.0, width)
    inside = tf.abs(places[:, None, None] - 30 * down + 1) < height / 2
    inside &= tf.abs(places[:, None] - 30 * across + 1) < width / 2
    patch = tf.where(look < 0.3, 1 - images, (look - 0.3) / 0.7)
    return tf.where(inside & (kind < 0.75), patch, images)
