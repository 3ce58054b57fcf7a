"""Corrupted digits, seeded: the fifteen kinds of MNIST-C at five strengths, and five of our own.

MNIST-C (Mu and Gilmer 2019, arXiv 1906.02337; code google-research/mnist-c) corrupts one image at a
time; here each kind takes float64 images (n, 28, 28) in [0, 1] together, a strength from 1 to 5 and
a random generator. The numbers are the published ones; where MNIST-C has only one strength
(stripe, dotted line, zigzag, canny edges) the others are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.random import Generator
from scipy import ndimage
from skimage.feature import canny
from skimage.util import random_noise

from mnist_cnn.learning.backend import tf

SIZE = 28
Corrupt = Callable[[np.ndarray, int, Generator], np.ndarray]


@dataclass(frozen=True)
class Kind:
    """A corruption: what it does, the published strength, and whether MNIST-C has it."""

    corrupt: Corrupt
    published: int
    in_mnist_c: bool = True
    # Training with `distort` or `disturb` shows something alike: not new to a network at test time.
    like_training: bool = False


def corrupted(kind: str, images: np.ndarray, strength: int | None = None) -> np.ndarray:
    """Images uint8 (n, 28, 28, 1) corrupted, of the same type; None is the published strength.

    The same images, kind and strength give the same result.
    """
    chosen = KINDS[kind]
    rng = np.random.default_rng([*kind.encode(), strength or chosen.published])
    bad = chosen.corrupt(images[..., 0] / 255.0, strength or chosen.published, rng)
    return np.rint(255 * np.clip(bad, 0, 1)).astype(np.uint8)[..., None]


# Noise and light


def _shot_noise(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    photons = (60, 25, 12, 5, 3)[strength - 1]
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    amount = (0.03, 0.06, 0.09, 0.17, 0.27)[strength - 1]
    return random_noise(x, "s&p", rng=rng, amount=amount)


def _brightness(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    return x + strength / 10


def _fog(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    thick, decay = ((1.5, 2), (2.0, 2), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))[strength - 1]
    light = x.max(axis=(1, 2), keepdims=True)
    # A few at once: their maps stay in the processor's cache, and take half the time.
    parts = np.array_split(x, -(-len(x) // 20))
    fog = np.concatenate([_plasma(len(part), decay, rng) for part in parts])
    return (x + thick * fog) * light / (light + thick)


def _plasma(count: int, decay: float, rng: Generator) -> np.ndarray:
    """Height maps (count, 28, 28) in [0, 1], cut from toroidal diamond-square maps of 256 x 256."""
    side = step = 256
    heights = np.zeros((count, side, side), np.float32)
    wibble = 100.0

    def rough(total: np.ndarray) -> np.ndarray:
        return total / 4 + wibble**2 * rng.uniform(-1, 1, total.shape)

    while step >= 2:
        half = step // 2
        corners = heights[:, ::step, ::step]
        rows = corners + np.roll(corners, -1, 1)
        heights[:, half::step, half::step] = rough(rows + np.roll(rows, -1, 2))

        middles = heights[:, half::step, half::step]
        corners = heights[:, ::step, ::step]
        beside = middles + np.roll(middles, 1, 1) + corners + np.roll(corners, -1, 2)
        heights[:, ::step, half::step] = rough(beside)
        above = middles + np.roll(middles, 1, 2) + corners + np.roll(corners, -1, 1)
        heights[:, half::step, ::step] = rough(above)
        step //= 2
        wibble /= decay
    low, high = (f(heights, axis=(1, 2), keepdims=True) for f in (np.min, np.max))
    return ((heights - low) / (high - low))[:, :SIZE, :SIZE]


# Blur


def _blurred(x: np.ndarray, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, (0, sigma, sigma), mode="nearest")


def _glass_blur(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    sigma, reach, times = ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2))[
        strength - 1
    ]
    x = np.floor(255 * _blurred(x, sigma)) / 255
    every = np.arange(len(x))
    for _ in range(times):
        for row in range(SIZE - reach, reach, -1):
            for column in range(SIZE - reach, reach, -1):
                down, right = rng.integers(-reach, reach, (2, len(x)))
                swap = rng.random(len(x)) < 0.5
                # A swap with itself is none.
                there = (every, row + down * swap, column + right * swap)
                here = x[:, row, column].copy()
                x[:, row, column] = x[there]
                x[there] = here
    return _blurred(x, sigma)


def _motion_blur(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """As ImageMagick does it: half a Gaussian along a line, at whole pixels."""
    radius, sigma = ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15))[strength - 1]
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    angle = np.radians(rng.uniform(-45, 45, len(x)))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    every = np.arange(len(x))[:, None, None]
    total = np.zeros_like(x)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        down, right = (
            np.ceil(step * f(angle) - 0.5).astype(int)[:, None, None] for f in (np.sin, np.cos)
        )
        at = (np.clip(c, 0, SIZE - 1) for c in (rows + down, columns + right))
        total += weight * x[(every, *at)]
    return total


# Geometry


def _warped(x: np.ndarray, a: np.ndarray, moved: np.ndarray | float = 0.0) -> np.ndarray:
    """Bilinear: the pixel at p comes from a (p - middle) + middle + moved; 0 outside.

    `a` is (n, 2, 2) or (2, 2), `moved` (n, 2) or a number, both in the order across, down.
    """
    a = np.broadcast_to(a, (len(x), 2, 2))
    middle = (SIZE - 1) / 2
    rest = middle + np.broadcast_to(moved, (len(x), 2)) - a.sum(axis=2) * middle
    rows = np.concatenate([a, rest[:, :, None]], axis=2).reshape(len(x), 6)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=x[..., None].astype(np.float32),
        transforms=np.pad(rows, ((0, 0), (0, 2))).astype(np.float32),
        output_shape=[SIZE, SIZE],
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
        fill_value=0.0,
    ).numpy()[..., 0]


def _signs(rng: Generator, *shape: int) -> np.ndarray:
    return rng.choice([-1.0, 1.0], shape)


def _shear(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    angle = 0.2 * strength * _signs(rng, len(x))
    # scikit-image's shear of 2019: an angle, so that height shrinks by its cosine.
    return _warped(x, _matrices(np.ones_like(angle), -np.sin(angle), 0 * angle, np.cos(angle)))


def _rotate(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    angle = 0.2 * strength * _signs(rng, len(x))
    cos, sin = np.cos(angle), np.sin(angle)
    return _warped(x, _matrices(cos, -sin, sin, cos))


def _matrices(*entries: np.ndarray) -> np.ndarray:
    return np.stack(entries, axis=1).reshape(-1, 2, 2)


def _scale(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    return _warped(x, np.eye(2) / (1 - 0.1 * strength))


def _translate(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    return _warped(x, np.eye(2), strength * _signs(rng, len(x), 2))


# Things in the way


def _stripe(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    width = (3, 4, 5, 6, 7)[strength - 1]
    x = x.copy()
    for part in (np.s_[:, :, :width], np.s_[:, :, SIZE - width :]):
        x[part] = 1 - x[part]
    return x


def _spatter(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    mean, sd, sigma, least, soft = (
        (0.65, 0.3, 4, 0.69, 0.6),
        (0.65, 0.3, 3, 0.68, 0.6),
        (0.65, 0.3, 2, 0.68, 0.5),
        (0.65, 0.3, 1, 0.65, 1.5),
        (0.67, 0.4, 1, 0.65, 1.5),
    )[strength - 1]
    liquid = _blurred(rng.normal(mean, sd, x.shape), sigma)
    mud = _blurred((liquid > least).astype(float), soft)
    mud[mud < 0.8] = 0
    return x * (1 - mud) + 63 / 255 * mud


def _line(column0: float, row0: float, column1: float, row1: float) -> np.ndarray:
    """A soft line (28, 28) between two points; none if it is upright."""
    if column0 == column1:
        return np.zeros((SIZE, SIZE))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    slope = (row1 - row0) / (column1 - column0)
    distance = np.minimum(np.abs(rows - slope * (columns - column0) - row0), 2.3 - 1e-10)
    line = np.clip(np.log(1 - distance / 2.3) + 1, 0, 1)
    line[:, : max(0, int(np.floor(column0)))] = 0
    line[:, max(0, int(np.ceil(column1))) :] = 0
    return line


def _dotted_line(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    def dotted() -> np.ndarray:
        line = _line(0, rng.integers(27), 27, rng.integers(27))
        line[:, np.arange(SIZE) // 2 % 2 == 0] = 0
        return line

    return x + [sum(dotted() for _ in range(strength)) for _ in x]


def _zigzag(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    length = width = 2.0

    def zigzag() -> np.ndarray:
        left, right, row = 2, 25, rng.integers(27)
        angle = np.arctan(rng.integers(-5, 5) / (right - left))
        whole = (right - left) / np.cos(angle)
        count = int((whole - length) // (2 * length)) + 1
        points = [(0.0, 0.0)]
        points += [((2 * i + 1) * length, (-1) ** i * width) for i in range(count)]
        rest = whole - 2 * length * (whole // (2 * length))
        if rest:
            points.append((whole, points[-1][1] / (2 * rest)))
        cos, sin = np.cos(angle), np.sin(angle)
        ends = [(cos * c - sin * r + left, sin * c + cos * r + row) for c, r in points]
        return sum(_line(*a, *b) for a, b in pairwise(ends))

    # The published code takes pixels of 0 to 255 here and clips them at 1: any ink becomes full.
    return np.ceil(x) + [sum(zigzag() for _ in range(strength)) for _ in x]


def _canny_edges(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    sigma = (0.25, 0.5, 1.0, 1.25, 1.5)[strength - 1]
    return np.stack([canny(image, sigma) for image in x]).astype(float)


# Our own


def _thickness(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """Thicker or thinner strokes: grey dilation of half of the images, erosion of the others."""
    thick, thin = ndimage.grey_dilation(x, (1, 3, 3)), ndimage.grey_erosion(x, (1, 2, 2))
    changed = np.where(_signs(rng, len(x), 1, 1) > 0, thick, thin)
    return x + strength / 5 * (changed - x)


def _elastic(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """A smooth field moves each pixel; sigma 4 as in Simard et al. 2003; sd strength / 2."""
    field = ndimage.gaussian_filter(rng.uniform(-1, 1, (2, *x.shape)), (0, 0, 4, 4))
    field *= 0.5 * strength / field.std()
    index, rows, columns = np.mgrid[: len(x), :SIZE, :SIZE].astype(float)
    return ndimage.map_coordinates(x, [index, rows + field[0], columns + field[1]], order=1)


def _occlusion(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """A black square somewhere over the digit's 20 x 20 box."""
    side = 2 + 2 * strength
    top, left = rng.integers(4, 24 - side + 1, (2, len(x), 1, 1))
    rows, columns = np.mgrid[:SIZE, :SIZE]
    covered = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
    return np.where(covered, 0, x)


def _low_resolution(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """Shrunk to fewer pixels and enlarged again."""
    factor = (0.8, 0.65, 0.5, 0.4, 0.3)[strength - 1]
    small = ndimage.zoom(_blurred(x, 0.4 / factor), (1, factor, factor), order=1)
    back = SIZE / small.shape[1]
    return ndimage.zoom(small, (1, back, back), order=1)


def _inversion(x: np.ndarray, strength: int, rng: Generator) -> np.ndarray:
    """Towards the negative: at 5 black on white."""
    share = strength / 5
    return (1 - share) * x + share * (1 - x)


KINDS = {
    "shot_noise": Kind(_shot_noise, 5, like_training=True),
    "impulse_noise": Kind(_impulse_noise, 4, like_training=True),
    "glass_blur": Kind(_glass_blur, 1, like_training=True),
    "motion_blur": Kind(_motion_blur, 1, like_training=True),
    "shear": Kind(_shear, 2, like_training=True),
    "scale": Kind(_scale, 3, like_training=True),
    "rotate": Kind(_rotate, 2, like_training=True),
    "brightness": Kind(_brightness, 5, like_training=True),
    "translate": Kind(_translate, 3, like_training=True),
    "stripe": Kind(_stripe, 5, like_training=True),
    "fog": Kind(_fog, 5),
    "spatter": Kind(_spatter, 4),
    "dotted_line": Kind(_dotted_line, 1),
    "zigzag": Kind(_zigzag, 1),
    "canny_edges": Kind(_canny_edges, 3),
    "thickness": Kind(_thickness, 3, in_mnist_c=False),
    "elastic": Kind(_elastic, 3, in_mnist_c=False, like_training=True),
    "occlusion": Kind(_occlusion, 3, in_mnist_c=False, like_training=True),
    "low_resolution": Kind(_low_resolution, 3, in_mnist_c=False, like_training=True),
    "inversion": Kind(_inversion, 5, in_mnist_c=False, like_training=True),
}
